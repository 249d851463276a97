"""Rows as token ids, made once and memory-mapped: every rank and every restart reads the same arrays.

tokens.npy           uint32 [tokens]    prompt and response ids of all rows, one after the other
offsets.npy          int64 [rows + 1]   row i is tokens[offsets[i]:offsets[i + 1]]
prompt_lengths.npy   int64 [rows]       the loss is on the tokens of a row from here on
report.json          counts, lengths, truncation, the first row as text, and the sha256 of the arrays
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from reprokit.data import chat
from reprokit.data.faults import RowFaults
from reprokit.data.report import Report, histogram
from reprokit.data.rows import Row
from reprokit.errors import UserError
from reprokit.records.files import DamagedFileError, read_json, sha256_of_file, write_json

ARRAYS = ("tokens.npy", "offsets.npy", "prompt_lengths.npy")
_BATCH = 256  # rows per call of the tokenizer


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

    def largest_id(self) -> int:
        """The largest token id of all rows."""
        return int(self._tokens.max())

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


def is_intact(folder: Path) -> bool:
    """Whether `folder` has everything that `build` writes, as it was written."""
    try:
        report = read_json(folder / "report.json", Report)
        return set(report.arrays) == set(ARRAYS) and all(
            sha256_of_file(folder / name) == digest for name, digest in report.arrays.items()
        )
    except (FileNotFoundError, DamagedFileError):
        return False


def build(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path, origin: str | None = None
) -> Report:
    """Tokenise `rows` into `folder`, which appears only when complete and replaces an older one.

    Source: official code. The prompt is the chat template of `message` with the generation prompt; the response
    is tokenised apart from it and ends with the tokenizer's EOS; a row longer than `max_length` tokens is cut on
    the right. Targets are the response tokens that are left, and the EOS. `origin`, for messages, is the file of the
    rows.

    Raises:
        UserError: no rows, a tokenizer without EOS or chat template, a template that ignores the generation prompt,
            or rows that the template refuses or leaves text out of, or whose prompt leaves no room for a response.
    """
    _check_tokenizer(tokenizer)
    with replacing(folder) as new:
        report = _write(rows, tokenizer, max_length, new, RowFaults(origin))
        write_json(new / "report.json", report)
    return report


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder`, in one step, if the body ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        new = aside / "new"
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, aside / "old")
        os.replace(new, folder)
    finally:
        shutil.rmtree(aside)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    name = tokenizer.name_or_path or "the tokenizer"
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name} has no EOS token, which must end every response; set eos_token in its configuration")
    if not tokenizer.chat_template:
        raise UserError(f"{name} has no chat template; give one with model.chat_template=FILE")


class _Encoded(NamedTuple):
    """A row as token ids: EOS included, nothing cut."""

    number: int
    ids: list[int]
    prompt_length: int


class _Tally:
    """What `_write` remembers of the rows for the report."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.prompt_lengths: list[int] = []
        self.truncated: list[int] = []  # tokens lost, per row that loses any
        self.first: tuple[list[int], int] | None = None
        self.without_system_turn = 0

    def add(self, ids: list[int], prompt_length: int, lost: int) -> None:
        self.lengths.append(len(ids))
        self.prompt_lengths.append(prompt_length)
        if lost > 0:
            self.truncated.append(lost)
        self.first = self.first or (ids, prompt_length)


def _write(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path, faults: RowFaults
) -> Report:
    tally = _Tally()
    with (folder / "tokens.npy").open("wb") as stream:
        header = _write_header(stream, 0)
        for row in _encode(_seen(rows, tokenizer, tally), tokenizer, faults):
            if row.prompt_length >= max_length:
                faults.add(
                    row.number,
                    f"its prompt alone has {row.prompt_length} tokens, which leaves none of "
                    f"data.max_length={max_length} for the response; raise it or leave the row out",
                )
            if faults.count:
                continue  # the other bad rows are wanted too
            ids = row.ids[:max_length]
            stream.write(np.asarray(ids, dtype=np.uint32).tobytes())
            tally.add(ids, row.prompt_length, len(row.ids) - max_length)
        faults.check()
        if tally.first is None:
            raise UserError("there are no training rows")
        stream.seek(0)
        if _write_header(stream, sum(tally.lengths)) != header:
            raise AssertionError("the header of an array file changed its size")
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(tally.lengths)]).astype(np.int64))
    np.save(folder / "prompt_lengths.npy", np.asarray(tally.prompt_lengths, dtype=np.int64))
    return _report(tally, max_length, tokenizer, {name: sha256_of_file(folder / name) for name in ARRAYS})


def _write_header(stream: BinaryIO, tokens: int) -> int:
    """Write the header of `tokens.npy` and return its size, which numpy pads so that the array can grow."""
    layout = {"descr": "<u4", "fortran_order": False, "shape": (tokens,)}
    np.lib.format.write_array_header_1_0(stream, layout)
    return stream.tell()


def _seen(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, tally: _Tally) -> Iterator[Row]:
    """The rows as they come; the first one shows whether the template has a generation prompt."""
    for number, row in enumerate(rows):
        if number == 0:
            try:
                chat.check_generation_prompt(row, tokenizer)
            except chat.TemplateFault:
                pass  # told with the number of the row when it is encoded
        tally.without_system_turn += all(turn["role"] != "system" for turn in row.message)
        yield row


def _encode(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, faults: RowFaults) -> Iterator[_Encoded]:
    """Ids of each row that the template takes; the others go to `faults`."""
    source = enumerate(rows, start=1)
    while batch := list(islice(source, _BATCH)):
        numbers, prompts, responses = [], [], []
        for number, row in batch:
            try:
                prompts.append(chat.render_checked(row, tokenizer))
            except chat.TemplateFault as fault:
                faults.add(number, str(fault))
                continue
            numbers.append(number)
            responses.append(row.response)
        if not numbers:
            continue
        encoded = [
            cast(Any, tokenizer(texts, add_special_tokens=False, verbose=False)) for texts in (prompts, responses)
        ]
        for number, prompt, response in zip(numbers, *(ids["input_ids"] for ids in encoded), strict=True):
            yield _Encoded(number, [*prompt, *response, tokenizer.eos_token_id], len(prompt))


def _report(tally: _Tally, max_length: int, tokenizer: PreTrainedTokenizerBase, arrays: dict[str, str]) -> Report:
    assert tally.first is not None
    lengths = tally.lengths
    ids, prompt_length = tally.first
    return Report(
        rows=len(lengths),
        tokens=sum(lengths),
        target_tokens=sum(lengths) - sum(tally.prompt_lengths),
        length_min=min(lengths),
        length_median=float(np.median(lengths)),
        length_mean=float(np.mean(lengths)),
        length_max=max(lengths),
        length_histogram=histogram(lengths),
        max_length=max_length,
        rows_truncated=len(tally.truncated),
        tokens_truncated=sum(tally.truncated),
        eos_id=tokenizer.eos_token_id,
        eos_token=tokenizer.eos_token,
        vocabulary=len(tokenizer),
        rows_without_system_turn=tally.without_system_turn,
        template_preamble=chat.preamble(tokenizer) if tally.without_system_turn else "",
        first_row_prompt=str(tokenizer.decode(ids[:prompt_length])),
        first_row_prompt_tokens=prompt_length,
        first_row_target=str(tokenizer.decode(ids[prompt_length:])),
        first_row_target_tokens=len(ids) - prompt_length,
        arrays=arrays,
    )
