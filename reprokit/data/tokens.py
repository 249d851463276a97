"""Rows as token ids, made once and memory-mapped: every rank and every restart reads the same arrays.

tokens.npy           uint32 [tokens]    prompt and response ids of all rows, one after the other
offsets.npy          int64 [rows + 1]   row i is tokens[offsets[i]:offsets[i + 1]]
prompt_lengths.npy   int64 [rows]       the loss is on the tokens of a row from here on
report.json          counts, lengths, truncation, and the first row as text
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import jinja2
import msgspec
import numpy as np
from transformers import PreTrainedTokenizerBase

from reprokit.data.rows import Row
from reprokit.errors import UserError
from reprokit.records.files import read_json, write_json

_BATCH = 256  # rows per call of the tokenizer
_BINS = 20


class Histogram(msgspec.Struct):
    """Rows per range of lengths: `counts[i]` rows of `edges[i]` to `edges[i + 1]` tokens."""

    edges: list[float]
    counts: list[int]


class Report(msgspec.Struct, kw_only=True):
    """What the arrays hold; lengths are in tokens of prompt and response together, after truncation."""

    rows: int
    tokens: int
    target_tokens: int
    length_min: int
    length_median: float
    length_mean: float
    length_max: int
    length_histogram: Histogram
    max_length: int
    rows_truncated: int
    tokens_truncated: int
    eos_id: int
    eos_token: str
    vocabulary: int
    first_row_prompt: str
    first_row_target: str


class TokenDataset:
    """The rows of a folder that `build` wrote, read through a memory map.

    `lengths` (int64 [rows]) counts the tokens of each row, `prompt_lengths` (int64 [rows]) those before its targets.
    """

    def __init__(self, folder: Path) -> None:
        self.report = read_json(folder / "report.json", Report)
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        self.prompt_lengths = np.load(folder / "prompt_lengths.npy", mmap_mode="r")
        self.lengths = np.diff(self._offsets)

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Token ids of row `index` (int64 [length]) and the position of its first target token.

        Raises:
            IndexError: no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        start, end = self._offsets[index], self._offsets[index + 1]
        return self._tokens[start:end].astype(np.int64), int(self.prompt_lengths[index])


def load(folder: Path) -> TokenDataset:
    """Open the arrays that `build` wrote.

    Raises:
        FileNotFoundError: the folder is not there or not complete.
        ValueError: a file of it is damaged.
    """
    return TokenDataset(folder)


def build(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path) -> Report:
    """Tokenise `rows` into `folder`, which appears only when complete and replaces an older one.

    Source: official code. The prompt is the chat template of `message` with the generation prompt; the response
    is tokenised apart from it and ends with the tokenizer's EOS; a row longer than `max_length` tokens is cut on
    the right. Targets are the response tokens that are left, and the EOS.

    Raises:
        UserError: no rows, a tokenizer without EOS or chat template, a row that the template refuses, or a prompt
            that leaves no room for its response.
    """
    _check_tokenizer(tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        new = aside / "new"
        new.mkdir()
        report = _write(rows, tokenizer, max_length, new)
        write_json(new / "report.json", report)
        if folder.exists():
            os.replace(folder, aside / "old")
        os.replace(new, folder)
    finally:
        shutil.rmtree(aside)
    return report


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    name = tokenizer.name_or_path or "the tokenizer"
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name} has no EOS token, which must end every response; set eos_token in its configuration")
    if not tokenizer.chat_template:
        raise UserError(f"{name} has no chat template; give one with model.chat_template=FILE")


def _write(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path) -> Report:
    lengths: list[int] = []
    prompt_lengths: list[int] = []
    truncated: list[int] = []
    first: tuple[list[int], int] | None = None
    with (folder / "tokens.npy").open("wb") as stream:
        header = _write_header(stream, 0)
        for ids, prompt_length in _encode(rows, tokenizer):
            if prompt_length >= max_length:
                raise UserError(
                    f"row {len(lengths) + 1}: its prompt alone has {prompt_length} tokens, which leaves none of "
                    f"data.max_length={max_length} for the response; raise it or leave the row out"
                )
            if len(ids) > max_length:
                truncated.append(len(ids) - max_length)
                ids = ids[:max_length]
            stream.write(np.asarray(ids, dtype=np.uint32).tobytes())
            first = first or (ids, prompt_length)
            lengths.append(len(ids))
            prompt_lengths.append(prompt_length)
        stream.seek(0)
        if _write_header(stream, sum(lengths)) != header:
            raise AssertionError("the header of an array file changed its size")
    if first is None:
        raise UserError("there are no training rows")
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "prompt_lengths.npy", np.asarray(prompt_lengths, dtype=np.int64))
    return _report(lengths, prompt_lengths, truncated, first, max_length, tokenizer)


def _write_header(stream: BinaryIO, tokens: int) -> int:
    """Write the header of `tokens.npy` and return its size, which numpy pads so that the array can grow."""
    layout = {"descr": "<u4", "fortran_order": False, "shape": (tokens,)}
    np.lib.format.write_array_header_1_0(stream, layout)
    return stream.tell()


def _encode(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[list[int], int]]:
    """Yield ids and prompt length of each row, EOS included, nothing cut."""
    source = iter(rows)
    done = 0
    while batch := list(islice(source, _BATCH)):
        responses: Any = tokenizer([row.response for row in batch], add_special_tokens=False, verbose=False)
        for prompt, response in zip(_prompts(batch, tokenizer, done), responses["input_ids"], strict=True):
            yield [*prompt, *response, tokenizer.eos_token_id], len(prompt)
        done += len(batch)


def _prompts(batch: list[Row], tokenizer: PreTrainedTokenizerBase, done: int) -> list[list[int]]:
    try:
        encoded: Any = tokenizer.apply_chat_template(
            [row.message for row in batch], add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except jinja2.TemplateError as error:
        raise UserError(f"rows {done + 1} to {done + len(batch)}: the chat template refuses a row: {error}") from error
    return encoded["input_ids"]


def _report(
    lengths: list[int],
    prompt_lengths: list[int],
    truncated: list[int],
    first: tuple[list[int], int],
    max_length: int,
    tokenizer: PreTrainedTokenizerBase,
) -> Report:
    counts, edges = np.histogram(lengths, bins=_BINS)
    ids, prompt_length = first
    return Report(
        rows=len(lengths),
        tokens=sum(lengths),
        target_tokens=sum(lengths) - sum(prompt_lengths),
        length_min=min(lengths),
        length_median=float(np.median(lengths)),
        length_mean=float(np.mean(lengths)),
        length_max=max(lengths),
        length_histogram=Histogram([float(edge) for edge in edges], [int(count) for count in counts]),
        max_length=max_length,
        rows_truncated=len(truncated),
        tokens_truncated=sum(truncated),
        eos_id=tokenizer.eos_token_id,
        eos_token=tokenizer.eos_token,
        vocabulary=len(tokenizer),
        first_row_prompt=str(tokenizer.decode(ids[:prompt_length])),
        first_row_target=str(tokenizer.decode(ids[prompt_length:])),
    )
