"""What a training says about every step: `train/metrics.jsonl`, and TensorBoard where the recipe wants it."""

from __future__ import annotations

import importlib.util
import math
import resource
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Optional

import msgspec
import torch

from reprokit.errors import UserError
from reprokit.recipe import gpus
from reprokit.records.run_directory import RunDirectory
from reprokit.training import engine

EXPLOSION = 1000.0  # times the median norm of the last steps
REMEMBERED, NEEDED = 50, 10  # norms of how many steps the median is over, at most and at least


class StepMetrics(msgspec.Struct, kw_only=True):
    """One line of `train/metrics.jsonl`.

    loss: standard: mean over all target tokens of the global batch; official: mean over its micro-batches of their
        token means, as the official code logs it; in nats.
    gradient_norm: global L2 norm before clipping, `clipped`: whether it was above training.max_gradient_norm.
    tokens, target_tokens: of the global batch, without padding.
    seconds: time of the slowest rank, `data_seconds`: its longest wait for rows.
    mfu: model FLOPs utilisation, (operations of the step by `Architecture.training_flops`, with the sum of the squared
        row lengths) / (seconds x ranks x peak bf16 operations per second); null where the peak is not known.
    peak_memory_gib: largest memory that a rank has held: allocated on its GPU, or resident on the CPU.
    padding: fraction of computed positions that hold no token; imbalance: `StepPlan.imbalance`.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    clipped: bool
    tokens: int
    target_tokens: int
    seconds: float
    data_seconds: float
    tokens_per_second: float
    tokens_per_second_per_gpu: float
    mfu: Optional[float]
    peak_memory_gib: float
    padding: float
    imbalance: float


def peak_flops() -> float | None:
    """Peak bf16 operations per second of this rank's GPU; None on the CPU and for GPUs that are not in the table."""
    gpu = gpus.of_device(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return gpu.flops if gpu else None


def peak_memory_gib() -> float:
    """Largest memory that this process has held so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def slowest(*values: float) -> list[float]:
    """The largest of each value over all ranks, which must all call it."""
    gathered = torch.tensor(values, dtype=torch.float64, device=engine.device())
    torch.distributed.all_reduce(gathered, op=torch.distributed.ReduceOp.MAX)
    return gathered.tolist()


class Watch:
    """Stops a training that diverges. `norms`: gradient norms of the steps before, oldest first."""

    def __init__(self, norms: Sequence[float]) -> None:
        self._norms = deque(norms, maxlen=REMEMBERED)

    def check(self, step: int, loss: float, norm: float, rows: Callable[[], Sequence[int]]) -> None:
        """Look at one step; `rows` gives the row numbers (0-based) that the message names.

        Raises:
            UserError: loss or norm is not finite, or the norm is EXPLOSION times its median over the steps before.
        """
        finite = math.isfinite(loss) and math.isfinite(norm)
        usual = median(self._norms) if len(self._norms) >= NEEDED else math.inf
        if finite and norm <= EXPLOSION * usual:
            self._norms.append(norm)
            return
        what = (
            "is not finite" if not finite else f"is {norm / usual:,.0f} times its median of the last steps, {usual:.3g}"
        )
        raise UserError(
            f"training diverged at step {step}: loss {loss}, gradient norm {norm} {what}.\n"
            f"Rows of the data in question (counted from 1): {_listed(rows())}.\n"
            "Checkpoints and states of earlier steps are kept. Look at these rows; lower training.learning_rate or "
            "lengthen training.warmup_fraction, under another name."
        )


def _listed(rows: Sequence[int], most: int = 40) -> str:
    numbers = sorted(row + 1 for row in rows)
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


def check_packages(tensorboard: bool) -> None:
    """Raises UserError when a package is not installed that will be needed once the training runs."""
    needed = {"tensorboardX": tensorboard, "liger_kernel": torch.cuda.is_available()}
    missing = [name for name, wanted in needed.items() if wanted and importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(name.replace("_", "-") for name in missing)
        raise UserError(f"this training needs packages that the environment lacks: pip install {names}")


class Writer:
    """Appends the steps after `start` to the run's metrics and, if `tensorboard`, to `train/tensorboard/`."""

    def __init__(self, run: RunDirectory, tensorboard: bool, start: int) -> None:
        run.metrics.parent.mkdir(parents=True, exist_ok=True)
        self._stream = run.metrics.open("ab")
        self._board: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            # Steps that an interrupted training had made after its last state are not shown twice.
            self._board = SummaryWriter(str(run.metrics.parent / "tensorboard"), purge_step=start + 1)

    def write(self, metrics: StepMetrics) -> None:
        """Write one step; it is in the hands of the operating system when this returns."""
        self._stream.write(msgspec.json.encode(metrics) + b"\n")
        self._stream.flush()
        if self._board is not None:
            for name, value in msgspec.structs.asdict(metrics).items():
                if name != "step" and value is not None:
                    self._board.add_scalar(f"train/{name}", value, metrics.step)
            self._board.flush()
