"""Recipes against hostile content: nothing makes a traceback, and nothing is changed on the way through a file."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reprokit.cluster.profiles import load_profile
from reprokit.recipe import Recipe, RecipeError, load
from reprokit.recipe.render import to_yaml
from reprokit.recipe.tree import RecipeYaml
from reprokit.recipe.typed import escape
from tests.test_recipe import GOOD

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.:#$' {\\é", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text("ab \\${}?:#'\"\n\té", max_size=12),
    config=st.dictionaries(st.sampled_from(["hidden_size", "x: y", "no", "1"]), plain_values, max_size=3),
)
def test_any_text_survives_the_resolved_recipe(
    tmp_path_factory: pytest.TempPathFactory, text: str, config: Any
) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    text = f"x{text}"
    content = yaml.load(GOOD, RecipeYaml)
    content["model"]["name"] = escape(text)
    path.write_text(yaml.safe_dump(content))
    loaded = load(str(path))
    assert loaded.recipe.model.name == text
    assert loaded.recipe.model.config is not None
    loaded.recipe.model.config.update(config)
    path.write_text(to_yaml(loaded.recipe, AnyOrigin()))
    assert load(str(path)).recipe == loaded.recipe


class AnyOrigin(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "somewhere # \n odd: 1"


SPITEFUL = r"""
??? | ${ | ${name} | ${training} | ${training.epochs} | x${name}${data.rows} | ${oc.env:HOME} | ${oc.env:NOPE} | ${a:b}
${oc.create:{a: 1}} | ${oc.decode:'[1,2]'} | ${training.checkpoint_steps} | "\${name}" | '\???' | '???' | null | ~
[] | {} | [1, [2]] | {a: 1} | true | no | 5e-5 | -1 | 0 | 1e400 | .nan | .inf | 1_000 | 0x10 | 010 | 1:30 | 2024-01-01
&a [*a] | *a | &a {x: *a} | !!set {a} | !foo 1 | !!int x | !!int | !!float | !!binary aGk= | "\ud800" | "\0" | "\x85"
<<: {a: 1} | ? [1] | %YAML 1.2 | --- | ... | @x | ` | a: b: c | " | ' | [ | { | : | - | # | "8" | é | $HOME/x
~nobody/x | qwen_long_cot | [good] | [broken] | [good, 3, gone]
"""
KEYS = ["name", "model", "model.config.x", "training.betas[0]", "evaluation.benchmarks.countdown", "a.b", "[0]", ""]
INDENTED = ["include", "name", "  path", "  config", "  betas", "  seed", "    items", "    samples"]
WORDS = [word for line in SPITEFUL.strip().splitlines() for word in line.split(" | ")]


def mutated(text: str, source: random.Random) -> str:
    lines = text.split("\n")
    for _ in range(source.choice([1, 1, 2])):
        place, word = source.randrange(len(lines)), source.choice([*WORDS, "\t", "\a", "9" * 5000, "[" * 3000])
        line = lines[place]
        column = source.randint(0, len(line))
        lines[place] = source.choice(
            [
                line[:column] + word + line[column:],
                line.split(":")[0] + ": " + word,
                line[:column] + line[column + 1 :],
                " " * source.randint(0, 4) + line,
                f"{line}\n{source.choice(lines)}",
                f"{source.choice(INDENTED)}: {word}\n{line}",
                "",
            ]
        )
    return "\n".join(lines)


def test_no_content_of_a_recipe_makes_a_traceback(tmp_path: Path) -> None:
    source = random.Random(20260408)
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "good.yaml").write_text(GOOD)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(200):
        (folder / "broken.yaml").write_text(mutated(GOOD, source))
        overrides = [f"{source.choice(KEYS)}={source.choice(WORDS)}"] if source.random() < 0.3 else []
        try:
            loaded = load("broken", overrides, folder)
        except RecipeError as error:
            outcomes["refused"] += 1
            assert error.problems and all(problem.where and problem.remedy for problem in error.problems)
        else:
            outcomes["loaded"] += 1
            assert isinstance(loaded.recipe, Recipe)
    assert min(outcomes.values()) > 5, outcomes


def test_no_name_of_a_file_makes_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links in a circle, names that no file system takes, folders and pipes: each is said not to be there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    long = "x" * 5000
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    keys = ["model.path", "model.chat_template", "data.path", "published.path", "evaluation.benchmarks.math500.path"]
    for name in ("loop", "folder", "pipe", long, "x/" * 3000, "~" * 300, "../" * 2000):
        (tmp_path / "including.yaml").write_text(f"include: [good, '{name}']\nname: including\n")
        with pytest.raises(RecipeError, match="no such file"):
            load("including.yaml")
        for recipe in (name, f"{name}.yaml"):
            with pytest.raises(RecipeError, match="no such recipe"):
                load(recipe)
            with pytest.raises(RecipeError, match="no such file"):
                load_profile(recipe)
    for name in (long, "loop.yaml", "pipe.yaml", f"~{long}"):
        for key in keys:
            with pytest.raises(RecipeError) as caught:
                load(str(good), [f"{key}={name}", "source=published"])
            assert any(f" {key}: no such" in str(problem) for problem in caught.value.problems), (key, name)
