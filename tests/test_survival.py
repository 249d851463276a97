"""What clusters do to jobs, on a real Slurm: each campaign ends by itself, in what the undisturbed one ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reprokit.records.starts import Start
from tests.chaos import Chaos
from tests.slurm_cluster import running_cluster
from tests.survival import ONE_NODE, Campaign, Slurm, outcome, prepare, wait_for

SEND_USER_SIGNAL = "SlurmctldParameters=preempt_send_user_signal"


@pytest.fixture(scope="module")
def cluster(slurm: dict[str, str]) -> Iterator[Slurm]:
    found = Slurm(Path(slurm["SLURM_CONF"]))
    yield found
    for node in ("n1", "n2", "n3"):
        found.bring_back(node)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    return prepare(folder, rows=400, checkpoints=[50, 100], state_every=2, items=16)


@pytest.fixture(scope="module")
def undisturbed(cluster: Slurm, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the campaign makes when it is left alone."""
    campaign = Campaign(tmp_path_factory.mktemp("undisturbed") / "c", cluster, prepared)
    campaign.launch()
    campaign.wait_until_over()
    made = outcome(campaign)
    assert len(made["checkpoints"]) > 2 and len(made["samples"]) == 3 * 16 * 3 and made["missing"] == []
    assert [(start.restart, start.outcome) for start in campaign.starts("train")] == [(0, "done")]
    return made


