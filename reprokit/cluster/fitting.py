"""Whether a cluster profile fits the cluster: every setting that does not, and what Slurm itself says of each job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reprokit.cluster import formats, slurm
from reprokit.cluster.asking import ask, last_line
from reprokit.cluster.findings import Finding, Level, ok, problem, warning
from reprokit.cluster.formats import NodeGroup
from reprokit.cluster.gpus import kind_of
from reprokit.cluster.inspection import Partition, Slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import STAGES, ClusterProfile, Resources
from reprokit.recipe.problems import closest

SLACK = 0.05  # of a GPU's memory, by which what is sold and what is there differ
FEW_CHECKPOINTS = 100  # that an evaluation array should at least hold
SUBMISSION_SECONDS = 60.0


def of_profile(profile: ClusterProfile, cluster: Slurm) -> Iterator[Finding]:
    """Findings about a profile on the cluster that this process's environment points at."""
    yield from _access(profile, cluster)
    by_stage = {stage: of_stage(stage, getattr(profile, stage), profile, cluster) for stage in STAGES}
    yield from _together(by_stage)
    for stage, found in by_stage.items():
        if all(finding.level is not Level.problem for finding in found):
            yield submission(stage, getattr(profile, stage), profile)
    yield from of_array(profile, cluster)


def of_array(profile: ClusterProfile, cluster: Slurm) -> Iterator[Finding]:
    """A warning if the evaluation array cannot hold the checkpoints of a usual run."""
    checkpoints = formats.number(cluster.config.get("MaxArraySize", "1001")) * profile.checkpoints_per_element
    if checkpoints < FEW_CHECKPOINTS:
        to_do = f"set checkpoints_per_element: {profile.checkpoints_per_element * FEW_CHECKPOINTS} or so"
        yield warning("evaluate", f"its array holds {checkpoints} checkpoints (MaxArraySize)", to_do)


def _together(by_stage: Mapping[str, Sequence[Finding]]) -> Iterator[Finding]:
    """Every finding once, with the stages that it is about."""
    stages: dict[Finding, list[str]] = {}
    for stage, found in by_stage.items():
        for finding in found:
            stages.setdefault(finding, []).append(stage)
    for finding, names in stages.items():
        yield replace(finding, what=f"{', '.join(names)}: {finding.what}")


def submission(stage: str, resources: Resources, profile: ClusterProfile) -> Finding:
    """What sbatch itself says of the job of a stage. `--test-only`: nothing is submitted."""
    job = Job("doctor", stage, print, ((),), resources)
    text = slurm.sbatch_text(job, profile, Path("logs"), None)
    answer = ask("sbatch", "--test-only", text=text, seconds=SUBMISSION_SECONDS)
    said = last_line(answer.complaint.split("Try ")[0])  # 'Try "sbatch --help"' says less than the line before it
    if answer.well:
        return ok(stage, f"Slurm would take the job: {said.removeprefix('sbatch: ')}")
    if answer.code is None:
        return warning(
            stage, said, "whether Slurm takes the job is not known; try `launch ... dry_run=true` and sbatch"
        )
    return problem(stage, f"Slurm would refuse the job: {said}", "put that right in the profile")


def _access(profile: ClusterProfile, cluster: Slurm) -> Iterator[Finding]:
    """Account and QOS, where the accounting database tells; options of sbatch, where sbatch does."""
    user, account, qos = cluster.user, profile.account, profile.qos
    if account is not None and cluster.accounts is not None and account not in cluster.accounts:
        yield problem("account", f"{account} is not for user {user}", _one_of("account", cluster.accounts))
    if qos is not None and cluster.qos is not None:
        if qos not in cluster.qos:
            yield problem("qos", f"there is no {qos}", _one_of("qos", cluster.user_qos or cluster.qos))
        elif cluster.user_qos and qos not in cluster.user_qos:
            yield problem("qos", f"{qos} is not for user {user}", _one_of("qos", cluster.user_qos))
    known = ask("sbatch", "--help").text if profile.sbatch else ""
    for name in profile.sbatch:
        if not re.search(rf"--{name}(?![\w-])", known):
            yield problem(f"sbatch.{name}", "no option of the sbatch here", "remove it; `sbatch --help` has them all")


