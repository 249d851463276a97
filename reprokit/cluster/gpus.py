"""Kinds of GPUs by the names that Slurm and nvidia-smi have for them."""

from __future__ import annotations

import re

from reprokit.recipe.gpus import GPUS


def kind_of(name: str) -> tuple[str | None, float | None]:
    """Kind, as a profile names it, and memory in GB; None for what is not known.

    `nvidia_a100-sxm4-40gb` -> ("A100-40GB", 40); `tesla` -> (None, None).
    """
    text = name.upper().replace("_", " ")
    said = re.findall(r"(\d+) ?GB?(?![A-Z])", text)
    memory = float(said[-1]) if said else None
    kinds = [gpu for gpu in GPUS.values() if re.search(rf"\b{re.escape(gpu.name.split('-')[0].upper())}\b", text)]
    kind = next((gpu for gpu in kinds if gpu.memory_gb == memory), kinds[0] if kinds else None)
    if kind is None:
        return None, memory
    return kind.name, kind.memory_gb if memory is None else memory


def is_slice(name: str) -> bool:
    """Whether it is a part of a GPU (MIG), which one task cannot train on: `1g.10gb`."""
    return re.search(r"\dg\.\d+gb", name.lower()) is not None
