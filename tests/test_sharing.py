"""Sharing of requests among engines: everything exactly once, few claims, nobody hoards, all end together."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprokit.evaluation.sharing import Claims, plan_chunks, window
from tests.performance.replay import REGIMES, Regime, compare, draw, replay


@given(expected=st.lists(st.floats(0, 1e6), max_size=400), workers=st.integers(1, 40))
def test_plan_has_each_request_once(expected: list[float], workers: int) -> None:
    chunks = plan_chunks(expected, workers)
    assert all(chunks) and sorted(index for chunk in chunks for index in chunk) == list(range(len(expected)))


@given(expected=st.lists(st.floats(1, 1e5), min_size=1, max_size=600, unique=True), workers=st.integers(1, 20))
def test_longest_requests_are_claimed_first(expected: list[float], workers: int) -> None:
    chunks = plan_chunks(expected, workers)
    each = len(expected) // (4 * workers)  # of the first chunk of every worker
    opening, rest = (chunks[:workers], chunks[workers:]) if each else ([], chunks)
    assert {len(chunk) for chunk in opening} <= {each}
    longest = sorted(expected, reverse=True)
    opened = sorted((expected[index] for chunk in opening for index in chunk), reverse=True)
    most = workers * (each - each // 2)
    assert opened[:most] == longest[:most] and opened[most:] == longest[len(longest) - workers * (each // 2) :]
    order = [expected[index] for chunk in rest for index in chunk]
    assert order == sorted(order, reverse=True)
    sizes = [len(chunk) for chunk in rest]
    assert sizes == sorted(sizes, reverse=True) and set(sizes[-workers:]) <= {1}


def test_opening_chunks_are_expected_to_take_equally_long() -> None:
    _, expected = draw(seed=0)
    loads = [sum(expected[index] for index in chunk) for chunk in plan_chunks(expected.tolist(), 128)[:128]]
    assert max(loads) < 1.02 * min(loads)


def test_what_is_not_known_is_not_claimed_benchmark_by_benchmark() -> None:
    first, *_ = plan_chunks([32768.0] * 4000, 8)
    assert {index // 1000 for index in first} == {0, 1, 2, 3}


@pytest.mark.parametrize("workers", [8, 32, 128])
def test_claims_are_few(workers: int) -> None:
    assert len(plan_chunks([1.0] * 37_000, workers)) < 9000


@given(requests=st.integers(0, 10**6), workers=st.integers(2, 1000), slots=st.integers(1, 1024))
def test_window_fills_engines_and_leaves_something_to_others(requests: int, workers: int, slots: int) -> None:
    held = window(requests, workers, slots)
    assert 1 <= held <= slots
    assert held == 1 or 2 * held * workers <= requests
    assert held == slots or requests < 2 * (held + 1) * workers


def test_lone_engine_is_kept_full() -> None:
    assert window(10, workers=1, slots=256) == 256


def claim_all(folder: Path, chunks: list[list[int]], start: Any, found: Any) -> None:
    claims = Claims(folder, chunks)
    start.wait()
    mine = []
    while (chunk := claims.next()) is not None:
        mine.append(chunk)
    assert claims.next() is None
    found.put(mine)


def test_processes_that_claim_at_once_get_every_chunk_once(tmp_path: Path) -> None:
    chunks = plan_chunks([float(index % 97) for index in range(3000)], 12)
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(12), context.Queue()
    workers = [context.Process(target=claim_all, args=(tmp_path / "new", chunks, start, found)) for _ in range(12)]
    for worker in workers:
        worker.start()
    claimed = [found.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(chunk for one in claimed for chunk in one) == sorted(chunks)
    assert sum(map(bool, claimed)) > 1, "one process did everything: the others never competed"


def test_latecomer_finds_the_free_chunk_with_few_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [[number] for number in range(5000)]
    for number in range(4000):
        (tmp_path / str(number)).touch()
    late = Claims(tmp_path, chunks)
    looks = 0

    def counted(number: int, file: Any = late._file) -> Path:
        nonlocal looks
        looks += 1
        return file(number)

    monkeypatch.setattr(late, "_file", counted)
    assert late.next() == [4000] and late.next() == [4001]
    assert looks < 200


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, np.ndarray]]:
    """Responses to the ten benchmarks, and what another checkpoint lets expect."""
    return [draw(seed=0)]


# Regime, workers, most of slowest/mean with the lengths of another checkpoint and with none, least with equal shards.
BALANCE = [
    ("14B on an H200", 8, 1.10, 1.10, 1.0),
    ("14B on an H200", 32, 1.10, 1.10, 1.0),
    ("14B on an H200", 128, 1.10, 1.20, 1.15),
    ("throughput alone", 8, 1.10, 1.10, 1.0),
    ("throughput alone", 32, 1.10, 1.10, 1.1),
    ("throughput alone", 128, 1.10, 1.20, 1.4),
    ("latency alone", 128, 1.15, 1.15, 1.05),
]


@pytest.mark.parametrize("name, workers, known, unknown, apart", BALANCE)
def test_engines_end_together(
    drawn: list[tuple[np.ndarray, np.ndarray]], name: str, workers: int, known: float, unknown: float, apart: float
) -> None:
    (regime,) = (one for one in REGIMES if one.name == name)
    found = compare(drawn, regime, workers)
    assert found["known"]["slowest_to_mean"][0] <= known
    assert found["unknown"]["slowest_to_mean"][0] <= unknown
    assert found["equal shards"]["slowest_to_mean"][0] >= apart
    ideals = {side: found[side]["slowest_to_ideal"][0] for side in ("known", "unknown", "equal shards")}
    assert max(ideals["known"], ideals["unknown"]) <= 1.01 * ideals["equal shards"]


def test_replay_by_hand() -> None:
    """Two slots, 1 s per step and 0.5 s per sequence in it; the second engine is up 3 s later."""
    regime = Regime("by hand", base=1.0, each=0.5, slots=2)
    ends = replay([4, 2, 2, 1], [[0, 1], [2], [3]], hold=2, regime=regime, up=[0.0, 3.0])
    # The first: 2 steps with two, 2 with one. The second takes the last chunk too: 1 step with two, 1 with one.
    assert ends == [2 * 2.0 + 2 * 1.5, 3.0 + 2.0 + 1.5]
