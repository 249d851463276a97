"""Which rows each data-parallel group computes in every optimiser step, in which forward passes, with what weight.

The objective of a step is the sum over all passes of all groups of weight x (summed token loss of the pass).

standard: every target token of the global batch has the weight 1 / (target tokens of the global batch), so the
objective is their mean, however rows are packed.

official (protocol of the official code): 8 GPUs, micro-batches of M rows. GPU r computes in step k as its micro-batch
t the rows B*k + r + 8*(M*t + j), j < M, in the order of the file, the same in every epoch. A micro-batch counts with
the mean over its target tokens; those of a GPU are summed, not averaged, and GPUs averaged, so that a target token of
a micro-batch with n of them has the weight 1 / (8 * (n + 1e-8)). Any number of groups that can share the micro-batches
equally, or the rows of each, computes the same objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reprokit.data.tokens import TokenDataset
from reprokit.recipe.architecture import Architecture
from reprokit.recipe.schema import OFFICIAL_GPUS, Arithmetic, TrainingSection
from reprokit.training.packing import pack

OFFICIAL_EPSILON = 1e-8  # beside the number of target tokens of a micro-batch


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of a group: row numbers, and the weight of each of their target tokens.

    A pass of weight 0 only keeps its group in step with the others.
    """

    rows: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class StepPlan:
    """The passes of one optimiser step: `passes[group][i]`, as many for every group.

    `rows`: all row numbers; `imbalance`: time lost by waiting for the dearest of the passes that run at the same
    time, as a fraction of the work (0: none).
    """

    rows: np.ndarray
    passes: list[list[Pass]]
    imbalance: float


class Planner:
    """Plans every step of a training.

    Args:
        groups: data-parallel groups, which is ranks / training.sequence_parallel.
        budget: most tokens of a pass; None, for official arithmetic only: a whole micro-batch, whatever its size.
        architecture: for the work that a row is; None: as many operations as tokens.
    """

    def __init__(
        self, dataset: TokenDataset, training: TrainingSection, groups: int, architecture: Architecture | None
    ) -> None:
        self._training = training
        self._groups = groups
        self._lengths = np.asarray(dataset.lengths)
        self._targets = self._lengths - np.asarray(dataset.prompt_lengths)
        self._costs = _costs(self._lengths, self._targets, architecture)
        self._budget = training.micro_batch_tokens
        if self._budget is None and training.arithmetic is Arithmetic.standard:
            self._budget = dataset.report.max_length
        self._epoch_steps = len(self._lengths) // training.global_batch_size

    @property
    def total_steps(self) -> int:
        return self._epoch_steps * self._training.epochs

    def step(self, index: int) -> StepPlan:
        """The plan of update `index` (0-based)."""
        epoch, within = divmod(index, self._epoch_steps)
        batch = self._training.global_batch_size
        if self._training.arithmetic is Arithmetic.official:
            rows = np.arange(within * batch, (within + 1) * batch)
            passes = self._official(rows)
        else:
            order = np.random.default_rng((self._training.seed, epoch)).permutation(len(self._lengths))
            rows = order[within * batch : (within + 1) * batch]
            passes = self._standard(rows)
        return StepPlan(rows, passes, self._imbalance(passes))

    def _standard(self, rows: np.ndarray) -> list[list[Pass]]:
        assert self._budget is not None
        weight = 1.0 / int(self._targets[rows].sum())
        packed = pack(self._lengths[rows], self._costs[rows], self._groups, self._budget)
        return [[self._pass(rows[members], weight) for members in group] for group in packed]

    def _official(self, rows: np.ndarray) -> list[list[Pass]]:
        """Micro-batches with the same number t follow one another, and those of equal work among them."""
        size = self._training.micro_batch_size
        by_number = rows.reshape(-1, size, OFFICIAL_GPUS).swapaxes(1, 2)
        order = np.argsort(self._costs[by_number].sum(axis=2), axis=1, kind="stable")
        micro_batches = np.take_along_axis(by_number, order[:, :, None], axis=1).reshape(-1, size)
        pieces = max(1, self._groups // len(micro_batches))
        passes: list[list[Pass]] = [[] for _ in range(self._groups)]
        for number, micro_batch in enumerate(micro_batches):
            weight = 1.0 / (OFFICIAL_GPUS * (int(self._targets[micro_batch].sum()) + OFFICIAL_EPSILON))
            for piece, members in enumerate(micro_batch.reshape(pieces, -1)):
                group = (number * pieces + piece) % self._groups
                passes[group] += [self._pass(part, weight) for part in self._within_budget(members)]
        longest = max(map(len, passes))
        idle = self._pass(rows[:0], 0.0)
        return [group + [idle] * (longest - len(group)) for group in passes]

    def _within_budget(self, rows: np.ndarray) -> list[np.ndarray]:
        """`rows` cut, in their order, into parts of no more tokens than the budget."""
        if self._budget is None:
            return [rows]
        parts, tokens = [[rows[0]]], int(self._lengths[rows[0]])
        for row in rows[1:]:
            tokens += int(self._lengths[row])
            if tokens > self._budget:
                parts.append([])
                tokens = int(self._lengths[row])
            parts[-1].append(row)
        return [np.asarray(part) for part in parts]

    def _pass(self, rows: np.ndarray, weight: float) -> Pass:
        """A pass over `rows`; without any, over the shortest row of all and without weight."""
        if len(rows) == 0:
            return Pass((int(np.argmin(self._lengths)),), 0.0)
        return Pass(tuple(int(row) for row in rows), weight)

    def _imbalance(self, passes: list[list[Pass]]) -> float:
        costs = np.array(
            [[self._costs[list(one.rows)].sum() if one.weight else 0.0 for one in group] for group in passes]
        )
        return float(costs.max(axis=0).sum() / (costs.sum() / len(passes)) - 1.0)


def _costs(lengths: np.ndarray, targets: np.ndarray, architecture: Architecture | None) -> np.ndarray:
    """Floating-point operations of each row, or its tokens where the architecture is not known."""
    if architecture is None:
        return lengths.astype(float)
    pairs = zip(lengths.tolist(), targets.tolist(), strict=True)
    return np.array([architecture.training_flops(length, target, length * length) for length, target in pairs])


def slots(plan: StepPlan, lengths: np.ndarray, sequence_parallel: int) -> tuple[int, int]:
    """Positions that the passes of a step compute, and how many of them hold no token of the global batch.

    A pass is one row of all its tokens, rounded up to a multiple of `sequence_parallel`.
    """
    per_pass: Sequence[int] = [int(lengths[list(one.rows)].sum()) for group in plan.passes for one in group]
    computed = sum(-(-tokens // sequence_parallel) * sequence_parallel for tokens in per_pass)
    return computed, computed - int(lengths[plan.rows].sum())
