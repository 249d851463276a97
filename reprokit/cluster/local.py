"""Jobs on this machine, one after the other, through submitit's local executor."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submitit import LocalExecutor

from reprokit.cluster.job import Job
from reprokit.errors import UserError

POLL_SECONDS = 0.3
LAST_LINES = 15


def run(job: Job, logs: Path, while_running: Callable[[], None]) -> None:
    """Run every element of `job` to its end; `while_running` is called several times a second.

    Raises:
        UserError: an element failed; the message has the end of its log and where the whole log is.
    """
    resources = job.resources
    for element in job.elements:
        executor = LocalExecutor(logs / job.name)
        executor.update_parameters(
            timeout_min=resources.hours * 60,
            tasks_per_node=resources.tasks_per_node * resources.nodes,
            gpus_per_node=resources.gpus_per_node,
            stderr_to_stdout=True,
        )
        submitted = executor.submit(job.function, *element)
        try:
            while not submitted.done():
                while_running()
                # The tasks of a job wait for each other: one that failed would leave the others hanging.
                if any(_failed(task) for task in _tasks(submitted)):
                    submitted.cancel()
                time.sleep(POLL_SECONDS)
        except BaseException:
            submitted.cancel()
            raise
        _raise_if_failed(job.name, submitted)


def _tasks(submitted: Any) -> list[Any]:
    return list(submitted._sub_jobs) or [submitted]


def _failed(task: Any) -> bool:
    return task.paths.result_pickle.exists() and task.exception() is not None


def _user_message(task: Any) -> str | None:
    """What a UserError in the job said, without its traceback; submitit hands errors over as text."""
    said = re.search(rf"^{UserError.__module__}\.{UserError.__name__}: (.*)", str(task.exception()), re.S | re.M)
    return said.group(1).rstrip("- \n") if said else None


def _raise_if_failed(name: str, submitted: Any) -> None:
    tasks = _tasks(submitted)
    # A task that was stopped because of another's failure left no result: the cause is in the log of the other.
    failed = [task for task in tasks if _failed(task)] or [
        task for task in tasks if not task.paths.result_pickle.exists()
    ]
    if not failed:
        return
    path = failed[0].paths.stdout
    if message := _user_message(failed[0]):
        raise UserError(f"job {name}: {message}\nThe whole log: {path}")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    end = "\n".join(f"    {line}" for line in lines[-LAST_LINES:])
    raise UserError(f"job {name} failed. The end of its log:\n{end}\nThe whole log: {path}")
