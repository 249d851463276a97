"""Tables show the paper's numbers as they are, measured ones beside them, and say what is not known."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis import tables
from analysis.columns import Column, column_of, is_change
from analysis.holdings import Library, read_library
from analysis.paper_recipes import paper_recipes
from analysis.statistics import difference
from analysis.tables import Cell, Piece, Table, lookup
from analysis.tables.__main__ import main
from reprokit.errors import UserError
from reprokit.launch import main as launch
from reprokit.records.paper import TABLES
from reprokit.records.record import MissingCell, Record, Results, read_results, write_results
from reprokit.words import interpreter

PROJECT = Path(__file__).resolve().parent.parent
REPORTED = PROJECT / "results" / "reported.json"
COT_4B, COT_8B = (f"Qwen3-{size}_Math-CoT-20k_lr5e-5_ep8_bs256" for size in ("4B", "8B"))
UNKNOWN = None

# Typed off the notes on the paper (Tables 2 and 9), apart from results/reported.json.
TABLE_2 = """
14B base        77.8 14.7 37.5 44.1 61.8 64.2 0.53 54.7 94.4
14B CoT         95.1 66.0 55.1 63.3 74.4 68.9 1.42 72.8 95.6
14B NoCoT       82.4 17.0 40.3 48.3 69.1 71.7 2.11 70.9 100.0
14B Numina      74.8 14.0 20.4 38.4 59.0 52.8 -0.45 62.7 88.6
14B Countdown   91.5 41.7 43.8 53.0 65.4 61.3 1.36 72.3 92.4
8B base         76.8 12.0 29.1 39.7 55.2 54.8 -0.13 50.5 84.6
8B CoT          90.1 47.7 31.0 48.5 69.5 56.6 0.92 71.3 91.3
8B NoCoT        77.4 13.3 31.8 45.1 60.9 63.7 1.85 56.2 100.0
8B Numina       72.5 7.0 7.9 37.2 48.2 37.8 -0.7 64.2 89.8
8B Countdown    87.6 26.0 32.8 41.6 56.6 52.3 0.13 68.9 75.5
20B base        53.7 1.7 17.6 20.9 34.3 51.1 -0.84 60.6 72.6
20B CoT         80.3 16.7 26.0 41.4 48.3 52.6 1.23 69.1 99.8
20B NoCoT       57.9 5.0 17.9 35.7 48.3 52.3 n/a n/a n/a
20B Numina      45.7 1.0 3.9 29.3 38.9 39.1 -1.55 58.3 99.0
20B Countdown   54.5 2.3 22.1 25.3 47.5 39.6 0.4 70.2 75.5
"""
TABLE_9 = """
base 70.8 11.0 20.6 14.6 35.5 49.2 50.8 81.6 48.2
10   64.9 9.0 21.5 19.9 31.5 46.3 48.7 78.2 54.5
20   62.9 13.0 17.0 17.3 30.8 33.0 63.1 83.6 37.7
40   71.5 15.3 14.5 19.4 50.1 37.2 67.7 96.7 47.9
80   77.1 19.0 18.1 23.9 55.6 40.4 71.1 95.1 53.0
160  78.8 22.3 17.6 27.9 59.1 41.6 71.6 92.7 64.4
320  86.3 29.0 23.5 33.3 63.1 45.4 72.6 89.5 80.2
480  87.1 27.3 23.5 36.7 63.2 50.0 69.3 89.2 84.6
640  86.2 30.7 24.4 37.9 64.8 49.4 69.4 90.8 84.7
"""
TITLES_2 = "MATH500,AIME24,LCB v2,GPQA-D,MMLU-Pro,IFEval,AlpacaEval 2.0 RB2,HaluEval,TruthfulQA helpful".split(",")
TITLES_9 = [*TITLES_2[:6], "HaluEval", "TruthfulQA truthful", "TruthfulQA helpful"]


def typed(text: str, heads: int) -> list[list[float | None]]:
    rows = [line.split()[heads:] for line in text.strip().splitlines()]
    return [[UNKNOWN if cell == "n/a" else float(cell) for cell in row] for row in rows]


def make_record(run: str, step: int, benchmark: str, value: float, **others: Any) -> Record:
    defaults: dict[str, Any] = {"model": "tiny", "metric": "pass@1", "unit": "percent", "origin": "measured"}
    return Record(run=run, step=step, benchmark=benchmark, value=value, **(defaults | others))


def library_of(folder: Path, *results: Results, reported: bool = True) -> Library:
    for one in results:
        write_results(folder / f"{one.run}.json", one)
    if reported:
        shutil.copy(REPORTED, folder / "reported.json")
    return read_library(folder)


def measured_4b(run: str = COT_4B, value: float = 84.0, benchmark: str = "math500", **others: Any) -> Record:
    settings = {"model": "Qwen3-4B-Base", "dataset": "Math-CoT-20k", "metric": "avg@3", "items": 500}
    interval = {"samples_per_item": 3, "interval_low": 81.0, "interval_high": 87.0, "checkpoints": "training"}
    lengths = {"mean_response_tokens": 8123.4, "truncated_fraction": 0.125, "provenance": "evaluation_1"}
    return make_record(run, 640, benchmark, value, **(settings | interval | lengths | others))


@pytest.fixture(scope="module")
def paper() -> Library:
    return read_library(PROJECT / "results")


def csv_rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables.csv(table))))


def markdown_rows(text: str) -> list[list[str]]:
    """Cells of the rows below the header, without the marks of notes."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[re.sub(r"<sup>.*?</sup>", "", cell).strip() for cell in row] for row in rows]


