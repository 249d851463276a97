"""Training rows: a conversation and the response to learn, from a file or a generator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from reprokit.data import countdown
from reprokit.data.faults import RowFaults
from reprokit.errors import UserError
from reprokit.recipe.derived import rows_of_file
from reprokit.recipe.registry import DATA_SUFFIXES

GENERATORS: dict[str, Callable[[int, int], Iterator[tuple[str, str]]]] = {"countdown": countdown.training_pairs}
COLUMNS = ("message", "response")
_BATCH = 256


class Row(msgspec.Struct):
    """One training row: turns of `role` and `content`, and the response to the last of them."""

    message: list[dict[str, str]]
    response: str


def from_generator(name: str, count: int, seed: int) -> Iterator[Row]:
    """Yield `count` procedural rows.

    Raises:
        UserError: no such generator, or it cannot make that many different rows.
    """
    if name not in GENERATORS:
        raise UserError(f"unknown data generator {name!r}; valid: {', '.join(GENERATORS)}")
    for prompt, response in GENERATORS[name](count, seed):
        yield Row([{"role": "user", "content": prompt}], response)


def from_file(path: Path) -> Iterator[Row]:
    """Yield the rows of a `.parquet` or `.jsonl` file in file order.

    `message` is a list of {role, content}, or a string that stands for one user turn; `response` is a string with
    more than white space. Further columns are ignored. From the first broken row on, rows are checked only.

    Raises:
        UserError: no such file, unknown suffix, no rows, or broken rows; the message names file and rows.
    """
    _check_file(path)
    faults = RowFaults(str(path))
    number = 0
    for number, read in enumerate(_parquet(path) if path.suffix == ".parquet" else _json_lines(path), start=1):
        try:
            row = _row(read())
        except _BrokenRow as error:
            faults.add(number, str(error))
            continue
        if not faults.count:
            yield row
    faults.check()
    if number == 0:
        raise UserError(f"{path}: the file has no rows")


def count(path: Path) -> int:
    """Number of rows of a data file, without reading their columns.

    Raises:
        UserError: no such file, unknown suffix, or not a readable parquet file.
    """
    _check_file(path)
    try:
        return rows_of_file(path)
    except ValueError as error:
        raise UserError(str(error)) from error


class _BrokenRow(Exception):
    """What is wrong with a row."""


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such data file")
    if path.suffix not in DATA_SUFFIXES:
        raise UserError(f"{path}: unknown kind of data file; valid suffixes: {', '.join(DATA_SUFFIXES)}")


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a readable parquet file: {error}") from error


def _parquet(path: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    with _open_parquet(path) as file:
        if complaint := _missing_columns(file.schema_arrow.names):
            raise UserError(f"{path}: {complaint}")
        for batch in file.iter_batches(batch_size=_BATCH, columns=list(COLUMNS)):
            for columns in batch.to_pylist():
                yield partial(dict, columns)


def _json_lines(path: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    with path.open("rb") as stream:
        for line in stream:
            yield partial(_parse_line, line)


def _parse_line(line: bytes) -> dict[str, Any]:
    try:
        columns = json.loads(line)
    except ValueError as error:
        raise _BrokenRow(f"not JSON: {error}") from error
    if not isinstance(columns, dict):
        raise _BrokenRow(f"a JSON {_kind(columns)}; valid: an object per line")
    if complaint := _missing_columns(columns):
        raise _BrokenRow(complaint)
    return columns


def _missing_columns(names: Iterable[str]) -> str | None:
    found = list(names)
    missing = [name for name in COLUMNS if name not in found]
    if not missing:
        return None
    return f"no column {' or '.join(missing)}; found: {', '.join(map(str, found)) or 'none'}"


def _row(columns: dict[str, Any]) -> Row:
    message, response = columns["message"], columns["response"]
    if isinstance(message, str):
        message = [{"role": "user", "content": message}]
    if not isinstance(message, list) or not message:
        raise _BrokenRow(f"message is {_kind(message)}; valid: turns of {{role, content}}, or a string")
    for position, turn in enumerate(message, start=1):
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise _BrokenRow(f"turn {position} of message is {turn!r:.80}; valid: role and content, both text")
    if not isinstance(response, str) or not response:
        raise _BrokenRow(f"response is {_kind(response)}; valid: text that is not empty")
    if not response.strip():
        raise _BrokenRow("response is white space only; valid: text to learn")
    row = Row([{"role": turn["role"], "content": turn["content"]} for turn in message], response)
    try:
        msgspec.json.encode(row)
    except UnicodeEncodeError as error:
        raise _BrokenRow(f"text that is not Unicode: {error}") from error
    return row


def _kind(value: Any) -> str:
    if value is None:
        return "missing (null)"
    return f"empty {type(value).__name__}" if value in ("", [], {}) else type(value).__name__
