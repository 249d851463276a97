"""The questions that a teacher is asked: read from OpenR1-Math-220k, or Countdown puzzles that are made here."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from reprokit.benchmarks.grading.mathematics import in_box
from reprokit.benchmarks.interface import Item
from reprokit.building.sources import last_turn, normal, question_of, rows, text
from reprokit.data.countdown import Puzzle
from reprokit.data.prompts import BOX_INSTRUCTION
from reprokit.errors import UserError

# Countdown, our choice after TinyZero's task of three or four numbers: the paper does not give its rule.
SIZES = (3, 4)
NUMBERS = range(1, 100)
TARGETS = range(10, 100)
MOST_DRAWS = 1000  # per puzzle that is asked for

NO_ANSWERS = {"proof", "notfound", "null", "none"}  # as NuminaMath marks questions without a final answer


def rank(seed: int, name: str) -> str:
    """Sorting by it is a random order that does not depend on what else is sorted."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def identity(question: str) -> str:
    """Name of a question, the same whatever its white space."""
    return hashlib.sha256(normal(question).encode()).hexdigest()[:16]


def mathematics_item(question: str, answer: str) -> Item:
    """A question with the training prompt; right is what math-verify finds equal to `answer`."""
    return Item(
        id=identity(question),
        messages=[{"role": "user", "content": question + BOX_INSTRUCTION}],
        answer={"text": answer, "official": in_box(answer), "clean": in_box(answer)},
    )


def openr1_questions(files: Sequence[Path], among: set[str] | None, rejected: Counter[str]) -> Iterator[Item]:
    """The questions of files with the columns `problem` and `answer`; adds to `rejected` why others are none.

    Args:
        among: identities of the questions to take; None for all.
    """
    seen: set[str] = set()
    for row in rows(files, ("problem", "answer")):
        question, answer = text(row["problem"]), text(row["answer"])
        if not question:
            rejected["no text"] += 1
        elif not answer or answer.lower() in NO_ANSWERS:
            rejected["no final answer"] += 1
        elif identity(question) in seen:
            rejected["duplicate question"] += 1
        elif among is not None and identity(question) not in among:
            rejected["not among the questions of questions.among"] += 1
        else:
            seen.add(identity(question))
            yield mathematics_item(question, answer)


def luffy_questions(files: Sequence[Path]) -> set[str]:
    """Identities of the questions of files in the layout of LUFFY's data."""
    return {identity(question_of(last_turn(row["prompt"], "user"))) for row in rows(files, ("prompt",))}


def draw(items: Iterable[Item], count: int | None, seed: int, rejected: Counter[str]) -> list[Item]:
    """`count` of the items in random order, or all for None.

    Raises:
        UserError: there are fewer, or none.
    """
    found = sorted(items, key=lambda item: rank(seed, item.id))
    if not found or (count is not None and len(found) < count):
        reasons = ", ".join(f"{reason}: {number}" for reason, number in rejected.most_common()) or "none was rejected"
        raise UserError(f"questions.count={count}, but there are {len(found)} questions ({reasons}); lower it")
    rejected["not drawn (questions.count)"] += len(found) - (count or len(found))
    return found[:count]


def countdown_questions(count: int, seed: int, rejected: Counter[str]) -> list[Item]:
    """`count` different solvable puzzles, none of them a puzzle of our Countdown benchmarks.

    Three or four numbers from 1 to 99 and a target from 10 to 99 that an expression of all of them has: numbers, order
    and operations are drawn until it does. Puzzles that the benchmarks may hold are those of three numbers with a
    number given twice, and every tenth of the others by the hash of its name.

    Raises:
        UserError: there are not so many.
    """
    generator = random.Random(seed)
    found: dict[str, Item] = {}
    for _ in range(MOST_DRAWS * count):
        if len(found) == count:
            return list(found.values())
        numbers = [generator.choice(NUMBERS) for _ in range(generator.choice(SIZES))]
        target = _value(numbers, generator)
        if target is None:
            continue
        item = puzzle_item(numbers, target)
        if item.id in found:
            rejected["duplicate question"] += 1
        elif is_held_out(numbers, target):
            rejected["puzzle held out for the Countdown benchmarks"] += 1
        else:
            found[item.id] = item
    raise UserError(f"questions.count={count}: only {len(found)} different puzzles were found; lower it")


def _value(numbers: Sequence[int], generator: random.Random) -> int | None:
    """Value of a random expression that uses each number once; None unless it is a target."""
    values = [Fraction(number) for number in numbers]
    while len(values) > 1:
        right, left = (values.pop(generator.randrange(len(values))) for _ in range(2))
        operator = generator.choice("+-*/")
        if operator == "/" and right == 0:
            return None
        results = {"+": left + right, "-": left - right, "*": left * right}
        values.append(left / right if operator == "/" else results[operator])
    return int(values[0]) if values[0].denominator == 1 and values[0] in TARGETS else None


def is_held_out(numbers: Sequence[int], target: int) -> bool:
    """Whether the Countdown benchmarks may have the puzzle; all of theirs have three numbers."""
    if len(numbers) != 3:
        return False
    a, b, c = numbers
    puzzle = Puzzle((a, b, c), target)
    return puzzle.repeats or puzzle.held_out


def puzzle_item(numbers: Sequence[int], target: int) -> Item:
    """A puzzle as a question, named by its numbers and target."""
    listed = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    question = (
        f"Using each of the numbers {listed} exactly once, with +, -, *, / and parentheses, write an expression that "
        f"equals {target}. Write nothing but the expression into the box: no equals sign."
    )
    return Item(
        id="-".join(map(str, [*sorted(numbers), target])),
        messages=[{"role": "user", "content": question + BOX_INSTRUCTION}],
        answer={"text": str(target), "numbers": list(numbers), "target": target},
    )