def number(cell: str) -> float | None:
    return None if cell in ("", tables.UNKNOWN) else float(cell)


def by_row(table: Table, titles: list[str]) -> list[list[float | None]]:
    rows: dict[str, dict[str, str]] = {}
    for line in csv_rows(table):
        rows.setdefault(line["row"], {})[line["column"]] = line["reported"]
    return [[number(row[title]) for title in titles] for row in rows.values()]


@pytest.mark.parametrize(
    ("name", "titles", "text", "heads"), [("2", TITLES_2, TABLE_2, 2), ("9", TITLES_9, TABLE_9, 1)]
)
def test_tables_2_and_9_have_what_was_typed_off_the_notes(
    paper: Library, name: str, titles: list[str], text: str, heads: int
) -> None:
    table, expected = tables.build(paper, name), typed(text, heads)
    assert by_row(table, titles) == expected
    places = [table.header.index(title) for title in titles]
    shown = [[number(row[place]) for place in places] for row in markdown_rows(tables.markdown(table))]
    assert shown == expected
    assert "2.11" in tables.markdown(tables.build(paper, "2")) and "| -0.7 |" in tables.markdown(
        tables.build(paper, "2")
    )


@pytest.mark.parametrize("name", ["2", "9"])
def test_tables_2_and_9_equal_the_records_cell_by_cell(paper: Library, name: str) -> None:
    table, records = tables.build(paper, name), read_results(REPORTED).records
    expected = {
        (record.run, record.step, column_of(record)): record.value
        for record in records
        if (record.source or "").startswith(f"Table {name}, v1") or (name == "9" and record.run == "Qwen3-4B-Base")
    }
    found = {
        (line["run"], int(line["step"]), Column(line["benchmark"], line["measure"])): float(line["reported"])
        for line in csv_rows(table)
        if line["reported"]
    }
    assert found == expected and len(expected) == {"2": 132, "9": 84}[name]
    heads = len(table.rows[0].heads)
    cells = [cell for row in markdown_rows(tables.markdown(table)) for cell in row[heads:]]
    assert [number(cell) for cell in cells] == [number(line["reported"]) for line in csv_rows(table)]


