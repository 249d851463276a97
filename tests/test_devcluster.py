"""The development cluster is a real Slurm: it runs jobs on several nodes, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm_cluster import DEVCLUSTER, devcluster, running_cluster, started

STUBBORN_JOB = """#!/bin/bash
trap '' TERM
(setsid sleep 4321 &)
srun bash -c "trap '' TERM; touch $1/task.\\$SLURM_PROCID; sleep 4321; sleep 4321"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


def run(variables: dict[str, str], *command: str | Path) -> str:
    """Output of a command that must succeed."""
    result = subprocess.run(
        [*map(str, command)], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within 30 s"
        time.sleep(0.1)


def processes_naming(folder: Path) -> list[str]:
    """Command lines of the processes, other than this one, that have the folder in command, environment or place."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            place = os.readlink(entry / "cwd").encode()
            if os.fsencode(folder) in command + (entry / "environ").read_bytes() + place:
                found.append(command.decode(errors="replace"))
        except OSError:
            continue
    return found


def recorded(folder: Path) -> dict[str, int]:
    return {entry["name"]: entry["pid"] for entry in json.loads((folder / "processes.json").read_text())}


def start_stubborn_job(folder: Path, variables: dict[str, str], marks: Path) -> None:
    """A job on two nodes that ignores SIGTERM and has a process that escaped from Slurm's sight."""
    (marks / "job.sh").write_text(STUBBORN_JOB)
    run(variables, "sbatch", "-N2", f"--output={marks}/out", marks / "job.sh", marks)
    wait_for("task on both nodes", lambda: len(list(marks.glob("task.*"))) == 2)
    assert len(processes_naming(folder)) >= 8  # 5 daemons, the batch script, 2 tasks


def test_batch_job_runs_srun_on_two_nodes(cluster: dict[str, str], tmp_path: Path) -> None:
    step = "srun --ntasks-per-node=1 bash -c 'echo $SLURM_PROCID of $SLURM_NTASKS on $SLURMD_NODENAME'"
    run(cluster, "sbatch", "--wait", "-N2", f"--output={tmp_path}/out", f"--wrap={step}")
    assert sorted((tmp_path / "out").read_text().splitlines()) == ["0 of 2 on n1", "1 of 2 on n2"]


def test_array_job_runs_every_element(cluster: dict[str, str], tmp_path: Path) -> None:
    run(cluster, "sbatch", "--wait", "--array=3-6", f"--output={tmp_path}/%a", "--wrap=echo $SLURM_ARRAY_TASK_ID")
    assert {path.name: path.read_text().strip() for path in tmp_path.iterdir()} == {n: n for n in "3456"}


def test_a_failed_job_is_seen(cluster: dict[str, str]) -> None:
    with pytest.raises(AssertionError):
        run(cluster, "sbatch", "--wait", "--output=/dev/null", "--wrap=exit 3")


def test_gpus_are_shared_out(cluster: dict[str, str]) -> None:
    show = ("bash", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES")
    one = run(cluster, "srun", "-N2", "--ntasks-per-node=1", "--gpus-per-node=1", *show)
    assert sorted(one.split("\n")[:2]) == ["n1 0", "n2 0"]
    assert run(cluster, "srun", "-N1", "--gpus-per-node=2", *show).split()[1] == "0,1"
    with pytest.raises(AssertionError, match="Requested node configuration is not available"):
        run(cluster, "srun", "-N1", "--gpus-per-node=3", *show)


def test_a_second_up_changes_nothing(cluster: dict[str, str]) -> None:
    folder = Path(cluster["SLURM_CONF"]).parent
    before = recorded(folder)
    again = devcluster("up", "--folder", folder)
    assert again.returncode == 0 and "is up already" in again.stdout
    assert recorded(folder) == before
    other = devcluster("up", "--accounting", "--folder", folder)
    assert other.returncode == 2 and "`down` first" in other.stderr


def test_env_and_status_describe_the_cluster(cluster: dict[str, str]) -> None:
    folder = Path(cluster["SLURM_CONF"]).parent
    assert folder.stat().st_mode & 0o077 == 0  # whoever can read the munge key or its socket can run jobs
    assert devcluster("env", "--folder", folder).stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
    status = devcluster("status", "--folder", folder)
    assert status.returncode == 0
    assert [line.split() for line in status.stdout.splitlines()[-3:]] == [
        ["n1", "idle"],
        ["n2", "idle"],
        ["n3", "idle"],
    ]


def test_down_leaves_no_process_and_no_state(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    marks = tmp_path / "marks"
    marks.mkdir()
    with running_cluster(folder) as variables:
        start_stubborn_job(folder, variables, marks)
    assert processes_naming(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["devcluster.lock", "logs"]
    assert "n1.log" in {path.name for path in (folder / "logs").iterdir()}
    assert devcluster("env", "--folder", folder).returncode == 1
    assert devcluster("status", "--folder", folder).returncode == 1


def test_up_recovers_after_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    marks = tmp_path / "marks"
    marks.mkdir()
    with running_cluster(folder) as variables:
        start_stubborn_job(folder, variables, marks)
        before = recorded(folder)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        status = devcluster("status", "--folder", folder)
        assert status.returncode == 1 and "broken" in status.stdout
        started(devcluster("up", "--folder", folder))
        assert not set(before.values()) & set(recorded(folder).values())
        assert run(variables, "squeue", "--noheader") == ""
        assert not [command for command in processes_naming(folder) if "4321" in command]
        assert run(variables, "srun", "-N3", "echo", "well") == "well\n" * 3
    assert processes_naming(folder) == []


def test_down_spares_a_process_that_took_over_a_recorded_id(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with running_cluster(folder):
        pass
    with subprocess.Popen(["sleep", "60"]) as bystander:
        record = [{"name": "slurmctld", "pid": bystander.pid, "started": "another boot 1"}]
        (folder / "processes.json").write_text(json.dumps(record))
        assert devcluster("down", "--folder", folder).returncode == 0
        assert bystander.poll() is None
        bystander.kill()
    assert not (folder / "processes.json").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "thesis").write_text("precious")
    for command in ("up", "down"):
        refused = devcluster(command, "--folder", tmp_path)
        assert refused.returncode == 2 and "something else" in refused.stderr
    assert (tmp_path / "state" / "thesis").read_text() == "precious"


def test_a_folder_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    refused = devcluster("up", "--folder", tmp_path / ("x" * 90))
    assert refused.returncode == 2 and "--folder" in refused.stderr


def test_missing_packages_are_named_with_the_remedy() -> None:
    look = "from daemons import check_packages; check_packages({'PATH': '/nowhere'}, accounting=True)"
    result = subprocess.run([sys.executable, "-c", look], cwd=DEVCLUSTER.parent, capture_output=True, text=True)
    install = result.stderr.strip().splitlines()[-1]
    assert "apt-get install" in install
    assert set((DEVCLUSTER.parent / "packages.txt").read_text().split()) <= set(install.split())


def test_accounting_knows_a_finished_job(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c", accounting=True) as variables:
        ask = ("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobName,State,ExitCode")
        with pytest.raises(AssertionError):
            run(variables, "sbatch", "--wait", "--job-name=lost", "--output=/dev/null", "--wrap=exit 3")
        wait_for("line of sacct", lambda: run(variables, *ask) == "lost|FAILED|3:0\n")
    assert processes_naming(tmp_path / "c") == []


def test_an_ordinary_user_runs_it_with_accounting() -> None:
    as_root = os.geteuid() == 0
    user = pwd.getpwnam("nobody") if as_root else pwd.getpwuid(os.geteuid())
    home = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # pytest's own folders are closed to other users
    try:
        program = shutil.copytree(DEVCLUSTER.parent, home / "program", ignore=shutil.ignore_patterns("__pycache__"))
        os.chown(home, user.pw_uid, user.pw_gid)

        def as_user(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, cwd=home, capture_output=True, text=True, timeout=120,
                env={"HOME": str(home), "PATH": "/usr/bin:/bin", "SLURM_CONF": str(folder / "slurm.conf")},
                user=user.pw_uid if as_root else None,
                group=user.pw_gid if as_root else None,
                extra_groups=[] if as_root else None,
            )  # fmt: skip

        folder = home / ".local/state/reprokit-devcluster"
        started(as_user("/usr/bin/python3", str(program / "devcluster.py"), "up", "--accounting"))
        try:
            assert as_user("srun", "-N2", "--gpus-per-node=1", "id", "-un").stdout == f"{user.pw_name}\n" * 2
            wait_for("line of sacct", lambda: "COMPLETED" in as_user("sacct", "--noheader", "--allocations").stdout)
        finally:
            stopped = as_user("/usr/bin/python3", str(program / "devcluster.py"), "down")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        assert processes_naming(folder) == []
    finally:
        shutil.rmtree(home)


def test_jobs_are_preempted_and_a_new_controller_finds_them(tmp_path: Path) -> None:
    """A job of main is queued again, one of the partition cancelled is not."""
    with running_cluster(tmp_path / "c") as variables:
        folder = Path(variables["SLURM_CONF"]).parent

        def submitted(*options: str) -> str:
            words = ("sbatch", "--parsable", "-N1", "--exclusive", "--requeue", "--output=/dev/null", *options)
            return run(variables, *words).strip()

        def state(job_id: str) -> str:
            return run(variables, "squeue", "--noheader", "--states=all", "--format=%T %r", f"--jobs={job_id}").strip()

        again, gone = submitted("-wn1", "--wrap=sleep 99"), submitted("-wn2", "-pcancelled", "--wrap=sleep 99")
        wait_for("running jobs", lambda: {state(again), state(gone)} == {"RUNNING None"})
        restarted = devcluster("restart", "--folder", folder)
        assert restarted.returncode == 0, restarted.stderr
        assert {state(again), state(gone)} == {"RUNNING None"}
        assert devcluster("status", "--folder", folder).returncode == 0
        for partition in ("main", "cancelled"):  # the time in which jobs may leave by themselves is of no use here
            run(variables, "scontrol", "update", f"partitionname={partition}", "gracetime=0")
        run(variables, "sbatch", "--wait", "-N3", "-purgent", "--exclusive", "--output=/dev/null", "--wrap=true")
        assert state(again) in ("PENDING BeginTime", "PENDING Resources", "RUNNING None")
        assert "Restarts=1" in run(variables, "scontrol", "show", "job", again)
        assert state(gone).split()[0] == "PREEMPTED"
    assert devcluster("restart", "--folder", tmp_path / "c").returncode == 1
