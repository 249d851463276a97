"""Checkpoints in Hugging Face format, complete or not there at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from reprokit.records.files import sha256_of_file, write_json
from reprokit.records.run_directory import Manifest, RunDirectory

MAX_SHARD_SIZE = "5GB"


def gather_parameters(model: torch.nn.Module, rank: int) -> dict[str, torch.Tensor]:
    """Full parameters on the CPU of rank 0, one after the other; empty on the other ranks. All ranks must call it."""
    import deepspeed

    gathered: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if rank == 0:
                gathered[name] = parameter.detach().to("cpu", copy=True)
    if rank == 0:
        gathered.update({name: buffer.cpu() for name, buffer in _persistent_buffers(model)})
    return gathered


def _persistent_buffers(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    in_state = set(model.state_dict(keep_vars=True))
    return [(name, buffer) for name, buffer in model.named_buffers() if name in in_state]


def save(run: RunDirectory, model: Any, tokenizer: Any, step: int, rank: int) -> None:
    """Save `model`, its parameters partitioned by ZeRO-3, as the checkpoint of `step`. All ranks must call it."""
    weights = gather_parameters(model, rank)
    if rank == 0:
        write(run, model, weights, tokenizer, step)


def write(run: RunDirectory, model: Any, weights: dict[str, torch.Tensor], tokenizer: Any, step: int) -> None:
    """Write `weights` of the transformers model `model` as the checkpoint of `step`.

    Written aside and renamed: `manifest.json` with the sha256 of every file comes last.
    """
    final = run.checkpoint(step)
    aside = final.with_name(f".{final.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    model.save_pretrained(aside, state_dict=weights, max_shard_size=MAX_SHARD_SIZE)
    tokenizer.save_pretrained(aside)
    complete(aside, step)
    replaced = final.with_name(f".{final.name}.replaced")
    if final.exists():
        os.replace(final, replaced)
    os.replace(aside, final)
    shutil.rmtree(replaced, ignore_errors=True)


def complete(folder: Path, step: int) -> None:
    """Make every file of `folder` durable, then write its manifest."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        files[path.name] = sha256_of_file(path)
    write_json(folder / "manifest.json", Manifest(step=step, files=files))