def of_stage(stage: str, asked: Resources, profile: ClusterProfile, cluster: Slurm) -> list[Finding]:
    """What of a stage of the profile does not fit, by what the cluster says of itself."""
    return list(_of_stage(stage, asked, profile, cluster))


def _of_stage(stage: str, asked: Resources, profile: ClusterProfile, cluster: Slurm) -> Iterator[Finding]:
    name = asked.partition or profile.partition
    partition = cluster.partitions.get(name) if name else cluster.default
    if partition is None:
        guess = closest(name, cluster.partitions) if name else None
        to_do = f"set partition: {guess}" if guess else _one_of("partition", cluster.partitions)
        yield problem("partition", f"there is no {name}" if name else "the cluster has no default", to_do)
        return
    if not partition.up:
        yield warning("partition", f"{partition.name} is not up", "set another partition, or wait")
    yield from _rights(partition, profile)
    yield from _time(stage, asked, partition, profile, cluster)
    misfits = list(_sizes(stage, asked, partition, profile))
    yield from misfits or _enough_nodes(stage, asked, partition, profile)
    yield from _memory(stage, asked, partition)
    yield from _kinds(asked, partition, profile)


def _rights(partition: Partition, profile: ClusterProfile) -> Iterator[Finding]:
    for key, given, field in (("account", profile.account, "AllowAccounts"), ("qos", profile.qos, "AllowQos")):
        allowed = partition.allowed(field)
        if given is not None and allowed is not None and given not in allowed:
            yield problem(key, f"partition {partition.name} is not for {given}", _one_of(key, allowed))


def _time(
    stage: str, asked: Resources, partition: Partition, profile: ClusterProfile, cluster: Slurm
) -> Iterator[Finding]:
    limits = {f"partition {partition.name}": partition.hours}
    for qos in (profile.qos, partition.fields.get("QoS")):
        if qos is not None and cluster.qos is not None:
            limits[f"QOS {qos}"] = cluster.qos.get(qos)
    for whose, limit in limits.items():
        if limit is not None and round(60 * asked.hours) > round(60 * limit):  # both are minutes to Slurm
            found = f"{asked.hours:g}, {whose} allows {limit:g}"
            yield problem("hours", found, f"set {stage}.hours: {limit:g}; launch again for what is left then")


def _sizes(stage: str, asked: Resources, partition: Partition, profile: ClusterProfile) -> Iterator[Finding]:
    """What no node of the partition has by itself."""
    groups, where = partition.groups, f"a node of {partition.name} has"
    most = formats.number(partition.fields.get("MaxNodes", ""))
    if most and asked.nodes > most:
        found = f"{asked.nodes}, a job of {partition.name} gets {most}"
        yield problem("nodes", found, f"set {stage}.nodes: {most}")
    gpus = max((_gpus(group, profile.gpu_type) for group in groups), default=0)
    if asked.gpus_per_node and not gpus and profile.gpu_type:
        kinds = {name for group in groups for name in group.gpus if name}
        to_do = _one_of("gpu_type", kinds) if kinds else "remove gpu_type: GPUs there have no type"
        yield problem("gpu_type", f"no GPU of {partition.name} is {profile.gpu_type}", to_do)
    elif asked.gpus_per_node > gpus:
        to_do = f"set {stage}.gpus_per_node and tasks_per_node: {gpus}" if gpus else "set another partition"
        yield problem("gpus_per_node", f"{asked.gpus_per_node}, {where} {gpus}", to_do)
    cpus = max((group.cpus for group in groups), default=0)
    if _cpus(asked) > cpus:
        to_do = f"set {stage}.cpus_per_task: {max(1, cpus // asked.tasks_per_node)}"
        found = f"{asked.cpus_per_task} for each of {asked.tasks_per_node} tasks, {where} {cpus}"
        yield problem("cpus_per_task", found, to_do)
    memory = max((group.memory_gb for group in groups), default=0.0)
    if asked.memory_gb is not None and asked.memory_gb > memory:
        to_do = f"set {stage}.memory_gb: {int(memory)}"
        yield problem("memory_gb", f"{asked.memory_gb:g}, {where} {memory:.0f}", to_do)
    features = {feature for group in groups for feature in group.features}
    wanted = profile.constraint
    if wanted is not None and re.fullmatch(r"[\w.-]+", wanted) and wanted not in features:
        to_do = _one_of("constraint", features) if features else "remove constraint: nodes there have no features"
        yield problem("constraint", f"no node of {partition.name} has {wanted}", to_do)


