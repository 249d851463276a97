"""What every reader gives: the numbers of a results file under the names that this kit has for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

PASS_AT_1 = "pass@1"
_LARGEST = 1e15  # nothing that is measured or counted is larger; nor do its square and its error overflow
# A benchmark of this kit and, by the harness's name of a metric, our name; the first that a file has is the headline.
Known = tuple[str, Mapping[str, str]]
IFEVAL_METRICS = {
    "inst_level_strict_acc": "instruction-level strict",
    "prompt_level_strict_acc": "prompt-level strict",
    "inst_level_loose_acc": "instruction-level loose",
    "prompt_level_loose_acc": "prompt-level loose",
}


@dataclass(frozen=True)
class Number:
    """One number of one task.

    `value` and `standard_error` are shares in 0..1 where `unit` is percent, else as the file has them. The standard
    error is over problems; None where the file has none, or one over something else. A field that is not known is None.
    `remark` is what a reader has to know, such as the few-shot examples.
    """

    task: str
    benchmark: str
    metric: str
    value: float
    unit: Literal["percent", "score"]
    standard_error: float | None = None
    items: int | None = None
    samples: int | None = None
    headline: bool = False
    remark: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What was read of one file; `left_out` says of each thing that was not taken what it is and why."""

    harness: str
    version: str | None
    model: str | None
    numbers: list[Number]
    left_out: list[str] = field(default_factory=list)


def section(content: Any, key: str) -> dict[str, Any]:
    """A part of a file that should be a mapping; an empty one where it is not."""
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def number(value: object) -> float | None:
    """A finite number of a size that can be; None for anything else, such as the text `N/A`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        return None
    return float(value)


def count(value: object) -> int | None:
    """A number of things, at least 1; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found >= 1 and found == int(found) else None


def text(value: object) -> str | None:
    """Text that says something and can be printed; None for anything else, and for the `?` of an unknown version."""
    return value if isinstance(value, str) and value not in ("", "?") and value.isprintable() else None


def arranged(numbers: Iterable[Number]) -> list[Number]:
    """By benchmark, its headline marked: of every task the first number.

    Of several tasks of one benchmark the first keeps its name, the others are benchmarks named after their task.
    """
    owners: dict[str, str] = {}
    found: list[Number] = []
    for one in numbers:
        if owners.setdefault(one.benchmark, one.task) != one.task:
            one = replace(one, benchmark=one.task)
            owners[one.benchmark] = one.task
        is_first = all(other.benchmark != one.benchmark for other in found)
        found.append(replace(one, headline=is_first))
    return sorted(found, key=lambda one: one.benchmark)
