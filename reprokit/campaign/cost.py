"""What a recipe costs before it runs: jobs, GPU-hours, wall time, disk. Estimates, from stated rates and lengths.

train      `Architecture.training_flops` of the rows / (GPUs x rate), the rate as in `campaign.rates`. Tokens are those
           of the prepared rows where there are any (squares of lengths from the histogram of their report, right within
           a few percent of the attention, which is a tenth of all at most); else all rows are as long as
           data.mean_length; else as data.max_length, which is more than it will be.
evaluate   as in `campaign.generation`, with the responses of `campaign.lengths`; GPU-hours are those of whole elements,
           whose nodes are held until their last response is there.
judge      two operations per parameter of a judge and token that it reads, the whole response, and of its reply.

Every job takes START_HOURS before it does anything. Scoring, collecting and figures take no GPU and are left out of
the times, as are waiting in the queue, saving checkpoints, and jobs that are begun again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reprokit.campaign import work as works
from reprokit.campaign.cells import by_step
from reprokit.campaign.disk import Disk, disk, in_words
from reprokit.campaign.generation import Load, load_of
from reprokit.campaign.hours import Estimator, Hours, TooLong
from reprokit.campaign.lengths import UNTRAINED, USUAL, Responses, measured_in
from reprokit.campaign.memory import model_size
from reprokit.campaign.rates import Rates, rates_of
from reprokit.campaign.work import Rows, Work, rows_of, training_flops, work_of
from reprokit.cluster.profile import ClusterProfile
from reprokit.evaluation.problems import current_source
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import Precision, Recipe, Source
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory

NAMES = {"train": "training", "evaluate": "evaluation", "judge": "judges"}


@dataclass(frozen=True)
class Cost:
    """An estimate for one run, or for several together.

    jobs: elements of all jobs that are submitted.
    gpu_hours: stage (train, evaluate, judge) -> GPU-hours that its jobs hold; empty where they are not known.
    wall_hours: from the first job to the last with the nodes of the profile and no queue; None where not known.
    tokens: benchmark -> tokens that are generated.
    disk: bytes.
    gpu: kind of GPU; empty where it is not known: then `unknown` says why, and what to do about it.
    assumptions: what nobody has measured; `responses`: least and most mean tokens of a response that were assumed for
        trained checkpoints, None where all were measured.
    too_long: stage -> its longest job, where that will probably run into the limit of the profile.
    """

    jobs: int = 0
    gpu_hours: Mapping[str, float] = field(default_factory=dict)
    wall_hours: float | None = None
    tokens: Mapping[str, float] = field(default_factory=dict)
    disk: Disk = Disk()
    gpu: str = ""
    unknown: str = ""
    assumptions: tuple[str, ...] = ()
    responses: tuple[float, float] | None = None
    too_long: Mapping[str, TooLong] = field(default_factory=dict)


def total(costs: Iterable[Cost], beside: bool = True) -> Cost:
    """The cost of several runs with the same profile.

    Args:
        beside: whether they run at the same time, so that all take as long as the longest; else one after the other.
    """
    each = list(costs)
    hours = [cost.wall_hours for cost in each if cost.wall_hours is not None]
    return Cost(
        jobs=sum(cost.jobs for cost in each),
        gpu_hours=_summed([cost.gpu_hours for cost in each]),
        wall_hours=(max(hours) if beside else sum(hours)) if hours else None,
        tokens=_summed([cost.tokens for cost in each]),
        disk=sum((cost.disk for cost in each), Disk()),
        gpu=next((cost.gpu for cost in each if cost.gpu), ""),
        unknown=next((cost.unknown for cost in each if cost.unknown), ""),
        assumptions=tuple(dict.fromkeys(one for cost in each for one in cost.assumptions)),
        responses=_range([bound for cost in each if cost.responses for bound in cost.responses]),
        too_long={
            stage: max((cost.too_long[stage] for cost in each if stage in cost.too_long), key=lambda one: one.hours)
            for stage in dict.fromkeys(stage for cost in each for stage in cost.too_long)
        },
    )


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


def _summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: sum(part.get(key, 0.0) for part in parts) for key in keys}


def cost(
    recipe: Recipe,
    profile: ClusterProfile,
    run: RunDirectory | None,
    results: Path | None,
    stages: Sequence[str] = works.STAGES,
) -> Cost:
    """What a run still costs; all of it where `run` is None.

    Args:
        results: folder with the results of this and other runs, for lengths of responses.
        stages: those that may run.

    Raises:
        UserError: no engine fits the GPUs of the profile.
        ValueError: the rows are in a file that is no parquet file.
    """
    work = work_of(recipe, run, stages)
    rows, steps = rows_of(recipe, run)
    responses = Responses(recipe, rows.tokens, steps, measured_in(results))
    expected = {cell: responses.expected(cell) for cell in {*work.cells, *work.scored}}
    items = {name: _items(recipe, name, run) for name in recipe.evaluation.benchmarks}
    loads = {cell: _load(recipe, cell, items[cell.benchmark], one.tokens) for cell, one in expected.items()}
    rates, model = rates_of(profile), model_size(recipe.model)
    hours, unknown = Hours(), rates if isinstance(rates, str) else ""
    if isinstance(rates, Rates) and model is None:
        unknown = "GPU-hours are not known, for the size of the model is not: give model.shape"
    elif isinstance(rates, Rates) and model is not None:
        left = max(0, steps - work.trained) * recipe.training.global_batch_size if work.trains else 0
        hours = Estimator(recipe, profile, model, rates).of(work, training_flops(model, rows, left), loads)
    guessed = [cell for cell in work.cells if not expected[cell].measured]
    tokens = _summed([{cell.benchmark: loads[cell].tokens} for cell in work.cells])
    return Cost(
        jobs=_jobs(work, profile),
        gpu_hours=hours.gpu,
        wall_hours=None if unknown else sum(hours.wall.values()),
        tokens=tokens,
        disk=disk(recipe, work.trains, sum(tokens.values()), run),
        gpu="" if isinstance(rates, str) else rates.gpu.name,
        unknown=unknown,
        assumptions=() if isinstance(rates, str) else tuple(_assumptions(rates, work, rows, guessed)),
        responses=_range([expected[cell].tokens for cell in guessed if cell.step > 0]),
        too_long=hours.too_long,
    )


def _items(recipe: Recipe, benchmark: str, run: RunDirectory | None) -> int:
    """Problems of a benchmark: those that are prepared, else what the recipe or the benchmark says."""
    source = current_source(run, recipe, benchmark) if run else None
    if source is not None:
        return source.count
    return USUAL[benchmark].asked(recipe.evaluation.benchmarks[benchmark].items)


def _load(recipe: Recipe, cell: Cell, items: int, tokens: float) -> Load:
    settings = sampling(recipe.evaluation, cell.benchmark)
    return load_of(items * settings.samples, tokens, USUAL[cell.benchmark].prompt, settings.max_tokens)


def _jobs(work: Work, profile: ClusterProfile) -> int:
    """Elements of training, evaluation, judges, scoring, collecting and figures; the last three come with any other."""
    elements = len(by_step(work.cells, profile.checkpoints_per_element))
    others = work.trains + elements + work.is_judged + bool(work.scored and "score" in work.stages)
    return others + len({"collect", "figures"} & set(work.stages)) if others else 0


def _assumptions(rates: Rates, work: Work, rows: Rows, guessed: Sequence[Cell]) -> Iterator[str]:
    """What was assumed for what a run lacks; `guessed`: the cells whose lengths of responses nobody has measured."""
    if work.trains and rates.assumed_training:
        yield rates.assumed_training
    if work.cells and rates.assumed_decoding:
        yield rates.assumed_decoding
    if work.recipe.training.precision is Precision.fp32 and (work.trains or work.cells):
        yield "rates of bf16, though training.precision is fp32: it will take longer"
    if work.recipe.training.cpu_offload and work.trains:
        yield "no time for training.cpu_offload: it will take longer"
    if work.trains or any(cell.step > 0 for cell in guessed):
        if rows.known == works.STATED:
            yield "rows of data.mean_length tokens"
        elif rows.known == works.LONGEST:
            yield "rows of data.max_length tokens, which is more than they have (data.mean_length is not set)"
    if any(cell.step == 0 for cell in guessed):
        yield f"responses of {UNTRAINED:,.0f} tokens before training"


def header(recipe: Recipe, profile: ClusterProfile) -> str:
    """One line for the head of a recipe file, from stated rates alone; hours have two significant figures.

    Raises:
        UserError, ValueError: as `cost`.
    """
    whole = cost(recipe, profile, None, None)
    saved = in_words(whole.disk.checkpoints) + " of checkpoints" if whole.disk.checkpoints else ""
    if recipe.source is Source.published and whole.disk.published:
        saved = in_words(whole.disk.published) + " of checkpoints to fetch"
    parts = [hours_in_words(whole), saved] if whole.gpu_hours else [saved]
    return ", ".join(part for part in parts if part) + "."


def hours_in_words(whole: Cost) -> str:
    """`About 1,900 GPU-hours on H200 (training 180, evaluation 1,700)`."""
    hours = whole.gpu_hours
    stages = ", ".join(f"{name} {rounded(hours[stage])}" for stage, name in NAMES.items() if stage in hours)
    return f"About {rounded(sum(whole.gpu_hours.values()))} GPU-hours on {whole.gpu} ({stages})"


def rounded(value: float) -> str:
    """Two significant figures, without an exponent: 1,900, 43, 0.43."""
    if value == 0:
        return "0"
    number = float(f"{value:.1e}")
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2g}"
