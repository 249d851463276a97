"""Jobs run the code as it was when they were submitted."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import analysis
import reprokit
from reprokit.cluster import snapshot
from reprokit.errors import UserError
from reprokit.records import provenance
from reprokit.records.run_directory import RunDirectory

PACKAGES = [Path(package.__file__ or "").parent for package in (reprokit, analysis)]
PATIENCE_SECONDS = 300
JOB = """\
import json
import time

from reprokit.cluster.snapshot import check_running_code
from reprokit.records import provenance


def say(folder):
    while not (folder / "go").exists():
        time.sleep(0.05)
    check_running_code()
    from reprokit import late  # read after the edit

    (folder / "said").write_text(json.dumps([late.VALUE, provenance.gather()["code"]]))
"""
LAUNCH = """\
import os, sys
from pathlib import Path
from submitit import LocalExecutor
from reprokit import job
from reprokit.cluster import slurm, snapshot
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources
from reprokit.records.run_directory import RunDirectory

folder = Path(sys.argv[1])
environment = snapshot.take(RunDirectory(folder / "run")).environment
if "SLURM_CONF" in os.environ:
    jobs = [Job("run", "train", job.say, ((folder,),), Resources())]
    slurm.submit(jobs, ClusterProfile(partition="main"), folder / "logs", lambda ids: None, environment)
