"""Any model folder evaluated without training, and scores made again without a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reprokit.errors import UserError
from reprokit.evaluate import as_launch
from reprokit.preparation import benchmark_items
from reprokit.preparation.benchmark_items import prepare_items
from reprokit.recipe import load
from reprokit.recipe.load import RECIPES
from reprokit.recipe.registry import benchmark_names
from reprokit.recipe.schema import Source
from reprokit.records.files import read_json, read_json_lines
from reprokit.records.record import read_results
from reprokit.records.result import CellResult, SampleScore
from reprokit.records.run_directory import RunDirectory

STAND_INS = RECIPES / "stand_ins"


def command(module: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, "-m", f"reprokit.{module}", *words]
    variables = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"}
    return subprocess.run(done, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def evaluated(local_run: RunDirectory, one_engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a checkpoint of the tiny run was evaluated as any model would be."""
    folder = tmp_path_factory.mktemp("evaluated")
    words = ["model=" + str(local_run.checkpoint(16)), "name=any", one_engine, "benchmarks=countdown,math500"]
    words += [f"evaluation.benchmarks.math500.path={STAND_INS}/math500.jsonl", "evaluation.max_tokens=12"]
    done = command("evaluate", folder, *words, "evaluation.benchmarks.countdown.items=4")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_model_folder_is_scored_without_training(evaluated: Path) -> None:
    results = read_results(evaluated / "results" / "any.json")
    assert results.missing == []
    assert {(record.benchmark, record.step) for record in results.records} == {("countdown", 0), ("math500", 0)}
    math = {(record.protocol, record.metric): record for record in results.records if record.benchmark == "math500"}
    assert set(math) == {
        (protocol, f"{kind}@3") for protocol in ("official", "clean") for kind in ("avg", "pass", "maj")
    }
    assert math["official", "avg@3"].items == 4 and math["official", "avg@3"].dataset is None
    run = RunDirectory(evaluated / "runs" / "any")
    assert not run.data.exists() and not run.metrics.exists()
    result = read_json(run.result(0, "math500"), CellResult)
    assert result.provenance["engine"]["dtype"] == "float32"  # that of the folder
    assert (
        result.data["files"].keys() == {"math500.jsonl"}
        and str(STAND_INS) not in (run.result(0, "math500")).read_text()
    )


def test_scoring_again_takes_the_samples_that_are_there(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated / "runs", tmp_path / "runs")
    run = RunDirectory(tmp_path / "runs" / "any")
    lines = [json.loads(line) for line in run.samples(0, "math500").read_text().splitlines()]
    lines[0] |= {"text": "<think>\\boxed{54}</think> It is \\boxed{54}.", "finish_reason": "stop"}
    assert lines[0]["item"] == "stand_in/geometry/1"
    run.samples(0, "math500").write_text("".join(json.dumps(line) + "\n" for line in lines))
    unchanged = command("rescore", tmp_path, "run=any")
    assert unchanged.returncode == 0, unchanged.stderr
    before = read_results(evaluated / "results" / "any.json").records
    assert read_results(tmp_path / "results" / "any.json").records == before
    again = command("rescore", tmp_path, "run=any", "benchmarks=math500")
    assert again.returncode == 0, again.stderr
    scores = list(read_json_lines(run.cell(0, "math500") / "scores.jsonl", SampleScore))
    assert scores[0].values == {"official": {"accuracy": 1.0}, "clean": {"accuracy": 1.0}}
    changed = read_results(tmp_path / "results" / "any.json").records
    value = {(record.benchmark, record.protocol, record.metric): record.value for record in changed}
    assert value["math500", "clean", "avg@3"] == pytest.approx(100 / 12)
    run.result(0, "countdown").write_text(run.result(0, "countdown").read_text().replace('"scorer": 1', '"scorer": 0'))
    assert command("rescore", tmp_path, "run=any").returncode == 0
    assert read_json(run.result(0, "countdown"), CellResult).scorer == 1


