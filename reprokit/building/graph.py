"""Data-set recipe + what is on disk -> the jobs that are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reprokit.building.asking import is_prepared, shard_recipe
from reprokit.building.assemble import read_report
from reprokit.building.directory import DatasetDirectory
from reprokit.building.schema import DatasetRecipe, TeacherRecipe
from reprokit.building.verify import CELL, is_sampled, is_verified
from reprokit.campaign import engines
from reprokit.campaign.graph import HERE
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile
from reprokit.errors import UserError

STAGES = ("prepare", "sample", "verify", "assemble")
Functions = Mapping[str, Callable[..., None]]


def plan(
    directory: DatasetDirectory,
    recipe: DatasetRecipe,
    profile: ClusterProfile,
    stages: Sequence[str],
    functions: Functions,
) -> list[Job]:
    """The jobs that are not done yet, in order. Before the questions are prepared, their number is a guess.

    Raises:
        UserError: a stage needs what the prepare stage makes, and `stages` leaves that out; or no engine fits.
    """
    prepared = is_prepared(directory, recipe)
    jobs: list[Job] = []

    def add(name: str, elements: Sequence[tuple[Any, ...]], resources: Any, **options: Any) -> None:
        if name in stages and elements:
            jobs.append(Job(directory.name, name, functions[name], tuple(elements), resources, **options))

    if not prepared:
        if "prepare" not in stages:
            raise UserError(f"{directory.root} is not prepared yet: add prepare to stages={','.join(stages)}")
        add("prepare", [(directory.root,)], HERE, description=_what_is_prepared(recipe))
    if isinstance(recipe, TeacherRecipe):
        shards, known = shards_of(directory, recipe)
        to_sample = [number for number in shards if not (prepared and is_sampled(directory, recipe, number))]
        if to_sample and "sample" in stages:
            example = shard_recipe(recipe, 0)
            engine = (engines.gpus_per_engine(example, profile), engines.longest_sequence(example))
            shown = directory.run.progress("sample")
            asks = [(directory.shard(number).root, [CELL], *engine, shown) for number in to_sample]
            add("sample", asks, profile.evaluate, after=("prepare",), description=_describe(recipe, known))
        will_be = set(shards) if "sample" in stages else set(shards) - set(to_sample)
        to_verify = [number for number in shards if number in to_sample or not is_verified(directory, number)]
        options = {"after": ("sample",), "needs_success": False, "description": "compares answers"}
        elements = [(directory.root, number) for number in to_verify if number in will_be]
        add("verify", elements, profile.score, **options)
    if jobs or read_report(directory, recipe) is None:
        options = {"after": ("prepare", "sample", "verify"), "needs_success": False}
        resources = profile.collect if isinstance(recipe, TeacherRecipe) else profile.score
        add("assemble", [(directory.root,)], resources, description=str(directory.file.name), **options)
    return jobs


def _what_is_prepared(recipe: DatasetRecipe) -> str:
    return "questions, teacher" if isinstance(recipe, TeacherRecipe) else "rows and answers"


def shards_of(directory: DatasetDirectory, recipe: TeacherRecipe) -> tuple[range, bool]:
    """Numbers of the shards, and whether they are known: before the questions are read, only `count` tells."""
    made = directory.read_prepared() if is_prepared(directory, recipe) else None
    if made is not None:
        return range(made.shards), True
    if recipe.questions.count is not None:
        return range(math.ceil(recipe.questions.count / recipe.shard_size)), True
    return range(1), False


def _describe(recipe: TeacherRecipe, known: bool) -> str:
    sampling = recipe.sampling
    each = f"{sampling.samples} responses of at most {sampling.max_tokens:,} tokens to each question"
    return each if known else f"{each}; an element per {recipe.shard_size} questions, whose number prepare finds out"
