"""Sizes of a decoder, read from a transformers configuration without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprokit.recipe.schema import ModelSection

# Without these fields of a config.json there is no Architecture; others have defaults.
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")

LARGEST = 2**63 - 1  # of a size: anything above is a slip of the keyboard


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama kind: grouped-query attention, gated MLP, token embeddings and output head."""

    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary: int
    tied: bool  # embeddings and output head are the same parameters
    context: int | None = None  # longest row that positions exist for

    @property
    def layer_parameters(self) -> int:
        """Parameters of the matrices of one layer."""
        query, key_value = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        return self.hidden_size * (2 * query + 2 * key_value + 3 * self.intermediate_size)

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head."""
        return self.hidden_size * self.vocabulary

    @property
    def parameters(self) -> int:
        """All parameters, but for norms and biases (less than 0.01 % of them)."""
        return self.layers * self.layer_parameters + self.head_parameters * (1 if self.tied else 2)

    def training_flops(self, tokens: int, target_tokens: int, squared_lengths: int) -> float:
        """Floating-point operations of forward and backward passes, those computed twice counted once.

        6 x (parameters of all layers) x tokens + 6 x (parameters of the output head) x target tokens
        + 6 x layers x heads x head_dim x (sum of the squared row lengths): a backward pass costs two forward passes, a
        forward pass two operations per parameter and token, and causal attention 2 x heads x head_dim x length^2 per
        layer (scores and weighted values, half of the square each).

        Args:
            tokens, target_tokens: of all rows together; the head sees only positions that have a target.
            squared_lengths: sum over the rows of the square of their lengths, for attention stays inside a row.
        """
        linear = self.layers * self.layer_parameters * tokens + self.head_parameters * target_tokens
        return 6.0 * (linear + self.layers * self.heads * self.head_dim * squared_lengths)


def from_config(config: Mapping[str, Any]) -> Architecture | None:
    """The architecture that the fields of a `config.json` describe; None if a size is not given or unusable.

    A multimodal configuration counts with its language model only.
    """
    try:
        fields = config.get("text_config") or config
        context = fields.get("max_position_embeddings")
        hidden, heads = int(fields["hidden_size"]), int(fields["num_attention_heads"])
        found = Architecture(
            hidden_size=hidden,
            layers=int(fields["num_hidden_layers"]),
            heads=heads,
            key_value_heads=int(fields.get("num_key_value_heads") or heads),
            head_dim=int(fields.get("head_dim") or hidden // heads),
            intermediate_size=int(fields["intermediate_size"]),
            vocabulary=int(fields["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", fields.get("tie_word_embeddings", True))),
            context=None if context is None else int(context),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    sizes = (found.hidden_size, found.layers, found.heads, found.key_value_heads, found.head_dim)
    others = (found.intermediate_size, found.vocabulary)
    return found if min(*sizes, *others) > 0 and max(*sizes, *others) <= LARGEST else None


def of_model(model: ModelSection) -> Architecture | None:
    """The architecture of a recipe's base model as far as it is known without the network.

    Raises:
        OSError: the config.json of `model.path` cannot be read.
        ValueError: it is not JSON.
    """
    if model.config is not None:
        return from_config({"vocab_size": model.tokenizer_vocab_size, **model.config})
    if model.path is not None:
        return from_config(json.loads((Path(model.path) / "config.json").read_bytes()))
    return from_config(model.shape) if model.shape is not None else None
