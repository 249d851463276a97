"""Rows that follow from another data set: its questions answered by others, or its responses without the thinking."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reprokit.benchmarks.interface import Item
from reprokit.building.directory import DatasetDirectory, Prepared
from reprokit.building.questions import identity, mathematics_item
from reprokit.building.rows_file import BuiltRow
from reprokit.building.schema import AnswerFormat, AnswersRecipe, CutRecipe
from reprokit.building.sources import last_turn, listed, question_of, rows, text
from reprokit.building.thinking import cut, whole
from reprokit.errors import UserError
from reprokit.evaluation.scoring import Pool, Task
from reprokit.recipe.registry import QUESTIONS
from reprokit.records.files import write_json_lines
from reprokit.records.progress import ProgressBar

Pairs = Iterator[tuple[str, list[str]]]  # question, answers to it


def _openr1(files: Sequence[Path]) -> Pairs:
    for row in rows(files, ("problem", "generations")):
        yield text(row["problem"]), [whole(text(one)) for one in listed(row["generations"]) if text(one)]


def _luffy(files: Sequence[Path]) -> Pairs:
    for row in rows(files, ("prompt", "target")):
        answer = last_turn(row["target"], "assistant")
        yield question_of(last_turn(row["prompt"], "user")), [whole(answer)] if answer else []


def _numina(files: Sequence[Path]) -> Pairs:
    for row in rows(files, ("problem", "solution")):
        solution = text(row["solution"])
        yield text(row["problem"]), [solution] if solution else []


READERS: dict[AnswerFormat, Callable[[Sequence[Path]], Pairs]] = {
    AnswerFormat.openr1_math: _openr1,
    AnswerFormat.luffy: _luffy,
    AnswerFormat.numina_math: _numina,
}


def base_rows(prepared: Prepared) -> list[BuiltRow]:
    """The rows of the data set that is the base.

    Raises:
        UserError: it is not of the columns of the published ones.
    """
    found = []
    columns = ("message", "response", "answer")
    for number, row in enumerate(rows([Path(path) for path in prepared.files["base"]], columns), start=1):
        said = last_turn(row["message"], "user") if isinstance(row["message"], list) else text(row["message"])
        if not said or not isinstance(row["response"], str):
            raise UserError(f"row {number} of {prepared.files['base'][0]} has no user turn or no response")
        found.append(BuiltRow([{"role": "user", "content": said}], row["response"], _plain(row["answer"])))
    return found


def _plain(answer: Any) -> str:
    return "" if answer is None else str(answer)


def cut_rows(recipe: CutRecipe, base: Sequence[BuiltRow], outcome: Counter[str]) -> list[BuiltRow]:
    """The rows without their thinking; a row of which nothing is left is left out."""
    made: list[BuiltRow] = []
    for row in base:
        rest = cut(row.response)
        if not rest:
            outcome["nothing follows the thinking"] += 1
        else:
            made.append(BuiltRow(row.message, rest, row.answer))
    return _first(made, recipe.rows, outcome)


def _first(made: list[BuiltRow], count: int | None, outcome: Counter[str]) -> list[BuiltRow]:
    """The first `count` rows, or all for None; adds to `outcome` how many were kept, and how many there are more."""
    kept = made[:count]
    if len(kept) < len(made):
        outcome["more than rows"] += len(made) - len(kept)
    outcome["kept"] += len(kept)
    return kept


def answered_rows(
    directory: DatasetDirectory,
    recipe: AnswersRecipe,
    prepared: Prepared,
    base: Sequence[BuiltRow],
    outcomes: tuple[Counter[str], Counter[str]],
    progress: Path,
) -> list[BuiltRow]:
    """The questions of `base` with answers of others; adds to `outcomes` what became of questions and of answers."""
    of_questions, of_answers = outcomes
    wanted = {identity(question_of(row.prompt)) for row in base}
    found: dict[str, list[str]] = defaultdict(list)
    for question, answers in READERS[recipe.answers.format]([Path(path) for path in prepared.files["answers"]]):
        name = identity(question)
        if name in wanted:
            found[name] += [answer for answer in answers if answer not in found[name]]
    if recipe.answers.verify:
        right = _right(directory, base, found, of_answers, progress)
    else:
        right = found
        of_answers["not verified"] += sum(map(len, found.values()))
    made: list[BuiltRow] = []
    for row in base:
        name = identity(question_of(row.prompt))
        if not right.get(name):
            of_questions["no right answer in answers" if found.get(name) else "no answer in answers"] += 1
        else:
            chosen = random.Random(f"{recipe.seed}/{name}").choice(right[name])
            made.append(BuiltRow(row.message, chosen, row.answer))
    return _first(made, recipe.rows, of_questions)


def _right(
    directory: DatasetDirectory,
    base: Sequence[BuiltRow],
    found: dict[str, list[str]],
    outcome: Counter[str],
    progress: Path,
) -> dict[str, list[str]]:
    """The answers whose last box, after any thinking, math-verify finds equal to the answer of the base."""
    items: dict[str, Item] = {}
    for row in base:
        item = mathematics_item(question_of(row.prompt), row.answer)
        items.setdefault(item.id, item)
    write_json_lines(directory.questions, items.values())
    tasks = [Task(name, number, answer, True, {}) for name, all_ in found.items() for number, answer in enumerate(all_)]
    right: dict[str, list[str]] = defaultdict(list)
    with (
        Pool(QUESTIONS, directory.questions) as pool,
        ProgressBar(total=len(tasks), desc="verify", path=progress) as bar,
    ):
        for task, score in zip(tasks, pool.score(tasks, bar.update), strict=True):
            is_right = score.values["clean"]["accuracy"] == 1.0
            outcome["correct" if is_right else "wrong answer"] += 1
            if is_right:
                right[task.item].append(task.text)
        outcome["wrong answer"] -= len(pool.failures)
        outcome["could not be scored (time or memory)"] += len(pool.failures)
    return right
