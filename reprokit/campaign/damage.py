"""Files of an evaluation that are there and cannot be read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from reprokit.records.files import DamagedFileError, read_json, read_json_lines
from reprokit.records.provenance import read_provenance
from reprokit.records.result import Cell, CellResult, Generation, Sample, SampleScore
from reprokit.records.run_directory import RunDirectory, step_of
from reprokit.words import interpreter

_SHAPES: dict[str, type[CellResult] | type[Generation]] = {"result.json": CellResult, "generation.json": Generation}
_LINES: dict[str, type[SampleScore] | type[Sample]] = {"scores.jsonl": SampleScore, "samples.jsonl": Sample}


def damaged_files(run: RunDirectory) -> list[str]:
    """What is wrong with provenance, results, generations, scores and samples of a run; each names its file.

    A cell with a damaged `result.json` is missing. With whole results and damaged files beside them the numbers stand,
    for a result is written last and holds all that it says.
    """
    return [*_provenance(run), *_cells(run)]


def _provenance(run: RunDirectory) -> Iterator[str]:
    if run.provenance.exists() and read_provenance(run.provenance) is None:
        yield f"{run.provenance} cannot be read: what the training ran on is not in the results"


def _cells(run: RunDirectory) -> list[str]:
    folders = (path for path in sorted((run.root / "evaluation").glob("step_*/*")) if step_of(path.parent) >= 0)
    return [flaw for folder in folders for flaw in _flaws(folder, run.root.name)]


def cells_without_samples(run: RunDirectory) -> list[Cell]:
    """Cells with a result whose samples are gone: their numbers stand, and nothing of them can be made anew."""
    folders = (path.parent for path in run.root.glob("evaluation/step_*/*/result.json"))
    gone = (folder for folder in folders if step_of(folder.parent) >= 0 and not (folder / "samples.jsonl").exists())
    return sorted(Cell(step_of(folder.parent), folder.name) for folder in gone)


def _flaws(folder: Path, run: str) -> Iterator[str]:
    for name, shape in _SHAPES.items():
        try:
            if (path := folder / name).exists():
                content = read_json(path, shape)
                if content.cell != Cell(step_of(folder.parent), folder.name):
                    yield f"{path} is of step {content.step} on {content.benchmark}, and lies in the folder of another"
                if isinstance(content, CellResult) and all(metric.value is None for metric in content.metrics):
                    yield f"{path} has not one number: no verdict of its judges was usable"
        except DamagedFileError as error:
            yield str(error)
    for name, line in _LINES.items():
        try:
            if (path := folder / name).exists():
                deque(read_json_lines(path, line), maxlen=0)
        except DamagedFileError as error:
            again = f"Score it again: {interpreter()} -m reprokit.rescore run={run} benchmarks={folder.name}"
            yield f"{error}. {again if line is SampleScore else 'The result stands, and cannot be scored anew.'}"
