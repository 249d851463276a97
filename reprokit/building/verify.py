"""Which responses of a shard are right, and why the others are not kept. Needs no GPU."""

from __future__ import annotations

from pathlib import Path

from reprokit import benchmarks
from reprokit.benchmarks.interface import Item
from reprokit.building.asking import shard_recipe
from reprokit.building.directory import DatasetDirectory, Verdict, Verdicts
from reprokit.building.schema import TeacherRecipe
from reprokit.building.thinking import CLOSE
from reprokit.errors import UserError
from reprokit.evaluation.scoring import Pool, Task
from reprokit.recipe.registry import QUESTIONS
from reprokit.recipe.sampling import settings
from reprokit.records.files import DamagedFileError, read_json, sha256_of_file, write_json
from reprokit.records.progress import ProgressBar
from reprokit.records.result import FINISHED, Cell, Sample, SampleScore
from reprokit.records.sample_log import is_generated, read_items, read_samples

CELL = Cell(0, QUESTIONS)
CORRECT = "correct"


def is_sampled(directory: DatasetDirectory, recipe: TeacherRecipe, number: int) -> bool:
    """Whether a shard has all samples that the recipe asks for."""
    wanted = settings(shard_recipe(recipe, number).evaluation, QUESTIONS)
    return is_generated(directory.shard(number), CELL, wanted)


def is_verified(directory: DatasetDirectory, number: int) -> bool:
    """Whether a shard has verdicts on the samples that are there now, by the present scorer."""
    return read_verdicts(directory, number) is not None


def read_verdicts(directory: DatasetDirectory, number: int) -> Verdicts | None:
    """The verdicts of a shard; None unless they are current."""
    generation = directory.shard(number).generation(0, QUESTIONS)
    try:
        verdicts = read_json(directory.verdicts(number), Verdicts)
        current = verdicts.generation == sha256_of_file(generation)
    except (FileNotFoundError, DamagedFileError):
        return None
    return verdicts if current and verdicts.scorer == benchmarks.get(QUESTIONS).version else None


def verify(directory: DatasetDirectory, recipe: TeacherRecipe, number: int, progress: Path) -> None:
    """Write the verdicts of one shard.

    A response is kept if it ended by itself, has thought, and the answer after its thinking is right.

    Raises:
        UserError: the shard has not all of its samples, or they are damaged.
    """
    shard = directory.shard(number)
    if not is_sampled(directory, recipe, number):
        raise UserError(f"shard {number} has not all of its samples; launch again: only what is missing is drawn")
    samples = read_samples(shard, 0, QUESTIONS, len(read_items(shard, QUESTIONS, Item)))
    finished = [sample for sample in samples if _cut_short(sample) is None]
    with (
        Pool(QUESTIONS, shard.items(QUESTIONS)) as pool,
        ProgressBar(total=len(finished), desc=f"verify shard {number}", path=progress) as bar,
    ):
        tasks = [Task(sample.item, sample.sample, sample.text, True, {}) for sample in finished]
        scores = pool.score(tasks, bar.update)
    answered = {(score.item, score.sample): _judge(score) for score in scores}
    verdicts = [
        Verdict(
            item=sample.item,
            sample=sample.sample,
            verdict=_cut_short(sample) or answered[sample.item, sample.sample],
            tokens=sample.response_tokens,
        )
        for sample in samples
    ]
    made = Verdicts(
        generation=sha256_of_file(shard.generation(0, QUESTIONS)),
        scorer=benchmarks.get(QUESTIONS).version,
        verdicts=verdicts,
        failures=pool.failures,
    )
    write_json(directory.verdicts(number), made)


def _cut_short(sample: Sample) -> str | None:
    """Why a response cannot be right, whatever it says."""
    if sample.finish_reason == "no_room":
        return "question too long"
    if sample.finish_reason != FINISHED:
        return "truncated"
    return None if CLOSE in sample.text else "no finished thinking"


def _judge(score: SampleScore) -> str:
    if score.values["clean"]["accuracy"] == 1.0:
        return CORRECT
    return "no answer" if score.answers["clean"] is None else "wrong answer"
