"""The completeness matrix: cells that lack results, and what the paper's figures and tables lack."""

from __future__ import annotations

from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from analysis.completeness import Lack, Matrix, by_benchmark, main, matrix
from analysis.holdings import read_library
from analysis.remedy import to_fill
from reprokit.recipe.load import PUBLISHED
from reprokit.records.paper import TABLES
from reprokit.records.record import MissingCell, Record, Results, write_results
from reprokit.words import PARTIAL, interpreter

SAFETY_RUN = "Qwen3-8B_Math-CoT-20k_lr5e-5_ep8_bs256"


def record(run: str, step: int, benchmark: str = "countdown", **given: Any) -> Record:
    """A number that this kit has measured, unless `given` says otherwise."""
    usual = {"model": "base of " + run, "metric": "pass@1", "value": 50.0, "unit": "percent"}
    made = {"origin": "measured", "protocol": "official", "checkpoints": "training", **usual, **given}
    return Record(run=run, step=step, benchmark=benchmark, **made)


def collected(folder: Path, run: str, records: list[Record], missing: list[tuple[int, str]] | None = None) -> None:
    cells = [MissingCell(step=step, benchmark=benchmark) for step, benchmark in missing or []]
    write_results(folder / f"{run}.json", Results(run=run, records=records, missing=cells))


def matrix_of(folder: Path) -> Matrix:
    return matrix(read_library(folder))


def test_a_complete_run_lacks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collected(tmp_path, "a", [record("a", step, name) for step, name in product((0, 10), ("countdown", "math500"))])
    found = matrix_of(tmp_path)
    assert not found.is_partial and found.missing == []
    assert found.runs[0].steps == (0, 10) and found.runs[0].benchmarks == ("MATH500", "Countdown")
    assert found.runs[0].summary == "4 of 4 cells"
    assert main([f"results={tmp_path}"]) == 0 and "PARTIAL" not in capsys.readouterr().out


def test_cells_that_the_recipe_asks_for_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collected(tmp_path, "a", [record("a", 0), record("a", 20)], [(10, "countdown"), (30, "countdown")])
    collected(tmp_path, "b", [record("b", 0)])
    found = matrix_of(tmp_path)
    assert found.missing == [Lack("a", 10, "Countdown"), Lack("a", 30, "Countdown")] and found.is_partial
    assert found.runs[0].states[10, "Countdown"] == "missing" and found.runs[0].summary == "2 of 4 cells"
    assert main([f"results={tmp_path}"]) == PARTIAL
    said = capsys.readouterr().out
    assert (
        "MISSING" in said
        and "PARTIAL: 2 cells of 1 measured run have" in said
        and "a: Countdown at steps 10, 30" in said
    )
    launch_again = f"{interpreter()} -m reprokit.launch recipe=runs/a/recipe.yaml, in the folder that has runs/"
    assert f"to fill: {launch_again}; then {interpreter()} -m analysis.report draws" in said


