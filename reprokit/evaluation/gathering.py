"""What all workers of a checkpoint logged -> the samples of its cells, each with what made them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from reprokit.errors import NodeError, UserError
from reprokit.evaluation.requests import Key, Requests, Task
from reprokit.records import provenance
from reprokit.records.files import DamagedFileError, read_json, write_json, write_json_lines
from reprokit.records.result import Cell, Generation, Sample, read_generation
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import Drawn, Row, is_generated, items_digest, read_log, read_logs


class Meter(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`<start>.<rank>.json` beside a worker's log: its engine, the time that this was busy, and what came of it."""

    engine: dict[str, Any]
    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0


def log_path(run: RunDirectory, step: int, job: str, rank: int) -> Path:
    """The log of one worker of one start; its meter has the same name with `.json`."""
    return run.sample_logs(step) / f"{job}.{rank:03d}.jsonl"


def meter_path(run: RunDirectory, step: int, job: str, rank: int) -> Path:
    return log_path(run, step, job, rank).with_suffix(".json")


def ended_path(run: RunDirectory, step: int, job: str, rank: int) -> Path:
    """Made when a worker has logged all that it will of a checkpoint."""
    return run.sample_logs(step) / job / f"ended.{rank:03d}"


def write_meter(path: Path, meter: Meter) -> None:
    """Replaced in one step but not synced: after a power failure, a number of the provenance is too small."""
    aside = path.with_suffix(".partial")
    aside.write_bytes(msgspec.json.encode(meter))
    os.replace(aside, path)


def meters(run: RunDirectory, step: int, job: str = "*") -> list[Meter]:
    """The meters of the workers of one start, or of all starts; those that a power failure damaged are left out."""
    found = []
    for path in sorted(run.sample_logs(step).glob(f"{job}.*.json")):
        with suppress(DamagedFileError):
            found.append(read_json(path, Meter))
    return found


def gather_cell(run: RunDirectory, step: int, task: Task, requests: Requests, workers: int) -> None:
    """Write samples.jsonl and, last, generation.json of one cell.

    Raises:
        NodeError: samples are missing.
        UserError: none is a response.
    """
    rows = list(drawn(run, step, task.benchmark, Sample))
    samples = _samples(step, task, requests, rows)
    if all(sample.finish_reason == "no_room" for sample in samples):
        context = min(requests.context, task.sampling.context or requests.context)
        raise UserError(
            f"step {step}, {task.benchmark}: no prompt leaves room for a response in a context of {context} tokens. "
            f"Raise evaluation.max_model_length or evaluation.benchmarks.{task.benchmark}.context, or leave them out "
            "for the model's own context."
        )
    made_by = _provenance(run, step, task, samples, workers)
    _keep_others(run, step, task.benchmark, samples, rows)
    write_json_lines(run.samples(step, task.benchmark), samples)
    write_json(
        run.generation(step, task.benchmark),
        Generation(
            step=step,
            benchmark=task.benchmark,
            settings=task.settings,
            items=items_digest(run, task.benchmark) or "",
            provenance=made_by,
        ),
    )


def remove_logs(run: RunDirectory, step: int, settings: dict[str, dict[str, Any]]) -> None:
    """Remove the logs of a checkpoint once all its cells are gathered; `settings`: those of each benchmark."""
    if all(is_generated(run, Cell(step, benchmark), wanted) for benchmark, wanted in settings.items()):
        for benchmark in {row.benchmark for row in read_logs(run, step, Drawn)} - set(settings):
            gathered = list(read_log(run.samples(step, benchmark), Sample))
            _keep_others(run, step, benchmark, gathered, drawn(run, step, benchmark, Sample))
        shutil.rmtree(run.sample_logs(step), ignore_errors=True)


def gathered_before(run: RunDirectory, step: int, benchmark: str, shape: type[Row]) -> Iterator[Row]:
    """What was drawn for a cell and gathered: what was asked for then, and what was not."""
    yield from read_log(run.samples(step, benchmark), shape)
    yield from read_log(run.other_samples(step, benchmark), shape)


def drawn(run: RunDirectory, step: int, benchmark: str, shape: type[Row]) -> Iterator[Row]:
    """All that was ever drawn for a cell: what was gathered before, and what is logged."""
    yield from gathered_before(run, step, benchmark, shape)
    yield from (row for row in read_logs(run, step, shape) if row.benchmark == benchmark)


def _keep_others(
    run: RunDirectory, step: int, benchmark: str, gathered: Sequence[Sample], rows: Iterable[Sample]
) -> None:
    """Keep those of `rows`, all that was drawn, that are not `gathered`: another launch may ask for them again."""
    taken = {(sample.item, sample.sample, sample.request) for sample in gathered}
    others = {(sample.item, sample.sample, sample.request): sample for sample in rows}
    kept = [sample for key, sample in others.items() if key not in taken]
    if kept:
        write_json_lines(run.other_samples(step, benchmark), kept)


def _samples(step: int, task: Task, requests: Requests, rows: Iterable[Sample]) -> list[Sample]:
    """One of `rows` for every (item, sample), in this order; the first where there are several."""
    found: dict[Key, Sample] = {}
    for sample in rows:
        key = (sample.benchmark, sample.item, sample.sample)
        if key not in found and requests.is_of(sample):
            found[key] = sample
    missing = [key for key in task.keys() if key not in found]
    if missing or not found:
        raise NodeError(  # a file system lost a line, or did not show a file yet: another start draws what is missing
            f"step {step}, {task.benchmark}: {len(missing)} of {len(missing) + len(found)} samples are missing, such "
            f"as {missing[:3]}, though every worker has ended. Launch again: only these will be drawn."
        )
    return [found[key] for key in task.keys()]


def _provenance(run: RunDirectory, step: int, task: Task, samples: Sequence[Sample], workers: int) -> dict[str, Any]:
    """What made the samples of a cell.

    All benchmarks of a checkpoint run through the engines together. `tokens_per_second` is that of one engine over all
    of them and over every start; `engine_seconds` is the share of this benchmark by tokens.
    """
    gathered = {**provenance.gather(), "engines": workers, "seed": task.sampling.seed}
    logged = meters(run, step)
    tokens = sum(sample.response_tokens for sample in samples)
    busy, made = sum(meter.seconds for meter in logged), sum(meter.tokens for meter in logged)
    if made:
        speed = made / busy
        engine = logged[-1].engine
    else:  # all of it was there, gathered for other settings, such as fewer problems
        before = read_generation(run.generation(step, task.benchmark))
        speed = before.provenance.get("tokens_per_second", 0.0) if before else 0.0
        engine = before.provenance.get("engine", {}) if before else {}
    return {
        **gathered,
        "engine": engine,
        "generated_tokens": tokens,
        "tokens_per_second": round(speed, 1),
        "engine_seconds": round(tokens / speed, 3) if speed else 0.0,
    }
