"""What is submitted again after a round, what is not, and when it ends."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reprokit.campaign import backfill as backfills
from reprokit.campaign import launching, submission
from reprokit.campaign.graph import Workspace
from reprokit.campaign.rounds import MOST_ROUNDS, Next, Outcome, Round, decide, outcomes
from reprokit.campaign.run_folder import write_recipe
from reprokit.cluster.failures import Failure
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources
from reprokit.cluster.profiles import save_profile
from reprokit.cluster.queue import QueuedJob
from reprokit.errors import UserError
from reprokit.recipe import load
from reprokit.records.files import read_json, write_json
from reprokit.records.run_directory import LeftOut, RunDirectory, Stopped, SubmittedJobs
from reprokit.records.starts import Start, start_path, write_start
from reprokit.stages import FUNCTIONS
from tests.test_launch import launch, prepared

NODES = {"n1", "n2", "n3"}


def job(name: str, after: tuple[str, ...] = (), nodes: int = 1) -> Job:
    return Job("run", name, print, ((),), Resources(nodes=nodes), after)


EVALUATION = [job("evaluate"), job("score", ("evaluate",)), job("collect", ("evaluate", "score"))]
TRAINING = [job("train", nodes=2), *EVALUATION]


def after(
    *ended: Outcome, jobs: Sequence[Job] = EVALUATION, usable: set[str] = NODES, progressed: bool = False, **given: Any
) -> Next:
    """What is decided after the first round, in which these jobs ended so and left these missing."""
    planned = given.pop("plan", lambda left_out: jobs)
    found = Round(
        number=given.pop("number", 1),
        fruitless=given.pop("fruitless", 0),
        progressed=progressed,
        outcomes=ended,
        **given,
    )
    return decide(found, planned, lambda job: usable)


def element(failure: Failure | None, step: int = 20, node: str | None = None) -> Outcome:
    return Outcome("12_3", "evaluate", failure, (step,), "what it said", node)


def test_nothing_is_submitted_when_all_is_there() -> None:
    assert after(element(None), jobs=[]) == Next()


@pytest.mark.parametrize("failure", [failure for failure in Failure if failure.retried])
def test_what_the_cluster_did_is_tried_again(failure: Failure) -> None:
    coming = after(element(failure), progressed=True)
    assert [each.name for each in coming.jobs] == ["evaluate", "score", "collect"]
    assert coming.left_out == [] and coming.stopped is None and coming.fruitless == 0


@pytest.mark.parametrize("failure", [failure for failure in Failure if not failure.retried])
def test_an_element_that_no_start_can_mend_is_left_out_and_the_others_go_on(failure: Failure) -> None:
    asked: list[list[int]] = []

    def plan(left_out: Sequence[LeftOut]) -> list[Job]:
        asked.append([step for each in left_out for step in each.steps])
        return EVALUATION

    earlier = LeftOut(stage="evaluate", steps=[10], failure="user", reason="earlier")
    coming = after(element(failure), element(Failure.time, 30), plan=plan, left_out=[earlier], fruitless=2)
    assert asked == [[10, 20]]
    assert coming.jobs and [each.steps for each in coming.left_out] == [[10], [20]]
    assert coming.stopped is None


def test_when_only_what_failed_is_missing_it_ends_and_says_what_to_do() -> None:
    coming = after(element(Failure.memory), jobs=[])
    assert not coming.jobs and coming.stopped is not None
    assert "evaluate of steps 20 failed (memory): what it said. It does not fit the memory." in coming.advice


def test_a_training_that_no_start_can_mend_stops_everything() -> None:
    failed = Outcome("11", "train", Failure.disk, (), "No space left on device")
    coming = after(failed, element(Failure.cancelled), jobs=TRAINING)
    assert not coming.jobs and "the training failed (disk): No space left" in (coming.stopped or "")
    assert "Make room" in coming.advice
    assert after(Outcome("11", "train", Failure.time), jobs=TRAINING).jobs == TRAINING


def test_three_rounds_in_a_row_without_anything_new_are_the_end() -> None:
    again = after(element(Failure.time), fruitless=1)
    assert again.jobs and again.fruitless == 2
    stopped = after(element(Failure.time), fruitless=2)
    assert not stopped.jobs and "3 rounds in a row" in (stopped.stopped or "") and "hours" in stopped.advice
    assert after(element(Failure.time), fruitless=2, progressed=True).fruitless == 0


def test_the_number_of_rounds_is_bounded() -> None:
    assert after(element(Failure.time), progressed=True, number=MOST_ROUNDS - 1).jobs
    assert "100 rounds" in (after(element(Failure.time), progressed=True, number=MOST_ROUNDS).stopped or "")


def test_a_node_at_fault_is_excluded_as_long_as_enough_others_are_there() -> None:
    faulty = element(Failure.cluster, node="n2")
    assert after(faulty, jobs=TRAINING).excluded == ["n2"]
    assert after(faulty, jobs=TRAINING, excluded=["n1"]).excluded == ["n2"]  # two nodes must be left: n1 is back
    assert after(faulty, jobs=EVALUATION, excluded=["n1"]).excluded == ["n1", "n2"]
    assert after(faulty, jobs=TRAINING, usable={"n1", "n2"}).excluded == []
    assert after(faulty, jobs=TRAINING, usable=set()).excluded == []  # Slurm does not say
    assert after(element(Failure.time, node="n2"), jobs=TRAINING).excluded == []


def test_what_was_done_and_is_missing_all_the_same_is_not_done_for_ever() -> None:
    done = [Outcome(str(number), stage, None) for number, stage in enumerate(("score", "collect"))]
    coming = after(*done, jobs=EVALUATION[1:])
    assert not coming.jobs and "score, collect came to an end" in (coming.stopped or "")
    assert after(*done, jobs=EVALUATION).jobs == EVALUATION  # there is something new to score


def start(job_id: str = "12_3", restart: int = 0, **given: Any) -> Start:
    values: dict[str, Any] = {"stage": "evaluate", "nodes": ["n1"], "steps": [20], "started": 1.0}
    return Start(job=job_id, restart=restart, **{**values, **given})


def failed(failure: str, ended: float = 2.0, **given: Any) -> Start:
    return start(outcome="failed", failure=failure, ended=ended, **given)


@pytest.mark.parametrize(
    ("starts", "states", "expected"),
    [
        ([start(outcome="done")], {}, None),
        ([start()], {"12_3": "COMPLETED"}, None),
        ([start()], {"12_3": "TIMEOUT"}, Failure.time),
        ([start()], {}, Failure.killed),
        ([start()], {"12_3": "FAILED"}, Failure.killed),
        ([], {"12_3": "CANCELLED"}, Failure.cancelled),
        ([], {"12_3": "FAILED"}, Failure.killed),
        ([failed("user")], {"12_3": "FAILED"}, Failure.user),
        ([failed("cluster")], {"12_3": "OUT_OF_MEMORY"}, Failure.memory),
        # Another rank ran out of memory, and this one noticed that it was gone.
        ([failed("cluster", ended=2.0), failed("memory", ended=3.0)], {}, Failure.memory),
        ([failed("user"), start(restart=1)], {"12_3": "NODE_FAIL"}, Failure.cluster),
        ([start(outcome="left", failure="left"), start(restart=1, outcome="done")], {}, None),
    ],
)
def test_how_a_job_ended_is_told_by_what_it_wrote_and_by_slurm(
    starts: list[Start], states: Mapping[str, str], expected: Failure | None
) -> None:
    (found,) = outcomes(starts, states, {"12": "evaluate"})
    assert (found.job, found.stage, found.failure) == ("12_3", "evaluate", expected)


def test_the_node_at_fault_is_the_one_that_is_named_or_the_only_one() -> None:
    def node(*starts: Start) -> str | None:
        return outcomes(starts, {}, {"12": "evaluate"})[0].node

    both = ["n1", "n2"]
    assert node(failed("cluster", node="n2", nodes=both)) == "n2"
    assert node(failed("cluster")) == "n1"
    assert node(failed("cluster", nodes=both)) is None
    assert node(failed("program")) is None


def test_jobs_of_other_rounds_and_the_back_fill_itself_do_not_count() -> None:
    assert outcomes([start("13"), start("99_1")], {"99_2": "FAILED"}, {"12": "evaluate"}) == []


class Cluster:
    """A stand-in for Slurm: what is queued, and what was submitted to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued: list[QueuedJob] = []
        self.submitted: list[dict[str, Any]] = []
        self.refuses: list[str] = []
        self.numbers = itertools.count(100)
        monkeypatch.setattr(submission, "queued", lambda configuration: self.queued)
        monkeypatch.setattr(backfills, "queued", lambda configuration: self.queued)
        monkeypatch.setattr(backfills, "ended", lambda jobs, configuration: {})
        monkeypatch.setattr(backfills, "POLL_SECONDS", 0.0)
        monkeypatch.setattr(submission.slurm, "submit", self.submit)
        monkeypatch.setattr(submission.slurm, "usable_nodes", lambda partition: NODES)
        monkeypatch.setenv("SLURM_JOB_ID", "9")

    def submit(
        self,
        jobs: Sequence[Job],
        profile: ClusterProfile,
        logs: Path,
        remember: Callable[[dict[str, str]], None],
        environment: Mapping[str, str],
        earlier: Mapping[str, str],
    ) -> dict[str, str]:
        if self.refuses:
            raise UserError(self.refuses.pop(0))
        ids = {each.name: str(next(self.numbers)) for each in jobs}
        self.submitted.append({"jobs": list(jobs), "exclude": profile.exclude, "logs": logs, "earlier": dict(earlier)})
        remember(ids)
        return ids


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def a_round(folder: Path, **given: Any) -> RunDirectory:
    """A run whose jobs of the first round have ended: nothing but the inputs is there."""
    run = prepared(folder)
    write_recipe(run, load("mini"))
    save_profile(ClusterProfile(exclude="n7"), run.cluster)
    ids = {"train": "5", "evaluate": "6", "backfill": "9"}
    jobs = SubmittedJobs(cluster="mine", ids=ids, launch="first", stages=["train", "evaluate"], command="recipe=mini")
    write_json(run.jobs, jobs)
    for name, value in given.items():
        write_start(start_path(run.logs / "first" / name, value.job, value.restart), value)
    return run


