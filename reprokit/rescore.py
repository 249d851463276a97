"""python -m reprokit.rescore run=NAME [benchmarks=a,b]

Scores the samples of a run again, on this machine and without a GPU, and collects its results: all benchmarks whose
scoring has changed since, or those that are named. Nothing is generated.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from reprokit import stages
from reprokit.campaign.graph import Workspace
from reprokit.errors import UserError
from reprokit.evaluation.score_stage import score_run
from reprokit.recipe import load_resolved
from reprokit.words import run, split


def rescore(words: Sequence[str]) -> None:
    """Do what the words say.

    Raises:
        UserError: no such run, or a benchmark that it does not have.
    """
    given = dict(split(words, __doc__))
    unknown = set(given) - {"run", "benchmarks"}
    if unknown or "run" not in given:
        raise UserError(f"unknown: {', '.join(sorted(unknown))}\n\n{__doc__}" if unknown else f"no run\n\n{__doc__}")
    workspace = Workspace(Path.cwd())
    folder = workspace.run(given["run"])
    if not folder.recipe.exists():
        there = sorted(path.parent.name for path in (workspace.root / "runs").glob("*/recipe.yaml"))
        raise UserError(f"no run {given['run']} in {workspace.root / 'runs'}; there are: {', '.join(there) or 'none'}")
    recipe = load_resolved(folder.recipe)
    again = [name for name in given.get("benchmarks", "").split(",") if name]
    if wrong := [name for name in again if name not in recipe.evaluation.benchmarks]:
        raise UserError(f"benchmarks={','.join(wrong)}: the run has {', '.join(recipe.evaluation.benchmarks)}")
    score_run(folder, recipe, folder.progress("score"), again)
    stages.collect(folder.root, workspace.results)


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: rescore(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
