"""Token loss of a causal language model straight from hidden states: logits exist for a few positions at a time."""

from __future__ import annotations

from typing import Any

import torch

from reprokit.training.batches import IGNORED

LOGITS_AT_A_TIME = 2**20  # on the CPU: 4 MiB in fp32, about what its caches hold


def token_loss_sum(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of -log p(target) in nats, in fp32; logits are in the precision of `hidden`, their softmax in fp32.

    Liger's kernel on GPUs, PyTorch in pieces elsewhere. Both compute the gradients together with the loss, so nothing
    is computed twice; they are kept in the size of `hidden` and `weight`.

    Args:
        hidden: [positions, hidden size], only positions that predict a target.
        weight: [vocabulary, hidden size], of the output head.
        targets: int64 [positions], IGNORED where there is no loss.
    """
    if not hidden.is_cuda:
        return _LinearCrossEntropy.apply(hidden, weight, targets)
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    # Summed over the pieces in fp32: in bf16 every piece would round what the earlier ones gave.
    return liger_fused_linear_cross_entropy(
        hidden, weight, targets, ignore_index=IGNORED, reduction="sum", accum_dtype=torch.float32
    )


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=hidden.device)
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros(weight.shape, device=weight.device)
        size = max(1, LOGITS_AT_A_TIME // len(weight))
        for piece in (slice(start, start + size) for start in range(0, len(hidden), size)):
            logits = (hidden[piece] @ weight.T).float()
            counted, wanted = targets[piece] != IGNORED, targets[piece].clamp(min=0)[:, None]
            normaliser = logits.logsumexp(-1, keepdim=True)
            total += ((normaliser - logits.gather(1, wanted)).squeeze(1) * counted).sum()
            gradient = logits.sub_(normaliser).exp_()
            gradient.scatter_add_(1, wanted, gradient.new_full(wanted.shape, -1.0)).mul_(counted[:, None])
            rounded = gradient.to(hidden.dtype)
            torch.mm(rounded, weight, out=of_hidden[piece])
            if rounded.dtype == of_weight.dtype:
                of_weight.addmm_(rounded.T, hidden[piece])
            else:
                of_weight += rounded.T @ hidden[piece]
        ctx.save_for_backward(of_hidden, of_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * gradients[0], of_weight * gradients[0], None
