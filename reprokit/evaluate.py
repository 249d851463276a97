"""python -m reprokit.evaluate model=FOLDER_OR_HUB_ID [benchmarks=a,b] [cluster=NAME] [dry_run=true] [key=value ...]

Scores any model on the paper's ten benchmarks (or on those of benchmarks=), without training: the recipe
`evaluation/any_model` with that model. revision=COMMIT is that of a hub id. The run is named after the model unless
name= is given. Any key of the recipe may follow, for example
evaluation.benchmarks.gpqa_diamond.path=gpqa_diamond.csv; recipe=NAME takes another recipe with `source: model`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from reprokit import launch
from reprokit.errors import UserError
from reprokit.recipe.registry import benchmark_names
from reprokit.words import run, split


def as_launch(words: Sequence[str]) -> list[str]:
    """The words that `reprokit.launch` takes for the same.

    Raises:
        UserError: no model is given, or a word is not of the form key=value.
    """
    given = dict(split(words, __doc__))
    model, revision = given.pop("model", None), given.pop("revision", None)
    if not model:
        raise UserError(f"no model given.\n\n{__doc__}")
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise UserError(f"revision={revision}: only a hub id has revisions, and {model} is a folder")
        source = [f"model.path={json.dumps(str(path.absolute()))}"]  # a comma in it divides nothing
        parts = path.absolute().parts[-2:] if path.name.startswith("step") else [path.absolute().name]
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        source = [f"model.hub_id={model}"] + ([f"model.revision={revision}"] if revision else [])
        parts = [model.rpartition("/")[2]]
    else:
        raise UserError(f"model={model} is neither a folder here nor a hub id (owner/name)")
    own = re.sub(r"[^\w.-]", "_", "_".join(parts), flags=re.ASCII).lstrip(".-")
    name = given.pop("name", None) or own
    recipe = given.pop("recipe", "evaluation/any_model")
    shown = given.pop("model.name", own)
    chosen = _choice(given.pop("benchmarks")) if "benchmarks" in given else []
    rest = [*chosen, *(f"{key}={value}" for key, value in given.items())]
    return [f"recipe={recipe}", *source, f"model.name={shown}", f"name={name}", *rest]


def _choice(value: str) -> list[str]:
    """The overrides that leave these benchmarks and no other.

    Raises:
        UserError: one of them is unknown, or there is none.
    """
    names = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
    known = benchmark_names()
    if not names or set(names) - set(known):
        raise UserError(f"benchmarks={value}: valid are {', '.join(known)}, separated by commas")
    return [f"evaluation.benchmarks.{name}={'{}' if name in names else 'false'}" for name in known]


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: launch.run(launch.parse(as_launch(words))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
