"""Sharing the requests of a checkpoint among engines: each claims the next chunk when it has room."""

from __future__ import annotations

import heapq
import os
import random
from collections.abc import Sequence
from pathlib import Path

# Parts of an equal share of the requests, chosen with tests/performance/replay.py. HELD: what an engine holds at most;
# with the rest, engines even out what nobody could know. OPENED: the first chunk of a worker, of OPENING at most.
HELD, OPENED, OPENING = 1 / 2, 1 / 4, 128
# After it, a round of one chunk per worker gives out this part of the requests that are left.
ROUND = 1 / 16


def plan_chunks(expected: Sequence[float], workers: int) -> list[list[int]]:
    """Indexes of requests in chunks, in the order in which they are to be claimed.

    Args:
        expected: tokens that each request may take; all equal where nothing is known.
        workers: engines that will claim.

    One chunk for each worker to open with, then chunks that shrink down to one request, the longest requests first.
    The opening chunks hold the longest requests of all and as many of the shortest, and are expected to take equally
    long: every engine starts its part of what lasts longest at once, whichever is up first.
    Where as much is expected of all, the order is shuffled, since requests to one benchmark stand together. A claim
    costs a file on a shared file system, so there are not more than some thousands of chunks.
    """
    order = random.Random(0).sample(range(len(expected)), len(expected))
    order.sort(key=lambda index: -expected[index])
    each = min(OPENING, int(OPENED * len(order) / workers))
    longest = order[: workers * (each - each // 2)]
    shortest = order[len(order) - workers * (each // 2) :]
    chunks = _deal([*longest, *shortest], expected, workers) if each else []
    start, end = len(longest), len(order) - len(shortest)
    while start < end:
        size = max(1, int(ROUND * (end - start) / workers))
        chunks.append(order[start : min(start + size, end)])
        start += size
    return chunks


def _deal(order: Sequence[int], expected: Sequence[float], workers: int) -> list[list[int]]:
    """Give equally many of the requests to each worker, each request to the one that has the least to expect."""
    chunks: list[list[int]] = [[] for _ in range(workers)]
    loads = [(0.0, worker) for worker in range(workers)]
    for index in order:
        load, worker = heapq.heappop(loads)
        chunks[worker].append(index)
        if len(chunks[worker]) * workers < len(order):
            heapq.heappush(loads, (load + expected[index], worker))
    return chunks


def window(requests: int, workers: int, slots: int) -> int:
    """How many requests an engine should hold at a time: it claims the next chunk while it holds fewer.

    Args:
        requests: of all workers together.
        slots: sequences that an engine runs at a time at most.

    As many as fill the engine, but where requests are few only a part of an equal share of them: otherwise the first
    engines that are up take everything.
    """
    if workers == 1:
        return slots
    return max(1, min(slots, int(HELD * requests / workers)))


class Claims:
    """Claims of chunks by one worker; every worker of the same plan has one on the same folder.

    A chunk is claimed by making the file of its number, which the file system (NFS from version 3 on too) lets only
    one succeed in. Claims are never given back: whoever starts again plans what is missing in a new folder.
    """

    def __init__(self, folder: Path, chunks: Sequence[Sequence[int]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.chunks = chunks
        self.position = 0  # all chunks before it are claimed

    def next(self) -> list[int] | None:
        """Claim the first free chunk and return it; None if there is none any more."""
        while self.position < len(self.chunks):
            chunk = self.chunks[self.position]
            if self._claim(self.position):
                self.position += 1
                return list(chunk)
            self._pass_over_claimed()
        return None

    def _claim(self, number: int) -> bool:
        try:
            os.close(os.open(self._file(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        return True

    def _pass_over_claimed(self) -> None:
        """Move past the claimed chunk at `position`, and past others in ever longer leaps.

        Nobody claims a chunk before the one in front of it is claimed, so that a claimed one tells that all before it
        are. A file that a network file system does not show yet only shortens a leap.
        """
        leap = 1
        self.position += 1
        while self.position + leap - 1 < len(self.chunks) and os.path.exists(self._file(self.position + leap - 1)):
            self.position += leap
            leap *= 2

    def _file(self, number: int) -> Path:
        return self.folder / str(number)
