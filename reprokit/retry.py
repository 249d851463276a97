"""python -m reprokit.retry run=NAME [job=NAME | cell=STEP/BENCHMARK]

Launches again what is missing of a run, as it was launched last: same recipe, cluster and stages. With job= or cell=
only that job, or what is missing for that cell.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from reprokit.campaign.cells import lost_cells
from reprokit.campaign.graph import Workspace
from reprokit.campaign.launching import Campaign, launch
from reprokit.campaign.status import Looking, RunStatus, find_run
from reprokit.campaign.status_cells import cell_named
from reprokit.cluster import slurm
from reprokit.cluster.profile import ClusterProfile
from reprokit.cluster.profiles import load_profile
from reprokit.errors import UserError
from reprokit.recipe import load
from reprokit.recipe.schema import Recipe
from reprokit.records.files import read_json
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory, SubmittedJobs
from reprokit.stages import FUNCTIONS, STAGES, figures_current
from reprokit.words import options, run, stages, terminal

DEFAULTS = {"run": "", "job": "", "cell": ""}


def act(words: Sequence[str]) -> None:
    """Do what the words say.

    Raises:
        UserError: a word that is not understood, no such run, job or cell, or as `launch`.
    """
    given = options(words, DEFAULTS, __doc__, f"\n\n{__doc__}")
    if not given["run"] or (given["job"] and given["cell"]):
        raise UserError(f"give run=, and one of job= and cell= or none.\n\n{__doc__}")
    workspace = Workspace(Path.cwd())
    folder = find_run(workspace, given["run"])
    loaded = load(str(folder.recipe))
    only = _only(given, loaded.recipe)
    (status,) = Looking(workspace).at([given["run"]])
    console = terminal()
    if isinstance(only, Cell) and (reason := _needless(only, status, lost_cells(folder, loaded.recipe))):
        console.print(reason, highlight=False)
        return
    cluster, profile, last_stages = _last_launch(folder, status)
    slurm.apply_environment(profile)
    console.print(f"cluster={cluster} stages={','.join(last_stages)}, as it was launched last", highlight=False)
    campaign = Campaign(
        workspace=workspace,
        loaded=loaded,
        command=f"recipe={shlex.quote(str(folder.recipe.relative_to(workspace.root)))}",
        cluster=cluster,
        profile=profile,
        stages=last_stages,
        functions=FUNCTIONS,
        figures_current=figures_current,
        only=only,
    )
    launch(campaign, console)


def _only(given: dict[str, str], recipe: Recipe) -> Cell | str | None:
    if given["cell"]:
        return cell_named(recipe, given["cell"])
    return stages(given["job"], tuple(STAGES))[0] if given["job"] else None


def _needless(cell: Cell, status: RunStatus, lost: Sequence[Cell]) -> str | None:
    """Why there is nothing to do for a cell, if so.

    Raises:
        UserError: it is one of the `lost`, whose checkpoint is not there.
    """
    found = next(each for each in status.cells if (each.step, each.benchmark) == (cell.step, cell.benchmark))
    where = f"step {cell.step} on {cell.benchmark}"
    if found.state == "done":
        return f"{where} is there already; nothing was run"
    if found.state in ("drawing", "waiting"):
        return f"{where} is at work: {found.state}, {found.samples} samples so far; nothing was run"
    if cell in lost:
        raise UserError(f"there is no complete checkpoint of step {cell.step}; give run={status.run} without cell=")
    return None


def _last_launch(folder: RunDirectory, status: RunStatus) -> tuple[str, ClusterProfile, tuple[str, ...]]:
    """Name and profile of the cluster of the last launch, and its stages.

    The profile as it is now: a retry may be given more memory or hours. As it was then where it is gone.
    """
    if not folder.jobs.exists() or status.cluster == "local":
        return "local", load_profile("local"), tuple(STAGES)
    last = read_json(folder.jobs, SubmittedJobs)
    try:
        profile = load_profile(last.cluster)
    except UserError:
        if not folder.cluster.exists():
            raise
        profile = load_profile(str(folder.cluster))
    return last.cluster, profile, tuple(last.stages) or tuple(STAGES)


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: act(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
