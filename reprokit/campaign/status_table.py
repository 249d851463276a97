"""The status of runs as a person reads it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from reprokit.campaign.status import CellStatus, RunStatus
from reprokit.campaign.status_jobs import JobStatus
from reprokit.cluster.failures import Failure
from reprokit.words import interpreter

STATES = {
    "done": "green",
    "generated": "cyan",
    "drawing": "yellow",
    "waiting": "dim",
    "missing": "",
    "failed": "red",
    "damaged": "red",
}
MOST_ROWS = 16  # of the matrix, before checkpoints in a row that are equally far share one
MOST_STARTS = 8
COLUMNS = ("job", "id", "state", "node", "elapsed", "limit", "left", "restarts", "about")
GAP = 2  # columns between columns


def table_of(status: RunStatus, width: int) -> RenderableType:
    """Everything about one run, in `width` columns: benchmarks that do not fit beside each other come below."""
    if status.problem is not None:
        return Text.assemble((status.run, "bold"), f": cannot be read: {status.problem}\n")
    parts: list[RenderableType] = [_heading(status)]
    parts += [Text(line) for line in _lines(status)]
    parts += _matrix(status.cells, width)
    if status.jobs:
        parts.append(_jobs(status.jobs))
    if unlucky := [start for start in status.starts if start.outcome in ("left", "failed")]:
        parts.append(Text(f"starts that did not reach their end: {len(unlucky)}, the last of them:"))
        for start in unlucky[-MOST_STARTS:]:
            when = time.strftime("%d %b %H:%M:%S", time.localtime(start.ended or start.started))
            what = f"failed ({start.failure})" if start.outcome == "failed" else "left"
            where = f" on {', '.join(start.nodes)}" if start.nodes else ""
            again = f", restart {start.restart}" if start.restart else ""
            parts.append(Text(f"  {when}  {start.stage} {start.job}{again}{where}: {what}: {start.reason}"))
    parts += [Text(line, "bold") for line in _warnings(status)]
    return Group(*parts, Text())


def duration(seconds: int) -> str:
    """`2:05` (minutes), `1:02:05`, `3-01:02:05` (days)."""
    minutes, seconds = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _heading(status: RunStatus) -> Text:
    where = f" on cluster={status.cluster}" + (f", launched {status.launch}" if status.launch else "")
    if status.round > 1:
        fruitless = f", {status.fruitless} of them in a row without anything new" if status.fruitless else ""
        where += f"; submitted {status.round} times{fruitless}"
    where += f"; nodes left out: {', '.join(status.excluded)}" if status.excluded else ""
    return Text.assemble((status.run, "bold"), where if status.launch or status.jobs else ": never launched")


def _lines(status: RunStatus) -> Iterator[str]:
    if status.launcher is not None:
        yield f"launcher: {status.launcher}"
    if (training := status.training) is not None:
        said = [f"step {training.step}/{training.steps}"]
        said += [] if training.loss is None else [f"loss {training.loss:.4g}"]
        said += [] if training.tokens_per_second is None else [f"{training.tokens_per_second:,.0f} tokens/s"]
        yield f"training: {', '.join(said)}{', complete' if training.complete else ''}"
    found = Counter(cell.state for cell in status.cells)
    yield f"cells:    {', '.join(f'{found[state]} {state}' for state in STATES if found[state])}"


def _warnings(status: RunStatus) -> Iterator[str]:
    if status.slurm is not None:
        yield f"The states of jobs are not known. {status.slurm}"
    if status.stopped is not None:
        yield f"Nothing more is submitted: {status.stopped.reason} {status.stopped.advice}"
    if held := dict.fromkeys(job.id.partition("_")[0] for job in status.jobs if job.is_held):
        yield f"Held jobs never begin: {', '.join(held)}. If nobody holds them on purpose, launch again and see."
    for failure in sorted({cell.failure for cell in status.cells if cell.failure}):
        yield f"failed ({failure}): {Failure(failure).advice}"
    if status.is_stuck:
        yield f"Cells are missing and nothing runs: {interpreter()} -m reprokit.retry run={status.run}"


def _matrix(cells: Sequence[CellStatus], width: int) -> list[RenderableType]:
    """Checkpoints down, benchmarks across, in as many tables as it takes."""
    by_step: dict[int, dict[str, Text]] = {}
    for cell in cells:
        by_step.setdefault(cell.step, {})[cell.benchmark] = _of_cell(cell)
    rows = _rows(by_step)
    longest = max((len(label) for label, _ in rows), default=0) + GAP
    groups: list[dict[str, int]] = [{}]
    for name in dict.fromkeys(cell.benchmark for cell in cells):
        wide = max(len(name), *(len(row[name]) for row in by_step.values())) + GAP
        if groups[-1] and longest + sum(groups[-1].values()) + wide > width:
            groups.append({})
        groups[-1][name] = wide
    tables: list[RenderableType] = []
    for group in groups:
        table = Table("step", *group, box=None, header_style="bold", padding=(0, GAP, 0, 0))
        for label, row in rows:
            table.add_row(label, *(row[name] for name in group))
        tables.append(table)
    return tables


def _rows(by_step: dict[int, dict[str, Text]]) -> list[tuple[str, dict[str, Text]]]:
    rows: list[tuple[list[int], dict[str, Text]]] = []
    for step, row in by_step.items():
        if rows and len(by_step) > MOST_ROWS and rows[-1][1] == row:
            rows[-1][0].append(step)
        else:
            rows.append(([step], row))
    return [(f"{steps[0]}-{steps[-1]}" if len(steps) > 1 else str(steps[0]), row) for steps, row in rows]


def _of_cell(cell: CellStatus) -> Text:
    far = f"{cell.samples}/{'?' if cell.asked is None else cell.asked}"
    word = f"failed ({cell.failure})" if cell.failure else cell.state
    if cell.state == "drawing":
        return Text(far, STATES[cell.state])
    partial = cell.state not in ("done", "generated") and cell.samples > 0
    return Text(f"{far} {word}" if partial else word, STATES[cell.state])


def _jobs(jobs: Sequence[JobStatus]) -> Table:
    """A row for each job, one for all elements of an array that are done; without the columns that say nothing."""
    done = Counter(_array(job) for job in jobs if job.state == "done")
    rows: list[dict[str, str]] = []
    for job in jobs:
        if job.state == "done" and done[_array(job)] > 1:
            elements = {"job": job.stage, "id": _array(job), "state": f"done: {done[_array(job)]} elements"}
            rows += [] if elements in rows else [elements]
        else:
            rows.append(_row(job))
    names = [name for name in COLUMNS if any(row.get(name) for row in rows)]
    table = Table(*names, box=None, header_style="bold", padding=(0, GAP, 0, 0))
    for row in rows:
        style = "red" if row["state"].startswith("failed") else ""
        table.add_row(*(Text(row.get(name, ""), style) for name in names))
    return table


def _row(job: JobStatus) -> dict[str, str]:
    times = {"elapsed": job.elapsed, "limit": job.limit, "left": job.eta}
    return {
        "job": job.stage,
        "id": job.id,
        "state": f"failed ({job.failure})" if job.state == "failed" else job.state,
        "node": ", ".join(job.nodes),
        **{name: "" if seconds is None else duration(seconds) for name, seconds in times.items()},
        "restarts": str(job.restarts or ""),
        "about": "; ".join(filter(None, (_steps(job.steps), job.reason, job.doing))),
    }


def _array(job: JobStatus) -> str:
    return job.id.partition("_")[0] if "_" in job.id else job.id


def _steps(steps: Sequence[int]) -> str:
    """`step 640`, `steps 10, 20`, `steps 0, 10, 20 ... 640`."""
    if len(steps) > 6:
        return f"steps {', '.join(map(str, steps[:3]))} ... {steps[-1]}"
    return f"step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}" if steps else ""


def show(runs: Sequence[RunStatus], console: Console) -> None:
    """Print the status of runs."""
    for status in runs:
        console.print(table_of(status, console.width))
