"""Programs in responses: read off the text, run in the sandbox, judged by their outputs, officially or cleanly."""

from __future__ import annotations

import base64
import functools
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reprokit.sandbox import Outcome, Program, Sandbox

TEST_SECONDS = 6.0  # of one test; the official runner has it as part of a limit for all tests only
_FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)

Test = tuple[str, str]  # input, expected output


@dataclass(frozen=True)
class Verdict:
    """Whether all tests passed, and the longest time that one of them took, in seconds."""

    passed: bool
    slowest: float = 0.0


def last_program(text: str) -> str | None:
    """The last complete python block of the text, cleaned as the official code cleans it; None if there is none."""
    blocks = _FENCE.findall(text)
    if not blocks:
        return None
    code = blocks[-1].split("</code>")[0]
    for mark in ("```python", "# YOUR CODE HERE"):
        code = code.replace(mark, "")
    return str(code.split("```")[0].replace("<code>", "").strip())


def pack(tests: list[Test]) -> str:
    """Tests as text: those of a problem may be tens of megabytes long, mostly digits."""
    return base64.b64encode(zlib.compress(json.dumps(tests).encode())).decode()


@functools.lru_cache(maxsize=1)
def unpack(packed: str) -> list[Test]:
    """Inverse of `pack`."""
    return [(given, expected) for given, expected in json.loads(zlib.decompress(base64.b64decode(packed)))]


def official_seconds(tests: int) -> float:
    """Wall time for all tests of a problem together (official code)."""
    return (TEST_SECONDS + 1) * tests + 5


@functools.lru_cache(maxsize=4)
def official_verdict(code: str, packed: str, functional: bool) -> Verdict:
    """The official code's: all tests in one process, in one time limit, until the first that fails.

    A program does not run as `__main__` unless it compares `__name__` with that in double quotes. Of a functional
    problem the function before the first parenthesis is called. Both protocols need this: it is kept for the second.
    """
    tests = unpack(packed)
    calls = None
    if functional:
        name = code.split("(")[0].split()
        calls = (name[-1] if name else "",)
    elif '__name__ == "__main__"' in code:
        code = f'__name__ = "__main__"\n{code}'
    judge = _official_value if functional else _official_output
    return _verdict(Program(code, calls, shared=True), tests, judge, official_seconds(len(tests)), None)


def clean_verdict(code: str, packed: str, name: str | None) -> Verdict:
    """That of a judge without quirks: each test runs the program anew, in 6 s; `name` is that of the function.

    Of a functional problem it calls the function of that name, in a class `Solution` or not, else the only method of
    `Solution`, else what the official code calls: no prompt tells the name.
    """
    tests = unpack(packed)
    calls = None
    if name is not None:
        first = code.split("(")[0].split()
        calls = (name, f"Solution.{name}", "Solution.*", first[-1] if first else "")
    judge = _output if name is None else _value
    return _verdict(Program(code, calls), tests, judge, official_seconds(len(tests)), TEST_SECONDS)


Judge = Callable[[str, str], bool]  # of the output and the expected one


def _verdict(program: Program, tests: list[Test], judge: Judge, seconds: float, each: float | None) -> Verdict:
    slowest = 0.0
    with Sandbox(program) as sandbox:
        for given, expected in tests:
            try:
                test = given if program.calls is None else _arguments(given, official=program.shared)
            except ValueError:
                return Verdict(False, slowest)
            outcome = sandbox.run(test, seconds if each is None else min(seconds, each))
            seconds -= outcome.seconds
            slowest = max(slowest, outcome.seconds)
            if not _passes(outcome, expected, judge):
                return Verdict(False, slowest)
    return Verdict(bool(tests), slowest)


def _passes(outcome: Outcome, expected: str, judge: Judge) -> bool:
    try:
        return outcome.ending == "done" and judge(outcome.output, expected)
    except (ValueError, RecursionError):  # not what a value is sent as, or absurdly nested
        return False


def _official_output(output: str, expected: str) -> bool:
    expected = expected.strip()
    return output.strip() == (expected[:-1].rstrip() if expected.endswith("-") else expected)


def _output(output: str, expected: str) -> bool:
    return _lines(output) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _official_value(output: str, expected: str) -> bool:
    exact, value = _returned(output)
    return exact and bool(value == _expected(expected))


def _value(output: str, expected: str) -> bool:
    return bool(_returned(output)[1] == _expected(expected))


def _returned(output: str) -> tuple[bool, Any]:
    """Whether the value is as it was returned, and the value.

    Raises:
        ValueError: the program has written something else to where its value goes.
    """
    found = json.loads(output)
    if not (isinstance(found, list) and len(found) == 2 and isinstance(found[0], bool)):
        raise ValueError("no pair of a truth value and a value")
    return found[0], found[1]


def _expected(text: str) -> Any:
    try:
        return json.loads(text.strip())
    except json.JSONDecodeError:
        return text.strip()


def _arguments(text: str, official: bool) -> list[Any]:
    """The arguments of a call, one per line.

    Raises:
        ValueError: they cannot be told.
    """
    if not official:
        try:
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        except json.JSONDecodeError:
            pass
    if "=" in text:
        return [_assigned(part) for part in text.split(",")]
    return [_argument(line.strip()) for line in text.split("\n") if line.strip()]


def _assigned(text: str) -> Any:
    _, value = text.split("=")
    return _number(value.strip(), value.strip().strip('"'))


def _argument(line: str) -> Any:
    if line.startswith('"') and line.endswith('"'):
        return line.strip('"')
    if line.startswith("[") and line.endswith("]"):
        return json.loads(line)
    return _number(line, line)


def _number(text: str, otherwise: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return otherwise
