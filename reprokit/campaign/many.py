"""Several runs by one command: all are checked before the first is launched, and one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from reprokit.campaign.cost import total
from reprokit.campaign.disk import check_disk
from reprokit.campaign.launching import Campaign, checked_jobs, launch, make_ready
from reprokit.campaign.report_selection import Planned, print_selection
from reprokit.cluster.profile import Scheduler
from reprokit.errors import UserError


def dry_run_all(campaigns: Sequence[Campaign], console: Console) -> None:
    """Print what every run lacks and what that costs, and the sums; writes and submits nothing.

    Raises:
        UserError: what is wrong with any of the runs, all of it.
    """
    _print(_started(campaigns, console), console)
    console.print("dry run: nothing was written or submitted; a single recipe shows its jobs and batch scripts")


def launch_all(campaigns: Sequence[Campaign], console: Console) -> None:
    """Launch every run that lacks something, one after the other.

    Raises:
        UserError: what is wrong with any of the runs, before anything is launched; or, at the end, what became of
            those that could not be launched or failed.
    """
    make_ready(campaigns[0])
    campaigns = _started(campaigns, console)
    planned = _print(campaigns, console)
    check_disk(total(run.cost for run in planned).disk, campaigns[0].run.root.parent, f"{len(campaigns)} runs")

    def start(campaign: Campaign) -> None:
        console.rule(campaign.loaded.recipe.name)
        launch(campaign, console)

    _each(campaigns, start)


def _started(campaigns: Sequence[Campaign], console: Console) -> Sequence[Campaign]:
    """Those that `stages` can do something for: without a stage that begins a run, the runs that were begun."""
    if {"prepare", "train", "evaluate"} & set(campaigns[0].stages):
        return campaigns
    begun = [campaign for campaign in campaigns if campaign.run.recipe.exists()]
    if begun and len(begun) < len(campaigns):
        console.print(f"{len(campaigns) - len(begun)} of {len(campaigns)} runs were never started and are left out")
    return begun or campaigns


def _print(campaigns: Sequence[Campaign], console: Console) -> list[Planned]:
    planned: list[Planned] = []

    def plan(campaign: Campaign) -> None:
        planned.append(Planned(campaign.loaded.recipe, checked_jobs(campaign), campaign.cost()))

    _each(campaigns, plan)
    beside = campaigns[0].profile.scheduler is Scheduler.slurm
    print_selection(campaigns[0].cluster, planned, beside, console)
    return planned


def _each(campaigns: Sequence[Campaign], action: Callable[[Campaign], None]) -> None:
    """Do it for all; what was wrong is raised together at the end."""
    wrong: list[str] = []
    for campaign in campaigns:
        try:
            action(campaign)
        except UserError as error:
            said = str(error) if not wrong else str(error).partition("\n")[0]  # advice comes once
            wrong.append(f"{campaign.loaded.recipe.name}: {said}")
    if wrong:
        raise UserError(f"{len(wrong)} of {len(campaigns)} runs:\n" + "\n".join(wrong))
