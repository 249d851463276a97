"""The stages of a run as jobs call them: every argument is plain, every import that is heavy comes late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reprokit.cluster import rendezvous
from reprokit.recipe import load_resolved
from reprokit.records.files import read_json, sha256_of_file
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory


def prepare(root: Path) -> None:
    """Fetch or make base model, tokenizer, tokens and problems. Runs where the network is."""
    from reprokit.preparation.prepare import prepare as make_inputs

    run = RunDirectory(root)
    make_inputs(run, load_resolved(run.recipe), run.progress("prepare"))


def train(root: Path) -> None:
    """One rank of the training job."""
    from reprokit.training import engine, loop

    run = RunDirectory(root)
    task = rendezvous.current_task()
    rendezvous.export_torch_environment(task)
    engine.initialise_distributed(task.local_rank, task.cores)
    recipe = load_resolved(run.recipe)
    loop.train(run, recipe, rank=task.rank, world_size=task.world_size, progress=run.progress("train"))
    engine.leave_distributed()


def evaluate(root: Path, cells: list[Cell]) -> None:
    """One worker of one element of the evaluation array."""
    from reprokit.evaluation import engine, worker

    run = RunDirectory(root)
    task = rendezvous.current_task()
    engine.claim_device(task.local_rank, task.cores)
    share = worker.Share(task.rank, task.world_size)
    worker.evaluate(run, load_resolved(run.recipe), cells, share, run.progress("evaluate"), task.job_id)


def collect(root: Path, results: Path) -> None:
    """Write `results/<run>.json` from the result files of the run."""
    from reprokit.campaign.collect import collect as gather_records
    from reprokit.campaign.collect import keep_fuller
    from reprokit.records.record import write_results

    run = RunDirectory(root)
    recipe = load_resolved(run.recipe)
    gathered = gather_records(run, recipe)
    path = results / f"{recipe.name}.json"
    keep_fuller(path, gathered)
    write_results(path, gathered)
    print(f"{len(gathered.records)} records, {len(gathered.missing)} cells missing")


def figures(results: Path, out: Path) -> None:
    """Draw everything that is in `results`."""
    from analysis.figures import draw_all

    draw_all(results, out)


STAGES: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "collect": collect,
    "figures": figures,
}


def figures_current(results: Path, out: Path) -> bool:
    """Whether the figures that `results` (one file) gives were drawn from it as it is now."""
    index = out / "index.json"
    if not (results.exists() and index.exists()):
        return False
    digest = sha256_of_file(results)
    made = [
        figure
        for figure in read_json(index, dict[str, Any])["figures"]
        if {"file": results.name, "sha256": digest} in [_without_count(source) for source in figure["made_from"]]
    ]
    return bool(made) and all((out / path).exists() for figure in made for path in figure["files"])


def _without_count(source: dict[str, Any]) -> dict[str, Any]:
    return {key: source[key] for key in ("file", "sha256")}