def test_every_reported_record_is_in_a_table(paper: Library) -> None:
    records = [record for file in paper.files if file.name == "reported.json" for record in file.results.records]
    used = {id(entry.record) for table in tables.build_all(paper) for entry in table.entries}
    assert len(records) == 465 and [record for record in records if id(record) not in used] == []
    for number_, titles in (("4", 4), ("9", 4)):
        notes = " ".join(note.text for note in tables.build(paper, number_).notes)
        shown = sum(values.quantity == "change against base" for values in tables.build(paper, number_).values)
        assert shown + notes.count("Also reported") == titles
    assert sum(is_change(record) for record in records) == 4


def test_all_tables_of_the_paper_are_there(paper: Library) -> None:
    assert list(tables.NUMBERS) == [str(number_) for number_ in range(1, 37)]
    for number_ in tables.NUMBERS:
        table = tables.build(paper, number_)
        assert table.name == f"table_{number_}" and table.title.startswith(f"Table {number_}: ")
        assert table.rows and {len(row.heads) + len(row.cells) for row in table.rows} == {len(table.header)}
    with pytest.raises(UserError, match="table=37.*Valid: 1, 2, 3"):
        tables.build(paper, "37")


def test_rows_and_columns_are_those_of_the_paper(paper: Library) -> None:
    assert [row.heads[0] for row in tables.build(paper, "8").rows] == "base 10 40 80 160 320 480 640".split()
    sixteen_epochs = tables.build(paper, "32")
    assert [row.heads[0] for row in sixteen_epochs.rows][-4:] == "800 960 1120 1280".split()
    assert [row.heads for row in tables.build(paper, "1").rows] == [
        ("Setting 1", "20480", "256", "8", "640"),
        ("Setting 2", "2560", "32", "8", "640"),
        ("Setting 3", "20480", "32", "1", "640"),
    ]
    assert [row.heads for row in tables.build(paper, "4").rows][1:] == [
        ("5e-05", "1", "80"),
        ("1e-05", "1", "80"),
        ("1e-05", "2", "160"),
    ]


def cell_at(table: Table, head: str, title: str) -> Cell:
    place = table.header.index(title) - len(table.rows[0].heads)
    return next(row.cells[place] for row in table.rows if head in row.heads)


def notes_of(table: Table, cell: Cell) -> str:
    texts = {note.mark: note.text for note in table.notes}
    return "; ".join(texts[mark] for piece in cell.pieces for mark in piece.marks)


def test_numbers_of_other_tables_doubts_and_conflicts_are_marked(paper: Library) -> None:
    table_5, table_14 = tables.build(paper, "5"), tables.build(paper, "14")
    last = cell_at(tables.build(paper, "12"), "640", "MATH500")
    assert last.pieces[0].text == "90.1" and notes_of(tables.build(paper, "12"), last).endswith("taken from Table 2")
    assert "Table 2 gives 44.1" in notes_of(table_5, cell_at(table_5, "Qwen3-14B-Base", "GPQA-D"))
    base_of_14 = cell_at(table_14, "base", "GPQA-D")
    assert base_of_14.pieces[0].text in ("39.7", "37.5") and "Table" in notes_of(table_14, base_of_14)
    table_1 = tables.build(paper, "1")
    assert "A has 59.8" in notes_of(table_1, cell_at(table_1, "Setting 3", "MMLU-Pro"))
    assert "Table 21 of version 2" in notes_of(
        tables.build(paper, "8"), cell_at(tables.build(paper, "8"), "10", "AIME24")
    )


def test_a_twin_of_version_2_is_silent_only_if_it_agrees(tmp_path: Path, paper: Library) -> None:
    agreed = tables.build(paper, "9")
    assert notes_of(agreed, cell_at(agreed, "320", "AIME24")) == ""
    results = read_results(REPORTED)
    twin = next(r for r in results.records if (r.source, r.step, r.benchmark) == ("Table 22, v2", 320, "AIME24"))
    twin.value = 31.0
    write_results(tmp_path / "reported.json", results)
    table = tables.build(read_library(tmp_path), "9")
    cell = cell_at(table, "320", "AIME24")
    assert cell.pieces[0].text == "29.0" and notes_of(table, cell) == "Table 22 of version 2 has 31.0"


