"""Disk space of a run, in bytes; shown in GB and TB of 1000 bytes each step, as disks are sold."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reprokit.campaign.memory import model_size
from reprokit.errors import UserError
from reprokit.evaluation.judges import sources
from reprokit.recipe import evaluated_steps
from reprokit.recipe.derived import is_all_bf16
from reprokit.recipe.judges import JUDGES
from reprokit.recipe.schema import Precision, Recipe, Source
from reprokit.records.run_directory import RunDirectory

PARAMETER_BYTES = {Precision.bf16: 2, Precision.fp32: 4}  # in a checkpoint
HUB_BYTES = 2  # per parameter of a model of the hub: bf16
TOKEN_BYTES = 4  # of the text of a sample: English, a little of it around
STATES = 3  # that are there at a time: two, and the one being written


@dataclass(frozen=True)
class Disk:
    """Bytes that a run, or several, add to a disk.

    `checkpoints`, of which `saves` are still to be saved, `states` and `samples` lie in the run folder; `published`,
    trained checkpoints that the authors released, and `models`, hub id -> weights of bases and judges, in the cache of
    the Hugging Face Hub, where several runs share them.
    """

    saves: int = 0
    checkpoints: float = 0.0
    states: float = 0.0
    samples: float = 0.0
    published: float = 0.0
    models: Mapping[str, float] = field(default_factory=dict)

    @property
    def run_folder(self) -> float:
        return self.checkpoints + self.states + self.samples

    @property
    def hub(self) -> float:
        return sum(self.models.values())

    @property
    def cache(self) -> float:
        return self.hub + self.published

    def __add__(self, other: Disk) -> Disk:
        return Disk(
            self.saves + other.saves,
            self.checkpoints + other.checkpoints,
            self.states + other.states,
            self.samples + other.samples,
            self.published + other.published,
            {**self.models, **other.models},
        )


def disk(recipe: Recipe, trains: bool, response_tokens: float, run: RunDirectory | None) -> Disk:
    """What a run adds to what is there already; all of it where `run` is None.

    A resumable state has master weight and moments of every parameter: 12 bytes, in official bf16 arithmetic 6. What
    depends on the size of the model counts as nothing where that is not known.

    Args:
        trains: whether there is anything to train.
        response_tokens: of all responses that are to be generated.
    """
    model = model_size(recipe.model)
    parameters = model.parameters if model else 0
    size = parameters * PARAMETER_BYTES[recipe.training.precision]
    states = STATES - min(STATES - 1, len(run.states()) if run else 0)
    saves = len(_to_save(recipe, run) if trains else []) + len(_rewritten(recipe, run))
    return Disk(
        saves=saves,
        checkpoints=size * saves,
        states=states * parameters * (6 if is_all_bf16(recipe.training) else 12) if trains else 0.0,
        samples=response_tokens * TOKEN_BYTES,
        published=_published(recipe, parameters, run),
        models={hub_id: _not_fetched(hub_id, count, run) for hub_id, count in _hub_models(recipe, parameters)},
    )


def _to_save(recipe: Recipe, run: RunDirectory | None) -> list[int]:
    trained = run.resume_step() if run else 0
    return [step for step in recipe.training.checkpoint_steps if step > trained]


def _rewritten(recipe: Recipe, run: RunDirectory | None) -> list[int]:
    """Steps whose weights are written anew though nobody trains them: random ones, or InternLM2 in another layout."""
    model, given = recipe.model, [0]
    converted = (model.shape or {}).get("model_type") == "internlm2"
    if recipe.source is Source.published and converted:
        given += [step for step in evaluated_steps(recipe) if step > 0]
    own = model.config is not None or converted
    return [step for step in given if own and (run is None or run.manifest(step) is None)]


def _hub_models(recipe: Recipe, parameters: float) -> Iterator[tuple[str, float]]:
    """Models of the hub that are fetched whole, with their parameters; a judge of one's own counts as the default."""
    if recipe.model.hub_id is not None:
        yield recipe.model.hub_id, parameters
    for benchmark in recipe.evaluation.benchmarks:
        for key in sources.keys_of(recipe, benchmark):
            judge = sources.section_of(recipe, key)
            if judge.path is None and judge.endpoint is None and judge.config is None:
                yield judge.hub_id or JUDGES[key].hub_id, JUDGES[key].parameters


