"""The paper's figures by id: what is known is drawn as what it is, what is not known is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text as DrawnText

from analysis import figures, statistics, style
from analysis.captions import caption
from analysis.columns import Column
from analysis.exhibits import PICTURES, short_names
from analysis.holdings import read_library
from analysis.plans import Plan, paper_plan
from reprokit.records.files import sha256_of_file
from reprokit.records.paper import FIGURES, NINE
from reprokit.records.record import MissingCell, Record, Results, read_results, write_results
from reprokit.stages import figures_current

PROJECT = Path(__file__).resolve().parent.parent
REPORTED = PROJECT / "results" / "reported.json"
STEPS = [0, 10, 20, 40, 80, 160, 320, 480, 640]
DRAWN = {"2", "3", "4", "5", "7", "8", "9", "10", "12", "13", "14"}  # those of which numbers are reported
COT = FIGURES["3"].runs[0]
GAP = MissingCell(step=40, benchmark="gpqa_diamond")


def measured(run: str, step: int, benchmark: str, value: float, **others: Any) -> Record:
    judged = {"alpaca_eval": ("mean reward RB2", "reward"), "truthfulqa": ("helpful", "percent")}
    metric, unit = judged.get(benchmark, ("avg@3", "percent"))
    known: dict[str, Any] = {
        "model": f"{run.partition('_')[0]}-Base",
        "dataset": "d" if step else None,
        "items": 100,
        "samples_per_item": 3,
        "interval_low": value - 5,
        "interval_high": value + 5,
        "mean_response_tokens": 9000.0 + step,
        "truncated_fraction": 0.1,
    }
    known |= {"run": run, "step": step, "benchmark": benchmark, "metric": metric, "unit": unit, "protocol": "official"}
    return Record(value=value, origin="measured", **(known | others))


def curve_of(run: str, height: float, missing: list[MissingCell] | None = None) -> Results:
    """A run of the paper with all nine benchmarks at all steps but for the missing cells."""
    cells = [(step, benchmark) for step in STEPS for benchmark in NINE]
    lost = {(cell.step, cell.benchmark) for cell in missing or []}
    records = [measured(run, *cell, height + cell[0] / 64) for cell in cells if cell not in lost]
    return Results(run=run, records=records, missing=missing or [])


def safety_of(run: str, step: int, value: float) -> list[Record]:
    harm = {"metric": "mean harmfulness score", "unit": "score", "interval_low": 1.0, "interval_high": 3.0}
    attack = measured(run, step, "hex_phi", value, metric="attack success rate")
    return [attack, measured(run, step, "hex_phi", 2.0, headline=False, **harm)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The reported numbers, and measurements of the runs of figures 3 and 6, one cell of which is missing."""
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(REPORTED, folder)
    for place, run in enumerate(dict.fromkeys(FIGURES["3"].runs + FIGURES["6"].runs)):
        content = curve_of(run, 40.0 + 5 * place, [GAP] if run == COT else None)
        for step in (0, 640):
            content.records.extend(safety_of(run, step, 20.0 + place + step / 32))
        write_results(folder / f"{run}.json", content)
    return folder


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the drawing itself, which takes most of the time."""
    monkeypatch.setattr(figures, "figure_of", lambda plan: Figure())
    monkeypatch.setattr(figures, "render", lambda figure, extension: b"picture")


def plan_of(number: str, results: Path = PROJECT / "results") -> Plan:
    return paper_plan(read_library(results), number)


def drawn(plan: Plan) -> Figure:
    with style.figure_style():
        figure = figures.figure_of(plan)
        FigureCanvasAgg(figure).draw()
    return figure


def markers(axes: Axes, face: str | None = None) -> list[tuple[float, float]]:
    lines = [
        line for line in axes.get_lines() if line.get_linestyle() == "None" and str(line.get_marker()) not in "|_x"
    ]
    chosen = [line for line in lines if face is None or to_hex(line.get_markerfacecolor()) == to_hex(face)]
    return sorted(
        (float(x), float(y))
        for line in chosen
        for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
    )


def index_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "index.json").read_text())
    return content


@pytest.mark.usefixtures("without_pictures")
def test_every_figure_is_drawn_or_says_why_not(tmp_path: Path) -> None:
    stale = [tmp_path / f"figure_6.{extension}" for extension in ("pdf", "png", "json")]
    for path in stale:
        path.write_text("of numbers that are gone")
    figures.draw_all(PROJECT / "results", tmp_path)
    entries = {entry["figure"]: entry for entry in index_of(tmp_path)["figures"] if not entry["run"]}
    assert list(entries) == [str(number) for number in range(2, 16)] == list(PICTURES)
    for number, entry in entries.items():
        assert entry["caption"].startswith(f"Figure {number}. ")
        if number in DRAWN:
            assert entry["files"] == [f"figure_{number}.pdf", f"figure_{number}.png"] and "reason" not in entry
            assert all((tmp_path / name).exists() for name in [*entry["files"], entry["sidecar"]])
        else:
            assert entry["files"] == [] and f"python -m reprokit.launch figure={number}" in entry["reason"]
    assert not any(path.exists() for path in stale)
    # Numbers that are only reported have no folder of their run.
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["mini"]


@pytest.mark.usefixtures("without_pictures")
def test_a_sidecar_names_the_records(tmp_path: Path) -> None:
    figures.draw_all(PROJECT / "results", tmp_path, ["2"])
    sidecar = json.loads((tmp_path / "figure_2.json").read_text())
    assert sidecar["made_from"] == [{"file": "reported.json", "sha256": sha256_of_file(REPORTED), "records": 4}]
    assert [value["benchmark"] for value in sidecar["values"]] == ["AIME24", "IFEval", "MATH500", "TruthfulQA"]
    assert sidecar["records"]["count"] == sidecar["values_drawn"] == 4
    assert "HaluEval" in sidecar["without_values"] and "MATH500" not in sidecar["without_values"]


def test_reported_changes_of_one_epoch_stand_at_their_values() -> None:
    plan = plan_of("2")
    (axes,) = drawn(plan).axes
    records = read_results(REPORTED).records
    assert [x for x, _ in markers(axes)] == sorted(r.value for r in records if r.unit == "percentage points")
    labels = [label.get_text() for label in axes.get_yticklabels()]
    groups = ("in-domain reasoning", "OOD reasoning", "general ability")
    assert [label for label in labels if label in groups] == list(groups)
    assert labels.index("MATH500") < labels.index("OOD reasoning") < labels.index("GPQA-D")
    assert sum(text.get_text() == "no value known" for text in axes.texts) == 5


def test_measured_changes_are_those_of_the_statistics(tmp_path: Path) -> None:
    (run,) = FIGURES["2"].runs
    records = [measured(run, step, benchmark, 50.0 + step / 8) for step in (0, 80) for benchmark in NINE]
    write_results(tmp_path / "run.json", Results(run=run, records=records))
    library = read_library(tmp_path)
    plan = paper_plan(library, "2")
    before, after = (library.best(run, step, Column("IFEval"), "measured") for step in (0, 80))
    assert before is not None and after is not None
    expected = statistics.difference(library, before, after)
    (row,) = [row for block in plan.blocks for row in block.rows if row.label == "IFEval"]
    (point,) = row.series[0].points
    assert point.value == expected.effect == 10.0
    assert (point.low, point.high) == (expected.low, expected.high) and expected.low is not None
    assert [block.unit for block in plan.blocks] == ["percentage points", "reward"]


def test_measured_is_filled_with_intervals_and_reported_is_hollow(results: Path) -> None:
    plan = plan_of("3", results)
    axes = drawn(plan).axes[0]
    assert [panel.title for panel in plan.panels][:2] == ["MATH500", "AIME24"] and len(plan.panels) == 9
    hollow = markers(axes, face="white")
    assert (640.0, 95.1) in hollow and (640.0, 40.0 + 10) not in hollow and (640.0, 40.0 + 10) in markers(axes)
    bars = [segment for one in axes.collections if isinstance(one, LineCollection) for segment in one.get_segments()]
    assert len(bars) == len(FIGURES["3"].runs) * len(STEPS)
    looks = {
        (to_hex(line.get_color()), line.get_marker()) for line in axes.get_lines() if str(line.get_marker()) in "os^"
    }
    assert len(looks) == 3
    assert len(plan.strips) == 9 and {strip.unit for strip in plan.strips} == {"tokens"}


@pytest.mark.usefixtures("without_pictures")
def test_a_lost_cell_is_a_gap_and_the_exit_code_says_partial(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"results={results}", f"out={tmp_path / 'out'}"]
    assert figures.main([*words, "figure=3"]) == 3
    said = capsys.readouterr().out
    assert f"partial: no result yet of {COT}: GPQA-D (step 40)\nto fill: " in said
    assert f" -m reprokit.launch recipe=runs/{COT}/recipe.yaml" in said and "1 figure (PDF and PNG) of " in said
    (entry,) = index_of(tmp_path / "out")["figures"]
    assert entry["missing"] == {COT: [{"step": 40, "benchmark": "GPQA-D"}]}
    assert "GPQA-D (step 40)" in entry["caption"]
    (panel,) = [panel for panel in plan_of("3", results).panels if panel.title == "GPQA-D"]
    curve = panel.series[0].curve()
    assert [step for step, value in zip(STEPS, curve, strict=True) if np.isnan(value)] == [40]
    assert figures.main([*words, "figure=6"]) == 0  # which does not show that benchmark


def test_safety_has_a_row_per_model_and_data_set(results: Path) -> None:
    plan = plan_of("6", results)
    assert [block.kind for block in plan.blocks] == ["HEx-PHI ASR", "HEx-PHI harmfulness"]
    rows = [(row.group, row.label, row.series[0].points[0].value) for row in plan.blocks[0].rows]
    assert rows[:3] == [
        ("Qwen3-14B", "base", 20.0),
        ("Qwen3-14B", "Math-CoT-20k", 40.0),
        ("Qwen3-14B", "Math-NoCoT-20k", 43.0),
    ]
    assert len(rows) == 9 and len(drawn(plan).axes) == 2


def test_a_reported_range_is_a_bar_and_no_point() -> None:
    plan = plan_of("13")
    (panel,) = plan.panels
    (series,) = panel.series
    assert [(point.step, point.low, point.high) for point in series.ranges] == [(20, 28e3, 30e3), (640, 7e3, 23e3)]
    axes = drawn(plan).axes[0]
    assert markers(axes) == []
    bars = [
        np.asarray(line.get_ydata()).tolist() for line in axes.get_lines() if len(np.asarray(line.get_ydata())) == 2
    ]
    assert bars == [[28e3, 30e3], [7e3, 23e3]]
    assert "No checkpoint known of: Qwen3-1.7B; Qwen3-8B; Qwen3-14B." in caption(plan)


def test_where_only_the_bases_are_known_it_is_said() -> None:
    plan = plan_of("8")
    assert plan.subtitle.startswith("Values of the base models; of their checkpoints none is known")
    assert "Reported in the paper: Qwen2.5-1.5B; Qwen2.5-7B; Qwen2.5-14B (base)." in caption(plan)


def test_runs_without_checkpoints_do_not_repeat_a_base_that_another_shows(tmp_path: Path) -> None:
    plan, labels = plan_of("4"), list(short_names(FIGURES["4"].runs).values())
    assert {series.label for series in plan.series} == {labels[0]} and len(plan.panels) == 9
    assert f"No checkpoint known of: {'; '.join(labels[1:])}." in caption(plan)
    assert f"Reported in the paper: {labels[0]} (base, step 640). " in caption(plan)
    assert {series.label for series in plan_of("7").series} == set(short_names(FIGURES["7"].runs).values())
    shutil.copy(REPORTED, tmp_path)
    late = FIGURES["4"].runs[2]
    write_results(tmp_path / f"{late}.json", curve_of(late, 40.0))
    shown = {(series.label, series.origin) for series in plan_of("4", tmp_path).series}
    assert shown == {(labels[0], "reported"), (labels[2], "measured")}


def test_a_base_that_no_checkpoint_goes_with_is_drawn_once(tmp_path: Path) -> None:
    base = "Qwen3-14B-Base"
    write_results(tmp_path / "base.json", Results(run=base, records=[measured(base, 0, "math500", 40.0, model=base)]))
    (panel,) = plan_of("9", tmp_path).panels
    assert [series.label for series in panel.series] == list(short_names(FIGURES["9"].runs).values())[:1]


def test_a_doubt_about_a_shared_base_is_told_once() -> None:
    notes = [line for line in figures.footer(plan_of("4")) if "gives 41.8" in line]
    assert notes == ["Note: Qwen3-14B-Base GPQA-D (step 0): Table 5 gives 41.8 for the same base model."]


def test_runs_are_called_by_what_differs() -> None:
    assert list(short_names(FIGURES["3"].runs).values()) == ["Qwen3-14B", "Qwen3-8B", "InternLM2.5-20B"]
    assert list(short_names(FIGURES["4"].runs).values())[2:] == [
        "lr 5e-5, 16 epochs, constant",
        "lr 1e-4, 16 epochs, constant",
    ]
    assert list(short_names(FIGURES["2"].runs).values()) == ["Qwen3-14B"]


def test_four_series_differ_in_colour_in_marker_and_in_grey() -> None:
    looks = [style.look(place) for place in range(4)]
    assert len({look.marker for look in looks}) == len({look.color for look in looks}) == 4
    grey = sorted(float(np.dot(to_rgb(look.color), (0.299, 0.587, 0.114))) for look in looks)
    assert min(np.diff(grey)) > 0.08 and grey[-1] < 0.75


@pytest.mark.usefixtures("without_pictures")
def test_one_figure_alone_leaves_the_others_in_the_index(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    figures.draw_all(results, out, ["2", "6"])
    before = index_of(out)
    figures.draw_all(results, out, ["3"])
    after = index_of(out)
    assert [entry["figure"] for entry in after["figures"]] == ["2", "3", "6"]
    assert [entry for entry in after["figures"] if entry["figure"] != "3"] == before["figures"]


def test_a_drawing_and_an_unknown_figure_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.main(["figure=1"]) == 2
    assert "is a drawing without numbers" in capsys.readouterr().err
    assert figures.main(["figure=3,99"]) == 2
    assert "figure 99 of the paper does not exist" in capsys.readouterr().err


@pytest.mark.usefixtures("without_pictures")
def test_figures_are_current_until_a_result_changes(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    path = results / f"{COT}.json"
    write_results(path, curve_of(COT, 40.0))
    assert not figures_current(path, out)
    figures.draw_all(results, out)
    assert figures_current(path, out)
    (out / "figure_4.png").unlink()
    assert not figures_current(path, out)
    figures.draw_all(results, out)
    write_results(path, curve_of(COT, 41.0))
    assert not figures_current(path, out)
    figures.draw_all(results, out, ["3"])
    assert not figures_current(path, out)  # figure 4 is still of the old values
    figures.draw_all(results, out)
    assert figures_current(path, out)


def test_bytes_do_not_depend_on_the_process_or_its_cores(results: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    figures.draw_all(results, here, ["3", "6"])
    code = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from analysis import figures; sys.exit(figures.main(sys.argv[1:]))"
    words = [f"results={results}", f"out={there}", "figure=3,6"]
    subprocess.run([sys.executable, "-c", code, *words], cwd=PROJECT, env={**os.environ, "PYTHONHASHSEED": "2"})
    contents = [{path.name: path.read_bytes() for path in out.iterdir()} for out in (here, there)]
    assert len(contents[0]) == 7
    assert contents[0] == contents[1]


def visible_texts(figure: Figure) -> list[DrawnText]:
    """All words of a figure but the labels of ticks outside the axes, which matplotlib does not draw."""
    outside = {
        id(label)
        for axes in figure.axes
        for axis, limits in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim())))
        for label, place in zip(axis.get_majorticklabels(), axis.get_majorticklocs(), strict=True)
        if not limits[0] - 1e-9 <= place <= limits[1] + 1e-9
    }
    texts = [text for text in figure.findobj(DrawnText) if text.get_visible() and text.get_text().strip()]
    return [text for text in texts if id(text) not in outside]


def assert_legible(figure: Figure) -> None:
    """No word is clipped, covered by another, or smaller than 6.5 points."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = visible_texts(figure)
    assert min(float(text.get_fontsize()) for text in texts) >= style.SMALL_SIZE >= 6.5
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    title = figure.texts[0].get_text()
    for place, (words, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, (title, words)
        for other_words, other in boxes[place + 1 :]:
            if not words.startswith("\n") and not other_words.startswith("\n"):
                assert not box.padded(-1).overlaps(other.padded(-1)), (title, words, other_words)


@pytest.mark.parametrize("number", [number for number in FIGURES if number in DRAWN])
def test_no_word_is_clipped_or_covered_in_reported_figures(number: str) -> None:
    figure = drawn(plan_of(number))
    with style.figure_style():
        assert_legible(figure)
    assert figure.get_figheight() < 11.6  # fits on a page of A4


@pytest.mark.parametrize("number", ["3", "5", "6"])
def test_no_word_is_clipped_or_covered_in_measured_figures(number: str, results: Path) -> None:
    figure = drawn(plan_of(number, results))
    with style.figure_style():
        assert_legible(figure)
    assert figure.get_figheight() < 11.6  # fits on a page of A4
