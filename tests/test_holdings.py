"""Looking numbers up, and details that are not those of the numbers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from analysis.columns import Column
from analysis.holdings import Library, read_library
from analysis.runs import Entry
from analysis.statistics import difference
from reprokit.errors import UserError
from reprokit.records.details import Case, CellDetails, Details, Lengths, details_path
from reprokit.records.files import write_json
from reprokit.records.record import Record, Results, write_results

SHARES = {0: 0.25, 10: 0.75}


def record(step: int, value: float, **others: Any) -> Record:
    given = {"run": "tiny", "model": "base", "benchmark": "truthfulqa", "metric": "helpful", "unit": "percent"}
    given |= {"protocol": "official", "origin": "measured", "mean_response_tokens": 40.0, "items": 8}
    given |= {"interval_low": value - 9, "interval_high": value + 9}
    return Record(step=step, value=value, **(given | others))


def cell(step: int, share: float, benchmark: str = "truthfulqa", **others: Any) -> CellDetails:
    given: dict[str, Any] = {"metric": "helpful", "unit": "percent", "digest": "d", "made_from": "m", "detectors": 1}
    given |= {"finished": Lengths(responses=6, mean_tokens=30.0), "truncated": Lengths(responses=2, mean_tokens=70.0)}
    given |= {"items": {f"item {place}": float(place < 8 * share) for place in range(8)}}
    given |= {"behaviour": {}, "unfinished_thinking": 0}
    return CellDetails(step=step, benchmark=benchmark, **(given | others))


CASES = [
    Case(benchmark=name, item="item 0", pattern="right", prompt="?", responses=[]) for name in ("ifeval", "truthfulqa")
]


def library_of(folder: Path, records: list[Record], cells: list[CellDetails]) -> Library:
    write_results(folder / "tiny.json", Results(run="tiny", records=records))
    write_json(details_path(folder, "tiny"), Details(run="tiny", cells=cells, cases=CASES))
    return read_library(folder)


def records() -> list[Record]:
    helpful = [record(step, 100 * share) for step, share in SHARES.items()]
    return [*helpful, *(record(step, 50.0, metric="truthful", headline=False) for step in SHARES)]


def test_only_the_metric_of_the_values_is_paired_by_problem(tmp_path: Path) -> None:
    """The details have the values of the headline: those of another metric of the cell are not known."""
    library = library_of(tmp_path, records(), [cell(step, share) for step, share in SHARES.items()])
    helpful, truthful = (
        [Entry(one, "tiny.json") for one in records() if one.metric == metric] for metric in ("helpful", "truthful")
    )
    assert difference(library, *helpful).method.startswith("paired") and difference(library, *helpful).effect == 50.0
    found = difference(library, *truthful)
    assert (found.effect, found.method[:4]) == (0.0, "from")
    assert library.cell_details(truthful[0]) is not None  # lengths and behaviour are those of the cell


@pytest.mark.parametrize(
    "stale",
    [
        {"items": {f"item {place}": float(place < 5) for place in range(8)}},
        {"weights": {f"item {place}": 2.0 if place == 7 else 1.0 for place in range(8)}},
        {"weights": {f"item {place}": 0.0 for place in range(8)}},
        {"truncated": Lengths(responses=2, mean_tokens=71.0)},
        {"metric": "truthful"},
        {"unit": "score"},
        {"step": 20},
    ],
    ids=lambda stale: next(iter(stale)),
)
def test_details_of_other_results_are_left_out_and_named(
    stale: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [cell(0, SHARES[0]), msgspec.structs.replace(cell(10, SHARES[10]), **stale)]
    library = library_of(tmp_path, records(), cells)
    first, second = (Entry(one, "tiny.json") for one in records()[:2])
    assert library.cell_details(first) is not None and library.cell_details(second) is None
    assert difference(library, first, second).method.startswith("from the two intervals")
    assert [case.benchmark for case in library.details["tiny"].cases] == ["ifeval"]
    assert "details of 1 of 2 cells of run tiny are left out" in capsys.readouterr().err


def test_details_of_the_results_are_all_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those without one usable verdict on the headline too."""
    silent = record(0, 3.0, benchmark="alpaca_eval", metric="mean reward Sky", unit="reward", headline=False)
    without = cell(0, 0.0, "alpaca_eval", metric="mean reward RB2", unit="reward", items={})
    library = library_of(tmp_path, [*records(), silent], [cell(0, SHARES[0]), cell(10, SHARES[10]), without])
    assert len(library.details["tiny"].cells) == 3 and len(library.details["tiny"].cases) == 2
    assert capsys.readouterr().err == ""


def test_numbers_of_another_harness_do_not_take_the_details_that_lie_there(tmp_path: Path) -> None:
    other = [record(0, 25.0, source="lighteval, results.json", protocol=None, mean_response_tokens=None)]
    assert library_of(tmp_path, other, [cell(0, SHARES[0])]).details["tiny"].cells == []


def test_two_files_of_one_run_are_refused(tmp_path: Path) -> None:
    """A copy of an earlier state would stand for the run, or be drawn over it."""
    for name, value in (("tiny", 25.0), ("tiny-old", 99.0)):
        write_results(tmp_path / f"{name}.json", Results(run="tiny", records=[record(0, value)]))
    with pytest.raises(UserError, match=r"tiny-old\.json of run tiny, tiny\.json of run tiny"):
        read_library(tmp_path)


def test_step_0_is_the_runs_own_else_its_bases_else_that_of_the_first_other_run(tmp_path: Path) -> None:
    column = Column("TruthfulQA", "helpful")
    values = {"base": 1.0, "a": 2.0, "b": 3.0}

    def step_0_of_c(*names: str) -> float | None:
        records = [record(0, values[name], run=name) for name in reversed(names)]
        for one in (*records, record(10, 9.0, run="c", dataset="rows")):
            write_results(tmp_path / f"{one.run}.json", Results(run=one.run, records=[one]))
        found = read_library(tmp_path).best("c", 0, column, "measured")
        return found.record.value if found else None

    assert step_0_of_c() is None
    assert step_0_of_c("b") == 3.0
    assert step_0_of_c("a", "b") == 2.0
    assert step_0_of_c("a", "b", "base") == 1.0
