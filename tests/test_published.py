"""Checkpoints that others have trained, evaluated at their steps; several runs by one command; a choice of steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reprokit.errors import UserError
from reprokit.preparation.published import folder_of
from reprokit.recipe import RecipeError, load
from reprokit.recipe.schema import PublishedSection
from reprokit.records.record import Record, read_results
from reprokit.records.run_directory import RunDirectory
from tests.conftest import launch


@pytest.fixture(scope="module")
def released(local_run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of the tiny run as they would be released."""
    folder = tmp_path_factory.mktemp("released")
    for step in (8, 16):
        os.symlink(local_run.checkpoint(step), folder / f"step{step}")
    return folder


def words(recipe: Path, released: Path, run: RunDirectory) -> list[str]:
    model = ["model.config=null", "model.tokenizer_vocab_size=null", f"model.path={run.checkpoint(0)}"]
    given = [f"recipe={recipe}", "cluster=local", "source=published", f"published.path={released}", *model]
    return [*given, "stages=prepare,train,evaluate,score,collect"]


def values(records: list[Record]) -> dict[tuple[str, int, str, str | None], tuple[float, float | None]]:
    keys = ((each.benchmark, each.step, each.metric, each.protocol) for each in records)
    return dict(zip(keys, ((each.value, each.mean_response_tokens) for each in records), strict=True))


def test_published_checkpoints_score_as_in_the_run_that_trained_them(
    tiny_recipe: Path, local_folder: Path, local_run: RunDirectory, released: Path, tmp_path: Path
) -> None:
    asked = words(tiny_recipe, released, local_run)
    first = launch(tmp_path, *asked, "evaluation.steps=[8]", "evaluation.benchmarks.chain_sum=false")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "train" not in {path.name for path in (tmp_path / "runs/tiny_published").iterdir()}
    assert {(each.step, each.benchmark) for each in read_results(tmp_path / "results/tiny_published.json").records} == {
        (8, "countdown")
    }
    rest = launch(tmp_path, *asked, "evaluation.steps=[0,16]")
    assert rest.returncode == 0, rest.stdout + rest.stderr
    results = read_results(tmp_path / "results/tiny_published.json")
    assert results.missing == [] and {each.checkpoints for each in results.records} == {"published"}
    assert results.provenance["published"] == {"hub_id": None, "revision": None}
    trained = read_results(local_folder / "results/tiny.json").records
    assert {each.checkpoints for each in trained} == {"training"}
    left_out = ("chain_sum", 8)
    expected = {key: value for key, value in values(trained).items() if key[:2] != left_out}
    assert len(expected) < len(trained) and values(results.records) == expected
    again = launch(tmp_path, *asked, "evaluation.steps=[0,16]")
    assert "nothing was run again" in again.stdout


def test_a_grid_runs_here_one_after_the_other_with_one_base(
    tiny_recipe: Path, local_run: RunDirectory, released: Path, tmp_path: Path
) -> None:
    asked = [*words(tiny_recipe, released, local_run), "evaluation.benchmarks.chain_sum=false"]
    asked += ["training.weight_decay=0.01,0.02", "evaluation.steps=[0,8]"]  # of what was published: a label only
    looked = launch(tmp_path, *asked, "dry_run=true")
    assert looked.returncode == 0, looked.stderr
    assert not (tmp_path / "runs").exists() and "nothing was written" in looked.stdout
    done = launch(tmp_path, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(path.name for path in (tmp_path / "results").iterdir())
    runs = ["tiny_published_weight_decay0.01", "tiny_published_weight_decay0.02"]
    assert files == ["Qwen3-tiny.json", *(f"{run}.json" for run in runs)]
    steps = {file: {each.step for each in read_results(tmp_path / "results" / file).records} for file in files}
    assert steps == {"Qwen3-tiny.json": {0}, **{f"{run}.json": {8} for run in runs}}
    assert {each.checkpoints for each in read_results(tmp_path / "results/Qwen3-tiny.json").records} == {"model"}
    again = launch(tmp_path, *asked)
    assert again.returncode == 0 and again.stdout.count("nothing was run again") == 3


def test_what_is_wrong_with_any_run_is_said_before_the_first_starts(
    tiny_recipe: Path, local_run: RunDirectory, released: Path, tmp_path: Path
) -> None:
    asked = words(tiny_recipe, released, local_run)
    taken = tmp_path / "runs/tiny_published_learning_rate1e-3"
    taken.mkdir(parents=True)
    done = launch(tmp_path, *asked, "training.learning_rate=1e-3,2e-3", "stages=score,collect")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "3 of 3 runs" in done.stderr and "was never started" in done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [taken.name] and not list(taken.iterdir())


def test_a_checkpoint_that_is_not_released_says_which(released: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint of step 4: step4/ holds no config\.json.*evaluation\.steps"):
        folder_of(PublishedSection(path=str(released)), 4)
    assert folder_of(PublishedSection(path=str(released)), 8) == released / "step8"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["source=published"], "published: exactly one source is needed"),
        (["source=published", "published.path=/no/such"], "no such folder"),
        (["source=published", "published.hub_id=a/b", "published.path=."], "exactly one source"),
        (["published.revision=main"], "only beside published.hub_id"),
        (["evaluation.steps=[5]"], "no checkpoint of these steps is saved"),
        (["evaluation.steps=[]"], "leave it out to evaluate all"),
        (["evaluation.steps=[-1]"], "out of range"),
        (["source=model", "evaluation.steps=[8]"], r"some of 0 \(0 is the base\)"),
    ],
)
def test_bad_settings_are_refused(tiny_recipe: Path, overrides: list[str], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        load(str(tiny_recipe), overrides)


def test_the_name_says_that_checkpoints_were_published(tiny_recipe: Path, released: Path) -> None:
    published = ["source=published", f"published.path={released}"]
    assert load(str(tiny_recipe), published).recipe.name == "tiny_published"
    assert load(str(tiny_recipe), [*published, "name=mine"]).recipe.name == "mine"
