"""How runs are getting on, from what is on disk and what Slurm says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reprokit import status as command
from reprokit.campaign.submission import locked
from reprokit.evaluation.gathering import Meter, meter_path, write_meter
from reprokit.recipe import load_resolved
from reprokit.records.files import read_json, write_json, write_text
from reprokit.records.result import Cell
from reprokit.records.run_directory import LeftOut, RunDirectory, Stopped, SubmittedJobs
from reprokit.records.starts import Start, start_path, write_start
from reprokit.words import PARTIAL
from tests.fake_commands import commands, put_command, put_queue, queue_line
from tests.finished_run import finished_run

__all__ = ["commands"]
LAUNCH = "20260102-030405"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return finished_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    """A run of steps 0, 10 and 20 x countdown (4 samples) and chain_sum (3), as submitted to Slurm, all done."""
    shutil.copytree(finished.root.parents[1] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    run = RunDirectory(tmp_path / "runs" / "mini")
    write_json(run.jobs, SubmittedJobs(cluster="dev", ids={"evaluate": "12", "backfill": "15"}, launch=LAUNCH))
    (run.logs / LAUNCH).mkdir(parents=True)
    yield run


def script(run: RunDirectory, stage: str = "evaluate") -> str:
    return str(run.logs / LAUNCH / stage / "submission.sh")


def started(run: RunDirectory, job: str, steps: list[int], stage: str = "evaluate", **how: Any) -> Start:
    start = Start(**{"stage": stage, "job": job, "restart": 0, "nodes": ["n1"], "steps": steps, "started": 1e9, **how})
    write_start(start_path(run.logs / LAUNCH / stage, job, start.restart), start)
    return start


def remove(run: RunDirectory, step: int, benchmark: str, *names: str) -> None:
    for name in names or ("result.json", "generation.json", "samples.jsonl"):
        (run.cell(step, benchmark) / name).unlink()


def log(run: RunDirectory, step: int, benchmark: str, samples: int, half: bool = False) -> None:
    """Let a worker have logged samples, and be at the next one."""
    line = f'{{"benchmark":"{benchmark}","item":"1","text":"{{\\"benchmark\\":\\"chain_sum\\"}}"}}\n'
    write_text(run.sample_logs(step) / "x.000.jsonl", line * samples + line[:40] * half)


def look(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], int]:
    """What `--json` says of the run, and the exit code."""
    code = command.main(["run=mini", "--json", *words])
    said = capsys.readouterr()
    assert said.err == ""
    (found,) = json.loads(said.out)["runs"]
    return found, code


def cells(found: dict[str, Any]) -> dict[Cell, tuple[str, int, int]]:
    return {
        Cell(cell["step"], cell["benchmark"]): (cell["state"], cell["samples"], cell["asked"])
        for cell in found["cells"]
    }


def test_a_finished_run(run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_queue(commands, [])
    for job, stage in (("12_0", "evaluate"), ("12_1", "evaluate"), ("15", "backfill")):
        started(run, job, [], stage, outcome="done", ended=1e9 + 65)
    found, code = look(capsys)
    assert code == 0 and found["active"] is False and found["slurm"] is None
    assert len(found["cells"]) == 6 and cells(found)[Cell(20, "chain_sum")] == ("done", 3, 3)
    assert [(job["id"], job["state"], job["elapsed"]) for job in found["jobs"]] == [
        ("12_0", "done", 65),
        ("12_1", "done", 65),
        ("15", "done", 65),
    ]
    assert command.main([]) == 0
    shown = capsys.readouterr().out
    assert "6 done" in shown and "done: 2 elements" in shown and "missing" not in shown


def test_every_state_of_a_cell(run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remove(run, 0, "countdown", "result.json")
    write_text(run.result(0, "chain_sum"), '{"step": 0,')
    remove(run, 10, "countdown")
    remove(run, 10, "chain_sum")
    remove(run, 20, "countdown")
    remove(run, 20, "chain_sum")
    log(run, 10, "countdown", 3, half=True)
    log(run, 20, "chain_sum", 2)
    started(run, "12_1", [10])
    started(run, "12_2", [20], outcome="failed", failure="memory", reason="CUDA out of memory")
    write_meter(meter_path(run, 10, f"{LAUNCH}.12_1.0", 0), Meter(engine={}, seconds=30.0, samples=3))
    running = queue_line("12_1", "RUNNING", nodes="n1", elapsed="1:00", script=script(run))
    waiting = queue_line("15", "PENDING", "backfill.mini", reason="Dependency", script=script(run, "backfill"))
    put_queue(commands, [running, waiting])
    found, code = look(capsys)
    assert code == 0 and found["active"] is True
    assert cells(found) == {
        Cell(0, "countdown"): ("generated", 4, 4),
        Cell(0, "chain_sum"): ("damaged", 3, 3),
        Cell(10, "countdown"): ("drawing", 3, 4),
        Cell(10, "chain_sum"): ("drawing", 0, 3),
        Cell(20, "countdown"): ("failed", 0, 4),
        Cell(20, "chain_sum"): ("failed", 2, 3),
    }
    jobs = {job["id"]: job for job in found["jobs"]}
    assert list(jobs) == ["12_1", "12_2", "15"]
    assert (jobs["12_1"]["elapsed"], jobs["12_1"]["limit"], jobs["12_1"]["nodes"]) == (60, 8 * 3600, ["n1"])
    assert jobs["12_1"]["eta"] == 40  # four samples, of which each took 10 s
    assert (jobs["12_2"]["state"], jobs["12_2"]["failure"], jobs["15"]["reason"]) == ("failed", "memory", "Dependency")
    assert command.main([]) == 0
    shown = capsys.readouterr().out
    for text in ("3/4", "2/3 failed (memory)", "CUDA out of memory", "micro_batch_tokens", "damaged", "generated"):
        assert text in shown, text


def test_cells_wait_for_jobs_that_wait(run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remove(run, 20, "countdown")
    started(run, "12_2", [20], outcome="failed", failure="cluster", reason="NCCL")
    put_queue(commands, [queue_line("15", "PENDING", "backfill.mini", script=script(run, "backfill"))])
    found, code = look(capsys)
    assert (cells(found)[Cell(20, "countdown")][0], code) == ("waiting", 0)
    put_queue(commands, [])
    found, code = look(capsys)
    assert (cells(found)[Cell(20, "countdown")][0], code) == ("missing", PARTIAL)
    command.main([])
    assert "reprokit.retry run=mini" in capsys.readouterr().out


def test_held_jobs_are_named(run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A launch that was killed just before it let them go cannot do so any more."""
    remove(run, 10, "countdown")
    lines = [queue_line("12_[0-1]", "PENDING", reason="Resources", script=script(run))]
    put_queue(commands, lines)
    assert command.main([]) == 0
    assert "Held jobs" not in capsys.readouterr().out
    put_queue(
        commands, [*lines, queue_line("15", "PENDING", "backfill.mini", reason="JobHeldUser", script=script(run))]
    )
    assert command.main([]) == 0
    assert "Held jobs never begin: 15." in capsys.readouterr().out


