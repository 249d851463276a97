"""Countdown puzzles: the two sides never share a puzzle, and every trace is a true search."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from reprokit.benchmarks.grading.answers import final_answer
from reprokit.benchmarks.grading.expressions import evaluate
from reprokit.data import countdown
from reprokit.data.countdown import Puzzle
from reprokit.errors import UserError

LINE = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+), (\d+) -> (\d+):((?: \d+)+) (yes|no)")
ALL_TRAINING = 23_928
ALL_HELD_OUT = 519
ALL_REPEATS = 1464


def test_training_and_held_out_puzzles_are_disjoint_however_many_are_taken() -> None:
    training = countdown.training_puzzles(ALL_TRAINING, seed=3)
    held_out = countdown.held_out_puzzles(ALL_HELD_OUT, seed=4)
    assert len(set(training)) == ALL_TRAINING
    assert len({puzzle.key for puzzle in held_out}) == ALL_HELD_OUT
    assert {puzzle.key for puzzle in training}.isdisjoint(puzzle.key for puzzle in held_out)


def test_puzzles_with_repeated_numbers_are_never_trained_on() -> None:
    repeats = countdown.held_out_puzzles(ALL_REPEATS, seed=0, repeats=True)
    assert all(len(set(puzzle.numbers)) < 3 for puzzle in repeats)
    assert all(len(set(puzzle.numbers)) == 3 for puzzle in countdown.training_puzzles(ALL_TRAINING, seed=0))
    assert all(len(set(puzzle.numbers)) == 3 for puzzle in countdown.held_out_puzzles(ALL_HELD_OUT, seed=0))


def test_the_split_does_not_depend_on_the_order_of_the_numbers() -> None:
    assert Puzzle((3, 7, 5), 22).key == Puzzle((7, 5, 3), 22).key
    assert Puzzle((3, 7, 5), 22).held_out == Puzzle((7, 5, 3), 22).held_out


@pytest.mark.parametrize("puzzles", [countdown.training_puzzles, countdown.held_out_puzzles])
def test_a_seed_fixes_the_order_and_a_smaller_count_is_a_prefix(puzzles) -> None:
    assert puzzles(50, 1) == puzzles(200, 1)[:50]
    assert puzzles(50, 1) != puzzles(50, 2)


@pytest.mark.parametrize("count", [0, -1, ALL_TRAINING + 1])
def test_more_rows_than_puzzles_is_an_error_that_says_how_many_there_are(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} training rows .* 1 to {ALL_TRAINING}"):
        list(countdown.training_pairs(count, 0))


def test_the_search_of_a_known_puzzle() -> None:
    assert countdown.response(Puzzle((5, 3, 7), 22)) == (
        "<think>\n"
        "5 + 3 = 8, 7 -> 22: 15 1 56 no\n"
        "5 - 3 = 2, 7 -> 22: 9 5 14 no\n"
        "5 * 3 = 15, 7 -> 22: 22 yes\n"
        "</think>\n"
        "So 22 is \\boxed{(5 * 3) + 7}."
    )


def test_every_line_of_a_trace_is_true_and_only_the_last_one_holds_the_target() -> None:
    for puzzle in countdown.training_puzzles(2000, seed=0):
        thoughts = countdown.response(puzzle).split("<think>\n")[1].split("\n</think>")[0].split("\n")
        for line in thoughts:
            match = LINE.fullmatch(line)
            assert match, line
            left, sign, right, value, rest, target, reached, verdict = match.groups()
            assert evaluate(f"{left} {sign} {right}")[0] == int(value)
            assert int(target) == puzzle.target
            assert sorted(map(int, (left, right, rest))) == sorted(puzzle.numbers)
            m, r = int(value), int(rest)
            possible = {m + r, abs(m - r), m * r, m / r, r / m}
            assert {int(number) for number in reached.split()} <= possible
            assert (str(puzzle.target) in reached.split()) == (verdict == "yes") == (line is thoughts[-1])


def test_every_answer_solves_its_puzzle() -> None:
    for puzzle in countdown.training_puzzles(2000, seed=0):
        answer = final_answer(countdown.response(puzzle))
        assert answer is not None
        value, numbers = evaluate(answer)
        assert value == puzzle.target
        assert sorted(numbers) == sorted(puzzle.numbers)


def test_the_search_meets_several_dead_ends() -> None:
    dead_ends = [countdown.response(puzzle).count(" no\n") for puzzle in countdown.training_puzzles(2000, seed=0)]
    assert (min(dead_ends), max(dead_ends)) == (1, countdown.MOST_DEAD_ENDS)
    assert mean(dead_ends) >= 3


def test_a_puzzle_without_solution_has_no_trace() -> None:
    with pytest.raises(ValueError, match="no solution"):
        countdown.response(Puzzle((2, 2, 2), 99))
