"""Logs of samples: what a kill leaves, damage, and what counts as generated."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reprokit.records.files import write_json, write_json_lines
from reprokit.records.result import Cell, Generation, Sample
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import Drawn, SampleLog, is_generated, read_log, read_logs, sampled_steps

SETTINGS = {"items": None, "samples": 2, "temperature": 0.6}


def sample(item: str, number: int = 0, text: str = "a = 1\n\N{BLACK HEART SUIT}") -> Sample:
    return Sample(
        benchmark="b",
        item=item,
        sample=number,
        seed=7,
        request="0123",
        text=text,
        prompt_tokens=3,
        response_tokens=5,
        finish_reason="stop",
        seconds=0.5,
    )


def write(path: Path, *samples: Sample) -> None:
    log = SampleLog(path)
    for each in samples:
        log.append(each)
    log.close()


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log" / "1.jsonl"
    write(path, sample("x"), sample("y"))
    write(path, sample("z"))
    assert list(read_log(path, Sample)) == [sample("x"), sample("y"), sample("z")]
    assert list(read_log(path, Drawn))[2] == Drawn(benchmark="b", item="z", sample=0, request="0123", response_tokens=5)
    assert list(read_log(tmp_path / "none.jsonl", Sample)) == []


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_half_a_last_line_is_cut_off(tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    """`kept` bytes of the last line are there; -1: all but the line end."""
    path = tmp_path / "1.jsonl"
    write(path, sample("x"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    assert list(read_log(path, Sample)) == [sample("x")]
    write(path, sample("y"))
    assert list(read_log(path, Sample)) == [sample("x"), sample("y")]
    assert not caplog.records


@pytest.mark.parametrize("damage", [b"\0" * 40, b'{"benchmark": "b"}', b'{"item": 3}', b'"\xff\xfe"', b""])
def test_a_damaged_line_is_passed_over_with_a_warning(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "1.jsonl"
    write(path, sample("x"), sample("y"), sample("z"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + b"\n" + lines[2])
    with caplog.at_level(logging.WARNING):
        assert [each.item for each in read_log(path, Sample)] == ["x", "z"]
    assert str(path) in caplog.text and "line 2" in caplog.text


def test_a_killed_process_loses_nothing_that_it_had_appended(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from reprokit.records.sample_log import SampleLog\n"
        "from tests.test_sample_log import sample\n"
        "log = SampleLog(Path(sys.argv[1]))\n"
        "for number in range(50): log.append(sample(str(number)))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "1.jsonl"
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert [each.item for each in read_log(path, Sample)] == [str(number) for number in range(50)]


def test_logs_of_all_workers_are_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write(run.sample_logs(4) / "12.001.jsonl", sample("y"))
    write(run.sample_logs(4) / "12.000.jsonl", sample("x"))
    write_json(run.sample_logs(4) / "12.000.json", {})
    assert [each.item for each in read_logs(run, 4, Sample)] == ["x", "y"]
    assert list(read_logs(run, 5, Sample)) == []
    (run.root / "evaluation" / "items").mkdir()
    assert sampled_steps(run) == [4]


def test_logs_that_another_job_gathers_meanwhile_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    write(run.sample_logs(8) / "1.000.jsonl", sample("1"))

    def gathered_first(folder: Path, scan: Any = os.scandir) -> Any:
        monkeypatch.undo()
        shutil.rmtree(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", gathered_first)
    assert list(read_logs(run, 8, Drawn)) == []


def generation(**changed: object) -> Generation:
    fields = {"step": 4, "benchmark": "b", "settings": SETTINGS, "items": "abc", "provenance": {}}
    return Generation(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (generation(), True),
        (generation(settings={**SETTINGS, "samples": 1}), False),
        (generation(settings={**SETTINGS, "top_k": 0}), False),
        (generation(items="abd"), False),
    ],
)
def test_samples_of_other_settings_or_problems_do_not_count(tmp_path: Path, made: Generation, expected: bool) -> None:
    run, cell = RunDirectory(tmp_path), Cell(4, "b")
    write_json(run.items_source("b"), {"hub_id": "x/y", "items": "abc"})
    assert not is_generated(run, cell, SETTINGS)
    write_json(run.generation(4, "b"), made)
    assert not is_generated(run, cell, SETTINGS)  # the samples themselves are not there
    write_json_lines(run.samples(4, "b"), [sample("x")])
    assert is_generated(run, cell, SETTINGS) is expected


@pytest.mark.parametrize("name", ["generation", "items_source"])
def test_a_damaged_or_missing_record_counts_as_not_generated(tmp_path: Path, name: str) -> None:
    run, cell = RunDirectory(tmp_path), Cell(4, "b")
    write_json(run.items_source("b"), {"items": "abc"})
    write_json(run.generation(4, "b"), generation())
    write_json_lines(run.samples(4, "b"), [sample("x")])
    assert is_generated(run, cell, SETTINGS)
    path = run.generation(4, "b") if name == "generation" else run.items_source("b")
    path.write_text("{")
    assert not is_generated(run, cell, SETTINGS)
    path.unlink()
    assert not is_generated(run, cell, SETTINGS)
