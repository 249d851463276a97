"""The commands about jobs of a run: their logs, ending them, and trying again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import DelayedSubmission

from reprokit import cancel, logs, retry, status
from reprokit.campaign.graph import Workspace
from reprokit.campaign.launching import Campaign
from reprokit.campaign.run_folder import write_recipe
from reprokit.cluster import slurm as submission
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources
from reprokit.recipe import load
from reprokit.records.files import write_json, write_text
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory, SubmittedJobs
from reprokit.records.starts import Start, start_path, write_start
from tests.fake_commands import commands, put_command, put_queue, queue_line
from tests.finished_run import WORDS, finished_run

__all__ = ["commands"]
LAUNCH, LATER = "20260102-030405", "20260102-050607"
PATIENCE_SECONDS = 300


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run of steps 0, 10 and 20 that has nothing but its recipe; its folder is the current one."""
    monkeypatch.chdir(tmp_path)
    run = Workspace(tmp_path).run("mini")
    write_recipe(run, load("mini", WORDS))
    return run


def write_log(run: RunDirectory, launch: str, stage: str, job: str, lines: int = 3, ranks: int = 1) -> Path:
    folder = run.logs / launch / stage
    for rank in range(ranks):
        text = "".join(f"{stage} {job} task {rank} line {number}\n" for number in range(lines))
        write_text(folder / f"{job}_{rank}_log.out", text)
    return folder


def started(folder: Path, job: str, steps: Sequence[int] = (), restart: int = 0, rank: int = 0, **how: Any) -> None:
    about = {"stage": folder.name, "job": job, "nodes": ["n1"], "started": 1e9 + restart, **how}
    start = Start(restart=restart, steps=list(steps), **about)
    write_start(start_path(folder, job, restart, rank), start)


