"""Which rows are computed where, when and with what weight: nothing lost, nothing twice, equal work, no padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reprokit.recipe.architecture import Architecture
from reprokit.recipe.schema import Arithmetic, TrainingSection
from reprokit.training.packing import pack
from reprokit.training.plan import Planner, StepPlan, slots

QWEN3_14B = Architecture(5120, 40, 40, 8, 128, 17408, 151936, False)
LONGEST = 20000


def long_cot(rows: int, seed: int = 0) -> np.ndarray:
    """Lengths as of long chains of thought: median 4,000 tokens, a tail that is cut at LONGEST."""
    drawn = np.random.default_rng(seed).lognormal(np.log(4000), 0.7, size=rows)
    return np.clip(drawn, 300, LONGEST).astype(int)


def dataset(lengths: np.ndarray) -> Any:
    prompts = np.minimum(lengths - 1, 100)
    return SimpleNamespace(lengths=lengths, prompt_lengths=prompts, report=SimpleNamespace(max_length=LONGEST))


def planner(lengths: np.ndarray, groups: int, architecture: Architecture | None = None, **settings: Any) -> Planner:
    given = {"learning_rate": 5e-5, "epochs": 2, "global_batch_size": 256, "checkpoint_steps": [1], **settings}
    return Planner(dataset(lengths), TrainingSection(**given), groups, architecture)


def rows_of(plan: StepPlan) -> list[int]:
    return sorted(row for group in plan.passes for one in group if one.weight for row in one.rows)


@pytest.mark.parametrize("groups", [1, 2, 3, 8, 16])
def test_standard_packs_every_row_once_within_the_budget(groups: int) -> None:
    lengths = long_cot(1000)
    made = planner(lengths, groups)
    for step in (0, 1, 5):
        plan = made.step(step)
        assert rows_of(plan) == sorted(plan.rows.tolist()) and len(set(plan.rows.tolist())) == 256
        assert len({len(group) for group in plan.passes}) == 1
        assert all(lengths[list(one.rows)].sum() <= LONGEST for group in plan.passes for one in group)
        (weight,) = {one.weight for group in plan.passes for one in group}
        assert weight == pytest.approx(1 / (lengths[plan.rows] - 100).sum())


@pytest.mark.parametrize(("groups", "sequence_parallel"), [(8, 1), (4, 2), (16, 1)])
def test_slots_are_used_and_ranks_have_equal_work(
    groups: int, sequence_parallel: int, record_property: pytest.FixtureRequest
) -> None:
    """Batches of 256 rows of long chains of thought, Qwen3-14B, at most 20,000 tokens in a pass."""
    lengths = long_cot(20480)
    made = planner(lengths, groups, QWEN3_14B, sequence_parallel=sequence_parallel)
    plans = [made.step(step) for step in range(80)]
    counted = np.array([slots(plan, lengths, sequence_parallel) for plan in plans]).sum(axis=0)
    used, imbalance = 1 - counted[1] / counted[0], np.mean([plan.imbalance for plan in plans])
    filled = lengths[np.concatenate([plan.rows for plan in plans])].sum() / sum(
        LONGEST * len(plan.passes[0]) * groups for plan in plans
    )
    print(f"\n{groups} groups: {used:.3%} of the slots used, budget filled {filled:.1%}, imbalance {imbalance:.2%}")
    assert used >= 0.99
    assert imbalance <= 0.05


def test_epochs_have_their_own_order_and_no_partial_batch() -> None:
    made = planner(long_cot(600), 2)
    assert made.total_steps == 4
    rows = [made.step(step).rows for step in range(4)]
    assert len(set(np.concatenate(rows[:2]).tolist())) == 512
    assert not np.array_equal(rows[0], rows[2])
    again = planner(long_cot(600), 8)
    assert all(np.array_equal(rows[step], again.step(step).rows) for step in range(4))
    other = planner(long_cot(600), 2, seed=1)
    assert not np.array_equal(rows[0], other.step(0).rows)


def official_weights(plan: StepPlan) -> dict[int, float]:
    return {row: one.weight for group in plan.passes for one in group if one.weight for row in one.rows}


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("budget", [None, 20000])
def test_official_weights_do_not_depend_on_the_number_of_ranks(groups: int, budget: int | None) -> None:
    """Row B*k + r + 8*(M*t + j) shares the mean of micro-batch t of GPU r, whoever computes it."""
    lengths = long_cot(600)
    made = planner(lengths, groups, arithmetic=Arithmetic.official, micro_batch_tokens=budget)
    expected = {}
    for gpu in range(8):
        for number in range(8):
            rows = [256 + gpu + 8 * (4 * number + element) for element in range(4)]
            expected |= {row: 1 / (8 * ((lengths[rows] - 100).sum() + 1e-8)) for row in rows}
    for step in (1, 3):  # the same order in every epoch
        plan = made.step(step)
        assert rows_of(plan) == list(range(256, 512))
        assert official_weights(plan) == pytest.approx(expected)
        assert len({len(group) for group in plan.passes}) == 1
        if budget is not None:
            assert all(
                lengths[list(one.rows)].sum() <= budget or len(one.rows) == 1 for group in plan.passes for one in group
            )


def test_official_ranks_compute_the_same_micro_batch_number_at_the_same_time() -> None:
    """So that on 8 ranks gradients are rounded after the same sums as in the official code."""
    plan = planner(long_cot(600), 8, arithmetic=Arithmetic.official).step(0)
    for number in range(8):
        together = sorted(row for group in plan.passes for row in group[number].rows)
        assert together == list(range(32 * number, 32 * number + 32))


def test_a_small_official_batch_is_shared_by_rows() -> None:
    """Batch 32 has one micro-batch of 4 rows per GPU: 16 ranks compute halves of them."""
    plan = planner(long_cot(64), 16, arithmetic=Arithmetic.official, global_batch_size=32).step(0)
    assert [len(group) for group in plan.passes] == [1] * 16
    assert {len(group[0].rows) for group in plan.passes} == {2}
    assert rows_of(plan) == list(range(32))


def test_packing_with_fewer_rows_than_micro_batches() -> None:
    lengths = np.array([10, 10, 10])
    packed = pack(lengths, lengths.astype(float), groups=4, budget=10)
    assert sorted(sum((members for group in packed for members in group), [])) == [0, 1, 2]
    assert [len(group) for group in packed] == [1, 1, 1, 1]


def test_rows_as_long_as_the_budget_are_alone() -> None:
    lengths = np.array([100, 100, 60, 50, 40, 30])
    packed = pack(lengths, lengths.astype(float) ** 2, groups=2, budget=100)
    for group in packed:
        for members in group:
            assert lengths[members].sum() <= 100
    assert sum(len(group) for group in packed) == 4
