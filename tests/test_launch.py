"""The command line, the job graph and what is said before anything runs."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reprokit import benchmarks
from reprokit.campaign.cells import by_step, lost_cells, missing_cells, ungenerated_cells
from reprokit.campaign.collect import collect, keep_fuller
from reprokit.campaign.graph import Workspace, plan
from reprokit.campaign.memory import model_size
from reprokit.campaign.run_folder import (
    describe_conflict,
    discard_other_preparation,
    write_recipe,
)
from reprokit.cluster.profiles import PROFILES, load_profile, profile_names
from reprokit.errors import UserError
from reprokit.evaluation.problems import ItemsSource, asked_of
from reprokit.launch import parse
from reprokit.recipe import evaluated_steps, load
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import ModelSection, Recipe
from reprokit.records import interrupted, manifest
from reprokit.records.files import write_json, write_text
from reprokit.records.record import Record, Results, write_results
from reprokit.records.result import Cell, CellResult, Generation
from reprokit.records.run_directory import Manifest, RunDirectory
from reprokit.stages import STAGES
from tests.conftest import launch


def test_dry_run_for_a_cluster_prints_graph_and_scripts_and_writes_nothing(tmp_path: Path) -> None:
    done = launch(tmp_path, "recipe=qwen_long_cot", "cluster=h200", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("#!/bin/bash") == 7
    for line in (
        "#SBATCH --array=0-8%9",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --dependency='afterok:<train>'",
        "#SBATCH --dependency='afterany:<evaluate>'",
        "#SBATCH --dependency='afterany:<evaluate>:<judge>'",
        "#SBATCH --dependency='afterany:<train>:<evaluate>:<judge>:<score>'",
        "#SBATCH --dependency='afterany:<collect>'",
        "#SBATCH --dependency='afterany:<train>:<evaluate>:<judge>:<score>:<collect>:<figures>'",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@600",
        "#SBATCH --job-name=train.Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256",
    ):
        assert line in done.stdout, line
    assert list(tmp_path.iterdir()) == []


def test_the_launch_path_imports_no_torch() -> None:
    code = (
        "import sys; from reprokit.launch import main\n"
        "assert main(['recipe=qwen_long_cot', 'cluster=h200', 'dry_run=true']) == 0\n"
        "heavy = {'torch', 'transformers', 'vllm', 'deepspeed', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_recipe_too_large_for_this_machine_says_what_works_here(tmp_path: Path) -> None:
    refused = launch(tmp_path, "recipe=qwen_long_cot", "cluster=local")
    assert refused.returncode == 2
    assert "14.8 billion parameters" in refused.stderr and "no GPU" in refused.stderr
    assert "recipe=qwen_long_cot cluster=h200 dry_run=true" in refused.stderr
    assert "-m reprokit.launch recipe=mini cluster=local" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_cluster_it_says_which_one_it_takes(tmp_path: Path) -> None:
    """No configuration is named, so the Slurm commands, where they are installed, know no cluster."""
    done = launch(tmp_path, "recipe=mini", "dry_run=true", PATH="/usr/bin:/bin")
    assert "there is no Slurm here, so cluster=local" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no recipe given"),
        (["mini"], "'mini' is not of the form key=value"),
        (["recipe=mini", "stages=train,evaluat"], "valid are prepare, train, evaluate, judge, score, collect, figures"),
        (["recipe=mini", "stages="], "valid are prepare"),
        (["recipe=mini", "dry_run=maybe"], "valid are true and false"),
    ],
)
def test_bad_words_are_refused(words: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        parse(words)


def test_stages_run_in_their_order() -> None:
    assert parse(["recipe=x", "stages=[evaluate, train]"]).stages == ("train", "evaluate")


def test_every_profile_is_valid_and_short() -> None:
    assert profile_names() == ["a100", "default", "dev", "h100", "h200", "local", "one_gpu"]
    for name in profile_names():
        load_profile(name)
        lines = (PROFILES / f"{name}.yaml").read_text().splitlines()
        assert len(lines) <= 15 and lines[0].startswith("# ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("partitoin: gpu", "did you mean partition?"),
        ("train: {nodes: none}", "a whole number"),
        ("train: {nodes: 0}", "must be positive"),
        ("gpu_memory_gb: 80\ntrain: {tasks_per_node: 4, gpus_per_node: 8}", "8 GPUs for 4 tasks per node"),
        ("scheduler: local\ntrain: {nodes: 2}", "this machine is one node"),
        ("train: {nodes: 2", "YAML syntax"),
        ("checkpoints_per_element: 0", "must be positive"),
        ("collect: {memory_gb: 0}", "must be positive"),
        ("collect: {hours: .nan}", "must be positive"),
        ("gpu_memory_gb: -1", "must be positive"),
        ("train: {gpus_per_node: -1}", "must not be negative"),
        ("gpu: h200", "name one of A100"),
        ("training_mfu: 40", "above 0 and at most 1"),
        ("gpu_type: gpu:h200", "of gpu:h200:8 it is h200"),
        ("python: ''", "not one shell command"),
        ('python: "python\\nreboot"', "not one shell command"),
        ("runs: scratch/runs", "not an absolute path"),
        ("runs: $NO_SUCH_VARIABLE_HERE/runs", "every variable in it must be set"),
        ("sbatch: {partition: gpu}", "use partition of the profile"),
        ("sbatch: {output: log}", "is set by reprokit"),
        ("sbatch: {test-only: true}", "would break the jobs"),
        ("sbatch: {-N: 3}", "without the leading dashes"),
        ("sbatch: {reservation: ''}", "no value"),
        ("sbatch: {requeue: false}", "leave it out"),
        ("sbatch: {exclusive: }", "sbatch.exclusive: no text"),
        ("environment: {A: {b: 1}}", "write A: and its text"),
        ("sbatch: [exclusive]", "wrong type"),
        ('sbatch: {comment: "a\\nreboot"}', "one line of text"),
        ("sbatch: {mem-per-cpu: 4G}\ntrain: {memory_gb: 9}", "remove it, or memory_gb of train"),
    ],
)
def test_broken_profiles_are_refused_with_file_and_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_profile(str(path))
    assert expected in str(refused.value) and "mine.yaml" in str(refused.value)


def test_texts_of_a_profile_are_taken_as_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("environment: {A: on, B: 1.50, C: 007, D: ~/x}\nsbatch: {nice: 010, comment: no, exclusive: true}")
    profile = load_profile(str(path))
    assert profile.environment == {"A": "on", "B": "1.50", "C": "007", "D": str(Path.home() / "x")}
    assert profile.sbatch == {"nice": "010", "comment": "no", "exclusive": "true"}


def test_unknown_profile_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match="valid: a100, default, dev, h100, h200, local, one_gpu"):
        load_profile("h20")


def planned(folder: Path, *stages: str) -> list[str]:
    recipe = load("mini").recipe
    jobs = plan(Workspace(folder), recipe, load_profile("h200"), stages or tuple(STAGES), STAGES, False)
    return [f"{job.name} {len(job.elements)}" for job in jobs]


def prepared(folder: Path) -> RunDirectory:
    """A run folder of the mini recipe as the prepare stage leaves it, without content."""
    run = Workspace(folder).run("mini")
    write_json(run.checkpoint(0) / "manifest.json", Manifest(step=0))
    for path in (run.tokenizer / "config.json", run.data / "report.json"):
        write_text(path, "{}")
    recipe = load("mini").recipe
    for name in recipe.evaluation.benchmarks:
        source = ItemsSource(benchmark=name, asked=asked_of(recipe, name), items=f"digest of {name}", count=1)
        write_json(run.items_source(name), source)
        write_text(run.items(name), "")
    return run


def test_only_what_is_missing_is_planned(tmp_path: Path) -> None:
    assert planned(tmp_path) == ["prepare 1", "train 1", "evaluate 9", "score 1", "collect 1", "figures 1"]
    run = prepared(tmp_path)
    assert planned(tmp_path, "evaluate") == ["evaluate 1"]  # of the base: there is no other checkpoint
    for step in (10, 20):
        write_json(run.checkpoint(step) / "manifest.json", Manifest(step=step))
    assert planned(tmp_path, "train") == ["train 1"]
    assert planned(tmp_path, "evaluate") == ["evaluate 3"]
    (run.checkpoint(20) / "manifest.json").unlink()  # a checkpoint without its manifest is none
    assert planned(tmp_path, "evaluate") == ["evaluate 2"]


def test_stages_that_need_preparation_ask_for_it(tmp_path: Path) -> None:
    for stage in ("train", "evaluate"):
        with pytest.raises(UserError, match=f"add prepare to stages={stage}"):
            planned(tmp_path, stage)
    assert planned(tmp_path, "collect") == ["collect 1"]
    assert planned(tmp_path, "prepare") == ["prepare 1"]
    prepared(tmp_path)
    assert planned(tmp_path, "prepare") == []


def test_a_finished_training_is_not_repeated_for_removed_checkpoints(tmp_path: Path) -> None:
    """People remove large checkpoints after they have been evaluated."""
    run = prepared(tmp_path)
    write_json(run.training_complete, {"steps": 640})
    write_json(run.checkpoint(640) / "manifest.json", Manifest(step=640))
    assert planned(tmp_path) == ["prepare 1", "evaluate 2", "score 1", "collect 1", "figures 1"]  # of steps 0 and 640
    lost = lost_cells(run, load("mini").recipe)
    assert {cell.step for cell in lost} == {10, 20, 40, 80, 160, 320, 480}


def test_an_interrupted_training_is_planned_with_all_its_cells(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    write_json(run.checkpoint(10) / "manifest.json", Manifest(step=10))
    assert planned(tmp_path) == ["prepare 1", "train 1", "evaluate 9", "score 1", "collect 1", "figures 1"]


def test_a_training_resumes_from_its_state_and_keeps_what_it_had_by_then(tmp_path: Path) -> None:
    """State of step 40, checkpoints of 10 to 80 of which that of 20 is damaged, results of all of them."""
    run, recipe = prepared(tmp_path), load("mini").recipe
    for step in (0, 10, 20, 40, 80):
        sealed(run.checkpoint(step), step)
        for name in recipe.evaluation.benchmarks:
            write_cell(run, recipe, step, name)
    sealed(run.state(40), 40)
    sealed(run.state(60), 60)
    (run.state(60) / "file").write_text("cut o")  # the newest state is damaged
    for step in (10, 20):
        run.generation(step, "countdown").unlink()
        run.result(step, "countdown").unlink()
    run.samples(10, "chain_sum").unlink()  # with its result, nothing is missing
    run.result(40, "countdown").unlink()
    (run.checkpoint(20) / "file").write_text("cut o")
    assert run.resume_step() == 40
    jobs = plan(Workspace(tmp_path), recipe, load_profile("h200"), tuple(STAGES), STAGES, False)
    steps = {cell.step for job in jobs if job.name == "evaluate" for element in job.elements for cell in element[1]}
    assert steps == {10, 80, 160, 320, 480, 640}  # 80 is trained anew; 20 cannot be had again
    assert [cell.step for cell in lost_cells(run, recipe, 40)] == [20]
    scored = next(job.description for job in jobs if job.name == "score")
    assert scored.startswith("steps 10, 40, 80,")
    said = next(job.description for job in jobs if job.name == "train")
    assert said == "from step 40, checkpoints at steps 80, 160, 320, 480, 640"
    aside = interrupted.set_aside_after(run, run.resume_step())
    assert aside is not None
    moved = sorted(str(path.relative_to(aside)) for path in aside.glob("*/*"))
    assert moved == ["checkpoints/step_000080", "evaluation/step_000080", "state/step_000060"]
    assert run.manifest(40) and run.generation(40, "countdown").exists() and run.states() == [40]
    assert Cell(80, "countdown") in missing_cells(run, recipe)
    assert interrupted.set_aside_after(run, 40) is None


def test_what_only_says_how_to_compute_may_change_within_a_run(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    write_recipe(run, load("mini"))
    free = ["training.cpu_offload=true", "training.state_every=5", "training.micro_batch_tokens=4096"]
    assert describe_conflict(run, load("mini", free).recipe) is None
    other = load("mini", [*free, "training.learning_rate=1e-5"]).recipe
    said = describe_conflict(run, other) or ""
    assert "training.learning_rate: 0.002 -> 1e-05" in said and "cpu_offload" not in said, said


def test_a_launch_says_where_training_resumes(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    write_recipe(run, load("mini"))
    sealed(run.checkpoint(40), 40)
    words = ("recipe=mini", "cluster=local", "dry_run=true")
    assert "training starts at step 0" in launch(tmp_path, *words, COLUMNS="200").stdout
    sealed(run.state(20), 20)
    said = launch(tmp_path, *words, COLUMNS="200")
    assert "training resumes at step 20" in said.stdout and "from step 20, checkpoints" in said.stdout, said.stderr


def sealed(folder: Path, step: int) -> None:
    """A complete checkpoint or state of one small file."""
    with manifest.draft(folder, step, needed=0) as draft:
        (draft.folder / "file").write_text("content")


def write_cell(run: RunDirectory, recipe: Recipe, step: int, name: str) -> None:
    """Samples and a result that were made with the recipe's settings, without content."""
    made = {"step": step, "benchmark": name, "items": f"digest of {name}", "provenance": {}}
    settings = msgspec.to_builtins(sampling(recipe.evaluation, name))
    write_text(run.samples(step, name), "")
    write_json(run.generation(step, name), Generation(settings=settings, **made))
    numbers = {"mean_response_tokens": 1.0, "truncated_fraction": 0.0, "scorer": 1}
    empty: dict[str, Any] = {
        "response_token_quantiles": {},
        "no_answer_fraction": {},
        "judges": {},
        "data": {},
        "scored_with": {},
    }
    write_json(run.result(step, name), CellResult(metrics=[], settings=settings, **made, **numbers, **empty))