def test_the_table_itself_comes_first_then_its_twin(tmp_path: Path) -> None:
    assert lookup.sources_of("9") == ("Table 9, v1", "Table 22, v2")
    assert lookup.sources_of("2") == ("Table 2, v1", "Table 2, v2")
    sources = ("Table 7, v1", "Table 22, v2", "Table 9, v1")
    for count in (3, 2, 1):
        records = [
            make_record(COT_4B, 10, "AIME24", float(place), origin="reported", source=source, model="Qwen3-4B-Base")
            for place, source in enumerate(sources[:count])
        ]
        library = library_of(tmp_path, Results(run="other", records=records), reported=False)
        assert cell_at(tables.build(library, "9"), "10", "AIME24").pieces[0].text == f"{count - 1}.0"


def test_what_is_not_known_is_never_a_number(paper: Library) -> None:
    table = tables.build(paper, "2")
    cell = cell_at(tables.build(paper, "5"), "Qwen2.5-3B-Base", "MATH500")
    assert [piece.text for piece in cell.pieces] == [tables.UNKNOWN]
    lines = [line for line in csv_rows(table) if line["state"] == "neither measured nor reported"]
    assert [line["column"] for line in lines] == ["AlpacaEval 2.0 RB2", "HaluEval", "TruthfulQA helpful"]
    assert {line[name] for line in lines for name in ("measured", "reported", "difference", "low")} == {""}
    assert any(note.text.startswith(tables.UNKNOWN) for note in table.notes)


def test_measured_reported_and_difference_stand_below_each_other(tmp_path: Path) -> None:
    library = library_of(tmp_path, Results(run=COT_4B, records=[measured_4b()]))
    table = tables.build(library, "9")
    cell = cell_at(table, "640", "MATH500")
    (values,) = cell.values
    assert values.measured and values.reported
    expected = difference(library, values.reported, values.measured)
    assert expected.effect == pytest.approx(-2.2) and expected.low and expected.high
    assert [(piece.kind, piece.text) for piece in cell.pieces] == [
        ("measured", "84.0 ± 3.0"),
        ("reported", "paper 86.2"),
        ("difference", f"-2.2 [{expected.low:+.1f}, {expected.high:+.1f}]"),
    ]
    line = next(line for line in csv_rows(table) if line["state"] == "measured and reported")
    assert [float(line[name]) for name in ("measured", "low", "high", "reported")] == [84.0, 81.0, 87.0, 86.2]
    assert float(line["difference_low"]) == pytest.approx(expected.low) and line["source"] == "Table 9, v1"
    assert line["measured_provenance"] == f"{COT_4B}.json#evaluation_1" and line["unit"] == "percent"
    assert cell_at(table, "640", "AIME24").pieces[0].text == "paper 30.7"
    lengths = [row for row in table.rows if row.section != table.rows[0].section and row.heads == ("640",)]
    assert lengths[0].cells[0].pieces[0].text == "8,123 (12 %)" and lengths[0].cells[1].pieces[0].text == tables.UNKNOWN
    assert {source.file: source.records for source in table.made_from}[f"{COT_4B}.json"] == 1


def test_another_number_of_problems_is_said(tmp_path: Path) -> None:
    library = library_of(tmp_path, Results(run=COT_4B, records=[measured_4b(items=50, samples_per_item=1)]))
    table = tables.build(library, "9")
    note = notes_of(table, cell_at(table, "640", "MATH500"))
    assert note == "not evaluated as in the paper: problems 50 instead of 500, samples per problem 1 instead of 3"


def test_a_metric_that_the_paper_does_not_name_is_said(tmp_path: Path) -> None:
    others = {"metric": "instruction-level strict", "items": 541, "samples_per_item": 1}
    record = make_record(COT_4B, 640, "ifeval", 50.0, model="Qwen3-4B-Base", **others)
    table = tables.build(library_of(tmp_path, Results(run=COT_4B, records=[record])), "9")
    note = notes_of(table, cell_at(table, "640", "IFEval"))
    assert note == "measured as instruction-level strict; the paper's number is recorded as pass@1"


