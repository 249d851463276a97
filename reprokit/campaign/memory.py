"""Memory that a training needs, estimated from the sizes of the model, without torch. An estimate, not a measurement.

Bytes on one rank, with P parameters of which the output head has H, W ranks, b bytes per element (bf16 2, fp32 4) and
n tokens: those of the longest forward pass divided by training.sequence_parallel. A forward pass has at most
training.micro_batch_tokens, by default one longest row or, in official arithmetic, training.micro_batch_size of them.
Sources: DeepSpeed 0.19.8 (stage3.py, zero/config.py), Liger-Kernel (fused_linear_cross_entropy.py).

states       per parameter and partitioned over all ranks by ZeRO-3:
             standard, bf16: 18 = parameter 2, sum of gradients 4, master weight 4, moments 8
             official, bf16: 10 = parameter 2, sum of gradients 2, master weight 2, moments 4 (DeepSpeed means to let a
             parameter be its own master weight here, but compares a device with its name and copies it)
             fp32:           20 = parameter 4, sum of gradients 4, master weight 4, moments 8
             with training.cpu_offload only the parameter is left; 20 lie in the memory of the host: master weight 4,
             moments 8, the gradients twice 8
activations  kept for the backward pass: of every layer its input, b n hidden, with gradient checkpointing; without it
             b n x (10 hidden + 5 query + 5 key-value + 4 intermediate)
buffers      CUDA context, NCCL and fragmentation, 2 GiB (a process without a GPU: 1 GiB), the reduce bucket, 4 x 5e8,
             and gathered parameters, b x min(P, 1e9 + larger of head and layer); none on one rank
peak         the larger of
  layer      backward pass of one layer, b n x (10 hidden + 5 query + 5 key-value + 6 intermediate): its two norms keep
             an fp32 copy, the normalised and the scaled values, there are two residual sums, the norms of queries and
             keys are alike, the MLP keeps four values and has the gradients of two; beside it the gradient of the
             head, b H, and gradients on their way to other ranks in fp32, 4 x max(5e8, H)
  loss       hidden states, their gradient and pieces of logits, 4 b n hidden; the gradient of the head, summed in
             fp32 with a copy on the way, (8 + b) H
  step       flat gradients and a temporary of the optimizer, 8 x min(P / W, 1e9), when activations are gone
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from reprokit.cluster.profile import Resources
from reprokit.errors import UserError
from reprokit.recipe.architecture import Architecture, of_model
from reprokit.recipe.schema import Arithmetic, ModelSection, Precision, TrainingSection

GIB = 1024**3
ELEMENT = {Precision.bf16: 2, Precision.fp32: 4}  # bytes
STATES = {Arithmetic.standard: 18, Arithmetic.official: 10}  # bytes per parameter with bf16 parameters
FP32_STATES = 20
OFFLOADED_STATES = 20
RUNTIME_GPU, RUNTIME_CPU = 2 * GIB, 1 * GIB
# DeepSpeed's defaults, in elements: reduce_bucket_size, stage3_max_live_parameters and sub_group_size.
REDUCE_BUCKET, LIVE_PARAMETERS, SUB_GROUP = 5e8, 1e9, 1e9


def memory_here() -> float:
    """GiB of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


@dataclass(frozen=True)
class ModelSize:
    """Number of parameters; `architecture` is None where only that number is known."""

    parameters: int
    architecture: Architecture | None = None


def model_size(model: ModelSection) -> ModelSize | None:
    """Size of a recipe's base model as far as it is known without the network; None if nothing is.

    Raises:
        UserError: the config.json of `model.path` cannot be read.
    """
    try:
        architecture = of_model(model)
    except (OSError, ValueError) as error:
        raise UserError(f"{model.path}/config.json cannot be read: {error}; copy the model again") from error
    if architecture is not None:
        return ModelSize(architecture.parameters, architecture)
    count = _count_safetensors(Path(model.path)) if model.path is not None else 0
    return ModelSize(count) if count else None


