"""Rows, tokenizer and token arrays: what a model is trained on, exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from reprokit.data import report, rows, tokens
from reprokit.data.rows import Row
from reprokit.data.tokenizer import SMALLEST_VOCABULARY, train_tokenizer
from reprokit.errors import UserError
from reprokit.preparation.sentencepiece_tokenizer import load_internlm2_tokenizer
from tests.tokenizers import (
    DEFAULT_SYSTEM,
    END_OF_TEXT,
    NEWLINES,
    PLAIN_TEMPLATE,
    QWEN_GENERATION,
    SYSTEM_TEMPLATE,
    qwen_like,
    qwen_turn,
    write_internlm_like,
)

LONG_LENGTH = 10_000


@pytest.fixture(scope="module")
def training_rows() -> list[Row]:
    return list(rows.from_generator("countdown", 600, seed=0))


@pytest.fixture(scope="module")
def tokenizer(training_rows: list[Row]) -> PreTrainedTokenizerFast:
    return train_tokenizer(training_rows, 512)


def test_a_generator_gives_rows_and_an_unknown_one_an_error() -> None:
    row = next(rows.from_generator("countdown", 5, seed=1))
    assert row.message[0]["role"] == "user"
    assert row.response.startswith("<think>\n")
    with pytest.raises(UserError, match="unknown data generator 'sudoku'; valid: countdown"):
        list(rows.from_generator("sudoku", 5, seed=1))


def test_parquet_and_jsonl_give_the_same_rows(tmp_path: Path, training_rows: list[Row]) -> None:
    columns = [{"message": row.message, "response": row.response, "advantage": 1.0} for row in training_rows]
    pq.write_table(pa.Table.from_pylist(columns), tmp_path / "rows.parquet", row_group_size=100)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in columns))
    assert list(rows.from_file(tmp_path / "rows.parquet")) == training_rows
    assert list(rows.from_file(tmp_path / "rows.jsonl")) == training_rows


def test_a_plain_string_is_one_user_turn(tmp_path: Path) -> None:
    pq.write_table(pa.table({"message": ["a"], "response": ["b"]}), tmp_path / "rows.parquet")
    assert list(rows.from_file(tmp_path / "rows.parquet")) == [Row([{"role": "user", "content": "a"}], "b")]


GOOD = '{"message": "a", "response": "b"}'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "row 2: not JSON"),
        ("[1]", "row 2: a JSON list; valid: an object per line"),
        ('{"message": "a", "answer": "b"}', "row 2: no column response; found: message, answer"),
        ('{"message": "a", "response": ""}', "row 2: response is empty str; valid: text that is not empty"),
        ('{"message": "a", "response": null}', r"row 2: response is missing \(null\)"),
        ('{"message": "a", "response": " \\n\\t"}', "row 2: response is white space only"),
        ('{"message": "a", "response": ["b"]}', "row 2: response is list"),
        ('{"message": [], "response": "b"}', "row 2: message is empty list; valid: turns"),
        ('{"message": 3, "response": "b"}', "row 2: message is int"),
        ('{"message": [{"role": "user"}], "response": "b"}', "row 2: turn 1 of message is .* valid: role and content"),
        ('{"message": "a", "response": "\\ud800"}', "row 2: text that is not Unicode"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(UserError, match=rf"rows\.jsonl, {complaint}"):
        list(rows.from_file(path))


def test_a_broken_parquet_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"message": ["a"] * 700, "response": ["b"] * 650 + [None] * 50}), path)
    with pytest.raises(UserError, match=r"rows\.parquet, row 651: response is missing"):
        list(rows.from_file(path))


def test_all_broken_rows_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n" + "[1]\n{GOOD\n" * 4 + f"{GOOD}\n")
    with pytest.raises(UserError) as caught:
        list(rows.from_file(path))
    lines = str(caught.value).split("\n")
    assert [line.split(": ")[0] for line in lines] == [
        *(f"{path}, row {n}" for n in range(2, 7)),
        "and 3 more such rows",
    ]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("rows.csv", b"a", "unknown kind of data file; valid suffixes: .parquet, .jsonl"),
        ("rows.jsonl", b"", "the file has no rows"),
        ("rows.parquet", b"PAR1 but not really", "not a readable parquet file"),
        ("rows.jsonl", None, "no such data file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: {complaint}"):
        list(rows.from_file(tmp_path / name))


def test_a_parquet_file_without_a_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "response": ["b"]}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet: no column message; found: prompt, response"):
        list(rows.from_file(tmp_path / "rows.parquet"))


def plain_prompt(row: Row) -> list[int]:
    """Ids of the prompt of a row with one user turn under the plain template, by hand."""
    return [*qwen_turn("user", row.message[0]["content"]), *QWEN_GENERATION]


TEXTS = ["7 + 5 = 12, 3: 15 yes\n", "  two  blanks\t\n\n", "naïve 数学 🙂 ½ ٣", "", "\x00\x7f", "<think>a</think>"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_small_numbers_think_tags_and_turn_marks_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    numbers = [f" {number}" for number in range(1, 61)]
    for text in ["<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", *numbers]:
        assert len(tokenizer.encode(text)) == 1, text
    assert len(tokenizer) <= 512


def test_the_chat_template_is_qwen_like(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_tokenizer_survives_its_folder_beside_a_qwen3_config(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}')
    again = AutoTokenizer.from_pretrained(tmp_path)
    for row in training_rows[:20]:
        assert again(row.response)["input_ids"] == tokenizer(row.response)["input_ids"]
        assert again.apply_chat_template(row.message) == tokenizer.apply_chat_template(row.message)
    assert (again.eos_token_id, again.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert len(again) == len(tokenizer)


def test_a_vocabulary_without_room_for_bytes_is_an_error(training_rows: list[Row]) -> None:
    with pytest.raises(UserError, match=f"tokenizer_vocab_size is 100; give at least {SMALLEST_VOCABULARY}"):
        train_tokenizer(training_rows, 100)


def test_arrays_hold_prompt_response_and_eos(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path
) -> None:
    report = tokens.build(training_rows, tokenizer, LONG_LENGTH, tmp_path / "tokens")
    data = tokens.load(tmp_path / "tokens")
    assert len(data) == len(training_rows) == report.rows
    for index, row in enumerate(training_rows):
        ids, prompt_length = data[index]
        assert ids.dtype == np.int64
        prompt = tokenizer.apply_chat_template(row.message, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(ids[:prompt_length]) == prompt
        assert tokenizer.decode(ids[prompt_length:]) == row.response + "<|endoftext|>"
    lengths = [len(data[index][0]) for index in range(len(data))]
    assert report.tokens == sum(lengths)
    assert report.target_tokens == sum(len(ids) - prompt_length for ids, prompt_length in (data[i] for i in range(600)))
    assert (report.length_min, report.length_max) == (min(lengths), max(lengths))
    assert sum(report.length_histogram.counts) == report.rows
    assert (report.rows_truncated, report.tokens_truncated) == (0, 0)
    assert report.first_row_target == training_rows[0].response + "<|endoftext|>"
    assert report.first_row_prompt.endswith("<|im_start|>assistant\n")
    for index in (-1, 600):
        with pytest.raises(IndexError):
            data[index]


def test_long_rows_are_cut_on_the_right_and_counted(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path
) -> None:
    whole = tokens.build(training_rows, tokenizer, LONG_LENGTH, tmp_path / "whole")
    cut = tokens.build(training_rows, tokenizer, 100, tmp_path / "cut")
    before, after = tokens.load(tmp_path / "whole"), tokens.load(tmp_path / "cut")
    longer = [index for index in range(600) if len(before[index][0]) > 100]
    assert 0 < len(longer) < 600
    for index in range(600):
        assert after[index][0].tolist() == before[index][0][:100].tolist()
        assert after[index][1] == before[index][1]
    assert cut.rows_truncated == len(longer)
    assert cut.tokens_truncated == whole.tokens - cut.tokens > 0


def test_a_prompt_that_fills_the_row_is_an_error(tmp_path: Path) -> None:
    """Prompts of 22, 23 and 24 tokens: in 23 there is room for a response of the first only."""
    made = [Row([{"role": "user", "content": content}], "ok") for content in ("abc", "abcd", "abcde")]
    assert [len(plain_prompt(row)) for row in made] == [22, 23, 24]
    with pytest.raises(UserError) as caught:
        tokens.build(made, qwen_like(PLAIN_TEMPLATE), 23, tmp_path / "tokens", origin="rows.parquet")
    first, second = str(caught.value).split("\n")
    assert first.startswith(
        "rows.parquet, row 2: its prompt alone has 23 tokens, which leaves none of data.max_length=23"
    )
    assert second.startswith("rows.parquet, row 3: its prompt alone has 24 tokens")
    assert not list(tmp_path.iterdir())
    tokens.build(made[:1], qwen_like(PLAIN_TEMPLATE), 23, tmp_path / "tokens")
    ids, prompt_length = tokens.load(tmp_path / "tokens")[0]
    assert prompt_length == 22 and ids[22:].tolist() == [*b"o"]


def test_no_rows_is_an_error(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training rows"):
        tokens.build([], tokenizer, 20, tmp_path / "tokens")


@pytest.mark.parametrize(("lost", "complaint"), [("eos_token", "no EOS token"), ("chat_template", "no chat template")])
def test_a_tokenizer_that_lacks_something_is_an_error(
    training_rows: list[Row], tmp_path: Path, lost: str, complaint: str
) -> None:
    lacking = train_tokenizer(training_rows[:10], 300)
    setattr(lacking, lost, None)
    with pytest.raises(UserError, match=complaint):
        tokens.build(training_rows, lacking, LONG_LENGTH, tmp_path / "tokens")


def test_a_row_that_the_template_refuses_is_named(training_rows: list[Row], tmp_path: Path) -> None:
    refusing = "{% if 'no!' in messages[0].content %}{{ raise_exception('not that, please') }}{% endif %}"
    bad = Row([{"role": "user", "content": "no!"}], "b")
    made = [*training_rows[:299], bad, *training_rows[299:400], bad]
    with pytest.raises(UserError) as caught:
        tokens.build(made, qwen_like(refusing + PLAIN_TEMPLATE), LONG_LENGTH, tmp_path / "tokens", origin="a.jsonl")
    assert str(caught.value).split("\n") == [
        f"a.jsonl, row {number}: the chat template refuses it: not that, please" for number in (300, 402)
    ]


def test_a_template_without_the_text_of_the_turns_is_an_error(training_rows: list[Row], tmp_path: Path) -> None:
    other_field = PLAIN_TEMPLATE.replace("m.content", "m.text")  # jinja prints nothing for it
    with pytest.raises(UserError, match=r"^row 1: the chat template leaves out the text of turn 1 \(user\)") as caught:
        tokens.build(training_rows, qwen_like(other_field), LONG_LENGTH, tmp_path / "tokens")
    assert str(caught.value).endswith("and 595 more such rows")
    last_only = "{% set messages = messages[-1:] %}" + PLAIN_TEMPLATE
    made = [Row([{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}], "b")]
    with pytest.raises(UserError, match=r"^row 1: the chat template leaves out the text of turn 1 \(system\)"):
        tokens.build(made, qwen_like(last_only), LONG_LENGTH, tmp_path / "tokens")


def test_a_template_may_leave_out_earlier_thinking(tmp_path: Path) -> None:
    without = PLAIN_TEMPLATE.replace("m.content", "m.content.split('</think>')[-1]")
    turns = [("user", "a"), ("assistant", "<think>hm</think>b"), ("user", "c")]
    made = [Row([{"role": role, "content": content} for role, content in turns], "d")]
    tokens.build(made, qwen_like(without), LONG_LENGTH, tmp_path / "tokens")
    ids, _ = tokens.load(tmp_path / "tokens")[0]
    assert b"hm" not in bytes(ids[ids < 256].tolist())


def test_a_template_without_a_generation_prompt_is_an_error(training_rows: list[Row], tmp_path: Path) -> None:
    without = PLAIN_TEMPLATE.partition("{% if add_generation_prompt")[0]
    with pytest.raises(UserError, match=r"(?s)ignores add_generation_prompt.*model\.chat_template=FILE"):
        tokens.build(training_rows, qwen_like(without), LONG_LENGTH, tmp_path / "tokens")


def test_a_failed_build_leaves_the_old_arrays_and_nothing_else(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path
) -> None:
    def failing() -> Iterator[Row]:
        yield from training_rows
        raise OSError("the disk went away")

    tokens.build(training_rows[:7], tokenizer, LONG_LENGTH, tmp_path / "tokens")
    with pytest.raises(OSError, match="went away"):
        tokens.build(failing(), tokenizer, LONG_LENGTH, tmp_path / "tokens")
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]
    assert len(tokens.load(tmp_path / "tokens")) == 7
    tokens.build(training_rows[:9], tokenizer, LONG_LENGTH, tmp_path / "tokens")
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]
    assert len(tokens.load(tmp_path / "tokens")) == 9


# Rows whose ids are written down by hand, protocol A.2: prompt, response and EOS, one after the other.

HAND_ROWS = [
    Row([{"role": "user", "content": "2+2?"}], "\n4"),  # its first line end must not merge with the prompt's last
    Row([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "<think>\n\n</think>Hello \n"),
    Row(
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
        "d" * 40,
    ),
]
TARGETS = [
    [*b"\n4", END_OF_TEXT],
    [*b"<think>", NEWLINES, *b"</think>Hello \n", END_OF_TEXT],
    [*b"d" * 40, END_OF_TEXT],
]


def hand_prompts(in_front: list[int]) -> list[list[int]]:
    """Ids of the prompts of HAND_ROWS; `in_front` is what the template puts before rows without a system turn."""
    conversation = [*qwen_turn("user", "a"), *qwen_turn("assistant", "b"), *qwen_turn("user", "c")]
    return [
        [*in_front, *qwen_turn("user", "2+2?"), *QWEN_GENERATION],
        [*qwen_turn("system", "Be brief."), *qwen_turn("user", "Hi"), *QWEN_GENERATION],
        [*in_front, *conversation, *QWEN_GENERATION],
    ]


def built(tokenizer: PreTrainedTokenizerFast, max_length: int, folder: Path) -> list[tuple[list[int], list[int]]]:
    """(ids without loss, ids with loss) of each of HAND_ROWS."""
    tokens.build(HAND_ROWS, tokenizer, max_length, folder)
    data = tokens.load(folder)
    return [(ids[:start].tolist(), ids[start:].tolist()) for ids, start in (data[index] for index in range(len(data)))]


def test_hand_written_rows_of_a_qwen3_like_tokenizer(tmp_path: Path) -> None:
    wanted = list(zip(hand_prompts([]), TARGETS, strict=True))
    assert built(qwen_like(PLAIN_TEMPLATE), LONG_LENGTH, tmp_path / "tokens") == wanted
    report = tokens.load(tmp_path / "tokens").report
    assert (report.eos_id, report.eos_token) == (END_OF_TEXT, "<|endoftext|>")
    assert report.target_tokens == 3 + 24 + 41 and report.template_preamble == ""
    assert report.first_row_prompt == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert report.first_row_target == "\n4<|endoftext|>"


@pytest.mark.parametrize("max_length", [85, 84, 83, 50])
def test_truncation_of_hand_written_rows(max_length: int, tmp_path: Path) -> None:
    """The third row has 43 tokens of prompt, 40 of response and EOS: 83 tokens keep all but EOS."""
    prompts = hand_prompts([])
    assert [len(prompt) + len(target) for prompt, target in zip(prompts, TARGETS, strict=True)] == [26, 64, 84]
    found = built(qwen_like(PLAIN_TEMPLATE), max_length, tmp_path / "tokens")
    room = [max_length - len(prompt) for prompt in prompts]
    assert found == [(prompt, target[:left]) for prompt, target, left in zip(prompts, TARGETS, room, strict=True)]
    without_eos = [END_OF_TEXT not in target for _, target in found]
    assert without_eos == [False, max_length < 64, max_length < 84]
    report = tokens.load(tmp_path / "tokens").report
    assert report.rows_truncated == sum(without_eos)
    assert report.tokens_truncated == sum(max(0, len(TARGETS[row]) - room[row]) for row in range(3))


def test_hand_written_rows_of_a_qwen2_5_like_tokenizer(tmp_path: Path) -> None:
    """Its own template has a default system turn, of which the report tells; the kit's template has none."""
    own = hand_prompts(qwen_turn("system", DEFAULT_SYSTEM))
    assert built(qwen_like(SYSTEM_TEMPLATE), LONG_LENGTH, tmp_path / "own") == list(zip(own, TARGETS, strict=True))
    made = tokens.load(tmp_path / "own").report
    assert made.template_preamble == f"<|im_start|>system\n{DEFAULT_SYSTEM}"
    assert made.rows_without_system_turn == 2
    assert "in front of the 2 rows that have no system turn: '<|im_start|>system" in report.describe(made)
    kit = (Path(__file__).parents[1] / "recipes" / "models" / "qwen_no_system.jinja").read_text()
    assert built(qwen_like(kit), LONG_LENGTH, tmp_path / "kit") == list(zip(hand_prompts([]), TARGETS, strict=True))
    assert "system turn" not in report.describe(tokens.load(tmp_path / "kit").report)


