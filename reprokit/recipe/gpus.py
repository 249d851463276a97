"""Kinds of GPUs: what their makers' data sheets promise, as plans and utilisations are reckoned with."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One kind: memory in GB as it is sold, dense bf16 operations per second, bytes of its memory per second."""

    name: str
    memory_gb: float
    flops: float
    bandwidth: float


# NVIDIA data sheets; the SXM variants where there are several. "With sparsity" is twice the dense rate.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100", 80, 312e12, 2.039e12),
        Gpu("A100-40GB", 40, 312e12, 1.555e12),
        Gpu("A800", 80, 312e12, 2.039e12),
        Gpu("H100", 80, 989e12, 3.35e12),
        Gpu("H800", 80, 989e12, 3.35e12),
        Gpu("H200", 141, 989e12, 4.8e12),
        Gpu("H20", 96, 148e12, 4.0e12),
        Gpu("B200", 180, 2250e12, 8.0e12),
        Gpu("L40S", 48, 362e12, 0.864e12),
        Gpu("L4", 24, 121e12, 0.300e12),
        Gpu("RTX 4090", 24, 165.2e12, 1.008e12),
    )
}
OTHER_VARIANTS = ("pcie", "nvl", "laptop")  # of a kind, with other rates


def of_device(name: str) -> Gpu | None:
    """The kind of a device as its driver names it, such as `NVIDIA H100 80GB HBM3`; None if it is not in the table."""
    if any(variant in name.lower() for variant in OTHER_VARIANTS):
        return None
    return next((gpu for gpu in GPUS.values() if re.search(rf"\b{re.escape(gpu.name)}\b", name)), None)
