"""Why a job ended before its work was done, and whether the same job can do better elsewhere or later."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from enum import Enum

from reprokit.errors import Interrupted, NodeError, UserError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_CLUSTER = {
    errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN, errno.EADDRINUSE,
    errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
}  # fmt: skip
# What CUDA, torch and vLLM say; their errors are RuntimeErrors and ValueErrors.
_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|no available memory for the cache|"
    r"KV cache is needed, which is larger than the available",
    re.I,
)
_GPU_WORDS = re.compile(
    r"ECC error|fallen off the bus|busy or unavailable|no CUDA-capable device|No CUDA GPUs are available|"
    r"hardware error|CUDA error: unknown error|unspecified launch failure|NVLink",
    re.I,
)
_NETWORK_WORDS = re.compile(
    r"\bNCCL\b|\bgloo\b|Connection (closed|reset) by peer|Connection refused|Broken pipe|EADDRINUSE|"
    r"Timed out (waiting|after)|Socket Timeout|collective operation timeout",
    re.I,
)


class Failure(Enum):
    """Classes of failures, by who must act."""

    user = "user"
    memory = "memory"
    program = "program"
    cluster = "cluster"
    disk = "disk"
    time = "time"
    left = "left"
    cancelled = "cancelled"
    killed = "killed"

    @property
    def retried(self) -> bool:
        """Whether the job may come to its end when it is started again, elsewhere or later."""
        return self in (Failure.cluster, Failure.time, Failure.left, Failure.cancelled, Failure.killed)

    @property
    def advice(self) -> str:
        """What to do."""
        return _ADVICE[self]


_ADVICE = {
    Failure.user: "Put right what the message says and launch again.",
    Failure.memory: (
        "It does not fit the memory. Training: a smaller training.micro_batch_tokens (or micro_batch_size), "
        "training.gradient_checkpointing=true, training.cpu_offload=true or more GPUs. Evaluation: a smaller "
        "evaluation.max_model_length. Memory of the machine: more memory_gb in the cluster profile. Then launch again."
    ),
    Failure.program: "An error of the program; its traceback is in the log. Once it is put right, launch again.",
    Failure.cluster: "The network, a file system or a node failed. The job is tried again; if not, launch again.",
    Failure.disk: "Make room on the disk, mind quotas and permissions, and launch again: what is there is kept.",
    Failure.time: "Its time was up. What it had is kept; launch again, or give it more hours in the cluster profile.",
    Failure.left: "It was told to leave, and saved what it had. Launch again if it does not come back by itself.",
    Failure.cancelled: "It was cancelled. Launch again to go on.",
    Failure.killed: "It was killed, or its node was lost. Launch again to go on.",
}
_SLURM_STATES = {
    "NODE_FAIL": Failure.cluster,
    "BOOT_FAIL": Failure.cluster,
    "TIMEOUT": Failure.time,
    "DEADLINE": Failure.time,
    "PREEMPTED": Failure.left,
    "OUT_OF_MEMORY": Failure.memory,
    "CANCELLED": Failure.cancelled,
    "REVOKED": Failure.cancelled,
}


def of_slurm_state(state: str) -> Failure | None:
    """What a final state of Slurm says by itself ("CANCELLED by 1000" too); None: nothing, as FAILED or COMPLETED."""
    words = state.split()
    return _SLURM_STATES.get(words[0].rstrip("+")) if words else None


def classify(error: BaseException) -> Failure:
    """The class of an error, told by its kind, its number, and what it or its cause says."""
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return Failure.left
    found = next((failure for each in _with_causes(error) if (failure := _known(each))), None)
    if found is not None:
        return found
    return Failure.user if isinstance(error, UserError) else Failure.program


def node_at_fault(error: BaseException) -> str | None:
    """Name of the node that an error is to be blamed on, if it is one alone."""
    for each in _with_causes(error):
        if isinstance(each, NodeError):
            return each.node
        if _GPU_WORDS.search(str(each)) and not isinstance(each, UserError):
            return os.environ.get("SLURMD_NODENAME")
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _known(error: BaseException) -> Failure | None:
    """The class of one error, None if it says nothing by itself."""
    if isinstance(error, NodeError):
        return Failure.cluster
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError):
        return _of_number(error)
    if isinstance(error, MemoryError) or _MEMORY_WORDS.search(str(error)):
        return Failure.memory
    distributed = type(error).__module__.startswith("torch") and type(error).__name__.startswith("Dist")
    if distributed or _GPU_WORDS.search(str(error)) or _NETWORK_WORDS.search(str(error)):
        return Failure.cluster
    return None


def _of_number(error: OSError) -> Failure | None:
    if error.errno in _DISK:
        return Failure.disk
    if error.errno == errno.ENOMEM:
        return Failure.memory
    if error.errno in _CLUSTER or isinstance(error, (ConnectionError, TimeoutError)):
        return Failure.cluster
    return Failure.user if error.errno in (errno.EACCES, errno.EPERM) else None
