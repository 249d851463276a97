"""The thinking of a response, from `<think>` to the last `</think>`."""

from __future__ import annotations

from reprokit.benchmarks.grading.answers import after_thinking

OPEN, CLOSE = "<think>", "</think>"


def whole(response: str) -> str:
    """A response that has thought, with the opening tag that some chat templates put into the prompt."""
    if CLOSE in response and not response.lstrip().startswith(OPEN):
        return f"{OPEN}\n{response.lstrip()}"
    return response


def cut(response: str) -> str:
    """What follows the thinking, without blanks around it: all of it if there is none, nothing if it has no end."""
    return (after_thinking(response) or "").strip()
