"""`data.subset`: some of the rows, drawn with a seed, and never taken for the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reprokit.data import tokens
from reprokit.errors import UserError
from reprokit.preparation.training_data import drawn, open_source, prepare_tokens
from reprokit.recipe import RecipeError, load, load_resolved, row_count, total_steps
from reprokit.recipe.schema import DataSection
from reprokit.records.files import read_json
from reprokit.records.run_directory import RunDirectory
from tests.test_recipe import LOCAL, folder, model_folder, problems_of, write_rows
from tests.tokenizers import PLAIN_TEMPLATE, qwen_like

__all__ = ["folder"]


def numbered(path: Path, rows: int = 64) -> Path:
    """Rows whose responses are their places."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"message": ["?"] * rows, "response": [str(n) for n in range(rows)]}), path)
    else:
        path.write_text("".join(json.dumps({"message": "?", "response": str(n)}) + "\n" for n in range(rows)))
    return path


def responses(data: DataSection) -> list[str]:
    return [row.response for row in open_source(data).rows()]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_of_a_file_are_drawn_once_in_their_order(tmp_path: Path, suffix: str) -> None:
    data = DataSection(name="x", path=str(numbered(tmp_path / f"rows{suffix}")), rows=64, subset=20, seed=3)
    taken = responses(data)
    places = [int(response) for response in taken]
    assert len(places) == len(set(places)) == 20 and places == sorted(places) == drawn(64, 20, 3)
    assert places != list(range(20))  # drawn, not the first ones
    assert responses(data) == taken and responses(replace(data, seed=4)) != taken
    assert responses(replace(data, subset=64)) == responses(replace(data, subset=None))
    facts = open_source(data).facts
    assert (facts["rows"], facts["subset"], facts["seed"]) == (64, 20, 3)
    assert "subset" not in open_source(replace(data, subset=None)).facts


def test_rows_of_a_generator_are_drawn_too() -> None:
    whole = DataSection(name="x", generator="countdown", rows=40, seed=1)
    made, source = responses(whole), open_source(replace(whole, subset=10))
    assert [row.response for row in source.rows()] == [made[place] for place in drawn(40, 10, 1)]
    assert source.facts["rows"] == 40 and source.facts["subset"] == 10
    assert source.digest != open_source(whole).digest


def test_every_place_is_equally_likely() -> None:
    counts = [0] * 16
    for seed in range(400):
        for place in drawn(16, 4, seed):
            counts[place] += 1
    assert sum(counts) == 1600 and max(abs(count - 100) for count in counts) < 40  # over 4 standard deviations


def test_tokens_of_a_subset_are_not_those_of_the_whole(tmp_path: Path) -> None:
    whole = DataSection(name="x", path=str(numbered(tmp_path / "rows.jsonl")), rows=64)
    tokenizer, seen = qwen_like(PLAIN_TEMPLATE), {}
    for name, data in {
        "whole": whole,
        "subset": replace(whole, subset=20),
        "seed": replace(whole, subset=20, seed=1),
        "fewer": replace(whole, subset=19),
    }.items():
        run = RunDirectory(tmp_path / "runs" / name)
        report = prepare_tokens(run, open_source(data), tokenizer, 100)
        facts = read_json(run.data / "source.json", dict)
        assert report.rows == len(tokens.load(run.data)) == (data.subset or 64)
        assert facts["rows"] == 64 and facts.get("subset") == data.subset
        seen[facts["tokens"]] = name
    assert len(seen) == 4


def test_a_faulty_row_is_told_by_its_place_in_the_file(tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl")
    path.write_text(path.read_text() + '{"message": "a", "response": ""}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, row 65: response is empty"):
        responses(DataSection(name="x", path=str(path), subset=2))


def test_too_few_rows_are_refused(tmp_path: Path, folder: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match="data.subset=65, but there are only 64 rows"):
        open_source(DataSection(name="x", path=str(path), subset=65))
    (problem,) = problems_of("good", folder, ("data.subset=1001",))
    assert "data.subset: there are only 1000 rows" in problem and "given: 1001" in problem and "to do: " in problem
    assert any("data.subset: out of range" in problem for problem in problems_of("good", folder, ("data.subset=0",)))
    overrides = (*LOCAL, f"data.path={write_rows(path, 100)}", f"model.path={model_folder(tmp_path / 'model')}")
    (problem,) = problems_of("good", folder, (*overrides, "data.subset=101", "training.checkpoint_steps=[6]"))
    assert "there are only 100 rows" in problem


def test_steps_are_those_of_the_subset(tmp_path: Path, folder: Path) -> None:
    words = ["data.subset=320", "training.checkpoint_steps=[20]"]
    loaded = load("good", words, folder)
    assert loaded.recipe.data.rows == 1000 and row_count(loaded.recipe) == 320 and total_steps(loaded.recipe) == 20
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(loaded.to_yaml())
    assert load_resolved(resolved) == loaded.recipe
    with pytest.raises(RecipeError, match=r"training ends at step 20 = floor\(320 rows"):
        load("good", ["data.subset=320"], folder)
    hub = ("data.generator=null", "data.rows=null", "data.hub_id=a/b", "data.file=x.parquet")
    recipe = load("good", [*hub, *words], folder).recipe
    assert row_count(recipe) == 320  # known, though the number of all rows is not
