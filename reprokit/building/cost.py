"""What the sampling of a data set costs before it runs: GPU-hours and disk. Estimates, as in `campaign.generation`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reprokit.building.asking import shard_recipe
from reprokit.building.directory import DatasetDirectory
from reprokit.building.schema import TeacherRecipe
from reprokit.building.verify import read_verdicts
from reprokit.campaign import engines, generation
from reprokit.campaign.cost import rounded
from reprokit.campaign.disk import TOKEN_BYTES, in_words
from reprokit.campaign.generation import load_of
from reprokit.campaign.hours import gpus_of, spread
from reprokit.campaign.memory import ELEMENT, model_size
from reprokit.campaign.rates import START_HOURS, Rates, rates_of
from reprokit.cluster.profile import ClusterProfile, Scheduler
from reprokit.recipe.schema import Precision

SHARE = 0.5  # of the most tokens that a response may have: its mean length, until some are measured
PROMPT_TOKENS = 150


@dataclass(frozen=True)
class Length:
    """Mean tokens of a response, and how it is known."""

    tokens: float
    known: str


def length(directory: DatasetDirectory, recipe: TeacherRecipe, shards: Sequence[int]) -> Length:
    """The mean over the shards that are verified, or an assumption where none is."""
    made = [verdicts for number in shards if (verdicts := read_verdicts(directory, number)) is not None]
    tokens = [one.tokens for verdicts in made for one in verdicts.verdicts]
    if tokens:
        return Length(sum(tokens) / len(tokens), "measured in the shards that are done")
    return Length(SHARE * recipe.sampling.max_tokens, "assumed, half of the limit")


def describe_cost(
    directory: DatasetDirectory,
    recipe: TeacherRecipe,
    profile: ClusterProfile,
    shards: Sequence[int],
    missing: Sequence[int],
) -> Iterator[str]:
    """Lines for people on what the `missing` of all `shards` will take, each counted as a full one.

    Raises:
        UserError: no engine fits the GPUs of the profile.
    """
    expected = length(directory, recipe, shards)
    responses = recipe.shard_size * recipe.sampling.samples
    disk = len(missing) * responses * expected.tokens * TOKEN_BYTES
    yield (
        f"responses: {len(missing)} shards of {responses:,}, of {rounded(expected.tokens)} tokens each "
        f"({expected.known}); {in_words(disk)} of samples"
    )
    there = next(folder for folder in (directory.root, *directory.root.parents) if folder.exists())
    if disk > (free := shutil.disk_usage(there).free):
        yield f"note: {directory.root} has {in_words(free)} free only; make room, or build in a folder on another disk"
    rates, model = rates_of(profile), model_size(recipe.model)
    if isinstance(rates, str):
        yield f"time: {rates}"
    elif model is None:
        yield "time: GPU-hours are not known, for the size of the teacher is not: give model.shape"
    else:
        resources = profile.evaluate
        per_engine = engines.gpus_per_engine(shard_recipe(recipe, 0), profile)
        size = generation.engine_size(model, per_engine, ELEMENT[Precision.bf16])
        load = load_of(responses, expected.tokens, PROMPT_TOKENS, recipe.sampling.max_tokens)
        beside = max(1, gpus_of(resources) // per_engine)
        each = START_HOURS + generation.seconds(load, size, beside, rates) / 3600
        yield _time(each, len(missing), profile, rates)
        if each > resources.hours:
            yield (
                f"note: a shard takes {rounded(each)} h, longer than evaluate.hours ({resources.hours:g}) of the "
                "cluster profile: lower shard_size, raise that, or give the same command again, which resumes it"
            )


def _time(each: float, elements: int, profile: ClusterProfile, rates: Rates) -> str:
    at_a_time = 1 if profile.scheduler is Scheduler.local else profile.max_parallel
    assumed = f"; assumed: {rates.assumed_decoding}" if rates.assumed_decoding else ""
    return (
        f"time: about {rounded(each * elements * gpus_of(profile.evaluate))} GPU-hours on {rates.gpu.name}, "
        f"{rounded(spread([each] * elements, at_a_time))} h with the nodes of the profile and no queue{assumed}"
    )
