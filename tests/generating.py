"""Runs that are ready to be evaluated, without a training: a tiny tokenizer, random checkpoints, our own problems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reprokit.benchmarks.interface import Item
from reprokit.data.rows import from_generator
from reprokit.evaluation.requests import Prompts
from reprokit.preparation.base_model import complete_tokenizer, prepare_tokenizer, random_model
from reprokit.recipe import load_resolved
from reprokit.recipe.sampling import sampling
from reprokit.records.files import read_json_lines, sha256_of_file, write_json, write_json_lines
from reprokit.records.result import Cell, Sample
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import is_generated
from reprokit.training import checkpoints

RECIPE = """\
name: tiny
model:
  name: Qwen3-tiny
  config: {{model_type: qwen3, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
    head_dim: 32, intermediate_size: 96, tie_word_embeddings: {tied}, max_position_embeddings: 512}}
  tokenizer_vocab_size: 400
data: {{name: Countdown-CoT, generator: countdown, rows: 64, max_length: 512}}
training: {{learning_rate: 3.0e-3, epochs: 1, global_batch_size: 16, precision: fp32, checkpoint_steps: [2, 4]}}
evaluation:
  benchmarks:
{benchmarks}
"""
STEPS = (0, 2, 4)
Settings = Mapping[str, Mapping[str, Any]]


def make_run(root: Path, settings: Settings, tied: bool = False, steps: Sequence[int] = STEPS) -> RunDirectory:
    """A run whose checkpoints of `steps` have random weights; `settings` are the benchmark sections of its recipe."""
    run = RunDirectory(root)
    run.root.mkdir(parents=True)
    set_recipe(run, settings, tied)
    recipe = load_resolved(run.recipe)
    assert recipe.data.rows is not None
    tokenizer = prepare_tokenizer(run, recipe.model, None, from_generator("countdown", recipe.data.rows, 0))
    for step in steps:
        recipe.model.seed = step
        model = random_model(recipe.model, recipe.training.precision, tokenizer)
        checkpoints.write(run, model, model.state_dict(), tokenizer, step=step)
    complete_tokenizer(run)
    return run


def set_recipe(run: RunDirectory, settings: Settings, tied: bool = False) -> None:
    """Give the run a recipe with these benchmark sections, and as many problems as they say."""
    lines = [f"    {name}: {{{', '.join(f'{k}: {v}' for k, v in own.items())}}}" for name, own in settings.items()]
    run.recipe.write_text(RECIPE.format(tied=str(tied).lower(), benchmarks="\n".join(lines)))
    for name, own in settings.items():
        set_items(run, name, [f"{name}: add {n} and {n * n}." for n in range(own["items"])])


def set_items(run: RunDirectory, benchmark: str, contents: Sequence[str]) -> None:
    """Put these user turns to every checkpoint."""
    items = [Item(str(n), [{"role": "user", "content": content}], {}) for n, content in enumerate(contents)]
    write_json_lines(run.items(benchmark), items)
    write_json(run.items_source(benchmark), {"items": sha256_of_file(run.items(benchmark))})


# One worker as a job calls it; with TRACE it writes (requests in flight, whether all chunks are claimed) of every step,
# and takes no step before all workers are up: so little work would be done by whichever is first.
WORKER = """
import json, os, sys, time
from pathlib import Path
from reprokit.evaluation import engine, worker
from reprokit.evaluation.share import Share
from reprokit.recipe import load_resolved
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory
root, job, rank, world_size, cells = sys.argv[1:]
engine.claim_device(int(rank), 1)
run = RunDirectory(Path(root))
cells = [Cell(int(step), name) for step, _, name in (cell.partition(":") for cell in cells.split(","))]
share = Share(int(rank), int(world_size))
trace, exhausted = [], [False]
def traced_step(self, original=engine.Engine.step):
    if not trace:
        Path(os.environ["TRACE"] + ".up." + rank).touch()
        while not all(Path(f"{os.environ['TRACE']}.up.{each}").exists() for each in range(share.world_size)):
            time.sleep(0.01)
    trace.append((self.in_flight, exhausted[0]))
    return original(self)
def traced_next(self, original=worker.Claims.next):
    chunk = original(self)
    exhausted[0] = chunk is None
    return chunk
if "TRACE" in os.environ:
    engine.Engine.step, worker.Claims.next = traced_step, traced_next
worker.generate(run, load_resolved(run.recipe), cells, share, run.progress("generate"), job)
if "TRACE" in os.environ:
    Path(os.environ["TRACE"] + "." + rank).write_text(json.dumps(trace))
