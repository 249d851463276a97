"""Engines over several GPUs of the tasks of a job: tensor parallel inside a node, pipeline parallel across nodes.

Used only where a model does not fit one GPU. On one node vLLM's multiprocessing executor makes a process for every GPU
but needs no help. Across nodes it starts workers on its own node only and expects an executor with the same options on
every other one; those are told neither when the engine ends nor which weights come next. `Followers` and `follow` do
that over one connection per node, which also tells each side when the other is gone. Source: vLLM 0.32
(v1/executor/multiproc_executor.py, entrypoints/cli/serve.py).
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol

from reprokit.errors import UserError

logger = logging.getLogger(__name__)
MEETING_SECONDS = 600.0  # in which all nodes of an engine must have started their tasks
LAST_WORD_SECONDS = 30.0  # between the end of an engine's workers and the leader's word that it has ended
WORD = struct.Struct("!I")  # length of what follows it, in bytes
STOP: dict[str, Any] = {}


class Task(Protocol):
    """One process of a job (`reprokit.cluster.rendezvous`): `rank` of `world_size`, `local_rank` on its node."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def local_rank(self) -> int: ...
    @property
    def tasks_on_node(self) -> int: ...


@dataclass(frozen=True)
class Place:
    """What one task does: it leads engine `engine` of `engines`, or keeps one of the engine's other nodes.

    `tensor` x `pipeline` GPUs make the engine; `devices` are those on this node. An engine over several nodes has one
    stage of the pipeline on each of them: `node` is which one this is, `leader_host` the name of the first.
    """

    engine: int
    engines: int
    tensor: int
    pipeline: int
    devices: range
    node: int = 0
    leader_host: str | None = None  # None: this machine
    port: int = 0  # at which the leader waits for its followers; 0: it has none

    @property
    def leads(self) -> bool:
        return self.node == 0

    @property
    def parallel(self) -> dict[str, int]:
        """Options of vLLM that are the same on all nodes."""
        return {"tensor_parallel_size": self.tensor, "pipeline_parallel_size": self.pipeline}


ALONE = Place(engine=0, engines=1, tensor=1, pipeline=1, devices=range(1))


def place(task: Task, gpus_per_engine: int, hosts: Sequence[str], first_port: int) -> Place | None:
    """What `task` does when every engine has `gpus_per_engine` GPUs; None: nothing, its GPU belongs to another task.

    Args:
        hosts: the nodes of the job, in the order of their tasks.
        first_port: with those above it, as many as there are engines, only this job listens on.

    Raises:
        UserError: engines of that size cannot be made of the tasks of the job, which have one GPU each.
    """
    size, on_node = gpus_per_engine, task.tasks_on_node
    if size < 1 or task.world_size % size or (on_node % size and size % on_node):
        raise UserError(
            f"engines of {size} GPUs cannot be made of {task.world_size // on_node} nodes with {on_node} GPUs each; "
            f"valid are {', '.join(map(str, valid_sizes(task.world_size // on_node, on_node)))}: "
            "change evaluate.nodes or evaluate.tasks_per_node in the cluster profile"
        )
    engine, engines = task.rank // size, task.world_size // size
    if size <= on_node:
        first = task.local_rank
        return None if first % size else Place(engine, engines, size, 1, range(first, first + size))
    if task.local_rank:
        return None
    nodes, first_node = size // on_node, engine * size // on_node
    node = task.rank // on_node - first_node
    # Leaders are on different nodes, but the nodes of a trial cluster may be one machine: each has a port of its own.
    return Place(engine, engines, on_node, nodes, range(on_node), node, hosts[first_node], first_port + engine)


def valid_sizes(nodes: int, gpus_per_node: int) -> list[int]:
    """GPUs that an engine may have: equal parts of a node, or the whole nodes of equal parts of the job."""
    inside = [size for size in range(1, gpus_per_node + 1) if gpus_per_node % size == 0]
    return inside + [count * gpus_per_node for count in range(2, nodes + 1) if nodes % count == 0]


