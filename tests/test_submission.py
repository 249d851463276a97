"""Submitting to a real Slurm: all or nothing, never twice, few calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from reprokit.campaign.run_folder import write_recipe
from reprokit.campaign.submission import HELD, active_jobs, locked, new_logs, read_jobs
from reprokit.cluster import slurm as slurm_jobs
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.cluster.profiles import load_profile, save_profile
from reprokit.cluster.queue import QueuedJob, queued
from reprokit.errors import UserError
from reprokit.recipe import load
from reprokit.records.files import write_json
from reprokit.records.run_directory import Manifest, RunDirectory, SubmittedJobs
from reprokit.records.starts import read_starts
from tests.conftest import launch
from tests.fake_commands import commands, put_command, put_queue, queue_line
from tests.test_launch import prepared

__all__ = ["commands"]
LATER = {"begin": "now+1hour"}  # submitted, and never begun: they wait for their time


def command(environment: dict[str, str], *words: str) -> str:
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def cluster(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The SLURM_CONF of a cluster without jobs, before and after."""
    configuration = slurm["SLURM_CONF"]
    monkeypatch.setenv("SLURM_CONF", configuration)
    yield configuration
    subprocess.run(["scancel", "--me"], check=True)
    deadline = time.monotonic() + 60
    while queued(configuration):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def profile_file(folder: Path, configuration: str, **further: object) -> str:
    """The word that names a cluster profile whose jobs never begin."""
    values = {"environment": {"SLURM_CONF": configuration}, "partition": "main", "sbatch": LATER, **further}
    (folder / "cluster.yaml").write_text(yaml.safe_dump(values))
    return f"cluster={folder}/cluster.yaml"


def wrapped(folder: Path, after: str) -> str:
    """A PATH whose sbatch does its work, and then what the shell line `after` says; calls are counted in `calls`."""
    (folder / "bin").mkdir(exist_ok=True)
    script = folder / "bin" / "sbatch"
    script.write_text(f'#!/bin/bash\necho . >> {folder}/calls\n{shutil.which("sbatch")} "$@" || exit\n{after}\ntrue\n')
    script.chmod(0o755)
    return f"{folder}/bin:{os.environ['PATH']}"


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


def test_a_thousand_cells_take_two_calls(cluster: str, tmp_path: Path) -> None:
    steps = list(range(1, 1001))
    recipe = tmp_path / "many.yaml"
    training = {"global_batch_size": 16, "epochs": 1, "checkpoint_steps": steps}
    recipe.write_text(
        yaml.safe_dump(
            {
                "include": ["mini"],
                "name": "mini",
                "data": {"rows": 16000},
                "training": training,
                "evaluation": {"steps": steps},
            }
        )
    )
    run = prepared(tmp_path)
    write_json(run.training_complete, {"steps": 1000})
    for step in steps:
        write_json(run.checkpoint(step) / "manifest.json", Manifest(step=step))
    words = [f"recipe={recipe}", profile_file(tmp_path, cluster), "stages=evaluate"]
    done = launch(tmp_path, *words, PATH=wrapped(tmp_path, ""))
    assert done.returncode == 0, done.stdout + done.stderr
    assert calls(tmp_path) == 2
    jobs = queued(cluster)
    assert sorted(len(job.elements or [1]) for job in jobs) == [1, 1000]


def nothing(number: int) -> None:
    """What a job does here."""


def test_an_array_that_is_too_large_is_split_and_waited_for_as_a_whole(cluster: str, tmp_path: Path) -> None:
    elements = tuple((number,) for number in range(1002))
    jobs = [
        Job("run", "evaluate", nothing, elements, Resources()),
        Job("run", "score", nothing, ((0,),), Resources(), after=("evaluate",)),
    ]
    profile = ClusterProfile(partition="main", sbatch=LATER, max_parallel=5)
    ids = slurm_jobs.submit(jobs, profile, tmp_path, lambda ids: None)
    assert list(ids) == ["evaluate", "evaluate.2", "score"]
    assert len({*tmp_path.glob("evaluate/*_submitted.pkl")}) == 1002
    shown = {name: command(dict(os.environ), "scontrol", "show", "job", "-o", ids[name]) for name in ids}
    assert "ArrayTaskId=0-500%3" in shown["evaluate"] and "ArrayTaskId=0-500%2" in shown["evaluate.2"]
    assert all(f"afterok:{ids[name]}_*" in shown["score"] for name in ("evaluate", "evaluate.2"))


