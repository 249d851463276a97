"""Load a data-set recipe: compose the files, check everything, report every problem at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from reprokit.building.asking import overlap_recipe, shard_recipe
from reprokit.building.schema import (
    SCHEMAS,
    AnswersRecipe,
    DatasetRecipe,
    FilesSection,
    QuestionFormat,
    TeacherRecipe,
)
from reprokit.recipe.checks import FOLDER_NAME, NAME_RULE, check_model, check_ranges
from reprokit.recipe.compose import Composer, apply_overrides, with_suffix
from reprokit.recipe.load import RECIPES
from reprokit.recipe.problems import Problem, RecipeError, closest, one_source
from reprokit.recipe.registry import benchmark_names
from reprokit.recipe.render import to_yaml
from reprokit.recipe.sampling import OFFICIAL
from reprokit.recipe.schema import Recipe
from reprokit.recipe.tree import COMMAND_LINE, DEFAULT, Entry, Origin, dotted, split_key
from reprokit.recipe.typed import build, convert, resolve, with_defaults

FOLDER = RECIPES / "datasets"
WHAT = "data-set recipe"
_PATHS = (
    *("model.path", "model.tokenizer", "model.chat_template", "tokenizer"),
    *("questions.path", "questions.among.path", "base.path", "answers.path"),
)


def dataset_names(folder: Path = FOLDER) -> list[str]:
    """The data-set recipes of the folder `recipes/datasets/`."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_dataset(name: str, overrides: Sequence[str] = (), local_files: bool = True) -> tuple[DatasetRecipe, str]:
    """Load a data-set recipe by name (a file of `recipes/datasets/`) or by the path of a .yaml file.

    Composed as a run's recipe is; relative paths mean the folder of the file that names them, then the current one.
    Returns the recipe, its local paths absolute, and its text in full, each value with where it comes from. Without
    `local_files`, as in a job, the local files that it names may be gone.

    Raises:
        RecipeError: with every problem of the recipe; for an unknown name, with the names that there are.
    """
    path = _find(name)
    composer = Composer(RECIPES)
    root = composer.file(path)
    top = Origin(f"{composer.place(path)}:1", path)
    root, problems = apply_overrides(root, overrides)
    problems = [*composer.problems, *problems]
    schema = _schema(root, top)
    root, unresolved = resolve(with_defaults(schema, root))
    values, mistyped = convert(root, top, schema)
    problems += [*unresolved, *mistyped]
    if not problems:
        _make_paths_absolute(values, root)
        recipe = build(schema, values)
        found = _check(recipe) if local_files else ()
        problems = [_located(problem, root, top) for problem in found]
    if problems:
        raise RecipeError(name, problems, what=WHAT)
    return recipe, to_yaml(cast(Recipe, recipe), dict(_origins(asdict(recipe), root)))


def _find(name: str) -> Path:
    places = [Path.cwd() / os.path.expanduser(name)] if name.endswith((".yaml", ".yml")) else []
    places.append(FOLDER / with_suffix(name))
    for place in places:
        if name and "\0" not in name and place.is_file():
            return place.resolve()
    known = dataset_names()
    guess = closest(name, known)
    remedy = f"did you mean dataset={guess}?" if guess else "use a valid name, or the path of a .yaml file of your own"
    message = f"no such data-set recipe: looked for {' and '.join(map(str, places))}"
    raise RecipeError(name, [Problem("", message, remedy, name, ", ".join(known), COMMAND_LINE)], what=WHAT)


def _schema(root: Entry, top: Origin) -> type[DatasetRecipe]:
    """The dataclass that fits what the recipe says of how its rows are made."""
    made = root.value.get("made")
    if made is None or made.text not in SCHEMAS:
        where, given = (made.origin.place, made.text) if made is not None else (top.place, "")
        problem = Problem(
            "made",
            "how the rows are made is not said",
            "add made: teacher, or another",
            given,
            ", ".join(SCHEMAS),
            where,
        )
        raise RecipeError(top.place, [problem], what=WHAT)
    return SCHEMAS[made.text]


def _make_paths_absolute(values: dict[str, Any], root: Entry) -> None:
    """In place; what is not found stays as it is given: a tokenizer may be a hub id."""
    for key in [*_PATHS, *(f"overlap.{name}.path" for name in values["overlap"])]:
        *sections, last = key.split(".")
        section, entry = values, root
        for part in sections:
            section, entry = section.get(part) or {}, entry.value.get(part) or Entry({}, entry.origin)
        if section.get(last) is None:
            continue
        file = entry.value[last].origin.file
        given = os.path.expanduser(os.path.expandvars(section[last]))
        places = [Path(os.path.abspath(base / given)) for base in ([file.parent] if file else []) + [Path.cwd()]]
        section[last] = next((str(place) for place in places if place.exists()), section[last])


