"""What can be wrong with a job is looked for before its first step: GPUs, links between ranks, disk, code, packages.

Every rank gathers what it sees, all hear of all (see `meeting`), and all come to the same verdict. Nothing waits for
ever: a collective that hangs runs in a thread of its own.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import math
import os
import platform
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch

from reprokit.errors import NodeError, UserError
from reprokit.recipe.derived import is_all_bf16
from reprokit.recipe.schema import Precision, Recipe
from reprokit.records.provenance import package_versions
from reprokit.records.run_directory import RunDirectory
from reprokit.training.meeting import Meeting, node_name
from reprokit.training.state import KEPT

Measure = Callable[[torch.device], tuple[float, Optional[str]]]  # seconds, and what is wrong

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # another node would not help
TOKEN = ".preflight_"  # begins the names of files that are written to see who sees them
PACKAGES = ("torch", "transformers", "deepspeed", "flash-attn", "safetensors", "numpy")
ARRIVAL = 300.0  # seconds between the first rank and the last
SIGHT = 60.0  # seconds after which a network file system shows a new file: NFS keeps attributes for up to 60
COLLECTIVES = 180.0  # seconds; the first all-reduce of a large job sets up every connection
EXIT = 60.0  # seconds to end in, for a process with a collective that hangs
FOREIGN = 0.05  # of the memory of a GPU that others may hold
CONTEXT = 2**30  # bytes that CUDA itself takes in this process, at most
# Bytes of the payload, and bus bandwidth in bytes/s below which nobody wants to train. GPUs: NCCL over TCP on a 1 Gb
# link reaches 0.12 GB/s, on 10 Gb 1 GB/s, what it is meant for 10 to 400. CPUs: shared cores must not fail here.
PAYLOAD = {"cuda": 64 * 2**20, "cpu": 4 * 2**20}
FLOOR = {"cuda": 0.2e9, "cpu": 0.001e9}


@dataclass(frozen=True)
class Finding:
    """Something wrong with one rank. `of_user`: where every node has it, another node would not help."""

    rank: int
    node: str
    text: str
    of_user: bool = False


def check(
    run: RunDirectory, needed_bytes: int, code: str, hosts: Sequence[str] = (), complaint: str | None = None
) -> None:
    """See that this job can train. All ranks must call it, before the model is built; the process group must exist.

    Args:
        needed_bytes: that the training will add to the run folder.
        code: digest of the code that this rank runs.
        hosts: nodes of the job in the order of its ranks; empty: all are on this one.
        complaint: what the caller found wrong with the place of this rank.

    Raises:
        NodeError: a node is at fault, or ranks were not heard of. The message names every node and rank.
        UserError: the disk is too small, or all nodes show what no other node would put right.
        Every rank raises the same.
    """
    started = time.perf_counter()
    store = torch.distributed.distributed_c10d._get_default_store()
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    meeting = Meeting(store, rank, world_size, hosts)
    facts = {
        "node": node_name(),
        "gpu": gpu_name(),
        "wrong": gpu_faults(),
        "complaint": complaint,
        "same": {"code": code, **versions()},
    }
    all_facts = meeting.share("facts", facts, ARRIVAL)
    nodes = [one["node"] for one in all_facts]
    conclude(findings_of(all_facts), nodes)
    free = check_files(run, meeting, nodes, needed_bytes)
    bandwidth = check_links(meeting, nodes)
    if rank == 0:
        said = f"all-reduce {bandwidth / 1e9:.3g} GB/s, " if bandwidth else ""
        count = len(set(nodes))
        print(
            f"preflight: {_count(world_size, 'rank')} on {_count(count, 'node')}, {said}{free / 1e9:,.0f} GB of disk "
            f"free ({needed_bytes / 1e9:.3g} GB needed), {time.perf_counter() - started:.1f} s",
            flush=True,
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def conclude(findings: Sequence[Finding], nodes: Sequence[str]) -> None:
    """Raise what the findings of all ranks come to, if there are any; `nodes` has the node of every rank."""
    if not findings:
        return
    ranks: dict[tuple[str, str], list[int]] = {}
    for finding in findings:
        ranks.setdefault((finding.node, finding.text), []).append(finding.rank)
    lines = ["This job cannot train:"]
    for (node, text), where in ranks.items():
        place = f"node {node}, " if node else ""
        lines.append(f"  {place}{'ranks' if len(where) > 1 else 'rank'} {', '.join(map(str, where))}: {text}")
    message = "\n".join(lines)
    if {finding.node for finding in findings if finding.of_user} == set(nodes):
        raise UserError(message)
    affected = {finding.node for finding in findings}
    at_fault = None if len(affected) > 1 and affected == set(nodes) else findings[0].node
    raise NodeError(message, at_fault or None)


# What one rank sees of itself


def gpu_name() -> str:
    """An identifier of the GPU of this rank; empty without one."""
    return str(torch.cuda.get_device_properties().uuid) if torch.cuda.is_available() else ""


def gpu_faults() -> list[str]:
    """What is wrong with the GPU of this rank, if it has one or was granted one."""
    if not torch.cuda.is_available():
        # A torch for CPUs is meant to do without, and a job can be granted GPUs that a machine only pretends to have.
        if torch.version.cuda is None or not has_nvidia_hardware() or not granted_gpu():
            return []
        return [f"the job was granted a GPU, but torch {torch.__version__} sees none: look at the driver (nvidia-smi)"]
    try:
        free, total = torch.cuda.mem_get_info()
        held = total - free - torch.cuda.memory_reserved()
        ones = torch.ones(512, 512, device="cuda")
        product = float((ones @ ones).sum())
    except RuntimeError as error:
        return [f"its GPU does not work: {str(error).splitlines()[0]}"]
    faults = []
    if product != 512.0**3:
        faults.append(f"its GPU computes wrongly: {product} instead of {512.0**3}")
    if held > FOREIGN * total + CONTEXT:
        faults.append(f"others hold {held / 1e9:.1f} of the {total / 1e9:.0f} GB of its GPU")
    return faults


def granted_gpu() -> bool:
    """Whether Slurm gave this task GPUs: how many on this node, or which."""
    listed = any(os.environ.get(name) for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"))
    return listed or os.environ.get("SLURM_GPUS_ON_NODE", "0") != "0"


def has_nvidia_hardware() -> bool:
    """Whether an NVIDIA device is plugged in, be its driver there or not."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    return Path("/proc/driver/nvidia").exists() or any(path.read_text().strip() == "0x10de" for path in vendors)