def fill(run: RunDirectory, folder: Path) -> None:
    backfills.backfill(run, Workspace(folder), FUNCTIONS, lambda results, figures: True)


def test_a_back_fill_submits_what_is_missing_and_itself(tmp_path: Path, cluster: Cluster) -> None:
    broken = start("5", stage="train", outcome="failed", failure="cluster", node="n2", steps=[], reason="NCCL")
    run = a_round(tmp_path, train=broken)
    fill(run, tmp_path)
    (given,) = cluster.submitted
    assert [each.name for each in given["jobs"]] == ["train", "evaluate", "backfill"]
    assert given["jobs"][-1].after == ("train", "evaluate") and not given["jobs"][-1].needs_success
    assert given["exclude"] == "n7,n2"
    kept = read_json(run.jobs, SubmittedJobs)
    assert (kept.round, kept.fruitless, kept.excluded, kept.released) == (2, 1, ["n2"], True)
    assert kept.ids == {"train": "100", "evaluate": "101", "backfill": "102"}
    assert kept.launch == given["logs"].name != "first" and not run.stopped.exists()
    fill(run, tmp_path)  # this job again, after it was requeued
    assert len(cluster.submitted) == 1


def test_a_back_fill_that_stops_leaves_word_and_a_launch_takes_it_away(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_round(tmp_path, train=start("5", stage="train", outcome="failed", failure="memory", reason="CUDA OOM"))
    fill(run, tmp_path)
    said = read_json(run.stopped, Stopped)
    assert "the training failed (memory): CUDA OOM" in said.reason and "micro_batch_tokens" in said.advice
    assert "reprokit.launch recipe=mini cluster=mine" in said.advice and said.when <= time.time()
    assert cluster.submitted == [] and said.reason in capsys.readouterr().out
    run.jobs.unlink()
    done = launch(tmp_path, "recipe=mini", "cluster=local", "stages=collect")
    assert "had stopped after round 1" in done.stdout and "CUDA OOM" in done.stdout, done.stdout + done.stderr
    assert not run.stopped.exists()


def test_jobs_that_are_back_in_the_queue_are_waited_for(tmp_path: Path, cluster: Cluster) -> None:
    run = a_round(tmp_path)
    script = str(run.logs / "first" / "train" / "5_submission.sh")

    def queued(job_id: str, name: str, state: str) -> QueuedJob:
        return QueuedJob(job_id, name, state, "None", [], 0, None, script, "")

    cluster.queued = [queued("5", "train.mini", "RUNNING"), queued("9", "backfill.mini", "RUNNING")]
    cluster.queued.append(queued("6_1", "evaluate.mini", "COMPLETING"))
    fill(run, tmp_path)
    (given,) = cluster.submitted
    assert [(each.name, each.after) for each in given["jobs"]] == [("backfill", ("train",))]
    assert given["earlier"] == {"train": "5"}
    kept = read_json(run.jobs, SubmittedJobs)
    assert kept.ids == {"train": "5", "evaluate": "6", "backfill": "100"} and (kept.round, kept.launch) == (1, "first")


def test_a_launch_meanwhile_says_what_waits_for_the_end_of_the_round(tmp_path: Path, cluster: Cluster) -> None:
    run = a_round(tmp_path, evaluate=failed("memory", job_id="6_0", steps=[10], reason="CUDA out of memory"))
    script = str(run.logs / "first" / "evaluate" / "6_submission.sh")
    cluster.queued = [QueuedJob("6_[1-8]", "evaluate.mini", "PENDING", "Resources", [], 0, None, script, "")]
    console = Console(record=True, width=200)
    running = submission.active_jobs(run, ClusterProfile())
    launching.report.print_running(run, running, launching._failed_meanwhile(run, running), console)
    said = console.export_text()
    assert "already at work; nothing was submitted" in said and "evaluate 6_[1-8]: PENDING (Resources)" in said
    assert "evaluate 6_0 of steps 10 failed (memory: CUDA out of memory); the back-fill sees to it" in said
    assert "held" not in said
    launching.report.print_running(run, [replace(running[0], reason="JobHeldUser")], [], console)
    assert "`scontrol release 6` lets them go" in console.export_text()
    cluster.queued[0] = replace(cluster.queued[0], id="6_[0-8]")  # the element is back in the queue
    assert launching._failed_meanwhile(run, cluster.queued) == []


def test_a_slurm_that_does_not_answer_is_asked_again_and_one_that_refuses_is_named(
    tmp_path: Path, cluster: Cluster
) -> None:
    run = a_round(tmp_path)
    cluster.refuses = ["sbatch: error: Unable to contact slurm controller"] * 2
    fill(run, tmp_path)
    assert len(cluster.submitted) == 1
    run = a_round(tmp_path)
    cluster.refuses = ["sbatch: error: Access/permission denied"]
    with pytest.raises(UserError, match="does not let jobs submit jobs"):
        fill(run, tmp_path)
    assert "Access/permission denied" in read_json(run.stopped, Stopped).reason


def test_a_back_fill_that_is_cancelled_while_it_submits_lets_nothing_begin(tmp_path: Path, cluster: Cluster) -> None:
    run = a_round(tmp_path)
    before = read_json(run.jobs, SubmittedJobs)
    script = str(run.logs / "first" / "backfill" / "9_submission.sh")
    cluster.queued = [QueuedJob("9", "backfill.mini", "COMPLETING", "None", ["n1"], 3, None, script, "")]
    with pytest.raises(UserError, match="told to end"):
        fill(run, tmp_path)
    assert len(cluster.submitted) == 1 and read_json(run.jobs, SubmittedJobs) == before
    assert "told to end" in read_json(run.stopped, Stopped).reason


def test_nodes_are_not_excluded_where_slurm_has_too_few_others_for_a_job(tmp_path: Path, cluster: Cluster) -> None:
    broken = start("5", stage="train", outcome="failed", failure="cluster", node="n2", steps=[], reason="NCCL")
    run = a_round(tmp_path, train=broken)
    cluster.refuses = ["sbatch: error: Batch job submission failed: Requested node configuration is not available"]
    fill(run, tmp_path)
    (given,) = cluster.submitted
    assert given["exclude"] == "n7" and read_json(run.jobs, SubmittedJobs).excluded == []


def test_a_back_fill_that_does_not_get_its_turn_leaves_word(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_round(tmp_path)
    monkeypatch.setattr(backfills, "PATIENCE_SECONDS", 0.0)
    with submission.locked(run), pytest.raises(UserError):
        fill(run, tmp_path)
    assert "being launched by another process" in read_json(run.stopped, Stopped).reason


def test_a_back_fill_that_was_killed_before_it_let_the_jobs_go_does_so_when_it_is_back(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_round(tmp_path)
    released: list[str] = []
    monkeypatch.setattr(submission, "release", lambda ids, configuration: released.extend(ids))
    given = SubmittedJobs(cluster="mine", ids={"train": "20", "backfill": "21"}, launch="second", released=False)
    write_json(run.jobs, given)
    script = str(run.logs / "second" / "train" / "20_submission.sh")
    cluster.queued = [QueuedJob("20", "train.mini", "PENDING", "JobHeldUser", [], 0, None, script, "")]
    fill(run, tmp_path)
    assert released == ["20"] and cluster.submitted == [] and read_json(run.jobs, SubmittedJobs).released


def test_what_grows_counts_as_progress(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    marks = [backfills.campaign_mark(run)]
    (run.sample_logs(10)).mkdir(parents=True)
    (run.sample_logs(10) / "1.jsonl").write_text("{}\n")
    marks.append(backfills.campaign_mark(run))
    run.cell(10, "countdown").mkdir(parents=True)
    run.generation(10, "countdown").write_text("{}")
    marks.append(backfills.campaign_mark(run))
    write_json(run.training_complete, {"steps": 640})
    marks.append(backfills.campaign_mark(run))
    assert marks == sorted(set(marks)) and marks[-1] < 2**63
