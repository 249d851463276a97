"""Evaluation on one GPU: Qwen3-1.7B with random weights in bf16, as in tests/performance/bench_evaluation.py.

    python -m tests.performance.gpu_evaluation [--out results/performance/h200_evaluation.json] [--rounds N] [--toy]

Prints the memory bandwidth utilisation of generation, too, which a cluster profile can have as `decoding_mbu`. --toy
runs the same with a small model, on a CPU where there is no GPU, for tests: it says nothing about speed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import structs

from reprokit.campaign.generation import Load, bytes_read, engine_size, load_of
from reprokit.campaign.memory import ELEMENT, ModelSize
from reprokit.campaign.rates import Rates
from reprokit.recipe import gpus
from reprokit.recipe.architecture import from_config
from reprokit.recipe.gpus import Gpu
from reprokit.recipe.schema import Precision
from reprokit.records import provenance
from reprokit.records.files import write_json
from tests.performance.bench_evaluation import CHECKPOINTS, TOY_MODEL, run
from tests.performance.generation import PROMPT_WORDS, Job
from tests.performance.gpu_training import real_model

CONTEXT = 16384
ROUNDS = 2
THREADS = 8
REQUESTS = [(1024, 512), (384, 2048), (64, 8192)]
OF_STARTS = [(256, 256), (64, 1024)]  # per checkpoint


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.gpu_evaluation", description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of generation (default: %(default)s)")
    parser.add_argument("--toy", action="store_true", help="a small model, on the CPU if there is no GPU, for tests")
    options = parser.parse_args(words)
    if not options.toy and not torch.cuda.is_available():
        print("there is no GPU that torch can use here; --toy runs at toy size without one", file=sys.stderr)
        return 2
    bare = Job(
        measure="against_bare",
        model=TOY_MODEL if options.toy else {**real_model(), "max_position_embeddings": CONTEXT},
        precision=Precision.bf16 if torch.cuda.is_available() else Precision.fp32,
        requests=[(12, 4), (4, 16)] if options.toy else REQUESTS,
        cores=1 if options.toy else THREADS,
        rounds=options.rounds,
    )
    starts = structs.replace(
        bare,
        measure="starts",
        requests=[(4, 4)] if options.toy else OF_STARTS,
        checkpoints=3 if options.toy else CHECKPOINTS,
    )
    found: dict[str, Any] = {
        "command": " ".join(["python -m tests.performance.gpu_evaluation", *words]),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "made_by": provenance.gather(),
        "model": bare.model,
        **run(bare, starts),
    }
    print(f"{found['device']}", flush=True)
    if torch.cuda.is_available() and (gpu := gpus.of_device(found["device"])):
        found["decoding_mbu"] = round(decoding_mbu(bare, found["generation"], gpu), 3)
        print(f"decoding_mbu: {found['decoding_mbu']}  (for the cluster profile)", flush=True)
    if options.out:
        write_json(options.out, found)
    return 0


def decoding_mbu(job: Job, generated: dict[str, Any], gpu: Gpu) -> float:
    """Memory bandwidth utilisation of our generation, as the planner of runs takes it: see `campaign.generation`."""
    architecture = from_config(job.model)
    assert architecture is not None
    size = engine_size(ModelSize(architecture.parameters, architecture), 1, ELEMENT[job.precision])
    load = sum((load_of(count, tokens, PROMPT_WORDS, tokens) for count, tokens in job.requests), Load())
    rates = Rates(gpu, gpu.memory_gb, gpu.flops, gpu.flops, gpu.bandwidth, "", "")
    seconds = generated["tokens"]["ours"] / generated["ours"]["median"]
    return sum(bytes_read(load, size, 1, rates)) / gpu.bandwidth / seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
