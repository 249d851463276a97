"""`python -m reprokit.collect`: what is written, what is said to be missing, and what is never lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analysis import completeness
from reprokit import stages
from reprokit.campaign.collect import collect, collect_into
from reprokit.collect import grouped, main
from reprokit.errors import UserError
from reprokit.evaluation.score_stage import score_run
from reprokit.recipe import load_resolved
from reprokit.records.details import read_details
from reprokit.records.files import read_json, sha256_of_file, write_json
from reprokit.records.record import MissingCell, Results, read_results
from reprokit.records.result import CellResult
from reprokit.records.run_directory import RunDirectory, step_of
from reprokit.words import PARTIAL
from tests.conftest import launch
from tests.finished_run import finished_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    finished_run(folder)
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with the finished run, in which the command is typed."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(workspace: Path, name: str = "mini") -> RunDirectory:
    return RunDirectory(workspace / "runs" / name)


def cells(results: Results) -> set[tuple[int, str]]:
    return {(record.step, record.benchmark) for record in results.records}


def test_a_complete_run_is_collected(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "mini: complete; 12 records of 6 cells in results/mini.json" in capsys.readouterr().out
    results = read_results(workspace / "results/mini.json")
    assert results.missing == [] and len(cells(results)) == 6
    details = read_details(workspace / "results", "mini")
    assert details is not None and {(cell.step, cell.benchmark) for cell in details.cells} == cells(results)
    written = [path for path in sorted((workspace / "results").rglob("*.json"))]
    before = [path.read_bytes() for path in written]
    assert main(["run=mini"]) == 0
    assert [path.read_bytes() for path in sorted((workspace / "results").rglob("*.json"))] == before


def test_a_deleted_result_is_a_gap_and_the_earlier_results_are_kept(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    earlier = workspace / "results/mini.json"
    content, digest = earlier.read_bytes(), sha256_of_file(earlier)
    run_of(workspace).result(10, "countdown").unlink()
    capsys.readouterr()
    assert main([]) == PARTIAL
    said = capsys.readouterr().out
    assert "mini: PARTIAL, 1 cell missing" in said and "missing: step 10 on countdown" in said
    assert "python -m reprokit.launch recipe=runs/mini/recipe.yaml" in said
    results = read_results(earlier)
    assert results.missing == [MissingCell(step=10, benchmark="countdown")]
    assert (10, "countdown") not in cells(results) and len(cells(results)) == 5
    kept = workspace / f"results/replaced/mini-{digest[:12]}.json"
    assert kept.read_bytes() == content and str(kept) in said
    assert (workspace / f"results/replaced/details/mini-{digest[:12]}.json").exists()
    assert completeness.main([f"results={workspace / 'results'}"]) == PARTIAL
    assert "mini: Countdown at step 10" in capsys.readouterr().out


def test_the_command_that_fills_is_one_that_works(workspace: Path) -> None:
    run_of(workspace).result(10, "countdown").unlink()
    assert main([]) == PARTIAL
    filled = launch(workspace, "recipe=runs/mini/recipe.yaml", "cluster=local", "stages=score,collect")
    assert filled.returncode == 0, filled.stdout + filled.stderr
    assert read_results(workspace / "results/mini.json").missing == []
    assert main([]) == 0


@pytest.mark.parametrize("content", [b'{"step": 10, "bench', b'{"step": "ten"}', b'{"benchmark": "\xff\xfe"}', b""])
def test_a_damaged_result_is_missing_and_named(
    workspace: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_of(workspace).result(10, "countdown")
    path.write_bytes(content)
    assert main([]) == PARTIAL
    said = capsys.readouterr().out
    assert "missing: step 10 on countdown" in said and f"damaged: {path} is damaged" in said
    assert (10, "countdown") not in cells(read_results(workspace / "results/mini.json"))


@pytest.mark.parametrize("name", ["generation.json", "scores.jsonl", "samples.jsonl"])
def test_damage_beside_a_whole_result_is_named_and_the_number_stands(
    workspace: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_of(workspace).cell(10, "countdown") / name
    path.write_text("{")
    assert main([]) == PARTIAL
    said = capsys.readouterr().out
    assert str(path) in said and "missing" not in said.replace("0 cells missing", "")
    assert (10, "countdown") in cells(read_results(workspace / "results/mini.json"))


def test_scores_that_are_damaged_are_made_again_by_the_command_that_is_named(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reprokit import rescore

    (run_of(workspace).cell(10, "countdown") / "scores.jsonl").write_text("{")
    assert main([]) == PARTIAL
    assert "python -m reprokit.rescore run=mini benchmarks=countdown" in capsys.readouterr().out
    assert rescore.main(["run=mini", "benchmarks=countdown"]) == 0
    assert main([]) == 0


def test_a_cell_copied_into_the_folder_of_another_is_missing_and_named(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(workspace)
    shutil.rmtree(run.cell(20, "countdown"))
    shutil.copytree(run.cell(10, "countdown"), run.cell(20, "countdown"))
    shutil.copytree(run.cell(10, "countdown"), run.cell(10, "syllogism"))  # nobody asks for that one
    assert main([]) == PARTIAL
    said = capsys.readouterr().out
    assert f"{run.result(20, 'countdown')} is of step 10 on countdown" in said
    assert f"{run.result(10, 'syllogism')} is of step 10 on countdown" in said
    results = read_results(workspace / "results/mini.json")
    assert results.missing == [MissingCell(step=20, benchmark="countdown")]
    assert len(cells(results)) == 5 and len(results.records) == 10


def test_an_evaluation_without_a_recipe_is_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "runs/half/evaluation/step_000000").mkdir(parents=True)
    (workspace / "runs/.tokens/abc").mkdir(parents=True)  # what runs share
    (workspace / "runs/mini/evaluation/step_²/countdown").mkdir(parents=True)  # no step
    assert main([]) == PARTIAL
    said = capsys.readouterr().out
    assert "half: PARTIAL, nothing is collected" in said and ".tokens" not in said
    assert main(["run=mini"]) == 0


def test_results_without_any_number_are_missing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(workspace)
    result = read_json(run.result(20, "chain_sum"), CellResult)
    for metric in result.metrics:
        metric.value = None  # as when no verdict of the judges can be used
    write_json(run.result(20, "chain_sum"), result)
    assert collect(run, load_resolved(run.recipe)).missing == [MissingCell(step=20, benchmark="chain_sum")]
    assert main([]) == PARTIAL
    assert f"{run.result(20, 'chain_sum')} has not one number" in capsys.readouterr().out


def test_results_of_cells_that_nobody_asks_for_now_are_not_replaced(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(workspace)
    assert main([]) == 0
    run.recipe.write_text(run.recipe.read_text().replace("[0, 10, 20]", "[0, 10]"))
    assert main([]) == 0  # their results are still there
    run.result(20, "countdown").unlink()
    content = (workspace / "results/mini.json").read_bytes()
    assert main([]) == 2
    assert "results of 1 cells that the run folder has not (step 20 on countdown)" in capsys.readouterr().err
    assert (workspace / "results/mini.json").read_bytes() == content


def test_one_run_that_cannot_be_read_stops_no_other(
    made: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "runs/mini", workspace / "runs/another")
    (workspace / "runs/another/recipe.yaml").write_text("name: [")
    (workspace / "runs/nothing").mkdir()
    assert main([]) == 2
    said = capsys.readouterr()
    assert "mini: complete" in said.out and "1 of 2 runs could not be collected" in said.err and "another:" in said.err
    assert (workspace / "results/mini.json").exists()


def test_a_copy_of_a_run_folder_does_not_replace_the_results_of_the_run(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace / "runs/mini", workspace / "runs/copy")
    run_of(workspace, "copy").result(10, "countdown").unlink()
    assert main([]) == 2
    assert "is that of run mini" in capsys.readouterr().err
    assert read_results(workspace / "results/mini.json").missing == []


def test_a_collection_that_is_stopped_loses_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([]) == 0
    results, details = workspace / "results/mini.json", workspace / "results/details/mini.json"
    before = [path.read_bytes() for path in (details, results)]
    run_of(workspace).result(10, "countdown").unlink()
    with monkeypatch.context() as patched:
        patched.setattr("reprokit.campaign.collect.write_results", stopped)
        assert main([]) == 130
    assert results.read_bytes() == before[1]
    assert main([]) == PARTIAL
    kept = [path.read_bytes() for path in sorted((workspace / "results/replaced").rglob("*.json"))]
    assert kept == before and read_results(results).missing


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_unknown_names_say_what_there_is(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run=mini,other"]) == 2
    assert "no run other in" in (said := capsys.readouterr().err) and "there are: mini" in said
    assert main(["run=m*"]) == 0 and main(["run="]) == 2 and main(["runs=mini"]) == 2
    shutil.rmtree(workspace / "runs")
    assert main([]) == 2 and "there are: none" in capsys.readouterr().err


def test_the_job_says_what_is_missing_and_does_not_fail(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(workspace)
    run.result(10, "countdown").unlink()
    stages.collect(run.root, workspace / "results")
    assert "10 records, 1 cells missing" in capsys.readouterr().out


def test_details_that_cannot_be_made_are_said_and_none_are_left(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, results = run_of(workspace), workspace / "results"
    recipe = load_resolved(run.recipe)
    assert not collect_into(results, run, recipe).is_partial

    def fails(*_: object) -> None:
        raise UserError("samples are damaged")

    monkeypatch.setattr("reprokit.evaluation.details.gather", fails)
    collected = collect_into(results, run, recipe)
    assert collected.is_partial and "samples are damaged" in collected.notes[0]
    assert read_details(results, "mini") is None and len(read_results(results / "mini.json").records) == 12


def test_missing_cells_are_grouped() -> None:
    lacking = [("b", 10), ("b", 20), ("a", 20), ("a", 10), ("c", 0)]
    assert grouped(MissingCell(step=step, benchmark=name) for name, step in lacking) == [
        "step 0 on c",
        "steps 10, 20 on a, b",
    ]


def test_what_the_training_took_is_collected(workspace: Path) -> None:
    folder = run_of(workspace)
    line = '{"step": 1, "loss": 2.5, "seconds": 1.5, "tokens": 100}\n'
    for name in ("train/metrics.jsonl", "train/metrics.attempt_01.jsonl", "interrupted_01/train/metrics.jsonl"):
        (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / name).write_text(2 * line + line[:20])  # a kill leaves half a line
    write_json(folder.provenance, {"world_size": 2})
    assert main([]) == 0
    training = read_results(workspace / "results" / "mini.json").provenance["training"]
    assert training == {"world_size": 2, "spent": {"steps": 6, "seconds": 9.0, "tokens": 600}}


def test_samples_that_are_gone_are_told_and_the_number_stands(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of(workspace)
    result = min(folder.root.glob("evaluation/step_*/*/result.json"))
    (result.parent / "samples.jsonl").unlink()
    assert main([]) == 0
    said = capsys.readouterr().out
    assert f"the samples are gone of step {step_of(result.parent.parent)} on {result.parent.name}" in said
    score_run(folder, load_resolved(folder.recipe), folder.progress("score"), [result.parent.name])
    assert "left as it is: step" in capsys.readouterr().out and result.exists()
