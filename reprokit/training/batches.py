"""Which rows make up each optimiser step, how they are shared among the ranks, and padded micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from reprokit.data.tokens import TokenDataset

IGNORED = -100  # label of a position without loss, as in torch.nn.functional.cross_entropy


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of shape (rows, longest row); `labels` hold the token itself where there is loss, else IGNORED."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


def global_batches(rows: int, batch_size: int, epochs: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the row numbers of every optimiser step; each epoch has its own order and drops its last partial batch."""
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(rows)
        for start in range(0, rows - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def share_of_rank(batch: np.ndarray, lengths: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The rows of `batch` (a multiple of `world_size`) that `rank` computes.

    They are dealt out longest first and there and back again (0 1 2 2 1 0 0 1 ...), so that ranks have equal work and
    the rows of a micro-batch similar lengths.
    """
    longest_first = batch[np.argsort(-lengths[batch], kind="stable")]
    rounds = longest_first.reshape(-1, world_size)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds[:, rank]


def collate(dataset: TokenDataset, rows: np.ndarray, pad_id: int) -> MicroBatch:
    """Right-padded micro-batch of the given rows; loss on response tokens and EOS only."""
    examples = [dataset[int(row)] for row in rows]
    shape = (len(examples), max(len(ids) for ids, _ in examples))
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for index, (ids, prompt_length) in enumerate(examples):
        tokens = torch.from_numpy(ids)
        input_ids[index, : len(ids)] = tokens
        attention_mask[index, : len(ids)] = 1
        labels[index, prompt_length : len(ids)] = tokens[prompt_length:]
    return MicroBatch(input_ids, attention_mask, labels)
