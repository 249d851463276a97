"""Patterns, lists, grids, figures and tables -> runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reprokit.campaign.selection import Selection, grid, notes, recipe_of, select
from reprokit.errors import UserError
from reprokit.recipe import LoadedRecipe, evaluated_steps, load_resolved
from reprokit.recipe.schema import Source
from reprokit.records.paper import FIGURES, NINE, TABLES

GRID = [10, 20, 40, 80, 160, 320, 480, 640]


def chosen(kind: str, value: str, *overrides: str) -> list[LoadedRecipe]:
    return select(Selection(kind, value, overrides))  # type: ignore[arg-type]


def names(loaded: list[LoadedRecipe]) -> list[str]:
    return [each.recipe.name for each in loaded]


def cells(loaded: list[LoadedRecipe]) -> set[tuple[str, int, str]]:
    return {
        (each.recipe.name, step, benchmark)
        for each in loaded
        for step in evaluated_steps(each.recipe)
        for benchmark in each.recipe.evaluation.benchmarks
    }


def test_one_recipe_is_taken_as_it_is() -> None:
    (only,) = chosen("recipe", "mini")
    assert only.recipe.name == "mini" and evaluated_steps(only.recipe) == [0, *GRID]
    assert Selection("recipe", "mini", ("training.epochs=2",)).words == ["recipe=mini", "training.epochs=2"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [((), "")]),
        (["a.b=1"], [(("a.b=1",), "")]),
        (["a.b=[1,2]"], [(("a.b=[1,2]",), "")]),
        (["a.b={c: 1, d: 2}", "e='x,y'"], [(("a.b={c: 1, d: 2}", "e='x,y'"), "")]),
        (["a.lr=1e-5,5e-5"], [(("a.lr=1e-5",), "_lr1e-5"), (("a.lr=5e-5",), "_lr5e-5")]),
        (["a.s=[1],[2,3]"], [(("a.s=[1]",), "_s1"), (("a.s=[2,3]",), "_s2-3")]),
        (
            ["a.seed=1,2", "x=0", "b.seed=3,4"],
            [((f"a.seed={a}", "x=0", f"b.seed={b}"), f"_a.seed{a}_b.seed{b}") for a in (1, 2) for b in (3, 4)],
        ),
    ],
)
def test_lists_of_values_are_a_grid(overrides: list[str], expected: list[tuple[tuple[str, ...], str]]) -> None:
    assert [(variant.overrides, variant.ending) for variant in grid(overrides)] == expected


@pytest.mark.parametrize(
    ("kind", "value", "overrides", "expected"),
    [
        ("recipe", "paper/none_*", (), "no recipe has a name like that"),
        ("recipe", "mini,no_such", (), "no such recipe"),
        ("recipe", "mini", ("name=a,b",), "name= takes one name"),
        ("recipe", "mini", ("training.epochs=1,",), "an empty value in the list"),
        ("recipe", "mini", (f"data.seed={','.join(map(str, range(1001)))}",), "1001 runs; at most 1000"),
        ("recipe", "mini,mini_ten", ("name=same",), "several of the runs are called same"),
        ("recipe", "mini", ("training.learning_rate=1e-5,fast",), "a number, for example"),
        ("figure", "1", (), "is a drawing without numbers"),
        ("figure", "16", (), "does not exist. Valid: 2, 3, 4"),
        ("table", "3", (), "has the settings of training and no results"),
        ("table", "two", (), "does not exist"),
        ("figure", ",", (), "give a number, for example figure=2"),
        ("figure", "6", ("evaluation.steps=[10]",), "says which checkpoints are evaluated"),
        ("figure", "6", ("source=model",), "says which checkpoints are evaluated"),
        ("figure", "6", ("evaluation.benchmarks.hex_phi=false",), "none of them is left to evaluate"),
        ("recipe", "mini", ("data.seed=1,2", "data.seed=3"), "data.seed is given more than once"),
        ("recipe", "mini", ("evaluation.benchmarks._questions={}",), "not a benchmark to choose"),
    ],
)
def test_what_cannot_be_selected_says_why(kind: str, value: str, overrides: tuple[str, ...], expected: str) -> None:
    with pytest.raises(UserError, match=expected.replace(".", r"\.")):
        chosen(kind, value, *overrides)


def test_a_pattern_has_every_run_and_every_base_once() -> None:
    loaded = chosen("recipe", "paper/*")
    bases = [each for each in loaded if each.recipe.source is Source.model]
    assert len(bases) == 10 and len(loaded) == 44
    assert loaded[:10] == bases and len(set(names(loaded))) == 44
    assert all(0 not in evaluated_steps(each.recipe) for each in loaded[10:])
    assert names(chosen("recipe", "paper/qwen3_14b_*"))[0] == "Qwen3-14B-Base"
    assert len(chosen("recipe", "paper/qwen3_14b_*")) == 1 + 13
    both = chosen("recipe", "[paper/qwen3_8b_math_cot_20k_*, paper/qwen3_8b_*, mini]")
    assert len(both) == 1 + 5 + 1 and evaluated_steps(both[-1].recipe) == [0, *GRID]  # random weights stay in the run


def test_a_grid_gives_runs_with_names_of_their_own() -> None:
    loaded = chosen("recipe", "mini", "training.learning_rate=1e-3,2e-3", "training.seed=1,2")
    assert names(loaded) == [f"mini_learning_rate{rate}_seed{seed}" for rate in ("1e-3", "2e-3") for seed in (1, 2)]
    assert [each.recipe.training.learning_rate for each in loaded] == [1e-3, 1e-3, 2e-3, 2e-3]


def test_a_base_under_other_settings_stays_in_its_run() -> None:
    recipe = "paper/qwen3_8b_math_cot_20k_lr5e-5_ep8_bs256"
    base, first, second = chosen("recipe", recipe, "evaluation.seed=1,2")
    assert base.recipe.name == "Qwen3-8B-Base" and base.recipe.evaluation.seed == 1
    assert evaluated_steps(first.recipe) == GRID and evaluated_steps(second.recipe) == [0, *GRID]


def test_a_figure_has_its_runs_steps_and_benchmarks_and_no_more() -> None:
    loaded = chosen("figure", "3")
    trained = [each for each in loaded if each.recipe.source is Source.training]
    assert len(trained) == 3 and len(loaded) == 6
    models = ["Qwen3-14B", "Qwen3-8B", "InternLM2.5-20B"]
    runs = {(f"{model}_Math-CoT-20k_lr5e-5_ep8_bs256", step) for model in models for step in GRID}
    wanted = runs | {(f"{model}-Base", 0) for model in models}
    assert cells(loaded) == {(run, step, benchmark) for run, step in wanted for benchmark in NINE}


def test_a_table_of_last_checkpoints_and_one_of_bases() -> None:
    table = chosen("table", "2")
    assert {step for _, step, _ in cells(table)} == {0, 640} and len(table) == 15
    assert len(cells(table)) == 15 * 9
    bases = chosen("table", "5")
    assert [each.recipe.source for each in bases] == [Source.model] * 9
    assert {step for _, step, _ in cells(chosen("table", "1"))} == {640}
    ends = {run: step for run, step, _ in cells(chosen("table", "4")) if step}
    assert sorted(ends.values()) == [80, 80, 160]


def test_several_figures_share_runs_and_bases() -> None:
    loaded = chosen("figure", "3,6")
    assert len(loaded) == 3 + 6
    assert {len(each.recipe.evaluation.benchmarks) for each in loaded if each.recipe.source is Source.model} == {10}
    without = [each for each in loaded if "NoCoT" in each.recipe.name]
    assert all(evaluated_steps(each.recipe) == [640] for each in without) and len(without) == 3


def test_every_run_of_every_figure_and_table_has_its_recipe() -> None:
    runs = {run for known in (FIGURES, TABLES) for shown in known.values() for run in shown.runs}
    assert len(runs) == 33
    for run in sorted(runs):
        (loaded,) = chosen("recipe", recipe_of(run))
        assert loaded.recipe.name == run


def test_a_pattern_of_published_checkpoints_leaves_out_what_nobody_published() -> None:
    loaded = chosen("recipe", "paper/*", "source=published")
    assert len(loaded) == 9 + 33 and not [name for name in names(loaded) if "Gemma" in name]
    with pytest.raises(UserError, match="exactly one source is needed"):
        chosen("recipe", "paper/gemma3_27b_math_cot_20k_lr5e-5_ep8_bs256", "source=published")


def test_a_base_with_any_name_has_a_folder_of_its_own() -> None:
    recipe = "paper/qwen3_8b_math_cot_20k_lr5e-5_ep8_bs256"
    for given in ("Org/My Model", "../../x", "Modell ü"):
        base = chosen("recipe", recipe, f"model.name={given}", "evaluation.seed=1,2")[0].recipe
        assert re.fullmatch(r"[A-Za-z][\w.-]*", base.name, re.ASCII) and base.model.name == given


def test_appendix_tables_ask_all_reward_models_and_omit_a_step() -> None:
    table = chosen("table", "8")
    assert [evaluated_steps(each.recipe) for each in table] == [[0], [step for step in GRID if step != 20]]
    assert all(each.recipe.evaluation.judges.keys() == {"Sky", "Mis"} for each in table)
    assert not chosen("table", "2")[0].recipe.evaluation.judges


def test_what_is_not_known_of_a_figure_is_said() -> None:
    assert notes(Selection("figure", "3")) == [] and notes(Selection("recipe", "mini")) == []
    assert notes(Selection("figure", "3,4")) == ["figure 4: which benchmarks it shows is not known: all nine are taken"]


def test_published_checkpoints_are_other_runs_with_the_same_bases() -> None:
    loaded = chosen("figure", "3", "source=published")
    assert [each.recipe.source for each in loaded] == [Source.model] * 3 + [Source.published] * 3
    assert names(loaded)[3] == "Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256_published"
    assert loaded[:3] == chosen("figure", "3")[:3]


def test_what_is_selected_is_what_a_job_reads(tmp_path: Path) -> None:
    selections = [("figure", "3,6"), ("table", "2"), ("table", "8"), ("figure", "6", "source=published")]
    for loaded in [each for words in selections for each in chosen(*words)]:
        (tmp_path / "recipe.yaml").write_text(loaded.to_yaml())
        assert load_resolved(tmp_path / "recipe.yaml") == loaded.recipe


WITHOUT_TORCH = """
import sys
from reprokit import launch
code = launch.main(sys.argv[1:])
heavy = {"torch", "transformers", "vllm", "deepspeed"} & sys.modules.keys()
assert not heavy, heavy
sys.exit(code)
"""


def planned(folder: Path, *words: str) -> str:
    command = [sys.executable, "-c", WITHOUT_TORCH, *words, "cluster=h200", "dry_run=true"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return done.stdout


def test_the_plan_of_all_runs_sums_up_what_the_plans_of_each_say(tmp_path: Path) -> None:
    everything = planned(tmp_path, "recipe=paper/*")
    assert re.search(r"together 44 runs, 2,830 cells; [\d,]+ jobs with [\d,]+ elements to do", everything)
    assert re.search(r"time: .*GPU-hours on H200", everything) and re.search(r"disk: .* TB of checkpoints", everything)
    rows = [line for line in everything.splitlines() if "_lr" in line or "-Base " in line]
    assert len(rows) == 44
    elements = sum(int(re.search(r" (\d+) +[\d,.]+ +[\d.]+ [MGT]B *$", row).group(1)) for row in rows)  # type: ignore[union-attr]
    assert f"with {elements:,} elements" in everything


def test_the_plan_of_a_figure(tmp_path: Path) -> None:
    shown = planned(tmp_path, "figure=3")
    assert "together 6 runs, 243 cells" in shown  # 3 runs x 8 steps x 9 benchmarks, and 3 bases x 9
    assert len(re.findall(r"_Math-CoT-20k_lr5e-5_ep8_bs256 +8 x 9 +train, evaluate, judge", shown)) == 3
    assert len(re.findall(r"-Base +1 x 9 +evaluate, judge", shown)) == 3
