"""Token loss of a causal language model."""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from reprokit.training.batches import IGNORED

PIECE = 2048  # tokens whose logits are in fp32 at a time


def token_loss_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of -log p(label) in nats over the target tokens, in fp32.

    Computed in pieces that the backward pass computes again: the fp32 logits of a long row over a large vocabulary
    never exist at once.

    Args:
        logits: (rows, length, vocabulary); position t predicts the token at t + 1.
        labels: (rows, length), IGNORED where there is no loss.
    """
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
    total = torch.zeros((), device=logits.device)
    for piece, wanted in zip(logits.flatten(0, 1).split(PIECE), targets.split(PIECE), strict=True):
        total = total + checkpoint(_loss_of_piece, piece, wanted, use_reentrant=False)
    return total


def _loss_of_piece(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
