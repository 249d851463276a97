"""How many problems a benchmark has and how many tokens a response takes, before anything is generated.

Lengths of responses, in this order of trust:

measured   the mean that `results/*.json` has: of the run itself, then of runs of the same model on the same data set,
           then of any model on it, at the same step if there is one, else over all steps; for an untrained base those
           of the same model.
assumed    UNTRAINED tokens for a base. After training a response is like the rows: their mean length times the
           factor of the benchmark in USUAL, for hard problems are thought about for longer. Checkpoints of the first
           EARLY of the steps think EARLY_FACTOR times as long: a model learns to think before it learns to stop. The
           paper's Table 9 (4 B, Math-CoT-20k of rows of perhaps 6,000 tokens) has 28-30k tokens around step 20 of 640
           and 7-23k at the end, over all benchmarks; of single benchmarks, and of bases, no figure is public.

No mean is above LIMIT of the most tokens that a response may have.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import Recipe
from reprokit.records.files import DamagedFileError
from reprokit.records.record import Record, read_results
from reprokit.records.result import Cell

UNTRAINED = 2000.0  # tokens; many stop after a short solution, a few run on to the limit
EARLY, EARLY_FACTOR = 1 / 16, 4.0
LIMIT = 0.9


class Usual(NamedTuple):
    """Problems of a benchmark, tokens of a prompt, and length of a response over that of a training row.

    `made`: the problems are procedural, so that there are as many as a recipe asks for.
    """

    items: int
    prompt: int = 150
    factor: float = 1.0
    made: bool = False

    def asked(self, items: int | None) -> int:
        """Problems where a recipe asks for `items`."""
        return self.items if items is None else items if self.made else min(items, self.items)


# Sizes are those of the benchmarks (`Benchmark.size`), which would have to be imported to be asked. HEx-PHI: the
# public set. Prompts: a question alone, or with options, a persona, or the text that it is about.
USUAL = {
    "math500": Usual(500),
    "aime24": Usual(30, factor=3.0),
    "livecodebench_v2": Usual(511, prompt=600, factor=2.0),
    "gpqa_diamond": Usual(198, prompt=300, factor=2.0),
    "mmlu_pro": Usual(1000, prompt=300),
    "ifeval": Usual(541),
    "alpaca_eval": Usual(805),
    "halueval": Usual(30_000, prompt=600),
    "truthfulqa": Usual(817),
    "hex_phi": Usual(330),
    "chain_sum": Usual(200, made=True),
    "countdown": Usual(200, made=True),
    "countdown_repeats": Usual(200, made=True),
    "syllogism": Usual(200, made=True),
}
ANY = -1  # step


class Trust(Enum):
    """Whose responses were measured, most trusted first."""

    here = "here"
    same_model = "same model"
    same_data = "same data"


class Expected(NamedTuple):
    """Tokens of a response, on average; `measured` unless it is a guess."""

    tokens: float
    measured: bool


@dataclass(frozen=True)
class Responses:
    """Lengths of the responses of one recipe.

    `row`: mean tokens of a training row; `steps`: of the whole training; `records`: what was measured, by anybody.
    """

    recipe: Recipe
    row: float
    steps: int
    records: tuple[Record, ...]

    def expected(self, cell: Cell) -> Expected:
        """Mean tokens of a response of a cell."""
        most = sampling(self.recipe.evaluation, cell.benchmark).max_tokens
        measured = self._measured(cell)
        if measured is not None:
            return Expected(min(measured, most), True)
        return Expected(min(self._assumed(cell), LIMIT * most), False)

    def _assumed(self, cell: Cell) -> float:
        if cell.step == 0:
            return UNTRAINED
        early = EARLY_FACTOR if cell.step <= EARLY * self.steps else 1.0
        return self.row * USUAL[cell.benchmark].factor * early

    def _measured(self, cell: Cell) -> float | None:
        for step in (cell.step,) if cell.step == 0 else (cell.step, ANY):
            for trust in Trust:
                if lengths := self._lengths.get((cell.benchmark, step, trust)):
                    return fmean(lengths)
        return None

    @cached_property
    def _lengths(self) -> dict[tuple[str, int, Trust], list[float]]:
        """Benchmark, step and trust -> means that were measured; of trained models under the step ANY, too."""
        found: dict[tuple[str, int, Trust], list[float]] = defaultdict(list)
        for record in self.records:
            trust = self._trust(record)
            if trust is not None and record.mean_response_tokens is not None:
                for step in (record.step, ANY) if record.step > 0 else (0,):
                    found[record.benchmark, step, trust].append(record.mean_response_tokens)
        return found

    def _trust(self, record: Record) -> Trust | None:
        same_model = record.model == self.recipe.model.name
        if record.step == 0:
            return Trust.same_model if same_model else None
        if record.dataset != self.recipe.data.name:
            return None
        if not same_model:
            return Trust.same_data
        return Trust.here if record.run == self.recipe.name else Trust.same_model


def measured_in(results: Path | None) -> tuple[Record, ...]:
    """The records of a folder of results that have a length of responses; damaged files count as not there."""
    if results is None:
        return ()
    found: list[Record] = []
    for path in sorted(results.glob("*.json")):
        state = path.stat()
        found += _with_lengths(path, state.st_mtime_ns, state.st_size)
    return tuple(found)


@cache
def _with_lengths(path: Path, modified: int, size: int) -> tuple[Record, ...]:
    """`modified` and `size` make a changed file another one."""
    try:
        records = read_results(path).records
    except DamagedFileError:
        return ()
    return tuple(record for record in records if record.headline and record.mean_response_tokens is not None)