def test_hand_written_rows_of_an_internlm_like_tokenizer(tmp_path: Path) -> None:
    """BOS comes from the template, once; EOS is </s>, not <|im_end|>; all else as SentencePiece cuts it."""
    model = write_internlm_like(tmp_path / "internlm2")
    processor = SentencePieceProcessor(model_file=str(model))
    cut = processor.encode
    start, end = len(processor) - 1, len(processor) - 2

    def turn(role: str, content: str) -> list[int]:
        return [start, *cut(f"{role}\n{content}"), end, *cut("\n")]

    generation = [start, *cut("assistant\n")]
    prompts = [
        [1, *turn("user", "2+2?"), *generation],
        [1, *turn("system", "Be brief."), *turn("user", "Hi"), *generation],
        [1, *turn("user", "a"), *turn("assistant", "b"), *turn("user", "c"), *generation],
    ]
    targets = [[*cut(row.response), 2] for row in HAND_ROWS]
    found = built(load_internlm2_tokenizer(model.parent), LONG_LENGTH, tmp_path / "tokens")
    assert found == list(zip(prompts, targets, strict=True))
    assert tokens.load(tmp_path / "tokens").report.template_preamble == ""
    length = len(prompts[2]) + 5
    shorter = built(load_internlm2_tokenizer(model.parent), length, tmp_path / "cut")
    assert shorter[2] == (prompts[2], targets[2][:5])


