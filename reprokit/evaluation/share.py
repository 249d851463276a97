"""Which of the workers of a stage this is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """This worker is number `rank` of the `world_size` workers that share the work of one job."""

    rank: int
    world_size: int
