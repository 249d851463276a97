"""Rows, tokenizer and token arrays: what a model is trained on, exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from reprokit.data import rows, tokens
from reprokit.data.rows import Row
from reprokit.data.tokenizer import SMALLEST_VOCABULARY, train_tokenizer
from reprokit.errors import UserError

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


def test_a_prompt_that_fills_the_row_is_an_error(
    tokenizer: PreTrainedTokenizerFast, training_rows: list[Row], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="row 1: its prompt alone has .* data.max_length=20"):
        tokens.build(training_rows, tokenizer, 20, tmp_path / "tokens")


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


def test_a_row_that_the_template_refuses_is_an_error(training_rows: list[Row], tmp_path: Path) -> None:
    strict = train_tokenizer(training_rows[:10], 300)
    strict.chat_template = "{{ raise_exception('no system turn, please') }}"
    with pytest.raises(UserError, match="rows 1 to 256: .* no system turn, please"):
        tokens.build(training_rows, strict, LONG_LENGTH, tmp_path / "tokens")


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
