"""What a launch finds damaged in a run folder: some is put right at once, of the rest it is told what becomes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reprokit.campaign.cells import all_cells
from reprokit.data.report import Report
from reprokit.evaluation.judges import sources
from reprokit.recipe.derived import all_steps, steps_of
from reprokit.recipe.schema import Recipe, Source
from reprokit.records import manifest
from reprokit.records.files import DamagedFileError, move_aside, read_json, write_json
from reprokit.records.record import Results
from reprokit.records.result import Cell, CellResult, Generation
from reprokit.records.run_directory import RunDirectory, Stopped, SubmittedJobs

T = TypeVar("T")


class _Line(msgspec.Struct):
    """The one field of a line of metrics that is looked at here."""

    step: int


def mend(run: RunDirectory, recipe: Recipe, results: Path) -> list[str]:
    """Put right what takes no job; returns a line for each piece.

    Only to be called with the lock of the run, when none of its jobs waits or runs.

    Args:
        results: the collected results of the run, from which what was lost here is taken.
    """
    lines = [_mend_complete(run, recipe), _mend_provenance(run, results)]
    lines += [_put_away(run.jobs, SubmittedJobs), _put_away(run.stopped, Stopped)]
    return [line for line in lines if line is not None]


def damaged_pieces(run: RunDirectory, recipe: Recipe, stages: Collection[str]) -> list[str]:
    """A line for each piece of the run folder that is there and cannot be used, and what becomes of it.

    Told from the small files and from sizes; large files are read by the jobs that use them.

    Args:
        stages: names of the jobs that this launch will run.
    """
    cells = (line for cell in all_cells(recipe) for line in _cell(run, cell, stages))
    return [*_inputs(run, recipe, stages), *_training(run, recipe, stages), *cells]


def _mend_complete(run: RunDirectory, recipe: Recipe) -> str | None:
    """A training whose last step was taken and whose checkpoints are all there needs not be taken again."""
    if recipe.source is not Source.training or run.training_complete.exists() or not run.metrics.exists():
        return None
    report, _ = _read(run.data / "report.json", Report)
    if report is None or _last_step(run.metrics) != (total := steps_of(report.rows, recipe)):
        return None
    if any(manifest.flaw(run.checkpoint(step)) is not None for step in recipe.training.checkpoint_steps):
        return None
    write_json(run.training_complete, {"steps": total})
    return f"{run.training_complete} was missing: the training has taken its {total} steps and has all checkpoints"


def _last_step(metrics: Path) -> int | None:
    last = metrics.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2]
    try:
        return msgspec.json.decode(last, type=_Line).step
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _mend_provenance(run: RunDirectory, results: Path) -> str | None:
    """What the training ran on stands in the collected results, too."""
    _, flaw = _read(run.provenance, dict[str, Any])
    collected, _ = _read(results, Results)
    known = collected.provenance.get("training") if collected is not None else None
    if flaw is None or known is None:
        return None
    kept = move_aside(run.provenance)
    write_json(run.provenance, {name: value for name, value in known.items() if name != "spent"})
    return f"{run.provenance} was damaged: made again from {results}; the damaged file is kept as {kept.name}"


def _put_away(path: Path, shape: type[Any]) -> str | None:
    """Rename a file of earlier jobs that cannot be read: it stands in the way, and is of no use any more."""
    if _read(path, shape)[1] is None:
        return None
    return f"{path} was damaged: no job of this run waits or runs, and the file is kept as {move_aside(path).name}"


def _inputs(run: RunDirectory, recipe: Recipe, stages: Collection[str]) -> Iterator[str]:
    again = "made again" if "prepare" in stages else "to be made again by the stage prepare"
    for name in recipe.evaluation.benchmarks:
        if (flaw := _read(run.items_source(name), dict[str, Any])[1]) is not None:
            yield f"the problems of {name} are {again}, and samples of the same problems kept: {flaw}"
    for key in sources.all_keys(recipe):
        if (flaw := _read(sources.path_of(run, key), dict[str, Any])[1]) is not None:
            yield f"judge {key} is {again}, and its replies kept: {flaw}"
    if recipe.source is Source.training and not run.training_complete.exists():
        if (flaw := _read(run.data / "report.json", Report)[1]) is not None:
            yield f"the tokens are {again}: {flaw}"


def _training(run: RunDirectory, recipe: Recipe, stages: Collection[str]) -> Iterator[str]:
    """Checkpoints and states that are there and not whole."""
    resumed = run.resume_step()
    for step in all_steps(recipe):
        folder = run.checkpoint(step)
        if not folder.exists() or (flaw := manifest.flaw(folder)) is None:
            continue
        if step == 0 or recipe.source is Source.published:
            becomes = "made again" if "prepare" in stages else "to be made again by the stage prepare"
        elif "train" in stages and step > resumed:
            becomes = "set aside, and saved again by the training"
        else:
            becomes = "lost, as its training is over; results and samples of it stand"
        yield f"checkpoint {step} is {becomes}: {flaw}"
    for step in run.states() if "train" in stages else ():
        if (flaw := manifest.flaw(run.state(step))) is not None:
            yield f"the state of step {step} is passed over, the training goes on from step {resumed}: {flaw}"


def _cell(run: RunDirectory, cell: Cell, stages: Collection[str]) -> Iterator[str]:
    where = f"step {cell.step} on {cell.benchmark}"
    result, flaw = _read(run.result(cell.step, cell.benchmark), CellResult)
    if flaw is not None:
        yield f"the result of {where} is {'made again' if 'score' in stages else 'missing'}: {flaw}"
    _, flaw = _read(run.generation(cell.step, cell.benchmark), Generation)
    if flaw is not None and result is not None:
        yield f"the result of {where} stands, and can be scored anew only with new samples: {flaw}"
    elif flaw is not None:
        becomes = "looked through, and drawn where some are missing" if "evaluate" in stages else "missing"
        yield f"the samples of {where} are {becomes}: {flaw}"


def _read(path: Path, shape: type[T]) -> tuple[T | None, str | None]:
    """The content of a file, or what is wrong with it; neither where there is none."""
    try:
        return read_json(path, shape), None
    except FileNotFoundError:
        return None, None
    except DamagedFileError as error:
        return None, str(error).partition(". Move it away")[0]
