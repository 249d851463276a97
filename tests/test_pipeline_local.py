"""The whole way on one machine without Slurm: recipe -> checkpoints -> results -> figures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reprokit.data import tokens
from reprokit.recipe import load_resolved
from reprokit.records.files import read_json, read_json_lines, sha256_of_file, write_text
from reprokit.records.record import read_results
from reprokit.records.result import CellResult, Sample, SampleScore
from reprokit.records.run_directory import RunDirectory
from reprokit.training.plan import Planner
from tests.conftest import launch

STEPS = (0, 8, 16)


@pytest.mark.parametrize("step", STEPS)
def test_checkpoints_are_complete_and_load(local_run: RunDirectory, step: int) -> None:
    manifest = local_run.manifest(step)
    assert manifest is not None
    folder = local_run.checkpoint(step)
    present = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == {
        name: sha256_of_file(folder / name) for name in present
    }
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|endoftext|>"


def test_training_moves_the_weights_and_lowers_the_loss(local_run: RunDirectory) -> None:
    metrics = [json.loads(line) for line in local_run.metrics.read_text().splitlines()]
    assert [line["step"] for line in metrics] == list(range(1, 17))
    assert metrics[0]["learning_rate"] == 0.0
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.3
    weights = [AutoModelForCausalLM.from_pretrained(local_run.checkpoint(step)).state_dict() for step in STEPS]
    for name, tensor in weights[0].items():
        assert not torch.equal(tensor, weights[1][name]), name
        assert not torch.equal(weights[1][name], weights[2][name]), name


def test_loss_of_a_saved_checkpoint_is_that_of_the_model(local_run: RunDirectory) -> None:
    """The first logged loss is the mean token loss of the base over exactly the first global batch."""
    dataset = tokens.load(local_run.data)
    rows = Planner(dataset, load_resolved(local_run.recipe).training, 1, None).step(0).rows
    model = AutoModelForCausalLM.from_pretrained(local_run.checkpoint(0))
    losses = []
    for row in rows:
        ids, prompt_length = dataset[int(row)]
        with torch.no_grad():
            scores = model(torch.from_numpy(ids)[None]).logits[0].log_softmax(-1)
        losses += [-scores[at - 1, ids[at]].item() for at in range(prompt_length, len(ids))]
    first = json.loads(local_run.metrics.read_text().splitlines()[0])
    assert first["target_tokens"] == len(losses)
    assert first["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_every_cell_has_samples_scores_and_a_result(local_run: RunDirectory) -> None:
    for step in STEPS:
        for benchmark, items, samples_per_item in (("countdown", 6, 2), ("chain_sum", 5, 1)):
            result = read_json(local_run.result(step, benchmark), CellResult)
            cell = local_run.cell(step, benchmark)
            samples = list(read_json_lines(cell / "samples.jsonl", Sample))
            scores = list(read_json_lines(cell / "scores.jsonl", SampleScore))
            headline = next(metric for metric in result.metrics if metric.headline)
            assert (headline.items, headline.samples_per_item) == (items, samples_per_item)
            assert headline.protocol == "official" and {metric.protocol for metric in result.metrics} == {
                "official",
                "clean",
            }
            assert len(samples) == len(scores) == items * samples_per_item
            assert len({(sample.item, sample.sample) for sample in samples}) == len(samples)
            assert all(1 <= sample.response_tokens <= 24 for sample in samples)
            assert all(sample.finish_reason in ("stop", "length") for sample in samples)
            assert result.truncated_fraction == np.mean([sample.response_tokens == 24 for sample in samples])
        assert not local_run.sample_logs(step).exists()


def test_results_hold_one_headline_per_cell(local_folder: Path) -> None:
    results = read_results(local_folder / "results" / "tiny.json")
    assert results.missing == []
    headlines = [(record.step, record.benchmark, record.metric) for record in results.records if record.headline]
    named = (("chain_sum", "pass@1"), ("countdown", "avg@2"))
    assert headlines == [(step, *cell) for step in STEPS for cell in named]
    assert {record.protocol for record in results.records} == {"official", "clean"}
    assert all(record.interval_low <= record.value <= record.interval_high for record in results.records)
    assert {record.dataset for record in results.records if record.step == 0} == {None}
    assert {record.learning_rate for record in results.records if record.step > 0} == {3.0e-3}
    assert "training" in results.provenance


def test_figures_are_drawn(local_folder: Path) -> None:
    for name in ("score.png", "score.pdf", "response_length.png", "response_length.pdf"):
        assert (local_folder / "figures" / "tiny" / name).stat().st_size > 1000


def test_no_file_of_a_campaign_has_a_secret(local_folder: Path) -> None:
    """Those of its environment: logs, pickles, code, recipe, results, figures, and what was said."""
    files = [path for path in local_folder.rglob("*") if path.is_file()]
    assert len(files) > 100 and (local_folder / "said.txt") in files
    assert [path for path in files if b"canary-of" in path.read_bytes()] == []


def test_a_launch_mends_what_it_can_and_says_so(local_folder: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    """All at once, on a run that was really trained and evaluated: the results end as they were."""
    folder = Path(shutil.copytree(local_folder, tmp_path / "w"))
    run = RunDirectory(folder / "runs" / "tiny")
    results = (folder / "results/tiny.json").read_bytes()
    for path in (
        run.result(8, "countdown"),
        run.provenance,
        folder / "results/details/tiny.json",
        folder / "figures/index.json",
    ):
        os.truncate(path, path.stat().st_size // 2)
    for path in (run.training_complete, run.items("chain_sum"), run.checkpoint(0) / "model.safetensors"):
        path.unlink()
    write_text(run.stopped, "{")
    done = launch(folder, f"recipe={tiny_recipe}", "cluster=local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\ndamage: ") + done.stdout.startswith("damage: ") == 5, done.stdout
    assert (folder / "results/tiny.json").read_bytes() == results
    again = launch(folder, f"recipe={tiny_recipe}", "cluster=local")
    assert "nothing was run again" in again.stdout and "damage" not in again.stdout, again.stdout


def test_second_launch_runs_nothing_and_a_lost_result_is_filled_in(
    local_folder: Path, local_run: RunDirectory, tiny_recipe: Path, one_engine: str
) -> None:
    def state() -> dict[Path, int]:
        files = (path for path in local_run.root.rglob("*") if path.is_file() and path.name != "launch.lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = state()
    again = launch(local_folder, f"recipe={tiny_recipe}", "cluster=local")
    assert again.returncode == 0 and "nothing was run again" in again.stdout, again.stdout + again.stderr
    assert state() == before
    lost = local_run.cell(8, "countdown")
    samples = texts(lost)
    shutil.rmtree(lost)
    filled = launch(local_folder, f"recipe={tiny_recipe}", one_engine)
    assert filled.returncode == 0 and "steps 8 on countdown" in filled.stdout, filled.stdout + filled.stderr
    assert texts(lost) == samples
    after = state()
    untouched = [path for path in before if "checkpoints" in path.parts or "step_000016" in path.parts]
    assert untouched and all(after[path] == before[path] for path in untouched)


def texts(cell: Path) -> list[tuple[str, int, str]]:
    return [(row.item, row.sample, row.text) for row in read_json_lines(cell / "samples.jsonl", Sample)]


def test_a_lost_result_is_scored_again_and_nothing_is_generated(
    local_folder: Path, local_run: RunDirectory, tiny_recipe: Path
) -> None:
    lost = local_run.result(8, "countdown")
    result = lost.read_bytes()
    lost.unlink()
    filled = launch(local_folder, f"recipe={tiny_recipe}", "cluster=local")
    assert filled.returncode == 0 and "score: done" in filled.stdout, filled.stdout + filled.stderr
    assert "evaluate" not in filled.stdout and lost.read_bytes() == result


def test_other_training_settings_under_the_same_name_are_refused(local_folder: Path, tiny_recipe: Path) -> None:
    words = (f"recipe={tiny_recipe}", "training.learning_rate=1e-4", "data.rows=512", "training.checkpoint_steps=[32]")
    refused = launch(local_folder, *words, "cluster=local")
    assert refused.returncode == 2
    assert "training.learning_rate: 0.003 -> 0.0001" in refused.stderr and "data.rows: 256 -> 512" in refused.stderr
    assert "name=" in refused.stderr and "Traceback" not in refused.stderr


def test_own_model_folder_and_parquet_file(local_run: RunDirectory, one_engine: str, tmp_path: Path) -> None:
    """A recipe as the README shows it: a local Hugging Face folder and a local parquet file."""
    rows = [
        {"message": [{"role": "user", "content": f"What is {a} + {b}?"}], "response": f"\\boxed{{{a + b}}}"}
        for a in range(8)
        for b in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "own.yaml").write_text(
        f"""\
