"""python -m reprokit.launch recipe=NAME [cluster=NAME] [stages=a,b] [dry_run=true] [key=value ...]

Turns a recipe into jobs and runs those that are missing, on Slurm or on this machine. Several runs at once:
recipe=a,b or recipe='paper/*'; key=a,b for every value (a run of each, named after it); figure=3 or table=2 instead of
recipe= for the runs, checkpoints and benchmarks that a figure or table of the paper needs.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from reprokit.campaign.graph import Workspace
from reprokit.campaign.launching import Campaign, dry_run, launch
from reprokit.campaign.many import dry_run_all, launch_all
from reprokit.campaign.selection import Kind, Selection, notes, select
from reprokit.cluster import slurm
from reprokit.cluster.profiles import load_profile
from reprokit.errors import UserError
from reprokit.stages import FUNCTIONS, STAGES, figures_current
from reprokit.words import run as run_command
from reprokit.words import split, stages, terminal, truth


@dataclass
class Request:
    """The words of the command line."""

    selection: Selection | None = None
    cluster: str | None = None
    stages: tuple[str, ...] = tuple(STAGES)
    dry_run: bool = False


def parse(words: Sequence[str]) -> Request:
    """Split the words into our own and recipe overrides.

    Raises:
        UserError: a word without `=`, not one of recipe, figure and table, or an unknown stage; the message says what
            is valid.
    """
    request = Request()
    kinds: list[tuple[Kind, str]] = []
    overrides: list[str] = []
    for key, value in split(words, __doc__):
        if key in ("recipe", "figure", "table"):
            kinds.append((cast(Kind, key), value))
        elif key == "cluster":
            request.cluster = value
        elif key == "stages":
            request.stages = stages(value, tuple(STAGES))
        elif key == "dry_run":
            request.dry_run = truth(key, value)
        else:
            overrides.append(f"{key}={value}")
    if not kinds or not kinds[0][1]:
        raise UserError(f"no recipe given.\n\n{__doc__}")
    if len(kinds) > 1:
        given = " ".join(f"{key}={value}" for key, value in kinds)
        raise UserError(f"{given}: give one of recipe=, figure= and table=, with several values in a list (a,b)")
    request.selection = Selection(*kinds[0], tuple(overrides))
    return request


def run(request: Request) -> None:
    """Do what the words say."""
    console = terminal()
    cluster = request.cluster or ("default" if slurm.available() else "local")
    if request.cluster is None:
        found = "Slurm is here" if cluster != "local" else "there is no Slurm here"
        console.print(f"no cluster= given: {found}, so cluster={cluster}")
    profile = load_profile(cluster)
    slurm.apply_environment(profile)
    assert request.selection is not None
    campaigns = [
        Campaign(
            workspace=Workspace(Path.cwd()),
            loaded=loaded,
            command=shlex.join(request.selection.words),
            cluster=cluster,
            profile=profile,
            stages=request.stages,
            functions=FUNCTIONS,
            figures_current=figures_current,
        )
        for loaded in select(request.selection)
    ]
    for note in notes(request.selection):
        console.print(note)
    if len(campaigns) == 1:
        (dry_run if request.dry_run else launch)(campaigns[0], console)
    else:
        (dry_run_all if request.dry_run else launch_all)(campaigns, console)


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run_command(lambda: run(parse(words)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