def test_a_step_that_only_some_benchmarks_have_is_a_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file says that nothing is missing, as when a benchmark was added for the last step only."""
    collected(tmp_path, "a", [record("a", 0), record("a", 10), record("a", 10, "math500")])
    found = matrix_of(tmp_path)
    assert found.runs[0].states[0, "MATH500"] == "gap" and found.missing == [Lack("a", 0, "MATH500")]
    assert main([f"results={tmp_path}"]) == PARTIAL and "to fill" not in capsys.readouterr().out


def test_a_run_without_any_result_is_shown(tmp_path: Path) -> None:
    collected(tmp_path, "a", [], [(0, "countdown"), (10, "countdown")])
    found = matrix_of(tmp_path)
    assert [one.run for one in found.runs] == ["a"] and len(found.missing) == 2 and found.runs[0].results == 0


def test_nobody_knows_what_was_planned_for_imported_results(tmp_path: Path) -> None:
    theirs = {"checkpoints": None, "protocol": None, "source": "lm-evaluation-harness 0.4.9.1, results.json"}
    collected(tmp_path, "theirs", [record("theirs", 640, **theirs)])
    found = matrix_of(tmp_path)
    assert not found.runs[0].is_planned and "unknown what was planned" in found.runs[0].summary
    assert "of 1 cells" not in found.runs[0].summary


def test_reported_numbers_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collected(tmp_path, "reported", [record(SAFETY_RUN, 640, "HEx-PHI", origin="reported", checkpoints=None)])
    found = matrix_of(tmp_path)
    assert found.runs == () and all(shown.extent == "none" for shown in found.exhibits)
    assert SAFETY_RUN in found.absent
    assert main([f"results={tmp_path}"]) == 0 and "nothing is measured yet" in capsys.readouterr().out


def states(found: Matrix, kind: str, number: str) -> dict[str, str]:
    return dict(next(shown for shown in found.exhibits if (shown.kind, shown.number) == (kind, number)).runs)


def test_figures_say_how_much_of_each_run_there_is(tmp_path: Path) -> None:
    """Figure 6 shows safety at the last step and at the base; the attack success rate is what it shows."""
    model = "Qwen3-8B-Base"
    rate = {"metric": "attack success rate", "model": model}
    collected(tmp_path, SAFETY_RUN, [record(SAFETY_RUN, 640, "hex_phi", **rate)])
    found = states(matrix_of(tmp_path), "figure", "6")
    assert found[SAFETY_RUN] == "all" and found[model] == "none" and found["Qwen3-14B-Base"] == "none"
    collected(tmp_path, model, [record(model, 0, "hex_phi", **rate)])
    assert states(matrix_of(tmp_path), "figure", "6")[model] == "all"
    collected(tmp_path, SAFETY_RUN, [record(SAFETY_RUN, 320, "hex_phi", **rate)])
    assert states(matrix_of(tmp_path), "figure", "6")[SAFETY_RUN] == "none"


def test_a_table_of_all_steps_wants_every_checkpoint_of_the_recipe(tmp_path: Path) -> None:
    """The last step alone is what Table 2 shows, and only some of Table 13, which has other judges too."""
    run = "Qwen3-8B_Math-CoT-20k_lr5e-5_ep8_bs256"
    number = next(number for number, shown in TABLES.items() if shown.runs == (run,))
    metrics = [("ifeval", "instruction-level strict"), ("truthfulqa", "helpful"), ("alpaca_eval", "mean reward RB2")]
    usual = ("math500", "aime24", "livecodebench_v2", "gpqa_diamond", "mmlu_pro", "halueval")
    metrics += [(name, "pass@1") for name in usual]
    last = [record(run, 640, name, metric=metric, model="Qwen3-8B-Base") for name, metric in metrics]
    collected(tmp_path, run, last)
    found = matrix_of(tmp_path)
    assert states(found, "table", "2")[run] == "all" and states(found, "table", number)[run] == "some"
    steps = [10, 20, 40, 80, 160, 320, 480, 640]
    metrics += [("alpaca_eval", f"mean reward {judge}") for judge in ("Sky", "Mis")]
    every = [
        record(run, step, name, metric=metric, model="Qwen3-8B-Base") for step in steps for name, metric in metrics
    ]
    collected(tmp_path, run, every)
    assert states(matrix_of(tmp_path), "table", number)[run] == "all"


def test_lacking_cells_stand_in_lines_by_run_and_benchmark() -> None:
    cells = [Lack("b", 0, "MATH500"), Lack("a", 20, "IFEval"), Lack("a", 10, "IFEval"), Lack("a", 10, "MATH500")]
    assert by_benchmark(cells) == ["a: MATH500 at step 10", "a: IFEval at steps 10, 20", "b: MATH500 at step 0"]


def test_one_command_fills_all_runs_that_have_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in ("b", "a"):
        collected(tmp_path, run, [record(run, 0)], [(10, "countdown")])
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "recipe.yaml").touch()
    collected(tmp_path, "whole", [record("whole", 0)])
    monkeypatch.chdir(tmp_path)
    (line,) = to_fill(read_library(tmp_path), ["b", "whole", "a", "b"])
    assert line.endswith(" recipe=runs/a/recipe.yaml,runs/b/recipe.yaml; then the same command again")
    assert to_fill(read_library(tmp_path), ["whole"]) == []


@pytest.mark.parametrize(
    "module", ["behaviour", "claims.__main__", "compare", "completeness", "figures", "tables.__main__"]
)
def test_every_command_looks_in_the_current_folder(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = {"behaviour": ["run=a"], "compare": ["a", "b"]}.get(module, [])
    command = import_module(f"analysis.{module}").main
    assert command(words) == 2
    said = capsys.readouterr()
    assert f"no result file (*.json) in {tmp_path / 'results'}: " in said.err and not said.out
    collected(tmp_path / "results", "a", [record("a", 0)])
    collected(tmp_path / "results", "b", [record("b", 0)])
    assert command(words) in (0, PARTIAL)  # no details, no pictures
    assert {path.name for path in tmp_path.iterdir()} <= {"results", "figures", "tables"}


def test_bad_words_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder=x"]) == 2 and main([f"results={tmp_path}"]) == 2
    assert "no result file" in capsys.readouterr().err


def test_published_checkpoints_count_where_the_run_was_not_trained_here(tmp_path: Path) -> None:
    published = SAFETY_RUN + PUBLISHED
    collected(tmp_path, published, [record(published, 640, "hex_phi", metric="attack success rate")])
    (shown,) = [one for one in matrix_of(tmp_path).exhibits if (one.kind, one.number) == ("figure", "6")]
    assert shown.having("all") == [published] and SAFETY_RUN not in shown.runs
    collected(tmp_path, SAFETY_RUN, [record(SAFETY_RUN, 10, "hex_phi", metric="attack success rate")])
    (shown,) = [one for one in matrix_of(tmp_path).exhibits if (one.kind, one.number) == ("figure", "6")]
    assert shown.having("all") == [] and published not in shown.runs
