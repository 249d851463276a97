"""python -m reprokit.recipes: listing, showing, copying and checking the recipes of the kit."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reprokit.recipe import load, recipe_names
from reprokit.recipe.compose import fragment_names
from reprokit.recipe.kit import check, purpose, select
from reprokit.recipe.load import RECIPES
from reprokit.recipes import main

DEFAULT = "paper/qwen3_14b_math_cot_20k_lr5e-5_ep8_bs256"
Captured = pytest.CaptureFixture[str]


def said(capsys: Captured, *words: str) -> tuple[int, str, str]:
    """Exit code, output and error output of the command."""
    code = main(words)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_ls_shows_every_recipe_and_what_it_is_for(capsys: Captured) -> None:
    code, out, _ = said(capsys, "ls")
    assert code == 0 and all(f" {name} " in out for name in recipe_names())
    (line,) = [line for line in out.splitlines() if f" {DEFAULT} " in line]
    for part in ("Qwen3-14B-Base", "Math-CoT-20k", "5e-05 / 8 / 256", " 640 ", purpose(DEFAULT)):
        assert part in line
    hours = re.search(r" ([\d,]+) on H200 ", line)
    assert hours is not None and f"# About {hours[1]} GPU-hours" in (RECIPES / f"{DEFAULT}.yaml").read_text()


def test_ls_of_some(capsys: Captured) -> None:
    assert len(select("paper/*")) == 34 and select("paper/qwen3_14b*bs32") == select("BS32")
    assert select("*") == ["mini", "mini_ten", "qwen_long_cot"] and select("mini") == ["mini", "mini_ten"]
    code, out, _ = said(capsys, "ls", "8b_numina")
    assert code == 0 and out.count("paper/") == 1
    code, out, err = said(capsys, "ls", "nothing*")
    assert code == 2 and not out and "paper/* (34)" in err and "mini" in err


def test_ls_leaves_out_what_has_no_room(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (70, 100, 130, 170, 400):
        monkeypatch.setattr("reprokit.recipes.WIDTH", width)
        _, out, _ = said(capsys, "ls", "paper/*")
        lines = [line for line in out.splitlines() if line.strip().startswith("paper/")]
        assert len(lines) == 34 and all(len(line) <= width for line in lines)  # a line each
        assert (" on H200" in lines[0]) == (width > 70) and ("Gemma3-27B-Base" in lines[0]) == (width > 130)
        assert (purpose(lines[0].split()[0]) in lines[0]) == (width == 400)


def test_show_writes_the_includes_out(capsys: Captured, tmp_path: Path) -> None:
    code, out, _ = said(capsys, "show", DEFAULT, "training.seed=7")
    assert code == 0 and "  seed: 7  # command line\n" in out
    assert "  epochs: 8  # recipes/training/paper_default.yaml:" in out
    (tmp_path / "shown.yaml").write_text(out)
    assert load(str(tmp_path / "shown.yaml")).recipe == load(DEFAULT, ["training.seed=7"]).recipe
    assert said(capsys, "show", "nothing_like_it")[0] == said(capsys, "show", DEFAULT, "seed")[0] == 2


@pytest.mark.parametrize("name", [DEFAULT, "mini", "mini_ten", "qwen_long_cot"])
@pytest.mark.parametrize("file", ["own.yaml", "mini.yaml", "paper.yml"])
def test_a_copy_means_the_same_and_has_a_run_of_its_own(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    """Also where its includes and files are not beside it, or a copy is called like what it includes."""
    monkeypatch.chdir(tmp_path)
    code, out, _ = said(capsys, "copy", name, file)
    assert code == 0 and f"recipe={file}" in out
    original = load(name).recipe
    monkeypatch.chdir("/")
    assert load(str(tmp_path / file)).recipe == replace(original, name=Path(file).stem)
    text = (tmp_path / file).read_text()
    assert f"#   python -m reprokit.launch recipe={file}\n" in text and f"recipe={name}\n" not in text
    assert text.startswith(f"# {purpose(name)}\n") and "GPU-hours" not in text
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_copy_of_a_recipe_of_ones_own(tmp_path: Path, capsys: Captured) -> None:
    """Its fragment beside it hides one of the kit, in the place of the original and not in that of the copy."""
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "training").mkdir(parents=True)
    here.mkdir()
    (there / "training" / "paper.yaml").write_text("training: {seed: 11}\n")
    (there / "mine.yaml").write_text("include: [mini, training/paper]\nname: mine\n")
    assert said(capsys, "copy", str(there / "mine.yaml"), str(here / "other.yaml"))[0] == 0
    assert load(str(here / "other.yaml")).recipe.training.seed == 11


def test_copies_overwrite_nothing(tmp_path: Path, capsys: Captured) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere")
    for file, reason in (
        (mine, "is there already"),
        (tmp_path / "link.yaml", "is there already"),
        (tmp_path / "mine", "is a .yaml file"),
        (tmp_path / "no" / "mine.yaml", "no such folder"),
        (tmp_path / "-x.yaml", "a copy of mini would not mean the same"),  # no name of a run
    ):
        code, _, err = said(capsys, "copy", "mini", str(file))
        assert code == 2 and reason in err
    assert said(capsys, "copy", "training/paper", str(tmp_path / "a.yaml"))[0] == 2  # a fragment is no recipe
    assert mine.read_text() == "mine" and sorted(path.name for path in tmp_path.iterdir()) == ["link.yaml", "mine.yaml"]


def test_validate_counts_what_is_valid(capsys: Captured) -> None:
    code, out, err = said(capsys, "validate")
    assert code == 0 and not err
    fragments = set(fragment_names(RECIPES)) - set(recipe_names())
    others = len([name for name in recipe_names() if not name.startswith("paper/")])
    assert out.startswith(f"34 paper recipes valid, {others} other recipes and {len(fragments)} fragments valid (")
    assert {one.name for one in check() if one.is_fragment} == fragments


def test_validate_reports_every_problem_of_every_recipe(capsys: Captured, tmp_path: Path) -> None:
    broken = {
        "one": "include: [mini]\nname: one\ntraining: {epoch: 1, learning_rate: fast}\n",
        "two": "name: two\ninclude: [nowhere]\n",
        "part": "training: {weight_decay: -1, shedule: cosine, epochs: '${training.epoch}'}\n",
        "syntax": "training: [\n",
        "good": "training: {weight_decay: 0.5, seed: '${training.epochs}'}\n",
    }
    for name, text in broken.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    code, out, err = said(capsys, "validate", "mini", *(str(tmp_path / f"{name}.yaml") for name in broken))
    assert code == 2 and out.startswith("0 paper recipes valid, 1 other recipes and 1 fragments valid")
    assert "4 of 6 are not valid" in err
    for part in (
        "one.yaml:3: training.epoch: unknown key",
        "training.learning_rate: wrong type",
        "two.yaml:2: include: no such file",
        "part.yaml:1: training.shedule: unknown key",
        "training.weight_decay: out of range",
        "training.epochs: refers to a key that does not exist",
        "syntax.yaml:2: YAML syntax",
    ):
        assert part in err, part
    fragment = err[err.index("fragment ") : err.index("syntax.yaml:")]
    assert "3 problems" in fragment and "missing required value" not in fragment
    assert "good.yaml" not in err


def test_what_is_not_understood_shows_the_words(capsys: Captured) -> None:
    for words in ((), ("list",), ("copy", "mini"), ("show",), ("ls", "a", "b")):
        code, out, err = said(capsys, *words)
        assert code == 2 and not out and "ls [PATTERN] | show NAME" in err


def test_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from reprokit.recipes import main\n"
        "assert main(['ls']) == main(['validate']) == 0\n"
        "heavy = {'torch', 'transformers', 'vllm', 'deepspeed', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
