"""The paper's runs against the table of the official code's run scripts, typed here a second time."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from reprokit.campaign.cost import header
from reprokit.campaign.graph import Workspace, plan
from reprokit.campaign.needs import check_fits
from reprokit.campaign.selection import recipe_of
from reprokit.cluster.profiles import load_profile
from reprokit.recipe import evaluated_steps, load, recipe_names, row_count, total_steps
from reprokit.recipe.load import RECIPES
from reprokit.recipe.schema import (
    OFFICIAL_GPUS,
    Arithmetic,
    BenchmarkSection,
    Precision,
    PublishedSection,
    Schedule,
    Source,
)
from reprokit.records import paper
from reprokit.stages import STAGES
from reprokit.training.schedule import learning_rate
from tests.conftest import launch


class Run(NamedTuple):
    """A line of the table. `lr` in 1e-5; `steps` and `warmup` of the optimiser; `c`: micro-batches summed per GPU."""

    name: str
    base: str
    dataset: str
    lr: int
    epochs: int
    batch: int
    micro: int
    schedule: str
    steps: int
    warmup: int
    c: int
    max_length: int = 20000


Q14, Q8, Q4, Q17 = (f"Qwen/Qwen3-{size}-Base" for size in ("14B", "8B", "4B", "1.7B"))
INTERN = "internlm/internlm2_5-20b"
COT, NO_COT, NUMINA = "Math-CoT-20k", "Math-NoCoT-20k", "NuminaMath-20k"
COUNTDOWN, R1, SMALL = "Countdown-CoT-20k", "DeepSeek-R1-20k", "Math-CoT-2.5k"
RUNS = [
    Run("Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256", Q14, COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-14B_Math-CoT-20k_lr5e-5_ep1_bs256", Q14, COT, 5, 1, 256, 4, "cosine", 80, 8, 8),
    Run("Qwen3-14B_Math-CoT-20k_lr1e-5_ep1_bs256", Q14, COT, 1, 1, 256, 4, "cosine", 80, 8, 8),
    Run("Qwen3-14B_Math-CoT-20k_lr1e-5_ep2_bs256", Q14, COT, 1, 2, 256, 4, "cosine", 160, 16, 8),
    Run("Qwen3-14B_Math-CoT-20k_lr5e-5_ep1_bs32", Q14, COT, 5, 1, 32, 4, "cosine", 640, 64, 1),
    Run("Qwen3-14B_Math-CoT-2.5k_lr5e-5_ep8_bs32", Q14, SMALL, 5, 8, 32, 4, "cosine", 640, 64, 1),
    Run("Qwen3-14B_Math-CoT-20k_lr5e-5_ep16_bs256", Q14, COT, 5, 16, 256, 4, "cosine", 1280, 128, 8),
    Run("Qwen3-14B_Math-CoT-20k_lr5e-5_ep16_bs256_ConstLR", Q14, COT, 5, 16, 256, 4, "constant", 1280, 128, 8),
    Run("Qwen3-14B_Math-CoT-20k_lr1e-4_ep16_bs256_ConstLR", Q14, COT, 10, 16, 256, 4, "constant", 1280, 128, 8),
    Run("Qwen3-14B_Math-NoCoT-20k_lr5e-5_ep8_bs256", Q14, NO_COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-14B_Numina-Math-20k_lr5e-5_ep8_bs256", Q14, NUMINA, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-14B_Countdown-CoT-20k_lr5e-5_ep8_bs256", Q14, COUNTDOWN, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-14B_DeepSeek-R1-20k_lr5e-5_ep8_bs256", Q14, R1, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-8B_Math-CoT-20k_lr5e-5_ep8_bs256", Q8, COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-8B_Math-NoCoT-20k_lr5e-5_ep8_bs256", Q8, NO_COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-8B_Numina-Math-20k_lr5e-5_ep8_bs256", Q8, NUMINA, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-8B_Countdown-CoT-20k_lr5e-5_ep8_bs256", Q8, COUNTDOWN, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-8B_DeepSeek-R1-20k_lr5e-5_ep8_bs256", Q8, R1, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-4B_Math-CoT-20k_lr5e-5_ep8_bs256", Q4, COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-4B_Math-NoCoT-20k_lr5e-5_ep8_bs256", Q4, NO_COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-4B_Countdown-CoT-20k_lr5e-5_ep8_bs256", Q4, COUNTDOWN, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-1.7B_Math-CoT-20k_lr5e-5_ep8_bs256", Q17, COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-1.7B_Math-NoCoT-20k_lr5e-5_ep8_bs256", Q17, NO_COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen3-1.7B_Countdown-CoT-20k_lr5e-5_ep8_bs256", Q17, COUNTDOWN, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("InternLM2.5-20B_Math-CoT-20k_lr5e-5_ep8_bs256", INTERN, COT, 5, 8, 256, 2, "cosine", 640, 64, 16),
    Run("InternLM2.5-20B_Math-NoCoT-20k_lr5e-5_ep8_bs256", INTERN, NO_COT, 5, 8, 256, 2, "cosine", 640, 64, 16),
    Run("InternLM2.5-20B_Numina-Math-20k_lr5e-5_ep8_bs256", INTERN, NUMINA, 5, 8, 256, 2, "cosine", 640, 64, 16, 10000),
    Run("InternLM2.5-20B_Countdown-CoT-20k_lr5e-5_ep8_bs256", INTERN, COUNTDOWN, 5, 8, 256, 2, "cosine", 640, 64, 16),
    Run("InternLM2.5-20B_DeepSeek-R1-20k_lr5e-5_ep8_bs256", INTERN, R1, 5, 8, 256, 2, "cosine", 640, 64, 16),
    Run("Qwen2.5-1.5B_Math-CoT-20k_lr5e-5_ep8_bs256", "Qwen/Qwen2.5-1.5B", COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen2.5-3B_Math-CoT-20k_lr5e-5_ep8_bs256", "Qwen/Qwen2.5-3B", COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen2.5-7B_Math-CoT-20k_lr5e-5_ep8_bs256", "Qwen/Qwen2.5-7B", COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
    Run("Qwen2.5-14B_Math-CoT-20k_lr5e-5_ep8_bs256", "Qwen/Qwen2.5-14B", COT, 5, 8, 256, 4, "cosine", 640, 64, 8),
]
GEMMA = "Gemma3-27B_Math-CoT-20k_lr5e-5_ep8_bs256"  # of version 2 of the paper
GRID = [10, 20, 40, 80, 160, 320, 480, 640, 800, 960, 1120, 1280]
PINNED = {  # revisions that are known, of base models and of trained ones
    Q17: "ea980cb0a6c2ae4b936e82123acc929f1cec04c1",
    Q4: "906bfd4b4dc7f14ee4320094d8b41684abff8539",
    Q8: "49e3418fbbbca6ecbdf9608b4d22e5a407081db4",
    Q14: "0b0bd3732e2c374d483664439ea334928b65f304",
    "Qwen/Qwen2.5-1.5B": "8faed761d45a263340a0528343f099c05c9a4323",
    INTERN: "dc786ab20a7fd882ccef61df28e13a940edca24f",
    "Qwen3-1.7B_Math-CoT-20k_lr5e-5_ep8_bs256": "e4fcd58c7b104d3444e0e1d1b470f5107fcc2618",
    "Qwen3-4B_Math-CoT-20k_lr5e-5_ep8_bs256": "aaf1c51a6a2ee319750cafbd7cb8be0df10018b8",
    "Qwen3-8B_Math-CoT-20k_lr5e-5_ep8_bs256": "522decd73c0b46f7029c2a315b3cc177c23a3498",
    "Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256": "e8e6542249d647ac82c556a93410a9c0cafd41cb",
}


def names() -> list[str]:
    return [name for name in recipe_names() if name.startswith("paper/")]


def head(name: str) -> list[str]:
    """The comment lines above the first key."""
    return list(takewhile(lambda line: line.startswith("#"), (RECIPES / f"{name}.yaml").read_text().splitlines()))


def test_there_is_a_recipe_for_every_run() -> None:
    assert len(RUNS) == len({run.name for run in RUNS}) == 33
    assert sorted([*(recipe_of(run.name) for run in RUNS), recipe_of(GEMMA)]) == names() and len(names()) == 34


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_is_that_of_the_official_script(run: Run) -> None:
    recipe = load(recipe_of(run.name)).recipe
    training = recipe.training
    assert recipe.name == run.name and recipe.source is Source.training
    assert recipe.model.hub_id == run.base and recipe.model.revision == PINNED.get(run.base)
    assert recipe.data.name == run.dataset and recipe.data.max_length == run.max_length
    assert training.learning_rate == pytest.approx(run.lr * 1e-5, rel=1e-12)
    assert (training.epochs, training.global_batch_size) == (run.epochs, run.batch)
    assert training.micro_batch_size == run.micro and training.schedule is Schedule(run.schedule)
    assert total_steps(recipe) == run.steps
    assert training.checkpoint_steps == [step for step in GRID if step <= run.steps]
    assert evaluated_steps(recipe) == [0, *training.checkpoint_steps]
    rates = [learning_rate(training, update, run.steps) for update in range(run.steps)]
    assert rates.index(max(rates)) == run.warmup and rates[0] == 0.0
    assert rates[-1] == training.learning_rate if run.schedule == "constant" else rates[-1] < 1e-3 * max(rates)
    assert training.global_batch_size // (OFFICIAL_GPUS * training.micro_batch_size) == run.c
    assert recipe.published.hub_id == f"jasonrqh/{run.name}" and recipe.published.revision == PINNED.get(run.name)


@pytest.mark.parametrize("name", [*(run.name for run in RUNS), GEMMA])
def test_the_runs_share_what_the_official_scripts_share(name: str) -> None:
    recipe = load(recipe_of(name)).recipe
    training = recipe.training
    assert training.arithmetic is Arithmetic.official and training.precision is Precision.bf16
    assert training.betas == [0.9, 0.999] and training.epsilon == 1e-8 and training.weight_decay == 0.01
    assert training.max_gradient_norm == 1.0 and training.warmup_fraction == 0.1
    assert training.gradient_checkpointing and not training.cpu_offload and training.sequence_parallel == 1
    assert set(recipe.evaluation.benchmarks) == {*paper.NINE, *paper.SAFETY}
    assert all(own == BenchmarkSection(samples=own.samples) for own in recipe.evaluation.benchmarks.values())
    assert recipe.model.shape is not None and recipe.data.mean_length is not None
    assert (recipe.model.chat_template is not None) == name.startswith(("Qwen2.5", "Gemma3"))


def test_the_gemma_run_has_no_published_checkpoints() -> None:
    recipe = load(recipe_of(GEMMA)).recipe
    default = load(recipe_of(RUNS[0].name)).recipe
    assert recipe.name == GEMMA and recipe.model.hub_id == "google/gemma-3-27b-pt"
    assert (recipe.training, recipe.data) == (default.training, default.data)
    assert recipe.published == PublishedSection()


def test_data_sets_are_the_published_ones() -> None:
    sets = {}
    for run in RUNS:
        data = load(recipe_of(run.name)).recipe.data
        assert (data.hub_id, data.rows, data.file) == (f"jasonrqh/{data.file[:-8]}", 20480, data.file)
        sets[data.name] = data
    assert set(sets) == {COT, NO_COT, NUMINA, COUNTDOWN, R1, SMALL}
    assert all(data.file == f"{name}.parquet" for name, data in sets.items() if name != SMALL)
    assert (sets[SMALL].file, sets[SMALL].subset, sets[SMALL].sha256) == (sets[COT].file, 2560, sets[COT].sha256)
    assert {name for name, data in sets.items() if data.revision and data.sha256} == {COT, SMALL}
    assert row_count(load(recipe_of(paper.SMALL_DATA)).recipe) == 2560


@pytest.mark.parametrize("name", [*names(), "qwen_long_cot"])
def test_a_recipe_begins_with_what_it_is_for_its_command_and_its_cost(name: str) -> None:
    """For the cost: `python -m reprokit.launch recipe=NAME cluster=h200 dry_run=true` with the stated rates."""
    lines = head(name)
    recipe = load(name).recipe
    assert f"#   python -m reprokit.launch recipe={name}" in lines
    cost = "# " + header(recipe, load_profile("h200"))
    assert [line for line in lines if "GPU-hours" in line] == [cost], f"write into {name}.yaml:\n{cost}"
    text = (RECIPES / f"{name}.yaml").read_text()
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 8
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("run", [run.name for run in RUNS])
def test_a_recipe_names_its_figures_and_tables(run: str) -> None:
    """As the selection of figures and tables knows them; of a group of tables, whose order is not known, the group."""
    sentence = head(recipe_of(run))[1].removeprefix("# ")
    named: dict[str, set[int]] = {"Figure": set(), "Table": set()}
    groups = [range(int(first), int(last) + 1) for first, last in re.findall(r"one of Tables (\d+) to (\d+)", sentence)]
    alone = re.sub(r",? ?(and )?one of Tables \d+ to \d+", "", sentence)
    for kind, listed in re.findall(r"(Figure|Table)s? ([^;.]+)", alone):
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", listed):
            named[kind] |= set(range(int(first), int(last or first) + 1))
    exhibits = {"Figure": paper.FIGURES, "Table": paper.TABLES}
    known = {kind: {int(number) for number, shown in exhibits[kind].items() if run in shown.runs} for kind in named}
    assert named["Figure"] == known["Figure"], sentence
    assert named["Table"] <= known["Table"], sentence
    rest = known["Table"] - named["Table"]
    assert len(rest) == len(groups) and all(len(rest & set(group)) == 1 for group in groups), sentence


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_planned(name: str, tmp_path: Path) -> None:
    recipe, profile = load(name).recipe, load_profile("h200")
    check_fits(recipe, profile, "h200")
    jobs = plan(Workspace(tmp_path), recipe, profile, tuple(STAGES), STAGES, False)
    elements = {job.name: len(job.elements) for job in jobs}
    steps = len(recipe.training.checkpoint_steps)
    others = dict.fromkeys(("prepare", "train", "judge", "score", "collect", "figures"), 1)
    assert elements == {**others, "evaluate": steps + 1}
    (said,) = [job.description for job in jobs if job.name == "train"]
    assert said.endswith(f", {recipe.training.checkpoint_steps[-1]}") and not list(tmp_path.iterdir())


def test_all_of_them_are_planned_by_one_command(tmp_path: Path) -> None:
    done = launch(tmp_path, "recipe=paper/*", "cluster=h200", "dry_run=true", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert all(f" {run} " in done.stdout for run in (*(run.name for run in RUNS), GEMMA))
    assert list(tmp_path.iterdir()) == []


def test_the_entry_of_the_readme_is_the_default_run() -> None:
    assert load("qwen_long_cot").recipe == load(recipe_of(RUNS[0].name)).recipe
