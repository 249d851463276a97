"""Where the problems of a run are from, and whether they are those that the recipe asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from reprokit import benchmarks
from reprokit.benchmarks.grading.files import SUFFIXES
from reprokit.errors import UserError
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import Recipe
from reprokit.records.files import DamagedFileError, read_json
from reprokit.records.run_directory import RunDirectory


class ItemsSource(msgspec.Struct, kw_only=True):
    """`items/<benchmark>.source.json`: where the problems are from, and the sha256 of the file of problems.

    `asked` is what the recipe said; `stamps` are size and time of the local files by path. `files` has the sha256 of
    the upstream files by name, `revision` the hub commit that was taken.
    """

    benchmark: str
    asked: dict[str, Any]
    items: str
    count: int
    hub_id: str | None = None
    revision: str | None = None
    files: dict[str, str] = msgspec.field(default_factory=dict)
    stamps: dict[str, str] = msgspec.field(default_factory=dict)


def asked_of(recipe: Recipe, name: str) -> dict[str, Any]:
    """What the recipe says of the problems of a benchmark."""
    section = recipe.evaluation.benchmarks[name]
    return {"items": sampling(recipe.evaluation, name).items, "path": section.path, "revision": section.revision}


def local_files(name: str, path: Path) -> list[Path]:
    """The files of a benchmark at `path`: itself, or those in a folder that are named as upstream, else all.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return [path]
    upstream = benchmarks.get(name).upstream
    named = {file for pattern in (upstream.files if upstream else ()) for file in path.glob(pattern) if file.is_file()}
    files = named or {file for file in path.rglob("*") if file.suffix in SUFFIXES}
    if not files:
        raise UserError(f"evaluation.benchmarks.{name}.path={path} holds no benchmark file ({', '.join(SUFFIXES)})")
    return sorted(files)


def stamps(files: list[Path]) -> dict[str, str]:
    """Size and time of each file: they change with the content, and are quickly read."""
    return {str(file): f"{file.stat().st_size} bytes, {file.stat().st_mtime_ns}" for file in files}


def current_source(run: RunDirectory, recipe: Recipe, name: str) -> ItemsSource | None:
    """The source of the problems that are prepared; None if they are not those that the recipe asks for.

    Local files that are gone, as on another machine, are taken as unchanged.
    """
    try:
        source = read_json(run.items_source(name), ItemsSource)
    except (FileNotFoundError, DamagedFileError):
        return None
    path = recipe.evaluation.benchmarks[name].path
    if source.asked != asked_of(recipe, name):
        return None
    if path is not None and Path(path).exists() and stamps(local_files(name, Path(path))) != source.stamps:
        return None
    return source
