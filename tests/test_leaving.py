"""Being told to leave, and what a job then does: what is kept, whether it comes back, with which exit code it ends.

Every job here is a child process of its own, and its Slurm is a script.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest

from reprokit.cluster import attempt as attempts
from reprokit.cluster import launcher
from reprokit.cluster.attempt import attempt, progress_mark
from reprokit.errors import Interrupted, NodeError, UserError
from reprokit.evaluation import worker
from reprokit.evaluation.engine import Engine
from reprokit.evaluation.gathering import meters
from reprokit.evaluation.requests import Request
from reprokit.evaluation.share import Share
from reprokit.leaving import SIGNALS, Leaving
from reprokit.recipe import load_resolved
from reprokit.records.files import read_json_lines, write_text
from reprokit.records.result import Cell, Sample
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import read_logs
from reprokit.records.starts import Start, read_starts, start_path, write_start
from tests.generating import make_run


def in_child(act: Callable[[], object], said: Path) -> int:
    """Start `act` in a child process, whose output goes to `said`; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
        act()
        code = 0
    except SystemExit as error:
        code = int(str(error))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(act: Callable[[], object], said: Path) -> tuple[int, str]:
    """Exit code and output of `act` in a child process."""
    code = exit_code(in_child(act, said))
    return code, said.read_text()


def signalled(number: int = signal.SIGUSR2) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)  # the handler ends it


# Signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_at_once_and_only_once(tmp_path: Path, number: int) -> None:
    def act() -> None:
        with Leaving() as leaving:
            assert leaving() is None
            try:
                signalled(number)
            except Interrupted as error:
                for again in SIGNALS:
                    os.kill(os.getpid(), again)  # what is saved now is not disturbed
                print("saved", error, leaving())

    name = signal.Signals(number).name
    assert outcome(act, tmp_path / "said") == (0, f"saved {name} {name}\n")


def test_what_is_polled_goes_on_until_it_asks(tmp_path: Path) -> None:
    def act() -> None:
        with Leaving() as leaving:
            try:
                with leaving.polled():
                    for number in SIGNALS:
                        os.kill(os.getpid(), number)
                    print("goes on,", leaving())
            except Interrupted:
                os.kill(os.getpid(), signal.SIGTERM)
                print("leaves at the end of the block, once")

    expected = "goes on, SIGUSR2\nleaves at the end of the block, once\n"
    assert outcome(act, tmp_path / "said") == (0, expected)


def test_what_python_drops_is_heard_of_again(tmp_path: Path) -> None:
    """What a handler raises in a finaliser goes nowhere."""

    class Told:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def act() -> None:
        sys.unraisablehook = lambda _: print("dropped")
        with Leaving() as leaving:
            told = Told()
            del told
            try:
                with leaving.polled():
                    print("goes on")
                    leaving.obey()
            except Interrupted as error:
                print("leaves", error)

    assert outcome(act, tmp_path / "said") == (0, "dropped\ngoes on\nleaves SIGTERM\n")


def test_forked_processes_and_their_programs_ignore_the_signals(tmp_path: Path) -> None:
    def act() -> None:
        with Leaving() as leaving:
            child = os.fork()
            if child == 0:
                for number in SIGNALS:
                    os.kill(os.getpid(), number)
                tell_itself = f"import os; [os.kill(os.getpid(), number) for number in {list(map(int, SIGNALS))}]"
                done = subprocess.run([sys.executable, "-S", "-c", tell_itself])
                os._exit(0 if leaving() is None and done.returncode == 0 else 1)
            print(exit_code(child), leaving())

    assert outcome(act, tmp_path / "said") == (0, "0 None\n")


# Jobs

SCONTROL = """#!/bin/sh
echo "$@" >> {folder}/asked
case "$1" in requeue) exit {refuses};; esac
echo "JobId=12 JobName=train JobState={state} Reason=None"
"""


def job(folder: Path, act: Callable[[Leaving], object], stage: str = "train", **variables: str) -> tuple[int, str]:
    """Exit code and output of a task of a Slurm job that does `act` inside an attempt."""
    (folder / "bin").mkdir(exist_ok=True)
    script = folder / "bin/scontrol"
    values = {"state": "RUNNING", "refuses": "0"} | {
        key: variables.pop(key) for key in ("state", "refuses") if key in variables
    }
    write_text(script, SCONTROL.format(folder=folder, **values))
    script.chmod(0o755)
    run = RunDirectory(folder / "run")
    logs = run.logs / "20260101-000000" / stage
    with suppress(FileExistsError):
        logs.mkdir(parents=True)

    def start() -> None:
        os.environ.update(
            PATH=f"{folder}/bin:{os.environ['PATH']}",
            SUBMITIT_EXECUTOR="slurm",
            SUBMITIT_FOLDER=str(logs),
            SLURM_JOB_ID="12",
            SLURM_PROCID="0",
            SLURM_NTASKS="2",
            SLURM_JOB_NUM_NODES="2",
            SLURM_JOB_NODELIST="n[1-2]",
            SLURMD_NODENAME="n2",
        )
        os.environ.update(variables)
        with attempt(stage, run, [3, 7]) as leaving:
            act(leaving)

    (folder / "said").unlink(missing_ok=True)
    return outcome(start, folder / "said")


