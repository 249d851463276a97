"""A Hugging Face causal LM under DeepSpeed ZeRO-3."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from reprokit.errors import NodeError
from reprokit.recipe.derived import is_all_bf16
from reprokit.recipe.schema import Arithmetic, Precision, TrainingSection
from reprokit.training import attention, meeting
from reprokit.training.model import load

# Rank 0 alone writes checkpoints while the others wait in a collective: that must not look like a hang.
PATIENCE = timedelta(hours=2)
JOINING = 900.0  # seconds between the first rank and the last: they import from a file system that may be slow


def device() -> torch.device:
    """The accelerator of this rank, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def initialise_distributed(local_rank: int, cores: int, hosts: Sequence[str] = ()) -> None:
    """Join the process group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe: NCCL on GPUs, else gloo.

    Args:
        cores: CPU cores that this rank may use.
        hosts: nodes of the job in the order of its ranks; empty: all are on this one.

    Raises:
        NodeError: a rank did not come, or its GPU cannot be used.
    """
    if torch.cuda.is_available():
        # Where Slurm shows each task its own GPU only, that one has the index 0.
        index = local_rank % torch.cuda.device_count()
        os.environ["LOCAL_RANK"] = str(index)
        try:
            torch.cuda.set_device(index)
        except RuntimeError as error:
            raise NodeError(f"GPU {index} cannot be used: {error}", meeting.node_name() or None) from error
        backend = "nccl"
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(cores)
        backend = "gloo"
    import deepspeed  # chooses its accelerator when it is first imported

    # An extra for inference on CPUs that would be compiled now, and fails where there is no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    store = meeting.join(backend, hosts, JOINING)
    store.set_timeout(PATIENCE)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # DeepSpeed takes the group that is there; its own would wait for PATIENCE for a rank that never comes.
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=PATIENCE)
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def sequence_group(sequence_parallel: int) -> Any:
    """The process group of the ranks that share every row with this one; None if it has whole rows. All must call it.

    Neighbouring ranks share rows, so that those of a group are on one node.
    """
    if sequence_parallel == 1:
        return None
    mine = None
    for first in range(0, torch.distributed.get_world_size(), sequence_parallel):
        ranks = list(range(first, first + sequence_parallel))
        group = torch.distributed.new_group(ranks, timeout=PATIENCE)
        if torch.distributed.get_rank() in ranks:
            mine = group
    return mine


def deepspeed_config(training: TrainingSection, world_size: int) -> dict[str, Any]:
    """ZeRO-3 configuration. Passes are weighted by the loss and counted by the loop, so DeepSpeed must do neither.

    official, in bf16: parameters, gradients, their sums and both moments are bf16, gradients of one pass are averaged
    over ranks in fp32 (official code). standard, in bf16: gradients are summed and parameters updated in fp32.
    """
    bf16: dict[str, Any] = {"enabled": training.precision is Precision.bf16}
    sums = "fp32"
    if is_all_bf16(training):
        bf16 |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
        sums = "bf16"
    zero: dict[str, Any] = {"stage": 3, "overlap_comm": torch.cuda.is_available(), "contiguous_gradients": True}
    if training.cpu_offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world_size,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW runs on the host too, and needs no compiler
        "bf16": bf16,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": sums},
        "gradient_clipping": training.max_gradient_norm,
        "steps_per_print": 10**9,
    }


def optimizer(model: torch.nn.Module, training: TrainingSection) -> torch.optim.AdamW:
    """AdamW over everything that is trained.

    official: weight decay on every parameter, kernels that round after every operation (official code). standard: no
    decay on norms and biases.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained, "weight_decay": training.weight_decay}]
    if training.arithmetic is Arithmetic.standard:
        vectors = [parameter for parameter in trained if len(whole_shape(parameter)) < 2]
        matrices = [parameter for parameter in trained if len(whole_shape(parameter)) >= 2]
        groups = [
            {"params": matrices, "weight_decay": training.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=(training.betas[0], training.betas[1]),
        eps=training.epsilon,
        fused=training.arithmetic is Arithmetic.standard,
    )


def whole_shape(parameter: Any) -> torch.Size:
    """Shape of a parameter before ZeRO-3 partitioned it."""
    return getattr(parameter, "ds_shape", parameter.shape)


def build(weights: Path, training: TrainingSection, world_size: int) -> Any:
    """DeepSpeed engine around the `TrainedModel` of `weights`, partitioned over all ranks from the start.

    All ranks must call it.
    """
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    attention.register(training.precision, sequence_group(training.sequence_parallel))
    config = deepspeed_config(training, world_size)
    partition_on_load = HfDeepSpeedConfig(config)  # transformers asks it through a weak reference
    trained = load(weights, training)
    del partition_on_load
    engine, *_ = deepspeed.initialize(model=trained, optimizer=optimizer(trained, training), config=config)
    gc.collect()
    return engine


def leave_distributed() -> None:
    """Wait for all ranks and leave the process group, so that no rank is killed while it still writes."""
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
