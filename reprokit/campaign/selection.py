"""Which runs a command line means: names, patterns and lists of recipes, grids of settings, figures and tables.

Several runs of the same base model do not evaluate it several times: it becomes a run of its own, named after the
model, and the others leave step 0 out. Analysis lends a run without step 0 that of its model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Literal

from reprokit.errors import UserError
from reprokit.recipe import LoadedRecipe, evaluated_steps, load
from reprokit.recipe.checks import check_names
from reprokit.recipe.judges import JUDGES
from reprokit.recipe.load import matching_names
from reprokit.recipe.problems import RecipeError
from reprokit.recipe.schema import EvaluationSection, JudgeSection, PublishedSection, Recipe, Source
from reprokit.records.paper import Exhibit, exhibit

PATTERN = re.compile(r"[*?]")
MOST_RUNS = 1000  # of one command: more is a slip of the keyboard
Kind = Literal["recipe", "figure", "table"]
FOLDER = "paper"  # of the recipes of the paper's runs


@dataclass(frozen=True)
class Selection:
    """What was asked for: `kind` and its value, and the overrides of the command line."""

    kind: Kind
    value: str
    overrides: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """What must be typed again for the same."""
        return [f"{self.kind}={self.value}", *self.overrides]


def select(selection: Selection) -> list[LoadedRecipe]:
    """The runs of a selection, base models first.

    One recipe without a grid is taken as it is. Of `figure` and `table` every run has only the steps and benchmarks
    that these show; of several of them, all that any of them shows. With `source=published`, recipes of a pattern whose
    checkpoints nobody has published are left out.

    Raises:
        UserError: a pattern that matches nothing, an unknown figure or table, or runs of the same name.
        RecipeError: of the first recipe that has problems.
    """
    variants = grid(selection.overrides)
    if selection.kind == "recipe":
        names = _recipe_names(selection.value, "source=published" in selection.overrides)
        loaded = [_load(name, variant) for name in names for variant in variants]
        if len(loaded) == 1:
            return loaded
    else:
        numbers = _listed(selection.value)
        _check_exhibit_words(selection, numbers)
        shown = [exhibit(selection.kind, number) for number in numbers]
        loaded = _of_exhibits(shown, variants, f"{selection.kind}={selection.value}")
    runs = _share_bases(loaded)
    repeated = [name for name, times in Counter(run.recipe.name for run in runs).items() if times > 1]
    if repeated:
        raise UserError(
            f"several of the runs are called {', '.join(repeated)}: each needs a folder of its own. Give every recipe "
            "its own name, and do not set name= for several"
        )
    for run in runs:
        if problems := list(check_names(run.recipe)):
            raise RecipeError(run.recipe.name, problems)
    return runs


def _check_exhibit_words(selection: Selection, numbers: Sequence[str]) -> None:
    """Raises UserError when no number is given, or a word says otherwise what a figure or table says itself."""
    what = f"{selection.kind}={selection.value}"
    if not numbers:
        raise UserError(f"{what}: give a number, for example {selection.kind}=2")
    for word in selection.overrides:
        if word.startswith("evaluation.steps") or word == "source=model":
            raise UserError(f"{what} says which checkpoints are evaluated: leave {word} out, or give recipe= instead")


def notes(selection: Selection) -> list[str]:
    """What is not known of the figures and tables of a selection that `select` took."""
    if selection.kind == "recipe":
        return []
    shown = ((number, exhibit(selection.kind, number)) for number in _listed(selection.value))
    return [f"{selection.kind} {number}: {known.note}" for number, known in shown if known.note]


@dataclass(frozen=True)
class Variant:
    """One point of a grid: the overrides, and what they add to the name of a run."""

    overrides: tuple[str, ...]
    ending: str = ""


def grid(overrides: Sequence[str]) -> list[Variant]:
    """`a=1,2 b=3` -> `a=1 b=3` and `a=2 b=3`; commas inside brackets, braces and quotes divide nothing.

    Raises:
        UserError: a list of names, an empty value in a list, or too many runs.
    """
    axes = [(key, _divide(value)) for key, _, value in (word.partition("=") for word in overrides)]
    several = [key for key, values in axes if len(values) > 1]
    if repeated := [key for key in several if [other for other, _ in axes].count(key) > 1]:
        raise UserError(f"{repeated[0]} is given more than once; give all its values in one list")
    if "name" in several:
        raise UserError("name= takes one name; the runs of a grid get their own endings")
    for key, values in axes:
        if len(values) > 1 and not all(values):
            raise UserError(f"{key}={','.join(values)}: an empty value in the list; write {key}=a,b without gaps")
    points = 1
    for _, values in axes:
        points *= len(values)
    if points > MOST_RUNS:
        raise UserError(f"the lists {', '.join(several)} make {points} runs; at most {MOST_RUNS} go in one command")
    tails = Counter(key.rpartition(".")[2] for key in several)
    labels = {key: key.rpartition(".")[2] if tails[key.rpartition(".")[2]] == 1 else key for key in several}
    variants = []
    for chosen in product(*(values for _, values in axes)):
        pairs = list(zip((key for key, _ in axes), chosen, strict=True))
        ending = "".join(f"_{labels[key]}{_in_a_name(value)}" for key, value in pairs if key in labels)
        variants.append(Variant(tuple(f"{key}={value}" for key, value in pairs), ending))
    return variants


def _divide(value: str) -> list[str]:
    """Split at the commas that stand outside of brackets, braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for char in value:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += char
    return [part.strip() for part in parts] if len(parts) > 1 else parts


def _in_a_name(value: str) -> str:
    return re.sub(r"[^\w.-]+", "-", value, flags=re.ASCII).strip("-")


