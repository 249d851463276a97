"""How fast the GPUs of a cluster profile are: measured rates where the profile has them, else stated assumptions.

TRAINING_MFU   Model FLOPs utilisation as a training logs it (`StepMetrics.mfu`): operations of forward and backward
               pass, those computed twice counted once. Gradient checkpointing repeats every forward pass, which takes
               a quarter of the time and counts as nothing, so that 0.75 is the most there can be; the value is meant
               with it, as in all runs of the paper. Reports on full training of dense models: Llama 3, 405 B, on H100
               0.38 to 0.43 (its paper, Table 4); torchtitan, 8 B and 70 B with FSDP, on A100 0.52 to 0.58.
DECODING_MBU   Memory bandwidth utilisation of generation: bytes of weights and cache that have to be read for the
               tokens that come out, over what the memory could have read meanwhile. Databricks (LLM inference
               performance engineering, 2023) reports 0.55 to 0.60 at batch size 1; schedulers, samplers with a seed per
               request and kernels that do not fill the GPU take their part of a large batch.
PREFILL_MFU    The same of forward passes over prompts, and of decoding where so many sequences run that operations
               take longer than reading weights.
START_HOURS    From the start of a job on its nodes to the first step or token: imports, weights, compilation.
"""

from __future__ import annotations

from dataclasses import dataclass

from reprokit.cluster.profile import ClusterProfile
from reprokit.recipe.gpus import GPUS, Gpu

TRAINING_MFU = 0.40
DECODING_MBU = 0.50
PREFILL_MFU = 0.40
START_HOURS = 5 / 60


@dataclass(frozen=True)
class Rates:
    """Operations and bytes per second that one GPU really does; `assumed_...` say so of a rate that is not measured."""

    gpu: Gpu
    memory_gb: float
    training: float  # operations per second
    prefill: float  # operations per second
    decoding: float  # bytes per second
    assumed_training: str
    assumed_decoding: str


def rates_of(profile: ClusterProfile) -> Rates | str:
    """The rates of a profile's GPUs, or why they are not known, with what to do about it."""
    if profile.gpu_memory_gb is None and profile.gpu is None:
        return "no GPU in the cluster profile: times are not estimated"
    if profile.gpu is None:
        return (
            "GPU-hours are not known: the cluster profile does not say which GPUs it has. Set gpu there to one of "
            + ", ".join(GPUS)
        )
    gpu = GPUS[profile.gpu]
    if profile.gpu_memory_gb is None:
        return (
            f"GPU-hours are not known: the cluster profile has gpu: {gpu.name} without gpu_memory_gb, so that its jobs "
            f"use the CPU. Set gpu_memory_gb: {gpu.memory_gb:g} there"
        )
    return Rates(
        gpu=gpu,
        memory_gb=profile.gpu_memory_gb,
        training=gpu.flops * (profile.training_mfu or TRAINING_MFU),
        prefill=gpu.flops * PREFILL_MFU,
        decoding=gpu.bandwidth * (profile.decoding_mbu or DECODING_MBU),
        assumed_training="" if profile.training_mfu else f"training_mfu {TRAINING_MFU:g}",
        assumed_decoding="" if profile.decoding_mbu else f"decoding_mbu {DECODING_MBU:g}",
    )
