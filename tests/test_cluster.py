"""Running jobs: tasks that fail, batch scripts, rendezvous."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from reprokit.cluster import local, rendezvous, slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources
from reprokit.cluster.profiles import load_profile
from reprokit.cluster.scratch import link_runs
from reprokit.errors import NodeError, UserError


def fail_on_rank_one(how: str) -> None:
    """One of two tasks ends badly after a moment; the other would go on for minutes."""
    if rendezvous.current_task().rank == 0:
        time.sleep(300)
    time.sleep(1)
    if how == "killed":
        os.kill(os.getpid(), 9)
    if how == "message":
        raise UserError("row 7 is broken")
    raise RuntimeError("some bug")


def write_rank(folder: Path) -> None:
    """Every task says who it is."""
    task = rendezvous.current_task()
    rendezvous.export_torch_environment(task)
    words = [str(task.rank), str(task.world_size), os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]]
    (folder / f"rank_{task.rank}").write_text(" ".join(words))


def job(function: object, *arguments: object, tasks: int = 2) -> Job:
    resources = Resources(tasks_per_node=tasks, hours=0.1)
    return Job("run", "train", function, (arguments,), resources)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "expected"), [("message", "row 7 is broken"), ("bug", "some bug"), ("killed", "The whole log")]
)
def test_a_failed_task_ends_the_whole_local_job(tmp_path: Path, how: str, expected: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError) as failed:
        local.run(job(fail_on_rank_one, how), tmp_path, lambda: None)
    assert time.monotonic() - started < 30
    assert expected in str(failed.value) and "_log.out" in str(failed.value)
    assert ("some bug" in str(failed.value)) == (how == "bug")
    assert how != "message" or "line" not in str(failed.value)
    assert not [child for child in psutil.Process().children(recursive=True) if "submitit" in " ".join(child.cmdline())]


def test_an_interrupted_launch_leaves_no_task_behind(tmp_path: Path) -> None:
    def interrupt() -> None:
        if len(psutil.Process().children(recursive=True)) >= 3:  # controller and both tasks
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.run(job(fail_on_rank_one, "bug"), tmp_path, interrupt)
    assert not [child for child in psutil.Process().children(recursive=True) if "submitit" in " ".join(child.cmdline())]


def test_local_tasks_know_their_ranks_and_meet_at_one_place(tmp_path: Path) -> None:
    local.run(job(write_rank, tmp_path, tasks=3), tmp_path / "logs", lambda: None)
    said = [(tmp_path / f"rank_{rank}").read_text().split() for rank in range(3)]
    assert [words[:2] for words in said] == [["0", "3"], ["1", "3"], ["2", "3"]]
    assert len({tuple(words[2:]) for words in said}) == 1 and said[0][2] == "127.0.0.1"


def test_slurm_tasks_on_two_nodes_meet_at_the_first(slurm: dict[str, str], tmp_path: Path) -> None:
    submitted = submit(slurm, Job("run", "train", write_rank, ((tmp_path,),), Resources(nodes=2)), tmp_path)
    wait(slurm, submitted)
    said = [(tmp_path / f"rank_{rank}").read_text().split() for rank in range(2)]
    assert [words[:2] for words in said] == [["0", "2"], ["1", "2"]]
    assert len({tuple(words[2:]) for words in said}) == 1


def test_a_dead_task_ends_the_whole_slurm_job(slurm: dict[str, str], tmp_path: Path) -> None:
    """srun's own default is to let the other tasks go on."""
    submitted = submit(slurm, job(fail_on_rank_one, "killed"), tmp_path)
    assert wait(slurm, submitted) < 60


def write_place(folder: Path) -> None:
    """The task says what the profile gave it."""
    task = rendezvous.current_task()
    names = ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "OF_PYTHON")
    (folder / "said").write_text(" ".join([str(task.cores), *(os.environ.get(name, "-") for name in names)]))


def test_a_slurm_job_gets_what_the_profile_says(slurm: dict[str, str], tmp_path: Path) -> None:
    resources = Resources(gpus_per_node=2, cpus_per_task=3)
    asked = Job("run", "train", write_place, ((tmp_path,),), resources)
    profile = ClusterProfile(
        python=f"env OF_PYTHON=own {sys.executable}", sbatch={"comment": "it's us", "hold": "true"}
    )
    job_id = submit(slurm, asked, tmp_path, profile)
    shown = slurm_says(slurm, "scontrol", "show", "job", job_id)
    assert "Comment=it's us" in shown and "JobHeldUser" in shown
    slurm_says(slurm, "scontrol", "release", job_id)
    wait(slurm, job_id)
    assert (tmp_path / "said").read_text() == "3 1 0,1 own"


