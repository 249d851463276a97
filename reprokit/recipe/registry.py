"""What a recipe can name, told without importing it: recipes are checked where nothing heavy may be loaded."""

from __future__ import annotations

from pathlib import Path

GENERATORS = ("countdown",)  # procedural training rows: the keys of reprokit.data.rows.GENERATORS
DATA_SUFFIXES = (".parquet", ".jsonl")
QUESTIONS = "_questions"  # those of a data set that is built: not a benchmark to choose
SMALLEST_VOCABULARY = 261  # of a trained tokenizer: 256 bytes, the special tokens and the think tags

_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def benchmark_names() -> tuple[str, ...]:
    """Every benchmark, sorted: the files of `reprokit/benchmarks/`, but for its interface."""
    return tuple(sorted(path.stem for path in _BENCHMARKS.glob("[a-z]*.py") if path.stem != "interface"))
