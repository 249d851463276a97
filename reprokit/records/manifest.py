"""Folders that are complete or not there at all: written aside, synced, sealed by `manifest.json`, renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import msgspec

from reprokit.errors import UserError
from reprokit.records.files import DamagedFileError, read_json, sha256_of_file, sync, write_json

NAME = "manifest.json"
GIB = 1024**3


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size and content of one file."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`manifest.json` of a checkpoint or a resumable state: `files` has every other file by its path in the folder.

    `weights` names another folder when the checkpoint is a model that lies elsewhere (then `files` is empty).
    `revision` is the hub commit of a model that was fetched.
    """

    step: int
    files: dict[str, FileEntry] = msgspec.field(default_factory=dict)
    weights: Optional[str] = None
    revision: Optional[str] = None


def flaw(folder: Path) -> str | None:
    """Why `folder` is not complete, told from its manifest and the sizes of its files; None if it is."""
    try:
        manifest = read_json(folder / NAME, Manifest)
    except FileNotFoundError:
        return f"{folder / NAME} is missing"
    except DamagedFileError as error:
        return str(error)
    for name, entry in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return f"{folder / name} is missing"
        if size != entry.bytes:
            return f"{folder / name} has {size:,} bytes instead of {entry.bytes:,}"
    return None


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder that is complete by the sizes of its files; None for any other."""
    return read_json(folder / NAME, Manifest) if flaw(folder) is None else None


def changed(folder: Path, names: Iterable[str]) -> str | None:
    """Which of the files `names` of a complete folder has not the content that the manifest says; None if all have."""
    manifest = read_json(folder / NAME, Manifest)
    for name in names:
        if sha256_of_file(folder / name) != manifest.files[name].sha256:
            return f"the content of {folder / name} is not what was written (its sha256 differs from {NAME})"
    return None


def verify(folder: Path) -> None:
    """Read every file of `folder`.

    Raises:
        UserError: the folder is not complete or a file of it has another content; the message names the file.
    """
    reason = flaw(folder) or changed(folder, read_json(folder / NAME, Manifest).files)
    if reason is not None:
        raise UserError(
            f"{folder} is damaged: {reason}.\nMove the folder away and launch again: what can be made without it is "
            "made, and what cannot is listed as missing."
        )


@dataclass(frozen=True)
class Draft:
    """A folder that is being written; `files` may take those whose writer has synced and hashed them already."""

    folder: Path
    files: dict[str, FileEntry] = field(default_factory=dict)


def aside_of(final: Path) -> Path:
    """Where the folder `final` is while it is written."""
    return final.with_name(f".{final.name}.partial")


@contextmanager
def draft(final: Path, step: int, needed: int, revision: str | None = None) -> Iterator[Draft]:
    """Write into the draft; when the block ends, all files are synced and listed, and the folder becomes `final`.

    An older `final` is replaced. If anything fails, no folder is left.

    Args:
        needed: bytes that will be written, about.
        revision: hub commit of what the folder is made from.

    Raises:
        UserError: the disk is too small or full, or the folder cannot be written.
    """
    aside = aside_of(final)
    try:
        with joined_draft(final, needed) as made:
            shutil.rmtree(aside, ignore_errors=True)
            final.parent.mkdir(exist_ok=True)  # not the folder above: a run folder that was removed stays away
            aside.mkdir()
            if shutil.disk_usage(aside).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(final.parent))
            yield made
            _seal(made, step, revision)
            _put_in_place(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def joined_draft(final: Path, needed: int) -> Iterator[Draft]:
    """A draft that another process begins and puts in place; arguments and errors are those of `draft`."""
    try:
        yield Draft(aside_of(final))
    except OSError as error:
        run = final.parent.parent
        if not run.exists():
            raise UserError(f"{final} was not saved: {run} was removed. Launch again to begin anew.") from error
        raise UserError(
            f"{final} was not saved: {error}. It needs {needed / GIB:,.2f} GiB; {_free(final)}. Make room there, mind "
            "quotas and permissions, and launch again."
        ) from error


def entry(path: Path) -> FileEntry:
    """Make a file durable; returns its size and sha256."""
    sync(path)
    return FileEntry(bytes=path.stat().st_size, sha256=sha256_of_file(path))


def remove(folder: Path) -> None:
    """Remove a folder so that it is never seen incomplete under its name."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(parent: Path) -> None:
    """Remove what processes that were killed while they wrote or removed folders of `parent` left in it."""
    for kind in ("partial", "replaced", "removed"):
        for folder in parent.glob(f".*.{kind}"):
            shutil.rmtree(folder)


def _seal(made: Draft, step: int, revision: str | None) -> None:
    folder = made.folder
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            sync(path)
        elif name not in made.files:
            made.files[name] = entry(path)
    write_json(folder / NAME, Manifest(step=step, files=dict(sorted(made.files.items())), revision=revision))


def _put_in_place(aside: Path, final: Path) -> None:
    replaced = final.with_name(f".{final.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        os.replace(final, replaced)
    os.replace(aside, final)
    sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _free(final: Path) -> str:
    try:
        return f"{final.parent} has {shutil.disk_usage(final.parent).free / GIB:,.2f} GiB free"
    except OSError:
        return f"how much {final.parent} has free cannot be told"
