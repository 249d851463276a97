"""Verdicts of one word or number in the text of a model or a judge."""

from __future__ import annotations

import re

_YES = re.compile(r"\byes\b", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\b(Yes|No)\b", re.IGNORECASE)
_SCORE_TAG = "#thescore:"
_NUMBER = re.compile(r"\d{1,9}")


def says_yes(text: str) -> bool:
    """Whether `yes` is among the words of the text."""
    return _YES.search(text) is not None


def last_yes_or_no(text: str) -> str | None:
    """`yes` or `no`, whichever word comes last; None if there is neither."""
    words = _YES_OR_NO.findall(text)
    return str(words[-1]).lower() if words else None


def only_yes_or_no(text: str) -> str | None:
    """`yes` or `no` if exactly one of them is in the first line of the text, within words too: "know" holds a no."""
    line = text.strip().split("\n")[0].lower()
    found = [word for word in ("yes", "no") if word in line]
    return found[0] if len(found) == 1 else None


def score_after_tag(reply: str) -> int | None:
    """The whole number that stands alone after the first `#thescore:`; None if there is none ("5." is none)."""
    words = reply.partition(_SCORE_TAG)[2].split(maxsplit=1)
    return int(words[0]) if words and _NUMBER.fullmatch(words[0]) else None
