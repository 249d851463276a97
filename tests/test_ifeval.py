"""IFEval: its prompts, and lm-eval's checkers as we call them."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reprokit import benchmarks
from reprokit.benchmarks.grading import instructions
from reprokit.benchmarks.interface import PROTOCOLS, Item, Response
from reprokit.errors import UserError

IFEVAL = benchmarks.get("ifeval")
REAL = Path(__file__).parents[2] / "shared" / "data" / "ifeval.jsonl"
ALL_RIGHT = {
    "inst_level_strict_acc": 1.0,
    "prompt_level_strict_acc": 1.0,
    "inst_level_loose_acc": 1.0,
    "prompt_level_loose_acc": 1.0,
}
ALL_WRONG = dict.fromkeys(ALL_RIGHT, 0.0)

Check = tuple[str, dict[str, Any]]
NO_COMMA: Check = ("punctuation:no_comma", {})
LOWER_CASE: Check = ("change_case:english_lowercase", {})
TITLE: Check = ("detectable_format:title", {})
JSON: Check = ("detectable_format:json_format", {})
FRENCH: Check = ("language:response_language", {"language": "fr"})
QUOTES: Check = ("startend:quotation", {})


def words(count: int) -> Check:
    return "length_constraints:number_words", {"relation": "at least", "num_words": count}


def sentences(relation: str, count: int) -> Check:
    return "length_constraints:number_sentences", {"relation": relation, "num_sentences": count}


def letters(letter: str, count: int) -> Check:
    return "keywords:letter_frequency", {"letter": letter, "let_relation": "at least", "let_frequency": count}


def item(folder: Path, *checks: Check, prompt: str = "Write a note.") -> Item:
    """A prompt read from a file in its upstream form, where every argument that is not used is null."""
    unused = {"language": None, "num_words": None, "relation": None}
    row = {
        "key": 7,
        "prompt": prompt,
        "instruction_id_list": [name for name, _ in checks],
        "kwargs": [{**unused, **arguments} for _, arguments in checks],
    }
    path = folder / "ifeval.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert IFEVAL.read is not None
    [made] = IFEVAL.read([path])
    return made


def values(given: Item, text: str, finished: bool = True) -> list[dict[str, float]]:
    """Under the official and the clean protocol."""
    return [IFEVAL.score(given, Response(text, finished), protocol, {}).values for protocol in PROTOCOLS]


def test_prompt(tmp_path: Path) -> None:
    made = item(tmp_path, NO_COMMA, prompt="Say {hi}.\nTwice. ")
    assert made.messages == [{"role": "user", "content": "Question: Say {hi}.\nTwice. \nAnswer:"}]
    assert made.id == "7"


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (NO_COMMA, "One or two.", "One, two."),
        (LOWER_CASE, "this is all in small letters.", "This is not."),
        (words(5), "one two three four five", "one two three four"),
        (sentences("at least", 2), "Mr. Smith came. He sat.", "Mr. Smith came."),
        (sentences("less than", 2), "Mr. Smith came to Washington.", "He came. He sat."),
        (letters("Q", 2), "Quite quick", "Quite fast"),
        (TITLE, "<<A day>> It rained.", "A day. It rained."),
        (JSON, '```json\n{"a": 1}\n```', "{a: 1}"),
        (JSON, '{"a": 1}', "[" * 100_000),
        (FRENCH, "Je ne sais pas où se trouve la bibliothèque.", "I do not know where the library is."),
        (QUOTES, '"Quoted."', "Not quoted."),
    ],
)
def test_a_right_and_a_wrong_response(tmp_path: Path, check: Check, right: str, wrong: str) -> None:
    made = item(tmp_path, check)
    assert values(made, right) == [ALL_RIGHT, ALL_RIGHT]
    assert values(made, wrong) == [ALL_WRONG, ALL_WRONG]


@pytest.mark.parametrize(
    ("text", "finished", "official", "clean"),
    [
        ("no comma", True, 1, 1),
        ("<think>a, b</think>\n\nno comma", True, 1, 1),
        ("a, b</think>no comma", True, 1, 1),
        ("<think>a</think>b, c", True, 0, 0),
        ("no comma so far", False, 1, 0),
        ("<think>no comma so far", False, 1, 0),
        ("<think>no comma so far", True, 1, 0),
        ("<think>a, b<|/think|>no comma", True, 1, 0),
        ("a, b<|/think|>no comma", True, 1, 0),
        ("<think>a</think>", True, 0, 0),
        ("", True, 0, 0),
        ("x " * 100_000, True, 1, 1),
    ],
)
def test_what_is_checked(tmp_path: Path, text: str, finished: bool, official: int, clean: int) -> None:
    made = item(tmp_path, NO_COMMA)
    assert values(made, text, finished) == [ALL_RIGHT if verdict else ALL_WRONG for verdict in (official, clean)]


def test_levels_and_ways(tmp_path: Path) -> None:
    made = item(tmp_path, NO_COMMA, words(3), QUOTES, LOWER_CASE)
    assert values(made, 'Here it is, look:\n"this is a small note that was written in english"')[0] == {
        "inst_level_strict_acc": 0.25,
        "prompt_level_strict_acc": 0.0,
        "inst_level_loose_acc": 1.0,
        "prompt_level_loose_acc": 1.0,
    }


def test_instructions_count_the_same_at_their_level_and_prompts_at_theirs(tmp_path: Path) -> None:
    made = [item(tmp_path, NO_COMMA), item(tmp_path, NO_COMMA, TITLE, JSON)]
    assert {metric.name: IFEVAL.weights(made, "official", metric.name) for metric in IFEVAL.metrics} == {
        "inst_level_strict_acc": [1.0, 3.0],
        "inst_level_loose_acc": [1.0, 3.0],
        "prompt_level_strict_acc": [1.0, 1.0],
        "prompt_level_loose_acc": [1.0, 1.0],
    }
    assert IFEVAL.metrics[0].name == "inst_level_strict_acc"


def test_a_character_that_is_no_letter_is_counted_only_in_the_clean_protocol(tmp_path: Path) -> None:
    made = item(tmp_path, letters("#", 3))
    assert values(made, "###") == [ALL_WRONG, ALL_RIGHT]
    assert values(made, "the quick brown fox jumps over the lazy dog " * 3) == [ALL_RIGHT, ALL_WRONG]


def test_what_checkers_draw_is_the_same_every_time_and_apart_from_the_process(tmp_path: Path) -> None:
    made = item(tmp_path, letters("#", 1), FRENCH)
    results = []
    for seed in range(5):
        random.seed(seed)
        before = random.getstate()
        instructions._followed.cache_clear()
        results.append(values(made, "la la le"))
        assert random.getstate() == before
    assert all(result == results[0] for result in results)


def test_a_text_in_no_language_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = item(tmp_path, FRENCH)
    with caplog.at_level(logging.INFO):
        assert values(made, "123") == [ALL_RIGHT, ALL_RIGHT]
    assert not caplog.records


@pytest.mark.parametrize(
    ("ids", "arguments", "message"),
    [
        (["punctuation:no_dots"], [{}], "row 1: lm-eval has no checker for punctuation:no_dots; valid: .*no_comma"),
        (["punctuation:no_comma"], [], "row 1: 1 instructions with 0 sets of arguments"),
        ([], [], "row 1: 0 instructions"),
        (["punctuation:no_comma"], "[{}]", "row 1: kwargs is a text; it must be a list"),
        (["punctuation:no_comma"], ["{}"], "row 1: '{}' in kwargs; it must be an object"),
        ("punctuation:no_comma", [{}], "row 1: instruction_id_list is a text; it must be a list"),
        ([5], [{}], "row 1: lm-eval has no checker for 5; valid: "),
    ],
)
def test_rows_that_cannot_be_checked(tmp_path: Path, ids: Any, arguments: Any, message: str) -> None:
    path = tmp_path / "ifeval.jsonl"
    path.write_text(json.dumps({"key": 1, "prompt": "p", "instruction_id_list": ids, "kwargs": arguments}))
    assert IFEVAL.read is not None
    with pytest.raises(UserError, match=message):
        IFEVAL.read([path])


WITHOUT = """
import importlib.util, socket, sys

