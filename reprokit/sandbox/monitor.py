"""A small stand-in for bubblewrap: starts a command in namespaces of its own, with a file system made for it.

It is started from its source text, with the command as arguments. Without namespaces it only gathers what the command
leaves behind. See `namespaces(7)`, `mount(2)` and `pivot_root(2)`; the numbers are those of the Linux interface.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

_NEW_USER = 0x10000000
_NEW_OTHERS = 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x00020000  # pid, net, ipc, uts, mount
_READ_ONLY, _NO_SET_UID, _NO_DEVICES, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}  # flags of statvfs -> of mount
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_DIE_WITH_PARENT, _GATHER_ORPHANS, _NO_NEW_PRIVILEGES = 1, 36, 38

_c = ctypes.CDLL(None, use_errno=True)


def main(plan: dict[str, Any]) -> None:
    """Start `sys.argv[1:]` as `plan` says, wait for all that it starts, and exit."""
    parent = os.getppid()
    _c.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    _c.prctl(_GATHER_ORPHANS, 1)
    if plan["namespaces"]:
        _separate(plan["new_user"])
    if os.fork() == 0:
        os.setsid()  # a process group that can be killed at once
        _c.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if plan["namespaces"]:
            _make_root(plan["paths"], plan["file_bytes"])
        _c.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        os.execv(sys.argv[1], sys.argv[1:])
    os.closerange(0, 3)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _separate(new_user: bool) -> None:
    user, group = os.getuid(), os.getgid()
    _check(_c.unshare(_NEW_OTHERS | (_NEW_USER if new_user else 0)), "unshare")
    if new_user:
        # Any number but 0 will do: then the capabilities of the new namespace end with the exec.
        for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _make_root(paths: list[str], file_bytes: int) -> None:
    """A file system with nothing but `paths`, read-only, and an empty /tmp of `file_bytes` bytes."""
    os.umask(0o022)
    _mount("none", "/", "", _RECURSIVE | _PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _NO_SET_UID | _NO_DEVICES, "mode=0755")
    os.mkdir("/tmp/old")
    _check(_c.syscall(_PIVOT_ROOT[os.uname().machine], b"/tmp", b"/tmp/old"), "pivot_root")
    os.chdir("/")
    _make_folder("/tmp", file_bytes)  # first: an environment may lie in it
    for path in paths:
        _bind(path)
        flags = sum(mount for seen, mount in _KEPT.items() if os.statvfs(path).f_flag & seen)
        _mount("none", path, "", _REMOUNT | _BIND | _READ_ONLY | flags)
    for name in ("null", "zero", "full", "random", "urandom"):
        _bind(f"/dev/{name}")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")
    os.symlink("/proc/self/fd", "/dev/fd")
    _make_folder("/dev/shm", file_bytes)
    os.mkdir("/proc")
    _mount("proc", "/proc", "proc", _NO_SET_UID | _NO_DEVICES)
    _check(_c.umount2(b"/old", _DETACH), "umount2")
    os.rmdir("/old")
    _mount("none", "/", "", _REMOUNT | _BIND | _READ_ONLY | _NO_SET_UID | _NO_DEVICES)
    os.chdir("/tmp")


def _make_folder(path: str, file_bytes: int) -> None:
    os.makedirs(path, exist_ok=True)
    _mount("tmpfs", path, "tmpfs", _NO_SET_UID | _NO_DEVICES, f"mode=1777,size={file_bytes}")


def _bind(path: str) -> None:
    if os.path.isdir(f"/old{path}"):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "x").close()
    _mount(f"/old{path}", path, "", _BIND | _RECURSIVE)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = _c.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(result, f"mount of {target}")


def _check(result: int, what: str) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
