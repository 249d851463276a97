"""The cases of all runs as JSON for the browser on the page: the same problem at several checkpoints."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.holdings import Library
from analysis.names import benchmark_name, benchmark_place
from reprokit.records.details import Case, CaseResponse, Details
from reprokit.records.result import FINISHED

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# What could end the script element that holds the JSON, or a line of script where JSON allows none.
_ESCAPES = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
MAX_CHARACTERS = 12_000_000  # of the JSON: a page that is larger is slow to open and cannot be sent


@dataclass(frozen=True)
class Cases:
    """`json` is safe inside a script element; `shown` of `there` cases are in it."""

    json: str
    shown: int
    there: int


def all_cases(library: Library, max_characters: int = MAX_CHARACTERS) -> Cases:
    """Cases by run and benchmark; where they are too many for a page, the first of each benchmark, one at least."""
    by_run = {run: _by_benchmark(details) for run, details in sorted(library.details.items()) if details.cases}
    counts = [len(cases) for benchmarks in by_run.values() for cases in benchmarks.values()]
    most = max(counts, default=0)
    text = _json(by_run, most)
    while len(text) > max_characters and most > 1:
        most = max(1, min(most - 1, most * max_characters // len(text)))
        text = _json(by_run, most)
    return Cases(text, sum(min(count, most) for count in counts), sum(counts))


def _json(by_run: dict[str, dict[str, list[dict[str, Any]]]], most: int) -> str:
    runs = [
        {"run": run, "benchmarks": [{"name": name, "cases": cases[:most]} for name, cases in benchmarks.items()]}
        for run, benchmarks in by_run.items()
    ]
    text = json.dumps(runs, ensure_ascii=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _by_benchmark(details: Details) -> dict[str, list[dict[str, Any]]]:
    """By display name, in the paper's order."""
    cases = defaultdict(list)
    for case in details.cases:
        cases[benchmark_name(case.benchmark)].append(_case(details, case))
    return {name: cases[name] for name in sorted(cases, key=benchmark_place)}


def _case(details: Details, case: Case) -> dict[str, Any]:
    last = max((response.step for response in case.responses), default=0)
    return {
        "item": _visible(case.item),
        "pattern": _visible(case.pattern),
        "prompt": _visible(case.prompt),
        "reference": None if case.reference is None else _visible(case.reference),
        "responses": [_response(details, case, response, last) for response in case.responses],
    }


def _response(details: Details, case: Case, response: CaseResponse, last: int) -> dict[str, Any]:
    unit = next((cell.unit for cell in details.cells if cell.benchmark == case.benchmark), "")
    cut = len(response.text) if response.cut_at is None else response.cut_at
    return {
        "title": _title(response.step, last),
        "facts": _facts(response, unit),
        "begin": _visible(response.text[:cut]),
        "cut": f"… {response.omitted:,} characters are left out here …" if response.omitted else None,
        "end": _visible(response.text[cut:]),
    }


def _title(step: int, last: int) -> str:
    if step == 0:
        return "Base (step 0)"
    return f"End (step {step})" if step == last else f"Step {step}"


def _facts(response: CaseResponse, unit: str) -> Sequence[tuple[str, str]]:
    ended = "finished" if response.finish_reason == FINISHED else f"not finished ({response.finish_reason})"
    answer = "none" if response.answer is None else _visible(response.answer)
    return (
        ("Score", _score(response.value, unit)),
        ("Answer", answer),
        ("Length", f"{response.response_tokens:,} tokens, {ended}"),
    )


def _score(value: float | None, unit: str) -> str:
    if value is None:
        return "not scored"
    if unit == "percent" and value in (0, 1):
        return "right" if value else "wrong"
    return f"{100 * value:.1f} %" if unit == "percent" else f"{value:g} {unit}".strip()


def _visible(text: str) -> str:
    """Control characters have no look of their own: shown by the signs that Unicode has for them."""
    return _CONTROL.sub(_sign, text)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "\u2421" if code == 0x7F else chr(0x2400 + code)
