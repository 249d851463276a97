"""HaluEval: whether an answer, a reply in a dialogue or a summary is hallucinated.

The prompts are the official code's: without upstream's examples, and with a stray final quote. A part counts as much as
another: accuracy is the mean of the accuracies of the three, which the official code leaves to the reader.

official: the last Yes or No after the four-fold strip of thinking, so unfinished thoughts are searched as well; without
one, the only one of "yes" and "no" within the first line of the whole response, where "know" is a no.
clean: the last Yes or No of a finished response after its thinking; none is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.grading.thinking import clean_answer, strip_thinking
from reprokit.benchmarks.grading.verdicts import last_yes_or_no, only_yes_or_no
from reprokit.benchmarks.interface import Benchmark, Item, Metric, Protocol, Reply, Response, Score, Upstream
from reprokit.errors import UserError

_LABEL = "hallucination"
_INSTRUCTION = (
    "I want you act as {judge}. Given {given}, your objective is to determine if the provided {judged} contains "
    "non-factual or hallucinated information. You SHOULD give your judgement based on the following hallucination "
    "types and the world knowledge.\n"
    "You should try your best to determine if the {judged} contains non-factual or hallucinated information. "
    'The answer you give MUST be "Yes" or "No"".'
)


@dataclass(frozen=True)
class _Part:
    """One of the three: the words of its instruction, and its columns with their headings in the prompt."""

    judge: str
    given: str
    judged: str
    fields: dict[str, str]

    def prompt(self, row: Mapping[str, Any]) -> str:
        instruction = _INSTRUCTION.format(judge=self.judge, given=self.given, judged=self.judged)
        tail = "\n".join(f"{heading} {row[column]}" for column, heading in self.fields.items())
        return f"{instruction}\n\n{tail}\n#Your Judgement#:"


PARTS = {
    "qa": _Part(
        "an answer judge",
        "a question and an answer",
        "answer",
        {"knowledge": "#Knowledge:", "question": "#Question#:", "answer": "#Answer#:"},
    ),
    "dialogue": _Part(
        "a response judge",
        "a dialogue history and a response",
        "response",
        {"knowledge": "#Knowledge:", "dialogue_history": "#Dialogue History#:", "response": "#Response#:"},
    ),
    "summarization": _Part(
        "a summary judge",
        "a document and a summary",
        "summary",
        {"document": "#Document#:", "summary": "#Summary#:"},
    ),
}


def _read(paths: Sequence[Path]) -> list[Item]:
    """Items of the parts in turn, so that any prefix has about as many of each."""
    items: dict[str, list[Item]] = {name: [] for name in PARTS}
    for path in paths:
        for number, row in enumerate(read_rows(path, {_LABEL: str}), start=1):
            name = _part_of(path, number, row)
            items[name].append(_item(f"{name}-{len(items[name]):05d}", name, row))
    return [item for item in chain(*zip_longest(*items.values())) if item is not None]


def _part_of(path: Path, number: int, row: Mapping[str, Any]) -> str:
    if row[_LABEL] not in ("yes", "no"):
        raise UserError(f"{path}, row {number}: {_LABEL} is {row[_LABEL]!r}; valid: yes, no")
    for name, part in PARTS.items():
        if all(row.get(column) is not None for column in part.fields):
            return name
    valid = "; ".join(f"{name}: {', '.join([*part.fields, _LABEL])}" for name, part in PARTS.items())
    raise UserError(
        f"{path}, row {number}: columns {', '.join(map(str, row))} are of no part of HaluEval; valid: {valid}"
    )


def _item(identifier: str, name: str, row: Mapping[str, Any]) -> Item:
    return Item(
        id=identifier,
        messages=[{"role": "user", "content": PARTS[name].prompt(row)}],
        answer={_LABEL: row[_LABEL]},
        group=name,
    )


def _score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    if protocol == "official":
        answer = last_yes_or_no(strip_thinking(response.text)) or only_yes_or_no(response.text)
    else:
        answer = last_yes_or_no(clean_answer(response) or "")
    return Score.of(answer == item.answer[_LABEL], answer)


def _weights(items: Sequence[Item], protocol: Protocol, metric: str) -> list[float]:
    sizes = Counter(item.group for item in items)
    return [1 / sizes[item.group] for item in items]


BENCHMARK = Benchmark(
    name="halueval",
    title="HaluEval",
    size=30_000,
    read=_read,
    upstream=Upstream("pminervini/HaluEval", ("qa_samples/*", "dialogue_samples/*", "summarization_samples/*")),
    metrics=(Metric("accuracy", title="pass@1"),),
    score=_score,
    weights=_weights,
)
