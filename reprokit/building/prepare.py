"""Everything that the jobs of a data set need, made where the network is: questions, teacher, shards, sources."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from reprokit.benchmarks.interface import Item
from reprokit.building import questions
from reprokit.building.asking import asked, difference, overlap_recipe, overlap_sets, shard_recipe, write_shard_recipe
from reprokit.building.directory import DatasetDirectory, Prepared
from reprokit.building.schema import (
    AnswersRecipe,
    CutRecipe,
    DatasetRecipe,
    FilesSection,
    QuestionFormat,
    TeacherRecipe,
)
from reprokit.building.sources import find
from reprokit.errors import UserError
from reprokit.evaluation.problems import ItemsSource, asked_of, stamps
from reprokit.evaluation.scoring import Pool, Task
from reprokit.preparation.base_model import complete_tokenizer, local_weights, prepare_base, prepare_tokenizer
from reprokit.preparation.benchmark_items import prepare_items
from reprokit.recipe.registry import QUESTIONS
from reprokit.recipe.schema import ModelSection, TrainingSection
from reprokit.records.files import sha256_of_file, write_json, write_json_lines
from reprokit.records.manifest import Manifest
from reprokit.records.progress import ProgressBar
from reprokit.records.run_directory import RunDirectory


def prepare(directory: DatasetDirectory, recipe: DatasetRecipe, progress: Path) -> None:
    """Make the inputs of all jobs; what is there already for the same questions is kept.

    Raises:
        UserError: a source or the teacher cannot be fetched or read, or there are too few questions.
    """
    before = directory.read_prepared()
    kept = before if before is not None and not difference(before, recipe) else None
    if before is not None and kept is None:  # should this be killed, shards are neither the old ones nor the new
        write_json(directory.prepared, msgspec.structs.replace(before, asked={"made": recipe.made.value}))
    with ProgressBar(total=2, desc="prepare", unit="part", path=progress) as bar:
        if isinstance(recipe, TeacherRecipe):
            _prepare_overlap(directory, recipe)  # what is quickly told goes first
            made = kept or _prepare_teacher(directory, recipe, progress)
        else:
            made = kept or _prepare_sources(directory, recipe)
            _prepare_overlap(directory, recipe)
        bar.update()
        write_json(directory.prepared, msgspec.structs.replace(made, overlap=overlap_sets(directory, recipe)))
        bar.update()


def _prepare_overlap(directory: DatasetDirectory, recipe: DatasetRecipe) -> None:
    """Problems of the evaluation sets, in the run folder of the teacher."""
    try:
        prepare_items(directory.teacher, overlap_recipe(recipe))
    except UserError as error:
        said = str(error).replace("evaluation.benchmarks.", "overlap.")
        raise UserError(f"{said}\nOr leave the set out of the comparison: overlap.NAME=false") from None


def _prepare_sources(directory: DatasetDirectory, recipe: AnswersRecipe | CutRecipe) -> Prepared:
    sections: dict[str, FilesSection] = {"base": recipe.base}
    if isinstance(recipe, AnswersRecipe):
        sections["answers"] = recipe.answers
    found = {key: find(key, section, directory.root.parent) for key, section in sections.items()}
    if recipe.tokenizer is not None:
        _keep_tokenizer(directory, recipe.tokenizer)
    return Prepared(
        asked=asked(recipe),
        overlap={},
        sources={key: facts for key, (_, facts) in found.items()},
        files={key: [str(path) for path in files] for key, (files, _) in found.items()},
        stamps=_stamps({key: (sections[key], files) for key, (files, _) in found.items()}),
    )


def _keep_tokenizer(directory: DatasetDirectory, named: str) -> None:
    """Keep what counts lengths where the job finds it without a network."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(named, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"tokenizer={named} cannot be loaded: {error}\nGive a folder, or tokenizer=null to count words"
        ) from error
    tokenizer.save_pretrained(directory.tokenizer)


