"""Checkpoints that others have trained, evaluated at their steps; several runs by one command; a choice of steps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from reprokit.campaign.collect import collect
from reprokit.errors import UserError
from reprokit.preparation.published import folder_of, prepare_published
from reprokit.preparation.sentencepiece_tokenizer import load_internlm2_tokenizer
from reprokit.recipe import RecipeError, load
from reprokit.recipe.schema import PublishedSection
from reprokit.records.files import read_json
from reprokit.records.record import Record, read_results, write_results
from reprokit.records.run_directory import RunDirectory
from tests.conftest import launch
from tests.test_models import SIZES, random_weights, write_internlm2


@pytest.fixture(scope="module")
def released(local_run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of the tiny run as they would be released."""
    folder = tmp_path_factory.mktemp("released")
    for step in (8, 16):
        os.symlink(local_run.checkpoint(step), folder / f"step{step}")
    return folder


def words(recipe: Path, released: Path, run: RunDirectory, cluster: str = "cluster=local") -> list[str]:
    model = ["model.config=null", "model.tokenizer_vocab_size=null", f"model.path={run.checkpoint(0)}"]
    given = [f"recipe={recipe}", cluster, "source=published", f"published.path={released}", *model]
    return [*given, "stages=prepare,train,evaluate,score,collect"]


def values(records: list[Record]) -> dict[tuple[str, int, str, str | None], tuple[float, float | None]]:
    keys = ((each.benchmark, each.step, each.metric, each.protocol) for each in records)
    return dict(zip(keys, ((each.value, each.mean_response_tokens) for each in records), strict=True))


def test_published_checkpoints_score_as_in_the_run_that_trained_them(
    tiny_recipe: Path, local_folder: Path, local_run: RunDirectory, released: Path, one_engine: str, tmp_path: Path
) -> None:
    asked = words(tiny_recipe, released, local_run, one_engine)
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


def test_several_runs_go_one_after_the_other(
    tiny_recipe: Path, local_folder: Path, local_run: RunDirectory, released: Path, tmp_path: Path
) -> None:
    """With the stages that need no engine: an evaluation of several runs has no other order."""
    other = tiny_recipe.with_name("other.yaml")
    other.write_text(tiny_recipe.read_text().replace("name: tiny", "name: other", 1))
    asked = [*words(Path(f"{tiny_recipe},{other}"), released, local_run), "evaluation.benchmarks.chain_sum=false"]
    asked += ["evaluation.steps=[8]", "stages=prepare,collect"]
    looked = launch(tmp_path, *asked, "dry_run=true")
    assert looked.returncode == 0, looked.stderr
    assert not (tmp_path / "runs").exists() and "nothing was written" in looked.stdout
    done = launch(tmp_path, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(path.name for path in (tmp_path / "results").glob("*.json"))
    runs = ["other_published", "tiny_published"]
    assert files == [f"{run}.json" for run in runs]
    for file in files:
        results = read_results(tmp_path / "results" / file)
        assert results.records == [] and [(cell.step, cell.benchmark) for cell in results.missing] == [(8, "countdown")]
    again = launch(tmp_path, *asked)
    assert again.returncode == 0 and again.stdout.count("nothing was run again") == 2
    shutil.rmtree(tmp_path / "runs/other_published")
    some = launch(tmp_path, *asked, "stages=collect")
    assert some.returncode == 0 and "1 of 2 runs were never started and are left out" in some.stdout, some.stderr
    # Results whose run folder is gone are not replaced by those of a part of the run.
    measured = read_results(local_folder / "results/tiny.json")
    measured.records = [each for each in measured.records if (each.step, each.benchmark) == (8, "countdown")]
    write_results(tmp_path / "results/other_published.json", measured)
    kept = (tmp_path / "results/other_published.json").read_bytes()
    less = launch(tmp_path, *asked, "evaluation.benchmarks.countdown=false", "evaluation.benchmarks.chain_sum={}")
    assert less.returncode == 2 and "has results of 1 cells that the run folder has not (step 8 on cou" in less.stderr
    assert (tmp_path / "results/other_published.json").read_bytes() == kept
    assert not (tmp_path / "runs/other_published").exists()


def test_what_is_wrong_with_any_run_is_said_before_the_first_starts(
    tiny_recipe: Path, local_run: RunDirectory, released: Path, tmp_path: Path
) -> None:
    asked = words(tiny_recipe, released, local_run)
    taken = tmp_path / "runs/tiny_published_seed1"
    taken.mkdir(parents=True)
    done = launch(tmp_path, *asked, "evaluation.seed=1,2", "stages=score,collect")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "3 of 3 runs" in done.stderr and "was never started" in done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [taken.name] and not list(taken.iterdir())


def test_all_checkpoints_are_of_one_commit_and_it_is_recorded(
    local_run: RunDirectory, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the cache of the hub has them; what was asked of the hub is looked at, for there is none here."""
    asked: list[tuple[str, str | None]] = []

    def fetched(hub_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        name = allow_patterns[0].partition("/")[0]
        asked.append((name, revision))
        folder = tmp_path / "hub" / "snapshots" / ("c0ffee" if revision is None else revision)
        folder.mkdir(parents=True, exist_ok=True)
        os.symlink(local_run.checkpoint(int(name.removeprefix("step"))), folder / name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    recipe = load(str(tiny_recipe), ["source=published", "published.hub_id=someone/tiny"]).recipe
    run = RunDirectory(tmp_path / "run")
    prepare_published(run, recipe, None)
    assert asked == [("step8", None), ("step16", "c0ffee")]
    (run.checkpoint(8) / "manifest.json").unlink()
    os.unlink(tmp_path / "hub/snapshots/c0ffee/step8")
    prepare_published(run, recipe, None)
    assert asked[2:] == [("step8", "c0ffee")]
    manifests = [run.manifest(step) for step in (8, 16)]
    assert [made and made.revision for made in manifests] == ["c0ffee", "c0ffee"]
    assert collect(run, recipe).provenance["published"] == {"hub_id": "someone/tiny", "revision": "c0ffee"}


def test_published_internlm2_becomes_llama(tiny_recipe: Path, tmp_path: Path) -> None:
    source = write_internlm2(tmp_path / "released/step8", SIZES, random_weights(SIZES))
    asked = ["source=published", f"published.path={tmp_path / 'released'}", "evaluation.steps=[8]"]
    run = RunDirectory(tmp_path / "run")
    run.root.mkdir()
    prepare_published(run, load(str(tiny_recipe), asked).recipe, load_internlm2_tokenizer(source))
    assert run.weights(8) == run.checkpoint(8)
    assert read_json(run.weights(8) / "config.json", dict[str, Any])["model_type"] == "llama"


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
        (["source=published", "published.path=.", "training.epochs=2"], "how these checkpoints were trained"),
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
