"""Which runs a claim compares: the trained runs of one origin with their settings, and pairs that differ in one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.holdings import Library
from reprokit.records.record import Origin, Record

COT, NO_COT, NUMINA, COUNTDOWN, R1 = "Math-CoT", "Math-NoCoT", "NuminaMath", "Countdown-CoT", "DeepSeek-R1"
_ROWS = re.compile(r"-(\d+(?:\.\d+)?)k$")
_MODEL = re.compile(r"(?P<family>.+?)-(?P<size>\d+(?:\.\d+)?)B\b")


@dataclass(frozen=True)
class TrainedRun:
    """A run and its settings. `data` is the name of its data set without its number of rows.

    `rows` are thousands of rows; `size` is in billions of parameters; None, and the name of the model as `family`,
    where the names do not tell.
    """

    name: str
    model: str
    family: str
    size: float | None
    data: str
    rows: float | None
    learning_rate: float | None
    epochs: float | None
    batch: int | None
    schedule: str | None

    @property
    def recipe(self) -> tuple[object, ...]:
        """What runs share that differ only in model and data."""
        return (self.learning_rate, self.epochs, self.batch, self.schedule, self.rows)


def trained_runs(library: Library, origin: Origin, only: str | None = None) -> list[TrainedRun]:
    """The runs of that origin that have a checkpoint or a change against the base, sorted by name.

    Published checkpoints are left out where their training was repeated here, unless they are those asked for.
    """
    found = [(name, library.settings(name)) for name in library.runs(origin)]
    trained = [(_trained_run(name, known), known.checkpoints) for name, known in found if known and known.dataset]
    own = {(run.model, run.data, run.recipe) for run, checkpoints in trained if checkpoints != "published"}
    return [
        run
        for run, checkpoints in trained
        if checkpoints != "published" or run.name == only or (run.model, run.data, run.recipe) not in own
    ]


def _trained_run(name: str, known: Record) -> TrainedRun:
    data, rows = split_dataset(known.dataset or "")
    family, size = split_model(known.model)
    settings = (known.learning_rate, known.epochs, known.batch_size, known.schedule)
    return TrainedRun(name, known.model, family, size, data, rows, *settings)


def split_dataset(name: str) -> tuple[str, float | None]:
    """`Math-CoT-2.5k` -> `Math-CoT`, 2.5; no number where the name has none."""
    found = _ROWS.search(name)
    data = name[: found.start()] if found else name
    return (NUMINA if data == "Numina-Math" else data), float(found[1]) if found else None


def split_model(name: str) -> tuple[str, float | None]:
    """`Qwen2.5-14B-Base` -> `Qwen2.5`, 14; the whole name and None where it does not tell a size."""
    found = _MODEL.match(name)
    return (found["family"], float(found["size"])) if found else (name, None)


def pairs(runs: Iterable[TrainedRun], first: str, second: str) -> list[tuple[TrainedRun, TrainedRun]]:
    """Runs of one model and recipe on data `first` and on data `second`, by model size.

    Of repeated runs the first of one goes with the first of the other, and so on; those left over are in no pair.
    """
    there: dict[tuple[object, ...], tuple[list[TrainedRun], list[TrainedRun]]] = {}
    for run in sorted(runs, key=by_size):
        sides = there.setdefault((run.model, run.recipe), ([], []))
        for side, data in zip(sides, (first, second), strict=True):
            side += [run] if run.data == data else []
    return [pair for sides in there.values() for pair in zip(*sides, strict=False)]


def by_size(run: TrainedRun) -> tuple[str, float, str]:
    """Sort key: family, size, name."""
    return (run.family, run.size or 0.0, run.name)


def of_main_recipe(runs: Iterable[TrainedRun], data: str = COT) -> list[TrainedRun]:
    """The runs on `data` with the recipe that most models were trained with, by size; ties: more epochs, then rows."""
    there = sorted((run for run in runs if run.data == data), key=by_size)
    models = Counter(recipe for recipe, _ in {(run.recipe, run.model) for run in there})
    if not models:
        return []
    rank = {run.recipe: (models[run.recipe], run.epochs or 0.0, run.rows or 0.0, str(run.recipe)) for run in there}
    main = max(rank, key=lambda recipe: rank[recipe])
    return [run for run in there if run.recipe == main]
