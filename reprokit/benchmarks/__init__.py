"""Benchmarks, one file each: a module of this package that has a `BENCHMARK`.

To add one, write `<name>.py` with `BENCHMARK = Benchmark(...)`; recipes name it by its file.
"""

from __future__ import annotations

import importlib
import pkgutil

from reprokit.benchmarks.interface import Benchmark
from reprokit.errors import UserError


def names() -> tuple[str, ...]:
    """Names of all benchmarks, sorted; imports none of them."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg and m.name != "interface"))


def get(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        UserError: there is none; the message lists those that there are.
    """
    if name not in names():
        raise UserError(f"unknown benchmark {name!r}; valid: {', '.join(names())}")
    benchmark: Benchmark = importlib.import_module(f"{__name__}.{name}").BENCHMARK
    return benchmark
