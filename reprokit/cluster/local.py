"""Jobs on this machine, one after the other, through submitit's local executor."""

from __future__ import annotations

import pickle
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from submitit import LocalExecutor

from reprokit.cluster.job import Job
from reprokit.cluster.launcher import named_to_jobs
from reprokit.errors import UserError

POLL_SECONDS = 0.3
LAST_LINES = 15
GRACE_SECONDS = 3.0


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
        with _interrupts_ignored(), named_to_jobs():  # inherited by the job: a Ctrl-C is for us, and we end it
            submitted: Any = executor.submit(job.function, *element)
        watch = _Watch(submitted)
        try:
            # The tasks of a job wait for each other: one that failed would leave the others hanging.
            while submitted._process.poll() is None and not watch.a_task_failed():
                while_running()
                time.sleep(POLL_SECONDS)
        finally:
            if submitted._process.poll() is None:
                _stop(submitted._process.pid)
        _raise_if_failed(job.name, submitted)


class _Watch:
    """Notices that a task of a running job has failed, also when it was killed and left no result."""

    def __init__(self, submitted: Any) -> None:
        self.submitted = submitted
        self.all_started = False

    def a_task_failed(self) -> bool:
        tasks = _tasks(self.submitted)
        try:
            running = len(psutil.Process(self.submitted._process.pid).children())
        except psutil.NoSuchProcess:
            return False  # the job has just ended
        self.all_started = self.all_started or running == len(tasks)
        # Read after the processes were counted: a task leaves its result before it ends.
        outcomes = [_outcome(task) for task in tasks]
        died = self.all_started and running + len(tasks) - outcomes.count(None) < len(tasks)
        return "error" in outcomes or died


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(process_id: int) -> None:
    """End the tasks of a job, if they still run, and with them their controller; returns when they are gone."""
    with suppress(psutil.NoSuchProcess):
        controller = psutil.Process(process_id)
        tasks = controller.children(recursive=True)
        for task in tasks:
            with suppress(psutil.NoSuchProcess):
                task.kill()
        _, alive = psutil.wait_procs([controller, *tasks], timeout=GRACE_SECONDS)
        if controller in alive:
            controller.kill()
            controller.wait(GRACE_SECONDS)


def _tasks(submitted: Any) -> list[Any]:
    return list(submitted._sub_jobs) or [submitted]


def _outcome(task: Any) -> str | None:
    """ "success", "error", or None for a task that has not ended or was killed.

    submitit's own `exception()` waits for all tasks of the job.
    """
    path = task.paths.result_pickle
    return pickle.loads(path.read_bytes())[0] if path.exists() else None


def _raise_if_failed(name: str, submitted: Any) -> None:
    """A task that was stopped because of another's failure left no result: the cause is in the log of the other."""
    tasks = _tasks(submitted)
    failed = [task for task in tasks if _outcome(task) == "error"] or [task for task in tasks if _outcome(task) is None]
    if not failed:
        return
    path = failed[0].paths.stdout
    if message := _user_message(failed[0]):
        raise UserError(f"job {name}: {message}\nThe whole log: {path}")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    end = "\n".join(f"    {line}" for line in lines[-LAST_LINES:])
    raise UserError(f"job {name} failed. The end of its log:\n{end}\nThe whole log: {path}")


def _user_message(task: Any) -> str | None:
    """What a UserError in the job said, without its traceback; submitit hands errors over as text."""
    if _outcome(task) != "error":
        return None
    _, trace = pickle.loads(task.paths.result_pickle.read_bytes())
    said = re.search(r"^reprokit\.[\w.]+Error: (.*)", trace, re.S | re.M)
    return said.group(1).strip() if said else None
