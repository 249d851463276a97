"""Training under ZeRO-3: the same whatever the ranks and the packing, and what it says about itself."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from reprokit.data.tokens import TokenDataset
from reprokit.errors import UserError
from reprokit.records.run_directory import RunDirectory
from reprokit.training.telemetry import Watch
from tests.conftest import launch
from tests.ranks import column, copy_prepared, start_ranks, train

KEEP_GRADIENTS = """
from safetensors.torch import save_file
from deepspeed.utils import safe_get_full_grad
build = loop.Trainer.build
def built(*arguments):
    trainer = build(*arguments)
    step = trainer.engine.step
    def keep_first():
        if trainer.engine.is_gradient_accumulation_boundary():
            kept = {name: safe_get_full_grad(p) for name, p in trainer.engine.module.model.named_parameters()}
            if rank == 0:
                save_file(kept, root / "gradients.safetensors")
            os._exit(0)
        step()
    trainer.engine.step = keep_first
    return trainer
loop.Trainer.build = built
"""


def padded_gradients(run: RunDirectory, batch: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first global batch the plain way: padded rows, full logits, no DeepSpeed."""
    model = AutoModelForCausalLM.from_pretrained(run.weights(0), dtype=torch.float32, attn_implementation="eager")
    dataset = TokenDataset(run.data)
    rows = [dataset[int(row)] for row in np.random.default_rng((0, 0)).permutation(len(dataset))[:batch]]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(batch, longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for index, (tokens, prompt) in enumerate(rows):
        ids[index, : len(tokens)] = torch.from_numpy(tokens)
        mask[index, : len(tokens)] = 1
        labels[index, prompt : len(tokens)] = torch.from_numpy(tokens[prompt:])
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].flatten(0, 1)
    loss = functional.cross_entropy(logits, labels[:, 1:].flatten())
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def test_standard_gradients_are_those_of_padded_rows(local_run: RunDirectory, tmp_path: Path) -> None:
    """One rank, two, two sequence-parallel pairs, one pass and many: the gradient of the plain computation."""
    loss, expected = padded_gradients(local_run, batch=16)
    settings = {
        "one": (1, {"micro_batch_tokens": 8192}),
        "packed": (1, {"micro_batch_tokens": 512}),
        "two": (2, {"micro_batch_tokens": 600, "threshold": 0}),
        "ulysses": (4, {"sequence_parallel": 2, "micro_batch_tokens": 600}),
    }
    assert column(local_run, "loss")[0] == pytest.approx(loss, rel=1e-6)
    for name, (world, options) in settings.items():
        run = train(local_run, tmp_path / name, world, extra=KEEP_GRADIENTS, **options)
        got = load_file(run.root / "gradients.safetensors")
        worst = max(float((got[key] - expected[key]).norm() / expected[key].norm()) for key in expected)
        print(f"\n{name}: largest relative difference of a gradient {worst:.1e}")
        assert set(got) == set(expected) and worst <= 1e-5


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (1, {"micro_batch_tokens": 512, "threshold": 0}),
        (3, {"micro_batch_tokens": 700}),
        (2, {"cpu_offload": True, "sequence_parallel": 2}),
    ],
)
def test_ranks_packing_and_partitioning_do_not_change_training(
    local_run: RunDirectory, tmp_path: Path, world: int, options: dict[str, int]
) -> None:
    other = train(local_run, tmp_path, world, **options)
    assert column(other, "loss") == pytest.approx(column(local_run, "loss"), rel=1e-4)
    assert column(other, "gradient_norm") == pytest.approx(column(local_run, "gradient_norm"), rel=1e-3)
    assert column(other, "target_tokens") == column(local_run, "target_tokens")