def _check(recipe: DatasetRecipe) -> Iterator[Problem]:
    if not re.fullmatch(FOLDER_NAME, recipe.dataset):
        yield Problem("dataset", "not usable as the name of a folder", "choose another name", recipe.dataset, NAME_RULE)
    if recipe.rows is not None and recipe.rows < 1:
        yield Problem("rows", "must be positive", "give a positive number", str(recipe.rows))
    if isinstance(recipe, TeacherRecipe):
        yield from _check_teacher(recipe)
    else:
        yield from _check_files("base", recipe.base, {"dataset": recipe.base.dataset})
        if recipe.base.dataset == recipe.dataset:
            yield Problem("base.dataset", "the data set itself", "give one of the two another name", recipe.dataset)
        if isinstance(recipe, AnswersRecipe):
            yield from _check_files("answers", recipe.answers, {})
    for problem in check_ranges(asdict(overlap_recipe(recipe))):
        yield replace(problem, key=problem.key.replace("evaluation.benchmarks.", "overlap."))
    for name, section in recipe.overlap.items():
        if name not in benchmark_names():
            guess = closest(name, benchmark_names())
            remedy = f"did you mean {guess}?" if guess else "use one of the valid ones"
            yield Problem(f"overlap.{name}", "unknown benchmark", remedy, name, ", ".join(benchmark_names()))
        elif section.path is not None and name in OFFICIAL and not Path(section.path).exists():
            remedy = f"correct it, or leave the set out: overlap.{name}=false"
            yield Problem(f"overlap.{name}.path", "no such file", remedy, section.path)


def _check_teacher(recipe: TeacherRecipe) -> Iterator[Problem]:
    questions, sampling = recipe.questions, recipe.sampling
    if questions.format is QuestionFormat.countdown:
        if questions.path or questions.hub_id:
            yield Problem("questions.format", "puzzles are made here", "remove path and hub_id, or set openr1_math")
        if questions.count is None:
            yield Problem("questions.count", "how many puzzles is not said", "add questions.count: 25600")
    else:
        yield from _check_files("questions", questions, {})
    if questions.among.path or questions.among.hub_id:
        yield from _check_files("questions.among", questions.among, {})
    # What the job of a shard would refuse of its recipe, it is to be told before anything is fetched.
    own = shard_recipe(recipe, 0)
    told = [*check_model(own), *check_ranges(asdict(own))]
    yield from (
        replace(problem, key=problem.key.replace("evaluation.seed", "sampling.seed"))
        for problem in told
        if not problem.key.startswith("evaluation.benchmarks")
    )
    if not recipe.model.name.strip():
        yield Problem("model.name", "empty name", "give the name that the report shows", recipe.model.name, "text")
    if recipe.model.path is not None and not Path(recipe.model.path).is_dir():
        yield Problem("model.path", "no such folder", "give a Hugging Face model folder", recipe.model.path)
    positive = {
        "questions.count": questions.count,
        "shard_size": recipe.shard_size,
        "sampling.samples": sampling.samples,
        "sampling.max_tokens": sampling.max_tokens,
    }
    for key, number in positive.items():
        if number is not None and number < 1:
            yield Problem(key, "must be positive", "give a positive number", str(number))
    if questions.count is not None and questions.count < recipe.rows:
        message = f"fewer questions than rows={recipe.rows}: a question gives one row at most"
        yield Problem("questions.count", message, "raise it, or lower rows", str(questions.count))
    if not 0.0 <= sampling.temperature <= 2.0 or not 0.0 < sampling.top_p <= 1.0 or sampling.top_k < 0:
        remedy = "temperature 0..2, top_p above 0 and up to 1, top_k 0 (no limit) or more"
        yield Problem("sampling", "out of range", remedy)


def _check_files(key: str, section: FilesSection, others: dict[str, str | None]) -> Iterator[Problem]:
    sources = {"path": section.path, "hub_id": section.hub_id, **others}
    yield from one_source(key, {name: value for name, value in sources.items() if value is not None}, sources)
    if section.path is not None and not Path(section.path).exists():
        yield Problem(f"{key}.path", "no such file or folder", "correct it, or give a hub_id", section.path)
    if section.revision is not None and section.hub_id is None:
        yield Problem(f"{key}.revision", f"only beside {key}.hub_id", f"give {key}.hub_id too", section.revision)


def _located(problem: Problem, root: Entry, top: Origin) -> Problem:
    """`problem` with the place of the entry that its key names, or of what is above it."""
    origin, entry = top, root
    for part in split_key(problem.key):
        if not isinstance(entry.value, dict) or part not in entry.value:
            break
        entry = entry.value[part]
        origin = entry.origin if entry.origin.place != DEFAULT else origin
    return replace(problem, where=origin.place)


def _origins(value: Any, root: Entry, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, str]]:
    """Dotted key and place of every value; a list is one value."""
    if isinstance(value, dict) and value:
        for name, below in value.items():
            entry = root.value.get(name) if isinstance(root.value, dict) else None
            yield from _origins(below, entry or root, (*path, name))
    else:
        yield dotted(path), root.origin.place
