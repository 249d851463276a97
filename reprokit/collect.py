"""python -m reprokit.collect [run=NAME,NAME|PATTERN]
python -m reprokit.collect file=PATH run=NAME model=NAME step=N [dataset=NAME learning_rate=X epochs=X batch_size=N]

Collects the runs of `runs/`, all or those named, into `results/<run>.json` and `results/details/<run>.json`, checks
every file of their evaluations, and says which cells (step x benchmark) are missing and how to fill them. Exit code 3
if something is missing or damaged.

With file=, takes the results that another harness wrote (lm-evaluation-harness, evalchemy or lighteval: results_*.json)
as those of one checkpoint of a run that was not evaluated here. model= is the base model, step=0 the base itself;
schedule=NAME may be given too, and replace=true takes cells that the run has from another file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from reprokit.campaign.collect import Collected, collect_into
from reprokit.campaign.graph import Workspace
from reprokit.campaign.imports import import_file
from reprokit.errors import UserError
from reprokit.recipe import load_resolved
from reprokit.records.record import MissingCell
from reprokit.words import PARTIAL, interpreter, run, split


def collect(workspace: Workspace, asked: str = "*") -> bool:
    """Collect the runs that `asked` names; returns whether anything is missing or damaged.

    Raises:
        UserError: no such run; or, when all others are done, what was wrong with those that could not be collected.
    """
    names = _chosen(workspace, asked)
    wrong, partial = [], False
    for path in _without_recipe(workspace) if asked == "*" else []:
        print(f"{path.name}: PARTIAL, nothing is collected: {path} has an evaluation, and no recipe.yaml")
        partial = True
    for name in names:
        try:
            folder = workspace.run(name)
            recipe = load_resolved(folder.recipe)
            if recipe.name != name:
                raise UserError(f"{folder.recipe} is that of run {recipe.name}: rename this folder, or move it away")
            collected = collect_into(workspace.results, folder, recipe)
        except (UserError, OSError) as error:
            wrong.append(f"{name}: {error}")
            continue
        partial |= collected.is_partial
        _print(collected, folder.recipe.relative_to(workspace.root))
    if wrong:
        raise UserError(f"{len(wrong)} of {len(names)} runs could not be collected:\n" + "\n".join(wrong))
    return partial


def _chosen(workspace: Workspace, asked: str) -> list[str]:
    """Names of the run folders that a list of names and patterns means, sorted.

    Raises:
        UserError: one of them means none.
    """
    there = sorted(path.parent.name for path in (workspace.root / "runs").glob("*/recipe.yaml"))
    patterns = [part for part in asked.split(",") if part]
    unknown = [part for part in patterns if not any(fnmatchcase(name, part) for name in there)]
    if unknown or not patterns:
        shown = ", ".join(there) or "none"
        raise UserError(f"no run {', '.join(unknown)} in {workspace.root / 'runs'}; there are: {shown}")
    return [name for name in there if any(fnmatchcase(name, part) for part in patterns)]


def _without_recipe(workspace: Workspace) -> list[Path]:
    """Folders of which nobody knows what was asked for."""
    folders = (path.parent for path in sorted((workspace.root / "runs").glob("*/evaluation")))
    return [folder for folder in folders if not (folder / "recipe.yaml").exists()]


def _print(collected: Collected, recipe: Path) -> None:
    results = collected.results
    cells = len({(record.step, record.benchmark) for record in results.records})
    lost = len(results.missing)
    whole = f"PARTIAL, {lost} cell{'s' * (lost > 1)} missing" if lost else "complete"
    whole += ", with damaged files" * bool(collected.damaged)
    print(f"{results.run}: {whole}; {len(results.records)} records of {cells} cells in results/{results.run}.json")
    for line in grouped(results.missing):
        print(f"  missing: {line}")
    for note in collected.notes:
        print(f"  {note}")
    if results.missing:
        print(f"  to fill: {interpreter()} -m reprokit.launch recipe={recipe}")


def grouped(missing: Iterable[MissingCell]) -> list[str]:
    """`steps 40, 80 on countdown, chain_sum`: one line for all benchmarks that lack the same steps."""
    steps: dict[str, list[int]] = {}
    for cell in missing:
        steps.setdefault(cell.benchmark, []).append(cell.step)
    benchmarks: dict[tuple[int, ...], list[str]] = {}
    for name, found in sorted(steps.items()):
        benchmarks.setdefault(tuple(sorted(found)), []).append(name)
    return [
        f"step{'s' * (len(found) > 1)} {', '.join(map(str, found))} on {', '.join(names)}"
        for found, names in sorted(benchmarks.items())
    ]


def act(words: Sequence[str]) -> int:
    """Do what the words say; returns the exit code.

    Raises:
        UserError: they say nothing that there is, or what they ask for fails.
    """
    given = dict(split(words, __doc__ or ""))
    workspace = Workspace(Path.cwd())
    if "file" in given:
        for line in import_file(workspace, given):
            print(line)
        return 0
    if unknown := set(given) - {"run"}:
        raise UserError(f"unknown: {', '.join(sorted(unknown))}\n\n{__doc__}")
    return PARTIAL if collect(workspace, given.get("run", "*")) else 0


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: act(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
