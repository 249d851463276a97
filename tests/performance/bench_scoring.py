"""Scoring of MATH500: three responses of about 8,000 tokens to each problem, both protocols, on all cores.

    python -m tests.performance.bench_scoring [--data FILE] [--out FILE] [--toy]

The responses are made of the reference solutions: a thinking of many of them, with their formulas and asides on what
the answer may be, then the solution of the problem itself and its answer in a box. One in ten is cut off while it
thinks. The time is that of the whole, from the start of the processes to the last score.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reprokit import benchmarks
from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.interface import PROTOCOLS
from reprokit.evaluation.scoring import Pool, Task
from reprokit.records import provenance
from reprokit.records.files import write_json, write_json_lines

DATA = Path(__file__).parents[3] / "shared" / "data" / "math500.jsonl"
SAMPLES = 3
CHARACTERS = 30_000  # about 8,000 tokens of mathematical English
LIMIT = 30.0  # seconds, on two cores
ASIDES = (
    "Wait, let me check that again. ",
    "Hmm, so is the answer {answer}? ",
    "So the answer would be ${answer}$. But is that right?\n\n",
    "If I put \\boxed{{{answer}}}, that fits this:\n",
    "Alternatively:\n\n",
)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.bench_scoring", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="MATH500 in its upstream form (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--toy", action="store_true", help="few and short responses, for tests")
    options = parser.parse_args(words)
    found = measure(
        options.data, problems=10 if options.toy else None, characters=CHARACTERS // 10 if options.toy else CHARACTERS
    )
    print(
        f"{found['responses']} responses of {found['mean_characters']:.0f} characters, {found['processes']} processes:"
    )
    print(f"{found['seconds']:.1f} s; right: {found['right']}")
    if options.out:
        command = " ".join(["python -m tests.performance.bench_scoring", *words])
        write_json(options.out, {"command": command, "made_by": provenance.gather(), **found})
    return 0 if found["seconds"] < LIMIT else 1


def measure(data: Path, problems: int | None, characters: int) -> dict[str, Any]:
    """Seconds to score the responses, and for each protocol the fraction that is right."""
    read = benchmarks.get("math500").read
    assert read is not None
    rows, items = read_rows(data)[:problems], read([data])[:problems]
    tasks = [
        Task(item.id, sample, *response(rows, number, sample, characters), replies={})
        for number, item in enumerate(items)
        for sample in range(SAMPLES)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_json_lines(Path(folder) / "items.jsonl", items)
        start = time.perf_counter()
        with Pool("math500", Path(folder) / "items.jsonl") as pool:
            scores = pool.score(tasks)
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "processes": pool.processes,
        "responses": len(tasks),
        "mean_characters": sum(len(task.text) for task in tasks) / len(tasks),
        "failures": len(pool.failures),
        "right": {name: sum(one.values[name]["accuracy"] for one in scores) / len(scores) for name in PROTOCOLS},
    }


def response(rows: Sequence[dict[str, Any]], number: int, sample: int, characters: int) -> tuple[str, bool]:
    """A text to the problem of that number, and whether it is finished."""
    draw = random.Random(f"{number}, {sample}")
    parts, length = ["<think>\nOkay, let me think about this.\n\n"], 0
    while length < characters:
        other = draw.choice(rows)
        aside = draw.choice(ASIDES).format(answer=other["answer"])
        parts.append(aside + other["solution"].replace("\\boxed", "") + "\n\n")
        length += len(parts[-1])
    thinking = "".join(parts)[:characters]
    if draw.random() < 0.1:
        return thinking, False
    row = rows[number]
    own = row["solution"].replace("\\boxed", "")
    return f"{thinking}\n</think>\n\n{own}\n\n**Final Answer**\n\n\\[\n\\boxed{{{row['answer']}}}\n\\]", True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
