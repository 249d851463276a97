"""The final answer in a generated text."""

from __future__ import annotations

import re

OPEN, _CLOSE = "<think>", "</think>"
_MARKS = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def after_thinking(text: str) -> str | None:
    """What follows the last `</think>`: the whole text if it has no think tag, None if thinking has not ended.

    A model that is cut off while it thinks has given no answer, whatever boxes its thoughts hold.
    """
    if _CLOSE in text:
        return text.rpartition(_CLOSE)[2]
    return None if OPEN in text else text


def last_box(text: str) -> str | None:
    r"""Content of the last complete `\boxed{...}`, its braces balanced; None if there is none.

    Takes time linear in the length of the text. An escaped brace counts as text.
    """
    opened: list[tuple[int, bool]] = []  # where the content of each open brace starts, and whether it is a box
    found = None
    for mark in _MARKS.finditer(text):
        if mark[0] == "}":
            if opened:
                start, is_box = opened.pop()
                found = text[start : mark.start()] if is_box else found
        elif mark[0].endswith("{") and mark[0] != "\\{":
            opened.append((mark.end(), len(mark[0]) > 1))
    return found


def final_answer(text: str) -> str | None:
    """The last box after thinking, without surrounding blanks; None if there is none or it is empty."""
    rest = after_thinking(text)
    box = last_box(rest) if rest is not None else None
    return (box.strip() or None) if box is not None else None
