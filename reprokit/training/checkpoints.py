"""Checkpoints in Hugging Face format, complete or not there at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from reprokit.errors import UserError
from reprokit.records import manifest
from reprokit.records.run_directory import RunDirectory
from reprokit.training.shards import TensorPlan, write_weights


def save(run: RunDirectory, model: Any, tokenizer: Any, step: int, rank: int) -> None:
    """Save the transformers model `model`, its parameters partitioned by ZeRO-3, as the checkpoint of `step`.

    All ranks must call it. Rank 0 holds one gathered parameter and one file of at most `shards.MAX_SHARD_BYTES`.

    Raises:
        UserError: the disk is full or the folder cannot be written; no checkpoint is left then.
    """
    gathered = _gathered(model, rank)
    if rank == 0:
        _write(run, model, gathered, tokenizer, step)
    else:
        for _ in gathered:
            pass


def write(run: RunDirectory, model: Any, weights: Mapping[str, torch.Tensor], tokenizer: Any, step: int) -> None:
    """Write `weights`, by the names that they have in the transformers model `model`, as the checkpoint of `step`.

    Raises:
        UserError: as `save`.
    """
    _write(run, model, ((name, weights[name]) for name, _ in _stored(model)), tokenizer, step)


def _stored(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, tied ones once, and persistent buffers: what makes up a checkpoint of `model`."""
    ignored = set(model._keys_to_ignore_on_save or ())
    persistent = set(model.state_dict(keep_vars=True)) - ignored
    yield from ((name, parameter) for name, parameter in model.named_parameters() if name not in ignored)
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in persistent)


def _gathered(model: Any, rank: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole tensors on the CPU of rank 0, nothing on the other ranks; all of them must come to the end of it."""
    import deepspeed

    for name, tensor in _stored(model):
        with deepspeed.zero.GatheredParameters([tensor]):
            whole = tensor.detach().to("cpu", copy=True) if rank == 0 else None
        if whole is not None:
            yield name, whole
        del whole


def _write(
    run: RunDirectory, model: Any, tensors: Iterable[tuple[str, torch.Tensor]], tokenizer: Any, step: int
) -> None:
    plan = _plan(model)
    with manifest.draft(run.checkpoint(step), step, needed=sum(tensor.bytes for tensor in plan)) as draft:
        tokenizer.save_pretrained(draft.folder)
        model.config.architectures = [type(model).__name__]
        model.config.dtype = str(model.dtype).removeprefix("torch.")
        model.config.save_pretrained(draft.folder)
        if model.can_generate():
            model.generation_config.save_pretrained(draft.folder)
        saved = (part for name, tensor in tensors for part in _as_saved(model, {name: tensor}).items())
        write_weights(draft.folder, plan, ((name, tensor.contiguous()) for name, tensor in saved))


def _plan(model: Any) -> list[TensorPlan]:
    """What a checkpoint of `model` will hold, under the names and in the shapes that `save_pretrained` would write.

    Raises:
        UserError: a tensor of the checkpoint is made of several parameters, which are gathered one by one here.
    """
    # Loading into partitioned parameters remembers renamings that did not apply, and saving would revert them.
    if (renamings := getattr(model, "_weight_conversions", None)) is not None:
        model._weight_conversions = [renaming for renaming in renamings if renaming.was_used()]
    whole: dict[str, torch.Tensor] = {}
    for name, tensor in _stored(model):
        shape = getattr(tensor, "ds_shape", tensor.shape)
        whole[name] = torch.empty(shape, dtype=tensor.dtype, device="meta")
    one_by_one: dict[str, torch.Tensor] = {}
    for name, tensor in whole.items():
        one_by_one |= _as_saved(model, {name: tensor})
    together = _as_saved(model, whole)
    if {name: tensor.shape for name, tensor in together.items()} != {
        name: tensor.shape for name, tensor in one_by_one.items()
    }:
        raise UserError(
            f"models of the kind {model.config.model_type} cannot be saved: transformers joins several of their "
            "parameters in one tensor. Valid are models such as Qwen3, Qwen2.5, Gemma3, Llama."
        )
    return [TensorPlan(name, tuple(tensor.shape), tensor.dtype) for name, tensor in one_by_one.items()]


def _as_saved(model: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of parameters in transformers -> those in checkpoints; some architectures have others there."""
    from transformers.core_model_loading import revert_weight_conversion

    converted: dict[str, torch.Tensor] = revert_weight_conversion(model, tensors)
    return converted
