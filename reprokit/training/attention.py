"""Attention over rows that lie one after the other in one: no token sees another row, nothing is padded."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from reprokit.errors import UserError
from reprokit.recipe.schema import Precision

NAME = "reprokit_rows"  # under which transformers knows it
# Versions of flash-attention by the compute capability of the GPU, best first.
_VERSIONS = {8: (2,), 9: (3, 2, 4), 10: (4, 2), 11: (4, 2), 12: (2, 4)}

_sequence_group: Any = None  # the ranks that share every row; None: each rank has whole rows
_flash_version: int | None = None


def register(precision: Precision, sequence_group: Any) -> None:
    """Make the attention known to transformers as NAME, for models of this process.

    Args:
        sequence_group: process group of the ranks that share every row, each with an equal part of it; None: whole
            rows.
    """
    from transformers import AttentionInterface

    global _sequence_group, _flash_version
    _sequence_group = sequence_group
    _flash_version = _choose_flash() if torch.cuda.is_available() and precision is Precision.bf16 else None
    AttentionInterface.register(NAME, attend)


def kernel() -> str:
    """What computes the attention of this process."""
    return "PyTorch SDPA, row by row" if _flash_version is None else f"flash-attention {_flash_version}"


def _choose_flash() -> int | None:
    """The best version of flash-attention that this GPU and this environment have; None without one."""
    from transformers import utils

    there = {
        2: utils.is_flash_attn_2_available,
        3: utils.is_flash_attn_3_available,
        4: utils.is_flash_attn_4_available,
    }
    wanted = _VERSIONS.get(torch.cuda.get_device_capability()[0], ())
    return next((version for version in wanted if there[version]()), None)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    *,
    boundaries: torch.Tensor,
    longest: int,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row, in the form in which transformers calls attention functions.

    Args:
        query, key, value: [1, heads, length, head size]; keys and values may have fewer heads.
        boundaries: int32 [rows + 1], `longest`: tokens of the longest row; as in `FlatBatch`.
        sliding_window: tokens that a token sees at most, itself included.

    Returns:
        [1, length, heads, head size], None

    Raises:
        UserError: the architecture caps attention scores or has attention sinks.
    """
    if softcap is not None or s_aux is not None:
        raise UserError(
            "this model caps its attention scores or has attention sinks, which the attention over rows without "
            "padding does not compute. Valid are models such as Qwen3, Qwen2.5, Gemma3 and Llama."
        )
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if _sequence_group is not None:
        key, value = _enough_heads(query, key), _enough_heads(query, value)
        query, key, value = (_exchange(states, scatter=2, gather=1) for states in (query, key, value))
    if _flash_version is not None:
        attended = _flash(query, key, value, boundaries, longest, scaling, sliding_window, dropout)
    else:
        attended = _row_by_row(query, key, value, boundaries, scaling, sliding_window, dropout)
    if _sequence_group is not None:
        attended = _exchange(attended, scatter=1, gather=2)
    return attended, None


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: Any,
    longest: int,
    scaling: float | None,
    sliding_window: int | None,
    dropout: float,
) -> torch.Tensor:
    # transformers knows how the versions differ in their arguments.
    from transformers.modeling_flash_attention_utils import _flash_attention_forward

    return _flash_attention_forward(
        query,
        key,
        value,
        attention_mask=None,
        query_length=query.shape[1],
        is_causal=True,
        dropout=dropout,
        softmax_scale=scaling,
        sliding_window=sliding_window,
        cu_seq_lens_q=boundaries,
        cu_seq_lens_k=boundaries,
        max_length_q=longest,
        max_length_k=longest,
        attn_implementation=f"flash_attention_{_flash_version}",
    )


def _row_by_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    scaling: float | None,
    sliding_window: int | None,
    dropout: float,
) -> torch.Tensor:
    """PyTorch's attention on one row after the other: the blocks of a block-diagonal mask without what is between."""
    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key, value = (states.repeat_interleave(groups, dim=2) for states in (key, value))
    lengths = boundaries.diff().tolist()
    by_row = (states.transpose(1, 2).split(lengths, dim=2) for states in (query, key, value))
    attended = []
    for queries, keys, values in zip(*by_row, strict=True):
        window = _window(queries.shape[2], sliding_window, query.device)
        of_row = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=window, dropout_p=dropout, is_causal=window is None, scale=scaling
        )
        attended.append(of_row.transpose(1, 2))
    return torch.cat(attended, dim=1)


def _window(length: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Boolean mask of a causal sliding window; None where the row is not longer than the window."""
    if sliding_window is None or length <= sliding_window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < sliding_window)


def _exchange(states: torch.Tensor, scatter: int, gather: int) -> torch.Tensor:
    """DeepSpeed Ulysses: from a part of the row with all heads to the whole row with a part of the heads, or back."""
    from deepspeed.sequence.layer import _SeqAllToAll

    return _SeqAllToAll.apply(_sequence_group, states, scatter, gather, 0)


def _enough_heads(query: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Keys or values with their heads repeated so that every rank of the group gets those of its query heads."""
    ranks, heads = torch.distributed.get_world_size(_sequence_group), states.shape[2]
    repeats = next(count for count in range(1, ranks + 1) if heads * count % ranks == 0)
    return states if repeats == 1 else states.repeat_interleave(repeats, dim=2)
