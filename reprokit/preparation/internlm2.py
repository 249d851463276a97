"""InternLM2 and InternLM2.5 as Llama models: the same function of the tokens, without the code of their repositories.

The two architectures compute the same; only names and one layout differ. InternLM2 keeps the projections of queries,
keys and values in one matrix `wqkv`, in groups of rows: for each key-value head its query heads, then its key, then
its value. Its `w1`, `w3`, `w2` are Llama's gate, up and down projections.

Dynamic scaling of the rotary embedding is carried over: for a sequence longer than `max_position_embeddings` L the
base theta becomes theta x (factor x length / L - factor + 1)^(d / (d - 2)), d being the size of a head. Up to L, which
is 262,144 for InternLM2.5-20B and far more than any row of the paper has, nothing is scaled.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from reprokit.errors import UserError
from reprokit.records import manifest
from reprokit.training.shards import TensorPlan, write_weights

# Fields of the configuration that Llama has under the same name.
_SAME = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act "
    "max_position_embeddings initializer_range rms_norm_eps bos_token_id eos_token_id pad_token_id"
).split()
_SCALINGS = ("dynamic", "linear")
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OUTSIDE = {
    "model.tok_embeddings.weight": "model.embed_tokens.weight",
    "model.norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INSIDE = {  # a layer
    "attention.wqkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.wo": ["self_attn.o_proj"],
    "feed_forward.w1": ["mlp.gate_proj"],
    "feed_forward.w3": ["mlp.up_proj"],
    "feed_forward.w2": ["mlp.down_proj"],
    "attention_norm": ["input_layernorm"],
    "ffn_norm": ["post_attention_layernorm"],
}
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def convert(source: Path, checkpoint: Path, tokenizer: Any, step: int, revision: str | None) -> None:
    """Write the model of `source` as a Llama model to `checkpoint`, a complete checkpoint of `step`.

    `revision` is the hub commit of `source`, for the manifest.

    Tensors come one after the other: no more than one file of the checkpoint is in memory.

    Raises:
        UserError: the weights are pickled, damaged, or not those of the configuration, or the disk is full.
    """
    files = _weight_files(source)
    config = llama_config(json.loads((source / "config.json").read_bytes()))
    plan = _plan(files, config)
    needed = sum(tensor.bytes for tensor in plan)
    with manifest.draft(checkpoint, step, needed, revision) as draft:
        config.save_pretrained(draft.folder)
        if (source / "generation_config.json").is_file():
            shutil.copyfile(source / "generation_config.json", draft.folder / "generation_config.json")
        tokenizer.save_pretrained(draft.folder)
        write_weights(draft.folder, plan, _tensors(files, config))


def llama_config(fields: dict[str, Any]) -> LlamaConfig:
    """The configuration of the same model in the Llama architecture.

    Raises:
        UserError: a field is missing, or the rotary embedding is scaled in an unknown way.
    """
    scaling = fields.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    rope = {"rope_theta": fields.get("rope_theta", 10000.0), "rope_type": "default"}
    if kind in _SCALINGS:
        rope |= {"rope_type": kind, "factor": scaling["factor"]}
    elif kind is not None:
        raise UserError(f"config.json: rope_scaling is {scaling}; valid types: {', '.join(_SCALINGS)}, or null")
    missing = [name for name in _SAME if name not in fields]
    if missing:
        raise UserError(f"config.json of an InternLM2 model without {', '.join(missing)}: fetch the model again")
    return LlamaConfig(
        **{name: fields[name] for name in _SAME},
        attention_bias=fields.get("bias", False),
        tie_word_embeddings=fields.get("tie_word_embeddings", False),
        rope_parameters=rope,
        architectures=["LlamaForCausalLM"],
        dtype=fields.get("torch_dtype", fields.get("dtype", "bfloat16")),
    )


def _weight_files(source: Path) -> list[Path]:
    files = sorted(source.glob("*.safetensors"))
    if not files:
        pickled = any(source.glob("*.bin"))
        what = "only pickled weights (*.bin), which can run any code and are not opened" if pickled else "no weights"
        raise UserError(f"{source} has {what}; give a folder or revision of the model with *.safetensors")
    return files


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}. Fetch the model again.") from error


def _targets(name: str) -> list[str]:
    """Llama's names for a tensor of InternLM2; none for an unknown one."""
    if name in _OUTSIDE:
        return [_OUTSIDE[name]]
    if (match := _LAYER.fullmatch(name)) and match[2] in _INSIDE:
        return [f"model.layers.{match[1]}.{target}.{match[3]}" for target in _INSIDE[match[2]]]
    return []


def _plan(files: list[Path], config: LlamaConfig) -> list[TensorPlan]:
    """The tensors that will be written, in the order in which they are read.

    Raises:
        UserError: they are not those of the configuration.
    """
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    plan = []
    for path in files:
        with _opened(path) as file:
            for name in file.keys():
                kind, shape = file.get_slice(name).get_dtype(), tuple(file.get_slice(name).get_shape())
                targets = [target for target in _targets(name) if target in expected]
                rows = sum(expected[target][0] for target in targets)
                if kind not in _DTYPES or not targets or shape != (rows, *expected[targets[0]][1:]):
                    raise UserError(f"{path}: {name}, {list(shape)} {kind}, is no tensor of the model of config.json")
                plan += [TensorPlan(target, expected[target], _DTYPES[kind]) for target in targets]
    names = [tensor.name for tensor in plan]
    if missing := sorted(set(expected) - set(names)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{files[0].parent} lacks weights: {', '.join(missing[:3])}{more} (as Llama names them)")
    if len(names) != len(set(names)):
        raise UserError(f"{files[0].parent} has tensors twice: remove the *.safetensors that are not of the model")
    return plan


def _tensors(files: list[Path], config: LlamaConfig) -> Iterator[tuple[str, torch.Tensor]]:
    for path in files:
        with _opened(path) as file:
            for name in file.keys():
                tensor, targets = file.get_tensor(name), _targets(name)
                parts = split_wqkv(tensor, config) if len(targets) > 1 else [tensor]
                for target in targets:
                    yield target, parts.pop(0)


def split_wqkv(tensor: torch.Tensor, config: LlamaConfig) -> list[torch.Tensor]:
    """Weight [(heads + 2 key-value heads) x head size, hidden] or bias [the same rows] of `wqkv` -> query, key, value.

    Each has its heads in Llama's order: those of the first key-value head first.
    """
    key_value_heads = config.num_key_value_heads or config.num_attention_heads
    per_group = config.num_attention_heads // key_value_heads
    groups = tensor.unflatten(0, (key_value_heads, per_group + 2, -1))  # [.., place in the group, head size, ..]
    pieces = groups.split([per_group, 1, 1], dim=1)
    return [piece.flatten(0, 2).contiguous() for piece in pieces]