def asked(folder: Path) -> list[str]:
    """What Slurm was asked for, but for its state."""
    path = folder / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if "show" not in line]


def starts(folder: Path) -> list[Start]:
    return read_starts(RunDirectory(folder / "run"))


def raising(error: BaseException) -> Callable[[Leaving], object]:
    def act(_: Leaving) -> None:
        raise error

    return act


def test_a_job_that_is_through_says_where_it_ran(tmp_path: Path) -> None:
    assert job(tmp_path, lambda _: None, REPROKIT_SNAPSHOT="abc") == (0, "")
    (start,) = starts(tmp_path)
    assert (start.stage, start.job, start.restart, start.nodes) == ("train", "12", 0, ["n1", "n2"])
    assert (start.outcome, start.failure, start.code, start.steps) == ("done", None, "abc", [3, 7])
    assert start.ended is not None and start.started <= start.ended and asked(tmp_path) == []


def test_a_job_that_leaves_comes_back(tmp_path: Path) -> None:
    code, said = job(tmp_path, lambda _: signalled())
    assert code != 0 and "told to leave by SIGUSR2" in said and "job 12 is requeued" in said
    (start,) = starts(tmp_path)
    assert (start.outcome, start.failure, start.reason) == ("left", "left", "SIGUSR2")
    assert asked(tmp_path) == ["requeue 12"]


def test_an_element_of_an_array_comes_back_alone(tmp_path: Path) -> None:
    ids = {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    job(tmp_path, lambda _: signalled(signal.SIGTERM), **ids)
    assert asked(tmp_path) == ["requeue 11_3"]
    assert [(start.job, start.restart, start.reason) for start in starts(tmp_path)] == [("11_3", 2, "SIGTERM")]


def test_only_the_first_task_lets_it_come_back(tmp_path: Path) -> None:
    """An exit code but 0 of another would end the first."""
    code, said = job(tmp_path, lambda _: signalled(), SLURM_PROCID="1")
    assert code == 0 and "SIGUSR2" in said and asked(tmp_path) == [] and starts(tmp_path) == []


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING"])
def test_a_job_that_was_cancelled_stays_away(tmp_path: Path, state: str) -> None:
    code, said = job(tmp_path, lambda _: signalled(), state=state)
    assert code != 0 and f"its state is {state}" in said and asked(tmp_path) == []
    assert starts(tmp_path)[0].reason == f"SIGUSR2; left to Slurm: its state is {state}"


def test_a_requeue_that_is_not_allowed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01)))
    code, said = job(tmp_path, lambda _: os.kill(os.getpid(), signal.SIGTERM), refuses="1")
    assert code != 0 and "; not requeued: " in said and len(asked(tmp_path)) == 3
    assert starts(tmp_path)[0].reason.startswith("SIGTERM; not requeued")


