"""Reading `results/*.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reprokit.errors import UserError
from reprokit.records.files import sha256_of_file
from reprokit.records.record import Record, Results, read_results


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
        raise UserError(
            f"no result file (*.json) in {folder.absolute()}: change to the folder where you launched, launch a recipe "
            "first, or give results=DIR"
        )
    return files
