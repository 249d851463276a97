"""Generation with real vLLM, sharing among workers, scores and intervals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import binomtest

from reprokit.benchmarks.interface import Item
from reprokit.evaluation.engine import Request, claim_device
from reprokit.evaluation.scoring import score_samples, summarise
from reprokit.evaluation.statistics import average_at_k, wilson_interval
from reprokit.recipe.sampling import Sampling
from reprokit.records.result import Sample
from reprokit.records.run_directory import RunDirectory

SAMPLING = Sampling(items=3, samples=1, temperature=0.6, top_p=0.95, max_tokens=8, seed=1)

# One engine loads checkpoint A, then B in place; another starts afresh with B. Both answer the same seeded requests.
COMPARE = """
import json, sys
from pathlib import Path
from reprokit.evaluation import engine as module
module.claim_device(0, 2)
from reprokit.evaluation.engine import Engine, Request
from reprokit.recipe.sampling import Sampling
first, second, tokenizer = map(Path, sys.argv[1:4])
def request(i, temperature):
    sampling = Sampling(items=1, samples=1, temperature=temperature, top_p=0.95, max_tokens=24, seed=3)
    return Request("b", str(i), 0, [5 + i, 40 + i, 77], sampling)
requests = [request(i, temperature) for i in range(12) for temperature in (0.0, 1.0)]
def answers(engine): return [sample.text for sample in engine.generate(requests, "x", Path(sys.argv[4]))]
engine = Engine(tokenizer, "float32", None)
engine.load(first)
a = answers(engine)
llm = engine.llm
engine.load(second)
swapped = engine.llm is llm
b = answers(engine)
engine.load(first)
back = answers(engine)
fresh = Engine(tokenizer, "float32", None)
fresh.load(second)
print("RESULT", json.dumps({"a": a, "b": b, "back": back, "fresh": answers(fresh), "swapped": swapped}))
"""


def compare(first: Path, second: Path, tokenizer: Path, folder: Path) -> dict:
    command = [sys.executable, "-c", COMPARE, str(first), str(second), str(tokenizer), str(folder / "progress.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT")
    )


def test_weights_swapped_in_place_give_the_tokens_of_a_fresh_engine(local_run: RunDirectory, tmp_path: Path) -> None:
    found = compare(local_run.checkpoint(8), local_run.checkpoint(16), local_run.tokenizer, tmp_path)
    assert found["swapped"]
    assert found["b"] == found["fresh"]
    assert found["back"] == found["a"]
    assert found["a"] != found["b"]


def test_tied_embeddings_get_a_fresh_engine(local_run: RunDirectory, tmp_path: Path) -> None:
    """In-place loading is silently wrong for them, so the engine must not try."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(local_run.checkpoint(8), tie_word_embeddings=True)
        folders.append(tmp_path / str(seed))
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folders[-1])
    found = compare(folders[0], folders[1], local_run.tokenizer, tmp_path)
    assert not found["swapped"]
    assert found["b"] == found["fresh"]
    assert found["a"] != found["b"]


def test_seed_depends_on_benchmark_item_and_sample_alone() -> None:
    def seed(benchmark: str, item: str, sample: int) -> int:
        return Request(benchmark, item, sample, [1], SAMPLING).seed

    seeds = {seed(b, i, s) for b in ("x", "y") for i in ("1", "2") for s in (0, 1)}
    assert len(seeds) == 8 and all(0 <= value < 2**31 for value in seeds)
    assert seed("countdown", "1", 0) == 2035807054  # a changed rule would change every number ever measured