def test_three_starts_without_progress_are_enough(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    log = run.sample_logs(3) / "start.000.jsonl"
    requeued = []
    write_text(log, "")
    for restart, rows in enumerate(["", "", "row", "", "", ""]):

        def act(_: Leaving, rows: str = rows) -> None:
            with log.open("a") as stream:
                stream.write(rows)
            signalled()

        _, said = job(tmp_path, act, "evaluate", SLURM_RESTART_COUNT=str(restart))
        if restart == 1:  # on a node whose clock is ahead
            (ahead,) = tmp_path.glob("run/logs/*/evaluate/starts/12.1.json")
            write_start(ahead, msgspec.structs.replace(starts(tmp_path)[-1], started=4e9))
        requeued.append("is requeued" in said)
    assert requeued == [True, True, True, True, True, False]
    (last,) = (start for start in starts(tmp_path) if start.restart == 5)
    assert "3 starts of it in a row made no progress" in last.reason


@pytest.mark.parametrize(
    ("error", "failure", "node", "last_words"),
    [
        (UserError("the recipe is wrong\nput it right"), "user", None, "put it right"),
        (NodeError("GPU 3 is broken", "n2"), "cluster", "n2", "GPU 3 is broken"),
        (ZeroDivisionError("division by zero"), "program", None, "division by zero"),
        (MemoryError("too much"), "memory", None, "Then launch again."),
        (OSError(28, "No space left on device", "/full"), "disk", None, "what is there is kept."),
        (RuntimeError("CUDA error: uncorrectable ECC error"), "cluster", "n2", "if not, launch again."),
    ],
)
def test_failures_are_kept_with_their_class(
    tmp_path: Path, error: Exception, failure: str, node: str | None, last_words: str
) -> None:
    code, said = job(tmp_path, raising(error))
    (start,) = starts(tmp_path)
    assert code == 1 and said.rstrip().endswith(last_words) and asked(tmp_path) == []
    assert (start.outcome, start.failure, start.node) == ("failed", failure, node)
    assert start.reason == str(error).splitlines()[0]


@pytest.mark.parametrize("number", SIGNALS)
def test_no_signal_cuts_a_record_short(tmp_path: Path, number: int) -> None:
    """As when srun ends the other tasks, which have failed like the first."""

    def act(error: Exception | None) -> None:
        def write(path: Path, start: Start) -> None:
            os.kill(os.getpid(), number)
            write_start(path, start)

        attempts.write_start = write  # type: ignore[attr-defined]
        if error is not None:
            raise error

    for error, outcomes in ((None, (0, "done")), (UserError("row 7 is broken"), (1, "failed"))):
        code, said = job(tmp_path, lambda _, error=error: act(error))
        (start,) = starts(tmp_path)
        assert (code, start.outcome) == outcomes, said
    assert start.reason == "row 7 is broken" and asked(tmp_path) == []


def test_another_task_that_fails_has_a_record_of_its_own(tmp_path: Path) -> None:
    job(tmp_path, lambda _: None)
    job(tmp_path, raising(ZeroDivisionError("division by zero")), SLURM_PROCID="1")
    names = {path.name for path in tmp_path.glob("run/logs/*/train/starts/*")}
    assert names == {"12.0.json", "12.0.rank_001.json"}
    assert [start.outcome for start in starts(tmp_path)] == ["done", "failed"]


def test_a_job_of_which_a_task_failed_does_not_come_back(tmp_path: Path) -> None:
    """srun ends the others by SIGTERM then."""
    job(tmp_path, raising(UserError("row 7 is broken")), SLURM_PROCID="1")
    code, said = job(tmp_path, lambda _: signalled(signal.SIGTERM))
    assert code != 0 and "not requeued: another task failed: row 7 is broken" in said and asked(tmp_path) == []


def test_what_breaks_after_the_signal_breaks_because_of_it(tmp_path: Path) -> None:
    def act(leaving: Leaving) -> None:
        with leaving.polled():
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("gloo: Connection closed by peer")

    code, _ = job(tmp_path, act)
    assert code != 0 and starts(tmp_path)[0].outcome == "left" and asked(tmp_path) == ["requeue 12"]


def test_records_that_cannot_be_written_are_no_failure(tmp_path: Path) -> None:
    write_text(tmp_path / "run/logs/20260101-000000/train/starts", "a file where a folder should be")
    assert job(tmp_path, lambda _: None) == (0, "")
    for restart, word in (("0", "is requeued"), ("2", "3 starts of it in a row made no progress")):
        assert word in job(tmp_path, lambda _: signalled(), SLURM_RESTART_COUNT=restart)[1]


def test_damaged_records_are_passed_over(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    logs = run.logs / "20260101-000000" / "train"
    for restart, started in ((0, 20.0), (1, 10.0)):
        start = Start(stage="train", job="12", restart=restart, nodes=[], started=started)
        write_start(start_path(logs, "12", restart), start)
    write_text(logs / "starts/12.2.json", '{"stage":')
    assert [start.restart for start in read_starts(run)] == [1, 0]
    assert read_starts(run, "20260101-000000") == read_starts(run) and read_starts(run, "another") == []


def test_outside_a_job_nothing_is_kept(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with attempt("collect", RunDirectory(tmp_path)) as leaving:
        assert signal.getsignal(signal.SIGTERM) is before and leaving() is None
    assert list(tmp_path.iterdir()) == []


def test_gathering_is_progress(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    marks = [progress_mark("evaluate", run, [3])]
    log, samples = run.sample_logs(3) / "start.000.jsonl", run.samples(3, "aime24")
    for path in (log, samples):
        write_text(path, "rows\n")
        marks.append(progress_mark("evaluate", run, [3]))
    write_text(run.samples(7, "aime24"), "of another checkpoint")
    assert marks[-1] <= progress_mark("evaluate", run, [3]) < progress_mark("evaluate", run)
    log.unlink()
    marks.append(progress_mark("evaluate", run, [3]))
    assert marks == sorted(marks) and marks[0] == 0 < marks[1] < marks[2]


# Evaluation


class SteppingEngine:
    """In place of vLLM: one response a step; `told` at its third step, in which a response finishes too."""

    slots = 4

    def __init__(self, told: bool, *_: object) -> None:
        self.told, self.steps, self.seconds = told, 0, 0.0
        self.requests: list[Request] = []

    def context(self, weights: Path) -> int:
        return 512

    def facts(self) -> dict[str, Any]:
        return {}

    def load(self, weights: Path) -> None: ...

    def add(self, request: Request) -> None:
        self.requests.append(request)

    @property
    def in_flight(self) -> int:
        return len(self.requests)

    def step(self) -> list[Sample]:
        self.steps, self.seconds = self.steps + 1, self.seconds + 0.5
        if self.told and self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return [self.requests.pop(0).sampled(f"at step {self.steps}", 2, "stop", 0.5)]


def test_an_evaluation_that_leaves_keeps_what_has_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "tiny", {"chain_sum": {"items": 8}}, steps=[0])
    cell = Cell(0, "chain_sum")

    def generate(told: bool) -> None:
        monkeypatch.setattr(worker, "Engine", lambda *options: SteppingEngine(told, *options))
        with Leaving() as leaving:
            job = f"start.12.{0 if told else 1}"
            arguments = (run, load_resolved(run.recipe), [cell], Share(0, 1), tmp_path / "progress", job)
            worker.generate(*arguments, leaving=leaving)

    code, said = outcome(lambda: generate(told=True), tmp_path / "first")
    assert code == 1 and said.rstrip().endswith("Interrupted: SIGTERM")
    assert [sample.text for sample in read_logs(run, 0, Sample)] == ["at step 1", "at step 2", "at step 3"]
    assert [meter.samples for meter in meters(run, 0)] == [3] and not run.generation(0, "chain_sum").exists()
    code, said = outcome(lambda: generate(told=False), tmp_path / "second")
    assert code == 0, said
    texts = sorted(sample.text for sample in read_json_lines(run.samples(0, "chain_sum"), Sample))
    assert texts == sorted([f"at step {step}" for step in (1, 2, 3)] + [f"at step {step}" for step in range(1, 6)])


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, {}), (4, {"max_num_seqs": 4}), (1, {"max_num_seqs": 1, "enable_prefix_caching": False})],
)
def test_requests_at_a_time(given: int | None, expected: dict[str, Any]) -> None:
    names = {"max_num_seqs", "enable_prefix_caching"}
    made = Engine(Path("tokenizer"), "float32", None, requests_at_a_time=given).options
    assert {name: value for name, value in made.items() if name in names} == expected


