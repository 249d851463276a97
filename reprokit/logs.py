"""python -m reprokit.logs run=NAME [job=train|evaluate|...] [cell=STEP/BENCHMARK] [lines=40] [--follow]

Prints the end of the newest log of a run, of one of its jobs, or of the job that evaluates a cell; where several have
failed or been started, it says which, and takes one that failed first. --follow goes on with what is written, until
Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import sleep

from reprokit.campaign.graph import Workspace
from reprokit.campaign.status import find_run
from reprokit.campaign.status_cells import cell_named
from reprokit.campaign.status_logs import JobLog, find_logs, last_lines
from reprokit.errors import UserError
from reprokit.recipe import load_resolved
from reprokit.words import options, run, truth, without_dashes

POLL_SECONDS = 0.5
MOST_OTHERS = 8
DEFAULTS = {"run": "", "job": "", "cell": "", "lines": "40", "follow": "false"}


def act(words: Sequence[str]) -> None:
    """Do what the words say.

    Raises:
        UserError: a word that is not understood, no such run or cell, or there is no log of it.
    """
    given = options(without_dashes(words, ("follow",)), DEFAULTS, __doc__, f"\n\n{__doc__}")
    if not given["run"] or (given["job"] and given["cell"]):
        raise UserError(f"give run=, and one of job= and cell= or none.\n\n{__doc__}")
    if not given["lines"].isdecimal() or int(given["lines"]) == 0:
        raise UserError(f"lines={given['lines']}: give a number from 1")
    folder = find_run(Workspace(Path.cwd()), given["run"])
    cell = cell_named(load_resolved(folder.recipe), given["cell"]) if given["cell"] else None
    found = find_logs(folder, given["job"] or None, cell)
    _describe(found)
    print("\n".join(last_lines(found[0].file, int(given["lines"]))), flush=True)
    if truth("follow", given["follow"]):
        with suppress(KeyboardInterrupt):
            _follow(found[0].file)


def _describe(found: Sequence[JobLog]) -> None:
    log = found[0]
    print(f"{log.stage} {log.job}, launched {log.launch}")
    for start in log.starts:
        how = {None: "it runs, or was killed", "failed": f"failed ({start.failure}): {start.reason}"}
        told = how.get(start.outcome, f"{start.outcome} {start.reason}".strip())
        nodes = f" on {', '.join(start.nodes)}" if start.nodes else ""
        print(f"  start {start.restart + 1}{nodes} at {time.strftime('%F %T', time.localtime(start.started))}: {told}")
    for rank, path in sorted(log.files.items()):
        print(f"  task {rank}: {path}{'  <- shown' if path == log.file else ''}")
    for other in found[1:][:MOST_OTHERS]:
        print(f"  also: {other.stage} {other.job}{' (failed)' if other.failed_rank is not None else ''}: {other.file}")
    if len(found) > MOST_OTHERS + 1:
        print(f"  and {len(found) - MOST_OTHERS - 1} more in {log.file.parents[1]}")
    print()


def _follow(path: Path) -> None:
    """Print what is added to a file, for ever, or until it is removed."""
    with path.open("r", errors="replace") as stream:
        stream.seek(0, 2)
        while path.exists():
            print(stream.read(), end="", flush=True)
            sleep(POLL_SECONDS)


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: act(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
