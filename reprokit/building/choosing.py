"""Verdicts of all shards -> the rows of the data set: one right response per question, chosen with the seed."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from reprokit.benchmarks.interface import Item
from reprokit.building.directory import DatasetDirectory, Prepared
from reprokit.building.questions import rank
from reprokit.building.rows_file import BuiltRow
from reprokit.building.schema import TeacherRecipe
from reprokit.building.thinking import whole
from reprokit.building.verify import CORRECT, is_sampled, read_verdicts
from reprokit.errors import UserError
from reprokit.recipe.registry import QUESTIONS
from reprokit.records.files import read_json_lines
from reprokit.records.result import Sample


@dataclass
class Choice:
    """What the verdicts give: of each question that is kept its shard and sample, in the order of the file."""

    kept: list[tuple[str, int, int]] = field(default_factory=list)  # question, shard, sample
    questions: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    failures: int = 0  # responses whose scoring failed


def choose(directory: DatasetDirectory, recipe: TeacherRecipe, prepared: Prepared) -> Choice:
    """Choose rows, responses and order with the seed; more questions or samples elsewhere change none of the others.

    Raises:
        UserError: shards are not verified, or fewer questions than rows have a right response.
    """
    choice = Choice(questions=Counter(prepared.rejected))
    solved: dict[str, tuple[int, list[int]]] = {}
    without = []
    for number in range(prepared.shards):
        # Verdicts on fewer samples than the recipe asks for now are current as well.
        verdicts = read_verdicts(directory, number) if is_sampled(directory, recipe, number) else None
        if verdicts is None:
            without.append(number)
            continue
        choice.failures += len(verdicts.failures)
        outcomes: dict[str, dict[int, str]] = defaultdict(dict)
        for one in verdicts.verdicts:
            outcomes[one.item][one.sample] = one.verdict
            choice.responses[one.verdict] += 1
        for item, found in outcomes.items():
            right = [sample for sample, verdict in sorted(found.items()) if verdict == CORRECT]
            if right:
                solved[item] = number, right
            else:
                choice.questions[_reason(set(found.values()))] += 1
    if without:
        shown = ", ".join(map(str, without[:5]))
        raise UserError(
            f"{len(without)} of {prepared.shards} shards are not sampled and verified, such as {shown}; their logs "
            f"are in {directory.run.logs}. Give the same command again: only what is missing is done."
        )
    order = sorted(solved, key=lambda item: rank(recipe.seed, item))
    if len(order) < recipe.rows:
        outcome = ", ".join(f"{reason}: {number:,}" for reason, number in choice.questions.most_common())
        raise UserError(
            f"rows={recipe.rows}, but only {len(order)} questions have a right response ({outcome}). Give the same "
            f"command with rows={len(order)}, or with a larger sampling.samples: what was drawn is kept"
        )
    choice.questions["right response, but more than rows"] += len(order) - recipe.rows
    choice.questions["kept"] += recipe.rows
    for item in order[: recipe.rows]:
        number, right = solved[item]
        choice.kept.append((item, number, random.Random(f"{recipe.seed}/{item}").choice(right)))
    return choice


def _reason(verdicts: set[str]) -> str:
    if len(verdicts) == 1:
        return f"no right response: all {verdicts.pop()}"
    return "no right response: of several kinds"


def chosen_rows(directory: DatasetDirectory, choice: Choice) -> tuple[list[BuiltRow], list[int]]:
    """The rows, and the tokens of their responses.

    Raises:
        UserError: a file of samples is damaged.
    """
    place = {(item, sample): index for index, (item, _, sample) in enumerate(choice.kept)}
    rows: dict[int, BuiltRow] = {}
    tokens: dict[int, int] = {}
    for number in sorted({shard for _, shard, _ in choice.kept}):
        shard = directory.shard(number)
        items = {item.id: item for item in read_json_lines(shard.items(QUESTIONS), Item)}
        for sample in read_json_lines(shard.samples(0, QUESTIONS), Sample):
            index = place.get((sample.item, sample.sample))
            if index is not None:
                item = items[sample.item]
                rows[index] = BuiltRow(item.messages, whole(sample.text), item.answer["text"])
                tokens[index] = sample.response_tokens
    return [rows[index] for index in range(len(place))], [tokens[index] for index in range(len(place))]
