"""Data sets that follow from another one: rows without thinking, and answers of others to its questions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reprokit.benchmarks.interface import Item
from reprokit.building.directory import DatasetDirectory
from reprokit.building.questions import (
    mathematics_item,
    rank,
)
from reprokit.building.report import BuildReport
from reprokit.building.rows_file import BuiltRow, write_rows
from reprokit.data import rows
from reprokit.data.prompts import BOX_INSTRUCTION
from reprokit.records.files import read_json, read_json_lines, sha256_of_file
from tests.markov import make_teacher
from tests.test_building import LOCAL, build, built


def thought(answer: str) -> str:
    return f"<think>\nLet me see.\n</think>\n\nIt is \\boxed{{{answer}}}."


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a data set of six rows as built before, and what others answer to its questions."""
    (tmp_path / "here.yaml").write_text(LOCAL)
    questions = [f"What is {n} plus {n}?" for n in range(6)]
    made = [
        BuiltRow([{"role": "user", "content": question + BOX_INSTRUCTION}], thought(str(2 * n)), str(2 * n))
        for n, question in enumerate(questions)
    ]
    made[5].response = "<think>only thoughts</think>\n"
    write_rows(tmp_path / "datasets" / "Base" / "Base.parquet", made)
    others: list[dict[str, Any]] = [{"problem": q, "solution": f"Twice: {2 * n}."} for n, q in enumerate(questions)]
    others[1]["problem"] = "What  is 1\nplus 1?"
    others[2]["solution"] = None
    others += [{"problem": "Unasked?", "solution": "Yes."}, {"problem": questions[3], "solution": "Another way."}]
    pq.write_table(pa.Table.from_pylist(others), tmp_path / "numina.parquet")
    luffy = [
        {
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": question}],
            "target": [{"role": "assistant", "content": thought(str(2 * n if n != 4 else 9))}],
        }
        for n, question in enumerate(questions[1:], start=1)
    ]
    pq.write_table(pa.Table.from_pylist(luffy), tmp_path / "luffy.parquet")
    openr1 = [
        {"problem": q, "answer": str(2 * n), "generations": [f"Let me see.</think>\\boxed{{{2 * n}}}", "\\boxed{99}"]}
        for n, q in enumerate(questions)
    ]
    (tmp_path / "openr1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in openr1))
    return tmp_path


def derived(folder: Path, text: str, *words: str) -> tuple[list[dict[str, Any]], BuildReport]:
    """Rows and report of a data set that follows from `Base`."""
    (folder / "derived.yaml").write_text(f"dataset: Derived\nbase: {{dataset: Base}}\n{text}\n")
    built(folder, "dataset=derived.yaml", "cluster=here.yaml", *words)
    directory = DatasetDirectory(folder / "datasets" / "Derived")
    return pq.read_table(directory.file).to_pylist(), read_json(directory.report, BuildReport)


def test_rows_without_thinking_keep_order_prompt_and_answer(base: Path) -> None:
    upstream = {"solution": "", "answer": "1", "subject": "", "unique_id": "first"}
    (base / "math.jsonl").write_text(json.dumps({"problem": "What else?", **upstream}))
    made, report = derived(base, "made: cut\noverlap: {math500: {path: math.jsonl}}")
    assert report.overlap["math500"].rows == 0
    (base / "math.jsonl").write_text(json.dumps({"problem": "What is 3 plus 3?", **upstream}))
    made, report = derived(base, "made: cut\noverlap: {math500: {path: math.jsonl}}")
    assert report.overlap["math500"].examples == [(3, "first")]
    assert [row["response"] for row in made] == [f"It is \\boxed{{{2 * n}}}." for n in range(5)]
    assert [row["answer"] for row in made] == [str(2 * n) for n in range(5)]
    assert made[3]["message"] == [{"role": "user", "content": f"What is 3 plus 3?{BOX_INSTRUCTION}"}]
    assert report.questions == {"kept": 5, "nothing follows the thinking": 1} and report.lengths.unit == "words"
    assert len(list(rows.from_file(base / "datasets/Derived/Derived.parquet"))) == 5
    again = built(base, "dataset=derived.yaml", "cluster=here.yaml")
    assert "is complete; nothing was run again" in again
    write_rows(
        base / "datasets/Base/Base.parquet", [BuiltRow([{"role": "user", "content": "New?"}], thought("1"), "1")]
    )
    renewed, report = derived(base, "made: cut")
    assert report.overlap == {}
    assert [row["response"] for row in renewed] == ["It is \\boxed{1}."]


def test_solutions_of_others_are_found_by_their_questions(base: Path) -> None:
    made, report = derived(base, "made: answers\nanswers: {format: numina_math, path: numina.parquet}")
    assert [row["answer"] for row in made] == ["0", "2", "6", "8", "10"]
    assert made[1]["response"] == "Twice: 2." and made[2]["response"] in ("Twice: 6.", "Another way.")
    assert made[1]["message"] == [{"role": "user", "content": f"What is 1 plus 1?{BOX_INSTRUCTION}"}]
    assert report.questions == {"kept": 5, "no answer in answers": 1} and report.responses == {"not verified": 6}
    few, report = derived(base, "made: answers\nanswers: {format: numina_math, path: numina.parquet}", "rows=2")
    assert few == made[:2] and report.questions["more than rows"] == 3


def test_answers_of_r1_are_verified(base: Path) -> None:
    made, report = derived(base, "made: answers\nanswers: {format: luffy, path: luffy.parquet, verify: true}")
    assert [row["response"] for row in made] == [thought(str(2 * n)) for n in (1, 2, 3, 5)]
    assert report.questions == {"kept": 4, "no answer in answers": 1, "no right answer in answers": 1}
    assert report.responses == {"correct": 4, "wrong answer": 1}
    other = "made: answers\nanswers: {format: openr1_math, path: openr1.jsonl, verify: true}"
    before = sha256_of_file(base / "datasets/Derived/Derived.parquet")
    (base / "derived.yaml").write_text(f"dataset: Derived\nbase: {{dataset: Base}}\n{other}\n")
    refused = build(base, "dataset=derived.yaml", "cluster=here.yaml")
    assert refused.returncode == 2 and "answers.format: luffy -> openr1_math" in refused.stderr, refused.stderr
    assert sha256_of_file(base / "datasets/Derived/Derived.parquet") == before
    shutil.rmtree(base / "datasets/Derived")
    made, report = derived(base, other)
    assert [row["response"] for row in made] == [f"<think>\nLet me see.</think>\\boxed{{{2 * n}}}" for n in range(6)]
    assert report.responses == {"correct": 6, "wrong answer": 6}


def test_files_of_another_form_are_named(base: Path) -> None:
    for text, said in (
        ("made: answers\nanswers: {format: luffy, path: numina.parquet}", "numina.parquet: no column prompt or target"),
        ("made: answers\nanswers: {format: numina_math, path: openr1.jsonl}", "openr1.jsonl, line 1: no column"),
        ("made: cut\nrows: 6", "rows=6, but 5 rows can be made of the 6 of the base"),
    ):
        (base / "bad.yaml").write_text(f"dataset: Bad\nbase: {{dataset: Base}}\n{text}\n")
        done = build(base, "dataset=bad.yaml", "cluster=here.yaml")
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_only_questions_of_another_file_are_asked(base: Path) -> None:
    make_teacher(base / "teacher")
    (base / "asked.yaml").write_text(
        "dataset: Asked\nmade: teacher\nrows: 3\nmodel: {name: Markov, path: teacher}\n"
        "questions: {path: openr1.jsonl, count: 4, among: {path: luffy.parquet}}\nsampling: {max_tokens: 100}\n"
    )
    built(base, "dataset=asked.yaml", "cluster=here.yaml", "stages=prepare")
    directory = DatasetDirectory(base / "datasets" / "Asked")
    asked = list(read_json_lines(directory.questions, Item))
    wanted = [mathematics_item(f"What is {n} plus {n}?", str(2 * n)) for n in range(1, 6)]
    assert asked == sorted(wanted, key=lambda item: rank(0, item.id))[:4]
    prepared = directory.read_prepared()
    assert prepared is not None and prepared.rejected == {
        "not among the questions of questions.among": 1,
        "not drawn (questions.count)": 1,
    }
