"""Training rows: a conversation and the response to learn, from a file or a generator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from reprokit.data import countdown
from reprokit.errors import UserError
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

    `message` is a list of {role, content}, or a string that stands for one user turn; `response` is a string.
    Further columns are ignored.

    Raises:
        UserError: no such file, unknown suffix, no rows, or a broken row; the message names file and row.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such data file")
    if path.suffix not in DATA_SUFFIXES:
        raise UserError(f"{path}: unknown kind of data file; valid suffixes: {', '.join(DATA_SUFFIXES)}")
    number = 0
    for number, columns in enumerate(_parquet(path) if path.suffix == ".parquet" else _json_lines(path), start=1):
        yield _row(columns, f"{path}, row {number}")
    if number == 0:
        raise UserError(f"{path}: the file has no rows")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(batch_size=_BATCH, columns=list(COLUMNS)):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a readable parquet file: {error}") from error


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                columns = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, row {number}: not JSON: {error}") from error
            if not isinstance(columns, dict):
                raise UserError(f"{path}, row {number}: a JSON {_kind(columns)}; valid: an object per line")
            _check_columns(columns, f"{path}, row {number}")
            yield columns


def _check_columns(names: Iterable[str], where: str) -> None:
    found = list(names)
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UserError(f"{where}: no column {' or '.join(missing)}; found: {', '.join(map(str, found)) or 'none'}")


def _row(columns: dict[str, Any], where: str) -> Row:
    message, response = columns["message"], columns["response"]
    if isinstance(message, str):
        message = [{"role": "user", "content": message}]
    if not isinstance(message, list) or not message:
        raise UserError(f"{where}: message is {_kind(message)}; valid: turns of {{role, content}}, or a string")
    for position, turn in enumerate(message, start=1):
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise UserError(f"{where}: turn {position} of message is {turn!r:.80}; valid: role and content, both text")
    if not isinstance(response, str) or not response:
        raise UserError(f"{where}: response is {_kind(response)}; valid: text that is not empty")
    row = Row([{"role": turn["role"], "content": turn["content"]} for turn in message], response)
    try:
        msgspec.json.encode(row)
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: text that is not Unicode: {error}") from error
    return row


def _kind(value: Any) -> str:
    if value is None:
        return "missing (null)"
    return f"empty {type(value).__name__}" if value in ("", [], {}) else type(value).__name__
