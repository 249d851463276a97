"""From `results/*.json` to runs: reading, grouping by run, and lending each run the base of its model as step 0."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from analysis.names import benchmark_name
from reprokit.errors import UserError
from reprokit.records.files import sha256_of_file
from reprokit.records.record import MissingCell, Record, Results, read_results


@dataclass(frozen=True)
class ResultFile:
    """One `results/<run>.json`."""

    name: str
    sha256: str
    results: Results


@dataclass(frozen=True)
class Entry:
    """A record and the name of the file that it stands in."""

    record: Record
    file: str


@dataclass(frozen=True)
class Run:
    """All records of one run, of any origin and file; step 0 may be lent by another run of the same base model."""

    name: str
    entries: list[Entry]
    missing: list[MissingCell]

    @property
    def own_records(self) -> list[Record]:
        """The records without a lent step 0."""
        return [entry.record for entry in self.entries if entry.record.run == self.name]


def read_folder(folder: Path) -> list[ResultFile]:
    """Read every `*.json` of `folder`, in order of name.

    Raises:
        UserError: there is none, or some cannot be read; all of those are named at once.
    """
    files, damaged = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            files.append(ResultFile(path.name, sha256_of_file(path), read_results(path)))
        except (ValueError, OSError) as error:
            damaged.append(f"  {error}" if str(path) in str(error) else f"  {path}: {error}")
    if damaged:
        lines = "\n".join(damaged)
        raise UserError(
            f"{len(damaged)} of {len(damaged) + len(files)} result files in {folder} cannot be read:\n{lines}\n"
            "Nothing was drawn. Restore them (git checkout, or collect the run again) or move them out of the folder."
        )
    if not files:
        raise UserError(f"no result file (*.json) in {folder}: launch a recipe first, or give results=DIR")
    return files


def find_runs(files: list[ResultFile]) -> list[Run]:
    """Group the headline records of all files by run, sorted by name.

    A run without step 0 gets that of its base model.
    """
    own: dict[str, list[Entry]] = defaultdict(list)
    missing: dict[str, list[MissingCell]] = defaultdict(list)
    for file in files:
        missing[file.results.run] += file.results.missing
        for record in file.results.records:
            if record.headline:
                own[record.run].append(Entry(record, file.name))
    bases: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for entries in own.values():
        for entry in entries:
            if entry.record.step == 0:
                bases[_comparable(entry.record)].append(entry)
    return [Run(name, own[name] + _lent_base(own[name], bases), missing[name]) for name in sorted(own)]


def _comparable(record: Record) -> tuple[object, ...]:
    """What two records must share to be points of one curve, but for the step."""
    benchmark = benchmark_name(record.benchmark)
    measure = (record.metric, record.unit, record.items, record.samples_per_item)
    return (record.model, record.origin, benchmark, *measure)


def _lent_base(entries: list[Entry], bases: dict[tuple[object, ...], list[Entry]]) -> list[Entry]:
    """Of several runs that have evaluated the base, the one that does nothing else lends it, else the first by name."""
    wanted = dict.fromkeys(_comparable(entry.record) for entry in entries)
    present = {_comparable(entry.record) for entry in entries if entry.record.step == 0}
    lent = []
    for there in (bases[key] for key in wanted if key not in present and key in bases):
        lender = min((entry.record for entry in there), key=lambda record: (record.checkpoints != "model", record.run))
        lent += [entry for entry in there if entry.record.run == lender.run]
    return lent
