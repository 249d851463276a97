"""What all judges have in common: a question as a text, cut to what the judge may see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol

from reprokit.benchmarks.interface import Question
from reprokit.evaluation.judges.replies import Judgement


class Judge(Protocol):
    """A loaded judge; leaving the context frees its memory."""

    def answer(self, questions: Sequence[Question]) -> Iterator[Judgement]:
        """A judgement for every question, as they come, in any order."""

    def __enter__(self) -> Judge: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def cut(tokenizer: Any, text: str, limit: int | None) -> tuple[str, bool]:
    """`text` up to `limit` tokens, and whether something was cut off.

    As the official code does: tokens are counted with those that the tokenizer adds, a text within the limit stays
    byte for byte, and only one that is cut goes through the tokenizer and back.
    """
    if limit is None:
        return text, False
    tokens = tokenizer(text, verbose=False).input_ids
    if len(tokens) <= limit:
        return text, False
    return tokenizer.decode(tokens[: max(limit, 0)], skip_special_tokens=True), True