def versions() -> dict[str, str]:
    """What must be the same on every rank."""
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else "none"
    return {"python": platform.python_version(), "NCCL": nccl, **package_versions(PACKAGES)}


# What the ranks see of each other


def findings_of(facts: Sequence[dict[str, Any]]) -> list[Finding]:
    """What is wrong with single ranks, and who differs from the others."""
    found = []
    for rank, one in enumerate(facts):
        found += [Finding(rank, one["node"], text) for text in one["wrong"]]
        if one["complaint"] is not None:
            found.append(Finding(rank, one["node"], one["complaint"], of_user=True))
    gpus = Counter(one["gpu"] for one in facts if one["gpu"])
    for rank, one in enumerate(facts):
        if gpus and not one["gpu"] and not one["wrong"]:
            found.append(Finding(rank, one["node"], "has no GPU, while others have"))
        if gpus[one["gpu"]] > 1:
            sharing = [other for other, facts_ in enumerate(facts) if facts_["gpu"] == one["gpu"]]
            text = f"ranks {', '.join(map(str, sharing))} have the same GPU: give each task its own"
            found.append(Finding(rank, one["node"], text, of_user=True))
    return found + list(_differences(facts))


def _differences(facts: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Ranks whose versions are not those of most; of equally many, those of rank 0 count."""
    names = {name: None for one in facts for name in one["same"]}
    for name in names:
        values = [one["same"].get(name, "none") for one in facts]
        usual = Counter(values).most_common(1)[0][0]
        for rank, value in enumerate(values):
            if value != usual:
                shown = "another copy of the code than the others" if name == "code" else f"{name} {value}"
                others = "" if name == "code" else f", the others {usual}"
                yield Finding(rank, facts[rank]["node"], f"has {shown}{others}")


# The shared file system


def check_files(run: RunDirectory, meeting: Meeting, nodes: Sequence[str], needed_bytes: int) -> int:
    """See that all ranks see the run folder and each other's files in it; returns the bytes that are free there."""
    token = meeting.share("token", secrets.token_hex(8), ARRIVAL)[0]
    own = _token_file(run, token, meeting.rank)
    try:
        begun = meeting.share("written", _begin(run, own, token) if meeting.rank == 0 else {}, ARRIVAL)[0]
        if begun["number"] in DISK:
            raise UserError(f"the disk of the run folder takes nothing: {begun['fault']}") from _of(begun["number"])
        faults = [begun["fault"], *[None] * (meeting.world_size - 1)]
        if begun["fault"] is None:
            looked = None if meeting.rank == 0 else _look_and_write(run, own, token)
            faults = meeting.share("seen", looked, ARRIVAL)
            late = _unseen(run, token, faults) if meeting.rank == 0 else []
            for rank in meeting.share("seen by rank 0", late, ARRIVAL)[0]:
                faults[rank] = f"rank 0 does not see what it wrote into {run.root}: is that the same file system?"
    finally:
        with suppress(OSError):
            own.unlink(missing_ok=True)
    conclude([Finding(rank, nodes[rank], text) for rank, text in enumerate(faults) if text is not None], nodes)
    if begun["free"] < needed_bytes:
        raise UserError(
            f"{run.root} has {begun['free'] / 1e9:,.1f} GB of disk free; the checkpoints and states that are still to "
            f"be saved need {needed_bytes / 1e9:,.1f} GB. What helps: fewer training.checkpoint_steps, runs on a "
            "larger disk (runs: FOLDER in the cluster profile), or removing what is not needed. Then launch again."
        ) from _of(errno.ENOSPC)
    return begun["free"]


def _of(number: int) -> OSError:
    """The cause of an error that is about the disk, on ranks that have not met it themselves."""
    return OSError(number, os.strerror(number))


def _token_file(run: RunDirectory, token: str, rank: int) -> Path:
    return run.root / f"{TOKEN}{token}.{rank}"


def _begin(run: RunDirectory, own: Path, token: str) -> dict[str, Any]:
    """Rank 0 writes first: bytes that are free, and what went wrong, if anything."""
    try:
        for left in run.root.glob(f"{TOKEN}*"):  # by a job that was killed
            left.unlink()
        own.write_text(token)
        return {"free": shutil.disk_usage(run.root).free, "number": None, "fault": None}
    except OSError as error:
        return {"free": 0, "number": error.errno, "fault": f"cannot write: {error}"}


def _look_and_write(run: RunDirectory, own: Path, token: str) -> str | None:
    """What is wrong with the run folder as this rank sees it."""
    if not run.root.is_dir():
        return f"{run.root} is not there"
    if not _shows(_token_file(run, token, 0), token, time.monotonic() + SIGHT):
        return f"what rank 0 wrote into {run.root} is not seen within {SIGHT:.0f} s: is that the same file system?"
    try:
        own.write_text(token)
    except OSError as error:
        return f"cannot write: {error}"
    return None


def _unseen(run: RunDirectory, token: str, faults: Sequence[str | None]) -> list[int]:
    """Ranks that have written without a fault, and whose file does not show here."""
    deadline = time.monotonic() + SIGHT
    return [
        rank
        for rank, fault in enumerate(faults)
        if fault is None and not _shows(_token_file(run, token, rank), token, deadline)
    ]


def _shows(path: Path, content: str, deadline: float) -> bool:
    while True:
        with suppress(OSError):
            if path.read_text() == content:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def needed_bytes(run: RunDirectory, recipe: Recipe) -> int:
    """Bytes that the training of a prepared run will still add to its folder: checkpoints, and states as it goes.

    A state holds master weight and moments of every parameter: 12 bytes, in official bf16 arithmetic 6. One more state
    is there than is kept while it is written.
    """
    parameters = sum(_parameters(path) for path in run.weights(0).glob("*.safetensors"))
    trained = run.resume_step()
    saves = sum(step > trained for step in recipe.training.checkpoint_steps)
    states = KEPT + 1 - min(KEPT, len(run.states()))
    of_weight = 2 if recipe.training.precision is Precision.bf16 else 4
    of_state = 6 if is_all_bf16(recipe.training) else 12
    return parameters * (saves * of_weight + states * of_state)


def _parameters(path: Path) -> int:
    """Elements of all tensors in a safetensors file, from its header."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


# The links between ranks


def check_links(meeting: Meeting, nodes: Sequence[str]) -> float | None:
    """See that collectives are right and not absurdly slow; bus bandwidth of an all-reduce in bytes/s, None alone."""
    if meeting.world_size == 1:
        return None
    kind = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    seconds = max(_measured("collectives", collectives, kind, meeting, nodes))
    bandwidth = 2 * (meeting.world_size - 1) / meeting.world_size * PAYLOAD[kind] / seconds
    if bandwidth < FLOOR[kind]:
        of_links = [PAYLOAD[kind] / seconds for seconds in _measured("links", links, kind, meeting, nodes)]
        raise slow(bandwidth, FLOOR[kind], of_links, nodes)
    return bandwidth


def _measured(name: str, measure: Measure, kind: str, meeting: Meeting, nodes: Sequence[str]) -> list[float]:
    """Seconds that each rank has measured."""
    said = meeting.share(name, in_time(name, measure, kind), COLLECTIVES + ARRIVAL)
    failed = any(one["fault"] and not one["hangs"] for one in said)  # those that hang only wait for them
    faults = [None if failed and one["hangs"] else one["fault"] for one in said]
    conclude([Finding(rank, nodes[rank], text) for rank, text in enumerate(faults) if text is not None], nodes)
    return [one["seconds"] for one in said]


def in_time(name: str, measure: Measure, kind: str) -> dict[str, Any]:
    """Measure in a thread, and give it up where it hangs."""
    device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    done: list[dict[str, Any]] = []

    def run() -> None:
        try:
            if kind == "cuda":
                torch.cuda.set_device(device)  # every thread has its own
            seconds, fault = measure(device)
            done.append({"seconds": seconds, "fault": fault, "hangs": False})
        except Exception as error:
            said = f"{name}: {type(error).__name__}: {error}".splitlines()[0]
            done.append({"seconds": 0.0, "fault": said, "hangs": False})

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(COLLECTIVES)
    if done:
        return done[0]
    faulthandler.dump_traceback_later(EXIT, exit=True)  # what hangs can hold up the end of the process too
    return {"seconds": 0.0, "fault": f"{name} between the ranks did not end in {COLLECTIVES:.0f} s", "hangs": True}


def collectives(device: torch.device) -> tuple[float, str | None]:
    """Seconds of an all-reduce of PAYLOAD, the better of two, and what is wrong with the sums, if anything."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    weights = [one % 13 + 1 for one in range(world_size)]  # small integers, whose sums are exact
    pattern = torch.arange(PAYLOAD[device.type] // 4, device=device, dtype=torch.float32) % 7 + 1
    best, wrong = math.inf, []
    for _ in range(2):
        mine = pattern * weights[rank]
        best = min(best, _timed(device, torch.distributed.all_reduce, mine))
        if not torch.equal(mine, pattern * sum(weights)):
            wrong.append("all-reduce")
    gathered = torch.zeros(world_size, device=device)
    torch.distributed.all_gather_single(gathered, torch.full((1,), float(rank), device=device))
    if gathered.tolist() != list(range(world_size)):
        wrong.append("all-gather")
    scattered = torch.zeros(1, device=device)
    torch.distributed.reduce_scatter_single(scattered, torch.arange(world_size, device=device) * float(weights[rank]))
    if scattered.item() != rank * sum(weights):
        wrong.append("reduce-scatter")
    return best, f"wrong results of {', '.join(dict.fromkeys(wrong))}" if wrong else None


def links(device: torch.device) -> tuple[float, str | None]:
    """Seconds in which PAYLOAD comes here from the rank before, one link of the ring after the other."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    begun, payload = torch.zeros(1, device=device), torch.zeros(PAYLOAD[device.type] // 4, device=device)
    seconds = 0.0
    for sender in range(world_size):
        receiver = (sender + 1) % world_size
        if rank == sender:
            torch.distributed.send(begun, receiver)  # the clock starts when this has come
            torch.distributed.send(payload, receiver)
        elif rank == receiver:
            _timed(device, torch.distributed.recv, begun, sender)
            seconds = _timed(device, torch.distributed.recv, payload, sender)
    return seconds, None


def _timed(device: torch.device, action: Callable[..., Any], *arguments: Any) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    action(*arguments)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def slow(bandwidth: float, floor: float, of_links: Sequence[float], nodes: Sequence[str]) -> NodeError:
    """The error for an all-reduce below the floor; entry r of `of_links` is from the rank before r to r. In bytes/s."""
    receiver = min(range(len(of_links)), key=lambda rank: of_links[rank])
    ends = [(rank, nodes[rank]) for rank in ((receiver - 1) % len(nodes), receiver)]
    sender_shown, receiver_shown = (f"rank {rank}" + (f" (node {node})" if node else "") for rank, node in ends)
    return NodeError(
        f"This job cannot train: an all-reduce over all ranks reaches {bandwidth / 1e9:.3g} GB/s, and below "
        f"{floor / 1e9:.3g} GB/s the network is not what it is meant to be. The slowest link is from {sender_shown} to "
        f"{receiver_shown}: {of_links[receiver] / 1e9:.3g} GB/s. NCCL_DEBUG=INFO in environment of the profile shows "
        "which network NCCL takes.",
        _slow_node(of_links, nodes) or None,
    )


def _slow_node(of_links: Sequence[float], nodes: Sequence[str]) -> str:
    """The node all of whose links to others are slower than another node's best; empty where there is no such node."""
    best: dict[str, float] = {}
    for receiver, speed in enumerate(of_links):
        ends = {nodes[receiver - 1], nodes[receiver]}
        for node in ends if len(ends) == 2 else ():
            best[node] = max(best.get(node, 0.0), speed)
    if not best:
        return nodes[0]
    slowest, *others = sorted(best, key=lambda node: best[node])
    return slowest if 2 * best[slowest] < best[others[0]] else ""
