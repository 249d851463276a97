"""Checks of the evaluation section: benchmarks, judges, room for prompts. As those of `checks`."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from urllib.parse import urlsplit

from reprokit.recipe.derived import all_steps
from reprokit.recipe.judges import JUDGES, Judge, JudgeKind
from reprokit.recipe.problems import Problem, closest, one_source
from reprokit.recipe.registry import QUESTIONS, benchmark_names
from reprokit.recipe.sampling import OFFICIAL
from reprokit.recipe.schema import JudgeSection, Recipe, Source


def check_benchmarks(recipe: Recipe) -> Iterator[Problem]:
    known = benchmark_names()
    if not recipe.evaluation.benchmarks:
        remedy = "list at least one, for example {countdown: {items: 200}}"
        yield Problem("evaluation.benchmarks", "no benchmarks", remedy, "{}", ", ".join(known))
    for name, section in recipe.evaluation.benchmarks.items():
        key = f"evaluation.benchmarks.{name}"
        if name not in (*known, QUESTIONS):
            guess = closest(name, known)
            remedy = f"did you mean {guess}?" if guess else "use one of the valid ones"
            yield Problem(key, "unknown benchmark", remedy, name, ", ".join(known))
        elif name not in OFFICIAL:
            for field in ("path", "revision"):
                if given := getattr(section, field):
                    remedy = "remove it: the problems of this benchmark are generated"
                    yield Problem(f"{key}.{field}", "a procedural benchmark has no data", remedy, given)
        elif section.path is not None and section.revision is not None:
            remedy = f"keep {key}.path or {key}.revision"
            yield Problem(f"{key}.revision", "only for data from the hub", remedy, section.revision)


def check_no_questions(recipe: Recipe) -> Iterator[Problem]:
    if QUESTIONS in recipe.evaluation.benchmarks:
        remedy, valid = "remove it: it is for building data sets", ", ".join(benchmark_names())
        yield Problem(f"evaluation.benchmarks.{QUESTIONS}", "not a benchmark to choose", remedy, QUESTIONS, valid)


def check_evaluated_steps(recipe: Recipe) -> Iterator[Problem]:
    wanted, there = recipe.evaluation.steps, all_steps(recipe)
    if wanted is None:
        return
    valid = f"some of {', '.join(map(str, there))} (0 is the base)"
    if not wanted:
        yield Problem("evaluation.steps", "no steps", "leave it out to evaluate all of them", "[]", valid)
    elif unknown := [step for step in wanted if step not in there]:
        remedy = f"take {', '.join(map(str, unknown))} out, or add what is missing to training.checkpoint_steps"
        yield Problem("evaluation.steps", "no checkpoint of these steps is saved", remedy, str(list(wanted)), valid)


def check_published(recipe: Recipe) -> Iterator[Problem]:
    published = recipe.published
    sources = {"path": published.path, "hub_id": published.hub_id}
    given = {name: value for name, value in sources.items() if value is not None}
    if given or recipe.source is Source.published:
        yield from one_source("published", given, sources)
    if published.revision is not None and published.hub_id is None:
        remedy = "give published.hub_id too, or remove it"
        yield Problem("published.revision", "only beside published.hub_id", remedy, published.revision)
    if recipe.source is Source.published and published.path is not None and not os.path.isdir(published.path):
        remedy = "give the folder that holds the folders stepN"
        yield Problem("published.path", "no such folder", remedy, published.path)


def check_judges(recipe: Recipe) -> Iterator[Problem]:
    for name, section in recipe.evaluation.judges.items():
        key = f"evaluation.judges.{name}"
        if name not in JUDGES:
            guess = closest(name, JUDGES)
            remedy = f"did you mean {guess}?" if guess else "use one of the valid ones"
            yield Problem(key, "unknown judge", remedy, name, ", ".join(JUDGES))
            continue
        judge = JUDGES[name]
        if judge.benchmark not in recipe.evaluation.benchmarks:
            remedy = f"add the benchmark, or take the judge back: {key}=false"
            message = f"judges {judge.benchmark}, which is not among the benchmarks"
            yield Problem(key, message, remedy, name, ", ".join(recipe.evaluation.benchmarks))
        yield from _check_judge(key, judge, section)


def _check_judge(key: str, judge: Judge, section: JudgeSection) -> Iterator[Problem]:
    sources = {"path": section.path, "hub_id": section.hub_id, "endpoint": section.endpoint, "config": section.config}
    given = {name: value for name, value in sources.items() if value is not None}
    if given:
        yield from one_source(key, given, sources)
    if section.revision is not None and section.hub_id is None:
        yield Problem(f"{key}.revision", f"only beside {key}.hub_id", f"give {key}.hub_id too", section.revision)
    if section.endpoint is not None:
        yield from _check_endpoint(f"{key}.endpoint", section.endpoint)
        if judge.kind is not JudgeKind.chat:
            remedy = "give a model folder or a hub id"
            message = f"a {judge.kind.value} judge cannot be asked over an endpoint"
            yield Problem(f"{key}.endpoint", message, remedy)
        if section.model is None:
            remedy = f"add {key}.model: <name>"
            yield Problem(f"{key}.endpoint", "which model of the endpoint is not said", remedy)
    elif section.model is not None:
        remedy = f"give {key}.endpoint, or {key}.hub_id for a local model"
        yield Problem(f"{key}.model", f"only beside {key}.endpoint", remedy, section.model)
    if section.prompt is not None and judge.kind is not JudgeKind.chat:
        remedy = "remove it: the question of this judge is part of the protocol"
        yield Problem(f"{key}.prompt", f"a {judge.kind.value} judge takes no prompt", remedy, section.prompt)


def _check_endpoint(key: str, endpoint: str) -> Iterator[Problem]:
    """The value is not shown: it may hold a password."""
    valid = "https://host/v1"
    try:
        parts = urlsplit(endpoint)
        known = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        known = None
    if not known:
        yield Problem(key, "not a URL", f"write one like {valid}", valid=valid)
    elif "@" in parts.netloc or parts.query or parts.fragment:
        remedy = "put the key into the environment variable that api_key_variable names, and the bare address here"
        yield Problem(key, "holds a user, a password or a query", remedy, valid=valid)


def check_room(recipe: Recipe) -> Iterator[Problem]:
    """The longest response against the context; a prompt takes its share of both."""
    length = recipe.evaluation.max_model_length
    wanted = {"evaluation.max_tokens": (recipe.evaluation.max_tokens, length)}
    for name, benchmark in recipe.evaluation.benchmarks.items():
        context = benchmark.context if benchmark.context is not None else length
        wanted[f"evaluation.benchmarks.{name}.max_tokens"] = (benchmark.max_tokens, context)
    for key, (tokens, room) in wanted.items():
        if tokens is not None and room is not None and tokens > room:
            message = "longer than the context, which counts prompt and response"
            remedy = "raise evaluation.max_model_length (or context), or lower this"
            yield Problem(key, message, remedy, str(tokens), f"at most {room}")