else:
    os.environ.update(environment)
    executor = LocalExecutor(folder / "logs")
    executor.update_parameters(timeout_min=10)
    executor.submit(job.say, folder)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "runs" / "r")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package that is copied instead of the real ones."""
    folder = tmp_path / "checkout" / "reprokit"
    for name in ("a.py", "templates/page.jinja", ".env", ".git/config", "__pycache__/a.pyc", "a.py~"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("hf_canary" if name.startswith(".") else "1\n")
    monkeypatch.setattr(snapshot, "_sources", lambda: {"reprokit": folder})
    monkeypatch.setattr(snapshot, "PAUSE_SECONDS", 0.0)
    return folder


def checkout(folder: Path) -> Callable[..., str]:
    """Make `folder` a git checkout of the packages, with a job; returns git."""
    for package in PACKAGES:
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "reprokit" / "job.py").write_text(JOB)
    (folder / "reprokit" / "late.py").write_text("VALUE = 'old'\n")

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@e", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return git


def wait_for(path: Path, logs: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        said = "".join(log.read_text() for log in logs.rglob("*_log.*") if log.is_file())
        assert "Traceback" not in said and time.monotonic() < deadline, said
        time.sleep(0.05)


def test_editing_the_checkout_while_a_job_waits_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)
    edit_while_a_job_waits(tmp_path, {})


def test_editing_the_checkout_while_a_slurm_job_waits_changes_nothing(slurm: dict[str, str], tmp_path: Path) -> None:
    edit_while_a_job_waits(tmp_path, slurm)


def edit_while_a_job_waits(tmp_path: Path, variables: dict[str, str]) -> None:
    """The launch is typed in the checkout, which python -m would otherwise look in first."""
    folder, work = tmp_path / "checkout", tmp_path / "work"
    git = checkout(folder)
    commit = git("rev-parse", "HEAD")
    work.mkdir()
    environment = {**os.environ, **variables, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-c", LAUNCH, str(work)], cwd=folder, env=environment, check=True)
    (folder / "reprokit" / "late.py").write_text("VALUE = 'new'\n")
    git("commit", "-q", "-a", "-m", "second")
    shutil.rmtree(folder / "reprokit" / "records")
    (work / "go").touch()
    wait_for(work / "said", work / "logs")
    value, state = json.loads((work / "said").read_text())
    assert value == "old"
    assert state == {"commit": commit, "dirty": False, "sha256": state["sha256"]}
    assert [path.name for path in (work / "run" / "code").iterdir()] == [state["sha256"][:16]]


def test_all_that_jobs_read_is_copied_and_nothing_hidden(run: RunDirectory) -> None:
    taken = snapshot.take(run)
    for package in PACKAGES:
        copied = {path.relative_to(taken.folder / package.name) for path in (taken.folder / package.name).rglob("*")}
        there = {path.relative_to(package) for path in package.rglob("*") if "__pycache__" not in path.parts}
        assert copied == there
    assert (taken.folder / "recipes" / "paper").is_dir() and not (taken.folder / "slurm").exists()
    assert taken == snapshot.take(run) and len(taken.digest) == 64


def test_hidden_and_compiled_files_are_no_code(run: RunDirectory, code: Path) -> None:
    taken = snapshot.take(run)
    files = sorted(path.relative_to(taken.folder).as_posix() for path in taken.folder.rglob("*") if path.is_file())
    assert files == ["reprokit/a.py", "reprokit/templates/page.jinja", "snapshot.json"]
    assert taken.folder.stat().st_mode & 0o777 == 0o755  # of files too, others may read what the run folder lets them


def test_other_code_is_another_snapshot_and_the_first_stays(run: RunDirectory, code: Path) -> None:
    first = snapshot.take(run)
    (code / "a.py").write_text("2\n")
    second = snapshot.take(run)
    assert second.folder != first.folder
    assert [(taken.folder / "reprokit/a.py").read_text() for taken in (first, second)] == ["1\n", "2\n"]
    os.rename(code / "a.py", code / "b.py")
    assert snapshot.take(run).digest not in (first.digest, second.digest)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "changed": lambda folder: (folder / "reprokit/a.py").write_text("3\n"),
    "cut short": lambda folder: os.truncate(folder / "reprokit/templates/page.jinja", 0),
    "removed": lambda folder: (folder / "reprokit/a.py").unlink(),
    "added": lambda folder: (folder / "reprokit/new.py").touch(),
    "unsealed": lambda folder: (folder / "snapshot.json").unlink(),
    "sealed badly": lambda folder: os.truncate(folder / "snapshot.json", 9),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_kept_aside_and_made_anew(run: RunDirectory, code: Path, damage: str) -> None:
    taken = snapshot.take(run)
    for number in (1, 2):
        DAMAGES[damage](taken.folder)
        assert snapshot.take(run) == taken and snapshot._is_whole(taken.folder, taken.digest)
        assert len(list(run.code.iterdir())) == 1 + number


def take_and_say(run: RunDirectory, start: object, said: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    taken = snapshot.take(run)
    said.put((taken.digest, snapshot._is_whole(taken.folder, taken.digest)))  # type: ignore[attr-defined]


def test_processes_that_take_the_same_snapshot_all_get_it(run: RunDirectory, code: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, said = context.Barrier(6), context.Queue()
    processes = [context.Process(target=take_and_say, args=(run, start, said)) for _ in range(6)]
    for process in processes:
        process.start()
    found = [said.get(timeout=PATIENCE_SECONDS) for _ in processes]
    for process in processes:
        process.join()
    assert set(found) == {(snapshot.take(run).digest, True)}
    assert len(list(run.code.iterdir())) == 1


@pytest.mark.parametrize("times", [1, snapshot.ATTEMPTS - 1, snapshot.ATTEMPTS])
def test_code_that_changes_while_it_is_copied(
    run: RunDirectory, code: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    write, changes = snapshot._write, iter(range(times))

    def write_and_edit(folder: Path, files: Mapping[str, bytes]) -> None:
        write(folder, files)
        if (change := next(changes, None)) is not None:
            (code / "a.py").write_text(f"{change + 10}\n")

    monkeypatch.setattr(snapshot, "_write", write_and_edit)
    if times < snapshot.ATTEMPTS:
        assert (snapshot.take(run).folder / "reprokit/a.py").read_text() == f"{times + 9}\n"
        assert len(list(run.code.iterdir())) == 1
    else:
        with pytest.raises(UserError, match=f"{code} changed while it was copied"):
            snapshot.take(run)
        assert list(run.code.iterdir()) == []


def test_a_copy_that_the_disk_spoilt_is_noticed(run: RunDirectory, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, spoilt = snapshot._write, iter([True])

    def write_and_spoil(folder: Path, files: Mapping[str, bytes]) -> None:
        write(folder, files)
        if next(spoilt, False):
            os.truncate(folder / "reprokit/a.py", 1)

    monkeypatch.setattr(snapshot, "_write", write_and_spoil)
    assert (snapshot.take(run).folder / "reprokit/a.py").read_text() == "1\n"


def test_a_folder_that_cannot_be_written_is_a_clear_error(run: RunDirectory, code: Path) -> None:
    run.root.mkdir(parents=True)
    run.code.touch()
    with pytest.raises(UserError, match=f"cannot be copied to {run.code}: File exists"):
        snapshot.take(run)


def test_other_places_stay_behind_the_snapshot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(snapshot.FOLDER, raising=False)
    monkeypatch.setenv("PYTHONPATH", "/mine::/other")
    outer = snapshot.Snapshot(tmp_path, "0" * 64).environment
    assert outer == {
        "PYTHONPATH": f"{tmp_path}:/mine:/other",
        "PYTHONSAFEPATH": "1",
        "REPROKIT_SNAPSHOT": "0" * 64,
        "REPROKIT_SNAPSHOT_FOLDER": str(tmp_path),
    }
    for name, value in outer.items():
        monkeypatch.setenv(name, value)
    assert snapshot.Snapshot(tmp_path, "0" * 64).environment == outer  # of a job that submits others
    assert snapshot.Snapshot(tmp_path / "b", "1" * 64).environment["PYTHONPATH"] == f"{tmp_path / 'b'}:/mine:/other"


def test_a_job_that_runs_other_code_says_so(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(snapshot.FOLDER, raising=False)
    snapshot.check_running_code()
    monkeypatch.setenv(snapshot.FOLDER, str(PACKAGES[0].parent))
    snapshot.check_running_code()
    taken = snapshot.take(run)
    monkeypatch.setenv(snapshot.FOLDER, str(taken.folder))
    with pytest.raises(UserError, match=f"from {PACKAGES[0]}, not from {taken.folder}.*`setup` and `python`"):
        snapshot.check_running_code()
    shutil.rmtree(taken.folder)
    with pytest.raises(UserError, match=f"gone: {taken.folder}"):
        snapshot.check_running_code()


def test_a_commit_of_the_same_code_replaces_what_was_noted_of_its_changes(
    run: RunDirectory, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(commit: str, dirty: bool) -> object:
        monkeypatch.setattr(snapshot, "code_state", lambda: {"commit": commit, "dirty": dirty})
        return json.loads((snapshot.take(run).folder / "snapshot.json").read_text())["commit"]

    assert [noted("a", True), noted("b", False), noted("b", True), noted("c", False)] == ["a", "b", "b", "c"]


def test_an_environment_inside_a_checkout_is_not_taken_for_it(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@e", *words], check=True)

    git("init", "-q")
    (tmp_path / "mine.py").touch()
    installed = tmp_path / ".venv" / "reprokit"
    installed.mkdir(parents=True)
    (installed / "code.py").touch()
    git("add", "mine.py")
    git("commit", "-q", "-m", "first")
    assert provenance.git_state(tmp_path)["dirty"] is False
    assert provenance.git_state(installed) == {}


def test_a_folder_of_another_project_is_not_taken_for_ours(tmp_path: Path, run: RunDirectory) -> None:
    """python -m looks in the current folder first."""
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "mine.py").touch()
    code = (
        "import sys; from pathlib import Path; from reprokit.cluster import snapshot\n"
        "from reprokit.records.run_directory import RunDirectory\n"
        "taken = snapshot.take(RunDirectory(Path(sys.argv[1])))\n"
        "assert (taken.folder / 'analysis/figures.py').exists() and not (taken.folder / 'analysis/mine.py').exists()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(run.root)], cwd=tmp_path, env=environment, check=True)
