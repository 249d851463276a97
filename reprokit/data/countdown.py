"""Three-number Countdown puzzles and the search trace of a depth-first solver.

A puzzle gives three numbers and a target; the answer is an expression that uses each number once. The solver
combines two of the numbers, lists what the result makes with the third, and goes back whenever the target is
not among it. Its trace, dead ends included, is the long chain of thought that a model is trained on:

    <think>
    5 + 3 = 8, 7 -> 22: 15 1 56 no
    5 - 3 = 2, 7 -> 22: 9 5 14 no
    5 * 3 = 15, 7 -> 22: 22 yes
    </think>
    So 22 is \\boxed{(5 * 3) + 7}.

Every line names the target again: a small model then learns to compare with it within a few hundred steps.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from reprokit.data.prompts import BOX_INSTRUCTION
from reprokit.errors import UserError

NUMBERS = range(2, 21)  # the given numbers
TARGETS = range(10, 61)
LARGEST = 60  # the search leaves out larger results: fewer facts to learn
MOST_DEAD_ENDS = 7  # keeps rows short; at least one is always met
HELD_OUT_SHARE = 10  # one puzzle in so many is held out


class Puzzle(NamedTuple):
    """Three numbers in the order in which the solver takes them, and the target."""

    numbers: tuple[int, int, int]
    target: int

    @property
    def key(self) -> str:
        """Name of the puzzle, whatever the order of its numbers."""
        return "-".join(str(number) for number in sorted(self.numbers)) + f"-{self.target}"

    @property
    def repeats(self) -> bool:
        """Whether a number is given more than once; training puzzles never do that."""
        return len(set(self.numbers)) < len(self.numbers)

    @property
    def held_out(self) -> bool:
        """Whether the puzzle belongs to the benchmark: decided by a hash of its key, so never in training too."""
        return int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8]) % HELD_OUT_SHARE == 0


class Combination(NamedTuple):
    """One arithmetic step: `left operator right = value`."""

    left: int
    operator: str
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


def combine(first: int, second: int) -> list[Combination]:
    """The steps that two positive numbers allow, in the solver's order: sum, difference, product, quotient."""
    high, low = max(first, second), min(first, second)
    steps = [
        Combination(first, "+", second, first + second),
        Combination(high, "-", low, high - low),
        Combination(first, "*", second, first * second),
    ]
    if low > 1 and high % low == 0:
        steps.append(Combination(high, "/", low, high // low))
    return [step for step in steps if 0 < step.value <= LARGEST]


def branches(numbers: tuple[int, int, int]) -> Iterator[tuple[Combination, int, list[Combination]]]:
    """The search tree, depth first: first step, the number left over, the second steps below it."""
    a, b, c = numbers
    for first, second, rest in ((a, b, c), (a, c, b), (b, c, a)):
        for step in combine(first, second):
            yield step, rest, combine(step.value, rest)


def prompt(puzzle: Puzzle) -> str:
    """The user turn."""
    a, b, c = puzzle.numbers
    return f"Make {puzzle.target} from {a}, {b} and {c}.{BOX_INSTRUCTION}"


def response(puzzle: Puzzle) -> str:
    """The solver's trace up to the first solution, then a summary with the answer in a box.

    Raises:
        ValueError: the search finds no solution.
    """
    lines = ["<think>"]
    for step, rest, seconds in branches(puzzle.numbers):
        values = [second.value for second in seconds]
        line = f"{step} = {step.value}, {rest} -> {puzzle.target}:"
        if puzzle.target not in values:
            lines.append(" ".join([line, *map(str, values), "no"]))
            continue
        hit = values.index(puzzle.target)
        lines.append(" ".join([line, *map(str, values[: hit + 1]), "yes"]))
        lines += ["</think>", f"So {puzzle.target} is \\boxed{{{_expression(step, seconds[hit])}}}."]
        return "\n".join(lines)
    raise ValueError(f"the search finds no solution of {puzzle}")


def _expression(step: Combination, second: Combination) -> str:
    """The two steps as one expression, the first in parentheses where its value stands in the second."""
    if second.left == step.value:
        return f"({step}) {second.operator} {second.right}"
    return f"{second.left} {second.operator} ({step})"


@cache
def _pool() -> tuple[Puzzle, ...]:
    """Every puzzle, in every order of its numbers, that the search solves after 1 to MOST_DEAD_ENDS dead ends."""
    pool: list[Puzzle] = []
    for a, b, c in product(NUMBERS, repeat=3):
        tree = [{second.value for second in seconds} for _, _, seconds in branches((a, b, c))]
        reachable = sorted(set().union(*tree[1 : MOST_DEAD_ENDS + 1]) - tree[0])
        pool.extend(Puzzle((a, b, c), target) for target in reachable if target in TARGETS)
    return tuple(pool)


def training_puzzles(count: int, seed: int) -> list[Puzzle]:
    """`count` different training puzzles in random order; another order of the numbers is another search.

    Raises:
        UserError: there are fewer puzzles than asked for.
    """
    puzzles = [puzzle for puzzle in _pool() if not puzzle.held_out and not puzzle.repeats]
    _check_count("training rows", count, len(puzzles))
    random.Random(seed).shuffle(puzzles)
    return puzzles[:count]


def held_out_puzzles(count: int, seed: int, repeats: bool = False) -> list[Puzzle]:
    """`count` different held-out puzzles, one order of the numbers each; a smaller count gives a prefix.

    With `repeats`, those that give a number more than once, which no training puzzle does.

    Raises:
        UserError: there are fewer puzzles than asked for.
    """
    orders: dict[str, list[Puzzle]] = {}
    for puzzle in _pool():
        if puzzle.repeats == repeats and (puzzle.held_out or repeats):
            orders.setdefault(puzzle.key, []).append(puzzle)
    _check_count("held-out items", count, len(orders))
    generator = random.Random(seed)
    puzzles = [generator.choice(same) for same in orders.values()]
    generator.shuffle(puzzles)
    return puzzles[:count]


def _check_count(what: str, count: int, available: int) -> None:
    if not 0 < count <= available:
        raise UserError(f"countdown: {count} {what} asked for; give a number from 1 to {available}")


def training_pairs(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """`count` pairs of user turn and response, none of a held-out puzzle.

    Raises:
        UserError: there are fewer puzzles than asked for.
    """
    for puzzle in training_puzzles(count, seed):
        yield prompt(puzzle), response(puzzle)
