"""A table as Markdown (GitHub's)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from analysis.tables.model import Cell, Piece, Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$#])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str) -> str:
    """`text` on one line, every character standing for itself."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return "".join(_ENTITIES.get(char, char) for char in _SPECIAL.sub(r"\\\1", line))


def markdown(table: Table) -> str:
    """Title, caption, table and notes."""
    parts = [f"# {escape(table.title)}", escape(table.caption), "\n".join(_lines(table))]
    notes = [
        f"- <sup>{note.mark}</sup> {escape(note.text)}" if note.mark else f"- {escape(note.text)}"
        for note in table.notes
    ]
    return "\n\n".join([*filter(None, parts), *(["\n".join(notes)] if notes else [])]) + "\n"


def _lines(table: Table) -> Iterator[str]:
    columns = len(table.header)
    sections = list(dict.fromkeys(row.section for row in table.rows))
    yield _line(map(escape, table.header))
    yield _line("---" for _ in range(columns))
    for section in sections:
        if len(sections) > 1:
            yield _line([f"**{escape(section)}**", *[""] * (columns - 1)])
        for row in table.rows:
            if row.section == section:
                yield _line([*map(escape, row.heads), *map(_cell, row.cells)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return "<br>".join(map(_piece, cell.pieces))


def _piece(piece: Piece) -> str:
    text = escape(piece.text) if piece.kind == "text" else piece.text
    return f"{text}<sup>{','.join(piece.marks)}</sup>" if piece.marks else text
