"""The rows of a forward pass as one row without padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reprokit.data.tokens import TokenDataset

IGNORED = -100  # label of a position without loss, as in torch.nn.functional.cross_entropy


@dataclass(frozen=True)
class SequenceShard:
    """The part of every row that a rank holds: number `index` of `count` equal ones (1: the whole)."""

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class FlatBatch:
    """Rows one after the other, or a rank's shard of that: `length` positions of it.

    `input_ids`, `position_ids`: int64 [1, length]; positions begin anew with every row.
    `boundaries`: int32 [rows + 1], where the rows begin and end in the whole, `longest` the longest of them.
    `predicting`: int64 [targets], positions of this shard whose next token is a target, `targets`: int64 [targets],
    those tokens. There is at least one, whose target is IGNORED if the shard has no real one.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    boundaries: torch.Tensor
    longest: int
    predicting: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> FlatBatch:
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in self._TENSORS}
        return FlatBatch(longest=self.longest, **moved)

    _TENSORS = ("input_ids", "position_ids", "boundaries", "predicting", "targets")


def flatten(dataset: TokenDataset, rows: tuple[int, ...], shard: SequenceShard) -> FlatBatch:
    """The given rows as one; loss on response tokens and EOS only, at the position before each.

    Rows that do not divide into `shard.count` equal parts get a last row of up to `shard.count` - 1 padding tokens.
    """
    examples = [dataset[row] for row in rows]
    lengths = [len(ids) for ids, _ in examples]
    if padding := -sum(lengths) % shard.count:
        lengths.append(padding)
    input_ids = torch.zeros(sum(lengths), dtype=torch.long)
    targets = torch.full_like(input_ids, IGNORED)
    start = 0
    for ids, prompt_length in examples:
        tokens = torch.from_numpy(ids)
        input_ids[start : start + len(ids)] = tokens
        targets[start + prompt_length - 1 : start + len(ids) - 1] = tokens[prompt_length:]
        start += len(ids)
    part = slice(shard.index * len(input_ids) // shard.count, (shard.index + 1) * len(input_ids) // shard.count)
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    predicting = (targets[part] != IGNORED).nonzero().flatten()
    if len(predicting) == 0:
        predicting = torch.zeros(1, dtype=torch.long)
    return FlatBatch(
        input_ids=input_ids[None, part],
        position_ids=position_ids[None, part],
        boundaries=torch.tensor([0, *lengths]).cumsum(0).int(),
        longest=max(lengths),
        predicting=predicting,
        targets=targets[part][predicting],
    )