class _Asks:
    """The questions of a recipe; `items` fills in what was read and how many questions were rejected for what."""

    def __init__(self, directory: DatasetDirectory, recipe: TeacherRecipe, progress: Path) -> None:
        self.directory, self.asked, self.progress = directory, recipe.questions, progress
        self.rejected: Counter[str] = Counter()
        self.sources: dict[str, Any] = {}
        self.read: dict[str, tuple[FilesSection, list[Path]]] = {}

    def items(self) -> list[Item]:
        """Raises UserError when files cannot be had or read, or there are too few questions."""
        asked = self.asked
        if asked.format is QuestionFormat.countdown:
            assert asked.count is not None
            return questions.countdown_questions(asked.count, asked.seed, self.rejected)
        among = None
        if asked.among.path or asked.among.hub_id:
            among = questions.luffy_questions(self._files("questions.among", asked.among))
        found = list(questions.openr1_questions(self._files("questions", asked), among, self.rejected))
        return questions.draw(self._verifiable(found), asked.count, asked.seed, self.rejected)

    def _files(self, key: str, section: FilesSection) -> list[Path]:
        files, self.sources[key] = find(key, section, self.directory.root.parent)
        self.read[key] = section, files
        return files

    def _verifiable(self, items: list[Item]) -> list[Item]:
        """Those whose own answer math-verify finds equal to itself: no response to the others can be found right."""
        write_json_lines(self.directory.questions, items)
        tasks = [Task(item.id, 0, item.answer["clean"], True, {}) for item in items]
        with (
            Pool(QUESTIONS, self.directory.questions) as pool,
            ProgressBar(total=len(tasks), desc="read the answers", path=self.progress) as bar,
        ):
            scores = pool.score(tasks, bar.update)
        kept = [item for item, score in zip(items, scores, strict=True) if score.values["clean"]["accuracy"] == 1.0]
        failed = len(pool.failures)
        self.rejected["answer that math-verify cannot read"] += len(items) - len(kept) - failed
        self.rejected["answer whose reading failed (time or memory)"] += failed
        return kept


def _prepare_teacher(directory: DatasetDirectory, recipe: TeacherRecipe, progress: Path) -> Prepared:
    asks = _Asks(directory, recipe, progress)
    items = asks.items()
    write_json_lines(directory.questions, items)
    teacher = directory.teacher
    for folder in (teacher.tokenizer, teacher.checkpoint(0)):  # what a preparation that failed has left
        shutil.rmtree(folder, ignore_errors=True)
    _prepare_model(teacher, recipe.model)
    shards = [items[start : start + recipe.shard_size] for start in range(0, len(items), recipe.shard_size)]
    for number, part in enumerate(shards):
        _make_shard(directory, recipe, number, part)
    print(f"{len(items)} questions in {len(shards)} shards", flush=True)
    return Prepared(
        asked=asked(recipe),
        overlap={},
        sources={**asks.sources, "teacher": _facts(recipe.model, teacher)},
        files={},
        stamps=_stamps(asks.read),
        rejected={reason: number for reason, number in asks.rejected.items() if number},
        questions=len(items),
        shards=len(shards),
    )


def _stamps(read: dict[str, tuple[FilesSection, list[Path]]]) -> dict[str, str]:
    """Size and time of the files that are not from the hub, where a commit says what they are."""
    return stamps([path for section, files in read.values() if section.hub_id is None for path in files])


def _facts(model: ModelSection, teacher: RunDirectory) -> dict[str, Any]:
    """What is recorded of the teacher."""
    weights = teacher.weights(0)
    revision = weights.name if model.hub_id is not None else None
    return {
        "name": model.name,
        "hub_id": model.hub_id,
        "revision": revision,
        "config": sha256_of_file(weights / "config.json"),
    }


def _prepare_model(teacher: RunDirectory, model: ModelSection) -> None:
    """Tokenizer and weights of the teacher, once for all shards."""
    precision = TrainingSection().precision
    weights = local_weights(model)
    tokenizer = prepare_tokenizer(teacher, model, weights, [])
    prepare_base(teacher, model, precision, weights, tokenizer)
    complete_tokenizer(teacher)


def _make_shard(directory: DatasetDirectory, recipe: TeacherRecipe, number: int, items: Sequence[Item]) -> None:
    """A run folder that has its own questions, and the teacher by reference."""
    shard, own = directory.shard(number), shard_recipe(recipe, number)
    shard.root.mkdir(parents=True, exist_ok=True)
    write_shard_recipe(shard, own)
    if shard.tokenizer.is_symlink():
        shard.tokenizer.unlink()
    shutil.rmtree(shard.tokenizer, ignore_errors=True)
    shard.tokenizer.symlink_to(os.path.relpath(directory.teacher.tokenizer, shard.root))
    manifest = Manifest(step=0, weights=str(directory.teacher.weights(0)), revision=recipe.model.revision)
    write_json(shard.checkpoint(0) / "manifest.json", manifest)
    write_json_lines(shard.items(QUESTIONS), items)
    source = ItemsSource(
        benchmark=QUESTIONS,
        asked=asked_of(own, QUESTIONS),
        items=sha256_of_file(shard.items(QUESTIONS)),
        count=len(items),
    )
    write_json(shard.items_source(QUESTIONS), source)
