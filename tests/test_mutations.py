"""Damaged recipes and cluster profiles: each is still valid, or one clear error that says where; never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from reprokit.cluster.profiles import PROFILES, load_profile, profile_names
from reprokit.launch import main
from reprokit.recipe import RecipeError, load

SEED = 20260408
COUNT = 200
SECONDS = 20  # of one case, after which it counts as hanging
RECIPES = ("mini", "paper/qwen3_14b_math_cot_2_5k_lr5e-5_ep8_bs32", "paper/qwen3_1_7b_math_cot_20k_lr5e-5_ep8_bs256")
WORDS = ["yes", "null", "~", "''", "[]", "{}", "[1, x]", "{a: 1}", "cosine", "-1", "0", "3", "0.5", ".nan", "1e400"]
WORDS += ["???", "${name}", "${nothing.here}", "2026-01-01", "1:30", "0x10", "!!int x", "'8'", "h200", "/etc/passwd"]
ODD = [
    "\t",
    "\0",
    "\x07",
    "\x85",
    "\ufeff",
    "\u202e",
    "é",
    "Ω",
    "\U0001f600",
    "：",
    "\ud7ff",
    "%",
    "@",
    "`",
    "\\",
    "\r",
]
INCLUDES = [
    "[gone]",
    "[data]",
    "[..]",
    "[/etc/passwd]",
    "[mini, mini]",
    "[damaged]",
    "[../slurm/h200]",
    "mini",
    "[[mini]]",
]
INCLUDES += [
    "[training/papr]",
    "[~/nothing]",
    "[models/qwen3_8b_base]",
    "[null]",
    "[3]",
    "{a: mini}",
    "['']",
    "[data/..]",
]

Mutation = Callable[[list[str], random.Random], None]


def place(lines: list[str], source: random.Random) -> int:
    """A line with content, if there is one."""
    full = [number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    return source.choice(full or range(len(lines)))


def delete_line(lines: list[str], source: random.Random) -> None:
    del lines[place(lines, source)]


def duplicate_line(lines: list[str], source: random.Random) -> None:
    lines.insert(source.randrange(len(lines) + 1), lines[place(lines, source)])


def change_value(lines: list[str], source: random.Random) -> None:
    at = place(lines, source)
    lines[at] = re.sub(r": ?[^:,{}]*", lambda _: f": {source.choice(WORDS)}", lines[at], count=1)


def garble_key(lines: list[str], source: random.Random) -> None:
    at = place(lines, source)
    keys = list(re.finditer(r"\w+(?=:)", lines[at]))
    if keys:
        key = source.choice(keys)
        letters = list(key[0])
        source.shuffle(letters)
        new = source.choice(["".join(letters), key[0][1:], key[0] + source.choice(ODD), key[0].upper(), ""])
        lines[at] = lines[at][: key.start()] + new + lines[at][key.end() :]


def swap_values(lines: list[str], source: random.Random) -> None:
    one, other = place(lines, source), place(lines, source)
    (key, colon, value), (key2, colon2, value2) = lines[one].partition(":"), lines[other].partition(":")
    lines[one], lines[other] = key + colon + value2, key2 + colon2 + value


def cut(lines: list[str], source: random.Random) -> None:
    text = "\n".join(lines)
    lines[:] = text[: source.randrange(1, len(text))].split("\n")


def insert_odd(lines: list[str], source: random.Random) -> None:
    at = place(lines, source)
    column = source.randint(0, len(lines[at]))
    lines[at] = lines[at][:column] + source.choice(ODD) * source.choice([1, 1, 40]) + lines[at][column:]


def indent(lines: list[str], source: random.Random) -> None:
    at = place(lines, source)
    lines[at] = source.choice(["  " + lines[at], " " + lines[at], lines[at].lstrip(), lines[at][1:], "\t" + lines[at]])


def enlarge(lines: list[str], source: random.Random) -> None:
    huge = source.choice(
        ["1" + "0" * 9, "8" + "0" * 15, "9" * 18, "9" * 30, "9" * 5000, "1e300", "-" + "9" * 12, ".inf"]
    )
    numbered = [number for number, line in enumerate(lines) if re.search(r"(?<=[ \[])\d", line.split("#")[0])]
    if numbered:
        at = source.choice(numbered)
        lines[at] = re.sub(r"(?<=[ \[])\d[\d.e-]*", huge, lines[at], count=1)


def replace_letter(lines: list[str], source: random.Random) -> None:
    at = place(lines, source)
    column = source.randrange(max(1, len(lines[at])))
    lines[at] = (
        lines[at][:column] + source.choice(["е", "ａ", "a\u0301", "\u200b", "１", "—", "’"]) + lines[at][column + 1 :]
    )


def alias(lines: list[str], source: random.Random) -> None:
    anchored, used = place(lines, source), place(lines, source)
    lines[anchored] = re.sub(r": ?", ": &x ", lines[anchored], count=1)
    lines[used] = re.sub(
        r":.*", source.choice([": *x", ": *y", ": [*x, *x]", ": &x [*x]", ": &x {a: *x}"]), lines[used], count=1
    )


def include(lines: list[str], source: random.Random) -> None:
    lines[:] = [line for line in lines if not line.startswith("include:") or source.random() < 0.3]
    lines.insert(0, f"include: {source.choice(INCLUDES)}")


MUTATIONS: list[Mutation] = [delete_line, duplicate_line, change_value, change_value, garble_key, swap_values, cut]
MUTATIONS += [insert_odd, indent, enlarge, enlarge, replace_letter, alias, include]


class Case(NamedTuple):
    """A damaged text: of a recipe or of a profile, and what was done to it."""

    number: int
    is_profile: bool
    text: str
    done: str


def cases(seed: int = SEED, count: int = COUNT) -> Iterator[Case]:
    """Every kind of damage to every kind of file; of a third of them there is more than one."""
    source = random.Random(seed)
    profiles = [(PROFILES / f"{name}.yaml").read_text() for name in profile_names()]
    recipes = [path.read_text() for path in (PROFILES.parent / "recipes" / f"{name}.yaml" for name in RECIPES)]
    recipes += [load(name).to_yaml() for name in RECIPES]  # with every key
    for number in range(count):
        is_profile = number % 3 == 2
        lines = source.choice(profiles if is_profile else recipes).split("\n")
        mutations = [MUTATIONS[number % len(MUTATIONS)], *source.choices(MUTATIONS, k=source.choice([0, 0, 1]))]
        for mutation in mutations:
            mutation(lines, source)
        done = "+".join(mutation.__name__ for mutation in mutations)
        yield Case(number, is_profile, "\n".join(lines), done)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in; the environment, which a profile may change, is put back."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def hanging(*_: object) -> None:
        raise AssertionError(f"still not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hanging)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write(folder: Path, case: Case) -> Path:
    path = folder / "damaged.yaml"
    path.write_bytes(case.text.encode("utf-8", "surrogatepass"))
    return path


def test_damage_is_survived_or_told_with_its_place(workplace: Path) -> None:
    outcomes: Counter[tuple[bool, str]] = Counter()
    for case in cases():
        path = write(workplace, case)
        with time_limit():
            try:
                if case.is_profile:
                    load_profile(str(path))
                else:
                    load(str(path))
                outcomes[case.is_profile, "valid"] += 1
            except RecipeError as error:
                outcomes[case.is_profile, "refused"] += 1
                assert error.problems, case
                for problem in error.problems:
                    assert problem.where and problem.message and problem.remedy, (case.number, case.done, problem)
                    assert re.search(r"\.yaml(:\d+)?$", problem.where), (case.number, case.done, problem)
                assert all(line.isprintable() for line in str(error).split("\n"))
    assert sum(outcomes.values()) == COUNT and len(outcomes) == 4 and min(outcomes.values()) > 5, outcomes


def test_the_command_survives_damage(workplace: Path) -> None:
    """The same through the words of the command line, as far as what is planned."""
    codes: Counter[int] = Counter()
    for case in cases():
        path = write(workplace, case)
        words = ["recipe=mini", f"cluster={path}"] if case.is_profile else [f"recipe={path}", "cluster=h200"]
        out, err = io.StringIO(), io.StringIO()
        with time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "dry_run=true"])
        codes[code] += 1
        assert code in (0, 2) and "Traceback" not in err.getvalue(), (case.number, case.done, err.getvalue())
        assert (code == 2) == err.getvalue().startswith("error: "), (case.number, case.done, err.getvalue())
    assert set(codes) == {0, 2} and min(codes.values()) > 5, codes
    assert [path.name for path in workplace.iterdir()] == ["damaged.yaml"]
