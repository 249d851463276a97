"""What the types alone cannot say: ranges, combinations, files. Every function yields what is wrong.

The checks read a recipe whose unusable values are missing: reading one raises `MissingMandatoryValue`, which ends
that check, because the value is reported already.
"""

from __future__ import annotations

import math
import os.path
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING
from omegaconf.errors import MissingMandatoryValue

from reprokit.recipe.architecture import SIZES, from_config, of_model
from reprokit.recipe.checks_evaluation import (
    check_benchmarks,
    check_evaluated_steps,
    check_judges,
    check_no_questions,
    check_published,
    check_room,
)
from reprokit.recipe.derived import available_rows, is_all_bf16, steps_of
from reprokit.recipe.problems import Problem, closest, one_source
from reprokit.recipe.registry import DATA_SUFFIXES, GENERATORS, SMALLEST_VOCABULARY
from reprokit.recipe.schema import OFFICIAL_GPUS, Arithmetic, ModelSection, Recipe

Check = Callable[[Recipe], Iterable[Problem]]


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included unless `open_low` or `open_high`."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = True

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, (int, float))
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"{'>' if self.open_low else '>='} {self.low:g}"
        return low if self.high == math.inf else f"{low} and {'<' if self.open_high else '<='} {self.high:g}"


POSITIVE, NOT_NEGATIVE, AT_LEAST_ONE = Range(0, open_low=True), Range(0), Range(1)
FOLDER_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}"
NAME_RULE = "1 to 200 letters, digits and . _ - with no . or - in front"
TOP_P = Range(0, 1, open_low=True, open_high=False)
RANGES = {
    "model.tokenizer_vocab_size": Range(SMALLEST_VOCABULARY),
    "model.seed": NOT_NEGATIVE,
    "data.rows": AT_LEAST_ONE,
    "data.subset": AT_LEAST_ONE,
    "data.mean_length": AT_LEAST_ONE,
    "data.max_length": Range(2),
    "data.seed": NOT_NEGATIVE,
    "training.learning_rate": Range(0, 1, open_low=True),
    "training.epochs": AT_LEAST_ONE,
    "training.global_batch_size": AT_LEAST_ONE,
    "training.micro_batch_size": AT_LEAST_ONE,
    "training.micro_batch_tokens": Range(2),
    "training.sequence_parallel": AT_LEAST_ONE,
    "training.warmup_fraction": Range(0, 1),
    "training.weight_decay": NOT_NEGATIVE,
    "training.epsilon": POSITIVE,
    "training.max_gradient_norm": POSITIVE,
    "training.betas": Range(0, 1),
    "training.checkpoint_steps": AT_LEAST_ONE,
    "training.state_every": AT_LEAST_ONE,
    "training.seed": NOT_NEGATIVE,
    "evaluation.temperature": NOT_NEGATIVE,
    "evaluation.top_p": TOP_P,
    "evaluation.max_tokens": AT_LEAST_ONE,
    "evaluation.max_model_length": AT_LEAST_ONE,
    "evaluation.requests_at_a_time": AT_LEAST_ONE,
    "evaluation.seed": NOT_NEGATIVE,
    "evaluation.steps": NOT_NEGATIVE,
}
PENALTY = Range(-2, 2, open_high=False)
BENCHMARK_RANGES = {
    "items": AT_LEAST_ONE,
    "samples": AT_LEAST_ONE,
    "temperature": NOT_NEGATIVE,
    "top_p": TOP_P,
    "top_k": NOT_NEGATIVE,
    "presence_penalty": PENALTY,
    "frequency_penalty": PENALTY,
    "max_tokens": AT_LEAST_ONE,
    "context": Range(2),
}


