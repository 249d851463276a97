"""The command that starts a sandbox, and which kind of it works on this machine."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from reprokit.sandbox.calls import refusals
from reprokit.sandbox.processes import tasks_of_user

_FAR_MORE = 2048  # tasks that a user may start on a machine while a program runs
_OPEN_FILES = 32  # of one process: enough for programs, and few enough for what files without a name can hold
_HERE = Path(__file__).parent
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache", "/etc/alternatives")


class Isolation(Enum):
    """What separates a program from the machine.

    `bubblewrap` and `namespaces` are equal: no network, no files but Python's and an empty /tmp, no other processes.
    With `rlimits` a program can read and write what its user can, reach the network, and send signals to the user's
    other processes; only its use of time, memory, processes and files is limited.

    With each, the kernel refuses the system calls of `reprokit.sandbox.calls` where it can.

    What no kind sees is memory of the kernel: pipes and sockets (small each, and few), and files without a name that
    are on their way through a socket, or that no process touches although it still maps them. The limits of open files,
    of file sizes and of a process's address space bound these.
    """

    bubblewrap = "bubblewrap"
    namespaces = "namespaces"
    rlimits = "rlimits"


@dataclass(frozen=True)
class Limits:
    """Of one program, all its processes together unless it says otherwise.

    Args:
        memory: bytes of memory, files without a name included, and of address space of one process.
        processes: tasks, threads included, that the program can have besides itself.
        file_bytes: size of one file, of the output, and of all files in /tmp.
        cpu_seconds: processor time of one process; for wall time see `Sandbox.run`.
    """

    memory: int = 4 << 30
    processes: int = 32
    file_bytes: int = 64 << 20
    cpu_seconds: int = 3600


@dataclass(frozen=True)
class Way:
    """One way to start a sandbox.

    Args:
        own_user: run as a user number that nobody else has; takes root.
        counted: let the kernel limit the number of processes, which works where it counts those of the sandbox only:
            with an own user, and in user namespaces since Linux 5.14. Otherwise the watcher counts, and the kernel
            ends only what grows faster than that.
    """

    isolation: Isolation
    own_user: bool
    counted: bool


def ways(isolation: Isolation) -> list[Way]:
    """All ways of a kind on this machine, best first; a trial has to tell which of them work."""
    if isolation is Isolation.bubblewrap and shutil.which("bwrap") is None:
        return []
    users = (True, False) if os.geteuid() == 0 else (False,)
    if isolation is Isolation.rlimits and os.geteuid() == 0:
        users = (True,)  # root is exempt from the limits that this kind is made of
    return [Way(isolation, own_user, counted) for own_user in users for counted in (True, False)]


def command(way: Way, limits: Limits, uid: int) -> list[str]:
    """The command line of a sandbox that takes a program on its standard input; `uid` is used with an own user."""
    inside = _python("inside", _settings(way, limits, uid))
    if way.isolation is Isolation.bubblewrap:
        return [*_bubblewrap(way, limits), *inside]
    plan = {
        "namespaces": way.isolation is Isolation.namespaces,
        "new_user": not way.own_user,
        "paths": runtime(),
        "file_bytes": limits.file_bytes,
    }
    return [*_python("monitor", plan), *inside]


def environment() -> dict[str, str]:
    """Variables of a sandbox. Hashes are not random: a program gives the same output every time it is scored."""
    fixed = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0"}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    libraries = os.environ.get("LD_LIBRARY_PATH")
    return {**fixed, **threads, **({"LD_LIBRARY_PATH": libraries} if libraries else {})}


@functools.cache
def runtime() -> list[str]:
    """Paths that Python and its packages need, none within another; neither the home nor the project folder."""
    base = Path(sys.base_prefix)
    wanted = [*map(Path, _SYSTEM), Path(_interpreter()), base / "lib", base / "lib64", *map(Path, _packages())]
    wanted += [Path(entry) for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":") if _is_library_folder(entry)]
    kept: list[Path] = []
    for path in sorted(path for path in wanted if path.exists()):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return [str(path) for path in kept]


def _is_library_folder(entry: str) -> bool:
    """Not one that holds the home or the project folder, as an entry that was written by mistake may."""
    private = [Path.home(), Path.cwd(), _HERE.parents[1]]
    folder = Path(entry).resolve()
    return entry.startswith("/") and not any(path.resolve().is_relative_to(folder) for path in private)


def _interpreter() -> str:
    return os.path.realpath(sys.executable)  # of a virtual environment: the one that it was made from


@functools.cache
def _packages() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def _settings(way: Way, limits: Limits, uid: int) -> dict[str, Any]:
    return {
        "uid": uid if way.own_user else None,
        "parent": way.isolation is Isolation.rlimits,
        "packages": _packages(),
        "memory": limits.memory,
        # Besides the program: its server and what waits for that. The other number is no limit in ordinary times.
        "processes": limits.processes + 2 if way.counted else tasks_of_user() + _FAR_MORE,
        "nice": 0 if way.counted else 19,  # the watcher needs its turn among processes that the kernel does not limit
        "file_bytes": limits.file_bytes,
        "cpu_seconds": limits.cpu_seconds,
        "files": _OPEN_FILES,
        "refusals": refusals(),
    }


def _python(module: str, settings: dict[str, Any]) -> list[str]:
    # -S: packages are found by the paths in the settings; .pth files, which may name the project, are not read.
    return [_interpreter(), "-P", "-S", "-s", "-B", "-c", f"{_source(module)}\n\nmain({settings!r})\n"]


@functools.cache
def _source(module: str) -> str:
    return (_HERE / f"{module}.py").read_text(encoding="utf-8")


def _bubblewrap(way: Way, limits: Limits) -> list[str]:
    capabilities = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    words = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    words += capabilities if way.own_user else ["--unshare-user"]
    words += [*_folder_options(limits.file_bytes), "--tmpfs", "/tmp"]  # first: an environment may lie in it
    for folder in sorted({parent for path in runtime() for parent in map(str, Path(path).parents)} - {"/"}):
        words += ["--dir", folder]  # else it is as closed as the one outside, perhaps to the own user
    for path in runtime():
        words += ["--ro-bind", path, path]
    words += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    words += [*_folder_options(limits.file_bytes), "--tmpfs", "/dev/shm"]
    return [*words, "--remount-ro", "/", "--chdir", "/tmp", "--"]


def _folder_options(size: int) -> list[str]:
    """What this bubblewrap knows of: releases before 0.5 and 0.7 lack permissions and sizes of folders."""
    words = []
    words += ["--perms", "1777"] if "--perms" in _help() else []
    words += ["--size", str(size)] if "--size" in _help() else []
    return words


@functools.cache
def _help() -> str:
    return subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False).stdout