class Followers:
    """The other nodes of the engine that this task leads; an engine on one node has none.

    Every engine that is started with what `start` returns has them; leaving the context lets them go.
    """

    def __init__(self, place: Place) -> None:
        """Wait for the tasks of the other nodes.

        Raises:
            UserError: they do not come, or the port is taken.
        """
        self.place = place
        self._links = _accept(place) if place.pipeline > 1 else {}

    def __enter__(self) -> Followers:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links.values():
            link.close()

    def start(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Let the followers make their part of an engine; an engine before it must have been closed.

        Args:
            options: arguments of `vllm.LLM` with the model, plain values only.

        Returns:
            The arguments with which the leader makes its own part. That returns when all parts are ready.
        """
        shared = {**options, **self.place.parallel}
        if not self._links:
            return shared
        host = next(iter(self._links.values())).getsockname()[0]
        # A new port each time: a follower must not meet the end of the engine before.
        shared |= {"distributed_executor_backend": "mp", "nnodes": self.place.pipeline}
        shared |= {"master_addr": host, "master_port": _free_port()}
        for node, link in self._links.items():
            _send(link, {**shared, "node_rank": node})
        return {**shared, "node_rank": 0}

    def stop(self) -> None:
        """Let the followers end their part, before the leader closes its own."""
        for link in self._links.values():
            _send(link, STOP)


def follow(place: Place, leader: str) -> None:
    """Make this node's part of every engine that the leader starts, until the leader ends or is gone.

    Args:
        leader: address of `place.leader_host`.

    Raises:
        UserError: the leader is not there.
        RuntimeError: a worker on this node ended by itself.
    """
    with _connect(place, leader) as link:
        while (options := _receive(link)) is not None:
            if options != STOP:
                _serve(options, link)


def warm_up_stages(llm: Any) -> None:
    """Make what later stages of a pipeline receive into; to be called after a start where there is no GPU.

    vLLM does that in its profiling run, which it leaves out on the CPU.
    """
    llm.collective_rpc("execute_dummy_batch")


def _serve(options: dict[str, Any], link: socket.socket) -> None:
    """Take part in one engine, until the leader says anything or is gone."""
    from vllm import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    # The same usage as that of the leader's `LLM`: defaults depend on it.
    config = EngineArgs(**options).create_engine_config(usage_context=UsageContext.LLM_CLASS, headless=True)
    try:
        with _workers_killed_by(link):
            executor = MultiprocExecutor(config, monitor_workers=False)
    except Exception:
        if not wait([link], LAST_WORD_SECONDS):
            raise
        logger.warning("the leader gave up an engine that was not ready")
        return
    try:
        wait([link, *(worker.proc.sentinel for worker in executor.workers)])
        # Workers may notice the end of the leader's workers before the leader says so.
        if not wait([link], LAST_WORD_SECONDS):
            raise RuntimeError("a worker of this node ended by itself; see above")
    finally:
        executor.shutdown()


@contextmanager
def _workers_killed_by(link: socket.socket) -> Iterator[None]:
    """Kill the workers of this process when the leader says anything: those that wait for its workers wait for ever."""
    ready = threading.Event()

    def watch() -> None:
        while not ready.is_set():
            if select.select([link], [], [], 0.2)[0]:
                for child in multiprocessing.active_children():
                    child.kill()
                time.sleep(0.2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ready.set()
        watcher.join()


def _accept(place: Place) -> dict[int, socket.socket]:
    """Connections to the other nodes, by node."""
    links: dict[int, socket.socket] = {}
    deadline = time.monotonic() + MEETING_SECONDS
    try:
        with socket.create_server(("", place.port), backlog=place.pipeline) as server:
            while len(links) < place.pipeline - 1:
                server.settimeout(max(0.1, deadline - time.monotonic()))
                link, _ = server.accept()
                link.settimeout(None)
                named = _receive(link) if wait([link], 10) else None
                if named is None or named.get("engine") != place.engine:
                    link.close()  # somebody else
                    continue
                links[int(named["node"])] = _prepared(link)
    except OSError as error:
        raise UserError(
            f"engine {place.engine}: {len(links)} of {place.pipeline - 1} other nodes came to port {place.port} within "
            f"{MEETING_SECONDS:.0f} s ({error}); see the logs of their tasks, and whether nodes may connect to each "
            "other; then launch again"
        ) from error
    return links


def _connect(place: Place, leader: str) -> socket.socket:
    deadline = time.monotonic() + MEETING_SECONDS
    while True:
        try:
            link = socket.create_connection((leader, place.port), timeout=10)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no leader at {leader}:{place.port} ({error}); see its log and launch again"
                ) from error
            time.sleep(0.5)
    link.settimeout(None)
    _send(link, {"engine": place.engine, "node": place.node})
    return _prepared(link)


def _prepared(link: socket.socket) -> socket.socket:
    """Notice a node that vanishes; let vLLM and gloo use the address at which the other side was reached.

    By default they ask for a route to the internet or the host's name, which compute nodes often do not have or
    resolve to themselves.
    """
    import psutil

    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    own = link.getsockname()[0]
    os.environ.setdefault("VLLM_HOST_IP", own)
    for interface, addresses in psutil.net_if_addrs().items():
        if own in [found.address for found in addresses]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    return link


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def _send(link: socket.socket, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    link.sendall(WORD.pack(len(data)) + data)


def _receive(link: socket.socket) -> dict[str, Any] | None:
    """The next message; None if the other side is gone."""
    try:
        header = link.recv(WORD.size, socket.MSG_WAITALL)
        if len(header) < WORD.size:
            return None
        (length,) = WORD.unpack(header)
        data = link.recv(length, socket.MSG_WAITALL)
    except ConnectionError:
        return None
    message: dict[str, Any] = json.loads(data)
    return message