def test_a_job_that_slurm_has_forgotten_is_never_running(
    run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(run, 20, "countdown")
    started(run, "12_0", [20])  # killed: it left no outcome
    put_queue(commands, [])
    found, code = look(capsys)
    assert [(job["id"], job["state"], job["active"]) for job in found["jobs"]] == [
        ("12_0", "gone", False),
        ("15", "gone", False),
    ]
    assert code == PARTIAL and found["active"] is False
    put_command(commands, "sacct", 'echo "12_0|TIMEOUT"; echo "15|CANCELLED by 0"')
    found, _ = look(capsys)
    assert [job["state"] for job in found["jobs"]] == ["TIMEOUT", "CANCELLED"]


def test_jobs_of_the_same_id_on_another_cluster_are_not_ours(
    run: RunDirectory, commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "submission.sh"
    write_text(other, "")
    put_queue(commands, [queue_line("12_0", "RUNNING", script=str(other))])
    found, code = look(capsys)
    assert [job["state"] for job in found["jobs"]] == ["gone", "gone"] and code == 0


def test_without_an_answer_of_slurm_the_files_are_shown(
    run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(run, 20, "countdown")
    started(run, "12_0", [0], outcome="done", ended=1e9 + 1)
    started(run, "12_2", [20])
    put_command(commands, "squeue", "echo Unable to contact slurm controller >&2; exit 1")
    found, code = look(capsys)
    assert [(job["id"], job["state"], job["active"]) for job in found["jobs"]] == [
        ("12_0", "done", False),
        ("12_2", "unknown", None),
        ("15", "unknown", None),
    ]
    assert code == 0 and found["active"] is None and "Unable to contact" in found["slurm"]
    command.main([])
    shown = capsys.readouterr().out
    assert "states of jobs are not known" in shown and "5 done, 1 missing" in shown and "retry" not in shown


def test_what_the_backfill_did_and_why_it_stopped(
    run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(run, 20, "countdown")
    lost = [LeftOut(stage="evaluate", steps=[20], failure="memory", reason="Slurm says OUT_OF_MEMORY")]
    submitted = read_json(run.jobs, SubmittedJobs)
    submitted.round, submitted.fruitless, submitted.excluded, submitted.left_out = 3, 1, ["n2"], lost
    write_json(run.jobs, submitted)
    write_json(run.stopped, Stopped(reason="all else is there", advice="Give it more memory.", round=3, when=1e9))
    put_queue(commands, [])
    found, code = look(capsys)
    assert code == PARTIAL and cells(found)[Cell(20, "countdown")][0] == "failed"
    assert (found["round"], found["excluded"], found["stopped"]["reason"]) == (3, ["n2"], "all else is there")
    command.main([])
    shown = capsys.readouterr().out
    for text in ("submitted 3 times", "n2", "all else is there", "Give it more memory.", "failed (memory)"):
        assert text in shown, text


def test_the_training_is_read_from_the_end_of_its_file(
    run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = max(load_resolved(run.recipe).training.checkpoint_steps)
    line = '{{"step":{0},"loss":2.5,"seconds":{1},"tokens_per_second":1000.0,"padding":"{2}"}}\n'
    text = "not a step\n" + "".join(line.format(step, 2.0, "x" * 500) for step in range(1, 200))
    write_text(run.metrics, text + '{"step":200,"lo')
    started(run, "11", [], "train")
    write_json(run.jobs, SubmittedJobs(cluster="dev", ids={"train": "11"}, launch=LAUNCH))
    put_queue(commands, [queue_line("11", "RUNNING", "train.mini", nodes="n[1-2]", script=script(run, "train"))])
    found, _ = look(capsys)
    training, (job,) = found["training"], found["jobs"]
    assert (training["step"], training["steps"], training["loss"], training["complete"]) == (199, steps, 2.5, False)
    assert (job["eta"], job["nodes"]) == (2 * (steps - 199), ["n1", "n2"])


def test_a_launch_on_this_machine(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(run.jobs, SubmittedJobs(cluster="dev", ids={"evaluate": "12"}, launch="20260101-000000"))  # before
    remove(run, 0, "countdown")
    remove(run, 20, "countdown")
    started(run, "100", [], "prepare", outcome="done", ended=1e9 + 1, nodes=[])
    started(run, "101", [20], started=1e9 + 2, nodes=[])
    with locked(run):
        found, code = look(capsys)
    assert code == 0 and found["cluster"] == "local" and "process" in found["launcher"]
    assert [job["state"] for job in found["jobs"]] == ["done", "RUNNING"]
    assert [cells(found)[Cell(step, "countdown")][0] for step in (0, 20)] == ["waiting", "drawing"]
    found, code = look(capsys)
    assert code == PARTIAL and found["launcher"] is None and cells(found)[Cell(0, "countdown")][0] == "missing"
    assert [job["state"] for job in found["jobs"]] == ["done", "gone"]


def test_a_narrow_terminal_shows_every_benchmark(
    run: RunDirectory, commands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_queue(commands, [])
    remove(run, 20, "countdown")
    log(run, 20, "countdown", 3)
    monkeypatch.setenv("COLUMNS", "24")
    command.main([])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["step", "countdown"] in lines and ["step", "chain_sum"] in lines
    assert ["20", "3/4", "missing"] in lines and ["20", "done"] in lines


def test_files_that_are_half_written_or_go_away_do_no_harm(
    run: RunDirectory, commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_queue(commands, [])
    write_text(start_path(run.logs / LAUNCH / "evaluate", "12_0", 0), '{"stage":')
    write_text(run.jobs, '{"cluster": "dev", "ids"')
    write_text(run.progress("evaluate"), "{")
    assert look(capsys)[1] == 0
    shutil.rmtree(run.logs)
    assert look(capsys)[1] == 0
    write_text(run.recipe, "name: [")
    found, code = look(capsys)
    assert "recipe.yaml" in found["problem"] and code == PARTIAL


def test_watching_shows_it_again_until_it_is_interrupted(
    run: RunDirectory, commands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_queue(commands, [])
    remove(run, 20, "countdown")

    def pause(_: float) -> None:
        log(run, 20, "countdown", len(pauses))
        pauses.append(1)
        if len(pauses) == 4:
            raise KeyboardInterrupt

    pauses: list[int] = []
    monkeypatch.setattr(command, "sleep", pause)
    assert command.main(["--watch", "--json"]) == PARTIAL
    looks = [json.loads(line)["runs"][0] for line in capsys.readouterr().out.splitlines()]
    assert [cells(found)[Cell(20, "countdown")][1] for found in looks] == [0, 0, 1, 2]
    pauses.clear()
    assert command.main(["--watch", "run=mini"]) == PARTIAL
    assert capsys.readouterr().out.count("mini on cluster=dev") == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["run=mni"], "there are: mini"), (["--wach"], "key=value"), (["json=yes"], "valid are true and false")],
)
def test_bad_words(run: RunDirectory, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words) == 2
    assert expected in capsys.readouterr().err


def test_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([]) == 0
    assert "no runs" in capsys.readouterr().out
