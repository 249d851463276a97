"""Rows that cannot be trained on: all are counted, the first few are told."""

from __future__ import annotations

from reprokit.errors import UserError

SHOWN = 5


class RowFaults:
    """What is wrong with which row of `origin` (a file; None for rows that are in none); rows count from 1."""

    def __init__(self, origin: str | None = None) -> None:
        self.count = 0
        self._where = f"{origin}, " if origin else ""
        self._told: list[str] = []

    def add(self, row: int, what: str) -> None:
        """Note one bad row."""
        self.count += 1
        if self.count <= SHOWN:
            self._told.append(f"{self._where}row {row}: {what}")

    def check(self) -> None:
        """Raises UserError if any row was bad: the first ones, a line each, and how many more there are."""
        if not self.count:
            return
        more = self.count - len(self._told)
        raise UserError("\n".join([*self._told, *([f"and {more:,} more such rows"] if more else [])]))
