"""Evaluation on two CPU cores: generation against bare vLLM, the share of engine starts, a replay of work sharing.

    make bench-evaluation      or:  python -m tests.performance.bench_evaluation [--out FILE] [--rounds N] [--toy]

Generation: tokens/s of the whole stage (prompts, claims, logs, gathering) and of `vllm.LLM.generate`, with the same
engine, weights and requests; the start of the engine counts in neither. Starts: seconds of starting engines and of
drawing for eight checkpoints, by one engine whose weights are swapped and by a fresh one each. The replay is that of
tests/performance/replay.py. --toy is for tests: it says nothing about speed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from reprokit.recipe.schema import Precision
from reprokit.records import provenance
from reprokit.records.files import write_json
from tests.performance import replay
from tests.performance.generation import Job, measure

LEAST_RATIO = 0.95
CHECKPOINTS = 8
ROUNDS = 3
THREADS = 2
MODEL = {
    "model_type": "qwen3",
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 768,
    "vocab_size": 4096,
    "tie_word_embeddings": True,
    "max_position_embeddings": 1024,
}
TOY_MODEL = {**MODEL, "hidden_size": 32, "num_hidden_layers": 1, "head_dim": 32, "intermediate_size": 64}
# (number, most tokens): few long responses among many short ones.
REQUESTS = [(480, 64), (200, 160), (64, 448)]
OF_STARTS = [(96, 48), (24, 128), (8, 384)]  # per checkpoint


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.bench_evaluation", description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of generation (default: %(default)s)")
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes, for tests")
    options = parser.parse_args(words)
    bare = Job(
        measure="against_bare",
        model=MODEL,
        precision=Precision.fp32,
        requests=REQUESTS,
        cores=THREADS,
        rounds=options.rounds,
    )
    starts = structs.replace(bare, measure="starts", requests=OF_STARTS, checkpoints=CHECKPOINTS)
    if options.toy:  # threads that wait for each other's turn on busy cores cost more than such a model
        bare = structs.replace(bare, model=TOY_MODEL, requests=[(12, 4), (4, 16)], cores=1)
        starts = structs.replace(starts, model=TOY_MODEL, requests=[(4, 4)], cores=1, checkpoints=3)
    found = run(bare, starts)
    drawn = [replay.draw(seed, size=0.02 if options.toy else 1.0) for seed in range(1 if options.toy else 3)]
    found["replay"] = replay.tables(drawn)
    if options.out:
        command = " ".join(["python -m tests.performance.bench_evaluation", *words])
        write_json(options.out, {"command": command, "made_by": provenance.gather(), "model": bare.model, **found})
    return 0 if options.toy or found["generation"]["ratio"]["median"] >= LEAST_RATIO else 1


def run(bare: Job, starts: Job) -> dict[str, Any]:
    """Measure generation and starts, and print what was found."""
    found: dict[str, Any] = {"generation": measure(bare)}
    print(generation_table(found["generation"]), flush=True)
    for name, reuse in (("swapped", True), ("fresh", False)):
        found[name] = measure(structs.replace(starts, reuse=reuse))
        print(starts_line(name, found[name]), flush=True)
    print(flush=True)
    return found


def generation_table(found: dict[str, Any]) -> str:
    """Tokens/s of both sides and their ratio, for people."""
    lines = [f"\n{found['requests']} requests, {found['tokens']['ours']:,} tokens, rounds: {found['rounds']}"]
    for name, digits in (("ours", 0), ("bare", 0), ("ratio", 3)):
        one = {key: f"{value:,.{digits}f}" for key, value in found[name].items()}
        lines.append(f"{name:16}{one['median']:>9} ({one['lowest']} to {one['highest']})")
    return "\n".join(lines) + "\n"


def starts_line(name: str, found: dict[str, Any]) -> str:
    return (
        f"{found['checkpoints']} checkpoints, {name + ':':9} {found['engine_starts']} engine starts, "
        f"{found['starting_seconds']:7.1f} s starting, {found['drawing_seconds']:7.1f} s drawing: {found['share']:.0%}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