def test_an_array_starts_the_python_of_the_profile_too(slurm: dict[str, str], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    asked = Job("run", "train", write_place, tuple((folder,) for folder in folders), Resources())
    profile = ClusterProfile(python=f"env OF_PYTHON=own {sys.executable}", offline=False)
    wait(slurm, submit(slurm, asked, tmp_path, profile))
    assert [(folder / "said").read_text() for folder in folders] == ["1 - - own"] * 2


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core cannot be taken away")
def test_a_task_with_fewer_cores_than_asked_for_says_so(slurm: dict[str, str], tmp_path: Path) -> None:
    """As where srun gives one core: the dev cluster itself binds nothing."""
    core = min(os.sched_getaffinity(0))
    asked = Job("run", "train", write_place, ((tmp_path,),), Resources(cpus_per_task=4))
    profile = ClusterProfile(python=f"taskset -c {core} {sys.executable}")
    wait(slurm, submit(slurm, asked, tmp_path, profile))
    log = "".join(path.read_text() for path in (tmp_path / "logs").rglob("*.out"))
    assert f"cpus_per_task: 4, but on node n1 this task may use 1 of {os.cpu_count()} cores" in log
    assert not (tmp_path / "said").exists()


def test_cores_are_counted_in_slurm_jobs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    rendezvous.check_cores()  # someone works in an allocation of another size
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    with pytest.raises(UserError, match="SLURM_CPU_BIND: none"):
        rendezvous.check_cores()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    rendezvous.check_cores()  # pretended nodes of one core


def test_the_batch_script_names_the_type_of_gpu_and_stays_off_the_hub(tmp_path: Path) -> None:
    asked = Job("run", "train", write_rank, ((tmp_path,),), Resources(gpus_per_node=8))
    text = slurm_text(asked, ClusterProfile(gpu_type="h200", environment={"HF_HUB_OFFLINE": "0"}), tmp_path, None)
    assert "#SBATCH --gpus-per-node=h200:8" in text and "export HF_HUB_OFFLINE=0" in text
    text = slurm_text(asked, ClusterProfile(), tmp_path, None)
    assert "#SBATCH --gpus-per-node=8" in text and "export HF_HUB_OFFLINE=1" in text
    assert "HF_HUB_OFFLINE" not in slurm_text(asked, ClusterProfile(offline=False), tmp_path, None)
    without = Job("run", "collect", write_rank, ((tmp_path,),), Resources())
    assert "gpus" not in slurm_text(without, ClusterProfile(gpu_type="h200"), tmp_path, None)


def test_runs_lie_where_the_profile_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "mine.yaml").write_text("runs: $SCRATCH/me/runs")
    profile = load_profile(str(tmp_path / "mine.yaml"))
    for _ in range(2):
        link_runs(tmp_path, profile)
    assert (tmp_path / "runs").resolve() == tmp_path / "scratch/me/runs"
    with pytest.raises(UserError, match="is a link to .*/scratch/me/runs"):
        link_runs(tmp_path, ClusterProfile(runs=str(tmp_path / "elsewhere")))
    (tmp_path / "other/runs/old").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder of its own"):
        link_runs(tmp_path / "other", profile)
    assert (tmp_path / "other/runs/old").is_dir()


slurm_text = slurm.sbatch_text


def slurm_says(environment: dict[str, str], *command: str) -> str:
    shown = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return shown.stdout


def submit(environment: dict[str, str], asked: Job, folder: Path, profile: ClusterProfile | None = None) -> str:
    remembered: list[dict[str, str]] = []
    profile = replace(profile or ClusterProfile(partition="main"), environment=environment)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        ids = slurm_submit([asked], profile, folder / "logs", lambda ids: remembered.append(dict(ids)))
    assert remembered == [ids]
    return ids["train"]


slurm_submit = slurm.submit  # the fixture of the same name hides the module inside tests


def wait(environment: dict[str, str], job_id: str) -> float:
    """Seconds until the job is out of the queue."""
    started = time.monotonic()
    command = ["squeue", "-h", "-j", job_id, "-o", "%T"]
    while subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True).stdout.strip():
        assert time.monotonic() - started < 120
        time.sleep(0.5)
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo NodeName=n1 NodeAddr=127.0.0.7 CPUTot=4", "127.0.0.7"),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", NodeError),  # may be up again at the next start
        (None, UserError),
    ],
)
def test_a_node_whose_name_does_not_resolve_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, expected: str | type[UserError]
) -> None:
    if script is not None:
        (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "scontrol").chmod(0o755)

    def resolve(host: str) -> str:
        if host == "n1":
            raise OSError("no such name")
        return host

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rendezvous.socket, "gethostbyname", resolve)
    if isinstance(expected, str):
        assert rendezvous.address("n1") == expected
        return
    with pytest.raises(UserError, match="n1, does not resolve here") as caught:
        rendezvous.address("n1")
    assert type(caught.value) is expected


def test_ports_of_jobs_differ_and_stay_below_the_ephemeral_range() -> None:
    ports = {rendezvous.port(str(job_id)) for job_id in range(1000)}
    assert len(ports) > 900 and min(ports) >= 20000 and max(ports) < 32768


def test_every_start_of_a_job_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A requeued job keeps its id, and ids of local jobs are process numbers, which come again."""

    def name(launched: str) -> str:
        paths = SimpleNamespace(folder=f"runs/x/logs/{launched}/evaluate")
        return rendezvous._start(SimpleNamespace(job_id="7_2", paths=paths))

    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    first = name("20260101-000000")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert len({first, name("20260101-000000"), name("20260102-000000")}) == 3
    assert "/" not in first
