"""What a benchmark is: problems with their prompts, questions to judges, and scores for responses.

Two protocols score the same responses. `official` does what the official code does, quirks included. `clean` takes
only what follows the thinking, the last match where there are several, and an unfinished response as wrong: where a
reward model judges as an empty answer, where safety is judged as harmless. A benchmark on which they agree gives the
same score for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

Protocol = Literal["official", "clean"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "clean")
Reply = str | float  # a judge's text, or the logit of a reward model


class Item(msgspec.Struct):
    """One problem: the turns to send, and plain data with which `score` judges an answer."""

    id: str  # unique within the benchmark
    messages: list[dict[str, str]]  # of role and content
    answer: dict[str, Any]
    group: str = ""  # part, category or difficulty: results are also given by group
    cluster: str = ""  # rows that put the same problem share it, for intervals; empty: the row is its own


@dataclass(frozen=True)
class Response:
    """A generated text; `finished` unless it was cut off at a limit of tokens."""

    text: str
    finished: bool = True


class Score(msgspec.Struct):
    """Judgement of one response under one protocol.

    `values` has a number for each metric of the benchmark, 0 to 1 (wrong to right) where the metric is in percent. A
    metric whose judge gave no usable verdict is left out: it is counted, and not taken into the mean. `answer` is
    what was read off the text; None if there was none.
    """

    values: dict[str, float]
    answer: str | None = None

    @classmethod
    def of(cls, right: bool, answer: str | None) -> Score:
        """Score of a benchmark whose only metric is `accuracy`."""
        return cls({"accuracy": float(right)}, answer)


class Question(msgspec.Struct, frozen=True):
    """What a judge model is asked about one response.

    A completion judge continues `before + body + after`; a chat judge gets that as one user turn; a reward model
    scores the answer `body` to the user turn `before`. `body` is cut on the right to `body_tokens` tokens of the
    judge's tokenizer.
    """

    judge: str  # key of `evaluation.judges`
    before: str
    body: str
    after: str = ""
    body_tokens: int | None = None


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark: the mean of the values of this name in its scores.

    `title` is its name in records; empty: avg@k over the k samples of a problem (pass@1 for one). `judge` is the key of
    the judge whose verdicts it counts; it is left out of results where that judge is not asked.
    """

    name: str = "accuracy"
    title: str = ""
    unit: Literal["percent", "reward", "score"] = "percent"
    judge: str = ""


@dataclass(frozen=True)
class Upstream:
    """Where the problems of a benchmark come from: a data set of the Hugging Face Hub.

    `files` are patterns of file names in it. `revision` is None where no commit is known to be the paper's: then that
    of the day is taken, and recorded.
    """

    hub_id: str
    files: tuple[str, ...]
    revision: str | None = None
    gated: bool = False


def _rule_based(item: Item, response: Response, judges: Mapping[str, str]) -> dict[str, Question]:
    return {}


def _equal_weights(items: Sequence[Item], protocol: Protocol, metric: str) -> list[float]:
    return [1.0] * len(items)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. Exactly one of `make` and `read` gives its problems.

    Args:
        size: number of problems; None where only the data tells.
        score: `(item, response, protocol, replies)` -> score; takes any text. `replies` has the judges' replies by the
            names of `questions`. Raises UserError where nothing can be scored on this machine.
        version: of scoring, raised whenever a score may come out differently: older results are then scored again.
        make: `(count, seed)` -> problems of a procedural benchmark; the same arguments give the same problems, and a
            smaller count a prefix. Raises UserError for more problems than there are.
        read: upstream files -> all problems. Raises UserError for a file that is not of its upstream form.
        upstream: where the files of `read` come from.
        metrics: the first one is the headline.
        questions: `(item, response, judges)` -> questions to judge models by name, for both protocols; `judges` has
            the prompt (empty if it has none) of every judge that the recipe gives this benchmark.
        weights: `(items, protocol, metric)` -> weight of each item in the mean of a metric.
        votes: whether samples of one problem can vote for an answer (maj@k).
        score_seconds: time limit for one response; beyond it the score is that of an empty text.
        facts: what else a score depends on, on this machine; recorded with the result.
    """

    name: str
    title: str  # as it appears in figures
    size: int | None
    score: Callable[[Item, Response, Protocol, Mapping[str, Reply]], Score]
    version: int = 1
    make: Callable[[int, int], list[Item]] | None = None
    read: Callable[[Sequence[Path]], list[Item]] | None = None
    upstream: Upstream | None = None
    metrics: tuple[Metric, ...] = (Metric(),)
    questions: Callable[[Item, Response, Mapping[str, str]], dict[str, Question]] = _rule_based
    weights: Callable[[Sequence[Item], Protocol, str], list[float]] = _equal_weights
    votes: bool = False
    score_seconds: float = 60.0
    facts: Callable[[], dict[str, str]] = dict

    def items(self, count: int | None = None, seed: int = 0) -> list[Item]:
        """The first `count` problems of a procedural benchmark, or `size` of them for None."""
        assert self.make is not None and self.size is not None
        return self.make(self.size if count is None else count, seed)
