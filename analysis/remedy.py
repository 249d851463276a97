"""What a person does about cells without a result: the command to type next, for the console."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from analysis.holdings import Library
from reprokit.records.run_directory import RunDirectory
from reprokit.words import interpreter

AGAIN = "the same command again"


def to_fill(library: Library, runs: Iterable[str], then: str = AGAIN) -> list[str]:
    """How the missing cells of these runs are filled, one line; none where no recipe asks for them.

    Names the Python that runs, which may be a path of this machine: not for files.

    Args:
        then: what shows the new results.
    """
    planned = sorted(run for run in set(runs) if library.missing(run))
    recipes = [RunDirectory(Path("runs", run)).recipe for run in planned]
    if not recipes:
        return []
    where = "" if all(path.exists() for path in recipes) else ", in the folder that has runs/"
    word = shlex.quote(f"recipe={','.join(map(str, recipes))}")
    return [f"to fill: {interpreter()} -m reprokit.launch {word}{where}; then {then}"]
