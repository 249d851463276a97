"""Arithmetic of training: schedule, batches, loss, and the same update on one rank and on two."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reprokit.data.tokens import TokenDataset
from reprokit.errors import UserError
from reprokit.recipe.schema import Schedule, TrainingSection
from reprokit.records.run_directory import RunDirectory
from reprokit.training.batches import IGNORED, collate, global_batches, share_of_rank
from reprokit.training.engine import micro_batches_per_rank
from reprokit.training.loop import check_finite
from reprokit.training.loss import token_loss_sum
from reprokit.training.schedule import learning_rate
from tests.conftest import launch


def section(**values: object) -> TrainingSection:
    given = {"learning_rate": 5e-5, "epochs": 8, "global_batch_size": 256, "checkpoint_steps": [640], **values}
    return TrainingSection(**given)  # type: ignore[arg-type]


def test_cosine_of_the_default_run() -> None:
    """640 updates, 64 of them warm-up: values from the closed form at its landmarks."""
    rates = [learning_rate(section(), update, 640) for update in range(640)]
    assert rates[0] == 0.0
    assert rates[32] == pytest.approx(2.5e-5)
    assert rates[64] == max(rates) == pytest.approx(5e-5)
    assert rates[64 + 288] == pytest.approx(2.5e-5)
    assert rates[64 + 192] == pytest.approx(5e-5 * 0.75)
    assert rates[639] == pytest.approx(5e-5 * 0.5 * (1 - math.cos(math.pi / 576)), rel=1e-6)


def test_constant_keeps_the_warm_up() -> None:
    rates = [learning_rate(section(schedule=Schedule.constant), update, 1280) for update in range(1280)]
    assert rates[0] == 0.0 and rates[64] == pytest.approx(2.5e-5)
    assert set(rates[128:]) == {5e-5}


def test_epochs_have_their_own_order_and_no_partial_batch() -> None:
    batches = list(global_batches(rows=10, batch_size=4, epochs=3, seed=1))
    assert len(batches) == 6
    for epoch in range(3):
        rows = np.concatenate(batches[2 * epoch : 2 * epoch + 2])
        assert len(set(rows.tolist())) == 8
    assert not np.array_equal(batches[0], batches[2])
    again = list(global_batches(rows=10, batch_size=4, epochs=3, seed=1))
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_share_a_batch_without_loss_and_with_equal_work(world_size: int) -> None:
    lengths = np.random.default_rng(0).integers(10, 2000, size=256)
    batch = np.random.default_rng(1).permutation(256)[:64]
    shares = [share_of_rank(batch, lengths, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares).tolist()) == sorted(batch.tolist())
    work = [lengths[share].sum() for share in shares]
    assert max(work) / min(work) < 1.1


def test_micro_batches_cover_the_rows_of_a_rank() -> None:
    assert micro_batches_per_rank(section(micro_batch_size=5), 8) == 7
    assert micro_batches_per_rank(section(micro_batch_size=32), 8) == 1


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, -1.0)])
def test_divergence_stops_training(loss: float, norm: float) -> None:
    with pytest.raises(UserError, match="diverged at step 7"):
        check_finite(7, loss, norm)


def test_loss_in_pieces_has_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from reprokit.training import loss

    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 9, 11, generator=generator)
    labels = torch.randint(0, 11, (3, 9), generator=generator)
    labels[:, :4] = IGNORED
    gradients = []
    for piece in (4, 1000):
        monkeypatch.setattr(loss, "PIECE", piece)
        leaf = logits.clone().requires_grad_()
        token_loss_sum(leaf, labels).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert (gradients[0][:, -1] == 0).all() and (gradients[0][:, 3:-1] != 0).all()


def test_loss_is_on_response_and_eos_only(local_run: RunDirectory) -> None:
    dataset = TokenDataset(local_run.data)
    rows = np.array([0, 1, 2])
    batch = collate(dataset, rows, pad_id=0)
    for index, row in enumerate(rows):
        ids, prompt_length = dataset[int(row)]
        labels = batch.labels[index]
        assert (labels[:prompt_length] == IGNORED).all()
        assert labels[prompt_length : len(ids)].tolist() == ids[prompt_length:].tolist()
        assert (labels[len(ids) :] == IGNORED).all()
        assert int(labels[len(ids) - 1]) == dataset.report.eos_id
        assert batch.attention_mask[index].sum() == len(ids)


def test_token_loss_is_the_summed_negative_log_likelihood() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator)
    labels = torch.tensor([[IGNORED, IGNORED, 3, 4, IGNORED], [IGNORED, 1, 2, IGNORED, IGNORED]])
    probabilities = logits.double().softmax(-1)
    expected = -sum(
        math.log(probabilities[row, at - 1, labels[row, at]]) for row, at in ((0, 2), (0, 3), (1, 1), (1, 2))
    )
    assert token_loss_sum(logits, labels).item() == pytest.approx(expected, rel=1e-5)


TRAIN = """
import os, sys
from pathlib import Path
root, rank, world, port, micro, threshold, precision = Path(sys.argv[1]), *map(int, sys.argv[2:7]), sys.argv[7]
os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1",
    MASTER_PORT=str(port))
