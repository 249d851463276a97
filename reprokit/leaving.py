"""Being told to leave: the signals that a scheduler sends before it ends a job."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from reprokit.errors import Interrupted

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class Leaving:
    """Whether this process was told to leave; as a context, the process heeds the signals that say so.

    The first signal raises `Interrupted` in the main thread: at once, or, inside `polled`, where the code asks and at
    the end of the block at the latest. All later ones are ignored, so that what is saved meanwhile is saved; code that
    asks hears of it again, for Python drops what is raised in finalisers and callbacks. Processes that are forked
    inside the context ignore the signals, and so do the programs that those start: a scheduler sends them to every
    process of a job. To be entered in the main thread. One that is not entered is never told.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._said: str | None = None
        self._raised = False
        self._polled = 0
        self._before: dict[int, Any] = {}

    def __call__(self) -> str | None:
        """Name of the signal that told this process to leave, None as long as it may stay."""
        return self._said

    def __enter__(self) -> Leaving:
        self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        os.register_at_fork(after_in_child=self._ignore_in_child)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    @contextmanager
    def polled(self) -> Iterator[None]:
        """A block whose code asks by itself, at moments when what it has can be saved."""
        self._polled += 1
        try:
            yield
        except BaseException:
            self._raised = self._raised or self._said is not None
            raise
        finally:
            self._polled -= 1
        self.obey()

    def obey(self) -> None:
        """Raises Interrupted if this process was told to leave."""
        if self._said is not None:
            self._raised = True
            raise Interrupted(self._said)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self._said is None:
            self._said = signal.Signals(number).name
        if not (self._polled or self._raised):
            self.obey()

    def _ignore_in_child(self) -> None:
        if self._before and os.getpid() != self._process:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
