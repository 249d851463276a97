"""One program in a sandbox: started, given tests, watched and ended from outside."""

from __future__ import annotations

import contextlib
import functools
import itertools
import marshal
import os
import select
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from reprokit.errors import UserError
from reprokit.sandbox.commands import Isolation, Limits, Way, command, environment, ways
from reprokit.sandbox.processes import descendants, end_descendants, nameless_files, used

_WAY_OUT = "install bubblewrap, or allow user namespaces (sysctl user.max_user_namespaces), or score on another machine"
_MOST_VALUE = 16 << 20  # bytes of a returned value: read as JSON it can take thirty times as much
_START_SECONDS = 30.0
_TRIES = 3
_WATCH_SECONDS = 0.05
_USERS = itertools.count()

Ending = Literal["done", "failed", "gone", "time", "memory", "processes", "output"]


class SandboxError(UserError):
    """The sandbox itself did not start: nothing is known about the program."""


@dataclass(frozen=True)
class Program:
    """A Python program.

    Args:
        code: its text.
        calls: what to call with the arguments of a test, the first that there is of `name`, `Class.name` and
            `Class.*` (its only public method). None: a program that reads its standard input.
        shared: run all tests in one process, as the official runner does: `__name__` is not `__main__`, standard
            streams are Python objects, some functions are missing, `sys.exit` ends it, and the first of `calls` is
            called. Otherwise every test has a process of its own.
    """

    code: str
    calls: tuple[str, ...] | None = None
    shared: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a test ended, and after how many seconds.

    `output` of a test that is `done` is what the program printed, or JSON of `[exact, value]` of what it returned;
    not exact where a tuple was made a list, or the like. `failed`: an exception, or an exit status but 0. All others
    end the program: `gone` by itself, or for what it used too much of.
    """

    ending: Ending
    output: str = ""
    seconds: float = 0.0


class Sandbox:
    """A context in which `program` can be run on tests.

    Raises:
        SandboxError: on entry, if the sandbox does not start.
    """

    def __init__(self, program: Program, limits: Limits | None = None, way: Way | None = None) -> None:
        self._program = program
        self._limits = limits or Limits()
        self._way = way or working_way()
        self._most = 2 * self._limits.file_bytes if program.calls is None else _MOST_VALUE  # bytes of a reply
        self._exit = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes]
        self._first: int | None = None
        self._uid = 2_000_000_000 + os.getpid() % 2**16 * 1024 + next(_USERS) % 1024

    def __enter__(self) -> Sandbox:
        for left in reversed(range(_TRIES)):
            try:
                self._start()
                return self
            except SandboxError:
                if not left:
                    raise
        raise AssertionError

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def run(self, test: Any, seconds: float) -> Outcome:
        """The outcome for one test within `seconds` of wall time: a text, or a list of plain arguments.

        After one that ends the program, every further test is `gone`.
        """
        start = time.monotonic()
        ending, reply = self._exchange(marshal.dumps(test), start + seconds)
        output = ""
        if ending == "done":
            try:
                output = reply[1:].decode("utf-8", "surrogatepass" if self._program.shared else "replace")
            except UnicodeDecodeError:  # not ours: the program has written to the descriptor of replies
                reply = b""
            ending = "done" if reply[:1] == b"+" else "failed"
        else:
            self._exit.close()
        return Outcome(ending, output if ending == "done" else "", time.monotonic() - start)

    def _start(self) -> None:
        words = command(self._way, self._limits, self._uid)
        with contextlib.ExitStack() as opened:
            errors = opened.enter_context(tempfile.TemporaryFile())
            folder = self._folder(opened)
            pipe = subprocess.PIPE
            try:
                self._process = subprocess.Popen(
                    words, stdin=pipe, stdout=pipe, stderr=errors, bufsize=0, cwd=folder, env=environment(),
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise SandboxError(f"the sandbox for programs does not start: {error}; {_WAY_OUT}") from error
            opened.callback(self._end)
            assert self._process.stdin is not None and self._process.stdout is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            program = {"code": self._program.code, "calls": self._program.calls, "shared": self._program.shared}
            ending, _ = self._exchange(marshal.dumps(program), time.monotonic() + _START_SECONDS)
            if ending != "done":
                errors.seek(0)
                said = errors.read(10_000).decode(errors="replace").strip().splitlines()
                message = said[-1] if said else "no message"
                raise SandboxError(f"the sandbox for programs does not start ({ending}): {message}; {_WAY_OUT}")
            self._first = next(iter(descendants(self._process.pid)), None)
            self._exit = opened.pop_all()

    def _folder(self, opened: contextlib.ExitStack) -> str:
        """Where to start: with namespaces a program has a folder of its own anyway."""
        if self._way.isolation is not Isolation.rlimits:
            return "/"
        folder = opened.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        if self._way.own_user:
            os.chown(folder, self._uid, self._uid)
        return folder

    def _end(self) -> None:
        end_descendants(self._process.pid, self._first)
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()

    def _exchange(self, message: bytes, deadline: float) -> tuple[Ending, bytes]:
        """Send a message and take the reply, while watching what the program uses."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if self._process.stdin.closed:
            return "gone", b""
        to, of = self._process.stdin.fileno(), self._process.stdout.fileno()
        left, received = memoryview(len(message).to_bytes(8, "big") + message), bytearray()
        poll = select.poll()
        poll.register(of, select.POLLIN)
        poll.register(to, select.POLLOUT)
        next_watch = time.monotonic() + _WATCH_SECONDS
        while (now := time.monotonic()) < deadline:
            if now >= next_watch:
                if too_much := self._too_much():
                    return too_much, b""
                next_watch = time.monotonic() + _WATCH_SECONDS
            for descriptor, _ in poll.poll(max(0.0, min(deadline, next_watch) - now) * 1000):
                try:
                    if descriptor == to:
                        left = left[os.write(to, left) :]
                        if not left:
                            poll.unregister(to)
                        continue
                    part = os.read(of, 1 << 20)
                except OSError:
                    part = b""
                if not part:
                    return "gone", b""
                received += part
            size = int.from_bytes(received[:8], "big") if len(received) >= 8 else 0
            if size > self._most or len(received) > 8 + max(size, 1):
                return "output", b""
            if size and len(received) == 8 + size and not left:
                return "done", bytes(received[8:])
        return "time", b""

    def _too_much(self) -> Ending | None:
        pids = descendants(self._process.pid)
        memory, tasks = used(pids)
        if memory > self._limits.memory:
            return "memory"
        if tasks > 2 * (self._limits.processes + 2):
            return "processes"
        # Last, as it takes the longest: where only this limits processes, they grow meanwhile.
        return "memory" if memory + nameless_files(pids) > self._limits.memory else None


_TRIAL = "import json\nopen('written', 'w').close()\nprint(int(input()) + 1)"


def works(way: Way) -> bool:
    """Whether a program runs this way, with so few processes that others of the user can not be counted among them."""
    limits = Limits(processes=1)
    try:
        with Sandbox(Program(_TRIAL), limits, way) as sandbox:
            return sandbox.run("41\n", _START_SECONDS).output == "42\n"
    except SandboxError:
        return False


@functools.cache
def working_way() -> Way:
    """The best way that works here; warns, once per process, if it is not isolated.

    Raises:
        SandboxError: not even limits work.
    """
    for isolation in Isolation:
        for way in ways(isolation):
            if works(way):
                if isolation is Isolation.rlimits:
                    warnings.warn(_WARNING, stacklevel=2)
                return way
    raise SandboxError(f"no program can be run on this machine, not even without isolation; {_WAY_OUT}")


_WARNING = (
    "model-written code runs without isolation: neither bubblewrap nor user namespaces work on this machine. It can "
    f"read and write what this user can, and reach the network; {_WAY_OUT}."
)


def isolation() -> Literal["bubblewrap", "namespaces", "rlimits"]:
    """What separates model-written code from this machine, for records: see `Isolation`."""
    return working_way().isolation.value