def check_ranges(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Every number of plain recipe data against its range."""
    benchmarks = _at(values, "evaluation.benchmarks")
    names = benchmarks if isinstance(benchmarks, dict) else {}
    own = {f"evaluation.benchmarks.{name}.{key}": span for name in names for key, span in BENCHMARK_RANGES.items()}
    for key, span in (RANGES | own).items():
        value = _at(values, key)
        listed = isinstance(value, list)
        for place, number in enumerate(value if listed else [value]):
            if number not in (None, MISSING) and number not in span:
                full_key = f"{key}[{place}]" if listed else key
                yield Problem(full_key, "out of range", f"give a number {span}", str(number), str(span))


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict):
            return None
        values = values.get(part)
    return values


def check_names(recipe: Recipe) -> Iterator[Problem]:
    if not re.fullmatch(FOLDER_NAME, recipe.name):
        yield Problem("name", "not usable as the name of a folder", "choose another name", recipe.name, NAME_RULE)
    for key, name in (("model.name", recipe.model.name), ("data.name", recipe.data.name)):
        if not name.strip():
            yield Problem(key, "empty name", "give the name that figures and tables show", name, "text")


def check_model(recipe: Recipe) -> Iterator[Problem]:
    model = recipe.model
    sources = {"path": model.path, "hub_id": model.hub_id, "config": model.config}
    yield from one_source("model", {key: value for key, value in sources.items() if value is not None}, sources)
    yield from _check_shape(model)
    if model.config is None:
        if model.tokenizer_vocab_size is not None:
            remedy = "remove it: the tokenizer belongs to the model (model.tokenizer names another)"
            given = str(model.tokenizer_vocab_size)
            yield Problem("model.tokenizer_vocab_size", "only for a model.config with random weights", remedy, given)
        return
    if not isinstance(model.config.get("model_type"), str):
        remedy = "add model_type: <architecture of transformers>, for example model_type: qwen3"
        yield Problem("model.config", "no model_type", remedy, ", ".join(model.config), "a transformers config")
    if (model.tokenizer is None) == (model.tokenizer_vocab_size is None):
        message = "a model.config needs exactly one of model.tokenizer, model.tokenizer_vocab_size"
        given = "neither" if model.tokenizer is None else f"{model.tokenizer} and {model.tokenizer_vocab_size}"
        remedy = "name a tokenizer, or give the size of the one to train on the data"
        yield Problem("model.tokenizer", message, remedy, given)


def _check_shape(model: ModelSection) -> Iterator[Problem]:
    if model.shape is None:
        return
    given = ", ".join(model.shape)
    if model.hub_id is None:
        remedy = "remove it: the sizes are those of model.path or model.config"
        yield Problem("model.shape", "only beside model.hub_id", remedy, given)
    elif from_config(model.shape) is None:
        remedy = "copy them from the config.json of model.hub_id, or remove model.shape to plan without"
        yield Problem("model.shape", "sizes of the model are missing or unusable", remedy, given, ", ".join(SIZES))


def check_data(recipe: Recipe) -> Iterator[Problem]:
    data = recipe.data
    sources = {"path": data.path, "hub_id": data.hub_id, "generator": data.generator}
    yield from one_source("data", {key: value for key, value in sources.items() if value is not None}, sources)
    if data.generator is not None and data.generator not in GENERATORS:
        known = ", ".join(GENERATORS)
        guess = closest(data.generator, GENERATORS)
        remedy = f"did you mean {guess}?" if guess else "use one of the valid ones"
        yield Problem("data.generator", "unknown generator", remedy, data.generator, known)
    if data.generator is not None and data.rows is None:
        remedy = "add data.rows: 20480, or as many as you want"
        yield Problem("data.rows", "a generator needs the number of rows", remedy, "null", "a whole number")
    if data.hub_id is not None and data.file is None:
        remedy = "add data.file: the path of a .parquet or .jsonl file in the data set"
        yield Problem("data.file", "data.hub_id needs the file inside the data set", remedy, "null", "text")
    for key, file in (("data.path", data.path), ("data.file", data.file)):
        if file is not None and Path(file).suffix not in DATA_SUFFIXES:
            remedy = "convert it to one of the valid kinds"
            yield Problem(key, "unknown kind of file", remedy, file, ", ".join(DATA_SUFFIXES))
    if data.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", data.sha256):
        remedy = "give the output of sha256sum FILE"
        yield Problem("data.sha256", "not a SHA-256", remedy, data.sha256, "64 digits 0-9, a-f, in quotes")


def check_context(recipe: Recipe) -> Iterator[Problem]:
    """Lengths against the context of a model from random weights."""
    config = recipe.model.config
    context = config.get("max_position_embeddings") if config is not None else None
    if context is None:
        return
    if not isinstance(context, int) or context < 1:
        remedy = "write the number of tokens that the model has positions for, for example 4096"
        key, given = "model.config.max_position_embeddings", str(context)
        yield Problem(key, "not a number of tokens", remedy, given, "a whole number >= 1")
        return
    valid = f"at most {context}, model.config.max_position_embeddings"
    evaluated = recipe.evaluation.max_model_length
    for key, length in (("data.max_length", recipe.data.max_length), ("evaluation.max_model_length", evaluated)):
        if length is not None and length > context:
            yield Problem(key, "longer than the context of the model", f"write {key}: {context}", str(length), valid)


def check_micro_batches(recipe: Recipe) -> Iterator[Problem]:
    """Forward passes against rows and the global batch."""
    training, length = recipe.training, recipe.data.max_length
    if training.micro_batch_tokens is not None and training.micro_batch_tokens < length:
        given, valid = str(training.micro_batch_tokens), f"at least {length}, data.max_length"
        remedy = f"write training.micro_batch_tokens: {length}, or lower data.max_length: a row is never split"
        yield Problem("training.micro_batch_tokens", "no room for the longest row", remedy, given, valid)
    if training.arithmetic is not Arithmetic.official or min(training.micro_batch_size, training.global_batch_size) < 1:
        return
    batch, unit = training.global_batch_size, OFFICIAL_GPUS * training.micro_batch_size
    if batch % unit:
        message = f"official arithmetic shares it among {OFFICIAL_GPUS} GPUs in micro-batches of equal size"
        valid = f"a multiple of {OFFICIAL_GPUS} x training.micro_batch_size={training.micro_batch_size}"
        multiples = " or ".join(str(number) for number in (batch // unit * unit, (batch // unit + 1) * unit) if number)
        remedy = f"write training.global_batch_size: {multiples}"
        if batch % OFFICIAL_GPUS == 0:
            sizes = [size for size in range(1, 65) if (batch // OFFICIAL_GPUS) % size == 0]
            remedy += f", or training.micro_batch_size: {', '.join(map(str, sizes))}"
        yield Problem("training.global_batch_size", message, remedy, str(batch), valid)


def check_offload(recipe: Recipe) -> Iterator[Problem]:
    training = recipe.training
    if training.cpu_offload and is_all_bf16(training):
        # DeepSpeed 0.19.8 offloads bf16 states to its own CPU optimizer only (base_optimizer.py,
        # _configure_master_weights); that computes in fp32 and rounds once, torch rounds after every operation.
        message = (
            "official arithmetic has no offload: DeepSpeed moves bf16 states only to an AdamW that rounds otherwise"
        )
        remedy = (
            "write training.cpu_offload: false and use more GPUs, a smaller training.micro_batch_tokens or "
            "training.sequence_parallel; or training.arithmetic: standard, which is another training"
        )
        yield Problem("training.cpu_offload", message, remedy, "true", "false")


def check_sequence_parallel(recipe: Recipe) -> Iterator[Problem]:
    """GPUs that share a row each take some attention heads; key-value heads are repeated where they are fewer."""
    parts, heads = recipe.training.sequence_parallel, _attention_heads(recipe)
    if heads is not None and parts > 1 and heads % parts:
        valid = ", ".join(str(number) for number in range(1, heads + 1) if heads % number == 0)
        remedy = f"use a valid number: it must divide the {heads} attention heads of the model"
        yield Problem("training.sequence_parallel", "heads cannot be shared equally", remedy, str(parts), valid)


def _attention_heads(recipe: Recipe) -> int | None:
    """Attention heads of the base model, None where they are not known."""
    try:
        architecture = of_model(recipe.model)
    except (OSError, ValueError):  # of a model folder that is not there or damaged, which is reported elsewhere
        return None
    return None if architecture is None else architecture.heads


def check_betas(recipe: Recipe) -> Iterator[Problem]:
    betas = list(recipe.training.betas)
    if len(betas) != 2:
        yield Problem("training.betas", "not two values", "write [0.9, 0.999]", str(betas), "two numbers >= 0 and < 1")


def check_step_list(recipe: Recipe) -> Iterator[Problem]:
    steps = list(recipe.training.checkpoint_steps)
    valid = "increasing whole numbers >= 1"
    if not steps:
        remedy = "list the optimiser steps to save, for example [10, 20, 40, 80]"
        yield Problem("training.checkpoint_steps", "no steps", remedy, "[]", valid)
    elif any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
        remedy = f"write {sorted({step for step in steps if step >= 1})}"
        yield Problem("training.checkpoint_steps", "not increasing", remedy, str(steps), valid)


def check_subset(recipe: Recipe, rows: int | None) -> Iterator[Problem]:
    """The subset against the rows that there are, where their number is known."""
    subset = recipe.data.subset
    if subset is not None and rows is not None and subset > rows >= 1:
        remedy = f"write data.subset: {rows} or less, or leave it out to train on all rows"
        yield Problem("data.subset", f"there are only {rows} rows", remedy, str(subset), f">= 1 and <= {rows}")


def check_total_steps(recipe: Recipe, available: int | None) -> Iterator[Problem]:
    """The step list against the length of the training, where the number of rows is known."""
    training = recipe.training
    rows = recipe.data.subset if recipe.data.subset is not None else available
    if rows is None or min(rows, training.global_batch_size, training.epochs) < 1:
        return
    if rows < training.global_batch_size:
        given, valid = str(training.global_batch_size), f"at most {rows}, the number of rows"
        remedy = "lower it, or use more rows"
        yield Problem("training.global_batch_size", "no step can be made: too few rows", remedy, given, valid)
        return
    total = steps_of(rows, recipe)
    origin = (
        f"training ends at step {total} = floor({rows} rows / {training.global_batch_size} per batch)"
        f" x {training.epochs} epochs, the last partial batch of an epoch dropped"
    )
    steps = list(training.checkpoint_steps)
    if not steps or steps[-1] == total and max(steps) == total:
        return
    wanted = [*sorted({step for step in steps if 1 <= step < total}), total]
    beyond = [step for step in steps if step > total]
    message = f"steps beyond the end {beyond}" if beyond else "the end of the training would not be saved"
    remedy = f"write training.checkpoint_steps: {wanted}"
    yield Problem("training.checkpoint_steps", message, remedy, str(steps), f"steps up to the last one; {origin}")


def check_files(recipe: Recipe, looked: Mapping[str, list[Path]]) -> Iterator[Problem]:
    """Local files and folders; `looked`: key -> every place where a relative path was looked for.

    What the file system refuses to look for (a name that is too long, a loop of links) is not there: `os.path` says so
    where `Path` raises.
    """

    def missing(key: str, what: str, given: str) -> Problem:
        places = " and ".join(str(place) for place in looked.get(key, [Path(given)]))
        unset = "; an environment variable in it is not set" if "$" in given else ""
        remedy = "correct the path (absolute, or relative to the file that names it or to the current folder)"
        return Problem(key, f"no such {what}: looked for {places}{unset}", remedy, given)

    model, data = recipe.model, recipe.data
    if model.path is not None:
        if not os.path.isdir(model.path):
            yield missing("model.path", "model folder", model.path)
        elif not os.path.isfile(Path(model.path) / "config.json"):
            remedy = "give the folder that save_pretrained wrote"
            yield Problem("model.path", "not a Hugging Face model: it has no config.json", remedy, model.path)
    if model.chat_template is not None and not os.path.isfile(model.chat_template):
        yield missing("model.chat_template", "file", model.chat_template)
    if model.tokenizer is not None and model.tokenizer.startswith(("/", ".", "~", "$")):
        if not os.path.isdir(model.tokenizer):
            yield missing("model.tokenizer", "tokenizer folder", model.tokenizer)
    if data.path is not None and not os.path.isfile(data.path):
        yield missing("data.path", "data file", data.path)
    for name, benchmark in recipe.evaluation.benchmarks.items():
        if benchmark.path is not None and not (os.path.isfile(benchmark.path) or os.path.isdir(benchmark.path)):
            yield missing(f"evaluation.benchmarks.{name}.path", "file or folder", benchmark.path)
    for name, judge in recipe.evaluation.judges.items():
        if judge.path is not None and not os.path.isfile(Path(judge.path) / "config.json"):
            yield missing(f"evaluation.judges.{name}.path", "Hugging Face model folder", judge.path)
        if judge.prompt is not None and not os.path.isfile(judge.prompt):
            yield missing(f"evaluation.judges.{name}.prompt", "file", judge.prompt)


def check_rows(recipe: Recipe) -> Iterator[Problem]:
    """A local data file against the number of rows that the recipe gives."""
    data = recipe.data
    if data.path is None or not os.path.isfile(data.path) or Path(data.path).suffix not in DATA_SUFFIXES:
        return
    try:
        rows = available_rows(recipe)
    except ValueError as error:
        yield Problem("data.path", str(error), "make the file again", data.path, "a parquet file")
        return
    if rows == 0:
        yield Problem("data.path", "the file has no rows", "make the file again", data.path)
    elif data.rows is not None and data.rows != rows:
        remedy = f"write data.rows: {rows}, or leave it out"
        yield Problem("data.rows", f"the file has {rows} rows", remedy, str(data.rows), str(rows))


def check_combinations(recipe: Recipe, looked: Mapping[str, list[Path]] | None) -> list[Problem]:
    """All checks but the ranges; `looked` as in `check_files`, or None to leave local files alone."""
    checks: list[Check] = [check_names, check_model, check_data, check_context, check_betas]
    checks += [
        check_micro_batches,
        check_offload,
        check_sequence_parallel,
        check_step_list,
        check_benchmarks,
        check_evaluated_steps,
        check_judges,
        check_room,
    ]
    if looked is not None:
        places = looked
        checks += [lambda recipe: check_files(recipe, places), check_rows, check_published, check_no_questions]
    checks.append(lambda recipe: check_subset(recipe, _known_rows(recipe, looked is not None)))
    checks.append(lambda recipe: check_total_steps(recipe, _known_rows(recipe, looked is not None)))
    problems: list[Problem] = []
    for check in checks:
        try:
            problems.extend(check(recipe))
        except MissingMandatoryValue:
            pass
    return problems


def _known_rows(recipe: Recipe, files: bool) -> int | None:
    """Rows to draw a subset of; None if their number is not known."""
    if not files:
        return recipe.data.rows
    try:
        return available_rows(recipe)
    except ValueError:
        return None
