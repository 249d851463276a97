"""LiveCodeBench v2: prompts, hidden tests, programs read off responses, and the verdicts of both protocols."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reprokit import benchmarks
from reprokit.benchmarks.grading import programs
from reprokit.benchmarks.interface import PROTOCOLS, Item, Response
from reprokit.benchmarks.livecodebench_v2 import private_tests
from reprokit.errors import UserError
from reprokit.sandbox import Outcome, Program, Sandbox

BENCHMARK = benchmarks.get("livecodebench_v2")


def encoded(value: Any) -> str:
    """As upstream encodes hidden tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def row(tests: list[tuple[str, str]], kind: str = "stdin", name: str = "", **others: Any) -> dict[str, Any]:
    listed = [{"input": given, "output": expected, "testtype": kind} for given, expected in tests]
    return {
        "question_title": "A title",
        "question_content": "A question?\n",
        "platform": "atcoder",
        "question_id": "abc_a",
        "contest_date": "2023-08-21T00:00:00",
        "starter_code": "class Solution:\n    def double(self, x: int) -> int:\n        ",
        "difficulty": "easy",
        "public_test_cases": json.dumps(listed[:1]),
        "private_test_cases": encoded(json.dumps(listed)),
        "metadata": json.dumps({"func_name": name} if name else {}),
        **others,
    }


def read(folder: Path, *rows: dict[str, Any]) -> list[Item]:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert BENCHMARK.read is not None
    return BENCHMARK.read([path])


def verdicts(item: Item, text: str, finished: bool = True) -> tuple[bool, bool]:
    """Official and clean."""
    official, clean = (BENCHMARK.score(item, Response(text, finished), protocol, {}) for protocol in PROTOCOLS)
    return bool(official.values["accuracy"]), bool(clean.values["accuracy"])


DOUBLE = [("1\n", "2\n"), ("5", "10"), ("-3\n", "-6")]
GOOD = "print(2 * int(input()))"
BAD = "print(3 * int(input()))"


@pytest.fixture
def double(tmp_path: Path) -> Item:
    return read(tmp_path, row(DOUBLE))[0]


@pytest.fixture
def function(tmp_path: Path) -> Item:
    return read(tmp_path, row(DOUBLE, "functional", "double"))[0]


def block(code: str) -> str:
    return f"```python\n{code}\n```"


def test_prompts_are_those_of_the_official_code(double: Item, function: Item) -> None:
    assert double.messages == [
        {
            "role": "user",
            "content": "You are an expert Python programmer. You will be given a question (problem specification) and will generate a correct Python program that matches the specification and passes all tests."  # noqa: E501
            "A question?\n"
            "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample inputs). Enclose your code within delimiters as follows: ```python\n# YOUR CODE HERE\n```. Ensure that when the python program runs, it reads the inputs, runs the algorithm and writes output to STDOUT.",  # noqa: E501
        }
    ]
    assert function.messages == [
        {
            "role": "user",
            "content": "You are an expert Python programmer. You will be given a question (problem specification) and will generate a correct Python program that matches the specification and passes all tests."  # noqa: E501
            "A question?\n"
            "Do not directly test on the sample inputs. Enclose your code within delimiters as follows: ```python\n# YOUR CODE HERE\n```. Return the function body without invoking it at the final solution.",  # noqa: E501
        }
    ]


def test_items(double: Item, function: Item) -> None:
    assert (double.id, double.group, double.cluster) == ("abc_a", "easy", "")
    assert double.answer["function"] is None and function.answer["function"] == "double"
    assert programs.unpack(double.answer["tests"]) == DOUBLE
    assert msgspec.json.decode(msgspec.json.encode([double]), type=list[Item]) == [double]
    assert (BENCHMARK.size, BENCHMARK.title, BENCHMARK.votes) == (511, "LiveCodeBench v2", False)


