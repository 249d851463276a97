"""What became of the jobs of a round, and which are to be submitted next: the decision, without Slurm or disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reprokit.cluster.failures import Failure, of_slurm_state
from reprokit.cluster.job import Job
from reprokit.records.run_directory import LeftOut
from reprokit.records.starts import Start

MOST_ROUNDS = 100
MOST_FRUITLESS = 3
LOOK = "Look into the logs, and launch again."
_DONE_ONCE = ("judge", "score", "collect", "figures")  # with all that was there: the same again makes the same


@dataclass(frozen=True)
class Outcome:
    """How a job, or an element of an array, of a round ended.

    failure: None if its work was done. steps: of the checkpoints that an element evaluates. node: at fault, or None.
    """

    job: str
    stage: str
    failure: Failure | None
    steps: tuple[int, ...] = ()
    reason: str = ""
    node: str | None = None


@dataclass(frozen=True)
class Round:
    """A round that has ended.

    fruitless: rounds in a row before this one that left nothing new on disk. progressed: whether this one did.
    """

    number: int
    fruitless: int
    progressed: bool
    outcomes: Sequence[Outcome]
    left_out: Sequence[LeftOut] = ()
    excluded: Sequence[str] = ()


@dataclass(frozen=True)
class Next:
    """What to do: submit `jobs`, of which there are none when all is there, or when it says why it stops."""

    jobs: Sequence[Job] = ()
    left_out: Sequence[LeftOut] = ()
    excluded: Sequence[str] = ()
    fruitless: int = 0
    stopped: str | None = None
    advice: str = ""


def outcomes(starts: Sequence[Start], states: Mapping[str, str], stages: Mapping[str, str]) -> list[Outcome]:
    """How the jobs of a round ended.

    Args:
        starts: of this round, those of other ranks too, oldest first.
        states: final states of jobs and elements, of those that Slurm still knows.
        stages: Slurm id without elements -> stage, of the jobs of this round.
    """
    by_job: dict[str, list[Start]] = {}
    for start in starts:
        if start.job.partition("_")[0] in stages:
            by_job.setdefault(start.job, []).append(start)
    known = [job for job in states if job not in by_job and job.partition("_")[0] in stages]
    ended = [_outcome(job, stages[job.partition("_")[0]], by_job.get(job, []), states.get(job)) for job in by_job]
    return ended + [_outcome(job, stages[job.partition("_")[0]], [], states[job]) for job in known]


def _outcome(job: str, stage: str, starts: Sequence[Start], state: str | None) -> Outcome:
    """Of the last start of a job count all tasks: the first of those whose failure no other start can mend."""
    last = [start for start in starts if start.restart == max(each.restart for each in starts)]
    steps = tuple(last[0].steps) if last else ()
    said = None if state is None else of_slurm_state(state)
    if said is Failure.memory:
        return Outcome(job, stage, said, steps, f"Slurm says {state}")
    failed = [(Failure(start.failure), start) for start in last if start.failure is not None]
    failed.sort(key=lambda each: (each[0].retried, each[1].ended or 0.0))
    if failed:
        failure, start = failed[0]
        node = start.node or _lone(start.nodes) if failure is Failure.cluster else None
        return Outcome(job, stage, failure, steps, start.reason, node)
    if any(start.outcome == "done" for start in last) or state == "COMPLETED":
        return Outcome(job, stage, None, steps)
    node = _lone(last[0].nodes) if last and said is Failure.cluster else None
    reason = f"Slurm says {state}" if state else "it left no word"
    return Outcome(job, stage, said or Failure.killed, steps, reason, node)


def _lone(nodes: Sequence[str]) -> str | None:
    return nodes[0] if len(nodes) == 1 else None


def decide(ended: Round, plan: Callable[[Sequence[LeftOut]], Sequence[Job]], usable: Callable[[Job], set[str]]) -> Next:
    """What comes after a round.

    Args:
        plan: the jobs that are missing on disk without what is left out, in order.
        usable: names of the nodes on which a job may run.
    """
    hopeless = [outcome for outcome in ended.outcomes if outcome.failure and not outcome.failure.retried]
    if trained := next((outcome for outcome in hopeless if outcome.stage == "train"), None):
        assert trained.failure is not None
        said = f"the training failed ({trained.failure.value}): {trained.reason}"
        return Next(stopped=said, advice=trained.failure.advice)
    left_out = [*ended.left_out, *map(_left_out, hopeless)]
    planned = plan(left_out)
    jobs = _of_use(planned, ended.outcomes)
    if not jobs:
        return _finished(left_out, planned)
    fruitless = 0 if ended.progressed or hopeless else ended.fruitless + 1
    if fruitless >= MOST_FRUITLESS:
        return _stopped(f"{fruitless} rounds in a row left nothing new on disk", ended.outcomes, left_out)
    if ended.number >= MOST_ROUNDS:
        return _stopped(f"{ended.number} rounds did not finish it", ended.outcomes, left_out)
    excluded = _excluded([*ended.excluded, *_at_fault(ended.outcomes)], jobs, usable)
    return Next(jobs, left_out, excluded, fruitless)


def _left_out(outcome: Outcome) -> LeftOut:
    assert outcome.failure is not None
    steps = list(outcome.steps) if outcome.stage == "evaluate" else []
    return LeftOut(stage=outcome.stage, steps=steps, failure=outcome.failure.value, reason=outcome.reason)


def _of_use(jobs: Sequence[Job], ended: Iterable[Outcome]) -> list[Job]:
    """Without jobs that had their turn in this round and would find nothing else in the next."""
    done = {outcome.stage for outcome in ended if outcome.failure is None and outcome.stage in _DONE_ONCE}
    kept: list[Job] = []
    for job in jobs:
        if job.name not in done or any(each.name in job.after for each in kept):
            kept.append(job)
    return kept


def _finished(left_out: Sequence[LeftOut], planned: Sequence[Job]) -> Next:
    """Nothing is left to do; `planned` is what was done and left something missing all the same."""
    if left_out:
        said = "all that can be made is there, but for what failed"
        return Next(left_out=left_out, stopped=said, advice=_named(left_out))
    if planned:
        names = ", ".join(job.name for job in planned)
        return Next(stopped=f"{names} came to an end, and something is missing all the same", advice=LOOK)
    return Next()


def _stopped(reason: str, ended: Sequence[Outcome], left_out: Sequence[LeftOut]) -> Next:
    failed = [(outcome, outcome.failure) for outcome in ended if outcome.failure is not None]
    last = "; ".join(f"{outcome.stage} {outcome.job} ({why.value}): {outcome.reason}" for outcome, why in failed[:3])
    advice = failed[0][1].advice if failed else LOOK
    said = f"{reason}; at last {last}" if last else reason
    return Next(left_out=left_out, stopped=said, advice="\n".join(filter(None, (_named(left_out), advice))))


def _named(left_out: Sequence[LeftOut]) -> str:
    """A line for each thing that failed, and what to do."""
    lines = []
    for each in left_out:
        steps = f" of steps {', '.join(map(str, each.steps))}" if each.steps else ""
        lines.append(f"{each.stage}{steps} failed ({each.failure}): {each.reason}. {Failure(each.failure).advice}")
    return "\n".join(dict.fromkeys(lines))


def _at_fault(ended: Iterable[Outcome]) -> Iterable[str]:
    return (outcome.node for outcome in ended if outcome.failure is Failure.cluster and outcome.node)


def _excluded(nodes: Iterable[str], jobs: Sequence[Job], usable: Callable[[Job], set[str]]) -> list[str]:
    """Those of the nodes, found last before others, without which every job still has enough."""
    found = list(dict.fromkeys(nodes))
    available = {job.name: usable(job) for job in jobs} if found else {}
    while found and any(len(available[job.name] - set(found)) < job.resources.nodes for job in jobs):
        del found[0]
    return found