name: own
model: {{name: Mine, path: {local_run.checkpoint(16)}}}
data: {{name: Sums, path: rows.parquet, max_length: 128}}
training: {{learning_rate: 1.0e-3, epochs: 2, global_batch_size: 16, precision: fp32, checkpoint_steps: [8]}}
evaluation: {{max_tokens: 16, benchmarks: {{chain_sum: {{items: 4}}}}}}
"""
    )
    done = launch(tmp_path, "recipe=own.yaml", one_engine)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDirectory(tmp_path / "runs" / "own")
    manifest = run.manifest(0)
    assert manifest is not None and manifest.weights == str(local_run.checkpoint(16))
    assert len(read_results(tmp_path / "results" / "own.json").records) == 4  # two steps, two protocols
    assert (tmp_path / "figures" / "own" / "score.png").exists()


def test_a_failing_job_ends_with_its_message_and_log(tmp_path: Path, tiny_recipe: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"message": "hello", "response": ""}\n' * 64)
    words = (f"recipe={tiny_recipe}", "data.generator=null", "data.rows=64", f"data.path={tmp_path}/rows.jsonl")
    failed = launch(tmp_path, *words, "training.checkpoint_steps=[4]", "cluster=local")
    assert failed.returncode == 2, failed.stdout
    assert "row 1" in failed.stderr and "rows.jsonl" in failed.stderr and "The whole log" in failed.stderr
    assert "Traceback" not in failed.stderr
