"""What Slurm says of itself: facts alone, no judgement. Needs no rights but those of an ordinary user."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import psutil

from reprokit.cluster import formats
from reprokit.cluster.asking import SECONDS, ask
from reprokit.cluster.formats import NodeGroup

CONTROLLER_SECONDS = 60.0  # one that is busy with its jobs may take that long


class Fault(Enum):
    """Why Slurm cannot be asked."""

    commands = "its commands are not here"
    file = "its configuration file is missing"
    cluster = "this machine belongs to no cluster"
    authentication = "authentication fails"
    controller = "its controller does not answer"


@dataclass(frozen=True)
class Broken:
    """Slurm cannot be asked; `said` is what was heard instead."""

    fault: Fault
    said: str


@dataclass(frozen=True)
class Partition:
    """A partition that this user sees, with its nodes. `fields`: what `scontrol show partition` has of it."""

    name: str
    fields: Mapping[str, str]
    groups: tuple[NodeGroup, ...]

    @property
    def default(self) -> bool:
        return self.fields.get("Default") == "YES"

    @property
    def up(self) -> bool:
        return self.fields.get("State", "UP") == "UP"

    @property
    def hours(self) -> float | None:
        return formats.hours(self.fields.get("MaxTime", ""))

    @property
    def usable(self) -> tuple[NodeGroup, ...]:
        return tuple(group for group in self.groups if group.usable)

    def allowed(self, what: str) -> frozenset[str] | None:
        """Those that `AllowAccounts` or `AllowQos` names; None for all."""
        names = self.fields.get(what, "ALL")
        return None if names in ("ALL", "") else frozenset(names.split(","))


@dataclass(frozen=True)
class Slurm:
    """A cluster that answers. `accounts` and `qos` are None where the accounting database does not tell."""

    config: Mapping[str, str]
    partitions: Mapping[str, Partition]
    reasons: tuple[tuple[str, str, str], ...] = ()  # state, nodes, reason
    machines: frozenset[str] = frozenset()  # addresses of nodes that are not this machine
    user: str = ""
    accounts: frozenset[str] | None = None  # of this user
    user_qos: frozenset[str] = frozenset()
    qos: Mapping[str, float | None] | None = None  # hours that each allows, None for no limit
    complaints: tuple[str, ...] = ()  # questions without an answer

    @property
    def default(self) -> Partition | None:
        return next((partition for partition in self.partitions.values() if partition.default), None)

    @property
    def with_accounting(self) -> bool:
        return self.config.get("AccountingStorageType", "").endswith("/slurmdbd")

    @property
    def most_gpus(self) -> int:
        """GPUs of the node that has most."""
        return max((group.gpu_count for part in self.partitions.values() for group in part.groups), default=0)


class _Questions:
    """Puts questions to Slurm; those without an answer are remembered and count as empty."""

    def __init__(self) -> None:
        self.complaints: list[str] = []

    def ask(self, *command: str, seconds: float = CONTROLLER_SECONDS) -> str:
        answer = ask(*command, seconds=seconds)
        if answer.well:
            return answer.text
        self.complaints.append(f"{' '.join(command[:3])}: {answer.complaint or f'exit code {answer.code}'}")
        return ""

    def database(self, *command: str) -> str:
        return self.ask("sacctmgr", "--noheader", "--parsable2", "show", *command, seconds=SECONDS)


def inspect() -> Slurm | Broken:
    """Ask the cluster that this process's environment points at. Takes a second; minutes if it hardly answers."""
    if broken := _why_silent():
        return broken
    shown = ask("scontrol", "show", "config", seconds=CONTROLLER_SECONDS)
    if not shown.well:
        return Broken(_fault(shown.complaint), shown.complaint)
    questions = _Questions()
    slurm = Slurm(
        config=formats.config(shown.text),
        partitions=_partitions(questions),
        reasons=tuple(formats.reasons(questions.ask("sinfo", "-h", "-R", "-o", formats.SINFO_REASONS))),
        machines=frozenset(questions.ask("sinfo", "-h", "-N", "-o", "%o").split()) - _own_names(),
        user=psutil.Process().username(),
    )
    if slurm.with_accounting:
        slurm = replace(slurm, **_of_database(slurm, questions))
    return replace(slurm, complaints=tuple(questions.complaints))


def _partitions(questions: _Questions) -> dict[str, Partition]:
    groups = formats.groups(questions.ask("sinfo", "-h", "-e", "-o", formats.SINFO_GROUPS))
    fields = formats.partitions(questions.ask("scontrol", "-o", "show", "partition"))
    return {
        name: Partition(name, fields[name], tuple(group for group in groups if group.partition == name))
        for name in fields
    }


def _of_database(slurm: Slurm, questions: _Questions) -> dict[str, Any]:
    """What the accounting database has of this user."""
    cluster = slurm.config.get("ClusterName", "")
    who = (f"user={slurm.user}", f"cluster={cluster}") if cluster else (f"user={slurm.user}",)
    associations = [
        line.split("|")
        for line in questions.database("association", "where", *who, "format=Account,QOS").splitlines()
        if line.count("|") == 1
    ]
    limits = [line.split("|") for line in questions.database("qos", "format=Name,MaxWall").splitlines() if "|" in line]
    return {
        "accounts": frozenset(account for account, _ in associations) or None,
        "user_qos": frozenset(name for _, names in associations for name in names.split(",") if name),
        "qos": {name: formats.hours(limit) for name, limit in limits} or None,
    }


def _why_silent() -> Broken | None:
    """What keeps Slurm from answering, told without waiting long for it."""
    missing = [name for name in ("sbatch", "srun", "scontrol", "sinfo") if shutil.which(name) is None]
    if missing:
        return Broken(Fault.commands, f"{', '.join(missing)} not found on PATH")
    named = os.environ.get("SLURM_CONF")
    if named and not Path(named).exists():  # the commands would wait a minute for it
        return Broken(Fault.file, f"SLURM_CONF={named} is not there")
    ping = ask("scontrol", "ping")
    said = "\n".join(text for text in (ping.text, ping.complaint) if text)
    # With several controllers the exit code is that of the first, and the second may have taken over.
    return None if ping.well or " is UP" in ping.text else Broken(_fault(said), said)


def _fault(said: str) -> Fault:
    """The kind of a complaint of Slurm's commands."""
    heard = said.lower()
    if "configuration source" in heard or "fetch_config" in heard:
        return Fault.cluster
    if "cannot stat file" in heard:
        return Fault.file
    return Fault.authentication if "munge" in heard or "authentication" in heard else Fault.controller


def _own_names() -> frozenset[str]:
    """What a node that is this machine may be called."""
    name = socket.gethostname()
    addresses = {address.address for each in psutil.net_if_addrs().values() for address in each}
    return frozenset({name, name.split(".")[0], "localhost", *addresses})