def no_network(*arguments):
    raise AssertionError("the network was used")

hidden = sys.argv[1]
socket.socket.connect = socket.getaddrinfo = no_network
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == hidden else find(name, *rest)
if hidden != "llama_index":
    sys.modules[hidden] = None
from reprokit.benchmarks.grading import instructions
try:
    print(len(instructions.instruction_ids()))
except Exception as error:
    print(type(error).__name__, error)
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("hidden", "says"),
    [
        ("nothing", "26"),
        ("llama_index", "UserError IFEval's checkers need NLTK's sentence model punkt_tab"),
        ("lm_eval", "UserError IFEval's checkers need the Python package 'lm_eval'"),
        ("langdetect", "UserError IFEval's checkers need the Python package 'langdetect'"),
    ],
)
def test_what_is_missing_is_named_and_nothing_heavy_or_remote_is_used(tmp_path: Path, hidden: str, says: str) -> None:
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", WITHOUT, hidden]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, loaded = done.stdout.splitlines()
    assert first.startswith(says)
    assert not {"torch", "transformers", "datasets", "lm_eval.tasks"} & set(loaded.split())


needs_real_file = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")


@pytest.fixture(scope="module")
def real_items() -> list[Item]:
    assert IFEVAL.read is not None
    return IFEVAL.read([REAL])


