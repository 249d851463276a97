"""The stages of a run as jobs call them: every argument is plain, every import that is heavy comes late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reprokit.cluster import rendezvous
from reprokit.cluster.attempt import attempt, running_code
from reprokit.recipe import load_resolved
from reprokit.records.details import details_path
from reprokit.records.files import DamagedFileError, read_json, sha256_of_file
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory


def prepare(root: Path) -> None:
    """Fetch or make base model, tokenizer, tokens and problems. Runs where the network is."""
    run = RunDirectory(root)
    with attempt("prepare", run):
        from reprokit.preparation.prepare import prepare as make_inputs

        make_inputs(run, load_resolved(run.recipe), run.progress("prepare"))


def train(root: Path) -> None:
    """One rank of the training job."""
    run = RunDirectory(root)
    with attempt("train", run) as leaving:
        from reprokit.training import engine, loop, preflight

        task = rendezvous.current_task(with_all_cores=False)
        rendezvous.export_torch_environment(task)
        engine.initialise_distributed(task.local_rank, task.cores, task.hosts)
        recipe, progress = load_resolved(run.recipe), run.progress("train")
        needed, code = preflight.needed_bytes(run, recipe), running_code()
        preflight.check(run, needed, code, task.hosts, rendezvous.missing_cores())
        with leaving.polled():
            loop.train(run, recipe, rank=task.rank, world_size=task.world_size, progress=progress, leaving=leaving)
            engine.leave_distributed()


def evaluate(
    root: Path, cells: list[Cell], gpus_per_engine: int, longest_sequence: int, progress: Path | None = None
) -> None:
    """One task of one element of the evaluation array: draws samples, or lends its GPU to the task that does.

    How far it is stands in `progress`, by default a file of the run folder.
    """
    run = RunDirectory(root)
    with attempt("evaluate", run, sorted({cell.step for cell in cells})) as leaving:
        from reprokit.evaluation import engine, parallel, worker
        from reprokit.evaluation.share import Share

        task = rendezvous.current_task()
        place = parallel.place(task, gpus_per_engine, task.hosts, rendezvous.port(task.job_id))
        if place is None:
            return
        engine.claim_device(task.local_rank, task.cores, len(place.devices))
        if not place.leads:
            with leaving.polled():  # it leaves when its leader does
                parallel.follow(place, rendezvous.address(place.leader_host))
            return
        share, progress = Share(place.engine, place.engines), progress or run.progress("evaluate")
        recipe = load_resolved(run.recipe)
        with parallel.Followers(place) as followers:
            worker.generate(run, recipe, cells, share, progress, task.start, longest_sequence, followers, leaving)


def judge(root: Path) -> None:
    """One worker of the job that asks the judge models about the samples of all checkpoints."""
    run = RunDirectory(root)
    with attempt("judge", run):
        from reprokit.evaluation import engine
        from reprokit.evaluation.judges import stage
        from reprokit.evaluation.share import Share

        task = rendezvous.current_task()
        engine.claim_device(task.local_rank, task.cores)
        share = Share(task.rank, task.world_size)
        stage.judge(run, load_resolved(run.recipe), share, run.progress("judge"))


def score(root: Path) -> None:
    """Score every sample that has no current score, and write the results."""
    run = RunDirectory(root)
    with attempt("score", run):
        from reprokit.evaluation.score_stage import score_run

        rendezvous.check_cores()
        score_run(run, load_resolved(run.recipe), run.progress("score"))


def collect(root: Path, results: Path) -> None:
    """Write `results/<run>.json` and `results/details/<run>.json` from the result files of the run."""
    run = RunDirectory(root)
    with attempt("collect", run):
        from reprokit.campaign.collect import collect_into

        collected = collect_into(results, run, load_resolved(run.recipe))
        print(f"{len(collected.results.records)} records, {len(collected.results.missing)} cells missing")
        for note in collected.notes:
            print(note)


def figures(results: Path, out: Path) -> None:
    """Draw everything that is in `results`."""
    with attempt("figures", None):
        from analysis.figures import draw_all

        draw_all(results, out)


def backfill(root: Path, workspace: Path) -> None:
    """Submit what is still missing of a run, when the other jobs have ended."""
    from reprokit.campaign import backfill as campaign_backfill
    from reprokit.campaign.graph import Workspace

    run = RunDirectory(root)
    with attempt("backfill", run) as leaving, leaving.polled():  # it takes a second, and ends what it has begun
        campaign_backfill.backfill(run, Workspace(workspace), FUNCTIONS, figures_current)


STAGES: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "judge": judge,
    "score": score,
    "collect": collect,
    "figures": figures,
}
FUNCTIONS = {**STAGES, "backfill": backfill}  # of all jobs


def figures_current(results: Path, out: Path) -> bool:
    """Whether the figures were drawn from `results` (one file, and its details) as it is now, and are all there."""
    index = out / "index.json"
    if not (results.exists() and index.exists()):
        return False
    try:
        drawn = read_json(index, dict[str, Any])
    except DamagedFileError:
        return False
    details = details_path(results.parent, results.stem)
    needed = [
        {"file": str(path.relative_to(results.parent)), "sha256": sha256_of_file(path)}
        for path in (results, details)
        if path.exists()
    ]
    figures = [figure for figure in drawn["figures"] if _is_made_from(figure, results.name)]
    is_there = all((out / path).exists() for figure in figures for path in figure["files"])
    return is_there and all(source in drawn.get("read", []) for source in needed)


def _is_made_from(figure: dict[str, Any], name: str) -> bool:
    return any(source["file"] == name for source in figure["made_from"])
