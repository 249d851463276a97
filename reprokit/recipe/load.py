"""Load a recipe: compose the files, check everything, report every problem at once."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf

from reprokit.recipe.checks import check_combinations, check_ranges
from reprokit.recipe.compose import Composer, apply_overrides, fragment_names, with_suffix
from reprokit.recipe.problems import Problem, RecipeError, closest
from reprokit.recipe.render import to_yaml
from reprokit.recipe.schema import DataSection, PublishedSection, Recipe, Source, TrainingSection
from reprokit.recipe.tree import COMMAND_LINE, DEFAULT, Entry, Origin, dotted, leaves, merge, split_key, wrap
from reprokit.recipe.typed import build, convert, is_complete, literal, resolve, with_defaults

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PATH_KEYS = ("model.path", "model.chat_template", "model.tokenizer", "data.path", "published.path")
EVALUATION_PATHS = {"benchmarks": ("path",), "judges": ("path", "prompt")}  # of every section
PUBLISHED = "_published"  # ends the name of a run whose checkpoints others have trained
# Values for the required keys of what a recipe with `source: model` does not use.
UNUSED: dict[str, dict[str, Any]] = {
    "data": {"name": "none", "generator": "countdown", "rows": 1},
    "training": {"learning_rate": 0.5, "epochs": 1, "global_batch_size": 1, "checkpoint_steps": [1]},
}


NOT_USED = Origin("not used: source is model")


@dataclass(frozen=True)
class LoadedRecipe:
    """A complete recipe, and where each of its values comes from.

    `origins`: dotted key -> `file:line`, `command line` or `default`.
    """

    recipe: Recipe
    origins: dict[str, str]

    def to_yaml(self) -> str:
        """The whole recipe without includes and interpolations, each value with a comment on its origin.

        Loading it as a recipe gives the same `recipe`.
        """
        return to_yaml(self.recipe, self.origins)

    def changed(self, origin: str, **fields: Any) -> LoadedRecipe:
        """The same with other values of some fields of the recipe, each of one line; `origin` says where from."""
        return LoadedRecipe(replace(self.recipe, **fields), {**self.origins, **dict.fromkeys(fields, origin)})

    def base(self, origin: str) -> LoadedRecipe:
        """The run that evaluates the base model alone, named after it; `origin` says why."""
        recipe = self.recipe
        name = re.sub(r"[^\w.-]+", "-", recipe.model.name, flags=re.ASCII).strip(".-")  # a folder, too
        alone = self.changed(origin, name=name, source=Source.model)
        keys = {key for key in self.origins if key.split(".")[0] in UNUSED}
        without = replace(
            alone.recipe,
            data=DataSection(**UNUSED["data"]),
            training=TrainingSection(**UNUSED["training"]),
            published=PublishedSection(),
            evaluation=replace(recipe.evaluation, steps=None),
        )
        return LoadedRecipe(without, {**alone.origins, **dict.fromkeys(keys, NOT_USED.place)})


def recipe_names(folder: Path | None = None) -> list[str]:
    """Every recipe (not the fragments) of the recipes folder, as `load` names it."""
    folder = (folder or RECIPES).resolve()
    names = []
    for name in fragment_names(folder):
        composer = Composer(folder)
        if "name" in composer.file(folder / with_suffix(name)).value or composer.problems:
            names.append(name)
    return names


def folded(names: Sequence[str]) -> list[str]:
    """Names for a message: of folders with more than a few, the pattern and the number of names that it stands for."""
    folders = Counter(name.rpartition("/")[0] for name in names)
    large = {folder for folder, count in folders.items() if folder and count > 8}
    shown = (
        f"{folder}/* ({folders[folder]})" if (folder := name.rpartition("/")[0]) in large else name for name in names
    )
    return list(dict.fromkeys(shown))


def matching_names(pattern: str) -> list[str]:
    """The recipes (not the fragments) of the recipes folder whose name fits a pattern with `*` and `?`, sorted.

    `*` does not reach into folders: `paper/*` has the paper's runs, `*` the recipes beside that folder.
    """
    levels = pattern.count("/")
    return [name for name in recipe_names() if name.count("/") == levels and fnmatch.fnmatchcase(name, pattern)]


def load(name: str, overrides: Sequence[str] = (), folder: Path | None = None) -> LoadedRecipe:
    """Load a recipe by name (`qwen_long_cot`, a file of the recipes folder) or by the path of a .yaml file.

    Defaults <- included fragments, left to right <- the recipe <- `overrides` (`key=value`, values in YAML).
    Relative paths in a recipe mean the folder of the file that names them, then the current folder; they are
    absolute in the result. With `source=published` on the command line the name gets the ending `_published`, unless
    it is given there too: the run has a folder of its own beside that of the training.

    Raises:
        RecipeError: with every problem of the recipe; for an unknown name, with the names that there are.
    """
    return _load(name, overrides, (folder or RECIPES).resolve(), local_files=True)


def load_resolved(path: Path) -> Recipe:
    """Load the complete recipe of a run folder in a job, where the local files that it names may be gone.

    Raises:
        RecipeError: with every problem of the recipe.
    """
    return _load(str(path), (), RECIPES, local_files=False).recipe


def _load(name: str, overrides: Sequence[str], folder: Path, local_files: bool) -> LoadedRecipe:
    path = find_recipe(name, folder)
    composer = Composer(folder)
    root = composer.file(path)
    top = Origin(f"{composer.place(path)}:1", path)
    root, problems = apply_overrides(root, overrides)
    if (source := root.value.get("source")) is not None and source.text == Source.model.name:
        root = merge(wrap(UNUSED, NOT_USED), root)
    elif source is not None and source.text == Source.published.name and source.origin.place == COMMAND_LINE:
        root = _named_published(root)
        problems += _changed_training(root)
    root, unresolved = resolve(with_defaults(Recipe, root))
    values, mistyped = convert(root, top)
    if any("YAML syntax" in problem.message for problem in composer.problems):
        # What the file says is not known, so nothing can be called missing.
        raise RecipeError(name, [*composer.problems, *problems])
    problems = [*composer.problems, *problems, *unresolved, *mistyped]
    looked = _absolute_paths(values, root, folder)
    recipe = build(Recipe, values) if is_complete(values) else cast(Recipe, _config(values))
    found = [*check_ranges(values), *check_combinations(recipe, looked if local_files else None)]
    problems += [_located(problem, root, top) for problem in found]
    if problems:
        raise RecipeError(name, problems)
    return LoadedRecipe(recipe, dict(_origins(root)))


def _changed_training(root: Entry) -> Iterator[Problem]:
    """Settings of a training that is over, given on the command line: records would say what was not so."""
    for path, leaf in leaves(root):
        if path[0] in UNUSED and leaf.origin.place == COMMAND_LINE:
            remedy = "leave it out: the recipe says how these checkpoints were trained"
            yield Problem(dotted(path), "source is published", remedy, leaf.text, where=COMMAND_LINE)


def _named_published(root: Entry) -> Entry:
    """The tree with a name of its own for checkpoints that were not trained here."""
    name = root.value.get("name")
    if name is None or name.origin.place == COMMAND_LINE or not isinstance(name.value, str):
        return root
    named = replace(name, value=name.value + PUBLISHED, text=name.text + PUBLISHED)
    return replace(root, value={**root.value, "name": named})


def find_recipe(name: str, folder: Path = RECIPES) -> Path:
    """The file that `name` means.

    Raises:
        RecipeError: there is none.
    """
    is_path = name.endswith((".yaml", ".yml"))
    places = [folder / with_suffix(name)]
    if is_path:
        places.insert(0, Path.cwd() / os.path.expanduser(name))
    for place in places:
        if name and os.path.isfile(place):
            return place.resolve()
    known = recipe_names(folder)
    guess = closest(name, known)
    remedy = f"did you mean recipe={guess}?" if guess else "use a valid name, or the path of a .yaml file of your own"
    looked = " and ".join(str(place) for place in places)
    message = f"no such recipe: looked for {looked}"
    raise RecipeError(name, [Problem("", message, remedy, name, ", ".join(folded(known)), COMMAND_LINE)])


def _absolute_paths(values: dict[str, Any], root: Entry, folder: Path) -> dict[str, list[Path]]:
    """Make the local paths of `values` absolute, in place; returns, per key, the places looked at."""
    looked: dict[str, list[Path]] = {}
    for key in _path_keys(values):
        *sections, name = key.split(".")
        section, entry = values, root
        for part in sections:
            section, entry = section[part], entry.value[part]
        given = section.get(name)
        if given is None or given == MISSING:
            continue
        expanded = os.path.expanduser(os.path.expandvars(given))
        file = entry.value[name].origin.file
        bases = [file.parent] if file else []
        bases += [Path.cwd(), folder.parent]
        looked[key] = list(dict.fromkeys(Path(os.path.abspath(os.path.join(base, expanded))) for base in bases))
        found = next((place for place in looked[key] if os.path.exists(place)), None)
        if found:
            section[name] = str(found)
    return looked


def _path_keys(values: dict[str, Any]) -> Iterator[str]:
    """Dotted keys of everything that names a local path, in sections that are there."""
    for key in PATH_KEYS:
        if isinstance(values[key.split(".")[0]], dict):
            yield key
    evaluation = values["evaluation"]
    for kind, names in EVALUATION_PATHS.items() if isinstance(evaluation, dict) else ():
        sections = evaluation[kind]
        for name, section in sections.items() if isinstance(sections, dict) else ():
            yield from (f"evaluation.{kind}.{name}.{key}" for key in names if isinstance(section, dict))


def _config(values: dict[str, Any]) -> DictConfig:
    """`values` in the types of the schema; what is MISSING stays so, whatever default the schema has."""

    def forget(section: DictConfig, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if value == MISSING:
                section[key] = MISSING
            elif isinstance(value, dict) and OmegaConf.is_dict(section[key]):
                forget(section[key], value)

    config = OmegaConf.merge(OmegaConf.structured(Recipe), literal(values))
    assert isinstance(config, DictConfig)
    forget(config, values)
    return config


def _located(problem: Problem, root: Entry, top: Origin) -> Problem:
    """`problem` with the place and the text of the entry that its key names, or of what is above it."""
    origin, entry, complete = top, root, True
    for part in split_key(problem.key):
        below = _below(entry, part)
        if below is None:
            complete = False
            break
        entry = below
        origin = entry.origin if entry.origin.place != DEFAULT else origin
    default = complete and problem.key and entry.origin.place == DEFAULT
    given = f"{problem.given} (the default)" if default and problem.given else problem.given
    return replace(problem, where=origin.place, given=given)


def _below(entry: Entry, part: str | int) -> Entry | None:
    if isinstance(part, int):
        return entry.value[part] if isinstance(entry.value, list) else None
    return entry.value.get(part) if isinstance(entry.value, dict) else None


def _origins(entry: Entry, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and place of every value; a list is one value."""
    if isinstance(entry.value, dict) and entry.value:
        for name, below in entry.value.items():
            yield from _origins(below, f"{key}.{name}" if key else name)
    else:
        yield key, entry.origin.place
