"""Disk that a run needs, and the refusal where there is too little of it."""

from __future__ import annotations

import os
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from reprokit.campaign import disk as disks
from reprokit.campaign.cost import cost
from reprokit.campaign.disk import Disk, check_disk, disk, in_words
from reprokit.errors import UserError
from reprokit.recipe.schema import Arithmetic, ModelSection, Recipe, Source
from reprokit.records.run_directory import RunDirectory
from tests.test_cost import STEPS, profile, recipe_of
from tests.test_launch import sealed
from tests.test_planner import PARAMETERS_14B, QWEN3_14B

EVERY_TENTH = list(range(10, 641, 10))
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(disks, "hub_cache", lambda: tmp_path / "hub")
    return tmp_path / "hub"


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, size))


def check(recipe: Recipe, run: RunDirectory) -> None:
    check_disk(cost(recipe, profile(), run, None).disk, run.root.parent, "recipe run")


def refusal(recipe: Recipe, run: RunDirectory) -> str:
    with pytest.raises(UserError) as refused:
        check(recipe, run)
    return str(refused.value)


def test_64_checkpoints_of_14b_take_1_9_terabytes() -> None:
    found = disk(recipe_of(checkpoint_steps=EVERY_TENTH), True, 0, None)
    assert found.checkpoints == 64 * 2 * PARAMETERS_14B and in_words(found.checkpoints) == "1.9 TB"


def test_states_are_three_of_master_weight_and_moments() -> None:
    assert disk(recipe_of(), True, 0, None).states == 3 * 12 * PARAMETERS_14B
    assert disk(recipe_of(arithmetic=Arithmetic.official), True, 0, None).states == 3 * 6 * PARAMETERS_14B
    assert disk(recipe_of(), False, 0, None) == Disk(models={"a/b": 2 * PARAMETERS_14B})


def test_a_base_that_is_written_anew_counts() -> None:
    own = replace(recipe_of(), model=ModelSection(name="x", config={"model_type": "qwen3", **QWEN3_14B}))
    assert disk(own, True, 0, None).checkpoints == 9 * 2 * PARAMETERS_14B and disk(own, True, 0, None).hub == 0
    rewritten = ModelSection(name="x", hub_id="a/b", shape={"model_type": "internlm2", **QWEN3_14B})
    found = disk(replace(recipe_of(), model=rewritten), True, 0, None)
    assert found.checkpoints == 9 * 2 * PARAMETERS_14B and found.hub == 2 * PARAMETERS_14B


def test_models_that_are_fetched_already_do_not_count(tmp_path: Path, cache: Path) -> None:
    recipe, run = recipe_of(), RunDirectory(tmp_path / "run")
    assert disk(recipe, False, 0, run).hub == 2 * PARAMETERS_14B
    blob = cache / "models--a--b" / "blobs" / "digest"
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as stream:
        stream.truncate(2 * PARAMETERS_14B - 1000)  # takes no space
    assert disk(recipe, False, 0, run).hub == 1000
    assert disk(recipe, False, 0, None).hub == 2 * PARAMETERS_14B  # of any machine


def test_too_little_disk_is_refused_with_what_helps(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = recipe_of(checkpoint_steps=EVERY_TENTH), RunDirectory(tmp_path / "runs" / "run")
    free(monkeypatch, 1e12)
    said = refusal(recipe, run)
    print(said)
    assert said.startswith(
        f"recipe run: {tmp_path} lacks 1.5 TB of disk. Still needed are about\n    1.9 TB  checkpoints"
    )
    assert f"in {tmp_path}/runs, 64 of 30 GB each" in said
    assert f"532 GB  resumable states in {tmp_path}/runs while it trains" in said
    assert "export HF_HOME=FOLDER" in said and "runs: FOLDER in the cluster profile" in said
    most = re.search(r"fewer training.checkpoint_steps: (\d+) instead of 64 fit", said)
    assert most
    check(recipe_of(checkpoint_steps=EVERY_TENTH[-int(most[1]) :]), run)
    assert "fewer training" in refusal(recipe_of(checkpoint_steps=EVERY_TENTH[-int(most[1]) - 1 :]), run)
    free(monkeypatch, 1e9)
    assert "fewer training.checkpoint_steps\n" in refusal(recipe, run)


def test_what_is_there_is_not_needed_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = recipe_of(), RunDirectory(tmp_path / "runs" / "run")
    free(monkeypatch, 400e9)
    assert "8 of 30 GB each" in refusal(recipe, run)
    run.root.mkdir(parents=True)
    for step in STEPS[:6]:
        sealed(run.checkpoint(step), step)
    for step in (280, 320):
        sealed(run.state(step), step)
    needed = cost(recipe, profile(), run, None).disk
    assert needed.checkpoints == 2 * 2 * PARAMETERS_14B and needed.states == 12 * PARAMETERS_14B
    check(recipe, run)


def test_published_checkpoints_need_the_cache_and_no_run_folder(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe_of(), source=Source.published)
    recipe.published.hub_id = "a/b-trained"
    free(monkeypatch, 100e9)
    said = refusal(recipe, RunDirectory(tmp_path / "runs" / "run"))
    assert f"236 GB  published checkpoints to be fetched into {cache}" in said and "fewer evaluation.steps" in said
    assert "checkpoint_steps" not in said
    recipe.evaluation.steps = [0, 640]
    check(recipe, RunDirectory(tmp_path / "runs" / "run"))


def test_every_file_system_is_asked_for_its_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is one file system only")
    monkeypatch.setattr(disks, "hub_cache", lambda: other / "hub")
    room = {other: 10.0, tmp_path: 100.0}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, room[Path(place)]))
    check_disk(Disk(samples=100, models={"a/b": 10}), tmp_path / "runs", "r")
    with pytest.raises(UserError, match=f"r: {other} lacks"):
        check_disk(Disk(samples=100, models={"a/b": 11}), tmp_path / "runs", "r")
    with pytest.raises(UserError, match=f"r: {re.escape(str(tmp_path))} lacks"):
        check_disk(Disk(samples=101, models={"a/b": 10}), tmp_path / "runs", "r")
    check_disk(Disk(samples=100, published=10), tmp_path / "runs", "r")
    room[other] = -1.0  # nothing is asked of it
    check_disk(Disk(samples=100), tmp_path / "runs", "r")


def test_the_disk_of_this_machine_is_looked_at(tmp_path: Path) -> None:
    check_disk(Disk(samples=1000), tmp_path / "runs", "r")
    with pytest.raises(UserError, match="1,000,000 TB  samples"):
        check_disk(Disk(samples=1e18), tmp_path / "runs", "r")


def test_several_runs_share_models_and_add_up_the_rest(cache: Path) -> None:
    one, other = disk(recipe_of(), True, 100, None), disk(recipe_of("hex_phi"), True, 100, None)
    both = one + other
    assert both.checkpoints == 2 * one.checkpoints and both.saves == 16 and both.samples == 800
    assert one.hub == 2 * PARAMETERS_14B and both.hub == other.hub == 2 * (PARAMETERS_14B + 32.8e9)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 kB"), (1.89e12, "1.9 TB"), (236.3e9, "236 GB"), (62e6, "62 MB"), (9.96e9, "10 GB"), (999.9e9, "1.0 TB")],
)
def test_sizes_in_words(size: float, expected: str) -> None:
    assert in_words(size) == expected
