"""A job as the campaign asks for it, before any scheduler knows of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reprokit.cluster.profile import Resources


def stage_in(name: str) -> str:
    """The stage that a name begins with: of one of several arrays (`evaluate.2`), or of a job in the queue."""
    return name.partition(".")[0]


@dataclass(frozen=True)
class Job:
    """One job or array job of the run `run`.

    `function` is called once per element of `elements` with those arguments, in every task of the element.

    Several elements make an array job. `after` names the jobs it waits for, with `needs_success` only if they
    succeed. One that `comes_back` is started again when it is killed: nobody else would do that.
    """

    run: str
    name: str
    function: Callable[..., None]
    elements: tuple[tuple[Any, ...], ...]
    resources: Resources
    after: tuple[str, ...] = ()
    needs_success: bool = True
    description: str = ""  # what it does, for people
    comes_back: bool = False

    def of(self, elements: Sequence[tuple[Any, ...]]) -> Job:
        """The same with these elements alone."""
        return replace(self, elements=tuple(elements))