@pytest.fixture(scope="module")
def disturbed(cluster: Slurm, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """One campaign after everything that befell it, first its training on two nodes, then its evaluation."""
    campaign = Campaign(tmp_path_factory.mktemp("disturbed") / "c", cluster, prepared)
    campaign.launch()
    with campaign.stopped_in("train", steps_of_start(campaign, 0)) as job:
        cluster.preempt(job.nodes)
    with cluster.configured(SEND_USER_SIGNAL), campaign.stopped_in("train", steps_of_start(campaign, 1)) as job:
        cluster.preempt(job.nodes)
    with campaign.stopped_in("train", steps_of_start(campaign, 2)):
        cluster.tell("scontrol", "requeue", job.id)
    with campaign.stopped_in("train", steps_of_start(campaign, 3)) as job:
        campaign.take_down(job.nodes[1])
        wait_for("end of the training", lambda: not campaign.running("train"))
    cluster.bring_back(job.nodes[1])
    with campaign.stopped_in("train", steps_of_start(campaign, 4)):
        cluster.restart_controller()
    wait_for("an element to cancel", lambda: bool(of_step(campaign, 100)))
    cluster.tell("scancel", of_step(campaign, 100)[0].job)
    with campaign.stopped_in("evaluate", lambda: campaign.drawn(0) >= 3) as element:
        cluster.preempt(element.nodes)
    campaign.wait_until_over()
    return campaign


def steps_of_start(campaign: Campaign, restart: int) -> Callable[[], bool]:
    """Whether that start of the training has taken three steps."""

    def has_come() -> bool:
        starts = [start for start in campaign.starts("train") if start.restart == restart]
        return bool(starts) and campaign.trained() >= starts[0].done + 3

    return has_come


def of_step(campaign: Campaign, step: int) -> list[Start]:
    """The starts of elements that evaluate a checkpoint."""
    return [start for start in campaign.starts("evaluate") if step in start.steps]


def test_the_disturbed_campaign_is_the_undisturbed_one(disturbed: Campaign, undisturbed: dict[str, Any]) -> None:
    assert outcome(disturbed) == undisturbed


def test_a_training_comes_back_each_time(disturbed: Campaign) -> None:
    """One job on two nodes: preempted in both ways, queued again, off a node that went down, under a new controller."""
    starts = disturbed.starts("train")
    assert len({start.job for start in starts}) == 1 and [start.restart for start in starts] == [0, 1, 2, 3, 4]
    assert [(start.outcome, start.reason) for start in starts[:2]] == [("left", "SIGTERM"), ("left", "SIGUSR2")]
    assert [start.outcome for start in starts[2:4]] != ["done", "done"] and starts[4].outcome == "done"
    done = [start.done for start in starts]
    assert done == sorted(done) and done[1] >= 3 and done[2] >= done[1] + 3, "what it had was saved when it left"
    log = disturbed.log(starts[0])
    assert "told to leave by SIGTERM" in log and log.count("standard arithmetic") == 5, "the first log survives"


def test_a_preempted_element_comes_back_and_a_cancelled_one_is_filled_in(disturbed: Campaign) -> None:
    preempted = of_step(disturbed, 0)
    assert [(start.restart, start.outcome) for start in preempted] == [(0, "left"), (1, "done")]
    assert preempted[0].reason == "SIGTERM" and len({start.job for start in preempted}) == 1
    cancelled = of_step(disturbed, 100)
    assert len({start.job for start in cancelled}) == 2, (
        "a cancelled element does not come back, a new one does its work"
    )
    assert cancelled[0].outcome != "done" and cancelled[-1].outcome == "done"
    assert disturbed.submitted().round == 2
    assert [start.outcome for start in disturbed.starts("score")] == ["done", "done"], "the others are scored at once"


@pytest.fixture(scope="module")
def limited_and_cancelled(
    cluster: Slurm, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Campaign, Campaign]:
    """A training that meets its time limit; meanwhile a campaign where preempted jobs may not be queued again.

    They have nodes of their own.
    """
    folder = tmp_path_factory.mktemp("limited")
    limited = Campaign(folder / "l", cluster, prepared, "exclude: n1,n2\n", train=ONE_NODE, hours=1 / 60)
    own = "exclude: n3\nsbatch: {no-requeue: true}\n"
    cancelled = Campaign(folder / "c", cluster, prepared, own, partition="cancelled")
    limited.launch()
    with limited.stopped_in("train", lambda: limited.trained() >= 3):
        cancelled.launch()
        with cluster.configured(SEND_USER_SIGNAL):
            with cancelled.stopped_in("train", lambda: cancelled.trained() >= 3) as job:
                cluster.preempt(job.nodes)
            with cancelled.stopped_in("evaluate", lambda: cancelled.drawn(0) >= 3) as element:
                cluster.preempt(element.nodes)
        wait_for("time limit", lambda: any(start.outcome for start in limited.starts("train")))
    limited.wait_until_over()
    cancelled.wait_until_over()
    return limited, cancelled


def test_a_time_limit_is_survived(
    limited_and_cancelled: tuple[Campaign, Campaign], undisturbed: dict[str, Any]
) -> None:
    limited, _ = limited_and_cancelled
    starts = limited.starts("train")
    assert len(starts) > 1 and starts[-1].outcome == "done"
    assert all(start.outcome == "left" and start.reason.startswith("SIGUSR2") for start in starts[:-1])
    assert outcome(limited) == undisturbed


def test_preemption_that_cancels_is_survived(
    limited_and_cancelled: tuple[Campaign, Campaign], undisturbed: dict[str, Any]
) -> None:
    """Slurm does not take the jobs back: new ones, submitted by the last job of the round, go on."""
    _, cancelled = limited_and_cancelled
    starts = cancelled.starts("train")
    assert starts[0].outcome == "left" and starts[0].reason.startswith("SIGUSR2; not requeued: ")
    assert starts[-1].outcome == "done" and starts[1].job != starts[0].job and starts[1].done >= 3
    preempted = of_step(cancelled, 0)
    assert preempted[0].outcome == "left" and preempted[-1].outcome == "done" and preempted[-1].done > 0
    assert preempted[0].job != preempted[-1].job and cancelled.submitted().round >= 3
    assert outcome(cancelled) == undisturbed


def test_chaos(
    prepared: Path, undisturbed: dict[str, Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Random misfortune on a cluster without accounting, until the campaign is through."""
    with running_cluster(tmp_path_factory.mktemp("chaos")) as variables:
        campaign = Campaign(tmp_path / "c", Slurm(Path(variables["SLURM_CONF"])), prepared)
        chaos = Chaos(campaign, seed=7, most=20)
        chaos.run()
    print(chaos.summary())
    assert len(chaos.events) >= 20 and len({event.kind for event in chaos.events}) >= 5
    assert outcome(campaign) == undisturbed
