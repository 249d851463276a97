"""Training on two CPU cores: the kit against TRL's SFTTrainer, and official arithmetic against the same one padded.

    make bench-training        or:  python -m tests.performance.bench_training [--out FILE] [--toy]

Both sides train the same random model on the same rows with the same number of threads and optimiser steps, in fp32.
Every figure is tokens of rows, without padding, per second of a whole epoch; each side is measured anew in every
round, in processes of its own. --toy is for tests: it says nothing about speed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from msgspec import structs

from reprokit.records import provenance
from reprokit.records.files import write_json
from tests.performance.sides import Side, compare
from tests.performance.workload import Workload

# Qwen3-1.7B, the smallest model of the paper, and its rows of at most 20,000 tokens, with every width and length
# divided by 8, heads of the same size, 6 layers instead of 28, and a vocabulary with which the output head keeps its
# share of the parameters. Linear layers, attention and head then take the same shares of the operations as there.
MODEL = {
    "model_type": "qwen3",
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "intermediate_size": 768,
    "vocab_size": 4096,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
}
LONGEST = 2500
TOY_MODEL = {
    **MODEL,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "intermediate_size": 64,
    "vocab_size": 64,
}
ROUNDS = 2

# What TRL is fastest with on two cores. Its packs are as long as the longest row, since shorter ones would cut rows.
# One row at a time there is no padding at all, which no other batch size beat; batches of four are what padding costs.
# torch.compile gained 4 % on packed rows (not used: it compiles for minutes), other attentions than sdpa lost.
# Whether one process with two threads or two with one thread are faster depends on the other load of the machine, so
# both are measured where TRL is fastest.
STANDARD = [
    Side(name="ours, standard", trainer="ours", processes=2, threads=1),
    Side(
        name="TRL, packed, rows apart (bfd)",
        trainer="trl",
        threads=2,
        settings={"packing": True, "packing_strategy": "bfd"},
    ),
    Side(
        name="TRL, packed, rows cut and mixed (wrapped)",
        trainer="trl",
        threads=2,
        settings={"packing": True, "packing_strategy": "wrapped"},
    ),
    Side(
        name="TRL, padded, 4 rows of similar length",
        trainer="trl",
        threads=2,
        settings={"per_device_train_batch_size": 4, "train_sampling_strategy": "group_by_length"},
    ),
    Side(name="TRL, one row at a time", trainer="trl", threads=2),
    Side(
        name="TRL, packed, rows apart, two processes",
        trainer="trl",
        processes=2,
        settings={"packing": True, "packing_strategy": "bfd"},
    ),
    Side(name="TRL, one row at a time, two processes", trainer="trl", processes=2),
]
OFFICIAL = [
    Side(name="ours, official", trainer="ours", processes=2, threads=1, settings={"arithmetic": "official"}),
    Side(name="plain PyTorch, official, padded", trainer="padded", threads=2),
]


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.bench_training", description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes, for tests")
    options = parser.parse_args(words)
    model, longest, rounds, standard, official = MODEL, LONGEST, ROUNDS, STANDARD, OFFICIAL
    if options.toy:  # threads that wait for each other's turn on busy cores cost more than such a model
        model, longest, rounds = TOY_MODEL, 80, 1
        standard, official = ([structs.replace(side, threads=1) for side in sides] for sides in (STANDARD, OFFICIAL))
    found = {
        "standard": compare(standard, Workload(model=model, count=64, longest=longest, global_batch_size=32), rounds),
        "official": compare(official, Workload(model=model, count=32, longest=longest, global_batch_size=32), rounds),
    }
    if options.out:
        made_by = {**provenance.gather(), "trl": metadata.version("trl")}
        command = " ".join(["python -m tests.performance.bench_training", *words])
        write_json(options.out, {"command": command, "made_by": made_by, "model": model, **found})
    return 1 if any(one["failed"] for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
