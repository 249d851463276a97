"""One generating worker: an engine that claims requests to some checkpoints and logs the responses as they finish."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reprokit.errors import UserError, together
from reprokit.evaluation import gathering
from reprokit.evaluation.engine import Engine, no_room
from reprokit.evaluation.gathering import Meter, ended_path, log_path, meter_path, write_meter
from reprokit.evaluation.parallel import Followers
from reprokit.evaluation.requests import Key, Plan, Problem, Prompts, Requests, Task, agree, expected_tokens
from reprokit.evaluation.share import Share
from reprokit.evaluation.sharing import Claims, window
from reprokit.leaving import Leaving
from reprokit.recipe.sampling import sampling, settings
from reprokit.recipe.schema import Recipe, Source
from reprokit.records import manifest
from reprokit.records.files import read_json
from reprokit.records.progress import ProgressBar
from reprokit.records.result import Cell, Sample
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import (
    Drawn,
    SampleLog,
    is_generated,
    items_digest,
    read_items,
    read_log,
    read_logs,
    sampled_steps,
)

POLL_SECONDS = 0.5
METER_SECONDS = 5.0
PATIENCE_SECONDS = 2 * 3600  # without a sign of any worker


def generate(
    run: RunDirectory,
    recipe: Recipe,
    cells: Sequence[Cell],
    share: Share,
    progress: Path,
    job: str,
    longest_sequence: int | None = None,
    followers: Followers | None = None,
    leaving: Leaving | None = None,
) -> None:
    """Draw this worker's part of the samples of `cells`; worker 0 then gathers those of all workers.

    All benchmarks of a checkpoint are drawn together, and a worker goes on to the next checkpoint when nothing of this
    one is left to claim: engines stay full until the last long responses. What earlier starts have logged or gathered
    for the same requests is not drawn again.

    Args:
        cells: those that are generated already are passed over.
        job: names this start of the workers; no other start of this run may have had the name.
        longest_sequence, followers: see `Engine`.
        leaving: asked at every step of the engine; what is in flight is given up then, what has finished is logged.

    Raises:
        Interrupted: this process was told to leave.
        NodeError: samples are missing though every worker has ended.
        UserError: a checkpoint is damaged, no prompt of a benchmark leaves room for a response.
    """
    evaluation = recipe.evaluation
    engine = Engine(
        run.tokenizer,
        _dtype(run, recipe),
        evaluation.max_model_length,
        longest_sequence,
        followers,
        evaluation.requests_at_a_time,
    )
    worker = _Worker(run, recipe, share, job, engine, leaving)
    drawn: dict[int, Requests] = {}
    problems: dict[str, list[Problem]] = {}
    for step in sorted({cell.step for cell in cells}):
        tasks = _missing_tasks(run, recipe, [cell for cell in cells if cell.step == step], problems)
        if tasks:
            drawn[step] = worker.draw(step, tasks, progress if share.rank == 0 else None)
    if share.rank == 0:
        worker.gather(drawn)


def _dtype(run: RunDirectory, recipe: Recipe) -> str:
    """Number format of the weights in the engine: that of the training, or of a model that is evaluated as it is."""
    if recipe.source is Source.training:
        return recipe.training.precision.dtype
    config = read_json(run.weights(0) / "config.json", dict[str, Any])
    return str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")


def _missing_tasks(
    run: RunDirectory, recipe: Recipe, cells: Sequence[Cell], problems: dict[str, list[Problem]]
) -> list[Task]:
    """`problems` has those of the benchmarks that were read before: files of them can be large."""
    tasks = []
    for cell in cells:
        if items_digest(run, cell.benchmark) is None:
            raise UserError(f"the problems of {cell.benchmark} are not prepared: launch with the stage prepare")
        if is_generated(run, cell, settings(recipe.evaluation, cell.benchmark)):
            continue
        if cell.benchmark not in problems:
            problems[cell.benchmark] = read_items(run, cell.benchmark, Problem)
        tasks.append(Task(cell.benchmark, problems[cell.benchmark], sampling(recipe.evaluation, cell.benchmark)))
    return tasks


class _Worker:
    """One worker with its engine, which starts when there is something to draw."""

    def __init__(
        self,
        run: RunDirectory,
        recipe: Recipe,
        share: Share,
        job: str,
        engine: Engine,
        leaving: Leaving | None = None,
    ) -> None:
        self.run, self.recipe, self.share, self.job, self.engine = run, recipe, share, job, engine
        self.leaving = leaving or Leaving()
        self.prompts = Prompts(run.tokenizer)

    def draw(self, step: int, tasks: Sequence[Task], progress: Path | None) -> Requests:
        """Claim and draw requests to one checkpoint until none is left; returns all requests to it."""
        weights = self.run.weights(step)
        requests = Requests(tasks, self.prompts, self.engine.context(weights))
        plan = self._plan(step, requests)
        claims = Claims(self.run.sample_logs(step) / self.job / "claims", plan.chunks)
        chunk = claims.next()
        if chunk is not None:
            if chunk == plan.chunks[0]:  # one worker is enough: when it fails, the others are stopped
                manifest.verify(self.run.checkpoint(step))
            self.engine.load(weights)
            self._draw(step, plan, requests, chunk, claims, progress)
        ended_path(self.run, step, self.job, self.share.rank).touch()
        return requests

    def _plan(self, step: int, requests: Requests) -> Plan:
        path = self.run.sample_logs(step) / self.job / "plan.json"
        if path.exists():
            return read_json(path, Plan)
        done = _drawn(self.run, step, requests)
        missing = [key for task in requests.tasks.values() for key in task.keys() if key not in done]
        limits = {name: min(task.sampling.max_tokens, requests.context) for name, task in requests.tasks.items()}
        expected = expected_tokens(missing, _other_responses(self.run, step, list(limits)), limits)
        return agree(path, missing, expected, self.share.world_size)

    def _draw(
        self, step: int, plan: Plan, requests: Requests, chunk: list[int], claims: Claims, progress: Path | None
    ) -> None:
        """Feed the engine, so that it is never short of requests while some are left to claim."""
        held = window(len(plan.requests), self.share.world_size, self.engine.slots)
        with self.leaving.polled(), _Log(self, step, len(plan.requests), progress) as log:

            def hand_over(claimed: list[int]) -> None:
                for request in (requests.of(plan.requests[index]) for index in claimed):
                    if request.room > 0:
                        self.engine.add(request)
                    else:
                        log.append(no_room(request))

            hand_over(chunk)
            some_left = True
            while some_left or self.engine.in_flight:
                while some_left and self.engine.in_flight < held:
                    claimed = claims.next()
                    some_left = claimed is not None
                    hand_over(claimed or [])
                for sample in self.engine.step():
                    log.append(sample)
                self.leaving.obey()

    def gather(self, drawn: dict[int, Requests]) -> None:
        """Wait for the other workers, and gather the samples of every checkpoint as soon as all have ended with it."""
        evaluation = self.recipe.evaluation
        wanted = {name: settings(evaluation, name) for name in evaluation.benchmarks}
        problems: dict[str, UserError] = {}
        for step, requests in drawn.items():
            self._wait_for_all(step, list(drawn))
            for task in requests.tasks.values():
                try:
                    gathering.gather_cell(self.run, step, task, requests, self.share.world_size)
                except UserError as error:  # the other cells are gathered all the same
                    problems[str(error)] = error
            gathering.remove_logs(self.run, step, wanted)
        if problems:
            raise together(problems)

    def _wait_for_all(self, step: int, steps: Sequence[int]) -> None:
        """Return once every worker has ended with a checkpoint; `steps` are all that they work on."""
        seen, deadline = -1, 0.0
        ranks = range(self.share.world_size)
        while missing := [rank for rank in ranks if not ended_path(self.run, step, self.job, rank).exists()]:
            size = sum(path.stat().st_size for each in steps for path in self.run.sample_logs(each).glob("*.jsonl"))
            if size != seen:
                seen, deadline = size, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                raise UserError(f"step {step}: nothing was heard of workers {missing}; see their logs. Launch again.")
            time.sleep(POLL_SECONDS)


class _Log:
    """What a worker writes while it draws: its log, its meter, and, where it has one, the progress of all workers."""

    def __init__(self, worker: _Worker, step: int, total: int, progress: Path | None) -> None:
        self.worker, self.step = worker, step
        self.log = SampleLog(log_path(worker.run, step, worker.job, worker.share.rank))
        self.meter = Meter(engine=worker.engine.facts())
        self.busy_before = worker.engine.seconds
        self.by_others = 0
        self.bar = None if progress is None else ProgressBar(total=total, desc=f"generate step {step}", path=progress)
        self.metered = 0.0

    def __enter__(self) -> _Log:
        self._write_meter()
        return self

    def __exit__(self, *_: object) -> None:
        self._write_meter()
        self.log.close()
        if self.bar is not None:
            self.bar.close()

    def append(self, sample: Sample) -> None:
        self.log.append(sample)
        self.meter.samples += 1
        self.meter.tokens += sample.response_tokens
        if time.monotonic() - self.metered > METER_SECONDS:
            self._write_meter()
        if self.bar is not None:
            self.bar.update(max(0, self.by_others + self.meter.samples - self.bar.n))

    def _write_meter(self) -> None:
        worker = self.worker
        self.meter.seconds = worker.engine.seconds - self.busy_before
        write_meter(meter_path(worker.run, self.step, worker.job, worker.share.rank), self.meter)
        self.metered = time.monotonic()
        if self.bar is not None:
            made = sum(meter.samples for meter in gathering.meters(worker.run, self.step, worker.job))
            self.by_others = made - self.meter.samples


def _drawn(run: RunDirectory, step: int, requests: Requests) -> set[Key]:
    """Requests that need not be drawn again, whichever start of the workers drew them."""
    gathered = (gathering.gathered_before(run, step, name, Drawn) for name in requests.tasks)
    found = itertools.chain(*gathered, read_logs(run, step, Drawn))
    return {(row.benchmark, row.item, row.sample) for row in found if requests.is_of(row)}


def _other_responses(run: RunDirectory, step: int, benchmarks: Sequence[str]) -> dict[str, list[Drawn]]:
    """By benchmark, what another checkpoint answered: the nearest earlier one that was asked, else the nearest."""
    found: dict[str, list[Drawn]] = {}
    others = sorted((other > step, abs(other - step), other) for other in sampled_steps(run) if other != step)
    for _, _, other in others:
        unknown = [name for name in benchmarks if not found.get(name)]
        if not unknown:
            break
        found |= {name: list(read_log(run.samples(other, name), Drawn)) for name in unknown}
        for row in read_logs(run, other, Drawn):
            if row.benchmark in unknown:
                found[row.benchmark].append(row)
    return found