EXTRACTION = {
    "nothing": ("I do not know.", True, (False, False)),
    "bare": (GOOD, True, (False, False)),
    "one block": (f"Here:\n{block(GOOD)}\nDone.", True, (True, True)),
    "last of two": (f"{block(BAD)} or {block(GOOD)}", True, (True, True)),
    "last of two is wrong": (f"{block(GOOD)} or {block(BAD)}", True, (False, False)),
    "after thinking": (f"<think>{block(BAD)}</think>{block(GOOD)}", True, (True, True)),
    "in thinking only": (f"<think>{block(GOOD)}</think>The code is above.", True, (True, False)),
    "thinking without end": (f"<think>{block(GOOD)} Wait,", True, (True, False)),
    "cut off": (f"<think>x</think>{block(GOOD)} Now", False, (True, False)),
    "open block": (f"```python\n{GOOD}\n", True, (False, False)),
    "open block after another": (f"{block(GOOD)} better: ```python\n{BAD}\n", True, (True, True)),
    "other label": (f"```py\n{GOOD}\n```", True, (False, False)),
    "no label": (f"```\n{GOOD}\n```", True, (False, False)),
    "label with blank": (f"```python \n{GOOD}\n```", True, (False, False)),
    "comment of the prompt": (block(f"# YOUR CODE HERE\n{GOOD}"), True, (True, True)),
    "tags": (block(f"<code>{GOOD}\n</code>\nThis is it."), True, (True, True)),
    "indented": (block(f"    {GOOD}"), True, (True, True)),
    "empty": (block(""), True, (False, False)),
    "block in a block": (f"```python\n```python\n{GOOD}\n```", True, (False, False)),
}


@pytest.mark.parametrize("name", EXTRACTION)
def test_programs_are_read_off_texts(double: Item, name: str) -> None:
    text, finished, expected = EXTRACTION[name]
    assert verdicts(double, text, finished) == expected


def test_the_answer_is_the_code(double: Item) -> None:
    text = f"<think>{block(BAD)}</think>"
    official, clean = (BENCHMARK.score(double, Response(text), protocol, {}).answer for protocol in PROTOCOLS)
    assert (official, clean) == (BAD, None)


STDIN = {
    "blanks": ("print(' ', 2 * int(input()), '  ')", (True, True)),
    "buffer": ("import sys; print(2 * int(sys.stdin.buffer.read()))", (False, True)),
    "file of number 0": ("print(2 * int(open(0).read()))", (False, True)),
    "bytes out": ("import sys; sys.stdout.buffer.write(b'%d' % (2 * int(input())))", (False, True)),
    "single quotes": (f"if __name__ == '__main__':\n    {GOOD}", (False, True)),
    "double quotes": (f'if __name__ == "__main__":\n    {GOOD}', (True, True)),
    "future and double quotes": (
        f'from __future__ import annotations\nif __name__ == "__main__":\n    {GOOD}',
        (False, True),
    ),
    "exit": (f"import sys\n{GOOD}\nsys.exit(0)", (False, True)),
    "exit of builtins": (f"{GOOD}\nexit()", (False, False)),  # site, which gives it, is not loaded
    "failing exit": (f"import sys\n{GOOD}\nsys.exit(1)", (False, False)),
    "exception after the answer": (f"{GOOD}\n1 / 0", (False, False)),
    "not Python": ("print(2 *", (False, False)),
    "guarded function": (f"import os\nos.getcwd()\n{GOOD}", (False, True)),
    "hidden module": (f"import resource\n{GOOD}", (False, True)),
    "main in a function": ("def main():\n    n = int(input())\n    print(n * 2)\nmain()", (True, True)),
    "recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\nf = lambda n: n and 1 + f(n - 1)\nf(50000)\n" + GOOD,
        (True, True),
    ),
    "forged verdict": ("print('+True'); print('passed')", (False, False)),
    "only the first tests": ("n = int(input())\nprint(n * 2 if n > 0 else 0)", (False, False)),
    "remembers": ("import builtins\nif hasattr(builtins, 'x'): 1 / 0\nbuiltins.x = 1\n" + GOOD, (False, True)),
}


@pytest.mark.parametrize("name", STDIN)
def test_programs_with_standard_input(double: Item, name: str) -> None:
    code, expected = STDIN[name]
    assert verdicts(double, block(code)) == expected