def test_results_of_other_problems_or_an_older_scoring_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = prepared(tmp_path), load("mini").recipe
    for step in evaluated_steps(recipe):
        for name in recipe.evaluation.benchmarks:
            write_cell(run, recipe, step, name)
    assert missing_cells(run, recipe) == ungenerated_cells(run, recipe) == []
    fewer = load("mini", ["evaluation.benchmarks.countdown.items=7"]).recipe
    assert {cell.benchmark for cell in missing_cells(run, fewer)} == {"countdown"}
    assert missing_cells(run, fewer) == ungenerated_cells(run, fewer)
    other = dataclasses.replace(benchmarks.get("syllogism"), version=2)
    known = benchmarks.get
    monkeypatch.setattr(benchmarks, "get", lambda name: other if name == "syllogism" else known(name))
    assert {cell.benchmark for cell in missing_cells(run, recipe)} == {"syllogism"}
    assert ungenerated_cells(run, recipe) == []  # its samples are there, and only scored again
    jobs = plan(Workspace(tmp_path), recipe, load_profile("h200"), ("evaluate", "score"), STAGES, False)
    assert "evaluate" not in [job.name for job in jobs] and "score" in [job.name for job in jobs]


def test_a_damaged_result_counts_as_missing(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    write_text(run.result(0, "countdown"), '{"step": 0, "bench')
    recipe = load("mini").recipe
    assert Cell(0, "countdown") in missing_cells(run, recipe)
    assert collect(run, recipe).records == []


def test_a_partial_run_does_not_replace_fuller_results(tmp_path: Path) -> None:
    record = Record(run="mini", model="m", step=0, benchmark="b", metric="m", value=1.0, unit="%", origin="measured")
    path = tmp_path / "results" / "mini.json"
    keep_fuller(path, [])
    write_results(path, Results(run="mini", records=[record]))
    with pytest.raises(UserError, match=r"1 cells that the run folder has not \(step 0 on b\).*left as it is"):
        keep_fuller(path, [Cell(8, "b")])
    keep_fuller(path, [Cell(8, "b"), Cell(0, "b")])


def test_damaged_results_are_a_clear_error(tmp_path: Path) -> None:
    write_recipe(Workspace(tmp_path).run("mini"), load("mini"))
    write_text(tmp_path / "results" / "mini.json", "{")
    said = launch(tmp_path, "recipe=mini", "cluster=local", "stages=collect")
    assert said.returncode == 2 and "mini.json is damaged" in said.stderr, said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_a_workspace_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    write_text(tmp_path / "runs", "")
    said = launch(tmp_path, "recipe=mini", "cluster=local")
    assert said.returncode == 2 and "Not a directory" in said.stderr, said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_stages_of_a_run_that_was_never_started_are_refused(tmp_path: Path) -> None:
    for stage in ("collect", "figures"):
        said = launch(tmp_path, "recipe=mini", "cluster=local", f"stages={stage}")
        assert said.returncode == 2 and "never started" in said.stderr, said.stdout + said.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_fits_is_told_before_the_queue(tmp_path: Path) -> None:
    planned = launch(tmp_path, "recipe=qwen_long_cot", "cluster=h200", "dry_run=true")
    assert re.search(r"memory: about \d+ GiB of 141 GB on each GPU \(estimate: states", planned.stdout), planned.stdout
    assert "time:    About 1,000 GPU-hours on H200 (training 64, evaluation 970, judges " in planned.stdout
    assert "disk:    236 GB of checkpoints, 266 GB of resumable states while it trains, " in planned.stdout
    refused = launch(tmp_path, "recipe=qwen_long_cot", gpu_cluster(tmp_path, nodes=1, memory=24), "dry_run=true")
    assert refused.returncode == 2 and "does not fit" in refused.stderr, refused.stderr
    assert "With one of these it fits" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_ranks_that_cannot_share_the_batch_are_refused_before_the_queue(tmp_path: Path) -> None:
    words = ("recipe=qwen_long_cot", "dry_run=true", "training.arithmetic=official", "training.micro_batch_size=4")
    refused = launch(tmp_path, *words, gpu_cluster(tmp_path, nodes=3, memory=141))
    assert refused.returncode == 2 and "24 ranks" in refused.stderr, refused.stderr
    assert "valid numbers of ranks: 1, 2, 4, 8," in refused.stderr


def gpu_cluster(folder: Path, nodes: int, memory: int) -> str:
    """The word that chooses a cluster with nodes of 8 GPUs, described in `folder`."""
    job = f"{{nodes: {nodes}, tasks_per_node: 8, gpus_per_node: 8}}"
    (folder / "mine.yaml").write_text(f"gpu_memory_gb: {memory}\ntrain: {job}\nevaluate: {job}\n")
    return f"cluster={folder}/mine.yaml"


def test_checkpoints_share_an_element_where_the_profile_says_so() -> None:
    cells = [Cell(step, benchmark) for step in (0, 10, 20) for benchmark in "ab"]
    groups = by_step(cells, 2)
    assert [[cell.step for cell in group] for group in groups] == [[0, 0, 10, 10], [20, 20]]


def test_what_an_interrupted_training_left_is_kept(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for step in (0, 10):
        write_json(run.checkpoint(step) / "manifest.json", Manifest(step=step))
        write_text(run.result(step, "countdown"), str(step))
    write_text(run.metrics, "metrics")
    aside = interrupted.set_aside_after(run, 0)
    assert aside is not None
    assert run.manifest(0) and run.result(0, "countdown").read_text() == "0"
    assert run.manifest(10) is None and not run.result(10, "countdown").exists()
    kept = RunDirectory(aside)
    assert kept.manifest(10) and kept.result(10, "countdown").read_text() == "10"
    assert kept.metrics.read_text() == "metrics"
    assert interrupted.set_aside_after(run, 0) is None


def test_parameters_are_counted_without_torch(local_run: RunDirectory) -> None:
    from transformers import AutoModelForCausalLM

    folder = local_run.checkpoint(0)
    true_count = AutoModelForCausalLM.from_pretrained(folder).num_parameters()
    for model in (ModelSection(name="x", path=str(folder)), load(str(local_run.recipe)).recipe.model):
        size = model_size(model)
        assert size is not None and size.parameters == pytest.approx(true_count, rel=0.02)


def test_a_failed_preparation_does_not_bind_the_run_name(tmp_path: Path) -> None:
    run = Workspace(tmp_path).run("mini")
    write_recipe(run, load("mini"))
    write_text(run.tokenizer / "tokenizer_config.json", "{}")
    other = load("mini", ["model.seed=7"])
    assert describe_conflict(run, other.recipe) is None
    discard_other_preparation(run, other.recipe)
    assert not run.tokenizer.exists()  # made for the other settings
    prepared(tmp_path)
    assert "model.seed: 0 -> 7" in (describe_conflict(run, other.recipe) or "")
    discard_other_preparation(run, other.recipe)
    assert run.tokenizer.exists()
