"""What is wrong with a recipe: every problem with its place, the value given, what is valid and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from reprokit.errors import UserError

LONGEST_VALUE = 200  # characters of a value that a message shows


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe. `where` is `file:line` or `command line`; `key` is dotted, "" for a whole file."""

    key: str
    message: str
    remedy: str
    given: str = ""
    valid: str = ""
    where: str = ""

    def __str__(self) -> str:
        lines = [": ".join(one_line(part) for part in (self.where, self.key, self.message) if part)]
        details = (("given", _shorten(self.given)), ("valid", one_line(self.valid)), ("to do", one_line(self.remedy)))
        return "\n".join(lines + [f"     {name}: {text}" for name, text in details if text])


class RecipeError(UserError):
    """A recipe that cannot be used; `problems` has everything that is wrong, in the order of the text."""

    def __init__(self, recipe: str, problems: Sequence[Problem], what: str = "recipe") -> None:
        self.recipe = recipe
        self.problems = list(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        numbered = (f"  {number}. {problem}" for number, problem in enumerate(self.problems, start=1))
        super().__init__("\n".join([f"{what} {_shorten(recipe)}: {count}", *numbered]))


def closest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` was probably meant to be."""
    lower = {candidate.lower(): candidate for candidate in words}
    matches = get_close_matches(word.lower()[:LONGEST_VALUE], lower, n=1, cutoff=0.6)
    return lower[matches[0]] if matches else None


def one_line(text: str) -> str:
    """`text` without line breaks and other characters that a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def _shorten(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST_VALUE else f"{line[:LONGEST_VALUE]}... ({len(text)} characters)"


def one_source(section: str, given: Mapping[str, Any], valid: Iterable[str]) -> Iterator[Problem]:
    """A problem unless exactly one source is given."""
    if len(given) == 1:
        return
    texts = {key: value if isinstance(value, str) else "{...}" for key, value in given.items()}
    shown = ", ".join(f"{section}.{key}={text}" for key, text in texts.items()) or "none"
    choice = ", ".join(f"{section}.{key}" for key in valid)
    nulls = ", ".join(f"{section}.{key}=null" for key in given)
    remedy = f"keep one and take the others back: {nulls}" if given else "give one of them"
    key = f"{section}.{list(given)[-1]}" if given else section
    yield Problem(key, "exactly one source is needed", remedy, shown, choice)