@pytest.mark.parametrize(
    ("printed", "expected", "verdict"),
    [
        ("1\n2", "1\n2\n", (True, True)),
        ("1 \n2\t\n\n", "1\n2", (False, True)),
        ("1 2", "1  2", (False, False)),
        ("1.0", "1", (False, False)),
        ("1\n\n2", "1\n2", (False, False)),
        ("Yes", "YES", (False, False)),
        ("5", "5-", (True, True)),
        ("5-", "5-", (False, True)),
        ("-", "-", (False, True)),
        ("", "", (True, True)),
    ],
)
def test_outputs(tmp_path: Path, printed: str, expected: str, verdict: tuple[bool, bool]) -> None:
    item = read(tmp_path, row([("", expected)]))[0]
    assert verdicts(item, block(f"print({printed!r}, end='')")) == verdict


FUNCTIONAL = {
    "plain": ("def double(x):\n    return 2 * x", (True, True)),
    "any name": ("def whatever(x):\n    return 2 * x", (True, True)),
    "wrong": ("def double(x):\n    return 3 * x", (False, False)),
    "method": ("class Solution:\n    def double(self, x):\n        return 2 * x", (False, True)),
    "method of another name": ("class Solution:\n    def twice(self, x):\n        return 2 * x", (False, True)),
    "two methods": ("class Solution:\n    def a(self, x): return 2 * x\n    def b(self, x): return 0", (False, False)),
    "method among others": (
        "class Solution(object):\n    def help(self, x): return x\n    def double(self, x): return 2 * self.help(x)",
        (False, True),
    ),
    "helper first": ("def help(x):\n    return x\ndef double(x):\n    return 2 * help(x)", (False, True)),
    "import first": ("from math import sqrt\ndef f(x):\n    return 2 * x", (True, True)),
    "decorator": ("import functools\n@functools.lru_cache(None)\ndef double(x): return 2 * x", (False, True)),
    "lambda": ("double = lambda x: 2 * x", (False, True)),
    "type that is not imported": ("def double(x: List[int]):\n    return 2 * x", (False, False)),
    "float": ("def double(x):\n    return 2.0 * x", (True, True)),
    "text": ("def double(x):\n    return str(2 * x)", (False, False)),
    "prints": ("def double(x):\n    print(2 * x)", (False, False)),
    "prints and returns": ("def double(x):\n    print('[true, 0]')\n    return 2 * x", (True, True)),
    "equal to everything": ("class A:\n    __eq__ = lambda s, o: True\ndef double(x): return A()", (False, False)),
    "tests itself": ("def double(x):\n    return 2 * x\nif __name__ == '__main__':\n    double(input())", (True, True)),
    "no function": ("x", (False, False)),
    "no code": ("", (False, False)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_functions(function: Item, name: str) -> None:
    code, expected = FUNCTIONAL[name]
    assert verdicts(function, block(code)) == expected


@pytest.mark.parametrize(
    ("given", "expected", "code", "verdict"),
    [
        ("[1, 2]\n3", "[1, 2, 3]", "def f(a, b): return a + [b]", (True, True)),
        ('"ab"\n"c"', '"abc"', "def f(a, b): return a + b", (True, True)),
        ("1.5", "3.0", "def f(a): return 2 * a", (True, True)),
        ("[[1, 2], [3]]", "[[1, 2], [3]]", "def f(a): return a", (True, True)),
        ("[1]", "[1, 2]", "def f(a): return (1, 2)", (False, True)),
        ("[1]", "[[1, 2]]", "def f(a): return [(1, 2)]", (False, True)),
        ("[1]", "true", "def f(a): return 1", (True, True)),
        ("true", "true", "def f(a): return a is True", (False, True)),
        ('"a=b"', '"a=b"', "def f(a): return a", (False, True)),
        ("a = 1, b = 2", "3", "def f(a, b): return a + b", (True, True)),
        ("a=1=2", "3", "def f(a): return 3", (False, False)),
        ("[1]", "not JSON", "def f(a): return 'not JSON'", (True, True)),
        ("[1]", '{"1": 2}', "def f(a): return {1: 2}", (False, True)),
    ],
)
def test_values(tmp_path: Path, given: str, expected: str, code: str, verdict: tuple[bool, bool]) -> None:
    item = read(tmp_path, row([(given, expected)], "functional", "f"))[0]
    assert verdicts(item, block(code)) == verdict


@pytest.mark.parametrize("output", ["5", "null", "[]", "[true]", "[true, 2, 2]", "[1, 2]", '{"0": true, "1": 2}', "x"])
def test_what_is_no_returned_value_is_wrong(output: str) -> None:
    for judge in (programs._official_value, programs._value):
        assert programs._passes(Outcome("done", "[true, 2]"), "2", judge)
        assert not programs._passes(Outcome("done", output), "2", judge)


def test_a_program_that_writes_to_the_descriptors_of_values_is_wrong(function: Item) -> None:
    code = """
def double(x):
    import os, time
    for descriptor in range(3, 32):
        try: os.write(descriptor, {!r})
        except OSError: pass
    {}
"""
    framed = (2).to_bytes(8, "big") + b"+5"
    assert verdicts(function, block(code.format(framed, "time.sleep(9)")))[0] is False
    assert verdicts(function, block(code.format(b"5", "os._exit(0)"))) == (False, False)


def test_one_slow_test_passes_officially_within_the_time_of_all(double: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "TEST_SECONDS", 1.0)
    monkeypatch.setattr(programs, "official_seconds", lambda tests: 1.2 * tests)
    code = "import time\nn = int(input())\nif n == {}: time.sleep({})\nprint(2 * n)"
    assert verdicts(double, block(code.format(5, 0))) == (True, True)
    assert verdicts(double, block(code.format(5, 1.6))) == (True, False)
    assert verdicts(double, block(code.format(5, 9))) == (False, False)


def test_the_official_time_limit_is_that_of_the_problem() -> None:
    assert programs.official_seconds(10) == 75


def test_a_program_runs_once_for_both_protocols(double: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Program] = []

    def counted(program: Program) -> Sandbox:
        started.append(program)
        return Sandbox(program)

    monkeypatch.setattr(programs, "Sandbox", counted)
    assert verdicts(double, block(GOOD + "  # once")) == (True, True)
    assert len(started) == 1
    assert verdicts(double, block(BAD + "  # twice")) == (False, False)
    assert [program.shared for program in started[1:]] == [True, False]


def test_a_problem_without_hidden_tests_is_never_solved(tmp_path: Path) -> None:
    item = read(tmp_path, row([]))[0]
    assert verdicts(item, block(GOOD)) == (False, False)


TESTS = [{"input": "1", "output": "2", "testtype": "stdin"}]


@pytest.mark.parametrize("text", [json.dumps(TESTS), encoded(json.dumps(TESTS))], ids=["plain", "pickled"])
def test_hidden_tests_are_decoded(text: str) -> None:
    assert private_tests(text) == TESTS


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('/tmp/owned').touch(); raise SystemExit",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (encoded(Malicious()), "it asks for builtins.exec"),
        (encoded(Path), "it asks for pathlib.Path"),
        (encoded(TESTS), "no list of tests"),
        (encoded("{}"), "no list of tests"),
        (encoded(json.dumps([{"input": 1, "output": "2", "testtype": "stdin"}])), "no list of tests"),
        (base64.b64encode(zlib.compress(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")).decode(), "it asks for os.system"),
        (base64.b64encode(zlib.compress(b"\x80\x04garbage")).decode(), "neither JSON nor a pickled text"),
        (base64.b64encode(b"not zlib").decode(), "neither JSON nor a pickled text"),
        ("abc", "neither JSON nor a pickled text"),
    ],
)
def test_other_hidden_tests_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"test.jsonl, line 2: not a problem of livecodebench.*{said}"):
        read(tmp_path, row(DOUBLE), row(DOUBLE, private_test_cases=text))
    assert not Path("/tmp/owned").exists()


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    assert BENCHMARK.read is not None
    (tmp_path / "test.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="unknown kind of benchmark file; give test.jsonl and test2.jsonl"):
        BENCHMARK.read([tmp_path / "test.csv"])
    with pytest.raises(UserError, match="the file has no rows"):
        read(tmp_path)
    with pytest.raises(UserError, match="line 1: .*no question_id; its columns are question_title"):
        read(tmp_path, row(DOUBLE, question_id=None))
    with pytest.raises(UserError, match="No such file"):
        BENCHMARK.read([tmp_path / "missing.jsonl"])


@pytest.mark.parametrize(
    "text", ["```python\n" * 20_000, block("(" * 100_000), block("\0"), block("é\udc80"), "\udc80"]
)
def test_absurd_texts_are_wrong(double: Item, text: str) -> None:
    assert verdicts(double, text) == (False, False)