@needs_real_file
def test_all_prompts_load(real_items: list[Item]) -> None:
    assert len(real_items) == len({made.id for made in real_items}) == IFEVAL.size == 541
    assert sum(IFEVAL.weights(real_items, "official", "inst_level_strict_acc")) == 834


TEXT = "A first line.\n\nThe second, with *some* words.\n\nP.S. Bye"


@needs_real_file
def test_instructions_one_by_one_give_what_lm_eval_gives_for_the_whole_prompt(real_items: list[Item]) -> None:
    checkers = instructions._checkers()
    rows = [json.loads(line) for line in REAL.read_text().splitlines()]
    for made, row in zip(real_items, rows, strict=True):
        checkers.chance.seed(instructions.SEED)
        whole = checkers.process_results(row, [TEXT])
        for name, value in values(made, TEXT)[0].items():
            flags = whole[name] if name.startswith("inst_level") else [whole[name]]
            assert value == sum(flags) / len(flags)


@needs_real_file
def test_all_prompts_are_checked_and_only_two_are_left_to_chance(
    real_items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bool] = []
    chance = instructions._checkers().chance
    choice = chance.choice
    monkeypatch.setattr(chance, "choice", lambda options: drawn.append(True) or choice(options))
    left_to_chance = []
    for made in real_items:
        drawn.clear()
        for result in values(made, TEXT):
            assert result.keys() == ALL_RIGHT.keys()
            assert 1 >= result["inst_level_loose_acc"] >= result["inst_level_strict_acc"]
            assert result["inst_level_strict_acc"] >= result["prompt_level_strict_acc"] >= 0
        if drawn:
            left_to_chance.append(made.id)
    assert left_to_chance == ["1122", "1129"]


@needs_real_file
@pytest.mark.parametrize(
    ("key", "right", "wrong", "partly"),
    [
        ("1001", "thou shalt see Kyoto and Nara ere long", "thou shalt see Kyoto, then Nara", 0.0),
        ("1005", "[name] " * 12, "[name] " * 11, 0.0),
        ("1000", "*a* *b* *c* " + "word " * 300, "*a* *b* *c* " + "word " * 200, 2 / 3),
    ],
)
def test_real_prompts(real_items: list[Item], key: str, right: str, wrong: str, partly: float) -> None:
    [made] = [made for made in real_items if made.id == key]
    assert values(made, right) == [ALL_RIGHT, ALL_RIGHT]
    for result in values(made, wrong):
        assert result["inst_level_strict_acc"] == pytest.approx(partly)
        assert result["prompt_level_strict_acc"] == 0.0
