"""Some problems with what the base, the dip and the end of a run answered to them, to be read side by side.

Benchmarks of the safety group give none: harmful text stays in the run folder. Nor do data sets behind a gate, such as
GPQA, whose authors ask not to publish their problems.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reprokit import benchmarks
from reprokit.benchmarks.interface import Item, Metric
from reprokit.evaluation.summary import headline_metric
from reprokit.records.details import Case, CaseResponse, CellDetails
from reprokit.records.files import read_json_lines
from reprokit.records.paper import SAFETY
from reprokit.records.result import Cell, Sample, SampleScore, read_result
from reprokit.records.run_directory import RunDirectory

CASES = 8  # of a benchmark
KEPT = 4000  # characters of the beginning and of the end of a long text
BRIEF = 250  # the same of an answer

# What shows how skill comes and goes, then all others. The first three are those of a dip.
_PATTERNS = (
    *("right → wrong → right", "wrong → wrong → right", "right → right → wrong"),
    *("falls, rises", "rises, rises", "rises, falls"),
)
# Of the answer of a problem: what repeats the problem, or is for machines only.
_NO_REFERENCE = {"prompt", "question", "instruction", "tests"}


class Place(NamedTuple):
    """A cell of a run folder."""

    run: RunDirectory
    cell: Cell


class _Column(NamedTuple):
    """The first response to each problem at one step, and the score of it."""

    step: int
    samples: dict[str, Sample]
    scores: dict[str, SampleScore]


def cases_of(details: Mapping[Place, CellDetails]) -> list[Case]:
    """Up to CASES problems of each benchmark, the same ones for the same results.

    Args:
        details: cells of one run; those of step 0 may lie in the folder of its base model.
    """
    by_benchmark: dict[str, dict[int, Place]] = defaultdict(dict)
    for place in sorted(details, key=lambda place: place.cell):
        if _may_be_shown(place.cell.benchmark):
            by_benchmark[place.cell.benchmark][place.cell.step] = place
    cases = []
    for name, places in sorted(by_benchmark.items()):
        steps = shown_steps({step: _value(details[place]) for step, place in places.items()})
        chosen = [places[step] for step in steps]
        # Values of a base that answered other problems, or was scored otherwise, cannot stand beside the others.
        if len({(details[place].digest, details[place].metric) for place in chosen}) == 1 and len(chosen) > 1:
            cases += _cases(name, chosen)
    return cases


def _may_be_shown(name: str) -> bool:
    upstream = benchmarks.get(name).upstream
    return name not in SAFETY and not (upstream and upstream.gated)


def _value(details: CellDetails) -> float:
    """The headline; -inf where no response has a usable verdict."""
    weights = [details.weights.get(item, 1.0) for item in details.items]
    return float(np.average(list(details.items.values()), weights=weights)) if weights else -np.inf


def shown_steps(values: Mapping[int, float]) -> list[int]:
    """The first step, the dip and the last step, of those that there are.

    The dip is the lowest value between the two; if none is lower than the first, the first checkpoint after it.
    """
    steps = sorted(values)
    between = steps[1:-1]
    if not between:
        return steps
    dip = min(between, key=lambda step: (values[step], step))
    return [steps[0], dip if values[dip] < values[steps[0]] else between[0], steps[-1]]


def _cases(name: str, places: Sequence[Place]) -> list[Case]:
    """The cases of one benchmark; none if the files are not there any more, or others: that is printed."""
    benchmark = benchmarks.get(name)
    result = read_result(places[0].run.result(places[0].cell.step, name))
    if result is None:
        return []
    metric = headline_metric(benchmark, result.judges)
    try:
        scores = [_first_scores(place, metric) for place in places]
        patterns = _patterns(metric, scores)
        chosen = _chosen(name, patterns)
        columns = [
            _Column(place.cell.step, _first_samples(place, chosen), found)
            for place, found in zip(places, scores, strict=True)
        ]
        items = {item.id: item for item in read_json_lines(places[-1].run.items(name), Item) if item.id in chosen}
        return [_case(items[item], name, patterns[item], metric, columns) for item in chosen]
    except (FileNotFoundError, KeyError, ValueError) as error:
        print(f"no cases of {name}: samples and scores are not those of its results any more ({error})", flush=True)
        return []


def scores_path(run: RunDirectory, cell: Cell) -> Path:
    """The scores of the samples of a cell."""
    return run.cell(cell.step, cell.benchmark) / "scores.jsonl"


def _first_scores(place: Place, metric: Metric) -> dict[str, SampleScore]:
    """By item, the score of its first sample, where this has a usable verdict."""
    rows = read_json_lines(scores_path(*place), SampleScore)
    return {row.item: row for row in rows if row.sample == 0 and metric.name in row.values["official"]}


def _first_samples(place: Place, wanted: Sequence[str]) -> dict[str, Sample]:
    """Raises FileNotFoundError or ValueError if not all are there."""
    rows = read_json_lines(place.run.samples(place.cell.step, place.cell.benchmark), Sample)
    found = {row.item: row for row in rows if row.sample == 0 and row.item in wanted}
    if len(found) < len(wanted):
        raise ValueError(f"{place.cell}: {len(wanted) - len(found)} samples are missing")
    return found


def _patterns(metric: Metric, columns: Sequence[Mapping[str, SampleScore]]) -> dict[str, str]:
    """In words, how the value of each item went from step to step; items without a value at some step are left out."""
    items = set.intersection(*(set(column) for column in columns))
    values = {item: [column[item].values["official"][metric.name] for column in columns] for item in items}
    in_words = _rights if metric.unit == "percent" else _moves
    return {item: in_words(found) for item, found in values.items()}


def _rights(values: Sequence[float]) -> str:
    return " → ".join({1.0: "right", 0.0: "wrong"}.get(value, "partly right") for value in values)


def _moves(values: Sequence[float]) -> str:
    words = {-1.0: "falls", 0.0: "stays", 1.0: "rises"}
    return ", ".join(words[float(sign)] for sign in np.sign(np.diff(values)))


def _chosen(name: str, patterns: Mapping[str, str]) -> list[str]:
    """CASES items, of each kind of pattern in turn; within a kind in an order that is random and always the same."""
    kinds: dict[int, list[str]] = defaultdict(list)
    for item in sorted(patterns, key=lambda item: hashlib.sha256(f"{name}/{item}".encode()).digest()):
        kinds[_kind(patterns[item])].append(item)
    ranked = sorted((rank, kind, item) for kind, items in kinds.items() for rank, item in enumerate(items))
    taken = [item for _, _, item in ranked[:CASES]]
    return sorted(taken, key=lambda item: (_kind(patterns[item]), patterns[item], item))


def _kind(pattern: str) -> int:
    return _PATTERNS.index(pattern) if pattern in _PATTERNS else len(_PATTERNS)


def _case(item: Item, name: str, pattern: str, metric: Metric, columns: Sequence[_Column]) -> Case:
    return Case(
        benchmark=name,
        item=item.id,
        pattern=pattern,
        prompt=_cut(_prompt(item), KEPT),
        reference=_reference(item),
        responses=[_response(column, item.id, metric) for column in columns],
    )


def _response(column: _Column, item: str, metric: Metric) -> CaseResponse:
    sample, score = column.samples[item], column.scores[item]
    omitted = max(0, len(sample.text) - 2 * KEPT)
    answer = score.answers["official"]
    return CaseResponse(
        step=column.step,
        text=sample.text[:KEPT] + sample.text[KEPT + omitted :],
        cut_at=KEPT if omitted else None,
        omitted=omitted,
        value=score.values["official"][metric.name],
        answer=None if answer is None else _cut(answer, BRIEF),
        response_tokens=sample.response_tokens,
        finish_reason=sample.finish_reason,
    )


def _prompt(item: Item) -> str:
    if len(item.messages) == 1:
        return item.messages[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in item.messages)


def _reference(item: Item) -> str | None:
    """What the answer of a problem says, where it says anything that a person can compare with."""
    known = {"answer": item.answer["clean"]} if "clean" in item.answer else item.answer
    shown = {key: value for key, value in known.items() if key not in _NO_REFERENCE and value is not None}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in shown.items()}
    said = "; ".join(f"{key}: {text}" for key, text in texts.items()) if set(texts) != {"answer"} else texts["answer"]
    return _cut(said, BRIEF) or None


def _cut(text: str, kept: int) -> str:
    """A text without its middle if it is longer than twice `kept` characters, with a word on that."""
    omitted = len(text) - 2 * kept
    return f"{text[:kept]} [… {omitted:,} characters left out …] {text[-kept:]}" if omitted > 0 else text
