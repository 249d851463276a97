"""`python -m reprokit.doctor` on real clusters, whole and broken, and where there is none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from reprokit.cluster import diagnosis, inspection
from reprokit.cluster.asking import ask
from reprokit.cluster.findings import Level
from reprokit.cluster.inspection import Broken, Fault, Slurm
from reprokit.cluster.profiles import load_profile
from tests.slurm_cluster import PARTITIONS, has_accounting, running_cluster


def doctor(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Type `python -m reprokit.doctor` in `folder`, on a machine without a way to the hub."""
    variables = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"}
    return subprocess.run(
        [sys.executable, "-m", "reprokit.doctor", *words],
        cwd=folder,
        env={**variables, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def said(done: subprocess.CompletedProcess[str], level: str) -> str:
    """The lines of a level, cells that were wrapped put together by column, one finding per line."""
    findings: list[list[str]] = []
    starts: list[int] = []
    for line in done.stdout.splitlines():
        if not starts:
            starts = [0, *(line.index(name) for name in ("what", "found", "to do"))]
            continue
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        if cells[0]:
            findings.append(cells)
        elif findings:
            findings[-1] = [f"{old} {new}".strip() for old, new in zip(findings[-1], cells, strict=True)]
    return "\n".join(" | ".join(finding[1:]) for finding in findings if finding[0] == level)


@pytest.fixture
def accounted(slurm: dict[str, str]) -> dict[str, str]:
    if not has_accounting(slurm):
        pytest.skip("this Slurm has no accounting")
    return slurm


def test_a_whole_cluster_gets_a_draft_that_fits_it(accounted: dict[str, str], tmp_path: Path) -> None:
    done = doctor(tmp_path, accounted, "write=mine.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    well = said(done, "ok")
    assert "partition main (default) | 3 nodes of 4 CPUs, 20 GB, 2 GPUs (3 idle); limit none" in well
    assert "accounting | on; accounts" in well and "QOS normal" in well
    assert "arrays of up to 1001 elements" in well and "select/cons_tres" in well
    profile = load_profile(str(tmp_path / "mine.yaml"))
    assert (profile.partition, profile.train.gpus_per_node, profile.train.cpus_per_task) == ("main", 2, 2)
    assert len((tmp_path / "mine.yaml").read_text().splitlines()) <= 15
    checked = doctor(tmp_path, accounted, "cluster=mine.yaml")
    assert checked.returncode == 0 and said(checked, "ok").count("Slurm would take the job") == 4
    again = doctor(tmp_path, accounted, "write=mine.yaml")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_a_profile_that_does_not_fit_is_told_setting_by_setting(accounted: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "partition: main\naccount: nobodys\nqos: fast\nsbatch: {frobnicate: true}\ngpu_memory_gb: 80\n"
        "train: {nodes: 4, tasks_per_node: 2, gpus_per_node: 2}\n"
        "evaluate: {tasks_per_node: 8, gpus_per_node: 8, cpus_per_task: 3, memory_gb: 100}\n"
        "score: {partition: man}\n"
    )
    done = doctor(tmp_path, accounted, "cluster=mine.yaml")
    assert done.returncode == 1
    wrong = said(done, "problem")
    for expected in (
        "account | nobodys is not for user",
        "qos | there is no fast | set qos to one of: normal",
        "sbatch.frobnicate | no option of the sbatch here",
        "train: nodes | 4, but 3 of main have all that train asks for",
        "evaluate: gpus_per_node | 8, a node of main has 2 | set evaluate.gpus_per_node and tasks_per_node: 2",
        "evaluate: cpus_per_task | 3 for each of 8 tasks, a node of main has 4",
        "evaluate: memory_gb | 100, a node of main has 20 | set evaluate.memory_gb: 19",
        "score: partition | there is no man | set partition: main",
        "collect | Slurm would refuse the job: sbatch: unrecognized option '--frobnicate'",
    ):
        assert expected in wrong
    assert "draft" not in done.stdout.lower()


def administer(environment: dict[str, str], *words: str) -> None:
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_drained_nodes_and_partitions_that_are_down_are_told(slurm: dict[str, str], tmp_path: Path) -> None:
    update = ("scontrol", "update")
    administer(slurm, *update, "nodename=n2", "state=drain", "reason=fan | broken, row 3")
    for partition in PARTITIONS:
        administer(slurm, *update, f"partitionname={partition}", "state=down")
    try:
        done = doctor(tmp_path, slurm)
    finally:
        administer(slurm, *update, "nodename=n2", "state=resume")
        for partition in PARTITIONS:
            administer(slurm, *update, f"partitionname={partition}", "state=up")
    assert done.returncode == 1
    assert "nodes n2 | drained: fan | broken, row 3" in said(done, "warning")
    assert "partition main (default) | down: 3 nodes" in said(done, "warning")
    assert "partitions | none takes jobs now" in said(done, "problem")


def test_time_limits_of_partition_and_qos_are_kept(accounted: dict[str, str], tmp_path: Path) -> None:
    """Slurm itself takes a job that is over the limit of its partition, which then waits for ever."""
    user = psutil.Process().username()
    add, delete = ("sacctmgr", "--immediate", "add"), ("sacctmgr", "--immediate", "delete")
    (tmp_path / "mine.yaml").write_text("account: lab\nqos: short\ntrain: {hours: 3}\nevaluate: {hours: 1}\n")
    administer(accounted, *add, "qos", "short", "MaxWall=00:45:00")
    administer(accounted, *add, "account", "lab")
    administer(accounted, *add, "user", user, "account=lab", "qos=normal,short")
    administer(accounted, "scontrol", "update", "partitionname=main", "maxtime=02:00:00")
    try:
        done = doctor(tmp_path, accounted, "cluster=mine.yaml")
    finally:
        administer(accounted, "scontrol", "update", "partitionname=main", "maxtime=infinite")
        administer(accounted, *delete, "user", user, "account=lab")
        administer(accounted, *delete, "account", "lab")
        administer(accounted, *delete, "qos", "short")
    assert done.returncode == 1
    wrong = said(done, "problem")
    assert "train: hours | 3, partition main allows 2 | set train.hours: 2" in wrong
    assert "train: hours | 3, QOS short allows 0.75" in wrong and "evaluate: hours | 1, QOS short allows 0.75" in wrong
    assert "account |" not in wrong and "qos |" not in wrong
    assert "lab" in next(line for line in said(done, "ok").splitlines() if line.startswith("accounting"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster without accounting, to be broken."""
    with running_cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


def test_a_cluster_without_accounting_is_fine(plain: dict[str, str], tmp_path: Path) -> None:
    done = doctor(tmp_path, plain)
    assert done.returncode == 0 and "accounting | off" in said(done, "ok")
    assert "gpu_memory_gb: 80  # a guess" in done.stdout  # printed, since no file was named


@pytest.mark.parametrize(
    ("daemon", "expected"),
    [("munged", "authentication fails: "), ("slurmctld", "its controller does not answer: Slurmctld(primary)")],
)
def test_a_broken_cluster_is_told_at_once(plain: dict[str, str], tmp_path: Path, daemon: str, expected: str) -> None:
    """The last tests of this cluster: it is left without these daemons."""
    record = json.loads((Path(plain["SLURM_CONF"]).parent / "processes.json").read_text())
    process = next(entry["pid"] for entry in record if entry["name"] == daemon)
    os.kill(process, signal.SIGTERM)
    begin = time.monotonic()
    while os.path.exists(f"/proc/{process}/exe") and time.monotonic() < begin + 20:
        time.sleep(0.1)
    done = doctor(tmp_path, plain)
    assert done.returncode == 1 and f"Slurm | {expected}" in said(done, "problem")
    assert "administrators" in said(done, "problem") and "draft" not in done.stdout.lower()
    assert time.monotonic() - begin < 60


def test_a_machine_without_slurm(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("df", "true"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or program)
    done = doctor(tmp_path, {"PATH": str(tmp_path / "bin")})
    assert done.returncode == 1
    assert "Slurm | its commands are not here: sbatch, srun, scontrol, sinfo" in said(done, "problem")
    assert "cluster=local" in said(done, "problem")
    local = doctor(tmp_path, {"PATH": str(tmp_path / "bin")}, "cluster=local")
    assert local.returncode == 0 and "runs on this machine, without Slurm" in said(local, "ok")


def test_a_configuration_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    begin = time.monotonic()
    done = doctor(tmp_path, {"SLURM_CONF": str(tmp_path / "slurm.conf")})
    assert done.returncode == 1 and time.monotonic() - begin < 30
    if shutil.which("sinfo"):
        assert "its configuration file is missing" in said(done, "problem")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cluster"], "not of the form key=value"),
        (["claster=dev"], "unknown: claster"),
        (["cluster=h20"], "valid: a100"),
        (["write=mine.txt"], "ends in .yaml"),
        (["write=nowhere/mine.yaml"], "there is no folder nowhere"),
    ],
)
def test_bad_words_are_refused(tmp_path: Path, words: list[str], expected: str) -> None:
    done = doctor(tmp_path, {}, *words)
    assert done.returncode == 2 and expected in done.stderr and done.stdout == ""


def test_a_draft_that_cannot_be_is_not_passed_over(tmp_path: Path) -> None:
    done = doctor(tmp_path, {}, "cluster=local", "write=mine.yaml")
    assert done.returncode == 1 and "was not written" in said(done, "problem") and not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize("line", ["environment: {A B: x}", 'environment: {A: "\\0"}', 'partition: "a\\nb"'])
def test_what_no_job_can_be_given_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"scheduler: local\n{line}\n")
    done = doctor(tmp_path, {}, "cluster=mine.yaml")
    assert done.returncode == 2 and "1 problem" in done.stderr and "Traceback" not in done.stderr


def test_no_command_is_waited_for_for_ever() -> None:
    begin = time.monotonic()
    answer = ask("sh", "-c", "sleep 60 & echo begun; wait", seconds=0.5)
    assert answer.code is None and "no answer within" in answer.complaint
    assert time.monotonic() - begin < 10
    assert "cannot be run" in ask("no-such-program-here").complaint


def test_slurm_that_hangs_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "srun", "scontrol", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\nsleep 60\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.setitem(ask.__kwdefaults__, "seconds", 0.5)
    broken = inspection.inspect()
    assert isinstance(broken, Broken) and broken.fault is Fault.controller and "no answer" in broken.said


def test_what_the_database_does_not_tell_is_said_to_be_unknown(
    accounted: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sacctmgr").write_text("#!/bin/sh\necho 'Connection refused' >&2\nexit 1\n")
    (tmp_path / "sacctmgr").chmod(0o700)
    monkeypatch.setenv("SLURM_CONF", accounted["SLURM_CONF"])
    assert isinstance(whole := inspection.inspect(), Slurm) and whole.accounts and not whole.complaints
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = inspection.inspect()
    assert isinstance(found, Slurm) and found.accounts is None and found.qos is None
    assert found.complaints and "Connection refused" in found.complaints[0]
    told = {finding.what: finding for finding in diagnosis.of_slurm(found)}
    assert told["accounting"].found == "on, but its database does not answer"
    assert all(finding.level is not Level.problem for finding in told.values())