def _published(recipe: Recipe, parameters: float, run: RunDirectory | None) -> float:
    if recipe.source is not Source.published or recipe.published.hub_id is None:
        return 0.0
    steps = [step for step in evaluated_steps(recipe) if step > 0 and (run is None or run.manifest(step) is None)]
    return HUB_BYTES * parameters * len(steps)


def _not_fetched(hub_id: str, parameters: float, run: RunDirectory | None) -> float:
    """Bytes of a hub model that are not in this machine's cache; all of them where `run` is None."""
    there = 0
    if run is not None:
        blobs = hub_cache() / f"models--{hub_id.replace('/', '--')}" / "blobs"
        there = sum(path.stat().st_size for path in blobs.glob("*"))
    return max(0.0, parameters * HUB_BYTES - there)


def hub_cache() -> Path:
    """Where models of the Hugging Face Hub are kept on this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def check_disk(needed: Disk, runs: Path, name: str) -> None:
    """Compare what runs add with what is free, before anything is queued. Quotas are not known here.

    Args:
        runs: the folder of run folders; it need not be there yet.
        name: of the run or runs, for the message.

    Raises:
        UserError: it is too little; the message has the parts, and what can be changed.
    """
    there = [(_existing(runs), needed.run_folder), (_existing(hub_cache()), needed.cache)]
    for place, size in there:
        device = os.stat(place).st_dev
        wanted = sum(size for other, size in there if os.stat(other).st_dev == device)
        free = shutil.disk_usage(place).free
        if size and wanted > free:
            raise UserError("\n".join(_refusal(needed, runs, name, place, wanted - free)))


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _same_device(one: Path, other: Path) -> bool:
    return os.stat(_existing(one)).st_dev == os.stat(_existing(other)).st_dev


def _refusal(needed: Disk, runs: Path, name: str, place: Path, lacking: float) -> Iterator[str]:
    each = needed.checkpoints / max(1, needed.saves)
    parts = (
        (
            needed.checkpoints,
            f"checkpoints in {runs}, {needed.saves} of {in_words(each)} each" if needed.saves else "base model",
        ),
        (needed.states, f"resumable states in {runs} while it trains"),
        (needed.samples, f"samples in {runs}"),
        (needed.hub, f"models to be fetched into {hub_cache()}"),
        (needed.published, f"published checkpoints to be fetched into {hub_cache()}"),
    )
    yield f"{name}: {place} lacks {in_words(lacking)} of disk. Still needed are about"
    yield from (f"  {in_words(size):>8}  {what}" for size, what in parts if size)
    yield "What helps:"
    if needed.saves > 1 and needed.states:
        left = needed.saves - math.ceil(lacking / each)
        yield "  fewer training.checkpoint_steps" + (f": {left} instead of {needed.saves} fit" if left > 0 else "")
    if needed.published:
        yield "  fewer evaluation.steps: only checkpoints that are evaluated are fetched"
    if needed.cache and _same_device(place, hub_cache()):
        yield "  the cache of the hub on a larger disk: export HF_HOME=FOLDER"
    if needed.run_folder and _same_device(place, runs):
        yield "  runs on a larger disk: runs: FOLDER in the cluster profile"


def in_words(size: float) -> str:
    """`1.9 TB`, `236 GB`, `62 MB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= 0.95 * unit:
            return f"{size / unit:,.0f} {name}" if size >= 9.95 * unit else f"{size / unit:.1f} {name}"
    return f"{size / 1e3:,.0f} kB"
