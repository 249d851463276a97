"""The official training loop on 8 GPUs, in one process, in plain PyTorch and padded: what the kit is measured against.

It follows the description of the official code (`fsdp_sft_trainer_ours` under FSDP2) step by step and shares nothing
with the trainer of the kit: no DeepSpeed, no packing, no row map. PyTorch's own sampler and loader deal out the rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler
from transformers import AutoModelForCausalLM

RANKS = 8

Row = tuple[Sequence[int], int]  # token ids, and how many of them are the prompt
Step = list[list[list[int]]]  # row numbers by official rank and micro-batch


@dataclass(frozen=True)
class Settings:
    """What differs between official runs; the defaults are those of all of them.

    `global_batch_size` must be a multiple of 8 x `micro_batch_size`. `dtype` is that of parameters, accumulated
    gradients and moments: bfloat16 in the official code.
    """

    learning_rate: float
    epochs: int
    global_batch_size: int
    micro_batch_size: int = 4
    schedule: str = "cosine"  # or constant
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    dtype: torch.dtype = torch.bfloat16


@dataclass
class Result:
    """One value per update, and the parameters after the last one (on the CPU, tied ones once).

    `losses`: mean over all micro-batches of their token means, in nats, as the official code logs it;
    `gradient_norms`: global L2 norm before clipping, of the sum over micro-batches averaged over ranks;
    `seconds`: wall time.
    """

    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows; tensors of shape (rows, longest row of the whole data)."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    loss_mask: torch.Tensor

    def of(self, rows: Sequence[int], device: torch.device) -> Batch:
        """The given rows, on `device`."""
        tensors = (self.input_ids, self.attention_mask, self.position_ids, self.loss_mask)
        return Batch(*(tensor[list(rows)].to(device) for tensor in tensors))


def train(folder: Path, rows: Sequence[Row], settings: Settings, device: torch.device | None = None) -> Result:
    """Train the model in `folder` on `rows` from the first update to the last.

    Uses the threads that torch is set to. The model is computed padded, with PyTorch's scaled-dot-product attention
    and without gradient checkpointing. `device` is the CPU unless given.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=settings.dtype, attn_implementation="sdpa")
    model.to(device or torch.device("cpu")).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=settings.weight_decay,
        foreach=True,
    )
    data = padded(rows)
    steps = list(steps_of(len(rows), settings))
    result = Result()
    for update, step in enumerate(steps):
        started = time.perf_counter()
        rate = learning_rate(settings, update, len(steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        result.losses.append(accumulate(model, data, step, settings.dtype))
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm))
        if math.isfinite(norm):  # else the official code skips the update and moves on
            optimizer.step()
        result.gradient_norms.append(norm)
        result.learning_rates.append(rate)
        result.seconds.append(time.perf_counter() - started)
    result.parameters = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    return result


def padded(rows: Sequence[Row]) -> Batch:
    """All rows, padded to the longest of them, with the loss mask as the official data set makes it."""
    shape = (len(rows), max(len(ids) for ids, _ in rows))
    input_ids = torch.zeros(shape, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    loss_mask = torch.zeros(shape, dtype=torch.long)
    for index, (ids, prompt_length) in enumerate(rows):
        length = len(ids)
        input_ids[index, :length] = torch.as_tensor(ids)
        attention_mask[index, :length] = 1
        loss_mask[index, :length] = 1
        loss_mask[index, : prompt_length - 1] = 0  # the last prompt token predicts the first of the response
        loss_mask[index, length - 1] = 0  # the last token predicts nothing
    position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    return Batch(input_ids, attention_mask, position_ids, loss_mask)


def steps_of(rows: int, settings: Settings) -> Iterator[Step]:
    """Yield the row numbers of every update, as sampler, loader and split of the official code deal them out."""
    per_rank, micro = settings.global_batch_size // RANKS, settings.micro_batch_size
    if settings.global_batch_size != RANKS * per_rank or per_rank % micro:
        raise ValueError(f"global batch {settings.global_batch_size} is not a multiple of {RANKS} x {micro}")
    for epoch in range(settings.epochs):
        loaders = []
        for rank in range(RANKS):
            numbers: Any = range(rows)
            sampler: Any = DistributedSampler(numbers, num_replicas=RANKS, rank=rank, shuffle=False, drop_last=True)
            sampler.set_epoch(epoch)
            loaders.append(DataLoader(numbers, batch_size=per_rank, sampler=sampler, drop_last=True))
        for number, batches in enumerate(zip(*loaders, strict=True)):
            step = [[piece.tolist() for piece in batch.split(micro)] for batch in batches]
            assert step == closed_form(number, settings)
            yield step


def closed_form(number: int, settings: Settings) -> Step:
    """Row numbers of step `number` of an epoch: B*k + r + 8*(M*t + j)."""
    batch, micro = settings.global_batch_size, settings.micro_batch_size
    return [
        [
            [batch * number + rank + RANKS * (micro * piece + place) for place in range(micro)]
            for piece in range(batch // RANKS // micro)
        ]
        for rank in range(RANKS)
    ]


def accumulate(model: Any, data: Batch, step: Step, dtype: torch.dtype) -> float:
    """Leave the gradient of one update in `model` and return the loss that the official code logs.

    After the backward pass of each micro-batch FSDP2 averages the gradients of the ranks in fp32, rounds the average to
    the type of the parameters and adds it to that of earlier micro-batches. Nothing divides by the number of these.
    """
    parameters = list(model.parameters())
    device = parameters[0].device
    accumulated = [torch.zeros_like(parameter) for parameter in parameters]
    losses = []
    for ranks in zip(*step, strict=True):  # the micro-batches that the ranks compute at the same time
        averages = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
        for rows in ranks:
            model.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                loss = micro_batch_loss(model, data.of(rows, device))
                loss.backward()
            losses.append(float(loss.detach()))
            for average, parameter in zip(averages, parameters, strict=True):
                average.add_(parameter.grad.float(), alpha=1 / RANKS)
        for total, average in zip(accumulated, averages, strict=True):
            total += average.to(dtype)
    for parameter, total in zip(parameters, accumulated, strict=True):
        parameter.grad = total
    return sum(losses) / len(losses)


def micro_batch_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean of -log p over the target tokens of one micro-batch (a scalar, in nats)."""
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).logits
    predictions = logits[:, :-1].flatten(0, 1).float()
    token_losses = functional.cross_entropy(predictions, batch.input_ids[:, 1:].flatten(), reduction="none")
    mask = batch.loss_mask[:, :-1].flatten()
    return (token_losses * mask).sum() / (mask.sum() + 1e-8)


def learning_rate(settings: Settings, update: int, total: int) -> float:
    """Learning rate of update `update` (0-based) of `total`: linear warm-up from 0, then cosine to 0 or constant."""
    warmup = int(settings.warmup_fraction * total)
    if update < warmup:
        return settings.learning_rate * update / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (update - warmup) / (total - warmup)))
