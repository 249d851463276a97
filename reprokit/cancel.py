"""python -m reprokit.cancel run=NAME [job=NAME | cell=STEP/BENCHMARK]

Ends what is at work for a run, at once and without asking: its jobs on Slurm, or the launch that runs it on this
machine. With job= or cell= only that job, or the element that evaluates the cell. What is finished is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from reprokit.campaign.cancelling import cancel_cell, cancel_run, cancel_stage
from reprokit.campaign.graph import Workspace
from reprokit.campaign.status import find_run
from reprokit.campaign.status_cells import cell_named
from reprokit.errors import UserError
from reprokit.recipe import load_resolved
from reprokit.words import options, run

DEFAULTS = {"run": "", "job": "", "cell": ""}


def act(words: Sequence[str]) -> None:
    """Do what the words say.

    Raises:
        UserError: a word that is not understood, no such run, job or cell, or it cannot be ended from here.
    """
    given = options(words, DEFAULTS, __doc__, f"\n\n{__doc__}")
    if not given["run"] or (given["job"] and given["cell"]):
        raise UserError(f"give run=, and one of job= and cell= or none.\n\n{__doc__}")
    folder = find_run(Workspace(Path.cwd()), given["run"])
    if given["cell"]:
        done = cancel_cell(folder, cell_named(load_resolved(folder.recipe), given["cell"]))
    else:
        done = cancel_stage(folder, given["job"]) if given["job"] else cancel_run(folder)
    nothing = True
    for line in done:
        nothing = False
        print(line, flush=True)
    if nothing:
        about = f"job {given['job']} of " if given["job"] else f"cell {given['cell']} of " if given["cell"] else ""
        print(f"nothing to cancel: nothing is at work for {about}run {given['run']}")


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: act(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
