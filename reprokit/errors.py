"""Errors that a person or the cluster can act on; commands print those for people without a traceback."""

from __future__ import annotations

from collections.abc import Mapping


class UserError(Exception):
    """Something only the person at the keyboard can put right: the message says what, and how."""


class NodeError(UserError):
    """A node of the cluster is at fault: the job is to be tried again without it."""

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node  # its name in Slurm; None: which one it is cannot be told


def together(problems: Mapping[str, UserError]) -> UserError:
    """One error for several, by what is said of each: one that is tried again if any of them is."""
    kind = NodeError if any(isinstance(error, NodeError) for error in problems.values()) else UserError
    return kind("\n".join(problems))


class Interrupted(BaseException):
    """The job was told to leave by a signal, and what it had is saved.

    Like KeyboardInterrupt no `Exception`: what makes the best of every error must not go on after it.
    """
