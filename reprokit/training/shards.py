"""Tensors that come one after the other into safetensors files, of which no more than one is in memory."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file

from reprokit.records.files import write_json

MAX_SHARD_BYTES = 5 * 10**9
WEIGHTS = "model{suffix}.safetensors"  # the names under which loaders look for weights


@dataclass(frozen=True)
class TensorPlan:
    """A tensor that will come."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_weights(folder: Path, plan: Sequence[TensorPlan], tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Write the weights of a Hugging Face model folder: as `write_shards`, with the index that several files need."""
    files = write_shards(folder, plan, tensors, WEIGHTS)
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        metadata = {"total_size": sum(tensor.bytes for tensor in plan)}
        write_json(folder / "model.safetensors.index.json", {"metadata": metadata, "weight_map": weight_map})


def write_shards(
    folder: Path, plan: Sequence[TensorPlan], tensors: Iterable[tuple[str, torch.Tensor]], pattern: str
) -> dict[str, list[str]]:
    """Write `tensors` into files of at most MAX_SHARD_BYTES; a larger tensor has a file to itself.

    A file is written when the last of its tensors has come, and its tensors are then let go. In the order of `plan`,
    no more is held than one file and one larger tensor.

    Args:
        tensors: (name, tensor), each tensor of the plan once.
        pattern: name of the files, with `{suffix}`, which is `-00001-of-00003` or so where there are several.

    Returns:
        names of the tensors by file

    Raises:
        OSError: a file cannot be written.
        ValueError: the tensors are not those of the plan.
    """
    planned = {tensor.name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for tensor in plan}
    split = split_torch_state_dict_into_shards(planned, filename_pattern=pattern, max_shard_size=MAX_SHARD_BYTES)
    begun: dict[str, dict[str, torch.Tensor]] = {}
    left = dict(split.tensor_to_filename)
    for name, tensor in tensors:
        file = left.pop(name, None)
        if file is None or (tensor.shape, tensor.dtype) != (planned[name].shape, planned[name].dtype):
            raise ValueError(f"{name}, {tuple(tensor.shape)} {tensor.dtype}, was not planned so")
        begun.setdefault(file, {})[name] = tensor
        del tensor
        if len(begun[file]) == len(split.filename_to_tensors[file]):
            _save(begun.pop(file), folder / file)
    if left:
        raise ValueError(f"tensors that were planned did not come: {', '.join(left)}")
    return split.filename_to_tensors


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if (found := re.search(r"os error (\d+)", str(error))) is None:
            raise OSError(f"{path}: {error}") from error
        number = int(found[1])  # which tells a full disk from one that is out of reach
        raise OSError(number, os.strerror(number), str(path)) from error
