"""Problems with a mathematical answer, read and compared by math-verify.

The official code parses the whole response, thinking included, with the library's default settings, so the last box or
formula anywhere is the answer. Clean takes the last box after the thinking; without one, the last formula there.

Officially prompts of these benchmarks pass the chat template as text and are tokenized again, so that a template with a
start token of its own (InternLM's) gives two of them; here there is one.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

from reprokit.benchmarks.grading.answers import after_thinking, last_box
from reprokit.benchmarks.interface import Item, Protocol, Reply, Response, Score

INSTRUCTION = "\n Please reason step by step, and put your final answer within \\boxed{}."
LONGEST_ANSWER = 1000  # characters of an answer that are recorded
SECONDS = 5  # math-verify's own limit for reading a text, and for comparing one form of the answer
WALL_SECONDS = 60  # in its place, since ours are seconds of the processor
SCORE_SECONDS = 180.0  # for both protocols: three readings, eight comparisons and what they write out
BOX = "\\boxed{"

_FORMULA = re.compile(r"\$|\\[\[(]|\s\[")


def problem(id: str, text: str, official: str, clean: str, group: str = "") -> Item:
    """A problem with the official code's prompt; the right one ends the texts `official` and `clean`."""
    messages = [{"role": "user", "content": text + INSTRUCTION}]
    return Item(id=id, messages=messages, answer={"official": official, "clean": clean}, group=group)


def in_box(answer: str) -> str:
    """The answer as the last words of a solution."""
    return f"\\boxed{{{answer}}}"


def score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    """1 if math-verify finds the answer equal to the right one.

    Reading and each comparison end after 5 seconds, as in the official code: what takes longer is wrong. They are
    counted in time of the processor, so that scores do not depend on what else it does. The answer is written the
    same way for equal numbers and most equal formulas, so that samples can vote.

    Raises:
        RuntimeError: not called from the main thread of its process, where alone time can be limited.
    """
    parsed = _parse(response.text) if protocol == "official" else _last_answer(response)
    if not parsed:
        return Score.of(False, None)
    return Score.of(_equal(_gold(item.answer[protocol]), parsed), _written(parsed))


def _last_answer(response: Response) -> list[Any]:
    rest = after_thinking(response.text) if response.finished else None
    if rest is None:
        return []
    box = last_box(rest)
    return _parse(rest if box is None else in_box(box))


@lru_cache(maxsize=1024)
def _gold(text: str) -> list[Any]:
    return _parse(text)


def _parse(text: str) -> list[Any]:
    """What math-verify reads off a text: expression and text, text only, or nothing."""
    if not text:
        return []
    with _limited():
        from math_verify.parser import extract_target_from_pred

        return list(extract_target_from_pred(text, _patterns(), fallback_mode="first_match"))
    return []


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[list[tuple[Any, int]], Any]]:
    """The library's patterns by what they extract and with their priorities, as its `parse` has them by default."""
    _math_verify()
    from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig, get_extraction_regexes

    return [
        ([(BoxedFormulas(one) if _holds_a_box(one) else one, priority) for one, priority in patterns], target)
        for patterns, target in get_extraction_regexes([LatexExtractionConfig(), ExprExtractionConfig()])
    ]


def _holds_a_box(pattern: re.Pattern[str]) -> bool:
    return BOX.replace("\\", "\\\\") in pattern.pattern and "latexBoxed" not in pattern.pattern


class BoxedFormulas:
    """The pattern of formulas that hold a box, with the same matches, but tried only where one can begin.

    It alone takes half of the time for a long text, as it reads on from every formula in vain. What it matches begins
    with the mark of a formula that does not end before the next box, but ends after it.
    """

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """Matches that do not overlap, from left to right."""
        position = 0
        while (box := text.find(BOX, position)) >= 0:
            match = self._with_box(text, position, box)
            if match is not None:
                yield match
            position = match.end() if match is not None else box + 1

    def _with_box(self, text: str, position: int, box: int) -> re.Match[str] | None:
        """The first match that begins at `position` or later, and before the next box."""
        line = text.rfind("\n", 0, box)
        earliest = {
            opening: text.rfind(closing, 0, box) - 1 if text.find(closing, box) >= 0 else box
            for opening, closing in (("$$", "$$"), ("\\[", "\\]"))
        }
        for mark in _FORMULA.finditer(text, position, box):
            start = mark.start()
            first = earliest.get(text[start : start + 2], line)
            if start >= first and (match := self.pattern.match(text, start)):
                return match
        return None


def _equal(gold: list[Any], parsed: list[Any]) -> bool:
    with _limited():
        return bool(_math_verify().verify(gold, parsed, timeout_seconds=WALL_SECONDS))
    return False


def _written(parsed: list[Any]) -> str | None:
    for form in parsed:  # the text comes after the expression, which may be too large or too deep to write out
        with _limited():
            return str(form)[:LONGEST_ANSWER]
    return None


@contextmanager
def _limited() -> Iterator[None]:
    """Break off what takes longer, in the way that math-verify does itself, and whatever else fails."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("mathematical answers can only be scored in the main thread of a process")
    from math_verify.errors import TimeoutException

    def expire(*_: object) -> None:
        raise TimeoutException

    before = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, SECONDS)  # again and again: it compares up to four pairs of forms
    try:
        yield
    except (Exception, TimeoutException):
        pass
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@lru_cache(maxsize=1)
def _math_verify() -> ModuleType:
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it logs the whole of a text that it cannot read
    return math_verify