def mini(folder: Path, configuration: str, **further: object) -> tuple[str, ...]:
    """Words that launch the evaluation of a base model that is prepared: four jobs, none of which begins."""
    prepared(folder)
    return ("recipe=mini", profile_file(folder, configuration, **further), "stages=evaluate,score,collect")


def names(jobs: list[QueuedJob]) -> list[str]:
    return sorted(job.name for job in jobs)


ALL = ["backfill.mini", "collect.mini", "evaluate.mini", "score.mini"]


def test_two_launches_at_the_same_moment_submit_once(cluster: str, tmp_path: Path) -> None:
    words = mini(tmp_path, cluster)
    typed = [sys.executable, "-m", "reprokit.launch", *words]
    both = [
        subprocess.Popen(typed, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert sum("cancel: " in stdout for (stdout, _), _ in said) == 1, said
    loser = next((stdout, stderr, code) for (stdout, stderr), code in said if "cancel: " not in stdout)
    assert ("being launched by another process (process" in loser[1] and loser[2] == 2) or (
        "already at work" in loser[0] and loser[2] == 0
    ), said
    assert names(queued(cluster)) == ALL


def test_a_launch_while_another_is_at_it_says_who(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    with locked(run):
        done = launch(tmp_path, "recipe=mini", "cluster=local")
    assert done.returncode == 2
    assert f"(process {os.getpid()} on {os.uname().nodename} since 20" in done.stderr, done.stderr
    with locked(run):  # what the file says of the last holder keeps nobody out
        pass


@pytest.mark.parametrize("when", [1, 2, 4])
def test_a_launch_that_was_killed_while_it_submitted_leaves_nothing_twice(
    cluster: str, tmp_path: Path, when: int
) -> None:
    """Killed when the first, second or last job has just been submitted and nobody has written its id."""
    words = mini(tmp_path, cluster)
    killed = wrapped(tmp_path, f"[ $(wc -l < {tmp_path}/calls) -eq {when} ] && kill -9 $PPID")
    assert launch(tmp_path, *words, PATH=killed).returncode == -9
    left = queued(cluster)
    assert len(left) == when and {job.state for job in left} == {"PENDING"}
    assert {"JobHeldUser", "None"} & {job.reason for job in left}
    again = launch(tmp_path, *words)
    assert again.returncode == 0 and "cancel: " in again.stdout, again.stdout + again.stderr
    jobs = [job for job in queued(cluster) if job.state == "PENDING"]
    assert names(jobs) == ALL and "JobHeldUser" not in {job.reason for job in jobs}
    third = launch(tmp_path, *words)
    assert "already at work" in third.stdout and "evaluate " in third.stdout, third.stdout + third.stderr


def test_a_launch_that_was_killed_before_it_let_the_jobs_go_is_finished_by_the_next(
    cluster: str, tmp_path: Path
) -> None:
    words = mini(tmp_path, cluster)
    path = wrapped(tmp_path, "")
    script = tmp_path / "bin" / "scontrol"
    script.write_text(f'#!/bin/bash\n[ "$1" = release ] && kill -9 $PPID\nexec {shutil.which("scontrol")} "$@"\n')
    script.chmod(0o755)
    assert launch(tmp_path, *words, PATH=path).returncode == -9
    assert {job.reason for job in queued(cluster)} & set(HELD)
    run = RunDirectory(tmp_path / "runs/mini")
    write_json(run.training_complete, {"steps": 12})
    state = run.state(12) / "manifest.json"
    write_json(state, Manifest(step=12))
    again = launch(tmp_path, *words)
    assert "already at work" in again.stdout, again.stdout + again.stderr
    assert state.exists()  # a training that has just ended is removing it itself: two that remove it fail one another
    jobs = queued(cluster)
    assert names(jobs) == ALL and "JobHeldUser" not in {job.reason for job in jobs}


def test_a_launch_that_is_terminated_or_refused_leaves_nothing_submitted(cluster: str, tmp_path: Path) -> None:
    words = mini(tmp_path, cluster)
    terminated = wrapped(tmp_path, f"[ $(wc -l < {tmp_path}/calls) -eq 2 ] && kill -TERM $PPID && sleep 1")
    done = launch(tmp_path, *words, PATH=terminated)
    assert done.returncode == 130, done.stdout + done.stderr
    assert [job for job in queued(cluster) if job.state == "PENDING"] == []
    words = mini(tmp_path, cluster, score={"partition": "nowhere"})
    refused = launch(tmp_path, *words)
    assert refused.returncode == 2 and "Slurm refused job score" in refused.stderr, refused.stderr
    assert [job for job in queued(cluster) if job.state == "PENDING"] == []
    assert read_jobs(RunDirectory(tmp_path / "runs" / "mini")) is None


def test_jobs_are_told_to_leave_in_time_and_their_first_log_survives_a_requeue(cluster: str, tmp_path: Path) -> None:
    job = Job("run", "train", come_again, ((tmp_path,),), Resources(hours=0.1))
    profile = ClusterProfile(partition="main", environment={"HF_TOKEN": "hidden", "SEEN": "it's"})
    ids = slurm_jobs.submit([job], profile, tmp_path / "logs", lambda ids: None, {"MARK": "1"})
    deadline = time.monotonic() + 120
    while queued(cluster):
        assert time.monotonic() < deadline
        subprocess.run(["scontrol", "update", f"jobid={ids['train']}", "starttime=now"], capture_output=True)
        time.sleep(0.5)
    log = (tmp_path / "logs" / "train" / f"{ids['train']}_0_log.out").read_text()
    assert log.index("start 0") < log.index("start 1 it's 1")
    script = (tmp_path / "logs" / "train" / f"{ids['train']}_submission.sh").read_text()
    assert "#SBATCH --signal=USR2@36" in script and "#SBATCH --requeue" in script
    assert "hidden" not in script


def come_again(folder: Path) -> None:
    """The first start asks to be queued again."""
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    print(f"start {restart} {os.environ['SEEN']} {os.environ['MARK']}", flush=True)
    if restart == "0":
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        time.sleep(60)


def test_the_back_fill_submits_again_what_failed_to_start(cluster: str, tmp_path: Path) -> None:
    """The first job of all ends before it begins; nobody is there to launch again."""
    run = prepared(tmp_path)
    write_recipe(run, load("mini"))
    once = f"mkdir {tmp_path}/begun 2> /dev/null && exit 1"
    word = profile_file(tmp_path, cluster, sbatch={}, setup=[once], collect={"hours": 0.1})
    done = launch(tmp_path, "recipe=mini", word, "stages=collect")
    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 300
    while queued(cluster):
        assert time.monotonic() < deadline, command(dict(os.environ), "squeue")
        time.sleep(0.5)
    submitted = read_jobs(run)
    said = "".join(path.read_text() for path in run.logs.glob("*/backfill/*_log.out"))
    assert submitted is not None and (submitted.round, submitted.fruitless) == (2, 1), said
    assert len(list(run.logs.iterdir())) == 2 and "run mini is complete" in said, said
    assert (tmp_path / "results" / "mini.json").exists() and not run.stopped.exists()
    assert {start.outcome for start in read_starts(run)} == {"done"} and len(list(run.code.iterdir())) == 1


@pytest.mark.parametrize(
    ("elements", "largest", "parallel", "expected"),
    [
        (9, 1001, 64, [(9, 64, None)]),
        (1001, 1001, 64, [(1001, 64, None)]),
        (1002, 1001, 64, [(501, 32, None), (501, 32, None)]),
        (7, 3, 2, [(3, 1, None), (3, 1, None), (1, 1, "evaluate")]),
        (4, 2, 1, [(2, 1, None), (2, 1, "evaluate")]),
    ],
)
def test_arrays_together_keep_to_the_number_of_elements_at_a_time(
    elements: int, largest: int, parallel: int, expected: list[tuple[int, int, str | None]]
) -> None:
    job = Job("run", "evaluate", nothing, tuple((number,) for number in range(elements)), Resources())
    parts = slurm_jobs._parts(job, largest, parallel)
    assert [(len(part.job.elements), part.parallel, part.follows) for part in parts] == expected
    assert [element for part in parts for element in part.job.elements] == list(job.elements)


def test_a_job_hands_nothing_of_its_own_on_to_the_jobs_that_it_submits(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"SLURM_NTASKS": "2", "SUBMITIT_EXECUTOR": "slurm", "SRUN_CPUS_PER_TASK": "4", "CUDA_VISIBLE_DEVICES": ""}
    kept = {"SLURM_CONF": "/x", "SBATCH_ACCOUNT": "mine", "HF_TOKEN": "secret"}
    for name, value in {**own, **kept}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with slurm_jobs.outside_of_jobs():
        assert os.environ["SLURM_NTASKS"] == "2"  # someone's own choice, outside of a job
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with slurm_jobs.outside_of_jobs():
        assert not {*own, "SLURM_JOB_ID"} & set(os.environ)
        assert {name: os.environ[name] for name in kept} == kept
    assert os.environ["SLURM_JOB_ID"] == "7"


@pytest.mark.parametrize(
    ("code", "state", "restarts", "again"),
    [
        (137, "RUNNING", "0", True),
        (137, "COMPLETING", "0", False),
        (137, "RUNNING", "3", False),
        (1, "RUNNING", "0", False),
        (0, "RUNNING", "0", False),
    ],
)
def test_a_back_fill_that_is_killed_comes_back(
    tmp_path: Path, code: int, state: str, restarts: str, again: bool
) -> None:
    """Its batch script, with stand-ins for the commands of Slurm."""
    fakes = {"srun": f"exit {code}", "squeue": f"echo {state}", "scontrol": f"echo $* > {tmp_path}/asked"}
    for name, line in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    job = Job("run", "backfill", nothing, ((0,),), Resources(), comes_back=True)
    script = slurm_jobs.sbatch_text(job, ClusterProfile(), tmp_path, None)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": restarts}
    assert subprocess.run(["bash", "-c", script], env=own).returncode == code
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else None) == ("requeue 7\n" if again else None)


def test_what_slurm_refuses_takes_no_other_job_of_the_launch_with_it(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A back-fill that submits its successor: jobs that are back in the queue, and itself, are of the same folder."""
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    script = str(tmp_path / "first" / "x" / "submission.sh")
    put_queue(commands, [queue_line(job, "RUNNING", script=script) for job in ("5", "9", "10")])
    put_command(commands, "sbatch", "echo 'sbatch: error: Socket timed out' >&2; exit 1")
    put_command(commands, "srun", "")
    put_command(commands, "scancel", f"echo $* >> {commands}/cancelled")
    successor = Job("run", "backfill", nothing, ((0,),), Resources(), after=("train",))
    with pytest.raises(UserError, match="Socket timed out"):
        slurm_jobs.submit([successor], ClusterProfile(), tmp_path / "first", lambda ids: None, earlier={"train": "5"})
    assert (commands / "cancelled").read_text() == "10\n"


def test_held_and_forgotten_jobs_are_those_of_their_own_cluster(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launched on one cluster, now on another: the same ids are other jobs there."""
    run = RunDirectory(tmp_path / "run")
    (tmp_path / "old.conf").touch()
    monkeypatch.setenv("SLURM_CONF", "/the/new/one")
    script = str(run.logs / "second" / "train" / "7_submission.sh")
    put_queue(commands, [queue_line("7", "PENDING", "train.run", reason="JobHeldUser", script=script)])
    shows = (commands / "squeue").read_text()
    put_command(commands, "squeue", f'[ "$SLURM_CONF" = {tmp_path}/old.conf ] || exit 0\n{shows}')
    for name in ("scontrol", "scancel"):
        put_command(commands, name, f"echo {name} $SLURM_CONF $* >> {commands}/did")
    for launch_name in ("second", "first"):
        about = SubmittedJobs(cluster="old", slurm_conf=f"{tmp_path}/old.conf", ids={}, launch=launch_name)
        about.released = False
        write_json(run.jobs, about)
        left = active_jobs(run, ClusterProfile(scheduler=Scheduler.slurm))
        assert [(job.job_id, job.is_held) for job in left] == ([("7", False)] if launch_name == "second" else [])
    done = [f"scontrol {tmp_path}/old.conf release 7", f"scancel {tmp_path}/old.conf 7"]
    assert (commands / "did").read_text().splitlines() == done


def test_launches_in_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert len({new_logs(run) for _ in range(20)}) == 20


def test_a_profile_is_found_again_without_its_secrets(tmp_path: Path) -> None:
    profile = ClusterProfile(
        scheduler=Scheduler.slurm,
        environment={"A": "${X}", "B": "on", "C": "1.50", "D": "x: 'y' \"", "HF_TOKEN": "hidden"},
        setup=["echo ${HOME} $PATH"],
        sbatch={"exclusive": "true", "nice": "010"},
        score=Resources(hours=2.0, partition="cpu"),
    )
    save_profile(profile, tmp_path / "cluster.yaml")
    assert "hidden" not in (tmp_path / "cluster.yaml").read_text()
    del profile.environment["HF_TOKEN"]
    assert load_profile(str(tmp_path / "cluster.yaml")) == profile
