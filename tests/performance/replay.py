"""Replay of recorded response lengths on engines that share them: ours against equal shuffled shards.

    python -m tests.performance.replay [--lengths samples.jsonl ... [--expected samples.jsonl ...]]

The chunks, their order and the number of requests that an engine holds are the real ones of
`reprokit.evaluation.sharing`; only the clock and the engines are not. Without --lengths the requests are those of the
paper's ten benchmarks with drawn lengths. --expected has the responses of another checkpoint to the same problems.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

import msgspec
import numpy as np

from reprokit.evaluation.sharing import plan_chunks, window
from reprokit.records.files import read_json_lines

LONGEST = 32768
# Problems, samples of each, median tokens, spread (of the logarithm), share that is cut off at LONGEST.
BENCHMARKS = {
    "MATH500": (500, 3, 3200, 0.6, 0.03),
    "AIME24": (30, 10, 11000, 0.5, 0.2),
    "LiveCodeBench": (511, 3, 8000, 0.7, 0.1),
    "GPQA-Diamond": (198, 3, 6500, 0.55, 0.05),
    "MMLU-Pro": (1000, 1, 2000, 0.7, 0.02),
    "IFEval": (541, 1, 1200, 0.6, 0.002),
    "AlpacaEval": (805, 1, 1200, 0.5, 0.001),
    "HaluEval": (30000, 1, 600, 0.5, 0.001),
    "TruthfulQA": (817, 1, 700, 0.5, 0.001),
    "HEx-PHI": (330, 1, 900, 0.6, 0.001),
}
OF_ITEM = 0.85  # correlation of a sample's logarithm with its problem's difficulty
OF_CHECKPOINT = 0.9  # of a problem's difficulty for one checkpoint with that for another
LATE_SHARE, LATE_SECONDS = 0.25, 60.0  # engines that are up later than the others, by up to so much


@dataclass(frozen=True)
class Regime:
    """An engine: a step with n running sequences takes `base` + n * `each` seconds; it runs `slots` at most."""

    name: str
    base: float
    each: float
    slots: int

    def ideal(self, lengths: np.ndarray, up: Sequence[float], checkpoints: int) -> float:
        """Seconds that no sharing can beat: of the longest request alone, or of all work on engines that stay full."""
        work = float(lengths.sum()) / len(up) * (self.base / self.slots + self.each)
        return max(float(lengths.max()) * (self.base + self.each), mean(up) + checkpoints * work)


# What a 14B model in bf16 on an H200 should take, from 28 GB of weights and 160 kB of keys and values per token at
# 4.8 TB/s; then one short of memory, and what would hold if only the one or only the other part took time.
REGIMES = (
    Regime("14B on an H200", 0.008, 0.0002, 256),
    Regime("room for 8 sequences", 0.03, 0.0002, 8),
    Regime("latency alone", 0.02, 0.0, 256),
    Regime("throughput alone", 0.0, 0.0004, 8),
    Regime("throughput alone, all at once", 0.0, 0.0004, 256),
)


def draw(seed: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of every response, int64 [requests], and what another checkpoint lets expect, float64 [requests].

    Expected is the mean over the other checkpoint's samples of the same problem. `size`: share of the problems.
    """
    generator = np.random.default_rng(seed)
    lengths, expected = [], []
    for problems, samples, median, spread, cut in BENCHMARKS.values():
        count = max(1, int(size * problems))
        longest = NormalDist().inv_cdf(1 - cut)

        def responses(
            difficulty: np.ndarray,
            shape: tuple[int, int] = (count, samples),
            median: float = median,
            spread: float = spread,
            longest: float = longest,
        ) -> np.ndarray:
            noise = generator.normal(size=shape)
            drawn = OF_ITEM * difficulty[:, None] + (1 - OF_ITEM**2) ** 0.5 * noise
            tokens = np.clip(median * np.exp(spread * drawn), 20, LONGEST)
            return np.where(drawn > longest, LONGEST, tokens).astype(int)

        here = generator.normal(size=count)
        there = OF_CHECKPOINT * here + (1 - OF_CHECKPOINT**2) ** 0.5 * generator.normal(size=count)
        lengths.append(responses(here).ravel())
        expected.append(np.repeat(responses(there).mean(axis=1), samples))
    return np.concatenate(lengths), np.concatenate(expected)


class _Response(msgspec.Struct):
    benchmark: str
    item: str
    response_tokens: int


