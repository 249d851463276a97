"""Jobs on this machine end with the process that launched them, however that ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

VARIABLE = "REPROKIT_LAUNCHER"  # process id of the launcher, for the tasks of its local jobs
WATCH_SECONDS = 1.0
GRACE_SECONDS = 60.0


@contextmanager
def named_to_jobs() -> Iterator[None]:
    """Jobs that are started inside this block know this process as their launcher."""
    os.environ[VARIABLE] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def leave_with_launcher() -> None:
    """Watch the launcher of this local job; once it is gone, this process is told to leave, and killed if it stays."""
    if (launcher := os.environ.get(VARIABLE)) is not None:
        threading.Thread(target=_watch, args=(int(launcher),), daemon=True).start()


def _watch(process_id: int) -> None:
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(process_id)
        # Another process that got its id is told by when it began, and that by no clock that can be set.
        while launcher.is_running() and launcher.status() != psutil.STATUS_ZOMBIE:
            time.sleep(WATCH_SECONDS)
    print("the launch that started this job is gone: the job leaves too", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
