"""The training loop of one rank."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from reprokit.data import tokens
from reprokit.errors import UserError
from reprokit.recipe.schema import Recipe, TrainingSection
from reprokit.records import provenance
from reprokit.records.files import write_json
from reprokit.records.progress import ProgressBar
from reprokit.records.run_directory import RunDirectory
from reprokit.training import batches, checkpoints, engine
from reprokit.training.loss import token_loss_sum
from reprokit.training.schedule import learning_rate


class StepMetrics(msgspec.Struct, kw_only=True):
    """One line of `train/metrics.jsonl`.

    `loss` is the mean over all target tokens of the global batch in nats, `gradient_norm` the global L2 norm
    before clipping, `tokens` without padding, `seconds` the time of rank 0.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    target_tokens: int
    seconds: float
    tokens_per_second: float


def train(run: RunDirectory, recipe: Recipe, *, rank: int, world_size: int, progress: Path) -> None:
    """Train from step 0 to the end and save a checkpoint at every step that the recipe lists.

    The process group must exist, and the global batch be a multiple of `world_size`.

    Raises:
        UserError: the loss or the gradient is no longer a finite number.
    """
    from transformers import AutoTokenizer

    training = recipe.training
    dataset = tokens.load(run.data)
    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer)
    steps = list(batches.global_batches(len(dataset), training.global_batch_size, training.epochs, training.seed))
    trainer = Trainer(
        engine.build(run.weights(0), training, world_size), dataset, training, len(steps), rank, world_size
    )
    if rank == 0:
        start_metrics(run)
        made_by = {**provenance.gather(), "device": device_name(), "world_size": world_size}
        write_json(run.provenance, made_by)
    with ProgressBar(total=len(steps), desc="train", unit="step", disable=rank != 0, path=progress) as bar:
        for index, rows in enumerate(steps):
            metrics = trainer.step(index, rows)
            if rank == 0:
                append_metrics(run, metrics)
                bar.set_postfix_str(f"loss {metrics.loss:.3f}, {metrics.tokens_per_second:,.0f} tokens/s", False)
                bar.update()
            if metrics.step in training.checkpoint_steps:
                checkpoints.save(run, trainer.engine.module, tokenizer, metrics.step, rank)
    if rank == 0:
        write_json(run.training_complete, {"steps": len(steps)})


@dataclass(frozen=True)
class Trainer:
    """What stays the same from step to step; `engine` is DeepSpeed's, `total` the number of steps."""

    engine: Any
    dataset: tokens.TokenDataset
    training: TrainingSection
    total: int
    rank: int
    world_size: int

    def step(self, index: int, rows: np.ndarray) -> StepMetrics:
        """Update number `index` (0-based) on the global batch `rows`.

        The loss is the mean over all target tokens of the global batch, whatever the number of ranks.
        """
        started = time.perf_counter()
        rate = learning_rate(self.training, index, self.total)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        lengths = self.dataset.lengths
        target_tokens = int((lengths[rows] - self.dataset.prompt_lengths[rows]).sum())
        mine = batches.share_of_rank(rows, lengths, self.rank, self.world_size)
        loss = self._accumulate(mine, target_tokens) / target_tokens
        norm = float(self.engine.get_global_grad_norm())
        check_finite(index + 1, loss, norm)
        seconds = time.perf_counter() - started
        token_count = int(lengths[rows].sum())
        return StepMetrics(
            step=index + 1,
            epoch=(index + 1) * self.training.epochs / self.total,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=token_count,
            target_tokens=target_tokens,
            seconds=seconds,
            tokens_per_second=token_count / seconds,
        )

    def _accumulate(self, rows: np.ndarray, target_tokens: int) -> float:
        """Forward and backward passes over this rank's rows and the update; the loss summed over all ranks."""
        pieces = np.array_split(rows, engine.micro_batches_per_rank(self.training, self.world_size))
        loss_sum = torch.zeros((), device=engine.device())
        for number, piece in enumerate(pieces):
            self.engine.set_gradient_accumulation_boundary(number == len(pieces) - 1)
            loss = self._loss(piece)
            # ZeRO averages over ranks; the global mean wants the sum over ranks.
            self.engine.backward(loss * (self.world_size / target_tokens), scale_wrt_gas=False)
            self.engine.step()
            loss_sum += loss.detach()
        torch.distributed.all_reduce(loss_sum)
        return float(loss_sum)

    def _loss(self, rows: np.ndarray) -> torch.Tensor:
        """Summed token loss of one micro-batch."""
        batch = batches.collate(self.dataset, rows, pad_id=0)
        device = engine.device()
        logits = self.engine(
            input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device), use_cache=False
        ).logits
        return token_loss_sum(logits, batch.labels.to(device))


def check_finite(step: int, loss: float, norm: float) -> None:
    """Raises UserError when training has diverged; DeepSpeed reports a norm that is not finite as -1."""
    if not (math.isfinite(loss) and math.isfinite(norm) and norm >= 0):
        raise UserError(
            f"training diverged at step {step}: loss {loss}, gradient norm {norm}. Checkpoints of earlier steps are "
            "kept; lower training.learning_rate or lengthen training.warmup_fraction, under another name."
        )


def start_metrics(run: RunDirectory) -> None:
    """Begin a new metrics file; that of an earlier, interrupted training is kept under another name."""
    run.metrics.parent.mkdir(parents=True, exist_ok=True)
    if run.metrics.exists():
        earlier = len(list(run.metrics.parent.glob("metrics.attempt_*.jsonl"))) + 1
        os.replace(run.metrics, run.metrics.with_name(f"metrics.attempt_{earlier:02d}.jsonl"))


def append_metrics(run: RunDirectory, metrics: StepMetrics) -> None:
    with run.metrics.open("ab") as stream:
        stream.write(msgspec.json.encode(metrics) + b"\n")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