def test_prompts_are_those_of_apply_chat_template(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path
) -> None:
    """The official code lets transformers tokenise the template's text; doing it in two steps is the same."""
    tokens.build(training_rows[:50], tokenizer, LONG_LENGTH, tmp_path / "tokens")
    data = tokens.load(tmp_path / "tokens")
    for index, row in enumerate(training_rows[:50]):
        ids, prompt_length = data[index]
        wanted = tokenizer.apply_chat_template(row.message, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert ids[:prompt_length].tolist() == wanted["input_ids"]


def test_the_report_can_be_read(tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path) -> None:
    long = Row([{"role": "user", "content": "x" * 400}], "\n".join(f"line {number}" for number in range(100)))
    made = tokens.build([long, *training_rows], tokenizer, 700, tmp_path / "tokens")
    text = report.describe(made)
    print(text)
    lines = text.split("\n")
    assert lines[0].startswith(f"601 rows, {made.tokens:,} tokens, {made.target_tokens:,} of them targets")
    bars = [line for line in lines if "#" in line]
    assert sum(int(line.split()[-1].replace(",", "")) for line in bars) == 601
    assert "truncation at 700 tokens: 1 of 601 rows are cut (0.17%), 248 tokens are lost" in text
    assert "<|endoftext|> (id 0)" in text
    prompt = [line for line in lines if line.startswith("  | ")]
    target = [line for line in lines if line.startswith("  > ")]
    assert prompt[0] == "  | <|im_start|>user" and "characters ...]" in prompt[1] and len(prompt[1]) < 140
    assert target[0] == "  > line 0" and any("lines ...]" in line for line in target) and len(target) < 20
    assert len(lines) < 60 and max(map(len, lines)) < 150


def test_the_report_counts_rows_without_their_end(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path
) -> None:
    made = tokens.build(training_rows, tokenizer, 100, tmp_path / "tokens")
    data = tokens.load(tmp_path / "tokens")
    without = sum(int(data[index][0][-1]) != made.eos_id for index in range(len(data)))
    assert made.rows_truncated == without > 0
    assert f"{without:,} of 600 rows are cut" in report.describe(made) and "lost its EOS" in report.describe(made)


@pytest.mark.parametrize("name", [*tokens.ARRAYS, "report.json"])
def test_damage_is_noticed(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path, name: str
) -> None:
    tokens.build(training_rows[:9], tokenizer, LONG_LENGTH, tmp_path / "tokens")
    assert tokens.is_intact(tmp_path / "tokens") and not tokens.is_intact(tmp_path / "nothing")
    path = tmp_path / "tokens" / name
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    assert not tokens.is_intact(tmp_path / "tokens")
    path.write_bytes(content)
    assert tokens.is_intact(tmp_path / "tokens")
    path.unlink()
    assert not tokens.is_intact(tmp_path / "tokens")
