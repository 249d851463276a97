"""python -m reprokit.status [run=NAME] [--watch] [--json]

How the run, or every run of `runs/`, is getting on: the matrix of checkpoints and benchmarks with the samples drawn so
far; jobs with state, reason, node and time left; the training; what the back-fill did, and why it stopped. Needs no
accounting database. --watch shows it again every few seconds until Ctrl-C.

--json prints {"time": seconds since 1970, "runs": [...]}, with the fields of `RunStatus` for each run
(`reprokit/campaign/status.py`); with --watch one such line each time.

Exit code 3: something is missing, and nothing waits or runs that would make it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep

import msgspec
from rich.console import Console, Group
from rich.live import Live

from reprokit.campaign.graph import Workspace
from reprokit.campaign.status import Looking, RunStatus, find_run, run_names
from reprokit.campaign.status_table import show, table_of
from reprokit.words import LOG_WIDTH, PARTIAL, options, run, truth, without_dashes

SECONDS = 5.0  # between two looks
DEFAULTS = {"run": "", "watch": "false", "json": "false"}


def act(words: Sequence[str]) -> int:
    """Do what the words say; returns the exit code.

    Raises:
        UserError: a word that is not understood, or no such run; the message names the valid ones.
    """
    given = options(without_dashes(words, ("watch", "json")), DEFAULTS, __doc__, f"\n\n{__doc__}")
    watch, as_json = (truth(key, given[key]) for key in ("watch", "json"))
    workspace = Workspace(Path.cwd())
    looking = Looking(workspace)

    def look() -> list[RunStatus]:
        return looking.at([find_run(workspace, given["run"]).root.name] if given["run"] else run_names(workspace))

    if watch:
        return _code(_watch(look(), look, as_json))
    runs = look()
    if as_json:
        print(msgspec.json.format(_json(runs), indent=1).decode())
    elif runs:
        show(runs, _console())
    else:
        print(f"no runs in {workspace.root / 'runs'}: python -m reprokit.launch recipe=NAME begins one")
    return _code(runs)


def _watch(runs: list[RunStatus], look: Callable[[], list[RunStatus]], as_json: bool) -> list[RunStatus]:
    """Show the status again and again; returns the last one when the person at the keyboard ends it."""
    console = _console()
    try:
        if console.is_terminal and not as_json:
            with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
                while True:
                    live.update(Group(*(table_of(status, console.width) for status in runs)), refresh=True)
                    sleep(SECONDS)
                    runs = look()
        while True:
            if as_json:
                print(_json(runs).decode(), flush=True)
            else:
                console.print(time.strftime("%Y-%m-%d %H:%M:%S"), highlight=False)
                show(runs, console)
            sleep(SECONDS)
            runs = look()
    except KeyboardInterrupt:
        return runs


def _json(runs: Sequence[RunStatus]) -> bytes:
    return msgspec.json.encode({"time": time.time(), "runs": runs})


def _console() -> Console:
    wide = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if wide else LOG_WIDTH)


def _code(runs: Sequence[RunStatus]) -> int:
    return PARTIAL if any(status.is_stuck for status in runs) else 0


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: act(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
