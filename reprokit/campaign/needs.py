"""What a recipe needs of the machines, told from file headers and arithmetic, without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from reprokit.cluster.profile import ClusterProfile
from reprokit.errors import UserError
from reprokit.recipe.schema import ModelSection, Precision, Recipe

GIB = 1024**3
# Parameters, gradients and the two AdamW moments in fp32, with bf16 a copy of the parameters besides.
BYTES_PER_PARAMETER = {Precision.fp32: 16, Precision.bf16: 18}
CHECKPOINT_BYTES = {Precision.fp32: 4, Precision.bf16: 2}


def parameter_count(model: ModelSection) -> float | None:
    """Number of parameters: as the recipe says, counted in local files, or computed from a `config:` block."""
    if model.parameters is not None:
        return model.parameters
    if model.path is not None:
        return _count_safetensors(Path(model.path)) or None
    if model.config is not None:
        return _count_from_config(model.config, model.tokenizer_vocab_size)
    return None


def _count_safetensors(folder: Path) -> int:
    """Sum over the headers of all safetensors files (8 bytes of length, then JSON)."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        count += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return count


def _count_from_config(config: dict[str, Any], vocabulary: int | None) -> float | None:
    """Decoder of the Llama and Qwen kind: attention, gated MLP, embeddings; None if a size is not given."""
    try:
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        heads, intermediate = config["num_attention_heads"], config["intermediate_size"]
        vocabulary = config.get("vocab_size", vocabulary)
        head_dim = config.get("head_dim", hidden // heads)
        key_value = config.get("num_key_value_heads", heads) * head_dim
        attention = 2 * hidden * heads * head_dim + 2 * hidden * key_value
        embeddings = hidden * (vocabulary or 0) * (1 if config.get("tie_word_embeddings", True) else 2)
        return float(layers * (attention + 3 * hidden * intermediate) + embeddings)
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def training_memory_gib(recipe: Recipe) -> float | None:
    """Memory of parameters, gradients and optimiser states over all ranks, without activations."""
    count = parameter_count(recipe.model)
    return None if count is None else count * BYTES_PER_PARAMETER[recipe.training.precision] / GIB


def checkpoints_gib(recipe: Recipe) -> float | None:
    """Disk space of all checkpoints of the recipe."""
    count = parameter_count(recipe.model)
    if count is None:
        return None
    saved = len(recipe.training.checkpoint_steps) + (recipe.model.config is not None)
    return saved * count * CHECKPOINT_BYTES[recipe.training.precision] / GIB


def check_fits(recipe: Recipe, profile: ClusterProfile, where: str, here_gib: float) -> None:
    """Compare what training needs at least with what there is.

    Args:
        where: the cluster profile's name, for the message.
        here_gib: memory of this machine, used when the profile has no GPUs.

    Raises:
        UserError: parameters, gradients and optimiser states alone are larger than all memory.
    """
    needed = training_memory_gib(recipe)
    if needed is None:
        return
    if profile.gpu_memory_gb is not None:
        gpus = profile.train.nodes * profile.train.gpus_per_node
        there, what = gpus * profile.gpu_memory_gb, f"{gpus} GPUs of {profile.gpu_memory_gb:g} GB"
    else:
        there, what = here_gib, f"no GPU, {here_gib:.0f} GiB of memory"
    if needed <= there:
        return
    count = (parameter_count(recipe.model) or 0) / 1e9  # as model cards count
    raise UserError(
        f"recipe {recipe.name} does not fit.\n"
        f"  It needs: {count:.3g} billion parameters in full fine-tuning with AdamW take about {needed:,.0f} GiB over "
        f"all ranks, and activations on top.\n"
        f"  cluster={where} has: {what}."
    )


def check_shares(recipe: Recipe, profile: ClusterProfile, where: str) -> None:
    """Raises UserError when the ranks of the profile cannot share the global batch equally."""
    ranks, batch = profile.train.tasks, recipe.training.global_batch_size
    if batch % ranks:
        raise UserError(
            f"training.global_batch_size={batch} cannot be shared equally among the {ranks} ranks of cluster={where}; "
            f"choose a multiple of {ranks}, or another train.nodes or train.tasks_per_node in the profile"
        )