def _count_safetensors(folder: Path) -> int:
    """Sum over the headers of all safetensors files (8 bytes of length, then JSON)."""
    count = 0
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(min(length, path.stat().st_size)))
            count += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        except (struct.error, ValueError, AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a readable safetensors file; copy the model again") from error
    return count


@dataclass(frozen=True)
class MemoryEstimate:
    """GiB on one rank by part, as at the top of this module; `host` is GiB in the memory of every node."""

    states: float
    activations: float
    buffers: float
    layer: float
    loss: float
    step: float
    host: float
    tokens: int  # that a rank holds during the longest forward pass

    @property
    def peak(self) -> tuple[float, str]:
        """What comes on top of states, activations and buffers at the worst moment, and which moment that is."""
        moments = [
            (self.layer, "backward pass of a layer"),
            (self.loss, "loss"),
            (self.step - self.activations, "optimizer step"),
        ]
        return max(moments)

    @property
    def rank(self) -> float:
        """GiB on one rank."""
        return self.states + self.activations + self.buffers + self.peak[0]


def longest_pass(training: TrainingSection, longest_row: int, ranks: int) -> int:
    """Most tokens of one forward pass of a data-parallel group."""
    if training.arithmetic is Arithmetic.standard:
        return training.micro_batch_tokens or longest_row
    micro_batches = training.global_batch_size // training.micro_batch_size
    groups_per_micro_batch = max(1, ranks // training.sequence_parallel // max(1, micro_batches))
    tokens = longest_row * max(1, training.micro_batch_size // groups_per_micro_batch)
    return min(tokens, training.micro_batch_tokens or tokens)


def estimate(
    model: ModelSize, training: TrainingSection, resources: Resources, on_gpus: bool, longest_row: int
) -> MemoryEstimate:
    """Memory of a training; activations and loss are left out where the architecture is not known.

    Args:
        resources: of the training job.
        on_gpus: whether every rank has a GPU; otherwise nothing can be offloaded.
        longest_row: tokens of the longest row.
    """
    element, ranks = ELEMENT[training.precision], resources.tasks
    tokens = math.ceil(longest_pass(training, longest_row, ranks) / training.sequence_parallel)
    offloads = training.cpu_offload and on_gpus
    per_parameter = FP32_STATES if training.precision is Precision.fp32 else STATES[training.arithmetic]
    count, shape = model.parameters, model.architecture
    head = shape.head_parameters if shape else 0
    reduced = element * head + 4 * min(count, max(REDUCE_BUCKET, head))
    activations = _activations(shape, training.gradient_checkpointing) if shape else 0
    backward = _around(shape) + 6 * shape.intermediate_size if shape else 0
    logits = 4 * shape.hidden_size if shape else 0
    parts = {
        "states": count * (element if offloads else per_parameter) / ranks,
        "activations": element * tokens * activations,
        "buffers": _buffers(model, element, ranks, on_gpus),
        "layer": element * tokens * backward + reduced,
        "loss": element * tokens * logits + (8 + element) * head,
        "step": 0.0 if offloads else 8 * min(count / ranks, SUB_GROUP),
        "host": count * OFFLOADED_STATES / resources.nodes if offloads else 0.0,
    }
    return MemoryEstimate(**{part: size / GIB for part, size in parts.items()}, tokens=tokens)


def _around(shape: Architecture) -> int:
    """Values per token that one layer keeps for its backward pass, but for those of the MLP."""
    return 10 * shape.hidden_size + 5 * shape.head_dim * (shape.heads + shape.key_value_heads)


def _activations(shape: Architecture, checkpointing: bool) -> int:
    """Values per token that all layers keep."""
    return shape.layers * (shape.hidden_size if checkpointing else _around(shape) + 4 * shape.intermediate_size)


def _buffers(model: ModelSize, element: int, ranks: int, on_gpus: bool) -> float:
    count, shape = model.parameters, model.architecture
    # On the CPU the pages of a bucket that is never filled are never taken.
    bucket = REDUCE_BUCKET if on_gpus else min(REDUCE_BUCKET, count)
    largest = max(shape.head_parameters, shape.layer_parameters) if shape else 0
    gathered = 0.0 if ranks == 1 else min(count, LIVE_PARAMETERS + largest)
    return (RUNTIME_GPU if on_gpus else RUNTIME_CPU) + 4 * bucket + element * gathered
