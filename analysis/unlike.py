"""What is not the same behind two numbers: how the runs were trained, and how the two were evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.columns import Column
from analysis.holdings import Library
from analysis.runs import Entry
from reprokit.records.record import Record

TRAINING = ("model", "dataset", "learning_rate", "epochs", "batch_size", "schedule", "checkpoints")
EVALUATION = ("metric", "items", "samples_per_item", "protocol")
# Parts of a provenance that are measurements or places, or that stand in the record or in `data.items` already.
_NO_SETTINGS = {"generated_tokens", "tokens_per_second", "engine_seconds", "cores", "slurm", "count", "file", "files"}
_NO_SETTINGS |= {"sha256", "model", "swap_test", "weights"}
# What changes a score; the rest (versions, devices) should not.
_SPOILS = (*EVALUATION, "harness", "settings", "data", "judges", "scorer")
DIGEST = 64  # characters of a sha256
THIS_KIT = "this kit's own"
UNKNOWN = "not recorded"
Fact = tuple[str, str, str]


@dataclass(frozen=True)
class Unlike:
    """One thing that two evaluations do not share, and the columns that it is about.

    `spoils`: whether numbers that differ in it cannot be compared as if only the models differed.
    """

    what: str
    first: str
    second: str
    columns: tuple[Column, ...]
    spoils: bool


def training_differences(library: Library, first: str, second: str) -> list[Fact]:
    """Settings of two runs that differ: name and both values."""
    records = library.settings(first), library.settings(second)
    pairs = [(name, *(_shown(getattr(record, name)) for record in records)) for name in TRAINING]
    return [(name.replace("_", " "), one, other) for name, one, other in pairs if one != other]


def evaluation_differences(library: Library, pairs: Mapping[Column, tuple[Entry, Entry]]) -> list[Unlike]:
    """What the evaluations behind pairs of numbers do not share, what spoils a comparison first."""
    columns: dict[Fact, list[Column]] = {}
    for column, (first, second) in pairs.items():
        for fact in _facts(library, first, second):
            columns.setdefault(fact, []).append(column)
    found = [Unlike(*fact, tuple(where), _spoils(fact[0])) for fact, where in columns.items()]
    return sorted(found, key=lambda unlike: (not unlike.spoils, unlike.what))


def mixed(library: Library, entries: Sequence[Entry]) -> list[str]:
    """What the evaluations of several numbers do not share and what spoils their comparison."""
    facts = (fact for other in entries[1:] for fact in _facts(library, entries[0], other))
    return [what for what in dict.fromkeys(fact[0] for fact in facts) if _spoils(what)]


def _facts(library: Library, first: Entry, second: Entry) -> Iterator[Fact]:
    both = {name: (getattr(first.record, name), getattr(second.record, name)) for name in EVALUATION}
    if first.record.origin == second.record.origin == "measured":
        made = (_made_by(library, first), _made_by(library, second))
        both |= {key: (made[0].get(key), made[1].get(key)) for key in sorted({*made[0], *made[1]})}
    elif first.record.origin != second.record.origin:
        del both["protocol"]  # that of the paper is what the official one follows
        both["harness"] = (_other_harness(first.record), _other_harness(second.record))
    for name, (one, other) in both.items():
        if one != other:
            yield name.replace("_", " "), _shown(one), _shown(other)


def _other_harness(record: Record) -> str | None:
    """Which harness measured it, if that is not this kit's."""
    return record.source if record.origin == "measured" else None


def _made_by(library: Library, entry: Entry) -> dict[str, Any]:
    """What made a measured number, with dotted keys; without what is no setting."""
    provenance = library.file(entry.file).results.provenance.get(entry.record.provenance or "", {})
    leaves = {key: value for key, value in _leaves(provenance) if not _NO_SETTINGS & set(key.split("."))}
    leaves.pop("settings.items", None)
    return {"harness": THIS_KIT, **leaves}


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, below in value.items():
        if isinstance(below, Mapping) and below:
            yield from _leaves(below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", below


def _spoils(what: str) -> bool:
    return what.split(".")[0].replace(" ", "_") in _SPOILS


def _shown(value: object) -> str:
    if value is None or value == {}:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == DIGEST else str(value)
