"""What the runs cost, as far as the provenance of their records says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.holdings import Library
from analysis.runs import ResultFile


@dataclass(frozen=True)
class Cost:
    """Of one measured run.

    `tokens` were generated and `engine_hours` engines were busy for `known` of the `cells`; `device_hours` are engine
    hours times the devices of an engine. `devices` are what it ran on; `training` says on how many ranks it trained,
    how long its steps took and on how many tokens, those that an interruption made it take again included.
    """

    run: str
    cells: int
    known: int
    tokens: int
    engine_hours: float
    device_hours: float
    devices: tuple[str, ...]
    training: str


def costs(library: Library) -> list[Cost]:
    """One entry for every results file with measured records."""
    measured = [file for file in library.files if any(record.origin == "measured" for record in file.results.records)]
    return [_cost(file) for file in measured]


def _cost(file: ResultFile) -> Cost:
    records = [record for record in file.results.records if record.origin == "measured"]
    # Cells of one provenance were made alike, and each has used what it says.
    cells = {(record.step, record.benchmark): record.provenance for record in records}
    made = [_evaluation(file.results.provenance.get(key or "", {})) for key in cells.values()]
    known = [entry for entry in made if _number(entry, "engine_seconds") and _devices_of_engine(entry)]
    hours = [_number(entry, "engine_seconds") / 3600 for entry in known]
    return Cost(
        file.results.run,
        len(cells),
        len(known),
        int(sum(_number(entry, "generated_tokens") for entry in known)),
        sum(hours),
        sum(hour * _devices_of_engine(entry) for hour, entry in zip(hours, known, strict=True)),
        tuple(sorted({str(_engine(entry).get("device", "unknown device")) for entry in known})),
        _training(records[0].checkpoints, file.results.provenance.get("training", {})),
    )


def _evaluation(provenance: dict[str, Any]) -> dict[str, Any]:
    made = provenance.get("evaluation")
    return made if isinstance(made, dict) else {}


def _engine(made: dict[str, Any]) -> dict[str, Any]:
    engine = made.get("engine")
    return engine if isinstance(engine, dict) else {}


def _devices_of_engine(made: dict[str, Any]) -> float:
    engine = _engine(made)
    return _number(engine, "tensor_parallel") * _number(engine, "pipeline_parallel")


def _number(entry: dict[str, Any], key: str) -> float:
    value = entry.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _training(checkpoints: str | None, provenance: dict[str, Any]) -> str:
    if checkpoints in ("published", "model"):
        return "none here"
    if "world_size" not in provenance:
        return "unknown"
    ranks = f"{provenance['world_size']} × {provenance.get('device', 'unknown device')}"
    spent = provenance.get("spent")
    if not isinstance(spent, dict):
        return f"{ranks}, time unknown"
    hours, tokens = _number(spent, "seconds") / 3600, int(_number(spent, "tokens"))
    return f"{ranks}, {hours:,.3f} hours, {tokens:,} tokens"
