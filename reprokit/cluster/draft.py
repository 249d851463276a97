"""A first profile for a cluster, from what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator

from reprokit.cluster.formats import NodeGroup
from reprokit.cluster.gpus import is_slice, kind_of
from reprokit.cluster.inspection import Partition, Slurm
from reprokit.cluster.machine import Machine

TRAIN_HOURS, EVALUATE_HOURS, SCORE_HOURS, COLLECT_HOURS = 24.0, 8.0, 8.0, 0.5
USABLE = 0.95  # of a node's memory, the rest being left to the system
CPU_TASKS = 2  # where there are no GPUs
GUESSED_GB = 80.0


def draft(slurm: Slurm, machine: Machine) -> str | None:
    """Text of a profile that loads: the partition with the most GPUs per node that this user may use, whole nodes.

    None if no partition has a node.
    """
    chosen = _choose(slurm)
    if chosen is None:
        return None
    partition, group = chosen
    rights = dict(_rights(slurm, partition))
    qos = slurm.qos or {}
    limits = (partition.hours, qos.get(rights.get("qos", "")), qos.get(partition.fields.get("QoS", "")))
    limit = min((hours for hours in limits if hours is not None), default=None)
    lines = [
        f"# Draft for cluster {slurm.config.get('ClusterName', '')} by `python -m reprokit.doctor`: "
        "look at every line, then edit.",
        f"partition: {_text(partition.name)}",
        *(f"{key}: {_text(name)}" for key, name in rights.items()),
    ]
    kind, count = _most_gpus(group)
    if count:
        lines += _gpu_lines(kind, len(group.gpus) > 1 or _has_other_kinds(partition, kind), machine)
        each = f"tasks_per_node: {count}, gpus_per_node: {count}, cpus_per_task: {max(1, group.cpus // count)}"
    else:
        tasks = min(CPU_TASKS, group.cpus)
        each = f"tasks_per_node: {tasks}, cpus_per_task: {max(1, group.cpus // tasks)}"
    each = f"nodes: 1, {each}{_memory(group, group.memory_gb)}"
    lines.append(f"train: {{{each}, hours: {_hours(TRAIN_HOURS, limit)}}}")
    lines.append(f"evaluate: {{{each}, hours: {_hours(EVALUATE_HOURS, limit)}}}")
    elsewhere = _cpu_partition(slurm) if count and not rights else None
    if elsewhere is not None:
        partition, group = elsewhere
        limit = partition.hours
    where = f"partition: {_text(partition.name)}, " if elsewhere is not None else ""
    for stage, cpus, memory, hours in (("score", 8, 64, SCORE_HOURS), ("collect", 2, 8, COLLECT_HOURS)):
        each = f"{where}cpus_per_task: {min(cpus, group.cpus)}{_memory(group, memory)}"
        lines.append(f"{stage}: {{{each}, hours: {_hours(hours, limit)}}}")
    return "\n".join(lines) + "\n"


def _choose(slurm: Slurm) -> tuple[Partition, NodeGroup] | None:
    """Partition and nodes: GPUs that work now before others, most per node, then the largest, then most nodes."""
    candidates = [
        (partition, group) for partition in slurm.partitions.values() for group in partition.groups
        if _may_use(slurm, partition)
    ]  # fmt: skip
    return max(
        candidates,
        key=lambda pair: (
            _most_gpus(pair[1])[1] > 0,
            pair[0].up and pair[1].usable,
            _most_gpus(pair[1])[1],
            kind_of(_most_gpus(pair[1])[0])[1] or 0,
            sum(group.nodes for group in pair[0].groups if group.gpus == pair[1].gpus),
            pair[1].nodes,
            pair[0].default,
        ),
        default=None,
    )


def _most_gpus(group: NodeGroup) -> tuple[str, int]:
    """The type of GPU that a node has most of, and how many."""
    whole = {kind: count for kind, count in group.gpus.items() if not is_slice(kind)}
    return max(whole.items(), key=lambda item: item[1], default=("", 0))


def _may_use(slurm: Slurm, partition: Partition) -> bool:
    if "YES" in (partition.fields.get("RootOnly"), partition.fields.get("ReqResv")):
        return False
    if slurm.accounts is None:
        return True
    allowed, denied = partition.allowed("AllowAccounts"), partition.allowed("DenyAccounts") or frozenset()
    return bool((slurm.accounts if allowed is None else allowed & slurm.accounts) - denied)


def _rights(slurm: Slurm, partition: Partition) -> Iterator[tuple[str, str]]:
    """Account and QOS, where the partition is not for all; else Slurm knows the user's own."""
    for key, field, own in (("account", "AllowAccounts", slurm.accounts), ("qos", "AllowQos", slurm.user_qos)):
        allowed = partition.allowed(field)
        if allowed is not None and own and allowed & own:
            yield key, min(allowed & own)


def _gpu_lines(kind: str, one_of_several: bool, machine: Machine) -> Iterator[str]:
    name, memory = kind_of(kind)
    if memory is None and machine.gpus and not kind:
        name, memory = kind_of(machine.gpus[0][0])[0], machine.gpus[0][1]  # the nodes probably have the same
    if one_of_several and kind:
        yield f"gpu_type: {_text(kind)}"
    if name:
        yield f"gpu: {name}"
    if memory is None:
        yield f"gpu_memory_gb: {GUESSED_GB:g}  # a guess: Slurm does not tell; nvidia-smi on a node does"
    else:
        yield f"gpu_memory_gb: {memory:g}"


def _has_other_kinds(partition: Partition, kind: str) -> bool:
    return any(set(group.gpus) - {kind} for group in partition.groups)


def _cpu_partition(slurm: Slurm) -> tuple[Partition, NodeGroup] | None:
    """A partition without GPUs for the stages that need none, the default before others."""
    candidates = [
        partition
        for partition in slurm.partitions.values()
        if partition.up
        and partition.usable
        and _may_use(slurm, partition)
        and not any(group.gpus for group in partition.groups)
        and (partition.hours is None or partition.hours >= SCORE_HOURS)
    ]
    chosen = max(candidates, key=lambda partition: partition.default, default=None)
    return None if chosen is None else (chosen, chosen.usable[0])


def _memory(group: NodeGroup, wanted_gb: float) -> str:
    """The memory of a job; nothing where Slurm was not told how much its nodes have."""
    usable = int(USABLE * group.memory_gb)
    return f", memory_gb: {min(int(wanted_gb), usable)}" if usable else ""


def _hours(wanted: float, limit: float | None) -> str:
    return f"{wanted if limit is None else min(wanted, limit):g}"


def _text(name: str) -> str:
    """A name as YAML text: quoted where it would be read as something else."""
    plain = name.replace("-", "").replace("_", "").isalnum() and not name[0].isdigit() and name.lower() != "null"
    return name if plain else f"'{name}'"
