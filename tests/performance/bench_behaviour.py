"""Speed of the behaviour detectors on one core, in megabytes of text per second, and whether their time is linear.

    python -m tests.performance.bench_behaviour [--toy]

A response is made of sentences as reasoning models write them, with numbers that differ. Exit code 1: below LIMIT, or
a text of four times the length takes more than SLOPE times the time per character.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence

from reprokit.evaluation.behaviour import behaviours

LIMIT = 8.0  # MB/s; the responses of one run of the paper are about 8 GB
SLOPE = 2.0
SENTENCES = (
    "So the sum of {a} and {b} is {c}, which means that the first term of the sequence has to be an odd number. ",
    "Let me compute the square of that: {a}^2 = {c}, and then the numerator becomes $\\frac{{{b}}}{{{a}}} + {c}$.\n\n",
    "Wait, no, the problem says that the numbers are distinct, and here {a} would be used twice. ",
    "Let me check that with n = {a}. ",
    "If x = {a}, then y = {b}; but that is larger than {c}, because both sides of the triangle are positive.\n",
    "Alternatively, maybe there is a way to write the expression as the product of {a} and ({b} - {c}). ",
    "Since the function is continuous on the interval, the value at {b} lies between those at {a} and {c}.\n\n",
)
HOSTILE = {
    "one letter": "x",
    "newlines": "\n",
    "dots": ".",
    "a loop": "Wait, let me check this again.\n",
    "brackets": "try ((",
}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.bench_behaviour", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="short texts, for tests: any speed will do")
    toy = parser.parse_args(words).toy
    size = 20_000 if toy else 2_000_000
    responses = [response(seed, size=min(size, 30_000)) for seed in range(size // 30_000 + 1)]
    speed = sum(map(len, responses)) / 1e6 / sum(seconds(text) for text in responses)
    print(f"reasoning, {len(responses)} responses: {speed:.1f} MB/s")
    slopes = []
    for name, part in {"reasoning": response(0, size), **HOSTILE}.items():
        short = (part * (size // len(part) + 1))[:size]
        once, longer = seconds(short), seconds(short * 4)
        slopes.append(longer / once / 4)
        print(f"{name}: {size / 1e6 / once:.1f} MB/s, time per character at four times the length x {slopes[-1]:.2f}")
    return 0 if toy or (speed > LIMIT and max(slopes) < SLOPE) else 1


def response(seed: int, size: int) -> str:
    generator, parts, length = random.Random(seed), [], 0
    while length < size:
        numbers = {name: generator.randrange(1000) for name in "abc"}
        parts.append(generator.choice(SENTENCES).format(**numbers))
        length += len(parts[-1])
    return "".join(parts)


def seconds(text: str) -> float:
    """Processor seconds, the best of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        behaviours(text)
        found.append(time.process_time() - start)
    return min(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
