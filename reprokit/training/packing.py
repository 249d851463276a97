"""Rows into micro-batches of equal work that fit a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pack(lengths: np.ndarray, costs: np.ndarray, groups: int, budget: int) -> list[list[list[int]]]:
    """Share rows out among `groups` data-parallel groups, each with the same number of micro-batches.

    The number of micro-batches is the smallest for which none has more than `budget` tokens. Those that the groups
    compute at the same time have about the same cost: ranks meet in every layer, where the slowest one decides.

    Args:
        lengths: int [rows], tokens of each row, none above `budget`.
        costs: float [rows], work of each row in any unit.

    Returns:
        [group][micro-batch] -> indices of rows; a micro-batch has no rows only where there are fewer rows than
        micro-batches.
    """
    rounds = max(1, -(-int(lengths.sum()) // (groups * budget)))
    while (packed := _in_rounds(lengths, costs, groups, rounds, budget)) is None:
        rounds += 1
    return [[bins[group] for bins in packed] for group in range(groups)]


def _in_rounds(
    lengths: np.ndarray, costs: np.ndarray, groups: int, rounds: int, budget: int
) -> list[list[list[int]]] | None:
    """[round][group] -> rows; None if they do not fit.

    The dearest rows come first, and with them as much as makes every group's share of a round as dear as the dearest
    row, or as an equal share of what is left.
    """
    left = np.argsort(-costs, kind="stable").tolist()
    packed = []
    for number in range(rounds):
        level = max(costs[left[0]], costs[left].sum() / (groups * (rounds - number))) if left else 0.0
        last = number == rounds - 1
        bins, left = _fill(left, lengths, costs, groups, budget, np.inf if last else level)
        packed.append(bins)
    return None if left else packed


def _fill(
    rows: Sequence[int], lengths: np.ndarray, costs: np.ndarray, groups: int, budget: int, level: float
) -> tuple[list[list[int]], list[int]]:
    """Rows, in their order, each into the cheapest of `groups` bins if neither level nor budget forbids; the rest."""
    bins: list[list[int]] = [[] for _ in range(groups)]
    tokens, spent = [0] * groups, [0.0] * groups
    rest = []
    for row in rows:
        room = [group for group in range(groups) if tokens[group] + lengths[row] <= budget]
        cheapest = min(room, key=spent.__getitem__, default=None)
        if cheapest is None or (bins[cheapest] and spent[cheapest] + costs[row] > level):
            rest.append(row)
            continue
        bins[cheapest].append(row)
        tokens[cheapest] += int(lengths[row])
        spent[cheapest] += float(costs[row])
    return bins, rest
