"""How far the cells (step x benchmark) of a run are, by the files on disk alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reprokit.campaign.cells import all_cells
from reprokit.errors import UserError
from reprokit.evaluation.problems import current_source
from reprokit.evaluation.wanted import Wanted, wanted
from reprokit.recipe import evaluated_steps
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import Recipe
from reprokit.records.files import DamagedFileError, read_json
from reprokit.records.result import Cell, CellResult, Generation, read_generation
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import is_generated

LINE_BEGINS = b'{"benchmark":"'  # of a sample, as it is logged


@dataclass(frozen=True)
class OnDisk:
    """state: `done` (has its result), `generated` (all samples, no result), `damaged` (a file of it cannot be read), or
    `missing`. samples: so far, of those `asked` for; None before the problems are prepared.
    """

    state: str
    samples: int
    asked: int | None


@dataclass
class SampleCounts:
    """Counts the samples in logs, without decoding them; a log that has grown is read from where it was before."""

    _seen: dict[Path, tuple[int, Counter[str]]] = field(default_factory=dict)

    def of(self, path: Path) -> Counter[str]:
        """Whole lines of a log by benchmark; none where it is not there (any more)."""
        begin, counts = self._seen.get(path, (0, Counter()))
        with suppress(OSError), path.open("rb") as stream:
            if begin > stream.seek(0, 2):  # another file of the same name
                begin, counts = 0, Counter()
            stream.seek(begin)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                begin += len(line)
                if line.startswith(LINE_BEGINS):
                    counts[line[len(LINE_BEGINS) : line.find(b'"', len(LINE_BEGINS))].decode(errors="replace")] += 1
            self._seen[path] = begin, counts
            return counts
        return Counter()

    def logged(self, run: RunDirectory, step: int) -> Counter[str]:
        """What all workers have logged for a checkpoint, by benchmark."""
        found: Counter[str] = Counter()
        for path in run.sample_logs(step).glob("*.jsonl"):
            found += self.of(path)
        return found


def cell_named(recipe: Recipe, name: str) -> Cell:
    """The cell of a recipe that `640/math500` means.

    Raises:
        UserError: it has none of that name; the message says which it has.
    """
    step, _, benchmark = name.partition("/")
    for cell in all_cells(recipe):
        if (str(cell.step), cell.benchmark) == (step, benchmark):
            return cell
    steps = ", ".join(map(str, evaluated_steps(recipe)))
    raise UserError(
        f"cell={name}: the run has no such cell; give STEP/BENCHMARK, of steps {steps} and benchmarks "
        f"{', '.join(recipe.evaluation.benchmarks)}"
    )


def cells_on_disk(run: RunDirectory, recipe: Recipe, counts: SampleCounts) -> dict[Cell, OnDisk]:
    """All cells that the recipe asks for."""
    needed = {name: wanted(run, recipe, name) for name in recipe.evaluation.benchmarks}
    asked = {name: _asked(run, recipe, name) for name in recipe.evaluation.benchmarks}
    logged: dict[int, Counter[str]] = {}
    found = {}
    for cell in all_cells(recipe):
        state = _state(run, cell, needed[cell.benchmark])
        total = asked[cell.benchmark]
        if state in ("done", "generated") and total is not None:
            found[cell] = OnDisk(state, total, total)
            continue
        if cell.step not in logged:
            logged[cell.step] = counts.logged(run, cell.step)
        samples = logged[cell.step][cell.benchmark] + _gathered(run, cell, needed[cell.benchmark], counts)
        found[cell] = OnDisk(state, samples if total is None else min(samples, total), total)
    return found


def _asked(run: RunDirectory, recipe: Recipe, benchmark: str) -> int | None:
    """Samples of a cell; None before its problems are prepared."""
    source = current_source(run, recipe, benchmark)
    return None if source is None else source.count * sampling(recipe.evaluation, benchmark).samples


def _state(run: RunDirectory, cell: Cell, needed: Wanted) -> str:
    if needed.has_result(run, cell):
        return "done"
    if any(_damaged(run, cell)):
        return "damaged"
    generated = needed.items is not None and is_generated(run, cell, needed.settings)
    return "generated" if generated else "missing"


def _damaged(run: RunDirectory, cell: Cell) -> Iterator[bool]:
    shapes: tuple[tuple[Path, type[CellResult] | type[Generation]], ...] = (
        (run.result(cell.step, cell.benchmark), CellResult),
        (run.generation(cell.step, cell.benchmark), Generation),
    )
    for path, shape in shapes:
        try:
            read_json(path, shape)
        except DamagedFileError:
            yield True
        except OSError:
            yield False


def _gathered(run: RunDirectory, cell: Cell, needed: Wanted, counts: SampleCounts) -> int:
    """Samples of an earlier launch that asked for fewer or more of the same."""
    made = read_generation(run.generation(cell.step, cell.benchmark))
    if made is None:
        return 0
    changed = {name for name, value in needed.settings.items() if made.settings.get(name) != value}
    if changed - {"items", "samples"}:
        return 0
    return counts.of(run.samples(cell.step, cell.benchmark))[cell.benchmark]
