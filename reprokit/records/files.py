"""Atomic writes and JSON lines: a reader sees the old file or the whole new one, never a half."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reprokit.errors import UserError

T = TypeVar("T")


class DamagedFileError(UserError, ValueError):
    """A file of ours that is not of its shape; the message names it."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, durable once this returns.

    Raises:
        OSError: the folder cannot be written or the disk is full; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):  # the folder may have been removed, which is then the error to be told
            os.unlink(temporary)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Make what was written to a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync folders, and need not.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Like `write_bytes`, for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` (plain data or msgspec structs) as indented JSON, keys in their own order."""
    write_text(path, json.dumps(msgspec.to_builtins(value), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, shape: type[T]) -> T:
    """Read a JSON file into `shape`.

    Raises:
        FileNotFoundError: no such file.
        DamagedFileError: not JSON, or not of that shape.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}. Move it away; the next launch makes it again.") from error


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object per line, atomically."""
    write_bytes(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def read_json_lines(path: Path, shape: type[T]) -> Iterator[T]:
    """Yield the rows of a JSON-lines file.

    Raises:
        DamagedFileError: a line is damaged; the message names the line too.
    """
    decoder = msgspec.json.Decoder(shape)
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DamagedFileError(f"{path}, line {number} is damaged: {error}") from error


def cut_off_half_a_line(path: Path) -> None:
    """Remove what a process that was killed left at the end of a file of lines: a line without its end."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def move_aside(path: Path) -> Path:
    """Rename a damaged file or folder to `<name>.damaged_NN`; returns where it is now."""
    names = (path.with_name(f"{path.name}.damaged_{number:02d}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    os.rename(path, aside)
    return aside


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's content, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