# Jobs on this machine


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_job_leaves_with_its_launcher(tmp_path: Path, stubborn: bool) -> None:
    said, ready = tmp_path / "said", tmp_path / "ready"

    def task() -> None:
        os.environ.update(SUBMITIT_EXECUTOR="local", SUBMITIT_LOCAL_JOB_ID="5", SUBMITIT_LOCAL_NTASKS="1")
        os.environ.update(SUBMITIT_LOCAL_GLOBALID="0", SUBMITIT_LOCAL_LOCALID="0", SUBMITIT_LOCAL_NNODES="1")
        logs = tmp_path / "run/logs/20260101-000000/score"
        logs.mkdir(parents=True)
        os.environ.update(SUBMITIT_FOLDER=str(logs))
        launcher.WATCH_SECONDS, launcher.GRACE_SECONDS = 0.01, 0.2
        with attempt("score", RunDirectory(tmp_path / "run")) as leaving:
            ready.write_text(str(os.getpid()))
            if stubborn:
                with leaving.polled():
                    time.sleep(600)
            time.sleep(600)

    def launch() -> None:
        with launcher.named_to_jobs():
            in_child(task, said)
        time.sleep(600)

    launching = in_child(launch, tmp_path / "launch")
    while not (ready.exists() and ready.read_text()):
        time.sleep(0.01)
    worker = psutil.Process(int(ready.read_text()))
    os.kill(launching, signal.SIGKILL)
    exit_code(launching)
    psutil.wait_procs([worker], timeout=60)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    (start,) = starts(tmp_path)
    assert start.outcome == (None if stubborn else "left") and start.job == "5" and start.nodes == []
    assert "the launch that started this job is gone" in said.read_text()


def test_a_clock_that_is_set_takes_no_launcher_away(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    polls = iter(range(3))

    def sleep(_: float) -> None:
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 1e9)
        if next(polls, None) is None:
            raise InterruptedError

    monkeypatch.setattr(launcher, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(os, "kill", lambda *words: told.append(words))
    with pytest.raises(InterruptedError):
        launcher._watch(os.getpid())
    assert told == []
