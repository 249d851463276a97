"""The file of a data set: the columns of those that the paper's authors published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from reprokit.records.files import sha256_of_file, write_bytes

ADVANTAGE = 1.0  # a column that their trainer wants and does not use
_SCHEMA = pa.schema(
    [
        ("message", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("response", pa.string()),
        ("advantage", pa.float64()),
        ("answer", pa.string()),
    ]
)
_ROWS_PER_GROUP = 1000


class BuiltRow(msgspec.Struct):
    """One row: turns of `role` and `content`, the response to them, the final answer; `advantage` is always 1."""

    message: list[dict[str, str]]
    response: str
    answer: str
    advantage: float = ADVANTAGE

    @property
    def prompt(self) -> str:
        return self.message[-1]["content"]


def write_rows(path: Path, rows: Sequence[BuiltRow]) -> str:
    """Write a parquet file atomically; returns its sha256. The same rows give the same bytes."""
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, _SCHEMA, compression="zstd") as writer:
        for start in range(0, len(rows), _ROWS_PER_GROUP):
            part = [msgspec.to_builtins(row) for row in rows[start : start + _ROWS_PER_GROUP]]
            writer.write_table(pa.Table.from_pylist(part, schema=_SCHEMA))
    write_bytes(path, buffer.getvalue())
    return sha256_of_file(path)