def test_nothing_that_was_drawn_or_measured_is_lost_when_less_is_asked_for(
    evaluated: Path, local_run: RunDirectory, one_engine: str, tmp_path: Path
) -> None:
    """Fewer samples of one benchmark and none of another; then both as before, without drawing anything."""
    shutil.copytree(evaluated / "runs", tmp_path / "runs")
    run = RunDirectory(tmp_path / "runs" / "any")
    before = run.samples(0, "math500").read_text()
    words = ["model=" + str(local_run.checkpoint(16)), "name=any", one_engine, "evaluation.max_tokens=12"]
    words += [f"evaluation.benchmarks.math500.path={STAND_INS}/math500.jsonl"]
    less = command("evaluate", tmp_path, *words, "benchmarks=math500", "evaluation.benchmarks.math500.samples=1")
    assert less.returncode == 0, less.stdout + less.stderr
    assert before.count("\n") == 12 and run.samples(0, "math500").read_text().count("\n") == 4
    records = read_results(tmp_path / "results" / "any.json").records
    assert {record.benchmark for record in records} == {"countdown", "math500"}
    again = command(
        "evaluate", tmp_path, *words, "benchmarks=countdown,math500", "evaluation.benchmarks.countdown.items=4"
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert run.samples(0, "math500").read_text() == before  # seconds too: they are the old ones


@pytest.mark.parametrize(
    ("module", "words", "expected"),
    [
        ("evaluate", [], "no model given"),
        ("evaluate", ["model=/no/such/folder"], "neither a folder here nor a hub id"),
        ("evaluate", ["model=a/b", "benchmarks=maths"], "valid are aime24, alpaca_eval"),
        ("evaluate", ["model=.", "revision=abc"], "only a hub id has revisions"),
        ("rescore", ["run=nothing"], "there are: none"),
        ("rescore", [], "no run"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, module: str, words: list[str], expected: str) -> None:
    done = command(module, tmp_path, *words)
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_hub_id_becomes_a_run_of_that_name() -> None:
    words = as_launch(["model=Qwen/Qwen3-14B", "revision=abc", "benchmarks=math500", "cluster=h200"])
    assert words[:5] == [
        "recipe=evaluation/any_model",
        "model.hub_id=Qwen/Qwen3-14B",
        "model.revision=abc",
        "model.name=Qwen3-14B",
        "name=Qwen3-14B",
    ]
    loaded = load("evaluation/any_model", [word for word in words[1:] if not word.startswith("cluster")]).recipe
    assert loaded.source is Source.model and list(loaded.evaluation.benchmarks) == ["math500"]
    assert len(benchmark_names()) == 14


def test_problems_are_made_once_and_again_when_the_file_or_the_recipe_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(STAND_INS / "math500.jsonl", tmp_path / "mine.jsonl")
    made = []
    make = benchmark_items._make
    monkeypatch.setattr(benchmark_items, "_make", lambda *given: (made.append(given[2].name), make(*given)))
    run = RunDirectory(tmp_path / "run")

    def prepare(items: str) -> None:
        path = f"evaluation.benchmarks.math500.path={tmp_path}/mine.jsonl"
        words = as_launch(["model=a/b", "benchmarks=math500", path, f"evaluation.benchmarks.math500.items={items}"])
        prepare_items(run, load("evaluation/any_model", words[1:]).recipe)

    prepare("null")
    prepare("null")
    assert made == ["math500"]
    whole = run.items("math500").read_text()
    prepare("2")
    assert whole.startswith(run.items("math500").read_text()) and len(made) == 2
    (tmp_path / "mine.jsonl").write_text((tmp_path / "mine.jsonl").read_text().replace("$9$ cm", "$7$ cm"))
    prepare("2")
    assert len(made) == 3 and "$7$ cm" in run.items("math500").read_text()
    with pytest.raises(UserError, match="40 items asked for, the data has 4"):
        prepare("40")


def test_data_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    recipe = load("evaluation/any_model", as_launch(["model=a/b", "benchmarks=gpqa_diamond"])[1:]).recipe
    with pytest.raises(UserError) as refused:
        prepare_items(RunDirectory(tmp_path), recipe)
    for part in ("Idavidrein/gpqa", "no route to the hub", "hf auth login", "evaluation.benchmarks.gpqa_diamond.path"):
        assert part in str(refused.value)
