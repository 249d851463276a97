"""Learning rate of every update of the paper's runs, against the formulas of the official code.

The paper compares four schedules (Figure 4): 8 epochs cosine, 16 epochs cosine, 16 epochs constant, 16 epochs constant
at twice the rate. The released runs use three more, all cosine: 1 epoch at two rates and 2 epochs. Every distinct one
of the 33 runs is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

from reprokit.recipe.schema import Schedule, TrainingSection
from reprokit.training.schedule import learning_rate

ROWS = 20480
FIGURE_4 = [
    (5e-5, 8, 256, "cosine"),
    (5e-5, 16, 256, "cosine"),
    (5e-5, 16, 256, "constant"),
    (1e-4, 16, 256, "constant"),
]
OTHERS = [(5e-5, 1, 256, "cosine"), (1e-5, 1, 256, "cosine"), (1e-5, 2, 256, "cosine"), (5e-5, 1, 32, "cosine")]
STEPS = {(8, 256): 640, (16, 256): 1280, (1, 256): 80, (2, 256): 160, (1, 32): 640}
RUNS = pytest.mark.parametrize(("peak", "epochs", "batch", "schedule"), FIGURE_4 + OTHERS)


def table(peak: float, schedule: str, total: int) -> list[float]:
    """The kit's learning rates of updates 0 to total - 1."""
    training = TrainingSection(
        learning_rate=peak, epochs=1, global_batch_size=1, checkpoint_steps=[total], schedule=Schedule[schedule]
    )
    return [learning_rate(training, update, total) for update in range(total)]


def official_steps(epochs: int, batch: int) -> int:
    """floor(floor(N / 8) / (B / 8)) steps per epoch."""
    return (ROWS // 8) // (batch // 8) * epochs


@RUNS
def test_every_update_has_the_rate_of_the_official_formula(
    peak: float, epochs: int, batch: int, schedule: str, record_property: Callable[[str, object], None]
) -> None:
    total = official_steps(epochs, batch)
    assert total == STEPS[epochs, batch]
    warmup = int(0.1 * total)
    expected = [peak * k / warmup for k in range(warmup)]
    if schedule == "cosine":
        expected += [
            peak * 0.5 * (1 + math.cos(math.pi * (k - warmup) / (total - warmup))) for k in range(warmup, total)
        ]
    else:
        expected += [peak] * (total - warmup)
    found = table(peak, schedule, total)
    worst = max(abs(one - other) / other for one, other in zip(found[1:], expected[1:], strict=True))
    record_property("largest_relative_difference", worst)
    print(f"{schedule} {peak:g}, {total} updates, {warmup} warm-up: largest relative difference {worst:.1e}")
    assert found == pytest.approx(expected, rel=1e-12, abs=0)
    assert found[0] == 0.0 and found[1] > 0 and found[-1] > 0
    assert found[warmup] == max(found) == peak


@RUNS
def test_every_update_has_the_rate_of_a_scheduler_stepped_after_the_optimizer(
    peak: float, epochs: int, batch: int, schedule: str
) -> None:
    """The schedules of transformers, from which the official code has its own, drive a real optimizer."""
    total = official_steps(epochs, batch)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = (
        get_cosine_schedule_with_warmup(optimizer, total // 10, total)
        if schedule == "cosine"
        else get_constant_schedule_with_warmup(optimizer, total // 10)
    )
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # Relative to the peak: the last values of a cosine are differences of nearly equal numbers.
    assert table(peak, schedule, total) == pytest.approx(expected, rel=0, abs=1e-12 * peak)


def test_warm_up_is_rounded_down() -> None:
    """int(0.1 T): 19 updates warm up for one, and fewer than ten not at all."""
    assert table(1.0, "constant", 19) == [0.0] + [1.0] * 18
    assert table(1.0, "constant", 9) == [1.0] * 9