def _listed(value: str) -> list[str]:
    return [part for part in _divide(value.strip().removeprefix("[").removesuffix("]")) if part]


def _recipe_names(value: str, published: bool) -> list[str]:
    """The recipes that a list of names and patterns means, each once, in the order given.

    Args:
        published: whether patterns mean only recipes that say where their checkpoints were published.

    Raises:
        UserError: a pattern that no recipe matches.
    """
    names: list[str] = []
    for part in _listed(value) or [value]:
        found = matching_names(part) if PATTERN.search(part) else [part]
        if published and len(found) > 1:
            found = [name for name in found if load(name).recipe.published != PublishedSection()]
        if not found:
            which = " and published checkpoints" if published else ""
            raise UserError(
                f"recipe={part}: no recipe has a name like that{which}; `python -m reprokit.recipes ls` shows all"
            )
        names += found
    return list(dict.fromkeys(names))


def _load(name: str, variant: Variant) -> LoadedRecipe:
    loaded = load(name, variant.overrides)
    if not variant.ending:
        return loaded
    return loaded.changed("grid on the command line", name=loaded.recipe.name + variant.ending)


def recipe_of(run: str) -> str:
    """Name of the recipe of one of the paper's runs: its own in lower case, with `_` for `-` and `.`.

    A `-` inside a number such as 5e-5 stays.
    """
    return f"{FOLDER}/" + re.sub(r"(?<!\de)-|\.", "_", run.lower())


def _of_exhibits(shown: Sequence[Exhibit], variants: Sequence[Variant], origin: str) -> list[LoadedRecipe]:
    """Every run that is shown, with all steps and benchmarks that any of `shown` needs of it."""
    runs = list(dict.fromkeys(run for exhibit in shown for run in exhibit.runs))
    found = []
    for run, variant in product(runs, variants):
        loaded = _load(recipe_of(run), variant)
        needing = [exhibit for exhibit in shown if run in exhibit.runs]
        benchmarks = {name for exhibit in needing for name in exhibit.benchmarks}
        steps = sorted({step for exhibit in needing for step in _steps(exhibit, loaded.recipe)})
        judges = {name for exhibit in needing for name in exhibit.judges}
        found.append(_restricted(loaded, steps, benchmarks, judges, origin))
    return found


def _steps(exhibit: Exhibit, recipe: Recipe) -> Iterator[int]:
    saved = [step for step in evaluated_steps(recipe) if step > 0]
    if exhibit.base and 0 in evaluated_steps(recipe):
        yield 0
    if exhibit.steps != "base":
        yield from (step for step in saved if step not in exhibit.omitted) if exhibit.steps == "all" else saved[-1:]


def _restricted(
    loaded: LoadedRecipe, steps: list[int], benchmarks: set[str], judges: set[str], origin: str
) -> LoadedRecipe:
    """The run with these steps, and of its benchmarks and judges those that are needed.

    Raises:
        UserError: it has none of the benchmarks.
    """
    evaluation = loaded.recipe.evaluation
    asked = {**{key: JudgeSection() for key in sorted(judges)}, **evaluation.judges}
    if not benchmarks & evaluation.benchmarks.keys():
        raise UserError(f"{origin} needs {', '.join(sorted(benchmarks))}, and none of them is left to evaluate")
    kept = replace(
        evaluation,
        steps=steps,
        benchmarks={name: own for name, own in evaluation.benchmarks.items() if name in benchmarks},
        judges={key: own for key, own in asked.items() if JUDGES[key].benchmark in benchmarks},
    )
    restricted = _with_evaluation(loaded, kept, origin)
    added = {f"evaluation.judges.{key}.{name}": origin for key in judges for name in asdict(JudgeSection())}
    return replace(restricted, origins={**added, **restricted.origins})


def _with_evaluation(loaded: LoadedRecipe, evaluation: EvaluationSection, origin: str) -> LoadedRecipe:
    changed = loaded.changed(origin, evaluation=evaluation)
    return replace(changed, origins={**changed.origins, "evaluation.steps": origin})


def _share_bases(loaded: Sequence[LoadedRecipe]) -> list[LoadedRecipe]:
    """The base models that the runs evaluate as runs of their own, then the runs without step 0.

    Models with random weights stay in their runs, which make them. So does a base that would have the name of
    another one, evaluated with other settings.
    """
    bases: dict[str, LoadedRecipe] = {}
    runs = []
    for run in loaded:
        steps = evaluated_steps(run.recipe)
        if 0 not in steps or run.recipe.model.config is not None or run.recipe.source is Source.model:
            runs.append(run)
            continue
        base = run.base("base model of the selected runs")
        together = _together(bases.get(base.recipe.name, base), base)
        if together is None:
            runs.append(run)
            continue
        bases[base.recipe.name] = together
        rest = [step for step in steps if step > 0]
        if rest:
            shared = f"step 0 is run {base.recipe.name}"
            runs.append(_with_evaluation(run, replace(run.recipe.evaluation, steps=rest), shared))
    return [*bases.values(), *runs]


def _together(one: LoadedRecipe, other: LoadedRecipe) -> LoadedRecipe | None:
    """One run with the benchmarks of both; None if the models or any settings of their evaluation differ."""
    first, second = one.recipe.evaluation, other.recipe.evaluation
    all_benchmarks, all_judges = {**first.benchmarks, **second.benchmarks}, {**first.judges, **second.judges}

    def widened(recipe: Recipe) -> Recipe:
        own = recipe.evaluation
        evaluation = replace(own, benchmarks={**all_benchmarks, **own.benchmarks}, judges={**all_judges, **own.judges})
        return replace(recipe, evaluation=evaluation)

    merged = widened(one.recipe)
    return LoadedRecipe(merged, {**other.origins, **one.origins}) if merged == widened(other.recipe) else None
