"""Results that another harness measured, as records of a run that was not evaluated here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Optional

import msgspec

from reprokit.campaign.collect import cells_of, is_imported
from reprokit.campaign.graph import Workspace
from reprokit.errors import UserError
from reprokit.evaluation.statistics import Z_95, wilson_interval
from reprokit.readers.files import read_file
from reprokit.readers.interface import Evaluation, Number
from reprokit.recipe.checks import FOLDER_NAME, NAME_RULE
from reprokit.records.files import sha256_of_file
from reprokit.records.paper import base_of
from reprokit.records.record import Record, Results, read_results, write_results
from reprokit.records.result import Cell
from reprokit.words import truth

FILE, REPLACE = "file", "replace"
_LEAST_ERROR = 1e-6  # of a share: a smaller one would be of more problems than there are
NEEDED = (FILE, "run", "model", "step")
SETTINGS = ("dataset", "learning_rate", "epochs", "batch_size", "schedule")  # of a trained run


class Checkpoint(msgspec.Struct, kw_only=True, frozen=True):
    """Of which checkpoint a file has the results; settings that are not given are None, as those of step 0 are."""

    run: Annotated[str, msgspec.Meta(pattern=rf"^{FOLDER_NAME}\Z")]
    model: Annotated[str, msgspec.Meta(min_length=1)]
    step: Annotated[int, msgspec.Meta(ge=0, le=10**9)]
    dataset: Optional[str] = None
    learning_rate: Optional[Annotated[float, msgspec.Meta(gt=0, lt=1)]] = None
    epochs: Optional[Annotated[float, msgspec.Meta(gt=0, lt=1e6)]] = None
    batch_size: Optional[Annotated[int, msgspec.Meta(gt=0)]] = None
    schedule: Optional[str] = None


def import_file(workspace: Workspace, given: Mapping[str, str]) -> list[str]:
    """Add the numbers of a harness's file to `results/<run>.json`; returns what to say about it.

    Args:
        given: the words of the command line.

    Raises:
        UserError: a word that is missing or wrong, a file that no reader knows, a run that this kit evaluates, or cells
            that the run has from another file.
    """
    checkpoint = _checkpoint(given)
    file = Path(given["file"])
    evaluation = read_file(file)
    name, path = f"{evaluation.harness}-{sha256_of_file(file)[:12]}", workspace.results / f"{checkpoint.run}.json"
    earlier = _earlier(workspace, checkpoint)
    records = [_record(checkpoint, evaluation, one, file.name, name) for one in evaluation.numbers]
    replace = truth(REPLACE, given.get(REPLACE, "false"))
    made = {"harness": evaluation.harness, "version": evaluation.version, "file": file.name}
    made |= {"sha256": sha256_of_file(file), "model": evaluation.model}
    write_results(path, _merged(earlier, records, {name: made}, replace))
    titles = [f"  {record.benchmark}: {_shown(record)}" for record in records]
    left_out = [f"  not taken: {what}" for what in evaluation.left_out]
    where = f"results/{path.name}, step {checkpoint.step}"
    return [f"{file.name}: {_origin(evaluation)}; {len(records)} numbers into {where}", *titles, *left_out]


def _checkpoint(given: Mapping[str, str]) -> Checkpoint:
    """Raises UserError for words that are missing, unknown or of no use."""
    known = (FILE, *Checkpoint.__struct_fields__, REPLACE)
    unknown, missing = sorted(set(given) - set(known)), [word for word in NEEDED if not given.get(word)]
    if unknown or missing:
        wrong = [
            f"{what}: {', '.join(words)}" for what, words in (("unknown", unknown), ("not given", missing)) if words
        ]
        raise UserError(f"{'; '.join(wrong)}. With file= there are {', '.join(f'{word}=' for word in known)}")
    words = {key: value for key, value in given.items() if key not in (FILE, REPLACE)}
    try:
        checkpoint = msgspec.convert(words, Checkpoint, strict=False)
    except msgspec.ValidationError as error:
        typed = " ".join(f"{key}={value}" for key, value in words.items())
        raise UserError(f"{typed}: {error}; run= takes {NAME_RULE}, step= a whole number from 0") from error
    if checkpoint.step == 0 and (settings := sorted(set(words) - set(NEEDED))):
        raise UserError(f"step=0 is the untrained base, which has no {', '.join(settings)}: leave that out")
    base = base_of(checkpoint.run)
    if base not in (None, checkpoint.model):
        raise UserError(f"model={checkpoint.model}: run {checkpoint.run} of the paper starts from {base}")
    if checkpoint.run == checkpoint.model and checkpoint.step:
        raise UserError(
            f"step={checkpoint.step}: a run that is named after its model is the base itself. Give step=0, or another "
            "run= for what was trained"
        )
    return checkpoint


def _earlier(workspace: Workspace, checkpoint: Checkpoint) -> Results:
    """What was imported of this run before.

    Raises:
        UserError: the run is one that this kit evaluates, or of another model or other settings.
    """
    path = workspace.results / f"{checkpoint.run}.json"
    earlier = read_results(path) if path.exists() else Results(run=checkpoint.run, records=[])
    if (
        workspace.run(checkpoint.run).recipe.exists()
        or earlier.missing
        or (earlier.records and not is_imported(earlier))
    ):
        raise UserError(
            f"run={checkpoint.run} is evaluated by this kit, and those results are not mixed with another harness's: "
            "give the imported run a name of its own"
        )
    for record in earlier.records:
        for word in ("model", *(SETTINGS if record.step and checkpoint.step else ())):
            there, given = getattr(record, word), getattr(checkpoint, word)
            if there != given:
                raise UserError(f"{word}={given}: {path} is of {word} {there}; give that, or another run=")
    return earlier


def _merged(earlier: Results, records: list[Record], made: dict[str, dict[str, str | None]], replace: bool) -> Results:
    """The earlier records without the cells of the new ones, and the new ones, by step and benchmark.

    Raises:
        UserError: cells stand there from another file, and they are not to be replaced.
    """
    new = cells_of(Results(run=earlier.run, records=records))
    there = {
        Cell(record.step, record.benchmark): earlier.provenance[record.provenance or ""]["file"]
        for record in earlier.records
        if record.provenance not in made and Cell(record.step, record.benchmark) in new
    }
    if there and not replace:
        shown, files = ", ".join(cell.benchmark for cell in sorted(there)), ", ".join(sorted(set(there.values())))
        step = min(cell.step for cell in there)
        raise UserError(f"step {step} on {shown} is there from {files}: add replace=true to take this file's instead")
    kept = [record for record in earlier.records if Cell(record.step, record.benchmark) not in new]
    merged = sorted([*kept, *records], key=lambda record: (record.step, record.benchmark))
    used = {record.provenance for record in merged}
    provenance = {key: value for key, value in sorted({**earlier.provenance, **made}.items()) if key in used}
    return Results(run=earlier.run, records=merged, provenance=provenance)


def _record(checkpoint: Checkpoint, evaluation: Evaluation, one: Number, file: str, provenance: str) -> Record:
    scale = 100.0 if one.unit == "percent" else 1.0
    low, high, how = _interval(one)
    remarks = [f"measured by {_origin(evaluation)} (task {one.task}), not by this kit", one.remark, how]
    return Record(
        **msgspec.structs.asdict(checkpoint),
        benchmark=one.benchmark,
        metric=one.metric,
        headline=one.headline,
        value=scale * one.value,
        unit=one.unit,
        items=one.items,
        samples_per_item=one.samples,
        interval_low=None if low is None else scale * low,
        interval_high=None if high is None else scale * high,
        origin="measured",
        source=f"{_origin(evaluation)}, {file}",
        note="; ".join(filter(None, remarks)),
        provenance=provenance,
    )


def _interval(one: Number) -> tuple[float | None, float | None, str]:
    """The 95 % interval, and how it was made."""
    value, error = one.value, one.standard_error
    if one.unit == "score":
        if error is None or error <= 0:
            return None, None, "no interval: the file has no standard error that could be"
        return value - Z_95 * error, value + Z_95 * error, "interval: 1.96 standard errors of the file"
    if error is not None and _LEAST_ERROR <= error <= 1 and 0 < value < 1:
        return *wilson_interval(
            value, value * (1 - value) / error**2
        ), "interval: Wilson's, of the file's standard error"
    if one.items is not None:
        return *wilson_interval(value, one.items), "interval: Wilson's, of the number of problems"
    return None, None, "no interval: the file has neither a standard error nor the number of problems"


def _origin(evaluation: Evaluation) -> str:
    return " ".join(filter(None, [evaluation.harness, evaluation.version]))


def _shown(record: Record) -> str:
    unit = " %" if record.unit == "percent" else ""
    interval = "" if record.interval_low is None else f" ({record.interval_low:.2f} to {record.interval_high:.2f})"
    size = "" if record.items is None else f", {record.items} problems"
    return f"{record.metric} {record.value:.2f}{unit}{interval}{size}"
