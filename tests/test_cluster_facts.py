"""Clusters that are not at hand: what Slurm prints there, what that means, and which profiles fit."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from reprokit.cluster import diagnosis, fitting, formats, machine
from reprokit.cluster.draft import draft
from reprokit.cluster.findings import Finding, Level
from reprokit.cluster.gpus import is_slice, kind_of
from reprokit.cluster.inspection import Broken, Fault, Partition, Slurm
from reprokit.cluster.machine import Machine, Place
from reprokit.cluster.profile import ClusterProfile
from reprokit.cluster.profiles import PROFILES, load_profile, profile_names

CONFIG = """\
Configuration data as of 2026-01-05T10:00:00
AccountingStorageEnforce = associations,limits,qos,safe
AccountingStorageType   = accounting_storage/slurmdbd
BOOT_TIME               = 2026-01-01T00:00:00
ClusterName             = alpha
JobSubmitPlugins        = lua
KillOnBadExit           = 0
KillWait                = 30 sec
MaxArraySize            = 5001
MaxJobCount             = 200000
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
PrivateData             = (null)
ProctrackType           = proctrack/cgroup
SchedulerParameters     = bf_continue,bf_max_job_test=1000
SelectType              = select/cons_tres
SelectTypeParameters    = CR_CORE_MEMORY
SLURM_VERSION           = 24.05.4
TaskPlugin              = task/affinity,task/cgroup
TaskPluginParam         = (null type)