def test_two_workers_share_the_prompts_and_give_the_samples_of_one(local_run: RunDirectory, tmp_path: Path) -> None:
    """Two workers of one element, run as processes of their own, against the samples of the one-worker run."""
    shared = RunDirectory(tmp_path / "tiny")
    for name in ("recipe.yaml", "tokenizer", "checkpoints", "evaluation/items"):
        source, target = local_run.root / name, shared.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    script = (
        "import sys; from pathlib import Path\n"
        "from reprokit.evaluation import engine, worker\n"
        "from reprokit.recipe import load_resolved\n"
        "from reprokit.records.result import Cell\n"
        "from reprokit.records.run_directory import RunDirectory\n"
        "engine.claim_device(int(sys.argv[2]), 1)\n"
        "run = RunDirectory(Path(sys.argv[1]))\n"
        "share = worker.Share(int(sys.argv[2]), 2)\n"
        "worker.evaluate(run, load_resolved(run.recipe), [Cell(16, 'countdown')], share, run.progress('e'), 'job')\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, str(shared.root), str(rank)]) for rank in (0, 1)]
    assert [worker.wait(timeout=600) for worker in workers] == [0, 0]
    names = ("samples.jsonl", "scores.jsonl")
    alone, together = (run.cell(16, "countdown") for run in (local_run, shared))
    counted = [(alone / name).read_text().count("\n") for name in names]
    assert counted == [(together / name).read_text().count("\n") for name in names] == [12, 12]

    def identity(folder: Path) -> list[tuple[str, int, int]]:
        rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        return [(row["item"], row["sample"], row["seed"]) for row in rows]

    assert identity(alone) == identity(together)
    assert json.loads((together / "result.json").read_text())["provenance"]["engines"] == 2
    assert not list(together.glob("part_*"))


@pytest.mark.parametrize(("right", "items"), [(0, 20), (3, 20), (10, 20), (20, 20)])
def test_interval_of_one_sample_per_item_is_wilsons(right: int, items: int) -> None:
    interval = binomtest(right, items).proportion_ci(method="wilson")
    assert wilson_interval(right / items, items) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_interval_is_clustered_by_item() -> None:
    """Ten identical samples per item tell no more than one; ten that differ do."""
    once = average_at_k([[1.0]] * 10 + [[0.0]] * 10)
    same = average_at_k([[1.0] * 10] * 10 + [[0.0] * 10] * 10)
    mixed = average_at_k([[1.0, 0.0] * 5] * 20 + [[1.0] * 10, [0.0] * 10])
    assert (same.mean, same.low, same.high) == pytest.approx((once.mean, once.low, once.high))
    assert mixed.high - mixed.low < 0.5 * (once.high - once.low)


def sample(item: str, number: int = 0, text: str = "\\boxed{1}", reason: str = "stop") -> Sample:
    return Sample(item=item, sample=number, seed=0, text=text, prompt_tokens=3, response_tokens=8, finish_reason=reason)


def test_a_cell_with_missing_samples_is_no_result() -> None:
    items = [Item(id=name, messages=[], answer={"numbers": [1, 2, 3], "target": 6}) for name in "ab"]
    samples = [sample("a"), sample("b")]
    scores = score_samples("countdown", items, samples)
    two = Sampling(items=2, samples=2, temperature=1.0, top_p=1.0, max_tokens=8, seed=0)
    with pytest.raises(ValueError, match="incomplete"):
        summarise(10, "countdown", two, samples, scores, {})
    with pytest.raises(ValueError):
        summarise(10, "countdown", two, [], [], {})


def test_scores_lengths_and_truncation_are_summarised() -> None:
    items = [Item(id=name, messages=[], answer={"numbers": [1, 2, 3], "target": 6}) for name in "abc"]
    samples = [sample("a", text="</think>\\boxed{1 + 2 + 3}"), sample("b", reason="length"), sample("c", text="6")]
    result = summarise(5, "countdown", SAMPLING, samples, score_samples("countdown", items, samples), {})
    assert result.value == pytest.approx(100 / 3)
    assert result.truncated_fraction == pytest.approx(1 / 3)
    assert result.mean_response_tokens == 8
    assert result.metric == "avg@1"


@pytest.mark.parametrize(
    ("granted", "rank", "expected"),
    [("0,1", 1, "1"), ("5", 1, "5"), ("", 1, ""), (None, 1, "1"), ("GPU-a,GPU-b", 0, "GPU-a")],
)
def test_every_engine_takes_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, granted: str | None, rank: int, expected: str
) -> None:
    """Of those that the job was granted; a machine that grants none explicitly shows them all."""
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if granted is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", granted)
    claim_device(rank, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
