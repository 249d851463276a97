"""The code of a launch, copied into the run folder: jobs run it as it was when they were submitted."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reprokit.errors import UserError
from reprokit.recipe.load import RECIPES
from reprokit.records.files import DamagedFileError, move_aside, read_json, sync, write_json
from reprokit.records.provenance import SNAPSHOT_FILE, code_state
from reprokit.records.run_directory import RunDirectory

DIGEST = "REPROKIT_SNAPSHOT"
FOLDER = "REPROKIT_SNAPSHOT_FOLDER"
PACKAGES = ("reprokit", "analysis")
ATTEMPTS = 5
PAUSE_SECONDS = 0.3
_SYNCING = 16  # files at a time: a file system puts many on the disk as fast as one


@dataclass(frozen=True)
class Snapshot:
    """A whole copy of the code; `digest` is the sha256 over the paths and contents of its files."""

    folder: Path
    digest: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which Python runs the snapshot, and `check_running_code` can tell that it does."""
        earlier = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        others = [entry for entry in earlier if entry and entry not in (str(self.folder), os.environ.get(FOLDER))]
        return {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *others]),
            "PYTHONSAFEPATH": "1",  # python -m would look in the current folder first, which may be the checkout
            DIGEST: self.digest,
            FOLDER: str(self.folder),
        }


def take(run: RunDirectory) -> Snapshot:
    """Copy the running code to `code/<start of its digest>/` of the run folder; what is there and whole is used again.

    The folder appears in one step, when all its files are on the disk and have been read again. One that is damaged is
    moved aside and made anew.

    Raises:
        UserError: the run folder cannot be written, or files of the code kept changing while they were copied.
    """
    folder = Path(os.path.abspath(run.code))
    try:
        for _ in range(ATTEMPTS):
            folder.mkdir(parents=True, exist_ok=True)
            if (snapshot := _attempt(folder)) is not None:
                return snapshot
            time.sleep(PAUSE_SECONDS)
    except OSError as error:
        raise UserError(
            f"the code cannot be copied to {folder}: {error.strerror}. Free space or make the folder writable; "
            "`runs` of the cluster profile puts run folders elsewhere."
        ) from error
    raise UserError(
        f"the code in {', '.join(map(str, _sources().values()))} changed while it was copied to {folder}, {ATTEMPTS} "
        "times. Wait until your editor, git or whatever synchronises files has finished, and launch again."
    )


def check_running_code() -> None:
    """See that this process runs the snapshot that its job was submitted with; without one, all is well.

    Raises:
        UserError: `reprokit` or `analysis` is imported from somewhere else.
    """
    expected = os.environ.get(FOLDER)
    if expected is None:
        return
    for name in PACKAGES:
        place = _place(name)
        if place is not None and os.path.realpath(place) == os.path.realpath(os.path.join(expected, name)):
            continue
        if not os.path.isdir(os.path.join(expected, name)):
            raise UserError(f"the code that this job was submitted with is gone: {expected}. Launch again.")
        raise UserError(
            f"{name} is imported from {place}, not from {expected}, the code that this job was submitted with: its "
            "PYTHONPATH was changed. Let `setup` and `python` of the cluster profile extend PYTHONPATH, not replace it "
            "(export PYTHONPATH=/mine${PYTHONPATH:+:$PYTHONPATH}; apptainer without --cleanenv), and launch again."
        )


def _attempt(folder: Path) -> Snapshot | None:
    """The whole snapshot, there already or new; None if the code changed meanwhile or another process was faster."""
    files = _read(_sources())
    if files is None:
        return None
    digest = _digest(files)
    final = folder / digest[:16]
    if _is_whole(final, digest):
        _note_commit(final, digest)
        return Snapshot(final, digest)
    if final.exists():
        move_aside(final)  # jobs that run it find the new one, whose code is the same, under its name
    draft = Path(tempfile.mkdtemp(dir=folder, prefix=f".{final.name}."))
    try:
        _write(draft, files)
        _note_commit(draft, digest)
        # What it was made from is read again too: its files may have been saved one after the other.
        changed = _read(_sources()) != files
        if changed or not _is_whole(draft, digest):
            return None
        draft.chmod(0o755)
        os.rename(draft, final)
    except OSError:
        if final.exists():  # another process was faster; what it made is looked at next
            return None
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync(folder)
    return Snapshot(final, digest)


def _place(package: str) -> Path | None:
    """The folder that a package is imported from."""
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _sources() -> dict[str, Path]:
    """Folders of what jobs run and read, by their names in the snapshot: all lie beside this very package.

    Figures are told from the paper's recipes, which an installed wheel has not.
    """
    root = Path(__file__).resolve().parents[2]
    return {name: root / name for name in (*PACKAGES, RECIPES.name) if (root / name).is_dir()}


def _read(places: Mapping[str, Path]) -> dict[str, bytes] | None:
    """Content of every file by its path in the snapshot; None if one vanished meanwhile."""
    try:
        return {f"{name}/{path}": (place / path).read_bytes() for name, place in places.items() for path in _in(place)}
    except FileNotFoundError:
        return None


def _in(place: Path) -> Iterator[str]:
    """Paths of the files below a folder; hidden ones (.env, what editors leave) are no code."""
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and not name.endswith((".pyc", "~")):
                yield Path(folder, name).relative_to(place).as_posix()


def _digest(files: Mapping[str, bytes]) -> str:
    """The sha256 over paths and contents, each after its length, in the order of the paths."""
    digest = hashlib.sha256()
    for path in sorted(files):
        for part in (path.encode(), files[path]):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _is_whole(folder: Path, digest: str) -> bool:
    """Whether a snapshot has all its files, and they are as they were."""
    try:
        read_json(folder / SNAPSHOT_FILE, dict[str, Any])
        places = {path.name: path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        files = _read(places)
    except (OSError, DamagedFileError):
        return False
    return files is not None and _digest(files) == digest


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    _sync_all([*(folder / name for name in files), *(path for path in folder.rglob("*") if path.is_dir())])


def _sync_all(paths: Iterable[Path]) -> None:
    with ThreadPoolExecutor(_SYNCING) as pool:
        list(pool.map(sync, paths))


def _note_commit(folder: Path, digest: str) -> None:
    """Write what git says of the code; the same code is known better by a commit than by changes to an older one."""
    path = folder / SNAPSHOT_FILE
    state = {**code_state(), "sha256": digest}
    if not path.exists() or (state.get("dirty") is False and read_json(path, dict[str, Any]) != state):
        write_json(path, state)
