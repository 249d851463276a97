"""Numbers that follow from a recipe: rows, steps, evaluated steps."""

from __future__ import annotations

import os.path
from functools import lru_cache
from pathlib import Path

from reprokit.recipe.schema import Arithmetic, Precision, Recipe, Source, TrainingSection


def is_all_bf16(training: TrainingSection) -> bool:
    """Whether not even master weights and moments are fp32."""
    return training.arithmetic is Arithmetic.official and training.precision is Precision.bf16


def row_count(recipe: Recipe) -> int | None:
    """Number of training rows: `data.subset`, else all that there are; None when that is not known.

    Raises:
        ValueError: as `available_rows`.
    """
    return recipe.data.subset if recipe.data.subset is not None else available_rows(recipe)


def available_rows(recipe: Recipe) -> int | None:
    """Number of rows to draw a subset of: counted in a local file, else `data.rows`; None when neither is known.

    Raises:
        ValueError: the local file is not a readable parquet file.
    """
    if recipe.data.path is not None and os.path.isfile(recipe.data.path):
        return rows_of_file(Path(recipe.data.path))
    return recipe.data.rows


def steps_of(rows: int, recipe: Recipe) -> int:
    """Optimiser steps over `rows` rows; the last, partial batch of an epoch is dropped, as in the official code."""
    return rows // recipe.training.global_batch_size * recipe.training.epochs


def total_steps(recipe: Recipe) -> int | None:
    """Optimiser steps of the whole training; None when the number of rows is not known.

    Raises:
        ValueError: as `row_count`.
    """
    rows = row_count(recipe)
    return None if rows is None else steps_of(rows, recipe)


def evaluated_steps(recipe: Recipe) -> list[int]:
    """Steps whose checkpoints are evaluated: those of `evaluation.steps`, else all."""
    wanted = recipe.evaluation.steps
    return [step for step in all_steps(recipe) if wanted is None or step in wanted]


def all_steps(recipe: Recipe) -> list[int]:
    """0, the model itself, and every step that is saved or published."""
    return [0] if recipe.source is Source.model else [0, *recipe.training.checkpoint_steps]


def rows_of_file(path: Path) -> int:
    """Number of rows of a .parquet or .jsonl file, without reading their columns.

    Raises:
        ValueError: it cannot be read, or is no parquet file.
    """
    state = path.stat()
    return _rows_of_file(path, state.st_mtime_ns, state.st_size)


@lru_cache
def _rows_of_file(path: Path, modified: int, size: int) -> int:
    """Rows of a .parquet file or lines of a .jsonl file; `modified` and `size` make a changed file another one."""
    try:
        with path.open("rb") as stream:
            if path.suffix != ".parquet":
                return sum(1 for _ in stream)
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                return int(pq.read_metadata(stream).num_rows)
            except pa.ArrowException as error:
                raise ValueError(f"{path}: not a readable parquet file: {error}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
