"""Measures of generation, for random weights: against bare vLLM, and the seconds of starts. One process per measure:

python -m tests.performance.generation '<Job as JSON>' RESULT
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Literal

import msgspec

from reprokit.recipe.schema import BenchmarkSection, EvaluationSection, ModelSection, Precision, Recipe, TrainingSection
from reprokit.records.files import read_json, write_json
from reprokit.records.manifest import Manifest
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
PROMPT_WORDS = 60


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure with which model.

    model: fields of a transformers config. requests: (number, most tokens) of each benchmark; random weights seldom
    end by themselves, so that these are the lengths. rounds: of `against_bare`; checkpoints: of `starts`.
    """

    measure: Literal["against_bare", "starts"]
    model: dict[str, Any]
    precision: Precision
    requests: list[tuple[int, int]]
    cores: int
    rounds: int = 1
    checkpoints: int = 1
    reuse: bool = True


def measure(job: Job) -> dict[str, Any]:
    """What `job` found in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed; it has said why on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        words = [sys.executable, "-m", "tests.performance.generation", msgspec.json.encode(job).decode(), str(result)]
        subprocess.run(words, cwd=ROOT, check=True)
        return read_json(result, dict[str, Any])


def recipe_of(job: Job) -> Recipe:
    return Recipe(
        training=TrainingSection(precision=job.precision),
        evaluation=EvaluationSection(
            max_model_length=job.model["max_position_embeddings"],
            benchmarks={
                name: BenchmarkSection(items=count, samples=1, max_tokens=tokens)
                for name, (count, tokens) in named(job.requests).items()
            },
        ),
    )


def named(requests: Sequence[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Names of benchmarks for requests of each length."""
    return {f"up_to_{tokens}": (count, tokens) for count, tokens in requests}


def prepare(job: Job, folder: Path) -> Path:
    """A run folder with problems and tokenizer, and the weights of two models in turn for its checkpoints."""
    import numpy as np

    from reprokit.preparation.base_model import complete_tokenizer, random_model
    from tests.generating import set_items
    from tests.performance.workload import word_tokenizer

    run = RunDirectory(folder / "run")
    tokenizer = word_tokenizer(job.model["vocab_size"])
    tokenizer.backend_tokenizer.model.unk_token = tokenizer.eos_token  # vLLM warms up with words of its own
    tokenizer.save_pretrained(run.tokenizer)
    for seed in range(min(2, job.checkpoints)):
        model = random_model(ModelSection(config=job.model, seed=seed), job.precision, tokenizer)
        model.save_pretrained(folder / f"model_{seed}")
    for step in range(job.checkpoints):
        weights = folder / f"model_{step % 2}"
        write_json(run.checkpoint(step) / "manifest.json", Manifest(step=step, weights=str(weights)))
    complete_tokenizer(run)
    draw = np.random.default_rng(0)
    for name, (count, _) in named(job.requests).items():
        words = draw.integers(job.model["vocab_size"] - 2, size=(count, PROMPT_WORDS))
        set_items(run, name, [" ".join(map(str, row)) for row in words])
    return run.root


@contextmanager
def fresh_run(prepared: Path) -> Iterator[RunDirectory]:
    """A run in which nothing is generated yet."""
    with tempfile.TemporaryDirectory(dir=prepared.parent) as folder:
        root = Path(folder) / "run"
        (root / "evaluation").mkdir(parents=True)
        for part in ("tokenizer", "checkpoints", "evaluation/items"):
            (root / part).symlink_to(prepared / part)
        yield RunDirectory(root)


def against_bare(job: Job, prepared: Path) -> dict[str, Any]:
    """Tokens/s of our generation and of `LLM.generate` with the same engine and requests, in turn.

    The time of ours is that of the whole stage, from prompts to gathered samples, but for the start of the engine;
    `LLM.generate` has its prompts as token ids, the longest responses first, and writes nothing.
    """
    engine = _timed_engine(prepared, job)
    engine.load(RunDirectory(prepared).weights(0))
    requests = _requests(prepared, job, engine.context(engine.weights))
    _bare(engine.llm, requests[-8:])  # nothing is timed that happens once
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    tokens: dict[str, int] = {}
    for number in range(job.rounds):
        for side in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
            engine.llm.reset_prefix_cache()
            if side == "ours":
                with fresh_run(prepared) as run:
                    seconds, made = _ours(run, job, engine)
            else:
                seconds, made = _bare(engine.llm, requests)
            rates[side].append(made / seconds)
            tokens[side] = made
            print(f"round {number + 1}: {side}: {made / seconds:,.0f} tokens/s", file=sys.stderr, flush=True)
    ratios = [ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True)]
    return {
        "requests": sum(count for count, _ in job.requests),
        "tokens": tokens,
        "rounds": job.rounds,
        "ours": _spread(rates["ours"], 1),
        "bare": _spread(rates["bare"], 1),
        "ratio": _spread(ratios, 4),
    }