def test_what_was_measured_beyond_the_papers_columns_is_shown(tmp_path: Path) -> None:
    safety = {"metric": "attack success rate", "model": "Qwen3-4B-Base"}
    base = Results(run="Qwen3-4B-Base", records=[make_record("Qwen3-4B-Base", 0, "hex_phi", 5.0, **safety)])
    trained = measured_4b(benchmark="hex_phi", metric="attack success rate")
    table = tables.build(library_of(tmp_path, base, Results(run=COT_4B, records=[trained])), "9")
    assert table.header[-1] == "HEx-PHI ASR"
    assert [cell_at(table, head, "HEx-PHI ASR").pieces[0].text for head in ("base", "10", "640")] == [
        *("5.0", tables.UNKNOWN, "84.0 ± 3.0"),
    ]


def test_published_checkpoints_stand_in_the_papers_table_and_are_named(tmp_path: Path) -> None:
    run = f"{COT_4B}_published"
    safety: dict[str, Any] = {"benchmark": "hex_phi", "metric": "attack success rate"}
    records = [measured_4b(run=run, checkpoints="published", **others) for others in (dict[str, Any](), safety)]
    missing = [MissingCell(step=700, benchmark="math500")]
    library = library_of(tmp_path, Results(run=run, records=records, missing=missing))
    table = tables.build(library, "9")
    assert cell_at(table, "640", "MATH500").pieces[0].text == "84.0 ± 3.0"
    assert cell_at(table, "640", "HEx-PHI ASR").pieces[0].text == "84.0 ± 3.0"
    assert table.rows[9].heads == ("700",) and f"{run}, step 700, MATH500" in map(str, table.missing)
    assert any(f"authors published: {run}" in note.text for note in table.notes)
    assert run not in tables.other_runs(library)
    both = library_of(tmp_path, Results(run=COT_4B, records=[measured_4b(value=70.0)]))
    assert cell_at(tables.build(both, "9"), "640", "MATH500").pieces[0].text == "70.0 [81.0, 87.0]"
    assert run in tables.other_runs(both)
    own = tables.build_run(both, run)
    assert [piece.kind for piece in cell_at(own, "640", "MATH500").pieces] == ["measured", "reported", "difference"]


def test_other_runs_have_tables_with_every_step(paper: Library) -> None:
    assert tables.other_runs(paper) == ["Gemma3-27B_Math-CoT-20k_lr5e-5_ep8_bs256", "mini"]
    table = tables.build_run(paper, "mini")
    records = {
        (record.step, column_of(record)): record
        for record in read_results(PROJECT / "results" / "mini.json").records
        if record.headline
    }
    scores = [values for values in table.values if values.quantity == "score"]
    assert len(scores) == len(records) == 36
    for values in scores:
        record = records[values.step, values.column]
        assert values.measured and values.measured.record == record
    assert cell_at(table, "640", "Countdown").pieces == (Piece("90.0 [85.0, 93.4]", "measured"),)
    gemma = tables.build_run(paper, tables.other_runs(paper)[0])
    assert [row.heads[0] for row in gemma.rows] == ["base", "640"] and "Gemma3-27B replication" in gemma.notes[1].text


def test_captions_say_no_more_than_records(tmp_path: Path) -> None:
    runs = {"bare": make_record("bare", 0, "countdown", 1.0), "foreign": make_record("foreign", 7, "countdown", 1.0)}
    library = library_of(tmp_path, *(Results(run=run, records=[record]) for run, record in runs.items()))
    assert tables.build_run(library, "bare").caption.startswith("tiny, untrained.")
    assert tables.build_run(library, "foreign").caption.startswith("tiny, how it was trained is not recorded.")


