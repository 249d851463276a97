"""Rows of benchmark files in their upstream form: .jsonl, .json, .csv, .parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from reprokit.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
Kind = type | UnionType
_NAMES = {str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}


def read_rows(path: Path, columns: Mapping[str, Kind] | None = None) -> list[dict[str, Any]]:
    """All rows of a file, each with at least `columns`, whose values are of the types that these have.

    A .json file holds a list of objects, or an object per line as some data sets have it.

    Raises:
        UserError: an unknown suffix, a file that cannot be read, no rows, or a row in which one of `columns` is
            missing or of another type; the message names the row.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of benchmark file; valid suffixes: {', '.join(SUFFIXES)}")
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _text(path)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix}: {error}") from error
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    for number, row in enumerate(rows, start=1):
        _check(path, number, row, columns or {})
    return rows


def _text(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if path.suffix == ".json" and text.lstrip().startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _parquet(path: Path) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path).to_pylist())
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _check(path: Path, number: int, row: Any, columns: Mapping[str, Kind]) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{path}, row {number}: a {type(row).__name__} instead of an object with named columns")
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        found = ", ".join(str(column) for column in row) or "none"
        raise UserError(f"{path}, row {number}: no {', '.join(missing)}; its columns are {found}")
    for column, wanted in columns.items():
        if not isinstance(row[column], wanted):
            found, valid = _named(type(row[column])), _named(wanted)
            raise UserError(f"{path}, row {number}: {column} is {found}; it must be {valid}, as upstream has it")


def _named(kind: Kind) -> str:
    kinds = get_args(kind) or (kind,)
    return " or ".join(_NAMES.get(one, f"of type {one.__name__}") for one in kinds)