def _spread(values: Sequence[float], digits: int) -> dict[str, float]:
    return {
        "median": round(median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }


def _timed_engine(prepared: Path, job: Job) -> Any:
    """Our engine, that counts the seconds of its starts and swaps in `starting`."""
    from reprokit.evaluation.engine import Engine

    class Timed(Engine):
        starting = 0.0
        starts = 0

        def context(self, weights: Path) -> int:
            with self._counted():
                return super().context(weights)

        def load(self, weights: Path) -> None:
            with self._counted():
                super().load(weights)

        def _start(self, weights: Path) -> None:
            self.starts += 1
            super()._start(weights)

        @contextmanager
        def _counted(self) -> Iterator[None]:
            started = time.monotonic()
            yield
            self.starting += time.monotonic() - started

    return Timed(prepared / "tokenizer", job.precision.dtype, job.model["max_position_embeddings"])


def _requests(prepared: Path, job: Job, context: int) -> list[Any]:
    """The requests of our stage to checkpoint 0, those that may take longest first."""
    from reprokit.benchmarks.interface import Item
    from reprokit.evaluation.requests import Prompts, Requests, Task
    from reprokit.recipe.sampling import sampling
    from reprokit.records.files import read_json_lines

    run, evaluation = RunDirectory(prepared), recipe_of(job).evaluation
    tasks = [
        Task(name, list(read_json_lines(run.items(name), Item)), sampling(evaluation, name))
        for name in evaluation.benchmarks
    ]
    requests = Requests(tasks, Prompts(run.tokenizer), context)
    return sorted((requests.of(key) for task in tasks for key in task.keys()), key=lambda request: -request.room)


def _bare(llm: Any, requests: Sequence[Any]) -> tuple[float, int]:
    """Seconds and tokens of `LLM.generate`."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": request.prompt} for request in requests]
    parameters = [
        SamplingParams(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_tokens=request.room,
            seed=request.seed,
        )
        for request in requests
    ]
    started = time.monotonic()
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    return time.monotonic() - started, sum(len(output.outputs[0].token_ids) for output in outputs)


def _ours(run: RunDirectory, job: Job, engine: Any) -> tuple[float, int]:
    """Seconds without starts and swaps, and tokens, of the stage that draws the samples."""
    from reprokit.evaluation import worker
    from reprokit.records.files import read_json_lines
    from reprokit.records.result import Sample

    recipe = recipe_of(job)
    cells = [Cell(step, name) for step in range(job.checkpoints) for name in recipe.evaluation.benchmarks]
    vars(worker)["Engine"] = lambda *_: engine
    started, before = time.monotonic(), engine.starting
    worker.generate(run, recipe, cells, worker.Share(0, 1), run.progress("generate"), "1")
    seconds = time.monotonic() - started - (engine.starting - before)
    samples = (row for cell in cells for row in read_json_lines(run.samples(cell.step, cell.benchmark), Sample))
    return seconds, sum(sample.response_tokens for sample in samples)


def starts(job: Job, prepared: Path) -> dict[str, Any]:
    """Seconds of starting, swapping and testing engines, imports included, and of drawing, for all checkpoints."""
    started = time.monotonic()
    import vllm

    imported = time.monotonic() - started
    engine = _timed_engine(prepared, job)
    if not job.reuse:
        engine.swaps_exactly = False  # what a failed self-test leads to: a fresh engine for every checkpoint
    with fresh_run(prepared) as run:
        drawing, tokens = _ours(run, job, engine)
    starting = imported + engine.starting
    return {
        "checkpoints": job.checkpoints,
        "tokens": tokens,
        "engine_starts": engine.starts,
        "swaps_exactly": engine.swaps_exactly,
        "starting_seconds": round(starting, 1),
        "drawing_seconds": round(drawing, 1),
        "share": round(starting / (starting + drawing), 3),
        "vllm": vllm.__version__,
    }


def main(words: Sequence[str]) -> int:
    from reprokit.evaluation.engine import claim_device

    job, result = msgspec.json.decode(words[0], type=Job), Path(words[1])
    claim_device(0, job.cores)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(job, Path(folder))
        found = against_bare(job, prepared) if job.measure == "against_bare" else starts(job, prepared)
    write_json(result, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
