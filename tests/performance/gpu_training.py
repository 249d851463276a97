"""Training on one GPU: Qwen3-1.7B with random weights, rows of up to 16k tokens, in bf16.

    python -m tests.performance.gpu_training [--out results/performance/h200.json] [--toy]

Measures tokens/s, MFU and peak memory of the kit in both arithmetics and of TRL's SFTTrainer (packed, flash-attention,
Liger's layer kernels) on the same rows; the memory that the loss of one 16k-token row takes; and official arithmetic
against the plain loop in tests/reference_official.py. Needs flash-attn and liger-kernel beside
requirements/tests.txt. --toy runs the same on a CPU in fp32, for tests: it says nothing about speed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from reprokit.recipe.schema import Arithmetic, Precision, Recipe, TrainingSection
from reprokit.records import provenance
from reprokit.records.files import write_json
from tests import reference_official as official
from tests.performance import workload as workloads
from tests.performance.sides import ROOT, Side, compare, free_port
from tests.performance.worker import LEARNING_RATE, device
from tests.performance.workload import Workload

LONGEST = 16384
ROUNDS = 2
SMALL = {
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 384,
    "vocab_size": 512,
    "tie_word_embeddings": True,
    "max_position_embeddings": 1024,
}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.gpu_training", description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--toy", action="store_true", help="a small model, on the CPU if there is no GPU, for tests")
    options = parser.parse_args(words)
    if not options.toy and not torch.cuda.is_available():
        print("there is no GPU that torch can use here; --toy runs at toy size without one", file=sys.stderr)
        return 2
    precision = Precision.bf16 if torch.cuda.is_available() else Precision.fp32
    model, longest, count, rounds = (SMALL, 64, 32, 1) if options.toy else (real_model(), LONGEST, 64, ROUNDS)
    workload = Workload(model=model, count=count, longest=longest, global_batch_size=32, precision=precision)
    command = " ".join(["python -m tests.performance.gpu_training", *words])
    packages = {name: version for name in ("trl", "liger-kernel", "flash-attn") if (version := installed(name))}
    found: dict[str, Any] = {
        "command": command,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "made_by": {**provenance.gather(), **packages},
        "model": model,
        "loss": loss_memory(model, longest, precision),
        "official_arithmetic": official_difference(precision, 128 if options.toy else 512),
    }
    print_checks(found)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for the processes of the sides
    for checkpointing in (True,) if options.toy else (True, False):
        name = "gradient_checkpointing" if checkpointing else "no_gradient_checkpointing"
        found[name] = compare(sides(longest, precision, checkpointing), workload, rounds)
        if options.out:  # each time, since device time may run out
            write_json(options.out, found)
    return 0


def real_model() -> dict[str, Any]:
    """Fields of the `config.json` of Qwen3-1.7B."""
    return yaml.safe_load((ROOT / "recipes" / "models" / "qwen3_1_7b_base.yaml").read_text())["model"]["shape"]


def sides(longest: int, precision: Precision, checkpointing: bool) -> list[Side]:
    """The kit, and TRL in the same arithmetic: fp32 master weights, bf16 computation."""
    ours = {"gradient_checkpointing": checkpointing, "micro_batch_tokens": longest}
    packed = {"packing": True, "packing_strategy": "bfd", "gradient_checkpointing": checkpointing}
    if precision is Precision.bf16:
        packed |= {"use_liger_kernel": True, "model": {"attn_implementation": flash_attention()}}
    return [
        Side(name="ours, standard", trainer="ours", settings=ours),
        Side(name="ours, official", trainer="ours", settings={**ours, "arithmetic": "official"}),
        Side(name="TRL, packed (bfd)", trainer="trl", settings=packed),
    ]


def flash_attention() -> str:
    """The newest flash-attention for Hopper that is installed, as transformers calls it."""
    from transformers import utils

    return "flash_attention_3" if utils.is_flash_attn_3_available() else "flash_attention_2"


def loss_memory(model: dict[str, Any], positions: int, precision: Precision) -> dict[str, Any]:
    """GiB that loss and gradients of one row take beside hidden states and output head; null on the CPU.

    `beyond_gradients_gib` leaves out the gradients of both, which every trainer must have; `whole_logits_gib` is what
    the logits alone would take in fp32.
    """
    from reprokit.training.loss import token_loss_sum

    size, vocabulary = model["hidden_size"], model["vocab_size"]
    dtype = getattr(torch, precision.dtype)
    hidden = torch.randn(positions, size, device=device(), dtype=dtype, requires_grad=True)
    weight = torch.empty(vocabulary, size, device=device(), dtype=dtype).normal_(std=0.02).requires_grad_()
    targets = torch.randint(vocabulary, (positions,), device=device())
    before = 0
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    loss = token_loss_sum(hidden, weight, targets)
    loss.backward()
    gradients = (hidden.nbytes + weight.nbytes) / 2**30
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30 if torch.cuda.is_available() else None
    return {
        "positions": positions,
        "vocabulary": vocabulary,
        "mean_loss": float(loss.detach()) / positions,
        "peak_gib": peak,
        "beyond_gradients_gib": None if peak is None else peak - gradients,
        "whole_logits_gib": positions * vocabulary * 4 / 2**30,
    }


def official_difference(precision: Precision, longest: int) -> dict[str, Any]:
    """Official arithmetic of the kit on one rank against the plain 8-rank loop: three updates of a small model.

    `parameters` is ||ours - reference|| / ||reference||, `of_change` the same over how far the reference moved.
    """
    from reprokit.training import engine, loop

    workload = Workload(model=SMALL, count=96, longest=longest, global_batch_size=32, precision=precision)
    steps = workload.count // workload.global_batch_size
    training = TrainingSection(
        arithmetic=Arithmetic.official,
        learning_rate=LEARNING_RATE,
        epochs=1,
        global_batch_size=workload.global_batch_size,
        micro_batch_size=workload.micro_batch_size,
        precision=precision,
        checkpoint_steps=[steps],
    )
    settings = official.Settings(
        learning_rate=LEARNING_RATE,
        epochs=1,
        global_batch_size=workload.global_batch_size,
        micro_batch_size=workload.micro_batch_size,
        dtype=getattr(torch, precision.dtype),
    )
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(place, MASTER_PORT=str(free_port()))
    with tempfile.TemporaryDirectory() as folder:
        run = workloads.prepare(workload, Path(folder))
        engine.initialise_distributed(0, torch.get_num_threads())
        loop.train(run, Recipe(training=training), rank=0, world_size=1, progress=Path(folder) / "progress.json")
        engine.leave_distributed()
        theirs = official.train(run.weights(0), workloads.rows_of(run), settings, device()).parameters
        base, ours = parameters(run.weights(0)), parameters(run.weights(steps))
    difference = distance(ours, theirs)
    return {
        "precision": precision.value,
        "steps": steps,
        "parameters": difference / distance(theirs, {}),
        "of_change": difference / distance(base, theirs),
    }


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """L2 norm of the difference, over all parameters; what `other` lacks counts as 0 there."""
    squares = (one[name].double() - (other[name].double() if name in other else 0) for name in one)
    return sum(float(difference.square().sum()) for difference in squares) ** 0.5


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def print_checks(found: dict[str, Any]) -> None:
    loss, check = found["loss"], found["official_arithmetic"]
    taken = (
        "unknown on the CPU"
        if loss["peak_gib"] is None
        else f"{loss['peak_gib']:.2f} GiB, {loss['beyond_gradients_gib']:.2f} beyond the gradients"
    )
    print(
        f"{found['device']}\nloss of {loss['positions']:,} positions over {loss['vocabulary']:,} tokens: {taken} "
        f"(whole logits: {loss['whole_logits_gib']:.2f} GiB)\n"
        f"official arithmetic, {check['steps']} updates in {check['precision']}, 1 rank against the plain loop: "
        f"parameters differ by {check['parameters']:.1e}, which is {check['of_change']:.1e} of their change",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
