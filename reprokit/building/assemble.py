"""The last stage: the file of the data set and its report."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from reprokit.benchmarks.interface import Item
from reprokit.building import others
from reprokit.building.choosing import choose, chosen_rows
from reprokit.building.directory import DatasetDirectory, Prepared
from reprokit.building.overlap import overlap
from reprokit.building.report import BuildReport, Lengths, describe, lengths_of
from reprokit.building.rows_file import BuiltRow, write_rows
from reprokit.building.schema import AnswersRecipe, CutRecipe, DatasetRecipe, TeacherRecipe
from reprokit.building.sources import question_of
from reprokit.errors import UserError
from reprokit.records import provenance
from reprokit.records.files import DamagedFileError, read_json, read_json_lines, sha256_of_file, write_json


def inputs_digest(directory: DatasetDirectory, recipe: DatasetRecipe, prepared: Prepared) -> str:
    """Of everything that decides the file and the report."""
    digest = hashlib.sha256(msgspec.json.encode(asdict(recipe)))
    digest.update(msgspec.json.encode(prepared))
    for number in range(prepared.shards):
        path = directory.verdicts(number)
        digest.update(sha256_of_file(path).encode() if path.exists() else b"none")
    return digest.hexdigest()


def read_report(directory: DatasetDirectory, recipe: DatasetRecipe) -> BuildReport | None:
    """The report of a data set that is complete and of the recipe as it is now, else None."""
    prepared = directory.read_prepared()
    try:
        report = read_json(directory.report, BuildReport)
        there = report.sha256 == sha256_of_file(directory.file)
    except (FileNotFoundError, DamagedFileError):
        return None
    return report if there and prepared and report.made_from == inputs_digest(directory, recipe, prepared) else None


def assemble(directory: DatasetDirectory, recipe: DatasetRecipe, progress: Path) -> None:
    """Write the file, then the report, and print this.

    Raises:
        UserError: shards are missing, or there are fewer rows than asked for.
    """
    prepared = directory.read_prepared()
    if prepared is None:
        raise UserError(f"{directory.root} is not prepared; launch again, with the stage prepare")
    of_questions: Counter[str] = Counter()
    of_responses: Counter[str] = Counter()
    notes: list[str] = []
    if isinstance(recipe, TeacherRecipe):
        choice = choose(directory, recipe, prepared)
        of_questions, of_responses = choice.questions, choice.responses
        rows, tokens = chosen_rows(directory, choice)
        lengths = lengths_of("tokens", f"tokenizer of {recipe.model.name}", tokens)
        if choice.failures:
            notes.append(
                f"{choice.failures} responses could not be scored and count as wrong (verdicts.json of shards)"
            )
    else:
        rows = _other_rows(directory, recipe, prepared, (of_questions, of_responses), progress)
        lengths = _count(directory, recipe.tokenizer, [row.response for row in rows])
    made_from = inputs_digest(directory, recipe, prepared)
    report = BuildReport(
        dataset=directory.name,
        made=recipe.made.value,
        rows=len(rows),
        sha256=write_rows(directory.file, rows),
        made_from=made_from,
        seed=getattr(recipe, "seed", 0),
        questions={reason: number for reason, number in of_questions.most_common() if number},
        responses={outcome: number for outcome, number in of_responses.most_common() if number},
        lengths=lengths,
        overlap={name: overlap(_questions(rows), _items(directory, name)) for name in recipe.overlap},
        sources=prepared.sources,
        settings=_settings(recipe),
        provenance=provenance.gather(),
        notes=notes,
    )
    write_json(directory.report, report)
    print(describe(report), flush=True)


def _other_rows(
    directory: DatasetDirectory,
    recipe: AnswersRecipe | CutRecipe,
    prepared: Prepared,
    outcomes: tuple[Counter[str], Counter[str]],
    progress: Path,
) -> list[BuiltRow]:
    base = others.base_rows(prepared)
    if isinstance(recipe, AnswersRecipe):
        rows = others.answered_rows(directory, recipe, prepared, base, outcomes, progress)
    else:
        rows = others.cut_rows(recipe, base, outcomes[0])
    if not rows or (recipe.rows is not None and len(rows) < recipe.rows):
        shown = ", ".join(f"{reason}: {number:,}" for reason, number in outcomes[0].most_common())
        raise UserError(
            f"rows={recipe.rows}, but {len(rows)} rows can be made of the {len(base)} of the base ({shown}). Lower "
            "rows, or leave it out (rows=null) to take what there is"
        )
    return rows


def _questions(rows: Sequence[BuiltRow]) -> list[str]:
    return [question_of(row.prompt) for row in rows]


def _items(directory: DatasetDirectory, name: str) -> list[Item]:
    return list(read_json_lines(directory.teacher.items(name), Item))


def _count(directory: DatasetDirectory, tokenizer: str | None, responses: Sequence[str]) -> Lengths:
    if tokenizer is None:
        return lengths_of("words", "separated by blanks", [len(response.split()) for response in responses])
    from transformers import AutoTokenizer

    counting: Any = AutoTokenizer.from_pretrained(directory.tokenizer)
    counts = [len(counting(response, add_special_tokens=False)["input_ids"]) for response in responses]
    return lengths_of("tokens", f"tokenizer {Path(tokenizer).name}", counts)


def _settings(recipe: DatasetRecipe) -> dict[str, Any]:
    """The recipe as plain data, without the folders of this machine."""
    return dict(_without_paths(msgspec.to_builtins(asdict(recipe))))


def _without_paths(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_paths(below) for key, below in value.items() if key != "path"}