Slurmctld(primary) at head1 is UP
Slurmctld(backup) at head2 is UP
"""
# A partition of two kinds of nodes, MIG slices, and one for CPUs, which is the default.
GROUPS = """\
cpu|120|128|515000|(null)|idle|ib,zen3
cpu|2|128|515000|(null)|down*|ib,zen3
gpu|20|96|2063000|gpu:h200:8(S:0-1),nvme:1|mixed|ib,hopper
gpu|4|64|1031000|gpu:a100:4(S:0,3)|idle~|ib,ampere
gpu|1|96|2063000|gpu:h200:8(S:0-1),nvme:1|drained*|ib,hopper
shared|3|64|515000|gpu:a100_1g.10gb:28|idle|ib
secret|9|192|2063000|gpu:b200:8|idle|ib
"""
PARTITIONS = (
    "PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES QoS=N/A DefaultTime=01:00:00 "
    "GraceTime=0 MaxNodes=UNLIMITED MaxTime=7-00:00:00 PreemptMode=OFF State=UP DefMemPerCPU=4000\n"
    "PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=NO QoS=part_gpu DefaultTime=NONE "
    "GraceTime=120 MaxNodes=8 MaxTime=12:00:00 PreemptMode=REQUEUE State=UP DefMemPerCPU=2000\n"
    "PartitionName=shared AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=NO MaxNodes=1 MaxTime=UNLIMITED "
    "PreemptMode=OFF State=UP DefMemPerNode=UNLIMITED\n"
    "PartitionName=secret AllowGroups=ALL AllowAccounts=kings,queens AllowQos=ALL Default=NO MaxNodes=UNLIMITED "
    "MaxTime=UNLIMITED PreemptMode=OFF State=UP\n"
)
HERE = Machine("3.11.9, python", (), (), "", ("eth0",), (), (), "bubblewrap", "")


def cluster(groups: str = GROUPS, partitions: str = PARTITIONS, config: str = CONFIG) -> Slurm:
    """The cluster of which these texts are."""
    nodes, fields = formats.groups(groups), formats.partitions(partitions)
    return Slurm(
        config=formats.config(config),
        partitions={
            name: Partition(name, fields[name], tuple(group for group in nodes if group.partition == name))
            for name in fields
        },
        machines=frozenset({"node1", "node2"}),
        user="me",
        accounts=frozenset({"lab"}),
        user_qos=frozenset({"normal"}),
        qos={"normal": None, "short": 1.0},
    )


def one_partition(groups: str, **fields: str) -> Slurm:
    names = {"PartitionName": groups.split("|")[0], "State": "UP", "MaxTime": "UNLIMITED", **fields}
    return cluster(groups, " ".join(f"{name}={value}" for name, value in names.items()))


def profile_of(text: str, folder: Path) -> Path:
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("(null)", {}),
        ("", {}),
        ("gpu:2", {"": 2}),
        ("gpu", {"": 1}),
        ("gpu:a100", {"a100": 1}),
        ("gpu:h200:8(S:0-1)", {"h200": 8}),
        ("gpu:h200:8(S:0,3),nvme:2", {"h200": 8}),
        ("craynetwork:4,gpu:nvidia_a100_80gb_pcie:4(S:0-1),shard:16", {"nvidia_a100_80gb_pcie": 4}),
        ("gpu:a100:2(S:0),gpu:v100:2(S:1),gpu:a100:1", {"a100": 3, "v100": 2}),
        ("gpu:tesla:4(IDX:0-1,3)", {"tesla": 4}),
        ("mps:400", {}),
    ],
)
def test_gres(gres: str, expected: dict[str, int]) -> None:
    assert formats.gpus(gres) == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("infinite", None),
        ("UNLIMITED", None),
        ("n/a", None),
        ("", None),
        ("2-00:00:00", 48.0),
        ("1-12", 36.0),
        ("1-12:30", 36.5),
        ("12:00:00", 12.0),
        ("30:00", 0.5),
        ("90", 1.5),
    ],
)
def test_times(limit: str, expected: float | None) -> None:
    assert formats.hours(limit) == expected


def test_states_of_nodes() -> None:
    states = (
        "idle mixed~ allocated idle% planned- mixed@ idle* down drained draining drained* fail unknown down$".split()
    )
    usable = [state for state in states if formats.groups(f"p|1|4|1000|(null)|{state}|(null)")[0].usable]
    assert usable == ["idle", "mixed~", "allocated", "idle%", "planned-", "mixed@"]


def test_configuration_and_lines_of_other_versions() -> None:
    config = formats.config(CONFIG)
    assert config["SLURM_VERSION"] == "24.05.4" and config["PrivateData"] == config["TaskPluginParam"] == ""
    assert config["SchedulerParameters"] == "bf_continue,bf_max_job_test=1000"  # the value has an equals sign too
    assert not any("Slurmctld" in key for key in config)
    assert formats.version("20.11.9") < formats.version("24.05.4-1") and formats.version("n/a") == (0, 0)
    assert (
        formats.groups("gpu|4+|96+|515000+|(null)|idle|(null)\n\ngpu|0|0|0|(null)|n/a|(null)\nnonsense\n")[0].cpus == 96
    )
    assert formats.reasons("drained*|n[1-3]|Kill task failed | again\nhalf\n") == [
        ("drained*", "n[1-3]", "Kill task failed | again")
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h200", ("H200", 141)),
        ("NVIDIA H100 80GB HBM3", ("H100", 80)),
        ("gh200", (None, None)),
        ("rtx_4090", ("RTX 4090", 24)),
        ("nvidia_a100-sxm4-40gb", ("A100-40GB", 40)),
        ("a100_1g.10gb", ("A100", 10)),
        ("l40s", ("L40S", 48)),
        ("a4000", (None, None)),
        ("tesla", (None, None)),
        ("", (None, None)),
    ],
)
def test_kinds_of_gpus(name: str, expected: tuple[str | None, float | None]) -> None:
    assert kind_of(name) == expected
    assert is_slice(name) == ("1g" in name)


def test_what_nvidia_smi_says() -> None:
    assert (
        machine.gpus("NVIDIA H200, 143771, 570.86.15\nNVIDIA H200, 143771, 570.86.15\n") == (("NVIDIA H200", 140),) * 2
    )
    assert machine.gpus("No devices were found\n") == machine.gpus("x, [N/A], 570\n") == ()


def test_adapters_of_infiniband(tmp_path: Path) -> None:
    for adapter, state in (("mlx5_0", "4: ACTIVE\n"), ("mlx5_1", "1: DOWN\n")):
        (tmp_path / adapter / "ports/1").mkdir(parents=True)
        (tmp_path / adapter / "ports/1/state").write_text(state)
    assert machine.infiniband(tmp_path) == ("mlx5_0",)
    assert machine.infiniband(tmp_path / "absent") == ()


def test_the_draft_takes_the_most_gpus_that_this_user_may_use(tmp_path: Path) -> None:
    text = draft(cluster(), HERE)
    assert text is not None
    profile = load_profile(str(profile_of(text, tmp_path)))
    assert (profile.partition, profile.gpu, profile.gpu_type, profile.gpu_memory_gb) == ("gpu", "H200", "h200", 141)
    train = profile.train
    assert (train.tasks_per_node, train.gpus_per_node, train.cpus_per_task, train.hours) == (8, 8, 12, 12)
    assert train.memory_gb == int(0.95 * 2063000 / 1024)
    assert profile.score.partition == profile.collect.partition == "cpu" and profile.score.hours == 8


def test_a_draft_with_rights_of_one_partition_stays_there() -> None:
    """Account and QOS hold for all stages, and the partition for CPUs may not take them."""
    restricted = cluster(partitions=PARTITIONS.replace("kings,queens", "kings,lab"))
    text = draft(restricted, HERE)
    assert text is not None and "partition: secret\naccount: lab\n" in text and "partition: cpu" not in text


FOREIGN = {
    "several kinds": cluster(),
    "GPUs without a type": one_partition("gpu|2|64|515000|gpu:4|idle|(null)"),
    "no GPUs": one_partition("batch|2|64|515000|(null)|idle|(null)"),
    "one core": one_partition("tiny|1|1|2000|(null)|idle|(null)"),
    "memory not told": one_partition("gpu|2|64|1|gpu:a100:4|idle|(null)"),
    "slices alone": one_partition("mig|2|64|515000|gpu:1g.10gb:28|idle|(null)"),
    "short": one_partition("debug|2|64|515000|gpu:h100:8|idle|(null)", MaxTime="20:00"),
    "a limit of no round number": one_partition("gpu|2|64|515000|gpu:h100:8|idle|(null)", MaxTime="01:40:00"),
    "for one account and QOS": one_partition(
        "gpu|2|64|515000|gpu:h100:8|idle|(null)", AllowAccounts="lab,other", AllowQos="short,normal"
    ),
    "fewer cores than GPUs": one_partition("odd.name|2|4|515000|gpu:h100:8|idle|(null)"),
    "all drained": one_partition("gpu|2|64|515000|gpu:h100:8|drained|(null)"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_every_draft_loads_and_fits_its_cluster(name: str, tmp_path: Path) -> None:
    text = draft(FOREIGN[name], HERE)
    assert text is not None and len(text.splitlines()) <= 15 and text.startswith("# ")
    profile = load_profile(str(profile_of(text, tmp_path)))
    found = [
        finding
        for stage in ("train", "evaluate", "score", "collect")
        for finding in fitting.of_stage(stage, getattr(profile, stage), profile, FOREIGN[name])
    ]
    allowed = {("nodes", Level.warning)} if name == "all drained" else set()
    allowed |= {("cpus_per_task", Level.problem)} if name == "fewer cores than GPUs" else set()
    assert {(finding.what, finding.level) for finding in found} == allowed
    assert ("account: lab" in text and "qos: normal" in text) == (name == "for one account and QOS")
    assert ("memory_gb" in text.split("train:")[1]) == (name != "memory not told")
    assert ("a guess" in text) == (name == "GPUs without a type")


def test_a_draft_knows_untyped_gpus_from_this_machine_and_needs_nodes() -> None:
    here = replace(HERE, gpus=(("NVIDIA A100-SXM4-40GB", 40.0),))
    text = draft(FOREIGN["GPUs without a type"], here)
    assert text is not None and "gpu: A100-40GB\ngpu_memory_gb: 40\n" in text
    assert draft(cluster(groups="", partitions=PARTITIONS), HERE) is None


@pytest.mark.parametrize(
    ("text", "what", "found", "to_do"),
    [
        ("partition: gpus", "partition", "there is no gpus", "set partition: gpu"),
        ("partition: gpu\ntrain: {hours: 24}", "hours", "24, partition gpu allows 12", "set train.hours: 12;"),
        ("qos: short\ntrain: {hours: 2}", "hours", "2, QOS short allows 1", "set train.hours: 1;"),
        ("partition: gpu\ntrain: {nodes: 9}", "nodes", "9, a job of gpu gets 8", "set train.nodes: 8"),
        (
            "partition: gpu\ngpu_type: h100\ntrain: {gpus_per_node: 8}",
            "gpu_type",
            "no GPU of gpu is h100",
            "a100, h200",
        ),
        ("partition: gpu\ngpu_type: a100\ntrain: {gpus_per_node: 8}", "gpus_per_node", "8, a node of gpu has 4", ": 4"),
        ("train: {gpus_per_node: 1}", "gpus_per_node", "1, a node of cpu has 0", "set another partition"),
        (
            "train: {tasks_per_node: 8, cpus_per_task: 17}",
            "cpus_per_task",
            "a node of cpu has 128",
            "cpus_per_task: 16",
        ),
        ("train: {memory_gb: 600}", "memory_gb", "600, a node of cpu has 503", "set train.memory_gb: 502"),
        ("constraint: hopper", "constraint", "no node of cpu has hopper", "set constraint to one of: ib, zen3"),
        ("partition: secret\naccount: lab", "account", "partition secret is not for lab", "kings, queens"),
        (
            "partition: gpu\ntrain: {nodes: 5, cpus_per_task: 64, gpus_per_node: 8, memory_gb: 2100}",
            "memory_gb",
            "",
            "",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_the_setting(
    text: str, what: str, found: str, to_do: str, tmp_path: Path
) -> None:
    profile = load_profile(str(profile_of(text, tmp_path)))
    wrong = [
        each for each in fitting.of_stage("train", profile.train, profile, cluster()) if each.level is Level.problem
    ]
    assert [finding.what for finding in wrong] == [what]
    assert found in wrong[0].found and to_do in wrong[0].to_do


def test_what_one_node_has_another_may_lack(tmp_path: Path) -> None:
    two_kinds = one_partition("p|2|64|515000|gpu:4|idle|(null)\np|3|128|100000|gpu:4|idle|(null)")
    text = "partition: p\ntrain: {{nodes: {nodes}, tasks_per_node: 2, cpus_per_task: {cpus}, memory_gb: {memory}}}"
    for nodes, cpus, memory, there in ((5, 32, 90, None), (1, 64, 400, 0), (3, 32, 400, 2), (4, 64, 90, 3)):
        path = profile_of(text.format(nodes=nodes, cpus=cpus, memory=memory), tmp_path)
        profile = load_profile(str(path))
        found = [finding.found for finding in fitting.of_stage("train", profile.train, profile, two_kinds)]
        assert found == ([] if there is None else [f"{nodes}, but {there} of p have all that train asks for"])


def test_an_array_too_small_for_a_run_is_told() -> None:
    small = cluster(config=CONFIG.replace("= 5001", "= 33"))
    assert list(fitting.of_array(ClusterProfile(), cluster())) == []
    (finding,) = fitting.of_array(ClusterProfile(checkpoints_per_element=3), small)
    assert "holds 99 checkpoints" in finding.found and "checkpoints_per_element: 300" in finding.to_do
    assert list(fitting.of_array(ClusterProfile(checkpoints_per_element=4), small)) == []


@pytest.mark.parametrize(
    ("text", "what", "found"),
    [
        ("train: {cpus_per_task: 8}", "memory_gb", "not given: then cpu gives 31 GB per node"),
        ("train: {nodes: 121, memory_gb: 9}", "nodes", "121, but 120 of 122 fitting ones of cpu take jobs now"),
        (
            "partition: gpu\ngpu_type: a100\ngpu_memory_gb: 141\n"
            "train: {gpus_per_node: 1, memory_gb: 9}\nevaluate: {gpus_per_node: 1}",
            "gpu_memory_gb",
            "141, GPUs of gpu seem to have 80",
        ),
        (
            "partition: gpu\ngpu: H100\ntrain: {gpus_per_node: 1, memory_gb: 9}",
            "gpu",
            "H100, GPUs of gpu seem to be A100, H200",
        ),
    ],
)
def test_what_hardly_fits_is_a_warning(text: str, what: str, found: str, tmp_path: Path) -> None:
    profile = load_profile(str(profile_of(text, tmp_path)))
    warned = fitting.of_stage("train", profile.train, profile, cluster())
    assert [(finding.level, finding.what) for finding in warned] == [(Level.warning, what)]
    assert found in next(iter(warned)).found


@pytest.mark.parametrize("name", profile_names())
def test_the_examples_fit_nodes_of_their_kind(name: str) -> None:
    """Eight GPUs, 128 cores and 1.1 TB: what such nodes have at least."""
    profile = load_profile(str(PROFILES / f"{name}.yaml"))
    partition = profile.partition or "gpu"
    there = one_partition(f"{partition}|2|128|1130000|gpu:8|idle|(null)", Default="YES")
    for stage in ("train", "evaluate", "score", "collect"):
        assert [
            finding.found
            for finding in fitting.of_stage(stage, getattr(profile, stage), profile, there)
            if finding.level is Level.problem
        ] == []


def levels(found: list[Finding]) -> dict[str, Level]:
    return {finding.what: finding.level for finding in found}


def test_a_cluster_and_its_faults_are_judged() -> None:
    well = list(diagnosis.of_slurm(cluster()))
    assert levels(well).pop("partition secret") is Level.warning
    assert {finding.what for finding in well if finding.level is not Level.ok} == {"partition secret"}
    told = {finding.what: finding.found for finding in well}
    assert "20 mixed, 1 drained (silent)" in told["partition gpu"] and "limit 12 h" in told["partition gpu"]
    assert "gpu REQUEUE after 120 s" in told["preemption"]

    lost = list(diagnosis.of_slurm(cluster(config=CONFIG + "JobRequeue = 0\n")))
    assert any(finding.what == "preemption" and "requeue: true" in finding.to_do for finding in lost)
    closed = PARTITIONS.replace("GraceTime=120", "GraceTime=120 ReqResv=YES")
    assert "partition: gpu\n" not in (draft(cluster(partitions=closed), HERE) or "partition: gpu\n")

    changes = {
        "SLURM_VERSION = 24.05.4": "SLURM_VERSION = 19.05.8",
        "MaxArraySize            = 5001": "MaxArraySize = 1",
        "PreemptMode             = REQUEUE": "PreemptMode = CANCEL",
        "proctrack/cgroup": "proctrack/pgid",
        "select/cons_tres": "select/linear",
    }
    config = CONFIG.replace("SLURM_VERSION           =", "SLURM_VERSION =")
    for old, new in changes.items():
        assert old in config
        config = config.replace(old, new)
    ill = levels(list(diagnosis.of_slurm(replace(cluster(config=config), accounts=None))))
    assert {what for what, level in ill.items() if level is Level.problem} == {"limits", "SelectType", "accounting"}
    assert {what for what, level in ill.items() if level is Level.warning} == {"Slurm", "preemption", "processes"}


def test_many_reasons_are_cut_short() -> None:
    found = list(diagnosis.of_slurm(replace(cluster(), reasons=tuple(("down", f"n{i}", "hot") for i in range(9)))))
    assert sum(finding.what.startswith("nodes") for finding in found) == 6
    assert any("4 more reasons" in finding.found for finding in found)


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_a_remedy(fault: Fault) -> None:
    (finding,) = diagnosis.of_slurm(
        Broken(fault, "error one\nSlurmctld(primary) at x is DOWN\n*****\n** RESTORE **\n***")
    )
    assert finding.level is Level.problem and finding.to_do
    assert finding.found == f"{fault.value}: Slurmctld(primary) at x is DOWN"


def test_the_machine_is_judged() -> None:
    places = (
        Place("current folder", Path("/home/me"), "nfs4", 100.0),
        Place("runs", Path("/home/me/runs"), "nfs4", 100.0),
        Place("HF_HOME", Path("/tmp/hf"), "tmpfs", 900.0),
        Place("environment", Path("/opt/env"), "strangefs", None),
    )
    here = replace(HERE, missing=("vllm",), places=places, isolation="rlimits", hub="timed out")
    on_cluster = levels(list(diagnosis.of_machine(here, cluster())))
    assert {what for what, level in on_cluster.items() if level is Level.problem} == {"Python"}
    assert {what for what, level in on_cluster.items() if level is Level.warning} == {
        "runs", "HF_HOME", "environment", "sandbox", "hub",
    }  # fmt: skip
    alone = levels(list(diagnosis.of_machine(replace(here, missing=None), None)))
    assert {what for what, level in alone.items() if level is Level.warning} == {"sandbox", "hub"}
    assert alone["Python"] is Level.problem


def test_this_machine_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.constants, "HF_HUB_OFFLINE", True)
    here = machine.inspect(tmp_path / "not/there/yet")
    assert here.missing == () and here.isolation in ("bubblewrap", "namespaces", "rlimits")
    assert here.hub == "HF_HUB_OFFLINE is set"
    runs = next(place for place in here.places if place.purpose == "runs")
    assert runs.free_gb is not None and runs.kind != "unknown"


def test_gpus_of_this_machine_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in that prints what the real one does."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\n[ $# = 0 ] && echo "| NVIDIA-SMI 570.86.15   Driver Version: 570.86.15  CUDA Version: 12.8 |"\n'
        '[ $# = 0 ] || echo "NVIDIA H100 80GB HBM3, 81559, 570.86.15"\n'
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine.constants, "HF_HUB_OFFLINE", True)
    here = machine.inspect(tmp_path)
    assert here.gpus == (("NVIDIA H100 80GB HBM3", 80),) and here.driver == "driver 570.86.15, CUDA 12.8"
    found = {finding.what: finding.found for finding in diagnosis.of_machine(here, None)}
    assert found["GPUs here"] == "1 x NVIDIA H100 80GB HBM3, 80 GB; driver 570.86.15, CUDA 12.8"


class Answering(BaseHTTPRequestHandler):
    """Says yes to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_hub_is_tried_and_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine.constants, "HF_HUB_OFFLINE", False)
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(machine.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert machine.hub() == ""
        server.shutdown()
    assert "refused" in machine.hub()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(machine.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(machine, "HUB_SECONDS", 0.5)
        assert machine.hub() in ("no answer within 0.5 s", "timed out")
