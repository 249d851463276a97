"""The paper's study made small enough for one GPU: its conditions, what it costs, and that it fits."""

from __future__ import annotations

from itertools import takewhile

import pytest

from reprokit.campaign.cost import cost, header, total
from reprokit.campaign.engines import check_judges, gpus_per_engine
from reprokit.campaign.needs import check_fits
from reprokit.campaign.selection import Selection, select
from reprokit.cluster.profiles import load_profile
from reprokit.preparation.training_data import drawn
from reprokit.recipe import Recipe, evaluated_steps, load, recipe_names, row_count
from reprokit.recipe.load import RECIPES
from reprokit.recipe.schema import Arithmetic
from reprokit.records import paper

NAMES = [name for name in recipe_names() if name.startswith("one_gpu/")]
HOURS = 24  # GPU-hours of the whole study


def recipes() -> list[Recipe]:
    return [load(name).recipe for name in NAMES]


def test_the_conditions_of_the_paper_are_there() -> None:
    """Two sizes, three kinds of data, two lengths of training, each beside a run that differs in nothing else."""
    default = load("one_gpu/qwen3_0_6b_math_cot").recipe
    assert len({recipe.name for recipe in recipes()}) == len(NAMES) == 6
    made = {(own.model.name, own.data.name, own.training.epochs) for own in recipes()}
    small, large = "Qwen3-0.6B-Base", "Qwen3-1.7B-Base"
    cot, no_cot, numina = "Math-CoT-2.5k", "Math-NoCoT-2.5k", "NuminaMath-2.5k"
    sizes = {(small, cot, 8), (large, cot, 8), (small, no_cot, 8), (large, no_cot, 8)}
    assert made == {*sizes, (small, numina, 8), (small, cot, 1)}
    for recipe in recipes():
        assert recipe.training.arithmetic is Arithmetic.official
        assert recipe.training.learning_rate == default.training.learning_rate == 5e-5
        assert recipe.data.max_length == 20000 and row_count(recipe) == 2560 and recipe.data.seed == default.data.seed
        assert recipe.evaluation.benchmarks == default.evaluation.benchmarks
        last = 640 if recipe.training.epochs == 8 else 80
        assert recipe.training.checkpoint_steps[-1] == evaluated_steps(recipe)[-1] == last
    assert len({(recipe.data.rows, tuple(drawn(20480, 2560, recipe.data.seed))) for recipe in recipes()}) == 1
    asked = set(default.evaluation.benchmarks)
    for group in (paper.NINE[:2], paper.NINE[2:5], paper.NINE[5:], paper.SAFETY):
        assert asked & set(group), group


@pytest.mark.parametrize("name", NAMES)
def test_a_run_fits_one_gpu(name: str) -> None:
    recipe, profile = load(name).recipe, load_profile("one_gpu")
    assert profile.train.tasks == profile.evaluate.tasks == 1 and profile.gpu_memory_gb == 80
    check_fits(recipe, profile, "one_gpu")
    check_judges(recipe, profile)
    assert gpus_per_engine(recipe, profile) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_run_begins_with_what_it_is_for_its_command_and_its_cost(name: str) -> None:
    lines = list(takewhile(lambda line: line.startswith("#"), (RECIPES / f"{name}.yaml").read_text().splitlines()))
    assert f"#   python -m reprokit.launch recipe={name} cluster=one_gpu" in lines
    wanted = "# " + header(load(name).recipe, load_profile("one_gpu"))
    assert [line for line in lines if "GPU-hours" in line] == [wanted], f"write into {name}.yaml:\n{wanted}"
    assert any("recipes/training/one_gpu.yaml" in line for line in lines)


def test_the_whole_study_takes_a_day() -> None:
    runs, profile = select(Selection("recipe", "one_gpu/*")), load_profile("one_gpu")
    assert len(runs) == 8  # two of them the base models
    whole = total((cost(run.recipe, profile, None, None) for run in runs), beside=False)
    assert 1 < sum(whole.gpu_hours.values()) <= HOURS, whole.gpu_hours
