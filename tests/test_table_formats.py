"""Markdown, CSV and LaTeX of tables: whatever names hold, and the same bytes everywhere."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import tables
from analysis.holdings import Library, read_library
from analysis.tables import Cell, Piece, Row, Table, as_latex, as_markdown, numbers
from analysis.tables.__main__ import main
from analysis.tables.model import Footnotes
from reprokit.records.record import Results, write_results
from tests.test_tables import COT_4B, PROJECT, csv_rows, library_of, make_record, markdown_rows, measured_4b, number

HOSTILE = "a|b*_`$x^2$#%&~{}\\end{table*}[1]<img src=x onerror=alert(1)> 漢--''?`"


@pytest.fixture(scope="module")
def paper() -> Library:
    return read_library(PROJECT / "results")


def hostile_library(folder: Path) -> Library:
    record = make_record("hostile", 10, HOSTILE, 5.0, model=HOSTILE, dataset="=cmd|' /C calc'!A0", note=f"-{HOSTILE}")
    return library_of(folder, Results(run="hostile", records=[record]), reported=False)


def test_names_stay_text_in_markdown(tmp_path: Path) -> None:
    table = tables.build_run(hostile_library(tmp_path), "hostile")
    text = tables.markdown(table)
    assert {len(row) for row in markdown_rows(text)} == {len(table.header)} == {2}
    assert "<img" not in text and re.findall(r"<(?!/?sup>|br>)", text) == []


@given(st.text())
def test_markdown_escapes_any_text(text: str) -> None:
    escaped = as_markdown.escape(text)
    assert "\n" not in escaped and not set("<>") & set(escaped)
    assert re.search(r"(?<!\\)(\\\\)*[|`*_\[\]$]", re.sub(r"\\.", "", escaped)) is None
    visible = html.unescape(re.sub(r"\\(.)", r"\1", escaped))
    assert visible == "".join(char if char.isprintable() else " " for char in text)


def test_csv_is_text_and_numbers_only(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    record = make_record("=1+1", 10, "@sum(1)", -5.0, unit="reward", model="m", dataset="d", metric="mean reward RB2")
    table = tables.build_run(library_of(folder, Results(run="=1+1", records=[record]), reported=False), "=1+1")
    lines = [line for line in csv_rows(table) if line["measured"]]
    assert [line["measured"] for line in lines] == ["-5"]
    assert (lines[0]["run"], lines[0]["benchmark"], lines[0]["table"]) == ("'=1+1", "'@sum(1)", "'=1+1")
    for line in csv.reader(io.StringIO(tables.csv(table))):
        assert all(not cell.startswith(("=", "+", "@", "\t")) for cell in line)
        assert all(number(cell) is not None for cell in line if cell.startswith("-"))


def braces_of(text: str) -> list[int]:
    """Depth of braces behind every one of them; escaped ones do not count."""
    depths, depth = [], 0
    for mark in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        depths.append(depth)
    return depths


@given(st.text())
def test_latex_escapes_any_text(text: str) -> None:
    escaped = as_latex.escape(text)
    assert escaped.isascii() and "\n" not in escaped
    assert min(braces_of(escaped), default=0) >= 0 and braces_of(escaped)[-1:] in ([], [0])
    bare = re.sub(r"\\[A-Za-z]+|\\.", "", escaped).replace("$\\pm$", "")
    assert re.search(r"[&%#_^~\\\\]|(?<!\{)[\[*]", bare) is None and bare.count("$") % 2 == 0


def test_latex_rows_have_as_many_columns_as_the_header(tmp_path: Path, paper: Library) -> None:
    measured = library_of(tmp_path / "in", Results(run=COT_4B, records=[measured_4b()]))
    hostile = hostile_library(tmp_path / "hostile")
    found = [tables.build(paper, "2"), tables.build(measured, "9"), tables.build_run(hostile, "hostile")]
    for table in [*found, tables.build(paper, "3")]:
        text = tables.latex(table)
        assert min(braces_of(text)) >= 0 and braces_of(text)[-1] == 0
        body = text[text.index("\\toprule") : text.index("\\bottomrule")]
        flat = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", body)
        rows = [line for line in flat.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert len(rows) == len(table.rows) + 1
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(table.header)}
        environments = re.findall(r"\\(begin|end)\{(.*?)\}", text)
        assert sorted(name for kind, name in environments if kind == "begin") == sorted(
            name for kind, name in environments if kind == "end"
        )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path, paper: Library) -> None:
    measured = library_of(tmp_path / "in", Results(run=COT_4B, records=[measured_4b()]))
    own = tables.build_run(hostile_library(tmp_path / "hostile"), "hostile")
    text = "".join(map(tables.latex, [*tables.build_all(paper), tables.build(measured, "9"), own]))
    start = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\extrafloats{100}\\begin{document}\n"
    (tmp_path / "all.tex").write_text(f"{start}{text}\\end{{document}}\n")
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_run_name_that_cannot_name_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, name in enumerate(("../up", "a\nb", "table_2", "index", "a/b")):
        folder = tmp_path / str(place)
        write_results(folder / "x.json", Results(run=name, records=[make_record(name, 10, "countdown", 1.0)]))
        assert main([f"results={folder}", f"out={tmp_path / 'out'}"]) == 2
        assert "rename the run" in capsys.readouterr().err
    assert not list(tmp_path.glob("up.*")) and not (tmp_path / "out").exists()


def test_files_are_the_same_bytes_everywhere(tmp_path: Path) -> None:
    folders = []
    for seed in ("1", "2"):
        out = tmp_path / seed / "tables"
        command = [sys.executable, "-m", "analysis.tables", f"results={PROJECT / 'results'}"]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(PROJECT)}
        (tmp_path / seed).mkdir()
        subprocess.run(command, check=True, cwd=tmp_path / seed, env=environment, stdout=subprocess.DEVNULL)
        folders.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert folders[0] == folders[1] and len(folders[0]) == 38 * 3 + 1
    index = json.loads(folders[0]["index.json"])
    assert index["reported_in_no_table"] == [] and len(index["tables"]) == 38
    assert {name for entry in index["tables"] for name in entry["files"]} == set(folders[0]) - {"index.json"}
    assert not any(
        str(PROJECT).encode() in content or str(tmp_path).encode() in content for content in folders[0].values()
    )


def test_words_that_are_not_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"results={PROJECT / 'results'}", f"out={tmp_path}"]
    assert main([*words, "table=2,99"]) == 2
    assert "table=99: there is no such table. Valid: 1 to 36, and runs: Gemma3" in capsys.readouterr().err
    assert main([*words, "tables=2"]) == 2
    assert "tables=2 is not understood" in capsys.readouterr().err
    assert main([f"results={tmp_path / 'nothing'}"]) == 2
    assert "no result file" in capsys.readouterr().err


def test_numbers_are_printed_as_they_are() -> None:
    assert [
        numbers.as_reported(value) for value in (66.0, 1.42, -0.7, 100.0, -10.26)
    ] == "66.0 1.42 -0.7 100.0 -10.26".split()
    assert numbers.fixed(-0.04, 1) == "0.0" and numbers.fixed(0.04, 1, sign=True) == "0.0"
    assert numbers.fixed(12345.6, 0) == "12,346"
    assert numbers.with_interval(50.0, 47.0, 53.0, 1) == "50.0 ± 3.0"
    assert numbers.with_interval(0.0, 0.0, 3.7, 1) == "0.0 [0.0, 3.7]"
    assert numbers.with_interval(5.0, None, None, 1) == "5.0"


def test_notes_share_marks() -> None:
    footnotes = Footnotes()
    marks = [footnotes.mark(str(number_ % 30)) for number_ in range(60)]
    assert marks[:30] == marks[30:] and marks[25:28] == ["z", "aa", "ab"]
    assert [note.mark for note in footnotes.notes()] == marks[:30]


def test_sections_stand_apart() -> None:
    rows = (Row(("a",), (Cell((Piece("1"),)),), "first"), Row(("b",), (Cell((Piece("2"),)),), "second"))
    text = tables.markdown(Table("x", "X", "", ("Head", "Column"), rows))
    assert text.splitlines()[4:] == ["| **first** |  |", "| a | 1 |", "| **second** |  |", "| b | 2 |"]
