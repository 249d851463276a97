"""How far the training of a run is: the end of its `train/metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from statistics import median
from typing import Optional

import msgspec

from reprokit.recipe.schema import Recipe, Source
from reprokit.records.run_directory import RunDirectory

END_BYTES = 32 * 1024  # of the file, about 80 steps


class TrainingStatus(msgspec.Struct, kw_only=True):
    """step: last one that was made, of `steps`; loss in nats, None before the first step.

    tokens_per_second: of all ranks, in the last step. seconds_per_step: median of the last steps. complete: all
    checkpoints are saved.
    """

    step: int
    steps: int
    complete: bool
    loss: Optional[float] = None
    tokens_per_second: Optional[float] = None
    seconds_per_step: Optional[float] = None

    @property
    def eta(self) -> int | None:
        """Seconds to the last step, if it goes on as before."""
        if self.seconds_per_step is None:
            return None
        return round(self.seconds_per_step * (self.steps - self.step))


class _Step(msgspec.Struct):
    """What is needed of a line."""

    step: int
    loss: float
    seconds: float
    tokens_per_second: float


def training_status(run: RunDirectory, recipe: Recipe) -> TrainingStatus | None:
    """None for a run that trains nothing."""
    if recipe.source is not Source.training:
        return None
    steps = max(recipe.training.checkpoint_steps)
    last = list(_last_steps(run))
    complete = run.training_complete.exists()
    if not last:
        return TrainingStatus(step=steps if complete else 0, steps=steps, complete=complete)
    return TrainingStatus(
        step=last[-1].step,
        steps=steps,
        complete=complete,
        loss=last[-1].loss,
        tokens_per_second=last[-1].tokens_per_second,
        seconds_per_step=median(step.seconds for step in last),
    )


def _last_steps(run: RunDirectory) -> Iterator[_Step]:
    """The last lines, whole ones; none where the file is not there."""
    decoder = msgspec.json.Decoder(_Step)
    with suppress(OSError), run.metrics.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - END_BYTES))
        for line in stream.read().splitlines():
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                yield decoder.decode(line)
