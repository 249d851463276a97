"""What runs inside the sandbox: it limits itself, then gives a program one test after another.

It is started from its source text (nothing of the project is visible inside), and loads little, because it is started
for every program. A message in either direction is 8 bytes of length, then the bytes. The first one received is the
program and each further one an input, in `marshal`'s format. A reply is `+` and the output, or `-` for a program that
failed. Nothing here is to be trusted: a program may do what it likes to this process.
"""

from __future__ import annotations

import io
import marshal
import os
import resource
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

# What the official runner takes away from programs in its own process; they fail where they use it.
_TAKEN = {
    "builtins": "exit quit",
    "os": "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames truncate replace"
    " unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir",
    "shutil": "rmtree move chown",
    "subprocess": "Popen",
}
_HIDDEN = ("ipdb", "joblib", "resource", "psutil", "tkinter")


def main(settings: dict[str, Any]) -> None:
    """Serve until the other side closes; in a forked child of a fresh program, run it and return."""
    requests, replies = open(os.dup(0), "rb"), os.dup(1)
    _limit(settings)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.path += settings["packages"]
    _send(replies, b"+")
    messages = _messages(requests)
    program = next(messages)
    if program["shared"]:
        _serve_in_this_process(program, messages, replies)
    else:
        _serve_in_children(program, requests, replies, settings["file_bytes"])


def _limit(settings: dict[str, Any]) -> None:
    if settings["uid"] is not None:
        os.setgroups([])
        os.setresgid(settings["uid"], settings["uid"], settings["uid"])
        os.setresuid(settings["uid"], settings["uid"], settings["uid"])
    os.nice(settings["nice"])
    _die_with_parent(settings["parent"])
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: settings["cpu_seconds"],
        resource.RLIMIT_FSIZE: settings["file_bytes"],
        resource.RLIMIT_NOFILE: settings["files"],
        resource.RLIMIT_NPROC: settings["processes"],
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    _refuse(settings["refusals"])


def _die_with_parent(parent: bool) -> None:
    """Where no namespace ends with its first process, each process is to end with the one that started it."""
    if parent:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def _refuse(instructions: bytes) -> None:
    """Have the kernel refuse system calls, where it can; whoever starts the sandbox has ruled out new privileges."""
    import ctypes

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    if instructions:
        given = Filter(len(instructions) // 8, instructions)
        ctypes.CDLL(None).prctl(22, 2, ctypes.byref(given))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _messages(requests: io.BufferedReader) -> Iterator[Any]:
    while size := requests.read(8):
        yield marshal.loads(requests.read(int.from_bytes(size, "big")))


def _send(replies: int, message: bytes) -> None:
    left = memoryview(len(message).to_bytes(8, "big") + message)
    while left:
        left = left[os.write(replies, left) :]


def _serve_in_this_process(program: dict[str, Any], tests: Iterator[Any], replies: int) -> None:
    """The official way: all tests in one process; standard streams are Python objects without a file behind them.

    What is not an `Exception`, such as `sys.exit()`, ends the process, and so all tests.
    """
    _take_away(program["code"])
    for test in tests:
        try:
            code = compile(program["code"], "<string>", "exec", dont_inherit=True)
            if program["calls"] is None:
                output = _captured(code, test)
            else:
                namespace: dict[str, Any] = {}
                exec(code, namespace)
                sys.stdout = io.StringIO()
                output = _as_json(namespace[program["calls"][0]](*test))
            reply = b"+" + output.encode("utf-8", "surrogatepass")
        except Exception:
            reply = b"-"
        finally:
            sys.stdout = sys.__stdout__
        _send(replies, reply)


def _captured(code: types.CodeType, text: str) -> str:
    stream = sys.stdout = io.StringIO()
    sys.stdin = io.StringIO(text)
    exec(code, {})
    return stream.getvalue()


def _take_away(code: str) -> None:
    for module, names in _TAKEN.items():
        if module in ("builtins", "os") or module in code:  # the others take longer to import than all the rest
            for name in names.split():
                setattr(__import__(module), name, None)
    for module in _HIDDEN:
        sys.modules[module] = None  # type: ignore[assignment]


def _serve_in_children(program: dict[str, Any], requests: io.BufferedReader, replies: int, most: int) -> None:
    """A process for every test, as if the program were started anew; standard streams are files."""
    code: types.CodeType | None = None
    try:
        code = compile(program["code"], "<string>", "exec", dont_inherit=True)
    except Exception:  # every test fails
        pass
    for test in _messages(requests):
        result = os.memfd_create("result")
        child = os.fork() if code is not None else None
        if child == 0:
            assert code is not None
            requests.close()
            os.close(replies)
            return _run(code, program["calls"], test, result)
        status = os.waitpid(child, 0)[1] if child is not None else 1
        _reap()
        os.lseek(result, 0, os.SEEK_SET)
        with open(result, "rb") as file:
            _send(replies, b"+" + file.read(most) if status == 0 else b"-")


def _reap() -> None:
    """Take leave of ended orphans, which count as processes until then."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _run(code: types.CodeType, calls: list[str] | None, test: Any, result: int) -> None:
    """The program in this process. Its end is that of the interpreter: threads are awaited, streams flushed."""
    if calls is None:
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        _files_as_streams(test, result)
        exec(code, module.__dict__)
        return
    module = sys.modules["solution"] = types.ModuleType("solution")
    exec(code, module.__dict__)
    value = _find(module.__dict__, calls)(*test)
    with open(result, "wb") as file:
        file.write(_as_json(value).encode("utf-8", "surrogatepass"))


def _files_as_streams(text: str, result: int) -> None:
    given = os.memfd_create("given")
    with open(given, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogatepass"))
    os.lseek(given, 0, os.SEEK_SET)
    os.dup2(given, 0)
    os.dup2(result, 1)
    os.close(given)
    os.close(result)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # type: ignore[misc]


def _find(namespace: dict[str, Any], calls: list[str]) -> Callable[..., Any]:
    """The first of `calls` that there is: `name`, `Class.name` or `Class.*` for its only public method."""
    for call in calls:
        owner, _, method = call.rpartition(".")
        place = namespace.get(owner)
        if owner and not isinstance(place, type):
            continue
        public = [name for name in vars(place) if not name.startswith("_")] if isinstance(place, type) else []
        if method == "*" and len(public) == 1:
            method = public[0]
        found = getattr(place(), method, None) if isinstance(place, type) else namespace.get(method)
        if callable(found):
            return found  # type: ignore[no-any-return]
    raise NameError(calls[-1])


def _as_json(value: Any) -> str:
    """`[exact, value]`; not exact where the value had to be changed, so that a JSON value does not equal it."""
    import json

    changed = False

    def plain(value: Any) -> Any:
        nonlocal changed
        if type(value).__module__ == "numpy":
            changed |= value.ndim > 0
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            changed |= isinstance(value, tuple)
            return [plain(part) for part in value]
        if isinstance(value, dict):
            changed |= not all(isinstance(key, str) for key in value)
            return {key: plain(part) for key, part in value.items()}
        return value

    value = plain(value)
    return json.dumps([not changed, value])
