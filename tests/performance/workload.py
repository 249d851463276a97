"""What the sides of a benchmark train: one random model, one set of rows with the length spread of long CoT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from reprokit.data import tokens
from reprokit.data.rows import Row
from reprokit.recipe.schema import Precision
from reprokit.records.files import write_json
from reprokit.records.manifest import Manifest
from reprokit.records.run_directory import RunDirectory

SPREAD = 0.65  # sigma of the logarithm of the response lengths
MEDIAN, MEDIAN_OF_PROMPTS = 1 / 5, 1 / 160  # of the longest row

_END, _ANSWER = "<end>", "<answer>"
_TEMPLATE = (
    "{% for turn in messages %}{{ turn['content'] }}{% endfor %}{% if add_generation_prompt %} " + _ANSWER + "{% endif %}"
)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A model by the fields of its `config.json`, and how many rows there are, the longest of `longest` tokens.

    `vocab_size` counts the two tokens that every row has. An epoch is `count` / `global_batch_size` steps.
    """

    model: dict[str, Any]
    count: int
    longest: int
    global_batch_size: int
    micro_batch_size: int = 4  # of official arithmetic
    precision: Precision = Precision.fp32
    gradient_checkpointing: bool = False
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return self.count // self.global_batch_size


def lengths(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each prompt and of each whole row.

    Long chain-of-thought rows: short prompts, log-normal responses cut at `longest`, the median a fifth of it; one row
    is always of the full length.
    """
    draw = np.random.default_rng(workload.seed)
    longest = workload.longest
    prompts = draw.lognormal(np.log(longest * MEDIAN_OF_PROMPTS), 0.4, workload.count)
    prompts = np.clip(prompts.astype(int), 2, longest // 4)
    responses = draw.lognormal(np.log(longest * MEDIAN), SPREAD, workload.count).astype(int)
    whole = np.clip(prompts + responses, prompts + 2, longest)
    whole[draw.integers(workload.count)] = longest
    return prompts, whole


def prepare(workload: Workload, folder: Path) -> RunDirectory:
    """A run folder in which nothing is trained yet: tokenizer, tokens, random model.

    Beside it in `folder`/warm_up is one with the first global batch only.
    """
    run, warm_up = RunDirectory(folder), RunDirectory(folder / "warm_up")
    rows, tokenizer = _rows(workload), word_tokenizer(workload.model["vocab_size"])
    torch.manual_seed(workload.seed)
    fields = {**workload.model, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(**fields)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, workload.precision.dtype))
    model.save_pretrained(folder / "model")
    for one, those in ((run, rows), (warm_up, rows[: workload.global_batch_size])):
        tokenizer.save_pretrained(one.tokenizer)
        tokens.build(those, tokenizer, workload.longest, one.data)
        write_json(one.checkpoint(0) / "manifest.json", Manifest(step=0, weights=str(folder / "model")))
    return run


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per word; the words are the numbers from 0 to `vocabulary` - 3."""
    words = [*map(str, range(vocabulary - 2)), _ANSWER, _END]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_END, pad_token=_END, chat_template=_TEMPLATE, unk_token="0"
    )


def _rows(workload: Workload) -> list[Row]:
    draw = np.random.default_rng((workload.seed, 1))

    def text(length: int) -> str:
        return " ".join(map(str, draw.integers(workload.model["vocab_size"] - 2, size=length)))

    return [
        Row([{"role": "user", "content": text(prompt - 1)}], text(whole - prompt - 1))
        for prompt, whole in zip(*lengths(workload), strict=True)
    ]
