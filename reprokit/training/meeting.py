"""Where the ranks of a training meet and tell each other facts, before and beside every collective.

All goes through the store of torch.distributed on rank 0: it needs neither NCCL nor gloo, so it tells what is wrong
with them, and every wait ends.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import PrefixStore, Store, TCPStore

from reprokit.errors import NodeError

FAREWELL = 30.0  # seconds that rank 0, which holds the store, waits for the others to have read
_meetings = itertools.count()


def node_name() -> str:
    """Slurm's name of this node; empty outside Slurm."""
    return os.environ.get("SLURMD_NODENAME", "")


def join(backend: str, hosts: Sequence[str], seconds: float) -> Store:
    """The store that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe, once every rank has come to it.

    Args:
        backend: of the process group that is to be made.
        hosts: nodes of the job in the order of its ranks, as many on each; empty: all are on this one.
        seconds: to wait for the last rank.

    Raises:
        NodeError: a rank did not come, or has no GPU while others have.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    first = (hosts[0] if hosts else node_name()) or None
    try:
        patience = timedelta(seconds=seconds)
        store = TCPStore(address, port, world_size, rank == 0, timeout=patience, wait_for_workers=False)
    except torch.distributed.DistError as error:
        if rank == 0:
            raise
        raise NodeError(
            f"rank 0 on {first or address} was not reached in {seconds:.0f} s: {_line(error)}", first
        ) from error
    said = Meeting(store, rank, world_size, hosts).share("join", [node_name(), backend], seconds)
    others = [other for other, (_, theirs) in enumerate(said) if theirs != "nccl"]
    if 0 < len(others) < world_size:
        named = ", ".join(f"{other} (node {said[other][0]})" for other in others)
        raise NodeError(f"torch sees no GPU on rank {named}, while other ranks have one", said[others[0]][0] or None)
    return store


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]


class Meeting:
    """Facts of all ranks. All of them must make it, and call `share` with the same names in the same order."""

    def __init__(self, store: Store, rank: int, world_size: int, hosts: Sequence[str] = ()) -> None:
        self._store = PrefixStore(f"meeting_{next(_meetings)}", store)
        self.rank, self.world_size, self._hosts = rank, world_size, hosts

    def share(self, name: str, mine: Any, seconds: float) -> list[Any]:
        """What every rank has to say (plain data), by rank, waiting up to `seconds` for the last of them.

        Raises:
            NodeError: ranks were not heard of in that time; all others raise the same.
        """
        try:
            self._store.set(f"{name}/{self.rank}", json.dumps(mine))
            missing = self._await(name, seconds)
            keys = [f"{name}/{rank}" for rank in range(self.world_size) if rank not in missing]
            said = [json.loads(content) for content in self._store.multi_get(keys)]
            self._take_leave(name, missing)
        except torch.distributed.DistError as error:
            raise NodeError(f"rank 0, where the ranks meet, is gone: {_line(error)}", self.node_of(0)) from error
        if missing:
            raise self._unheard_of(missing, seconds)
        return said

    def node_of(self, rank: int) -> str | None:
        """The node of a rank, by the order of ranks on nodes; None where it is not known."""
        if self._hosts:
            return self._hosts[rank * len(self._hosts) // self.world_size]
        return node_name() or None

    def _await(self, name: str, seconds: float) -> list[int]:
        """Ranks that have not spoken in time; the first rank that has waited enough decides for all."""
        keys = [f"{name}/{rank}" for rank in range(self.world_size)]
        verdict, pause, deadline = f"{name}/missing", 0.001, time.monotonic() + seconds
        while not self._store.check(keys):
            if self._store.check([verdict]):
                break
            if time.monotonic() > deadline:
                missing = [rank for rank, key in enumerate(keys) if not self._store.check([key])]
                self._store.compare_set(verdict, "", json.dumps(missing))
                break
            time.sleep(pause)  # in small portions: signals are handled in between
            pause = min(2 * pause, 0.05)
        return json.loads(self._store.get(verdict)) if self._store.check([verdict]) else []

    def _take_leave(self, name: str, missing: list[int]) -> None:
        """Rank 0 stays until the others have read: the store goes with it."""
        self._store.set(f"{name}/read/{self.rank}", "")
        if self.rank != 0:
            return
        keys = [f"{name}/read/{rank}" for rank in range(self.world_size) if rank not in missing]
        pause, deadline = 0.001, time.monotonic() + FAREWELL
        while not self._store.check(keys) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _unheard_of(self, missing: list[int], seconds: float) -> NodeError:
        nodes = {rank: self.node_of(rank) for rank in missing}
        named = [f"{rank} (node {node})" if node else str(rank) for rank, node in nodes.items()]
        word = "rank" if len(missing) == 1 else "ranks"
        return NodeError(f"nothing was heard of {word} {', '.join(named)} for {seconds:.0f} s", nodes[missing[0]])
