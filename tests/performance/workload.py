"""What the sides of a benchmark train: one random model, one set of rows with the length spread of long CoT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from scipy.stats import norm
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from reprokit.data import tokens
from reprokit.data.rows import Row
from reprokit.recipe.schema import Precision
from reprokit.records.files import write_json
from reprokit.records.manifest import Manifest
from reprokit.records.run_directory import RunDirectory

MEDIAN = 1 / 5  # of the longest row
SPREAD = 0.65  # standard deviation of the logarithm of lengths
PROMPT, PROMPT_SPREAD = 1 / 160, 0.4  # the same of prompts

_END, _ANSWER = "<end>", "<answer>"
_TEMPLATE = (
    "{% for turn in messages %}{{ turn['content'] }}{% endfor %}{% if add_generation_prompt %} "
    + _ANSWER
    + "{% endif %}"
)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A model by the fields of its `config.json`, and `count` rows, the longest of `longest` tokens: one epoch.

    `micro_batch_size` is that of official arithmetic; `precision` that in which the sides train.
    """

    model: dict[str, Any]
    count: int
    longest: int
    global_batch_size: int
    micro_batch_size: int = 4
    precision: Precision = Precision.fp32
    seed: int = 0


def lengths(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each prompt and of each whole row, int64 [count], the shortest row first.

    Rows of long chain of thought: short prompts, log-normal lengths, the median a fifth of the longest row. Lengths
    are quantiles, so that few rows have the spread of many.
    """
    draw = np.random.default_rng(workload.seed)
    quantiles = norm.ppf((np.arange(workload.count) + 0.5) / workload.count)
    longest = workload.longest
    whole = np.clip(longest * MEDIAN * np.exp(SPREAD * quantiles), 8, longest).astype(int)
    whole[-1] = longest
    prompts = longest * PROMPT * np.exp(PROMPT_SPREAD * draw.permutation(quantiles))
    return np.clip(prompts.astype(int), 2, whole // 2), whole


def describe(workload: Workload) -> dict[str, Any]:
    """The workload in numbers, for reports."""
    prompts, whole = lengths(workload)
    rows = {
        "rows": workload.count,
        "tokens": int(whole.sum()),
        "target_tokens": int((whole - prompts).sum()),
        "length_median": float(np.median(whole)),
        "length_mean": round(float(whole.mean()), 1),
        "length_max": int(whole.max()),
    }
    return {**rows, "global_batch_size": workload.global_batch_size, "precision": workload.precision.value}


def prepare(workload: Workload, folder: Path) -> RunDirectory:
    """A run folder in which nothing is trained yet: tokenizer, tokens, and random weights in `folder`/model.

    `folder`/warm_up is one with the shortest rows only, one global batch of them.
    """
    run, warm_up = RunDirectory(folder), RunDirectory(folder / "warm_up")
    tokenizer = word_tokenizer(workload.model["vocab_size"])
    fields = {**workload.model, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(workload.seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))
    model.to(getattr(torch, workload.precision.dtype)).save_pretrained(folder / "model")
    shapes = np.stack(lengths(workload), axis=1)
    shuffled = np.random.default_rng((workload.seed, 1)).permutation(shapes)
    for one, chosen in ((run, shuffled), (warm_up, shapes[: workload.global_batch_size])):
        tokenizer.save_pretrained(one.tokenizer)
        tokens.build(_rows(chosen, workload), tokenizer, workload.longest, one.data)
        write_json(one.checkpoint(0) / "manifest.json", Manifest(step=0, weights=str(folder / "model")))
    return run


def rows_of(run: RunDirectory) -> list[tuple[list[int], int]]:
    """Token ids and prompt length of every row."""
    dataset = tokens.load(run.data)
    return [(ids.tolist(), length) for ids, length in (dataset[index] for index in range(len(dataset)))]


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per word; the words are the numbers from 0 to `vocabulary` - 3."""
    words = [*map(str, range(vocabulary - 2)), _ANSWER, _END]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_END, chat_template=_TEMPLATE)


def _rows(shapes: np.ndarray, workload: Workload) -> list[Row]:
    """Random rows of the given prompt and whole lengths [rows, 2]; one token of each is _ANSWER, the last _END."""
    draw = np.random.default_rng((workload.seed, 2))

    def text(length: int) -> str:
        return " ".join(map(str, draw.integers(workload.model["vocab_size"] - 2, size=length)))

    return [Row([{"role": "user", "content": text(prompt - 1)}], text(whole - prompt - 1)) for prompt, whole in shapes]