def test_the_newest_log_is_shown_and_of_those_the_one_that_failed(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(run, LAUNCH, "train", "11")
    folder = write_log(run, LATER, "evaluate", "12_0", ranks=2)
    write_log(run, LATER, "evaluate", "12_1", lines=100_000)
    write_log(run, LATER, "score", "13")
    started(folder, "12_0", [0], outcome="left", reason="SIGUSR2")
    started(folder, "12_0", [0], restart=1)
    started(folder, "12_0", [0], restart=1, rank=1, outcome="failed", failure="memory", reason="out of memory")
    started(folder, "12_1", [10])
    assert logs.main(["run=mini", "lines=2"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("\n\nevaluate 12_0 task 1 line 1\nevaluate 12_0 task 1 line 2\n")
    for text in (
        "left SIGUSR2",
        "failed (memory): out of memory",
        "12_0_0_log.out",
        "12_0_1_log.out  <- shown",
        "12_1",
    ):
        assert text in shown, text
    assert logs.main(["run=mini", "cell=10/countdown", "lines=3"]) == 0
    assert capsys.readouterr().out.endswith(
        "line 99997\nevaluate 12_1 task 0 line 99998\nevaluate 12_1 task 0 line 99999\n"
    )
    assert logs.main(["run=mini", "job=train"]) == 0
    assert capsys.readouterr().out.endswith("train 11 task 0 line 2\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give run="),
        (["run=other"], "there are: mini"),
        (["run=mini", "job=judge"], "no log of job judge; there are logs of train"),
        (["run=mini", "cell=20/countdown"], "no job of run mini has begun with step 20"),
        (["run=mini", "cell=7/countdown"], "steps 0, 10, 20 and benchmarks countdown, chain_sum"),
        (["run=mini", "lines=no"], "give a number"),
        (["run=mini", "cell=0/countdown", "job=train"], "one of job= and cell="),
    ],
)
def test_what_has_no_log(
    run: RunDirectory, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(run, LAUNCH, "train", "11")
    assert logs.main(words) == 2
    assert expected in capsys.readouterr().err


def test_a_log_is_followed_until_it_is_interrupted(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_log(run, LAUNCH, "train", "11") / "11_0_log.out"

    def pause(_: float) -> None:
        if "more" in path.read_text():
            raise KeyboardInterrupt
        with path.open("a") as stream:
            stream.write("more\n")

    monkeypatch.setattr(logs, "sleep", pause)
    assert logs.main(["run=mini", "--follow"]) == 0
    assert capsys.readouterr().out.endswith("line 2\nmore\n")


def test_a_run_on_this_machine_is_ended_with_its_launcher(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "import pathlib, sys, time\nfrom reprokit.campaign.submission import locked\n"
        "from reprokit.records.run_directory import RunDirectory\nfrom reprokit.words import run\n"
        "with locked(RunDirectory(pathlib.Path(sys.argv[1]))):\n"
        "    run(lambda: print('held', flush=True) or time.sleep(600))\n    print('saved', flush=True)\n"
    )
    command = [sys.executable, "-c", text, str(run.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "held\n"
        assert cancel.main(["run=mini", "job=train"]) == 2
        assert "give run=mini alone" in capsys.readouterr().err
        assert launcher.poll() is None
        assert cancel.main(["run=mini"]) == 0
        assert launcher.wait(PATIENCE_SECONDS) == 0 and launcher.stdout.read() == "saved\n"
    assert f"ended process {launcher.pid}" in capsys.readouterr().out
    assert cancel.main(["run=mini"]) == 0
    assert "nothing to cancel" in capsys.readouterr().out


def submitted(run: RunDirectory, commands: Path, cells: Sequence[Sequence[Cell]]) -> None:
    """Let Slurm have an array of these elements, of which the first runs, and a back-fill after it."""
    folder = run.logs / LAUNCH / "evaluate"
    folder.mkdir(parents=True)
    for number, group in enumerate(cells):
        DelayedSubmission(print, run.root, list(group), 1, 64).dump(folder / f"12_{number}_submitted.pkl")
    write_json(run.jobs, SubmittedJobs(cluster="dev", ids={"evaluate": "12", "backfill": "15"}, launch=LAUNCH))
    script = str(folder / "submission.sh")
    put_queue(
        commands,
        [
            queue_line("12_0", "RUNNING", script=script),
            queue_line(f"12_[1-{len(cells) - 1}%2]", "PENDING", script=script),
            queue_line("15", "PENDING", "backfill.mini", script=script),
            queue_line("99", "RUNNING", "evaluate.other", script="/elsewhere/submission.sh"),
        ],
    )
    put_command(commands, "scancel", f'echo "$@" >> {commands}/cancelled')


CELLS = [[Cell(step, name) for name in ("countdown", "chain_sum")] for step in (0, 10, 20)]


@pytest.mark.parametrize(
    ("words", "cancelled", "said"),
    [
        ([], ["15", "12"], "cancelled backfill 15, which was pending"),
        (["job=evaluate"], ["12"], "the back-fill, job 15, submits what is missing"),
        (["job=backfill"], ["15"], "cancelled backfill 15"),
        (["cell=20/countdown"], ["12_2"], "it evaluates all of step 20"),
    ],
)
def test_jobs_on_slurm_are_cancelled_the_backfill_first(
    run: RunDirectory,
    commands: Path,
    words: list[str],
    cancelled: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submitted(run, commands, CELLS)
    assert cancel.main(["run=mini", *words]) == 0
    assert (commands / "cancelled").read_text().splitlines() == cancelled
    assert said in capsys.readouterr().out


def test_what_cannot_be_cancelled(run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submitted(run, commands, CELLS[:2])
    assert cancel.main(["run=mini", "job=score"]) == 2
    assert "it has evaluate, backfill" in capsys.readouterr().err
    assert cancel.main(["run=mini", "cell=20/countdown"]) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    put_command(commands, "scancel", "echo Access denied >&2; exit 1")
    assert cancel.main(["run=mini"]) == 2
    assert "Access denied" in capsys.readouterr().err
    put_command(commands, "squeue", "echo Unable to contact slurm controller >&2; exit 1")
    assert cancel.main(["run=mini"]) == 2
    assert "Unable to contact" in capsys.readouterr().err


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Campaign]:
    """The campaigns that `retry` launches, which are only kept."""
    campaigns: list[Campaign] = []
    monkeypatch.setattr(retry, "launch", lambda campaign, console: campaigns.append(campaign))
    return campaigns


def jobs_of(campaign: Campaign) -> dict[str, list[Any]]:
    """Names of the missing jobs -> their cells, of an evaluation."""
    return {
        job.name: [cell for element in job.elements for cell in element[1]] if job.name == "evaluate" else []
        for job in campaign.missing_jobs()
    }


def test_a_retry_needs_no_words_but_the_run(
    tmp_path: Path,
    commands: Path,
    launched: list[Campaign],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = finished_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "mine.yaml", "max_parallel: 7\n")
    stages = ["train", "evaluate", "score", "collect"]
    write_json(run.jobs, SubmittedJobs(cluster="mine.yaml", ids={"evaluate": "12"}, launch=LAUNCH, stages=stages))
    write_json(run.training_complete, {"steps": 640})
    monkeypatch.setattr(RunDirectory, "is_prepared", lambda *_: True)
    monkeypatch.setattr("reprokit.campaign.cells.lost_cells", lambda *_: [])
    for step in (0, 10):
        for name in ("result.json", "generation.json", "samples.jsonl"):
            (run.cell(step, "countdown") / name).unlink()
    put_queue(commands, [])
    assert retry.main(["run=mini"]) == 0
    assert (launched[0].cluster, launched[0].profile.max_parallel, launched[0].stages) == (
        "mine.yaml",
        7,
        tuple(stages),
    )
    assert launched[0].only is None and "backfill" in jobs_of(launched[0])
    assert retry.main(["run=mini", "cell=0/countdown"]) == 0
    assert jobs_of(launched[1]) == {"evaluate": [Cell(0, "countdown")], "score": [], "collect": []}
    assert retry.main(["run=mini", "job=score"]) == 0
    assert launched[2].only == "score" and launched[2].stages == tuple(stages)
    assert retry.main(["run=mini", "cell=20/countdown"]) == 0
    assert "is there already" in capsys.readouterr().out
    started(run.logs / LAUNCH / "evaluate", "12_0", [0])
    put_queue(commands, [queue_line("12_0", "RUNNING", script=str(run.logs / LAUNCH / "evaluate" / "x.sh"))])
    assert retry.main(["run=mini", "cell=0/countdown"]) == 0
    assert "is at work: drawing" in capsys.readouterr().out
    assert len(launched) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run=mini", "job=everything"], "valid are prepare, train"),
        (["run=mini", "cell=20/countdown"], "no complete checkpoint of step 20"),
        (["run=mini", "step=3"], "not understood"),
    ],
)
def test_what_cannot_be_retried(
    run: RunDirectory, launched: list[Campaign], words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retry.main(words) == 2
    assert expected in capsys.readouterr().err and launched == []


def test_on_a_real_slurm(
    run: RunDirectory,
    slurm: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)

    def asleep(*_: object) -> None:
        import time

        time.sleep(4 * PATIENCE_SECONDS)

    def job(name: str, elements: Sequence[tuple[Any, ...]], *after: str) -> Job:
        return Job("mini", name, asleep, tuple(elements), Resources(), after, needs_success=False)

    about = SubmittedJobs(cluster="dev", slurm_conf=slurm["SLURM_CONF"], ids={}, launch=LAUNCH)

    def remember(ids: dict[str, str]) -> None:
        about.ids = dict(ids)
        write_json(run.jobs, about)

    def states() -> dict[str, str]:
        status.main(["run=mini", "--json"])
        (found,) = json.loads(capsys.readouterr().out)["runs"]
        assert found["slurm"] is None
        return {each["id"]: each["state"] for each in found["jobs"]}

    def wait_for(condition: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(found := states()):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        return found

    jobs = [job("evaluate", [(run.root, group) for group in CELLS]), job("backfill", [(run.root,)], "evaluate")]
    submission.submit(jobs, ClusterProfile(partition="main", max_parallel=2), run.logs / LAUNCH, remember)
    try:
        array, backfill = about.ids["evaluate"], about.ids["backfill"]
        found = wait_for(lambda found: [*found.values()].count("RUNNING") == 2)
        assert [*found.values()].count("PENDING") == 2 and found[backfill] == "PENDING" and len(found) == 4
        assert cancel.main(["run=mini", "cell=20/chain_sum"]) == 0
        assert f"cancelled evaluate {array}_2, which was pending" in capsys.readouterr().out
        wait_for(lambda found: len(found) == 3)
        assert cancel.main(["run=mini"]) == 0
        said = capsys.readouterr().out
        assert said.index("backfill") < said.index("evaluate")
        found = wait_for(lambda found: not {"RUNNING", "PENDING", "COMPLETING"} & set(found.values()))
        assert set(found.values()) == {"CANCELLED"} and found.keys() >= {f"{array}_0", f"{array}_1", backfill}
        assert cancel.main(["run=mini"]) == 0
        assert "nothing to cancel" in capsys.readouterr().out
    finally:
        subprocess.run(["scancel", *about.ids.values()], check=False)


@pytest.mark.parametrize("command", ["launch", "status", "logs", "cancel", "retry", "evaluate"])
def test_help_is_given(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"reprokit.{command}", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"python -m reprokit.{command} ") and not done.stderr
