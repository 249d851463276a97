"""Token loss of a causal language model."""

from __future__ import annotations

import torch
from torch.nn import functional

from reprokit.training.batches import IGNORED


def token_loss_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of -log p(label) in nats over the target tokens.

    Args:
        logits: (rows, length, vocabulary); position t predicts the token at t + 1.
        labels: (rows, length), IGNORED where there is no loss.
    """
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return functional.cross_entropy(logits[:, :-1][wanted].float(), targets[wanted], reduction="sum")
