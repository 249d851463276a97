"""A causal language model as it is trained: rows in, summed token loss out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reprokit.errors import UserError
from reprokit.recipe.schema import TrainingSection
from reprokit.training import attention
from reprokit.training.batches import FlatBatch
from reprokit.training.loss import token_loss_sum

# What some architectures do with logits, which the fused loss does not.
_CHANGES_OF_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class LossHead(torch.nn.Module):
    """The output head and the loss in one. A module of its own, so that ZeRO-3 gathers its weight when it is used."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return token_loss_sum(hidden, self.weight, targets)


class TrainedModel(torch.nn.Module):
    """The transformers model `model` with the fused loss in the place of its output head.

    Everything but its decoder and its head (the vision part of a multimodal model, say) is frozen.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.head = LossHead(model.get_output_embeddings().weight)
        trained = {id(parameter) for part in (model.get_decoder(), self.head) for parameter in part.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)

    def forward(self, batch: FlatBatch) -> torch.Tensor:
        """Sum of -log p(target) in nats over the targets of the batch."""
        hidden = self.model.get_decoder()(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            boundaries=batch.boundaries,
            longest=batch.longest,
        ).last_hidden_state
        return self.head(hidden[0, batch.predicting], batch.targets)


def load(weights: Path, training: TrainingSection) -> TrainedModel:
    """The model in the folder `weights`, ready to be trained; `attention.register` must have been called.

    Raises:
        UserError: its logits are not what its head gives.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        weights, dtype=getattr(torch, training.precision.dtype), attn_implementation=attention.NAME
    )
    check_logits(model)
    model.train()  # from_pretrained leaves it in evaluation mode, where gradient checkpointing is off
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return TrainedModel(model)


def check_logits(model: Any) -> None:
    """Raises UserError for an architecture whose logits are not simply hidden states times output head."""
    text = model.config.get_text_config()
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        raise UserError(
            f"models of the kind {text.model_type} cannot be trained: their output head has a bias, which the fused "
            "loss leaves out. Valid are models such as Qwen3, Qwen2.5 and Gemma3."
        )
    for name in _CHANGES_OF_LOGITS:
        if getattr(text, name, None) not in (None, 1, 1.0):
            raise UserError(
                f"models of the kind {text.model_type} with {name}={getattr(text, name)} cannot be trained: the fused "
                "loss takes logits as the output head gives them. Valid are models such as Qwen3, Qwen2.5 and Gemma3."
            )