from reprokit.recipe import load_resolved
from reprokit.recipe.schema import Precision
from reprokit.records.run_directory import RunDirectory
from reprokit.training import engine, loop
engine.initialise_distributed(rank, 1)
usual = engine.deepspeed_config
def config(*arguments):
    made = usual(*arguments)
    made["zero_optimization"]["stage3_param_persistence_threshold"] = threshold
    return made
engine.deepspeed_config = config
run = RunDirectory(root)
recipe = load_resolved(run.recipe)
recipe.training.micro_batch_size = micro
recipe.training.precision = Precision[precision]
loop.train(run, recipe, rank=rank, world_size=world, progress=root / "progress.json")
engine.leave_distributed()
"""


def train(
    local_run: RunDirectory, folder: Path, world: int, micro: int, threshold: int, precision: str
) -> RunDirectory:
    """Train the prepared tiny run once more, in `folder`, with other settings."""
    for name in ("tokenizer", "data", "checkpoints/step_000000"):
        shutil.copytree(local_run.root / name, folder / name)
    shutil.copyfile(local_run.recipe, folder / "recipe.yaml")
    port = str(29500 + os.getpid() % 400)
    words = [[str(rank), str(world), port, str(micro), str(threshold), precision] for rank in range(world)]
    ranks = [
        subprocess.Popen([sys.executable, "-c", TRAIN, folder, *word], stderr=subprocess.PIPE, text=True)
        for word in words
    ]
    said = [rank.communicate(timeout=600)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world, said[0][-3000:]
    return RunDirectory(folder)


def column(run: RunDirectory, name: str) -> list[float]:
    return [json.loads(line)[name] for line in run.metrics.read_text().splitlines()]


@pytest.mark.parametrize(("world", "micro", "threshold"), [(1, 3, 100_000), (2, 8, 0)])
def test_ranks_micro_batches_and_partitioning_do_not_change_training(
    local_run: RunDirectory, tmp_path: Path, world: int, micro: int, threshold: int
) -> None:
    """The loss is the mean over all target tokens of the global batch.

    With threshold 0 every parameter is partitioned, gathered for use and released, as those of a large model are.
    """
    other = train(local_run, tmp_path, world, micro, threshold, "fp32")
    assert column(other, "loss") == pytest.approx(column(local_run, "loss"), rel=1e-4)
    assert column(other, "gradient_norm") == pytest.approx(column(local_run, "gradient_norm"), rel=1e-3)
    assert column(other, "target_tokens") == column(local_run, "target_tokens")


def test_bf16_training_saves_bf16_checkpoints(local_run: RunDirectory, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    other = train(local_run, tmp_path, 2, 4, 0, "bf16")
    assert column(other, "loss") == pytest.approx(column(local_run, "loss"), rel=0.05)
    tensors = load_file(other.checkpoint(16) / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_gradient_checkpointing_is_really_on(local_run: RunDirectory, tmp_path: Path) -> None:
    """It is off for a model in evaluation mode, which is how from_pretrained leaves it."""
    script = TRAIN.replace(
        "engine.deepspeed_config = config",
        "engine.deepspeed_config = config\n"
        "build = engine.build\n"
        "def counted(*arguments):\n"
        "    made = build(*arguments)\n"
        "    used = [layer for layer in made.module.model.layers if layer.training and layer.gradient_checkpointing]\n"
        "    print('CHECKPOINTED', len(used), flush=True)\n"
        "    os._exit(0)\n"
        "engine.build = counted",
    )
    for name in ("tokenizer", "data", "checkpoints/step_000000"):
        shutil.copytree(local_run.root / name, tmp_path / name)
    shutil.copyfile(local_run.recipe, tmp_path / "recipe.yaml")
    command = [sys.executable, "-c", script, str(tmp_path), "0", "1", "29499", "4", "0", "fp32"]
    assert "CHECKPOINTED 2" in subprocess.run(command, capture_output=True, text=True).stdout


def test_an_earlier_training_keeps_its_metrics(tmp_path: Path) -> None:
    from reprokit.training.loop import start_metrics

    run = RunDirectory(tmp_path)
    run.metrics.parent.mkdir(parents=True)
    run.metrics.write_text("first")
    start_metrics(run)
    assert not run.metrics.exists()
    assert (run.metrics.parent / "metrics.attempt_01.jsonl").read_text() == "first"


def test_training_needs_no_compiler(tiny_recipe: Path, tmp_path: Path) -> None:
    """A machine with Python, git and make has none; DeepSpeed would like to compile extensions."""
    for name in ("gcc", "g++", "cc", "c++", "clang", "ninja"):
        fake = tmp_path / "bin" / name
        fake.parent.mkdir(exist_ok=True)
        fake.write_text("#!/bin/sh\nexit 127\n")
        fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "CC": "gcc", "CXX": "g++"}
    done = launch(tmp_path, f"recipe={tiny_recipe}", "cluster=local", "stages=prepare,train", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
