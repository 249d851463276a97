"""Problems whose answer is the letter of an option: the letter that a finished response ends with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reprokit.benchmarks.grading.answers import after_thinking, last_box
from reprokit.benchmarks.interface import Response

LETTERS = "ABCDEFGHIJKLMNOP"

# Bold and math marks, spaces of LaTeX and its font commands, whose braces go too: `\text{(B)}` becomes `(B)`.
_MARKUP = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|it|rm|sf|tt|bb)|boldsymbol|bf|rm|left|right|displaystyle)(?![a-zA-Z])"
    r"|\\[,;:!()\[\]]|[*$`{}~\\]"
)
_NOT_TWO = r"(?!\s*(?:and|or|&|/)\s*\(?[A-Pa-p]\b)"  # who names two options has not answered
# "The answer is I believe", "Answer: A wire": bare I and A are words there, and letters before these words.
_AFTER_LETTER = "as|because|but|by|based|due|for|from|given|here|if|in|instead|is|not|on|only|over|rather|since|so|when"
_NO_WORD = rf"(?!(?<=[AI])(?:['’]|[ \t]+(?!(?:{_AFTER_LETTER}|where|which|while|with)\b)[a-zA-Z]))"
_ALONE = re.compile(
    r"\s*(?:(?i:answer|option|choice)\s*(?:is|:)?\s*)?(?:[(\[]\s*)?([A-Pa-p])\s*"
    rf"(?:(?:[)\]][.:]?+|[.:]){_NOT_TWO}.*)?",
    re.DOTALL,
)
_STATED = re.compile(
    rf"""
    (?i: \b(?:answer|option|choice) \s*(?:is\s*:?|(?:would|should|must)\s+be|:)\s* (?:(?:option|choice)\s+)? )
        [(\[]?([A-P])\b[)\]]?+ {_NOT_TWO} {_NO_WORD}
    | (?i: \b(?:choose|select|pick) \s+ (?:(?:option|choice)\s+)? ) [(\[]?([A-P])\b {_NO_WORD}
    | (?<!\w)([A-P])[)\]]?\s+ (?i: is\s+(?:the\s+)?(?:correct|right|answer|best\s+answer)\b )
    """,
    re.VERBOSE,
)


def option_lines(options: Sequence[str]) -> list[str]:
    """Options after their letters: "A. first", "B. second"."""
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def final_letter(response: Response, options: int) -> str | None:
    r"""The letter that answers a question with so many options, in upper case; None if there is none.

    Only what follows the thinking of a finished response is read: the last box if it holds a letter (`A`, `(A)`, `A.`,
    `\text{A}`, `A) the option`), else the last statement of the kind "the answer is A", else a last line that is a
    letter. Naming two options, or a letter beyond the last option, is no answer.
    """
    rest = after_thinking(response.text) if response.finished else None
    if rest is None:
        return None
    found = _letter_alone(last_box(rest) or "") or _stated(rest) or _letter_alone(_last_line(rest))
    return found if found and found in LETTERS[:options] else None


def _plain(text: str) -> str:
    return _MARKUP.sub("", text)


def _letter_alone(text: str) -> str | None:
    match = _ALONE.fullmatch(_plain(text))
    return match[1].upper() if match else None


def _stated(text: str) -> str | None:
    found = list(_STATED.finditer(_plain(text)))
    return found[-1][found[-1].lastindex or 0] if found else None


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]
