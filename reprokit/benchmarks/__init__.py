"""Benchmarks, one file each: a module of this package that has a `BENCHMARK`.

To add one, write `<name>.py` with `BENCHMARK = Benchmark(...)`; recipes name it by its file.
"""

from __future__ import annotations

import importlib

from reprokit.benchmarks.interface import Benchmark
from reprokit.errors import UserError
from reprokit.recipe.registry import QUESTIONS, benchmark_names


def get(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        UserError: there is none; the message lists those that there are.
    """
    if name not in (*benchmark_names(), QUESTIONS):
        raise UserError(f"unknown benchmark {name!r}; valid: {', '.join(benchmark_names())}")
    benchmark: Benchmark = importlib.import_module(f"{__name__}.{name}").BENCHMARK
    return benchmark
