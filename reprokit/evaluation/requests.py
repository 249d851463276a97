"""Which responses are to be drawn: requests with their seeds and digests, those that are drawn already, the plan."""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reprokit.evaluation.sharing import plan_chunks
from reprokit.recipe.sampling import Sampling
from reprokit.records.files import read_json, write_json
from reprokit.records.result import Sample
from reprokit.records.sample_log import Drawn

Key = tuple[str, str, int]  # benchmark, item, sample


@dataclass(frozen=True)
class Request:
    """One response to draw: prompt token ids of an item of a benchmark, and which of its samples this is.

    `context`: tokens of prompt and response that the engine takes.
    """

    benchmark: str
    item: str
    sample: int
    prompt: list[int]
    sampling: Sampling
    context: int

    @property
    def key(self) -> Key:
        return self.benchmark, self.item, self.sample

    @property
    def seed(self) -> int:
        """In 0 .. 2**31-1; the same for the same sample of the same item, whatever the sharing among engines."""
        name = f"{self.sampling.seed}/{self.benchmark}/{self.item}/{self.sample}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1

    @property
    def room(self) -> int:
        """Tokens that the response may have; below 1 when the prompt fills the context."""
        context = min(self.context, self.sampling.context or self.context)
        return min(self.sampling.max_tokens, context - len(self.prompt))

    @property
    def digest(self) -> str:
        """Of everything that decides the response; a sample with another digest is not a sample of this request."""
        asked = self.sampling
        settings = (asked.temperature, asked.top_p, asked.top_k, asked.presence_penalty, asked.frequency_penalty)
        digest = hashlib.sha256(array("I", self.prompt).tobytes())
        digest.update(repr((*map(float, settings), self.room, self.seed)).encode())
        digest.update(b"skip" if asked.skip_special_tokens else b"")
        return digest.hexdigest()[:16]

    def sampled(self, text: str, response_tokens: int, finish_reason: str, seconds: float) -> Sample:
        """The response to this request."""
        return Sample(
            benchmark=self.benchmark,
            item=self.item,
            sample=self.sample,
            seed=self.seed,
            request=self.digest,
            text=text,
            prompt_tokens=len(self.prompt),
            response_tokens=response_tokens,
            finish_reason=finish_reason,
            seconds=seconds,
        )


class Problem(msgspec.Struct):
    """What is put to the model of an `Item`; the rest, which can be large, is for scoring."""

    id: str
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class Task:
    """The problems of one benchmark and how to draw responses to them."""

    benchmark: str
    items: list[Problem]
    sampling: Sampling

    @property
    def settings(self) -> dict[str, Any]:
        return msgspec.to_builtins(self.sampling)

    def keys(self) -> Iterator[Key]:
        """Every (item, sample), in the order of the items."""
        return ((self.benchmark, item.id, sample) for item in self.items for sample in range(self.sampling.samples))


class Prompts:
    """Prompt token ids of items, kept: they are the same for all checkpoints of a run."""

    def __init__(self, tokenizer: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer)
        self.kept: dict[tuple[str, str], array[int]] = {}

    def of(self, benchmark: str, item: Problem) -> list[int]:
        """The turns in the model's chat template, up to where the answer begins."""
        if (benchmark, item.id) not in self.kept:
            ids = self.tokenizer.apply_chat_template(
                item.messages, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            self.kept[benchmark, item.id] = array("I", ids)
        return self.kept[benchmark, item.id].tolist()


class Requests:
    """The requests of some tasks to one checkpoint; each is made when it is asked for."""

    def __init__(self, tasks: Sequence[Task], prompts: Prompts, context: int) -> None:
        self.tasks = {task.benchmark: task for task in tasks}
        self.items = {(task.benchmark, item.id): item for task in tasks for item in task.items}
        self.prompts = prompts
        self.context = context

    def of(self, key: Key) -> Request:
        benchmark, item, _ = key
        prompt = self.prompts.of(benchmark, self.items[benchmark, item])
        return Request(*key, prompt, self.tasks[benchmark].sampling, self.context)

    def is_of(self, drawn: Sample | Drawn) -> bool:
        """Whether it was drawn for one of these requests, as this is now."""
        key = (drawn.benchmark, drawn.item, drawn.sample)
        if key[:2] not in self.items or drawn.sample >= self.tasks[drawn.benchmark].sampling.samples:
            return False
        return self.of(key).digest == drawn.request


class Plan(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`plan.json`: the requests that one start of the workers draws, and the chunks in which they claim them."""

    requests: list[Key]
    chunks: list[list[int]]


def agree(path: Path, requests: Sequence[Key], expected: Sequence[float], workers: int) -> Plan:
    """Make the plan, unless another worker was faster; returns the plan of the one that was first.

    Args:
        expected: tokens that the response to each request may take.
    """
    plan = Plan(requests=list(requests), chunks=plan_chunks(expected, workers))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".plan.") as aside:
        written = Path(aside) / path.name
        write_json(written, plan)
        try:
            os.link(written, path)
        except FileExistsError:
            return read_json(path, Plan)
    return plan


def expected_tokens(
    keys: Sequence[Key], earlier: Mapping[str, Iterable[Drawn]], limits: Mapping[str, int]
) -> list[float]:
    """Tokens of the response that each request may take.

    Args:
        earlier: by benchmark, what another checkpoint answered.
        limits: by benchmark, the most tokens of a response: the guess where nothing is known.

    The mean of the other checkpoint's responses to the item; for items it was not asked, that of the benchmark.
    """
    of_item: dict[tuple[str, str], list[int]] = defaultdict(list)
    of_benchmark: dict[str, float] = {}
    for benchmark, responses in earlier.items():
        for drawn in responses:
            of_item[benchmark, drawn.item].append(drawn.response_tokens)
        lengths = [tokens for key, found in of_item.items() if key[0] == benchmark for tokens in found]
        of_benchmark[benchmark] = float(np.mean(lengths)) if lengths else float(limits[benchmark])

    def guess(benchmark: str, item: str) -> float:
        found = of_item.get((benchmark, item))
        return float(np.mean(found)) if found else of_benchmark.get(benchmark, float(limits[benchmark]))

    return [guess(benchmark, item) for benchmark, item, _ in keys]