def recorded(lengths: Sequence[Path], expected: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Like `draw`, from files of samples."""
    rows = [row for path in lengths for row in read_json_lines(path, _Response)]
    known: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in (row for path in expected for row in read_json_lines(path, _Response)):
        known[row.benchmark, row.item].append(row.response_tokens)
    found = [known.get((row.benchmark, row.item), [LONGEST]) for row in rows]
    return np.array([row.response_tokens for row in rows]), np.array([mean(tokens) for tokens in found])


def replay(
    lengths: Sequence[int], chunks: Sequence[Sequence[int]], hold: int, regime: Regime, up: Sequence[float]
) -> list[float]:
    """Seconds at which each engine has finished its last request.

    Args:
        chunks: requests by index; each worker claims its first one before its engine is up.
        hold: an engine claims the next chunk while it holds fewer requests.
        up: seconds at which each engine is up.
    """
    workers = len(up)
    waiting = [list(reversed(chunks[worker])) if worker < len(chunks) else [] for worker in range(workers)]
    claimed = min(workers, len(chunks))
    running: list[list[float]] = [[] for _ in up]  # by engine, the steps at which its sequences end
    steps = [0.0] * workers
    ends = list(up)
    events = [(seconds, worker) for worker, seconds in enumerate(up)]
    heapq.heapify(events)
    while events:
        now, worker = heapq.heappop(events)
        mine, queue = running[worker], waiting[worker]
        if mine:
            ends[worker], steps[worker] = now, mine[0]
            while mine and mine[0] == steps[worker]:
                heapq.heappop(mine)
        while claimed < len(chunks) and len(mine) + len(queue) < hold:
            queue[:0] = reversed(chunks[claimed])
            claimed += 1
        while queue and len(mine) < regime.slots:
            heapq.heappush(mine, steps[worker] + lengths[queue.pop()])
        if mine:
            pause = (mine[0] - steps[worker]) * (regime.base + regime.each * len(mine))
            heapq.heappush(events, (now + pause, worker))
    return ends


def starts(workers: int, seed: int) -> list[float]:
    """Seconds at which the engines are up: most at once, some later."""
    generator = np.random.default_rng((seed, workers))
    late = generator.random(workers) < LATE_SHARE
    return (late * generator.random(workers) * LATE_SECONDS).tolist()


def shared(
    lengths: np.ndarray, expected: np.ndarray, regime: Regime, up: Sequence[float], checkpoints: int = 1
) -> list[float]:
    """Ends of the engines with our sharing; they go from one checkpoint to the next without waiting for each other."""
    workers = len(up)
    chunks = plan_chunks(expected.tolist(), workers)
    hold = window(len(lengths), workers, regime.slots)
    tokens, ends = lengths.tolist(), list(up)
    for _ in range(checkpoints):
        order = sorted(range(workers), key=ends.__getitem__)  # who comes first claims first
        finished = replay(tokens, chunks, hold, regime, [ends[worker] for worker in order])
        for worker, end in zip(order, finished, strict=True):
            ends[worker] = end
    return ends


def shards(lengths: np.ndarray, regime: Regime, up: Sequence[float], seed: int, checkpoints: int = 1) -> list[float]:
    """Ends of the engines when each has an equal part of the shuffled requests of every checkpoint."""
    generator = np.random.default_rng((seed, 1))
    tokens, ends = lengths.tolist(), list(up)
    for _ in range(checkpoints):
        order = generator.permutation(len(tokens)).tolist()
        parts = [order[worker :: len(up)] for worker in range(len(up))]
        ends = replay(tokens, parts, 0, regime, ends)
    return ends


def compare(
    drawn: Sequence[tuple[np.ndarray, np.ndarray]], regime: Regime, workers: int, checkpoints: int = 1
) -> dict[str, Any]:
    """Slowest / mean end and slowest / ideal of equal shards and of our sharing, as (mean, worst) over the draws.

    `known` are lengths expected from another checkpoint, `unknown` none at all.
    """
    found: dict[str, list[list[float]]] = defaultdict(list)
    ideal = []
    for seed, (lengths, expected) in enumerate(drawn):
        up = starts(workers, seed)
        ideal.append(regime.ideal(lengths, up, checkpoints))
        found["equal shards"].append(shards(lengths, regime, up, seed, checkpoints))
        found["known"].append(shared(lengths, expected, regime, up, checkpoints))
        found["unknown"].append(shared(lengths, np.ones(len(lengths)), regime, up, checkpoints))
    row: dict[str, Any] = {"workers": workers, "checkpoints": checkpoints, "regime": regime.name}
    for name, ends in found.items():
        balance = [max(one) / mean(one) for one in ends]
        stretch = [max(one) / best for one, best in zip(ends, ideal, strict=True)]
        row[name] = {
            "slowest_to_mean": [round(mean(balance), 3), round(max(balance), 3)],
            "slowest_to_ideal": [round(mean(stretch), 3), round(max(stretch), 3)],
            "seconds": round(mean(map(max, ends))),
        }
    return row


def line(row: dict[str, Any]) -> str:
    cells = [
        "{:.2f} ({:.2f})".format(*row[name][figure])
        for figure in ("slowest_to_mean", "slowest_to_ideal")
        for name in ("equal shards", "known", "unknown")
    ]
    place = f"{row['workers']:>4} {row['checkpoints']:>3} {row['regime']:30} {row['known']['seconds']:>7,}"
    return place + "".join(f"{cell:>13}" for cell in cells)


HEADER = (
    f"{'':47}{'slowest/mean, mean (worst)':^39}{'slowest/ideal, mean (worst)':^39}\n"
    f"{'GPUs ckp engine':39} {'s ours':>7}" + 2 * f"{'shards':>13}{'known':>13}{'unknown':>13}"
)


def tables(drawn: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """Print and return the comparison over numbers of workers, engines and checkpoints of one start."""
    print(HEADER, flush=True)
    rows = []
    for workers, checkpoints in ((8, 1), (32, 1), (128, 1), (128, 8)):
        for regime in REGIMES:
            rows.append(compare(drawn if checkpoints == 1 else drawn[:1], regime, workers, checkpoints))
            print(line(rows[-1]), flush=True)
    return rows


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.replay", description=__doc__)
    parser.add_argument("--lengths", type=Path, nargs="+", help="recorded samples.jsonl files of one checkpoint")
    parser.add_argument("--expected", type=Path, nargs="+", default=[], help="those of the checkpoint before it")
    options = parser.parse_args(words)
    drawn = [recorded(options.lengths, options.expected)] if options.lengths else [draw(seed) for seed in range(3)]
    tables(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
