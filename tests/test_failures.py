"""Errors and states of Slurm -> who must act."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reprokit.cluster.failures import Failure, classify, node_at_fault, of_slurm_state
from reprokit.errors import Interrupted, NodeError, UserError
from reprokit.evaluation import gathering
from reprokit.evaluation.share import Share
from reprokit.evaluation.worker import _Worker
from reprokit.records import manifest
from reprokit.records.files import DamagedFileError
from reprokit.records.run_directory import RunDirectory


def numbered(number: int) -> OSError:
    return OSError(number, "what the system says", "/some/file")


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:20113"
NCCL = "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled system error (run with NCCL_DEBUG=INFO for details)"
WATCHDOG = "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=52, OpType=_ALLGATHER_BASE)"
ECC = "CUDA error: uncorrectable ECC error encountered"
CACHE = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (UserError("the recipe is wrong"), Failure.user),
        (DamagedFileError("a line is damaged"), Failure.user),
        (UserError("the server said: NCCL, out of memory"), Failure.user),
        (numbered(errno.EACCES), Failure.user),
        (MemoryError(), Failure.memory),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Failure.memory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), Failure.memory),
        (ValueError(CACHE), Failure.memory),
        (numbered(errno.ENOMEM), Failure.memory),
        (ZeroDivisionError("division by zero"), Failure.program),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Failure.program),
        (RuntimeError("CUDA error: device-side assert triggered"), Failure.program),
        (FileNotFoundError(errno.ENOENT, "No such file"), Failure.program),
        (NodeError("GPU 3 computes wrongly", "n2"), Failure.cluster),
        (RuntimeError(GLOO), Failure.cluster),
        (torch.distributed.DistBackendError(NCCL), Failure.cluster),
        (RuntimeError(WATCHDOG), Failure.cluster),
        (torch.distributed.DistNetworkError("The server socket has failed to listen"), Failure.cluster),
        (RuntimeError(ECC), Failure.cluster),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Failure.cluster),
        (TimeoutError("timed out"), Failure.cluster),
        (numbered(errno.ESTALE), Failure.cluster),
        (numbered(errno.EIO), Failure.cluster),
        (numbered(errno.ENOSPC), Failure.disk),
        (numbered(errno.EDQUOT), Failure.disk),
        (numbered(errno.EROFS), Failure.disk),
        (Interrupted("SIGTERM"), Failure.left),
        (KeyboardInterrupt(), Failure.left),
    ],
    ids=lambda value: value.value if isinstance(value, Failure) else repr(value)[:40],
)
def test_classes(error: BaseException, failure: Failure) -> None:
    assert classify(error) is failure


def test_the_cause_counts_where_the_message_is_for_people() -> None:
    def raised(number: int) -> UserError:
        with pytest.raises(UserError) as caught, manifest.joined_draft(Path("state"), needed=1):
            raise numbered(number)
        return caught.value

    assert classify(raised(errno.ENOSPC)) is Failure.disk
    assert classify(raised(errno.EIO)) is Failure.cluster
    assert classify(raised(errno.ENOENT)) is Failure.user


def test_samples_that_are_missing_are_left_to_another_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, tasks = RunDirectory(tmp_path), {name: SimpleNamespace(benchmark=name, keys=list) for name in ("a", "b")}

    def gather_cell(run: RunDirectory, step: int, task: Any, requests: Any, workers: int) -> None:
        if task.benchmark == "a":
            raise UserError("a: no prompt leaves room for a response")
        gathering._samples(step, task, requests, [])

    monkeypatch.setattr(gathering, "gather_cell", gather_cell)
    recipe = SimpleNamespace(evaluation=SimpleNamespace(benchmarks={}))
    worker = SimpleNamespace(recipe=recipe, run=run, share=Share(0, 1), _wait_for_all=lambda *_: None)
    with pytest.raises(UserError, match="no prompt leaves room(?s:.*)step 3, b: 0 of 0 samples are missing") as caught:
        _Worker.gather(worker, {3: SimpleNamespace(tasks=tasks)})  # type: ignore[arg-type, dict-item]
    assert classify(caught.value) is Failure.cluster


def test_only_what_can_end_otherwise_is_tried_again() -> None:
    assert {failure.value for failure in Failure if failure.retried} == {
        "cluster",
        "time",
        "left",
        "cancelled",
        "killed",
    }
    for failure in Failure:
        assert failure.advice.endswith(".")
    assert "micro_batch_tokens" in Failure.memory.advice and "cpu_offload" in Failure.memory.advice


def test_the_node_at_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert node_at_fault(NodeError("rank 3 was not heard of", "n2")) == "n2"
    assert node_at_fault(RuntimeError(ECC)) == "n7"
    others: list[Callable[[], BaseException]] = [lambda: NodeError("one of them"), lambda: RuntimeError(GLOO)]
    assert [node_at_fault(make()) for make in others] == [None, None]


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("NODE_FAIL", Failure.cluster),
        ("BOOT_FAIL", Failure.cluster),
        ("TIMEOUT", Failure.time),
        ("PREEMPTED", Failure.left),
        ("OUT_OF_MEMORY", Failure.memory),
        ("CANCELLED by 1000", Failure.cancelled),
        ("CANCELLED+", Failure.cancelled),
        ("FAILED", None),
        ("COMPLETED", None),
        ("", None),
    ],
)
def test_states_of_slurm(state: str, failure: Failure | None) -> None:
    assert of_slurm_state(state) is failure