def test_titles_of_tables_tell_them_apart(paper: Library) -> None:
    titles = {number: tables.build(paper, number).title.partition(": ")[2] for number in tables.NUMBERS}
    assert len(set(titles.values())) == len(titles)
    start, end = "Qwen3-14B-Base on Math-CoT-20k", "every checkpoint"
    assert titles["17"] == f"{start}, {end}" and titles["32"] == f"{start}, 16 epochs, {end}"
    assert titles["34"] == f"{start}, 16 epochs, learning rate 0.0001, constant schedule, {end}"
    assert titles["36"] == f"{start}, 1 epoch, batch size 32, {end}"


def test_missing_results_are_named_and_make_the_exit_code_partial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [make_record("own", step, "countdown", 5.0) for step in (0, 10)]
    library_of(
        tmp_path / "in", Results(run="own", records=records, missing=[MissingCell(step=20, benchmark="countdown")])
    )
    words = [f"results={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]
    assert main(words) == 3
    said = capsys.readouterr().err
    assert "own, step 20, Countdown" in said and "-m reprokit.launch recipe=runs/own/recipe.yaml" in said
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [entry["missing"] for entry in index["tables"] if entry["missing"]] == [["own, step 20, Countdown"]]
    assert main([*words, "table=2"]) == 0
    assert main([*words, "table=own"]) == 3
    shown = capsys.readouterr().out
    assert shown.startswith("# Table 2") and "No result yet of own: step 20 on Countdown." in shown


def test_many_missing_results_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [make_record("own", 0, "countdown", 5.0)]
    missing = [MissingCell(step=step, benchmark="countdown") for step in range(10, 260, 10)]
    library_of(tmp_path / "in", Results(run="own", records=records, missing=missing))
    assert main([f"results={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]) == 3
    said = capsys.readouterr().err
    assert said.count("no result: ") == 20 and f"and 5 more: {interpreter()} -m analysis.completeness names all" in said


def test_table_3_is_what_the_recipes_say(paper: Library) -> None:
    table = tables.build(paper, "3")
    lines = list(csv.DictReader(io.StringIO(tables.csv(table))))
    found = {(line["Setting"], line["Value"]): line["Runs"] for line in lines}
    recipes = [paper_recipes()[run].recipe for shown in TABLES.values() for run in shown.runs]
    assert {recipe.training.weight_decay for recipe in recipes} == {0.01}
    assert found["Weight decay", "0.01"] == "all 33" and found["AdamW betas", "0.9, 0.999"] == "all 33"
    assert found["Learning rate", "5e-05"] == "the other 30"
    assert found["Learning rate", "0.0001"] == "Qwen3-14B_Math-CoT-20k_lr1e-4_ep16_bs256_ConstLR"
    assert found["Micro-batch (rows)", "2"].count("InternLM2.5-20B") == 5
    assert found["Steps", "1280"].count("ep16") == 3
    template = next(line for line in lines if line["Setting"].endswith("qwen_no_system.jinja"))
    assert "add_generation_prompt" in template["Value"]
    assert any("reprokit/data/prompts.py" in note.text for note in table.notes)
    assert {"recipes/training/paper.yaml", "recipes/models/qwen_no_system.jinja"} <= {
        one.file for one in table.made_from
    }


def test_table_3_cannot_be_launched(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(["table=3", "dry_run=true"]) == 2
    assert "has the settings of training and no results" in capsys.readouterr().err


def test_the_number_in_version_2_is_said_where_it_is_known() -> None:
    library = read_library(PROJECT / "results")
    assert "Table 22 in version 2" in tables.build(library, "9").caption
    assert "Table 18 in version 2" in tables.build(library, "5").caption
    assert "version 2" not in tables.build(library, "10").caption


def test_numbers_of_the_paper_that_are_not_known_are_not_denied(tmp_path: Path) -> None:
    table = tables.build(library_of(tmp_path, Results(run=COT_4B, records=[measured_4b()]), reported=False), "9")
    notes = [note.text for note in table.notes]
    assert "Measured values with their 95 % interval; of these no number of the paper is known." in notes
    assert not any("paper's value" in text for text in notes)
