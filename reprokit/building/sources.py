"""Rows of upstream data sets, from local files or from the hub; read one after the other, as they are large."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reprokit.building.schema import BaseSection, FilesSection
from reprokit.data.prompts import BOX_INSTRUCTION
from reprokit.errors import UserError
from reprokit.preparation.hub import fetching
from reprokit.recipe.registry import DATA_SUFFIXES
from reprokit.records.files import sha256_of_file

_BATCH = 64  # rows: some have several long responses
_SURROGATE = rb"\ud"


def find(key: str, section: FilesSection, datasets: Path) -> tuple[list[Path], dict[str, Any]]:
    """Local paths of the files of a source, fetched if need be, and what is recorded of them.

    Args:
        key: of the recipe, for messages.
        datasets: folder of the data sets that were built here.

    Raises:
        UserError: there is no such file, or it cannot be fetched.
    """
    facts: dict[str, Any] = {}
    if isinstance(section, BaseSection) and section.dataset is not None:
        files = [datasets / section.dataset / f"{section.dataset}.parquet"]
        if not files[0].is_file():
            raise UserError(
                f"{key}.dataset={section.dataset}: {files[0]} is not there. Build it first, or take the published "
                f"one: {key}.dataset=null {key}.hub_id=jasonrqh/{section.dataset}"
            )
        facts = {"dataset": section.dataset}
    elif section.path is not None:
        files = _local(key, Path(section.path), section.files)
    else:
        folder = _fetch(key, section)
        files = sorted({path for pattern in section.files for path in folder.glob(pattern) if path.is_file()})
        if not files:
            named = ", ".join(section.files)
            raise UserError(f"{section.hub_id} has no file like {named}: set {key}.files to patterns of its names")
        facts = {"hub_id": section.hub_id, "revision": folder.name}
    return files, {**facts, "files": {path.name: sha256_of_file(path) for path in files}}


def _local(key: str, path: Path, patterns: Sequence[str]) -> list[Path]:
    if path.is_file():
        return [path]
    named = {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    files = named or {file for file in path.rglob("*") if file.suffix in DATA_SUFFIXES}
    if not files:
        raise UserError(f"{key}.path={path} holds no data file ({', '.join(DATA_SUFFIXES)})")
    return sorted(files)


def _fetch(key: str, section: FilesSection) -> Path:
    from huggingface_hub import snapshot_download

    assert section.hub_id is not None
    advice = f"Check the id and the network of this machine, or set {key}.hub_id=null {key}.path=FILE_OR_FOLDER"
    with fetching(f"{key}.hub_id={section.hub_id} (revision {section.revision or 'default'})", advice):
        return Path(
            snapshot_download(
                section.hub_id, repo_type="dataset", revision=section.revision, allow_patterns=section.files
            )
        )


def rows(files: Sequence[Path], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of .parquet and .jsonl files, in order, of which only `columns` are read.

    Raises:
        UserError: a file cannot be read, or a column is missing; the message names file and row.
    """
    for path in files:
        if not path.is_file():
            raise UserError(
                f"{path} is gone. Put it back, or remove prepared.json of the data set, and give the same command"
            )
        if path.suffix == ".parquet":
            yield from _parquet(path, columns)
        elif path.suffix == ".jsonl":
            yield from _json_lines(path, columns)
        else:
            raise UserError(f"{path}: unknown kind of data file; valid suffixes: {', '.join(DATA_SUFFIXES)}")


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(str(path), file.schema_arrow.names, columns)
            for batch in file.iter_batches(batch_size=_BATCH, columns=list(columns)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable parquet file: {error}") from error


def _json_lines(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line)
                if _SURROGATE in line.lower():  # half of a pair stands for no character: no file can hold it
                    json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not usable JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: a {type(row).__name__} instead of an object")
            _check_columns(f"{path}, line {number}", list(row), columns)
            yield {column: row[column] for column in columns}


def _check_columns(place: str, found: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in found]:
        raise UserError(f"{place}: no column {' or '.join(missing)}; found: {', '.join(found) or 'none'}")


def text(value: Any) -> str:
    """A value that should be text, without blanks around it; empty for anything else."""
    return value.strip() if isinstance(value, str) else ""


def listed(value: Any) -> list[Any]:
    """A value that should be a list; empty for anything else."""
    return value if isinstance(value, list) else []


def last_turn(turns: Any, role: str) -> str:
    """What was said last in the turns of `role`; empty if nothing was, or they are no turns."""
    said = [turn for turn in listed(turns) if isinstance(turn, dict) and turn.get("role") == role]
    return text(said[-1].get("content")) if said else ""


def question_of(prompt: str) -> str:
    """A question without the instruction that ends a training prompt."""
    return prompt.removesuffix(BOX_INSTRUCTION.strip()).strip()


def normal(question: str) -> str:
    """What two questions have in common that count as the same: all but the amount of white space."""
    return " ".join(question.split())
