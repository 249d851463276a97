"""Names of the paper's runs and of the evaluations of their published checkpoints."""

from __future__ import annotations

from analysis.holdings import Library
from reprokit.recipe.load import PUBLISHED


def paper_run(run: str) -> str:
    """The run of the paper whose numbers a run is held against: evaluations of published checkpoints have an ending."""
    return run.removesuffix(PUBLISHED)


def measured_run(library: Library, run: str) -> str:
    """The run that has the measurements: itself or, where only those were evaluated, its published checkpoints."""
    published = run + PUBLISHED
    return published if not library.steps(run, "measured") and library.steps(published, "measured") else run
