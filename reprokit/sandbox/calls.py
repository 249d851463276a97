"""System calls that programs in a sandbox do without, as a filter for the kernel (see `seccomp(2)`).

Taken away are System V shared memory, messages and semaphores, `io_uring` and `memfd_secret`, whose memory belongs to
no process and so cannot be watched, and new namespaces, in which a program has rights that it lacks outside. To a
program the kernel seems not to have them.
"""

from __future__ import annotations

import errno
import os
import struct

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_TAKEN = {
    # shmget, semget, msgget, unshare, setns, clone3 (whose flags a filter cannot see), io_uring_setup, memfd_secret
    "x86_64": (29, 64, 68, 272, 308, 435, 425, 447),
    "aarch64": (194, 190, 186, 97, 268, 435, 425, 447),
}
_NEW_NAMESPACES = 0x7E020000  # flags of clone
_OTHER_NUMBERS = 0x40000000  # from here on: x86_64's second numbers for the same calls
_NUMBER, _ARCHITECTURE, _FLAGS = 0, 4, 16  # places in `struct seccomp_data`
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOWED, _REFUSED = 0x7FFF0000, 0x00050000 | errno.ENOSYS


def refusals(machine: str = "") -> bytes:
    """Instructions (8 bytes each) for a machine as `uname -m` names it, or this one; none for one that is not known."""
    machine = machine or os.uname().machine
    if machine not in _TAKEN:
        return b""
    steps = [
        (_LOAD, _ARCHITECTURE, "next", "next"),
        (_IF_EQUAL, _ARCHITECTURES[machine], "next", "refuse"),
        (_LOAD, _NUMBER, "next", "next"),
        (_IF_AT_LEAST, _OTHER_NUMBERS, "refuse", "next"),
        *((_IF_EQUAL, number, "refuse", "next") for number in _TAKEN[machine]),
        (_IF_EQUAL, _CLONE[machine], "next", "allow"),
        (_LOAD, _FLAGS, "next", "next"),
        (_IF_ANY_BIT, _NEW_NAMESPACES, "refuse", "allow"),
    ]
    packed = b""
    for left, (code, value, yes, no) in zip(reversed(range(len(steps))), steps, strict=True):
        skipped = {"next": 0, "allow": left, "refuse": left + 1}
        packed += struct.pack("=HBBI", code, skipped[yes], skipped[no], value)
    return packed + struct.pack("=HBBIHBBI", _RETURN, 0, 0, _ALLOWED, _RETURN, 0, 0, _REFUSED)
