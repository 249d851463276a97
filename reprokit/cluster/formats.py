"""What Slurm's commands print, from 20.11 on, as plain values. Old ones know no JSON, so these are fixed formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SINFO_GROUPS = "%R|%D|%c|%m|%G|%T|%f"
SINFO_REASONS = "%T|%N|%E"
_UNUSABLE = ("down", "drain", "fail", "error", "unknown", "inval", "future", "no_respond", "powered_down*")
_MARKS = "*~#!%$@^+-"  # sinfo puts them behind a state; * is a node that does not answer


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of a partition that are alike. `gpus`: how many per node, by their type; "" where Slurm knows none."""

    partition: str
    nodes: int
    cpus: int
    memory_gb: float
    gpus: Mapping[str, int]
    state: str
    features: frozenset[str] = frozenset()

    @property
    def usable(self) -> bool:
        """Whether the nodes take jobs, now or when others have ended."""
        return not self.state.endswith("*") and not self.state.startswith(_UNUSABLE)

    @property
    def gpu_count(self) -> int:
        return sum(self.gpus.values())


def config(text: str) -> dict[str, str]:
    """`scontrol show config`: Key -> value; "" for Slurm's ways to say that there is none."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip() and " " not in key.strip():
            found[key.strip()] = "" if value.strip() in ("(null)", "(null type)") else value.strip()
    return found


def groups(text: str) -> list[NodeGroup]:
    """Lines of `sinfo --exact` in the format SINFO_GROUPS."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split("|", 6)
        if len(fields) < 7 or number(fields[1]) == 0:
            continue
        partition, nodes, cpus, memory, gres, state, features = fields
        found.append(
            NodeGroup(
                partition=partition,
                nodes=number(nodes),
                cpus=number(cpus),
                memory_gb=number(memory) / 1024,
                gpus=gpus(gres),
                state=state,
                features=frozenset() if features == "(null)" else frozenset(features.split(",")),
            )
        )
    return found


def reasons(text: str) -> list[tuple[str, str, str]]:
    """State, nodes and reason of each line of `sinfo -R` in the format SINFO_REASONS."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split("|", 2)
        if len(fields) == 3:
            found.append((fields[0], fields[1], fields[2]))
    return found


def partitions(text: str) -> dict[str, dict[str, str]]:
    """`scontrol --oneliner show partition`: name -> its fields."""
    found = {}
    for line in text.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "PartitionName" in fields:
            found[fields["PartitionName"]] = fields
    return found


def gpus(gres: str) -> dict[str, int]:
    """`gpu:h200:8(S:0-1),nvme:1` -> {"h200": 8}; `gpu:2` -> {"": 2}."""
    found: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *parts = item.strip().split(":")
        if name != "gpu":
            continue
        counts = [part for part in parts if part.isdigit()]
        kind = parts[0] if parts and not parts[0].isdigit() else ""
        found[kind] = found.get(kind, 0) + (int(counts[-1]) if counts else 1)
    return found


def hours(limit: str) -> float | None:
    """A time of Slurm (`30:00`, `1-12`, `2-00:00:00`, minutes alone) in hours; None for no limit."""
    matched = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit.strip())
    if matched is None:
        return None
    days, first, second, third = matched.groups()
    if days is not None:
        return int(days) * 24 + int(first) + int(second or 0) / 60 + int(third or 0) / 3600
    if third is not None:
        return int(first) + int(second) / 60 + int(third) / 3600
    return (int(first) + int(second or 0) / 60) / 60


def state_name(state: str) -> str:
    """`idle~` -> `idle`; a node that does not answer is said to be silent."""
    bare = state.rstrip(_MARKS)
    return f"{bare} (silent)" if state.endswith("*") else bare


def number(text: str) -> int:
    """The number that a field begins with, 0 if it has none."""
    matched = re.match(r"\d+", text.strip())
    return int(matched.group()) if matched else 0


def version(text: str) -> tuple[int, int]:
    """`22.05.8` -> (22, 5); (0, 0) for what is none."""
    matched = re.search(r"(\d+)\.(\d+)", text)
    return (int(matched.group(1)), int(matched.group(2))) if matched else (0, 0)
