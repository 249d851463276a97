"""LiveCodeBench v2 (release_v2: 511 problems): programs, judged by hidden tests in a sandbox.

Prompt and official scoring are those of the official code: the starter code and the function's name are not shown,
and a class `Solution` never passes. Clean scoring takes the code after the thinking and runs it as a program is run.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reprokit.benchmarks.grading import programs
from reprokit.benchmarks.grading.answers import after_thinking
from reprokit.benchmarks.interface import Benchmark, Item, Protocol, Reply, Response, Score, Upstream
from reprokit.errors import UserError
from reprokit.sandbox import isolation

PREFIX = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
STDIN_SUFFIX = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows: ```python\n# YOUR CODE HERE\n```. Ensure that when the "
    "python program runs, it reads the inputs, runs the algorithm and writes output to STDOUT."
)
FUNCTIONAL_SUFFIX = (
    "Do not directly test on the sample inputs. Enclose your code within delimiters as follows: ```python\n"
    "# YOUR CODE HERE\n```. Return the function body without invoking it at the final solution."
)
_COLUMNS = ("question_content", "question_id", "difficulty", "public_test_cases", "private_test_cases", "metadata")


class _PlainUnpickler(pickle.Unpickler):
    """Takes text and numbers only: whatever would be imported or called is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def private_tests(encoded: str) -> list[dict[str, str]]:
    """Hidden tests: JSON, or base64 of zlib of a pickled JSON text.

    Raises:
        ValueError: something else, such as a pickle that would run code.
    """
    try:
        return _tests(encoded)
    except json.JSONDecodeError:
        pass
    try:
        text = _PlainUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(encoded)))).load()
    except Exception as error:  # a damaged pickle may raise almost anything
        raise ValueError(f"neither JSON nor a pickled text: {error}") from error
    return _tests(text)


def _tests(text: Any) -> list[dict[str, str]]:
    tests = json.loads(text) if isinstance(text, str) else None
    fields = ("input", "output", "testtype")
    if not isinstance(tests, list) or not all(
        isinstance(test, dict) and all(isinstance(test.get(field), str) for field in fields) for test in tests
    ):
        raise ValueError(f"no list of tests with {', '.join(fields)}")
    return tests


def read(paths: Sequence[Path]) -> list[Item]:
    """Problems of the upstream files, which are read line by line: the two hold about two gigabytes.

    Raises:
        UserError: a file of another form; the message names the line.
    """
    return [item for path in paths for item in _items(path)]


def _items(path: Path) -> Iterator[Item]:
    if path.suffix != ".jsonl":
        raise UserError(f"{path}: unknown kind of benchmark file; give test.jsonl and test2.jsonl of {UPSTREAM.hub_id}")
    empty, number = True, 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                number += 1
                if line.strip():
                    yield _item(json.loads(line))
                    empty = False
    except (OSError, ValueError) as error:
        raise UserError(f"{path}, line {number}: not a problem of {UPSTREAM.hub_id}: {error}") from error
    if empty:
        raise UserError(f"{path}: the file has no rows")


def _item(row: Any) -> Item:
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__} instead of an object with named columns")
    if missing := [column for column in _COLUMNS if not isinstance(row.get(column), str)]:
        raise ValueError(f"no {', '.join(missing)}; its columns are {', '.join(row)}")
    stdin = any(test["testtype"] == "stdin" for test in _tests(row["public_test_cases"]))
    tests = private_tests(row["private_test_cases"])
    question = row["question_content"]
    return Item(
        id=row["question_id"],
        messages=[{"role": "user", "content": PREFIX + question + (STDIN_SUFFIX if stdin else FUNCTIONAL_SUFFIX)}],
        answer={
            "function": None if stdin else _function(row["metadata"]),
            "tests": programs.pack([(test["input"], test["output"]) for test in tests]),
        },
        group=row["difficulty"],
    )


def _function(metadata: str) -> str:
    """Name of the function to write; empty if there is none."""
    found = json.loads(metadata)
    return str(found.get("func_name", "")) if isinstance(found, dict) else ""


def score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    """Right if all hidden tests pass; the answer is the code.

    A program that passes the official way also passes cleanly if no test took longer than the limit of one.

    Raises:
        SandboxError: the sandbox does not start on this machine, so nothing can be said.
    """
    if protocol == "official":
        code = programs.last_program(response.text)
        return Score.of(code is not None and _official(item, code).passed, code)
    rest = after_thinking(response.text) if response.finished else None
    code = programs.last_program(rest) if rest is not None else None
    return Score.of(code is not None and _clean(item, code, response), code)


def _official(item: Item, code: str) -> programs.Verdict:
    return programs.official_verdict(code, item.answer["tests"], item.answer["function"] is not None)


def _clean(item: Item, code: str, response: Response) -> bool:
    if code == programs.last_program(response.text):  # then its official verdict has been asked for, or will be
        official = _official(item, code)
        if official.passed or official.slowest > programs.TEST_SECONDS:
            return official.passed and official.slowest <= programs.TEST_SECONDS
    return programs.clean_verdict(code, item.answer["tests"], item.answer["function"]).passed


UPSTREAM = Upstream("livecodebench/code_generation_lite", ("test.jsonl", "test2.jsonl"))
BENCHMARK = Benchmark(
    name="livecodebench_v2",
    title="LiveCodeBench v2",
    size=511,
    score=score,
    read=read,
    upstream=UPSTREAM,
    score_seconds=3600.0,
    facts=lambda: {"sandbox": isolation()},
)