def _enough_nodes(stage: str, asked: Resources, partition: Partition, profile: ClusterProfile) -> Iterator[Finding]:
    """Whether as many nodes as asked for have all of it together."""
    fitting = [
        group
        for group in partition.groups
        if _gpus(group, profile.gpu_type) >= asked.gpus_per_node
        and group.cpus >= _cpus(asked)
        and group.memory_gb >= (asked.memory_gb or 0)
    ]
    there = sum(group.nodes for group in fitting)
    now = sum(group.nodes for group in fitting if group.usable)
    if there < asked.nodes:
        found = f"{asked.nodes}, but {there} of {partition.name} have all that {stage} asks for"
        yield problem("nodes", found, f"ask for less per node, or set {stage}.nodes: {max(1, there)}")
    elif now < asked.nodes:
        found = f"{asked.nodes}, but {now} of {there} fitting ones of {partition.name} take jobs now"
        yield warning("nodes", found, "the job waits until more are back; `sinfo -R` says why they are away")


def _memory(stage: str, asked: Resources, partition: Partition) -> Iterator[Finding]:
    """Memory that nobody asked for."""
    node, cpu = (formats.number(partition.fields.get(f"DefMemPer{each}", "")) for each in ("Node", "CPU"))
    given = (node or cpu * _cpus(asked)) / 1024
    if asked.memory_gb is None and given:
        largest = max((group.memory_gb for group in partition.groups), default=0.0)
        found = f"not given: then {partition.name} gives {given:.0f} GB per node"
        yield warning("memory_gb", found, f"set {stage}.memory_gb; nodes have {largest:.0f}")


def _kinds(asked: Resources, partition: Partition, profile: ClusterProfile) -> Iterator[Finding]:
    """GPUs of another kind or size than the profile says, going by their names."""
    if not asked.gpus_per_node:
        return
    names = {name for group in partition.groups for name in group.gpus if _is(name, profile.gpu_type)}
    kinds = {kind for name in names if (kind := kind_of(name)[0]) is not None}
    sizes = {size for name in names if (size := kind_of(name)[1]) is not None}
    if profile.gpu is not None and kinds and profile.gpu not in kinds:
        found = f"{profile.gpu}, GPUs of {partition.name} seem to be {', '.join(sorted(kinds))}"
        yield warning("gpu", found, _one_of("gpu", kinds))
    if profile.gpu_memory_gb is not None and sizes and profile.gpu_memory_gb > (1 + SLACK) * min(sizes):
        found = f"{profile.gpu_memory_gb:g}, GPUs of {partition.name} seem to have {min(sizes):g}"
        yield warning("gpu_memory_gb", found, f"set gpu_memory_gb: {min(sizes):g}, or gpu_type")


def _cpus(asked: Resources) -> int:
    return asked.tasks_per_node * asked.cpus_per_task


def _is(name: str, kind: str | None) -> bool:
    return kind is None or name.lower() == kind.lower()


def _gpus(group: NodeGroup, kind: str | None) -> int:
    """GPUs per node of that type, of any if it is None; a job of no type gets GPUs of several types of one node."""
    return sum(count for name, count in group.gpus.items() if _is(name, kind))


def _one_of(key: str, names: Iterable[str]) -> str:
    return f"set {key} to one of: {', '.join(sorted(names)) or 'none that you see'}"
