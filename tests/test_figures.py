"""Figures are complete, honest about what is not known, legible, and the same bytes every time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis import figures, style
from analysis.captions import footer
from analysis.drawing import draw_grid, grid_rows
from analysis.holdings import Library, read_library
from analysis.marks import Text
from analysis.names import benchmark_name
from analysis.own_plans import headline_columns, own_plans
from analysis.panels import LENGTH, SCORE, TRUNCATED, Choice, Panel, Shown, build_panels, notes_on
from reprokit.errors import UserError
from reprokit.records.details import Behaviour, CellDetails, Details, Lengths, details_path
from reprokit.records.files import sha256_of_file, write_json
from reprokit.records.record import MissingCell, Record, Results, write_results
from reprokit.stages import figures_current

PROJECT = Path(__file__).resolve().parent.parent
STEPS = [0, 10, 20, 40, 80, 160, 320, 480, 640]
GAP = 40


def make_record(run: str, step: int, benchmark: str, value: float, **others: Any) -> Record:
    defaults: dict[str, Any] = {
        "model": "tiny",
        "metric": "avg@4",
        "unit": "percent",
        "origin": "measured",
        "items": 100,
        "samples_per_item": 4,
    }
    return Record(run=run, step=step, benchmark=benchmark, value=value, **(defaults | others))


def mini_results() -> Results:
    """Three benchmarks at nine steps with intervals and lengths; one cell is missing."""
    records = [
        make_record(
            "mini",
            step,
            benchmark,
            top * step / 640,
            dataset="puzzles",
            interval_low=max(0.0, top * step / 640 - 4),
            interval_high=top * step / 640 + 6,
            mean_response_tokens=500 - step / 4,
            truncated_fraction=1 - step / 640,
        )
        for benchmark, top in (("countdown", 86), ("chain_sum", 12), ("syllogism", 30))
        for step in STEPS
        if (benchmark, step) != ("chain_sum", GAP)
    ]
    return Results(run="mini", records=records, missing=[MissingCell(step=GAP, benchmark="chain_sum")])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with a run that has a gap, and a run of one step."""
    folder = tmp_path / "results"
    write_results(folder / "mini.json", mini_results())
    lonely = [make_record("lonely", 0, name, 5.0, model="other", interval_low=2.0, interval_high=9.0) for name in "ab"]
    write_results(folder / "lonely.json", Results(run="lonely", records=lonely))
    return folder


def library_of(files: list[Results], tmp_path: Path) -> Library:
    folder = tmp_path / "some_results"
    for number, content in enumerate(files):
        write_results(folder / f"{number}.json", content)
    return read_library(folder)


def panels_of(files: list[Results], run: str, tmp_path: Path, choice: Choice = SCORE) -> list[Panel]:
    library = library_of(files, tmp_path)
    return build_panels(library, [Shown(run)], headline_columns(library, run), choice)


def drawn(panels: list[Panel], strips: list[Panel] | None = None) -> Figure:
    with style.figure_style():
        figure = draw_grid(Text("title", "subtitle", ["footer"]), grid_rows(panels, strips or []))
        FigureCanvasAgg(figure).draw()
    return figure


def curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Lines that join steps: not markers alone, not the horizontal line of the base."""
    return [
        (np.asarray(line.get_xdata(), dtype=float).tolist(), np.asarray(line.get_ydata(), dtype=float).tolist())
        for line in axes.get_lines()
        if line.get_linestyle() != "None" and len(np.unique(np.asarray(line.get_xdata()))) > 2
    ]


def marker_points(axes: Axes, face: str | None = None) -> set[tuple[float, float]]:
    return {
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() not in ("None", "|") and line.get_linestyle() == "None"
        if face is None or to_hex(line.get_markerfacecolor()) == to_hex(face)
        for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
    }


def test_every_run_is_drawn_and_listed(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    written = figures.draw_all(results, out)
    names = ("lonely/score", "mini/score", "mini/response_length")
    expected = {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}
    sidecars = {f"{name}.json" for name in names}
    assert {str(path.relative_to(out)) for path in written} == expected | sidecars | {"index.json"}
    assert all(path.stat().st_size > 0 for path in written)
    assert (out / "mini/score.pdf").read_bytes().startswith(b"%PDF")
    index = json.loads((out / "index.json").read_text())["figures"]
    assert {file for entry in index for file in entry["files"]} == expected
    (mini_score,) = [entry for entry in index if "mini/score.pdf" in entry["files"]]
    source = {"file": "mini.json", "sha256": sha256_of_file(results / "mini.json"), "records": 26}
    assert mini_score["made_from"] == [source] and mini_score["values_drawn"] == 26
    sidecar = json.loads((out / "mini/score.json").read_text())
    assert len(sidecar["values"]) == len({value["sha256"] for value in sidecar["values"]}) == 26
    assert mini_score["missing"] == {"mini": [{"step": GAP, "benchmark": "Chain sum"}]}
    assert "Chain sum (step 40)" in mini_score["caption"]


def test_figures_of_runs_that_are_gone_stay(results: Path, tmp_path: Path) -> None:
    old = tmp_path / "figures/old_run/score.pdf"
    old.parent.mkdir(parents=True)
    old.write_text("precious")
    figures.draw_all(results, tmp_path / "figures")
    assert old.read_text() == "precious"
    assert "old_run" not in (tmp_path / "figures/index.json").read_text()


def test_bytes_do_not_depend_on_process_hash_seed_or_user_settings(results: Path, tmp_path: Path) -> None:
    settings = tmp_path / "matplotlibrc"
    settings.write_text("font.size: 30\naxes.facecolor: red\npdf.fonttype: 3\n")
    here, there = tmp_path / "here", tmp_path / "there"
    figures.draw_all(results, here)
    command = [sys.executable, "-m", "analysis.figures", f"results={results}", f"out={there}"]
    others = {"MATPLOTLIBRC": str(settings), "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "2"}
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, **others})
    assert done.returncode == 3  # a cell is missing
    contents = [{str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")} for out in (here, there)]
    assert len(contents[0]) == 10
    assert contents[0] == contents[1]


def test_a_gap_is_not_joined(tmp_path: Path) -> None:
    panels = panels_of([mini_results()], "mini", tmp_path)
    figure = drawn(panels)
    assert [panel.benchmark for panel in panels] == ["Countdown", "Chain sum", "Syllogism"]
    for panel, axes in zip(panels, figure.axes, strict=True):
        ((steps, values),) = curves(axes)
        assert steps == STEPS
        unknown = [step for step, value in zip(steps, values, strict=True) if math.isnan(value)]
        assert unknown == ([GAP] if panel.benchmark == "Chain sum" else [])
        assert {step for step, _ in marker_points(axes)} == set(STEPS) - set(unknown)
        assert GAP in axes.get_xticks()


def test_a_step_that_no_benchmark_has_is_a_gap_when_it_is_missing(tmp_path: Path) -> None:
    records = [make_record("r", step, "countdown", 1.0 * step) for step in (0, 10, 40, 80)]
    missing = [MissingCell(step=20, benchmark="countdown")]
    without = drawn(panels_of([Results(run="r", records=records)], "r", tmp_path))
    ((steps, values),) = curves(without.axes[0])
    assert (steps, values) == ([0, 10, 40, 80], [0, 10, 40, 80])
    library = library_of([Results(run="r", records=records, missing=missing)], tmp_path)
    (plan,) = own_plans(library, "r")
    ((steps, values),) = curves(drawn(plan.panels).axes[0])
    assert steps[2] == 20 and math.isnan(values[2])
    assert "Countdown (step 20)" in " ".join(footer(plan))


def test_two_known_steps_are_points_without_a_line(tmp_path: Path) -> None:
    records = [make_record("r", step, "countdown", 1.0 * step) for step in (0, 80)]
    panels = panels_of([Results(run="r", records=records)], "r", tmp_path)
    assert panels[0].series[0].curve() == []
    assert marker_points(drawn(panels).axes[0]) == {(0.0, 0.0), (80.0, 80.0)}


def test_intervals_and_base_line_are_at_their_values(tmp_path: Path) -> None:
    results = mini_results()
    axes = drawn(panels_of([results], "mini", tmp_path)).axes[0]
    bars = {
        (round(float(segment[0][0])), round(float(segment[0][1]), 6), round(float(segment[1][1]), 6))
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    }
    countdown = [record for record in results.records if record.benchmark == "countdown"]
    assert bars == {(r.step, round(r.interval_low or 0.0, 6), round(r.interval_high or 0.0, 6)) for r in countdown}
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [np.asarray(line.get_ydata()).tolist() for line in dashed] == [[0.0, 0.0]]


def test_lengths_and_truncation(tmp_path: Path) -> None:
    lengths, cut = (panels_of([mini_results()], "mini", tmp_path, choice) for choice in (LENGTH, TRUNCATED))
    assert [point.value for point in lengths[0].points] == [500 - step / 4 for step in STEPS]
    assert [point.value for point in cut[0].points] == [100 * (1 - step / 640) for step in STEPS]
    figure = drawn(lengths, cut)
    assert len(figure.axes) == 6
    assert {axes.get_ylabel() for axes in figure.axes} == {"length (tokens)", "truncated\n(%)", ""}


def test_step_0_is_lent_by_the_base_of_the_same_model_only(tmp_path: Path) -> None:
    trained = [make_record("trained", step, "math500", 60.0, dataset="d", items=500) for step in (10, 20)]
    bases = [
        make_record("base", 0, "MATH500", 50.0, items=500),
        make_record("base", 0, "MATH500", 51.0, items=20),
        make_record("base", 0, "MATH500", 52.0, items=500, origin="reported"),
        make_record("base", 0, "MATH500", 53.0, items=500, metric="pass@1"),
        make_record("base", 0, "AIME24", 54.0, items=500),
        make_record("other base", 0, "MATH500", 55.0, items=500, model="large"),
    ]
    files = [Results(run="trained", records=trained), Results(run="bases", records=bases)]
    (panel,) = panels_of(files, "trained", tmp_path)
    measured, reported = panel.series
    assert [(point.step, point.value) for point in measured.points] == [(0, 50.0), (10, 60.0), (20, 60.0)]
    assert [(point.step, point.value) for point in reported.points] == [(0, 52.0)]
    own = [*trained, make_record("trained", 0, "math500", 49.0, items=500)]
    (panel,) = panels_of([Results(run="trained", records=own), files[1]], "trained", tmp_path)
    assert panel.series[0].points[0].value == 49.0


def test_measured_and_reported_share_a_panel_and_look_different(tmp_path: Path) -> None:
    steps = (0, 10, 20)
    measured = [make_record("r", step, "math500", 50.0 + step) for step in steps]
    reported = [make_record("r", step, "MATH500", 40.0 + step, items=500, origin="reported") for step in steps]
    files = [Results(run="r", records=measured), Results(run="reported", records=reported)]
    panels = panels_of(files, "r", tmp_path)
    assert [panel.caption() for panel in panels] == [
        "avg@4, measured 100 items × 4 samples, reported 500 items × 4 samples"
    ]
    axes = drawn(panels).axes[0]
    assert {line.get_linestyle() for line in axes.get_lines()} >= {"-", "-."}
    assert {value for _, value in marker_points(axes, face="white")} == {40.0, 50.0, 60.0}  # hollow: reported
    assert {value for _, value in marker_points(axes)} == {40.0, 50.0, 60.0, 70.0}


def test_same_number_twice_is_one_point_and_two_readings_are_both_shown(tmp_path: Path) -> None:
    twice = [make_record("r", 10, "GPQA-Diamond", 41.8, origin="reported", source=source) for source in ("T1", "T2")]
    other = make_record("r", 10, "GPQA-Diamond", 44.1, origin="reported", source="T3", note="T1 gives 41.8")
    later = make_record("r", 20, "GPQA-Diamond", 50.0, origin="reported")
    panels = panels_of([Results(run="r", records=[*twice, other, later])], "r", tmp_path)
    axes = drawn(panels).axes[0]
    assert len(panels[0].points) == 3 and len(panels[0].points[0].entries) == 2
    assert marker_points(axes) == {(10.0, 41.8), (10.0, 44.1), (20.0, 50.0)}
    crosses = [line for line in axes.get_lines() if line.get_marker() == style.DOUBT_MARKER]
    assert [np.asarray(line.get_ydata()).tolist() for line in crosses] == [[44.1]]
    assert notes_on([(panels[0].title, panels[0].series[0])]) == ["GPQA-D (step 10): T1 gives 41.8"]


def test_steps_of_the_paper_are_all_labelled_in_order(tmp_path: Path) -> None:
    figure = drawn(panels_of([mini_results()], "mini", tmp_path))
    axes = figure.axes[0]
    labels = [label.get_text().strip() for label in axes.get_xticklabels()]
    assert labels == [str(step) for step in STEPS]
    places = axes.transData.transform([(step, 0.0) for step in STEPS])[:, 0]
    gaps = np.diff(places)
    assert (gaps > 0).all()
    assert gaps[1] == pytest.approx(gaps[4])  # 10 to 20 and 80 to 160: a doubling is a doubling


def some_details(step: int, backtracking: int) -> CellDetails:
    """Details of a Countdown cell of `mini_results`."""
    found = Behaviour(responses=backtracking, occurrences=2 * backtracking, per_thousand_tokens=1.0)
    return CellDetails(
        step=step,
        benchmark="countdown",
        metric="avg@4",
        unit="percent",
        digest="d",
        items={str(item): 0.86 * step / 640 for item in range(100)},
        finished=Lengths(responses=60, mean_tokens=300 - step / 4),
        truncated=Lengths(responses=40, mean_tokens=800 - step / 4),
        unfinished_thinking=25,
        behaviour={"backtracking": found},
        made_from="m",
        detectors=1,
    )


def test_behaviour_is_drawn_from_details(results: Path, tmp_path: Path) -> None:
    path = details_path(results, "mini")
    out = tmp_path / "figures"
    write_json(path, Details(run="mini", cells=[some_details(step, 10 + step // 40) for step in STEPS]))
    figures.draw_all(results, out)
    (entry,) = [e for e in json.loads((out / "index.json").read_text())["figures"] if e["figure"] == "behaviour"]
    assert entry["run"] == "mini" and (out / "mini/behaviour.pdf").exists()
    assert [source["file"] for source in entry["made_from"]] == ["details/mini.json"]
    plan = own_plans(read_library(results), "mini")[-1]
    (panel,), (strip,) = plan.panels, plan.strips
    assert [point.value for point in panel.points] == pytest.approx([10 + step // 40 for step in STEPS])
    assert {point.value for point in strip.points} == {25.0}
    assert all(point.low is not None and point.low < point.value for point in plan.points)
    assert figures_current(results / "mini.json", out)
    write_json(path, Details(run="mini", cells=[some_details(0, 50)]))
    assert not figures_current(results / "mini.json", out)


def test_damaged_files_are_all_named_and_nothing_is_drawn(results: Path, tmp_path: Path) -> None:
    (results / "half.json").write_text('{"run": "half", "records": [')
    (results / "newer.json").write_text('{"schema": 99, "run": "newer", "records": []}')
    (results / "shape.json").write_text('{"run": "shape", "records": [{"value": "high"}]}')
    (results / "folder.json").mkdir()
    command = [sys.executable, "-m", "analysis.figures", f"results={results}", f"out={tmp_path / 'figures'}"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "4 of 6 result files" in done.stderr and "Traceback" not in done.stderr
    for name in ("half", "newer", "shape", "folder"):
        assert str(results / f"{name}.json") in done.stderr
    assert "mini.json" not in done.stderr and "move them out" in done.stderr
    assert not (tmp_path / "figures").exists()


def test_bad_input_is_said_clearly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.main([f"results={tmp_path}"]) == 2
    assert "no result file" in capsys.readouterr().err
    assert figures.main(["result=here"]) == 2
    assert "valid: results=DIR out=DIR" in capsys.readouterr().err
    assert figures.main(["results"]) == 2
    assert "not of the form key=value" in capsys.readouterr().err
    write_results(tmp_path / "r.json", Results(run="r", records=[make_record("../r", 0, "countdown", 1.0)]))
    with pytest.raises(UserError, match="cannot name a folder"):
        figures.draw_all(tmp_path, tmp_path / "figures")


def test_a_file_without_records_is_told(results: Path, tmp_path: Path) -> None:
    write_results(results / "new.json", Results(run="new", records=[]))
    figures.draw_all(results, tmp_path / "figures")
    assert json.loads((tmp_path / "figures/index.json").read_text())["files_without_records"] == ["new.json"]


def test_the_heading_names_the_training_and_not_the_base(tmp_path: Path) -> None:
    records = [make_record("r", 0, "x", 1.0), make_record("r", 10, "x", 2.0, dataset="puzzles", learning_rate=1e-3)]
    (plan,) = own_plans(library_of([Results(run="r", records=records)], tmp_path), "r")
    assert plan.subtitle == "Score against step. tiny, puzzles, learning rate 0.001"


def test_spellings_of_one_benchmark_are_one() -> None:
    assert {benchmark_name(name) for name in ("LiveCodeBench v2", "livecodebench_v2")} == {"LCB v2"}
    assert benchmark_name("zebra") == "zebra"


def test_drawing_needs_no_torch() -> None:
    code = "import sys, analysis.figures; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
