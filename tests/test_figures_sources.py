"""Whose numbers a figure shows: bases, published checkpoints and other harnesses are what they are, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from analysis import figures, style
from analysis.captions import caption, footer
from analysis.holdings import Library, read_library
from analysis.own_plans import own_plans, own_runs
from analysis.plans import Plan, paper_plan
from reprokit.recipe.load import PUBLISHED
from reprokit.records.paper import FIGURES
from reprokit.records.record import MissingCell, Record, Results, write_results
from tests.test_figures_by_id import COT, REPORTED, STEPS, assert_legible, drawn, measured, safety_of

BASE = "Qwen3-14B-Base"
HARNESS = "lm-evaluation-harness 0.4.9.1, results.json"


def library_of(folder: Path, *contents: Results, reported: bool = False) -> Library:
    folder.mkdir(exist_ok=True)
    for content in contents:
        write_results(folder / f"{content.run}.json", content)
    if reported:
        (folder / REPORTED.name).write_bytes(REPORTED.read_bytes())
    return read_library(folder)


def checkpoints(run: str, benchmark: str = "math500", **others: Any) -> Results:
    records = [measured(run, step, benchmark, 50.0 + step / 64, **others) for step in STEPS if step]
    return Results(run=run, records=records)


def base(benchmark: str = "math500", **others: Any) -> Results:
    return Results(run=BASE, records=[measured(BASE, 0, benchmark, 40.0, model=BASE, **others)])


def horizontal_lines(axes: Axes) -> list[float]:
    """Heights of the lines that reach over a whole panel."""
    lines = [
        np.asarray(line.get_ydata()).tolist()
        for line in axes.get_lines()
        if np.asarray(line.get_xdata()).tolist() == [0, 1]
    ]
    return sorted(float(low) for low, high in lines if low == high)


def panel_of(plan: Plan, title: str) -> Axes:
    (found,) = [axes for axes in drawn(plan).axes if title in [text.get_text() for text in axes.texts]]
    return found


def test_measured_checkpoints_are_not_held_against_a_reported_base(tmp_path: Path) -> None:
    plan = paper_plan(library_of(tmp_path / "without", checkpoints(COT), reported=True), "3")
    (panel,) = [panel for panel in plan.panels if panel.title == "MATH500"]
    assert {(one.place, one.origin) for one in panel.with_base_line()} == {(1, "reported"), (2, "reported")}
    assert horizontal_lines(panel_of(plan, "MATH500")) == [53.7, 76.8]  # not the 77.8 of Qwen3-14B
    plan = paper_plan(library_of(tmp_path / "with", checkpoints(COT), base(), reported=True), "3")
    assert horizontal_lines(panel_of(plan, "MATH500")) == [40.0, 53.7, 76.8]
    plan = paper_plan(library_of(tmp_path / "base alone", base(), reported=True), "3")
    assert horizontal_lines(panel_of(plan, "MATH500")) == [53.7, 76.8, 77.8]  # its checkpoints are the reported ones


def test_the_legend_tells_measured_bases_from_reported_ones_and_fits(tmp_path: Path) -> None:
    figure = drawn(paper_plan(library_of(tmp_path / "r", checkpoints(COT), base(), reported=True), "3"))
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert {"measured base (step 0)", "reported base (step 0)", "see note below"} <= set(labels)
    assert all(legend.get_window_extent().x1 <= figure.bbox.x1 for legend in figure.legends)
    tops = [legend.get_window_extent().y0 for legend in figure.legends]
    assert len(tops) == 3 and len(set(map(round, tops))) == 3


@pytest.mark.parametrize(
    "unlike",
    [{"samples_per_item": 1, "metric": "pass@1"}, {"items": 20}, {"source": HARNESS, "protocol": None}],
    ids=["samples", "items", "harness"],
)
def test_a_base_that_was_evaluated_in_another_way_is_named_and_not_drawn(
    tmp_path: Path, unlike: dict[str, Any]
) -> None:
    plan = paper_plan(library_of(tmp_path / "results", checkpoints(COT), base(**unlike)), "3")
    assert {point.step for point in plan.points} == set(STEPS) - {0}
    said = f"Not drawn, since measured in another way than the checkpoints: base values of {BASE} MATH500."
    assert said in footer(plan) and said in caption(plan)
    plan = paper_plan(library_of(tmp_path / "alike", checkpoints(COT), base()), "3")
    assert {point.step for point in plan.points} == set(STEPS)
    assert not any("another way" in line for line in footer(plan))


def test_a_base_of_this_kit_is_lent_before_one_of_another_harness(tmp_path: Path) -> None:
    other = Results(run="a", records=[measured("a", 0, "math500", 9.0, model=BASE, source=HARNESS, protocol=None)])
    own = Results(run="b", records=[measured("b", 0, "math500", 40.0, model=BASE)])
    plan = paper_plan(library_of(tmp_path / "results", checkpoints(COT), other, own), "3")
    assert [point.value for point in plan.panels[0].points if point.step == 0] == [40.0]


def test_values_of_another_harness_are_not_said_to_be_reported(tmp_path: Path) -> None:
    content = checkpoints(COT, source=HARNESS, protocol=None, note="measured by another harness")
    plan = paper_plan(library_of(tmp_path / "results", content), "3")
    assert f"Measured values from {HARNESS}." in footer(plan)
    assert f"Measured values from {HARNESS}." in caption(plan)
    assert not any(line.startswith("Reported") for line in footer(plan))


def test_published_checkpoints_stand_in_for_a_run_that_was_not_trained_here(tmp_path: Path) -> None:
    published = checkpoints(COT + PUBLISHED, checkpoints="published")
    library = library_of(tmp_path / "results", published, base())
    plan = paper_plan(library, "3")
    assert {point.step for point in plan.panels[0].points} == set(STEPS)
    said = f"Measured values from checkpoints that the authors published ({COT}{PUBLISHED})."
    assert said in footer(plan) and said in caption(plan)
    assert not any("No checkpoint known of: Qwen3-14B" in line for line in footer(plan))
    assert own_runs(library) == []
    library = library_of(tmp_path / "results", checkpoints(COT))  # now it is
    assert {e.record.run for p in paper_plan(library, "3").points for e in p.entries} == {COT, BASE}
    assert own_runs(library) == [COT + PUBLISHED]


def test_published_checkpoints_are_in_figures_of_single_steps(tmp_path: Path) -> None:
    run, safe = FIGURES["2"].runs[0] + PUBLISHED, FIGURES["6"].runs[0] + PUBLISHED
    one_epoch = Results(run=run, records=[measured(run, 80, "math500", 60.0, checkpoints="published")])
    harm = Results(run=safe, records=safety_of(safe, 640, 30.0))
    library = library_of(tmp_path / "results", one_epoch, base(), harm)
    assert [point.value for point in paper_plan(library, "2").points] == [20.0]
    assert [point.value for point in paper_plan(library, "6").points] == [30.0, 2.0]


def test_a_missing_cell_of_published_checkpoints_makes_the_figure_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_all_pictures", lambda plans: [[] for _ in plans])
    content = checkpoints(COT + PUBLISHED)
    lost: Record = content.records.pop(3)
    content.missing = [MissingCell(step=lost.step, benchmark=lost.benchmark)]
    library_of(tmp_path / "results", content)
    assert figures.main([f"results={tmp_path / 'results'}", f"out={tmp_path / 'out'}", "figure=3"]) == 3


def test_a_cell_that_is_gone_from_a_file_is_a_named_gap(tmp_path: Path) -> None:
    content = checkpoints(COT)
    content.records += [record for record in checkpoints(COT, "ifeval").records if record.step != 40]
    plan = paper_plan(library_of(tmp_path / "results", content), "3")
    assert f"No result yet of {COT}: IFEval (step 40)." in footer(plan)
    (panel,) = [panel for panel in plan.panels if panel.title == "IFEval"]
    assert [np.isnan(value) for value in panel.series[0].curve()].index(True) == STEPS[1:].index(40)


def test_a_run_whose_results_are_gone_is_named_beside_measured_ones(tmp_path: Path) -> None:
    plan = paper_plan(library_of(tmp_path / "results", checkpoints(COT), reported=True), "3")
    assert "No checkpoint measured of: Qwen3-8B; InternLM2.5-20B." in footer(plan)
    plan = paper_plan(read_library(REPORTED.parent), "3")  # nothing is measured: it needs no saying of each
    assert not any("No checkpoint measured of" in line for line in footer(plan))


def test_a_long_title_does_not_reach_into_the_next_panel(tmp_path: Path) -> None:
    names = [f"leaderboard math counting and prob hard {place}" for place in range(3)]
    records = [measured("r", step, name, 50.0) for step in STEPS for name in names]
    plan = own_plans(library_of(tmp_path / "results", Results(run="r", records=records)), "r")[0]
    figure = drawn(plan)
    with style.figure_style():
        assert_legible(figure)
    assert len({text.get_text() for axes in figure.axes for text in axes.texts if "\n" in text.get_text()}) == 3


def test_a_curve_of_steps_that_were_not_evaluated_alike_says_so(tmp_path: Path) -> None:
    content = checkpoints(COT, provenance="cold")
    content.provenance = {
        "cold": {"settings": {"temperature": 0.6}, "evaluation": {"vllm": "1"}},
        "hot": {"settings": {"temperature": 1.0}, "evaluation": {"vllm": "1"}},
        "new": {"settings": {"temperature": 0.6}, "evaluation": {"vllm": "2"}},
    }
    content.records[3].provenance = "new"  # other software is no other way of evaluation
    plan = paper_plan(library_of(tmp_path / "alike", content), "3")
    assert not any("evaluated alike" in line for line in footer(plan))
    content.records[3].provenance = "hot"
    library = library_of(tmp_path / "mixed", content)
    said = "Not all steps were evaluated alike: Qwen3-14B MATH500 (settings.temperature)."
    assert said in footer(paper_plan(library, "3")) and said in caption(paper_plan(library, "3"))