"""

# Draws greedy requests one at a time. Where a given text leaves the one drawn alone, it tells by how much the token
# that was taken there was more likely than the next best one, in nats; None where the text is the same.
ALONE = """
import json, sys
from pathlib import Path
from reprokit.evaluation import engine as module
module.claim_device(0, 2)
weights, tokenizer, dtype = sys.argv[1:]
engine = module.Engine(Path(tokenizer), dtype, None)
engine.load(Path(weights))
from transformers import AutoTokenizer
from vllm import SamplingParams
decode = AutoTokenizer.from_pretrained(tokenizer).decode
gaps = []
for prompt, limit, text in json.load(sys.stdin):
    asked = SamplingParams(temperature=0.0, max_tokens=limit, logprobs=2, skip_special_tokens=False)
    drawn = engine.llm.generate([{"prompt_token_ids": prompt}], asked, use_tqdm=False)[0].outputs[0]
    def follows(count):
        return text.startswith(decode(drawn.token_ids[:count]).rstrip("\\N{REPLACEMENT CHARACTER}"))
    left = next((place for place in range(len(drawn.token_ids)) if not follows(place + 1)), None)
    if drawn.text == text:
        gaps.append(None)
        continue
    place = len(drawn.token_ids) - 1 if left is None else left
    best = sorted((entry.logprob for entry in drawn.logprobs[place].values()), reverse=True)
    gaps.append(best[0] - best[1])
print("RESULT" + json.dumps(gaps))
"""


def start(
    run: RunDirectory, job: str, workers: int, cells: Sequence[Cell], **environment: str
) -> list[subprocess.Popen[str]]:
    """Start the workers of one element as processes of their own."""
    named = ",".join(f"{cell.step}:{cell.benchmark}" for cell in cells)
    return [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(run.root), job, str(rank), str(workers), named],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(workers)
    ]


def generate(run: RunDirectory, job: str, workers: int, cells: Sequence[Cell], **environment: str) -> str:
    """Run the workers of one element to their end; returns what they wrote on stderr."""
    started = start(run, job, workers, cells, **environment)
    said = [worker.communicate(timeout=600)[1] for worker in started]
    assert [worker.returncode for worker in started] == [0] * workers, "\n".join(said)
    return "\n".join(said)


def wait_for(condition: Callable[[], bool], patience: float = 300) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def samples(run: RunDirectory, cell: Cell) -> list[Sample]:
    return list(read_json_lines(run.samples(cell.step, cell.benchmark), Sample))


def keys(run: RunDirectory, cell: Cell) -> list[tuple[str, int]]:
    """(item, sample) of the samples of a cell, in their order."""
    return [(sample.item, sample.sample) for sample in samples(run, cell)]


def all_keys(own: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(item, sample) that a benchmark section asks for."""
    return [(str(item), sample) for item in range(own["items"]) for sample in range(own.get("samples", 1))]


def generated(run: RunDirectory, cell: Cell) -> bool:
    asked = sampling(load_resolved(run.recipe).evaluation, cell.benchmark)
    return is_generated(run, cell, msgspec.to_builtins(asked))


def run_script(script: str, *arguments: str | Path, stdin: str = "") -> Any:
    """What a script printed as JSON after the word RESULT."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT") :])


def gaps_of(
    weights: Path, tokenizer: Path, dtype: str, drawn: Sequence[tuple[list[int], int, str]]
) -> list[float | None]:
    """For (prompt, most tokens, text) of greedy responses: how near a tie stood where it leaves the one drawn alone."""
    return run_script(ALONE, weights, tokenizer, dtype, stdin=json.dumps(drawn)) if drawn else []


def assert_same_greedy(run: RunDirectory, undisturbed: RunDirectory, cell: Cell) -> None:
    """Greedy responses are the same, but for ties, which the engine breaks by what else is in the batch."""
    asked = sampling(load_resolved(run.recipe).evaluation, cell.benchmark)
    assert asked.temperature == 0.0 and keys(run, cell) == keys(undisturbed, cell)
    items = {item.id: item for item in read_json_lines(run.items(cell.benchmark), Item)}
    prompts = Prompts(run.tokenizer)
    differing = [
        (prompts.of(cell.benchmark, items[one.item]), one.response_tokens, text)
        for one, other in zip(samples(run, cell), samples(undisturbed, cell), strict=True)
        for text in (one.text, other.text)
        if one.text != other.text
    ]
    gaps = gaps_of(run.checkpoint(cell.step), run.tokenizer, "float32", differing)
    assert len(gaps) <= 4 and all(gap is None or gap < 1e-4 for gap in gaps), gaps
