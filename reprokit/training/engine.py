"""A Hugging Face causal LM under DeepSpeed ZeRO-3."""

from __future__ import annotations

import gc
import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from reprokit.errors import UserError
from reprokit.recipe.schema import Precision, TrainingSection

# Rank 0 alone writes checkpoints while the others wait in a collective: that must not look like a hang.
PATIENCE = timedelta(hours=2)


def device() -> torch.device:
    """The accelerator of this rank, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def initialise_distributed(local_rank: int, cores: int) -> None:
    """Join the process group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe: NCCL on GPUs, else gloo.

    `cores` is the number of CPU cores that this rank may use.
    """
    if torch.cuda.is_available():
        # Where Slurm shows each task its own GPU only, that one has the index 0.
        index = local_rank % torch.cuda.device_count()
        os.environ["LOCAL_RANK"] = str(index)
        torch.cuda.set_device(index)
        backend = "nccl"
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(cores)
        backend = "gloo"
    import deepspeed  # chooses its accelerator when it is first imported

    # An extra for inference on CPUs that would be compiled now, and fails where there is no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=PATIENCE)


def attention(precision: Precision) -> str:
    """Flash-attention on GPUs, which takes no fp32; else PyTorch's own kernels.

    Raises:
        UserError: there is a GPU, but the flash-attn package is not installed.
    """
    if not torch.cuda.is_available() or precision is Precision.fp32:
        return "sdpa"
    if importlib.util.find_spec("flash_attn") is None:
        raise UserError(
            "training on GPUs needs flash-attn, which this environment lacks; build it on a node with nvcc, as the top "
            "of env.yml says: pip install --no-build-isolation flash-attn==2.8.3.post2"
        )
    return "flash_attention_2"


def deepspeed_config(training: TrainingSection, world_size: int) -> dict[str, Any]:
    """ZeRO-3 configuration; micro-batches are weighted by the loss, so DeepSpeed must not scale them."""
    accumulation = micro_batches_per_rank(training, world_size)
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": training.micro_batch_size * accumulation * world_size,
        "zero_optimization": {"stage": 3, "overlap_comm": torch.cuda.is_available(), "contiguous_gradients": True},
        "bf16": {"enabled": training.precision is Precision.bf16},
        # Gradients are summed over micro-batches and ranks in fp32 whatever the precision of the model.
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "gradient_clipping": training.max_gradient_norm,
        "steps_per_print": 10**9,
    }


def micro_batches_per_rank(training: TrainingSection, world_size: int) -> int:
    """Forward passes of one rank per optimiser step."""
    rows_per_rank = training.global_batch_size // world_size
    return -(-rows_per_rank // training.micro_batch_size)


def build(weights: Path, training: TrainingSection, world_size: int) -> Any:
    """DeepSpeed engine around the model in `weights`, its parameters partitioned over all ranks from the start."""
    import deepspeed
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    config = deepspeed_config(training, world_size)
    partition_on_load = HfDeepSpeedConfig(config)  # transformers asks it through a weak reference
    model = AutoModelForCausalLM.from_pretrained(
        weights,
        dtype=getattr(torch, training.precision.dtype),
        attn_implementation=attention(training.precision),
    )
    del partition_on_load
    model.train()  # from_pretrained leaves it in evaluation mode, where gradient checkpointing is off
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=(training.betas[0], training.betas[1]),
        eps=training.epsilon,
        weight_decay=training.weight_decay,
        fused=torch.cuda.is_available() or None,
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    gc.collect()
    return engine


def leave_distributed() -> None:
    """Wait for all ranks and leave the process group, so that no rank is killed while it still writes."""
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
