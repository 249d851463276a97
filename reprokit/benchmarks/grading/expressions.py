"""Exact value of an arithmetic expression that a model wrote: parsed by hand, because the text is not to be trusted."""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 200  # characters
MOST_PARENTHESES = 20
MOST_DIGITS = 6  # of one number

_TOKEN = re.compile(r"\s*(?:([0-9]+)|([-+*/()]))")
_SYNONYMS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}
_SYNONYMS |= {"\\left": "", "\\right": "", "$": ""}


class BadExpression(ValueError):
    """Not an arithmetic expression within the limits, or without a value."""


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """Value of an expression of whole numbers, `+ - * /`, signs and parentheses, and the numbers in it in order.

    LaTeX's `\\times`, `\\cdot`, `\\div`, `\\left`, `\\right` and the usual Unicode signs are understood.

    Raises:
        BadExpression: anything else (powers, names, an equals sign), a division by zero, or or more text, digits or
            parentheses than the limits.
    """
    if len(text) > LONGEST:
        raise BadExpression(f"longer than {LONGEST} characters")
    if text.count("(") > MOST_PARENTHESES:
        raise BadExpression(f"more than {MOST_PARENTHESES} parentheses")
    for written, meant in _SYNONYMS.items():
        text = text.replace(written, meant)
    parser = _Parser(_tokens(text))
    value = parser.sum()
    if parser.rest:
        raise BadExpression(f"unexpected {parser.rest[-1]!r}")
    return value, parser.numbers


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise BadExpression(f"unexpected {text[position:].lstrip()[:10]!r}")
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent; its depth is bounded by the length of the text."""

    def __init__(self, tokens: list[str]) -> None:
        self.rest = tokens[::-1]
        self.numbers: list[int] = []

    def _take(self, *wanted: str) -> str | None:
        return self.rest.pop() if self.rest and self.rest[-1] in wanted else None

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self._take("+", "-"):
            term = self.product()
            value = value + term if sign == "+" else value - term
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while sign := self._take("*", "/"):
            factor = self.factor()
            if sign == "/" and factor == 0:
                raise BadExpression("division by zero")
            value = value * factor if sign == "*" else value / factor
        return value

    def factor(self) -> Fraction:
        if sign := self._take("+", "-"):
            return self.factor() if sign == "+" else -self.factor()
        if self._take("("):
            value = self.sum()
            if not self._take(")"):
                raise BadExpression("a parenthesis is not closed")
            return value
        token = self.rest.pop() if self.rest else "end"
        if not token.isdecimal():
            raise BadExpression(f"unexpected {token!r}")
        if len(token) > MOST_DIGITS:
            raise BadExpression(f"a number of more than {MOST_DIGITS} digits")
        self.numbers.append(int(token))
        return Fraction(int(token))