@pytest.mark.parametrize(("arithmetic", "moments"), [("standard", torch.float32), ("official", torch.bfloat16)])
def test_bf16(local_run: RunDirectory, tmp_path: Path, arithmetic: str, moments: torch.dtype) -> None:
    """Checkpoints are bf16; master weights and moments are fp32 in standard arithmetic, bf16 in official."""
    extra = """
train = loop.train
def kept(*arguments, **named):
    build = loop.Trainer.build
    def built(*arguments):
        global trainer
        trainer = build(*arguments)
        return trainer
    loop.Trainer.build = built
    train(*arguments, **named)
    states = [state for state in trainer.engine.optimizer.optimizer.state.values()]
    print("MOMENTS", {value.dtype for state in states for key, value in state.items() if key.startswith("exp_avg")})
loop.train = kept
"""
    settings = {"precision": "bf16", "arithmetic": arithmetic, "micro_batch_size": 2}
    run = copy_prepared(local_run, tmp_path)
    done = start_ranks(run, 2, extra=extra, threshold=0, **settings)
    assert [rank.returncode for rank in done] == [0, 0], done[0].stderr[-3000:]
    assert f"MOMENTS {{{moments}}}" in done[0].stdout
    assert column(run, "loss")[-1] == pytest.approx(column(local_run, "loss")[-1], rel=0.05)
    tensors = load_file(run.checkpoint(16) / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_gradient_checkpointing_is_really_on(local_run: RunDirectory, tmp_path: Path) -> None:
    """It is off for a model in evaluation mode, which is how from_pretrained leaves it."""
    extra = """
build = engine.build
def counted(*arguments):
    layers = build(*arguments).module.model.model.layers
    used = [layer for layer in layers if layer.training and layer.gradient_checkpointing]
    print("CHECKPOINTED", len(used), flush=True)
    os._exit(0)
engine.build = counted
"""
    done = start_ranks(copy_prepared(local_run, tmp_path), 1, extra=extra)
    assert "CHECKPOINTED 2" in done[0].stdout, done[0].stderr[-3000:]


def test_norms_and_biases_do_not_decay_in_standard_arithmetic(local_run: RunDirectory, tmp_path: Path) -> None:
    """Official code: every parameter decays."""
    extra = """
build = loop.Trainer.build
def built(*arguments):
    trainer = build(*arguments)
    groups = trainer.engine.optimizer.optimizer.param_groups
    names = {p.ds_id: name for name, p in trainer.engine.module.model.named_parameters()}
    for group, params in zip(groups, trainer.engine.optimizer.fp16_groups):
        print("GROUP", group["weight_decay"], sorted(names[p.ds_id] for p in params), flush=True)
    os._exit(0)
loop.Trainer.build = built
"""
    for arithmetic in ("standard", "official"):
        run = copy_prepared(local_run, tmp_path / arithmetic)
        done = start_ranks(run, 1, extra=extra, arithmetic=arithmetic, weight_decay=0.25, micro_batch_size=2)
        groups = [line for line in done[0].stdout.splitlines() if line.startswith("GROUP")]
        if arithmetic == "official":
            assert len(groups) == 1 and groups[0].startswith("GROUP 0.25") and "norm" in groups[0]
        else:
            decayed, kept = groups
            assert decayed.startswith("GROUP 0.25") and "norm" not in decayed and "embed_tokens" in decayed
            assert kept.startswith("GROUP 0.0") and "proj" not in kept and "layers.1.self_attn.q_norm" in kept


def test_metrics_say_what_was_computed(local_run: RunDirectory) -> None:
    lines = [json.loads(line) for line in local_run.metrics.read_text().splitlines()]
    dataset = TokenDataset(local_run.data)
    order = np.random.default_rng((0, 0)).permutation(len(dataset))
    assert [line["step"] for line in lines] == list(range(1, 17))
    for index, line in enumerate(lines):
        rows = order[16 * index : 16 * index + 16]
        assert line["tokens"] == dataset.lengths[rows].sum()
        assert line["target_tokens"] == (dataset.lengths - dataset.prompt_lengths)[rows].sum()
        assert line["clipped"] == (line["gradient_norm"] > 1.0)
        assert line["padding"] == 0 and 0 <= line["imbalance"] < 0.2
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
        assert line["tokens_per_second_per_gpu"] == pytest.approx(line["tokens_per_second"] / 2)
        assert 0 <= line["data_seconds"] < line["seconds"] and 0.1 < line["peak_memory_gib"] < 24
        assert line["mfu"] is None  # the peak of this CPU is not known
    assert lines[0]["learning_rate"] == 0.0 and max(line["learning_rate"] for line in lines) == 3.0e-3
    made_by = json.loads(local_run.provenance.read_text())
    assert made_by["arithmetic"] == "standard" and made_by["world_size"] == 2


def test_a_finished_training_leaves_no_state(local_run: RunDirectory) -> None:
    assert local_run.training_complete.exists()
    assert not local_run.states() and not list((local_run.root / "state").iterdir())


def test_tensorboard_has_every_step(local_run: RunDirectory, tmp_path: Path) -> None:
    other = train(local_run, tmp_path, 1, tensorboard=True)
    (events,) = (other.root / "train" / "tensorboard").glob("events*")
    content = events.read_bytes()
    assert content.count(b"train/loss") == len(column(other, "loss")) == 16
    assert b"train/mfu" not in content


def test_divergence_names_step_and_rows(local_run: RunDirectory, tmp_path: Path) -> None:
    """The loss of one row is not a number: the passes of that row are named, not the whole batch."""
    extra = """
from reprokit.training.model import TrainedModel
flatten, forward, bad = loop.flatten, TrainedModel.forward, []
def noticed(dataset, rows, shard):
    bad[:] = [7 in rows]
    if bad[0]:
        (root / "rows").write_text(json.dumps(rows))
    return flatten(dataset, rows, shard)
def poisoned(model, batch):
    return forward(model, batch) * (float("nan") if bad[0] else 1.0)
loop.flatten, TrainedModel.forward = noticed, poisoned
"""
    run = copy_prepared(local_run, tmp_path)
    done = start_ranks(run, 2, extra=extra, micro_batch_tokens=512)
    assert [rank.returncode for rank in done] == [2, 2], done[0].stderr[-3000:]
    rows = json.loads((run.root / "rows").read_text())
    order = np.random.default_rng((0, 0)).permutation(256).tolist()
    step = order.index(7) // 16 + 1
    assert 1 <= len(rows) < 16
    for rank in done:
        assert f"training diverged at step {step}: loss nan" in rank.stderr
        assert f"(counted from 1): {', '.join(str(row + 1) for row in sorted(rows))}." in rank.stderr
    assert column(run, "step") == list(range(1, step))


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_stops_training(loss: float, norm: float) -> None:
    with pytest.raises(UserError, match=r"diverged at step 7: .* is not finite.\nRows .* 3, 6"):
        Watch([]).check(7, loss, norm, lambda: [5, 2])


def test_an_exploding_norm_stops_training() -> None:
    watch = Watch([1.0] * 9)
    watch.check(10, 2.0, 1e6, lambda: [0])  # too few steps to tell
    watch.check(11, 2.0, 500.0, lambda: [0])
    with pytest.raises(
        UserError, match="diverged at step 12: loss 2.0, gradient norm 2000.0 is 2,000 times its median"
    ):
        watch.check(12, 2.0, 2000.0, lambda: [0])


def test_a_long_list_of_rows_is_shortened() -> None:
    with pytest.raises(UserError, match="38, 39, 40 and 60 more"):
        Watch([]).check(1, math.nan, 1.0, lambda: list(range(100)))


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
