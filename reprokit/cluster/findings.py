"""One line of what a look at a cluster gives: well, a warning, or a problem with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is: a warning may well be meant so, with a problem no run comes to its end."""

    ok = "ok"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """`what` was looked at, what was `found` there, and what `to_do`."""

    level: Level
    what: str
    found: str
    to_do: str = ""


def ok(what: str, found: str, note: str = "") -> Finding:
    return Finding(Level.ok, what, found, note)


def warning(what: str, found: str, to_do: str) -> Finding:
    return Finding(Level.warning, what, found, to_do)


def problem(what: str, found: str, to_do: str) -> Finding:
    return Finding(Level.problem, what, found, to_do)
