"""What the facts about a cluster and this machine mean for a run: findings with what to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from reprokit.cluster import formats
from reprokit.cluster.asking import last_line
from reprokit.cluster.findings import Finding, ok, problem, warning
from reprokit.cluster.inspection import Broken, Fault, Partition, Slurm
from reprokit.cluster.machine import Machine, Place

OLDEST = (20, 11)
# GB: a run of a 14B model keeps about 240 of checkpoints and up to 270 of states; without GPUs models are tiny.
RUN_GB, MODEL_GB, SMALL_GB = 500, 100, 10
MOST_REASONS = 5
_TO_DO = {
    Fault.commands: "log in to the cluster, or load its module (module load slurm); this machine alone: cluster=local",
    Fault.file: "let SLURM_CONF name the cluster's slurm.conf, or unset it; for cluster=dev: make cluster-up",
    Fault.cluster: "log in to the cluster, or let SLURM_CONF name its slurm.conf; the development cluster is "
    "cluster=dev; this machine alone: cluster=local",
    Fault.authentication: "ask the administrators to start munge on this machine, with the cluster's key and the time "
    "of day right",
    Fault.controller: "wait, or tell the administrators that slurmctld does not answer; jobs that run go on",
}


def of_slurm(slurm: Slurm | Broken) -> Iterator[Finding]:
    """Findings about the cluster."""
    if isinstance(slurm, Broken):
        yield problem("Slurm", f"{slurm.fault.value}: {_cause(slurm.said)}", _TO_DO[slurm.fault])
        return
    yield _version(slurm)
    for complaint in slurm.complaints:
        yield warning("Slurm", f"a question without answer: {last_line(complaint)}", "what it would tell is not known")
    yield from _partitions(slurm)
    yield from _nodes(slurm)
    yield from _accounting(slurm)
    yield from _limits(slurm)
    yield from _preemption(slurm)
    yield from _plugins(slurm)


def of_machine(machine: Machine, slurm: Slurm | Broken | None) -> Iterator[Finding]:
    """Findings about the machine that one launches from; `slurm` tells whether jobs run elsewhere."""
    others = slurm.machines if isinstance(slurm, Slurm) else frozenset()
    with_gpus = bool(machine.gpus) or (isinstance(slurm, Slurm) and slurm.most_gpus > 0)
    yield from _python(machine)
    if machine.gpus:
        shown = ", ".join(f"{count} x {name}, {memory:g} GB" for (name, memory), count in Counter(machine.gpus).items())
        yield ok("GPUs here", f"{shown}; {machine.driver}")
    else:
        yield ok("GPUs here", "none", "of no account on a login node")
    yield _network(machine)
    for place in machine.places:
        yield _place(place, bool(others), with_gpus)
    if machine.isolation == "rlimits":
        to_do = "install bubblewrap or allow user namespaces on the nodes that score; there, only limits are left"
        yield warning("sandbox", "neither bubblewrap nor user namespaces here", to_do)
    else:
        yield ok("sandbox", machine.isolation, "of this machine: compute nodes may differ")
    if machine.hub:
        to_do = "launch where the hub can be reached, or give local paths; what HF_HOME holds already is enough"
        yield warning("hub", f"not reached: {machine.hub}", to_do)
    else:
        yield ok("hub", "reachable", "models and data are fetched here; jobs need no internet")


def _cause(said: str) -> str:
    """The line of a complaint that says most."""
    lines = said.splitlines()
    telling = [line for line in lines if re.search("munge|authentication|is down", line, re.IGNORECASE)]
    return (telling or [last_line(said)])[-1].strip()


def _version(slurm: Slurm) -> Finding:
    version = slurm.config.get("SLURM_VERSION", "unknown")
    found = f"{version}, cluster {slurm.config.get('ClusterName') or 'without a name'}"
    if formats.version(version) < OLDEST:
        return warning("Slurm", found, f"written for {OLDEST[0]}.{OLDEST[1]} and later: try a small recipe first")
    return ok("Slurm", found)


def _partitions(slurm: Slurm) -> Iterator[Finding]:
    if not slurm.partitions:
        yield problem("partitions", "none that this user sees", "ask the administrators for access to one")
        return
    for partition in slurm.partitions.values():
        what = f"partition {partition.name}" + (" (default)" if partition.default else "")
        found = "; ".join([*_describe(partition), f"limit {_shown(partition.hours)}"])
        accounts = partition.allowed("AllowAccounts")
        if not partition.up:
            state = partition.fields.get("State", "").lower()
            yield warning(what, f"{state}: {found}", "jobs wait until it is up again; see `scontrol show partition`")
        elif not partition.usable:
            yield warning(what, f"no node takes jobs: {found}", "use another one, or wait")
        elif accounts is not None and slurm.accounts is not None and not accounts & slurm.accounts:
            yield warning(what, f"for other accounts: {found}", f"needs one of {', '.join(sorted(accounts)[:5])}")
        else:
            yield ok(what, found)
    if not any(partition.up and partition.usable for partition in slurm.partitions.values()):
        yield problem("partitions", "none takes jobs now", "wait, or ask the administrators")


def _describe(partition: Partition) -> list[str]:
    """Each kind of nodes of a partition in words."""
    kinds: dict[tuple[int, float, str], Counter[str]] = {}
    for group in partition.groups:
        gpus = ", ".join(f"{count} GPUs{kind and ' ' + kind}" for kind, count in group.gpus.items())
        states = kinds.setdefault((group.cpus, group.memory_gb, gpus), Counter())
        states[formats.state_name(group.state)] += group.nodes
    return [
        f"{states.total()} nodes of {cpus} CPUs, {memory:.0f} GB{gpus and ', ' + gpus} "
        f"({', '.join(f'{count} {state}' for state, count in states.items())})"
        for (cpus, memory, gpus), states in kinds.items()
    ] or ["no nodes"]


def _shown(hours: float | None) -> str:
    return "none" if hours is None else f"{hours:g} h"


def _nodes(slurm: Slurm) -> Iterator[Finding]:
    for state, nodes, reason in slurm.reasons[:MOST_REASONS]:
        yield warning(f"nodes {nodes}", f"{formats.state_name(state)}: {reason}", "they take no jobs until repaired")
    left = len(slurm.reasons) - MOST_REASONS
    if left > 0:
        yield warning("nodes", f"{left} more reasons why nodes take no jobs", "sinfo -R lists all")


def _accounting(slurm: Slurm) -> Iterator[Finding]:
    if not slurm.with_accounting:
        yield ok("accounting", "off", "not needed: no sacct, but squeue tells")
        return
    enforced = slurm.config.get("AccountingStorageEnforce", "none")
    if slurm.accounts is None and any(complaint.startswith("sacctmgr") for complaint in slurm.complaints):
        yield warning("accounting", "on, but its database does not answer", "jobs may run all the same; try")
        return
    if slurm.accounts is None:
        found = f"on, but it has no account of user {slurm.user}"
        if any(word in enforced for word in ("associations", "limits", "qos", "safe", "all")):
            yield problem("accounting", found, "ask the administrators for an account: jobs are refused without")
        else:
            yield ok("accounting", found, "not enforced here")
        return
    qos = ", ".join(sorted(slurm.user_qos)) or "none"
    yield ok("accounting", f"on; accounts {', '.join(sorted(slurm.accounts))}; QOS {qos}; enforced: {enforced}")


def _limits(slurm: Slurm) -> Iterator[Finding]:
    array = formats.number(slurm.config.get("MaxArraySize", "1001"))
    jobs = slurm.config.get("MaxJobCount", "unknown")
    found = f"arrays of up to {array} elements, {jobs} jobs of all users together"
    if array < 2:
        to_do = "the array of checkpoints is refused: set checkpoints_per_element: 1000 in the profile"
        yield problem("limits", found, to_do)
    else:
        yield ok("limits", found)


def _preemption(slurm: Slurm) -> Iterator[Finding]:
    kind = slurm.config.get("PreemptType", "preempt/none")
    mode = slurm.config.get("PreemptMode", "OFF")
    wait = slurm.config.get("KillWait", "unknown")
    ends = f"KillWait {wait}, KillOnBadExit {slurm.config.get('KillOnBadExit', 'unknown')} (jobs ask for 1)"
    if kind.endswith("/none"):
        yield ok("preemption", f"none; {ends}")
        return
    graces = ", ".join(
        f"{name} {partition.fields.get('PreemptMode', mode)} after {partition.fields.get('GraceTime', '0')} s"
        for name, partition in slurm.partitions.items()
        if partition.fields.get("PreemptMode", mode) != "OFF"
    )
    found = f"{kind.removeprefix('preempt/')}, {mode}: {graces or 'no partition that you see'}; {ends}"
    modes = {mode, *(partition.fields.get("PreemptMode", mode) for partition in slurm.partitions.values())}
    if any("CANCEL" in one for one in modes):
        yield warning("preemption", found, "jobs that were taken away do not come back: launch again to go on")
    elif any("REQUEUE" in one for one in modes) and slurm.config.get("JobRequeue") == "0":
        to_do = (
            "JobRequeue=0: jobs that were taken away do not come back without sbatch: {requeue: true} in the profile"
        )
        yield warning("preemption", found, to_do)
    else:
        yield ok("preemption", found, "training goes on from its newest state, evaluation from its samples")


def _plugins(slurm: Slurm) -> Iterator[Finding]:
    select = f"{slurm.config.get('SelectType')}, {slurm.config.get('SelectTypeParameters') or 'no parameters'}"
    if slurm.most_gpus and "cons_tres" not in select.lower():  # a Cray has it among the parameters
        to_do = "jobs ask with --gpus-per-node, which needs select/cons_tres: ask the administrators"
        yield problem("SelectType", select, to_do)
    else:
        yield ok("SelectType", select)
    track, task = slurm.config.get("ProctrackType", ""), slurm.config.get("TaskPlugin", "")
    found = f"{track}, {task}"
    if "cgroup" not in track:
        yield warning("processes", found, "without cgroups what a task leaves behind may go on: look with ps")
    else:
        yield ok("processes", found, "cores are checked when a job starts")


def _python(machine: Machine) -> Iterator[Finding]:
    if machine.missing is None:
        to_do = "jobs must find it: pip install --no-deps -e . in the environment"
        yield problem("Python", f"{machine.python}: reprokit is not installed", to_do)
    elif machine.missing:
        to_do = "make the environment: env.yml on a cluster, `make environment` on this machine alone"
        yield problem("Python", f"{machine.python}: without {', '.join(machine.missing)}", to_do)
    else:
        yield ok("Python", machine.python, "all packages are there")


def _network(machine: Machine) -> Finding:
    found = ", ".join(machine.interfaces) or "no interface"
    adapters = f"; InfiniBand or RoCE: {', '.join(machine.infiniband)}" if machine.infiniband else "; no InfiniBand"
    note = "of this machine; should NCCL take the wrong one on the nodes: environment: {NCCL_SOCKET_IFNAME: ...}"
    return ok("networks", found + adapters, note)


def _place(place: Place, others: bool, with_gpus: bool) -> Finding:
    free = "" if place.free_gb is None else f", {place.free_gb:,.0f} GB free"
    what, found = place.purpose, f"{place.path} ({place.kind}{free})"
    if others and place.shared is False:
        to_do = "compute nodes see other files there: use a shared file system"
        return warning(what, f"{found}: not shared", f"{to_do}{_REMEDY.get(what, '')}")
    if others and place.shared is None:
        return warning(what, found, "see that compute nodes have the same there; this type tells nothing")
    needed = {"runs": RUN_GB, "HF_HOME": MODEL_GB}.get(what, 0)
    needed = needed if with_gpus else min(needed, SMALL_GB)
    if place.free_gb is not None and place.free_gb < needed:
        return warning(what, found, f"less than {needed} GB{_REMEDY.get(what, '')}")
    return ok(what, found)


_REMEDY = {
    "runs": "; runs: /scratch/me/runs in the profile puts runs elsewhere",
    "HF_HOME": "; environment: {HF_HOME: /scratch/me/hf} in the profile puts models elsewhere",
}
