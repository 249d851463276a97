"""The answer of a response that may think first, as the two protocols see it."""

from __future__ import annotations

import re

from reprokit.benchmarks.grading.answers import after_thinking
from reprokit.benchmarks.interface import Response

_OPEN, _CLOSE, _OTHER_CLOSE = "<think>", "</think>", "<|/think|>"
_BLANKS = re.compile(r"\s*")
_EXCERPT = 100  # characters


def strip_thinking(text: str) -> str:
    """Text without thinking as the official code's four regular expressions leave it (IFEval, HaluEval, TruthfulQA).

    For `</think>` and then for `<|/think|>`: blocks from `<think>` to it are cut out, then all up to the last one that
    is left. Thinking that never ends has no such tag: the thoughts are returned as they are. Takes time linear in the
    length of the text, which the expressions do not where many blocks are opened and none is closed.
    """
    for close in (_CLOSE, _OTHER_CLOSE):
        text = _without_blocks(text, close).strip()
        text = text.rpartition(close)[2].lstrip()
    return text


def clean_answer(response: Response) -> str | None:
    """What follows the last `</think>`, without surrounding blanks.

    None if there is no whole answer: the response was cut off, its thinking never ends, or nothing follows it.
    """
    answer = after_thinking(response.text) if response.finished else None
    return (answer.strip() or None) if answer is not None else None


def excerpt(text: str | None) -> str | None:
    """The start of an answer, enough to recognise it in a record; None if it is empty."""
    return ((text or "").strip()[:_EXCERPT]) or None


def _without_blocks(text: str, close: str) -> str:
    """Text without what stands from each `<think>` to the next `close`, and without the blanks after that."""
    kept: list[str] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0 and (end := text.find(close, start + len(_OPEN))) >= 0:
        kept.append(text[position:start])
        blanks = _BLANKS.match(text, end + len(close))
        position = blanks.end() if blanks else end
    return "".join([*kept, text[position:]])
