"""The training loop of one rank."""

from __future__ import annotations

import os
import time
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


def check_world_size(training: TrainingSection, world_size: int) -> None:
    """Raises UserError when the global batch cannot be shared equally."""
    if training.global_batch_size % world_size:
        raise UserError(
            f"training.global_batch_size={training.global_batch_size} cannot be shared equally among {world_size} "
            f"ranks; choose a multiple of {world_size}, or another number of nodes or tasks in the cluster profile"
        )


def train(run: RunDirectory, recipe: Recipe, *, rank: int, world_size: int, progress: Path) -> None:
    """Train from step 0 to the end and save a checkpoint at every step that the recipe lists.

    The process group must exist. Raises UserError for a global batch that the ranks cannot share equally.
    """
    from transformers import AutoTokenizer

    training = recipe.training
    check_world_size(training, world_size)
    dataset = tokens.load(run.data)
    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer)
    deepspeed_engine = engine.build(run.weights(0), training, world_size)
    steps = list(batches.global_batches(len(dataset), training.global_batch_size, training.epochs, training.seed))
    if rank == 0:
        start_metrics(run)
        made_by = {**provenance.gather(), "device": device_name(), "world_size": world_size}
        write_json(run.provenance, made_by)
    steps_per_epoch = len(steps) // training.epochs
    with ProgressBar(total=len(steps), desc="train", unit="step", disable=rank != 0, path=progress) as bar:
        for index, rows in enumerate(steps):
            metrics = optimiser_step(deepspeed_engine, dataset, rows, training, index, len(steps), rank, world_size)
            metrics.epoch = metrics.step / steps_per_epoch
            if rank == 0:
                append_metrics(run, metrics)
                bar.set_postfix_str(f"loss {metrics.loss:.3f}, {metrics.tokens_per_second:,.0f} tokens/s", False)
                bar.update()
            if metrics.step in training.checkpoint_steps:
                checkpoints.save(run, deepspeed_engine.module, tokenizer, metrics.step, rank)


def optimiser_step(
    deepspeed_engine: Any,
    dataset: tokens.TokenDataset,
    rows: np.ndarray,
    training: TrainingSection,
    index: int,
    total: int,
    rank: int,
    world_size: int,
) -> StepMetrics:
    """One update: the loss is the mean over all target tokens of the global batch, whatever the number of ranks."""
    started = time.perf_counter()
    rate = learning_rate(training, index, total)
    for group in deepspeed_engine.optimizer.param_groups:
        group["lr"] = rate
    target_tokens = int((dataset.lengths[rows] - dataset.prompt_lengths[rows]).sum())
    mine = batches.share_of_rank(rows, dataset.lengths, rank, world_size)
    pieces = np.array_split(mine, engine.micro_batches_per_rank(training, world_size))
    loss_sum = torch.zeros((), device=engine.device())
    for number, piece in enumerate(pieces):
        deepspeed_engine.set_gradient_accumulation_boundary(number == len(pieces) - 1)
        loss = micro_batch_loss(deepspeed_engine, dataset, piece)
        # ZeRO averages over ranks; the global mean wants the sum over ranks.
        deepspeed_engine.backward(loss * (world_size / target_tokens), scale_wrt_gas=False)
        deepspeed_engine.step()
        loss_sum += loss.detach()
    torch.distributed.all_reduce(loss_sum)
    mean_loss = loss_sum.item() / target_tokens
    seconds = time.perf_counter() - started
    token_count = int(dataset.lengths[rows].sum())
    return StepMetrics(
        step=index + 1,
        epoch=0.0,
        loss=mean_loss,
        learning_rate=rate,
        gradient_norm=float(deepspeed_engine.get_global_grad_norm() or 0.0),
        tokens=token_count,
        target_tokens=target_tokens,
        seconds=seconds,
        tokens_per_second=token_count / seconds,
    )


def micro_batch_loss(deepspeed_engine: Any, dataset: tokens.TokenDataset, rows: np.ndarray) -> torch.Tensor:
    """Summed token loss of one micro-batch."""
    batch = batches.collate(dataset, rows, pad_id=0)
    device = engine.device()
    logits = deepspeed_engine(
        input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)
    ).logits
    return token_loss_sum(logits, batch.labels.to(device))


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
