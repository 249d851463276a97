"""What a data-set recipe asks for: of the folder, and of the runs in it that are its shards. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from reprokit.building.directory import DatasetDirectory, Prepared
from reprokit.building.schema import DatasetRecipe, TeacherRecipe
from reprokit.evaluation.problems import current_source, stamps
from reprokit.recipe.fixed import changes
from reprokit.recipe.load import UNUSED
from reprokit.recipe.registry import QUESTIONS
from reprokit.recipe.render import to_yaml
from reprokit.recipe.schema import (
    BenchmarkSection,
    DataSection,
    EvaluationSection,
    Recipe,
    Source,
    TrainingSection,
)
from reprokit.records.files import write_text
from reprokit.records.run_directory import RunDirectory

# What may change between launches: the rest decides what was drawn.
FREE = ("rows", "seed", "overlap", "answers.verify", "sampling.samples", "model.shape")


def asked(recipe: DatasetRecipe) -> dict[str, Any]:
    """Dotted keys and plain values of what may not change once questions were put to the teacher."""
    plain = msgspec.to_builtins(asdict(recipe))
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= {f"{key}.{name}": below for name, below in value.items()} if isinstance(value, dict) else {key: value}
    return {key: value for key, value in flat.items() if key not in FREE and key.split(".")[0] not in FREE}


def overlap_recipe(recipe: DatasetRecipe) -> Recipe:
    """The evaluation sets as the benchmarks of a run."""
    return Recipe(evaluation=EvaluationSection(benchmarks=recipe.overlap), source=Source.model)


def overlap_sets(directory: DatasetDirectory, recipe: DatasetRecipe) -> dict[str, str | None]:
    """The sha256 of the problems of each evaluation set; None where they are not there as the recipe asks for them."""
    run = overlap_recipe(recipe)
    found = {name: current_source(directory.teacher, run, name) for name in recipe.overlap}
    return {name: source.items if source is not None else None for name, source in found.items()}


def is_prepared(directory: DatasetDirectory, recipe: DatasetRecipe) -> bool:
    """Whether what the recipe asks for is there, made from the files as they are now."""
    made = directory.read_prepared()
    if made is None or difference(made, recipe):
        return False
    return made.overlap == overlap_sets(directory, recipe) and None not in made.overlap.values()


def difference(made: Prepared, recipe: DatasetRecipe) -> list[str]:
    """One line per setting and per local file that is not what it was; files that are gone are taken as unchanged."""
    there = [Path(path) for path in made.stamps if Path(path).exists()]
    changed = [path for path, stamp in stamps(there).items() if made.stamps[path] != stamp]
    return [*changes(made.asked, asked(recipe)), *(f"  {path} has changed" for path in changed)]


def teacher_run(recipe: TeacherRecipe, name: str, benchmarks: dict[str, BenchmarkSection]) -> Recipe:
    """The evaluation of the teacher without a training, as the recipe of a run."""
    return Recipe(
        name=name,
        model=recipe.model,
        data=DataSection(**UNUSED["data"]),
        training=TrainingSection(**UNUSED["training"]),
        evaluation=EvaluationSection(seed=recipe.sampling.seed, benchmarks=benchmarks),
        source=Source.model,
    )


def shard_recipe(recipe: TeacherRecipe, number: int) -> Recipe:
    """What is asked in one shard. Of Qwen3's chat template nothing is asked: without an argument it lets think."""
    own = asdict(recipe.sampling)
    del own["seed"]
    return teacher_run(recipe, f"{recipe.dataset}-{number:04d}", {QUESTIONS: BenchmarkSection(**own)})


def write_shard_recipe(shard: RunDirectory, recipe: Recipe) -> None:
    """Write the recipe that the job of a shard reads."""
    write_text(shard.recipe, to_yaml(recipe, _Origins()))


class _Origins(dict[str, str]):
    """Every value of a shard's recipe comes from the data set's."""

    def __missing__(self, key: str) -> str:
        return "recipe.yaml of the data set"
