"""The benchmarks at toy size: every side of training runs on the same tokens, and so on. No test of speed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from reprokit.recipe.schema import Precision
from tests.performance import bench_evaluation, gpu_evaluation

ROOT = Path(__file__).parents[1]


def run(script: str, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.performance.{script}", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def check(compared: dict[str, Any], sides: int) -> None:
    """All sides finished, on the tokens of the workload, and say how fast."""
    assert not compared["failed"] and len(compared["sides"]) == sides
    rows = compared["workload"]
    assert rows["length_median"] == pytest.approx(rows["length_max"] / 5, rel=0.1)
    for name, side in compared["sides"].items():
        assert side["tokens"] == rows["tokens"], name
        # A cut leaves a first token without the one before it that would predict it.
        cut = side["settings"].get("packing_strategy") == "wrapped"
        assert side["target_tokens"] == rows["target_tokens"] or cut, name
        assert 1 <= side["steps"] <= rows["rows"] // rows["global_batch_size"], name
        assert 0 < side["spread"][0] <= side["tokens_per_second"] <= side["spread"][1], name
        assert side["peak_memory_gib"] > 0, name
    first = next(iter(compared["sides"].values()))
    assert first["ratio"] == 1 and first["steps"] == rows["rows"] // rows["global_batch_size"]


def test_training_against_trl_and_padded(tmp_path: Path) -> None:
    done = run("bench_training", "--toy", "--out", tmp_path / "figures.json")
    found = json.loads((tmp_path / "figures.json").read_text())
    check(found["standard"], sides=7)
    check(found["official"], sides=2)
    assert found["made_by"]["trl"] and "--toy" in found["command"]
    assert all(name in done.stdout for name in (*found["standard"]["sides"], *found["official"]["sides"]))


def test_gpu_script_at_toy_size(tmp_path: Path) -> None:
    run("gpu_training", "--toy", "--out", tmp_path / "figures.json")
    found = json.loads((tmp_path / "figures.json").read_text())
    check(found["gradient_checkpointing"], sides=3)
    same = found["official_arithmetic"]
    print(same)
    if same["precision"] == "fp32":
        assert same["parameters"] <= 1e-6
    chance = math.log(found["loss"]["vocabulary"])
    assert found["loss"]["mean_loss"] == pytest.approx(chance, rel=0.05)  # small random logits


@pytest.mark.parametrize("script", ["gpu_training", "gpu_evaluation"])
def test_gpu_script_needs_a_gpu(script: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "no GPU" in run(script, code=2).stderr


def test_evaluation_at_toy_size(tmp_path: Path) -> None:
    """Both sides draw the same tokens, and engines start as often as they are said to."""
    run("bench_evaluation", "--toy", "--rounds", 1, "--out", tmp_path / "figures.json")
    found = json.loads((tmp_path / "figures.json").read_text())
    bare = found["generation"]
    assert bare["requests"] == 16 and 100 <= bare["tokens"]["ours"] == bare["tokens"]["bare"] <= 12 * 4 + 4 * 16
    assert bare["ratio"]["median"] == pytest.approx(bare["ours"]["median"] / bare["bare"]["median"], rel=0.01)
    assert found["swapped"]["swaps_exactly"] and found["swapped"]["engine_starts"] == 2  # the second tests the swap
    assert found["fresh"]["engine_starts"] == found["fresh"]["checkpoints"] == 3
    for one in (found["swapped"], found["fresh"]):
        assert 0 < one["share"] < 1 and one["tokens"] <= 3 * 4 * 4
    assert [row["workers"] for row in found["replay"]] == [8] * 5 + [32] * 5 + [128] * 10


def test_gpu_evaluation_measures_what_the_other_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At toy size the same jobs, which need not run twice; their figures are printed and written."""
    asked: list[Any] = []
    spread = {"median": 2.0, "lowest": 1.0, "highest": 3.0}
    sides = {"requests": 16, "rounds": 1, "tokens": {"ours": 112}, "ours": spread, "bare": spread, "ratio": spread}
    seconds = {"starting_seconds": 1.0, "drawing_seconds": 1.0, "share": 0.5}
    starts = {"checkpoints": 3, "engine_starts": 2, **seconds}

    def measure(job: Any) -> dict[str, Any]:
        asked.append(job)
        return sides if job.measure == "against_bare" else starts

    monkeypatch.setattr(bench_evaluation, "measure", measure)
    assert bench_evaluation.main(["--toy", "--rounds", "1"]) == 0
    assert gpu_evaluation.main(["--toy", "--rounds", "1", "--out", str(tmp_path / "figures.json")]) == 0
    assert len(asked) == 6 and asked[:3] == [structs.replace(job, precision=Precision.fp32) for job in asked[3:]]
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["generation"] == sides and found["swapped"] == found["fresh"] == starts
    assert found["device"] and found["made_by"]["packages"]


def test_scoring_at_toy_size(tmp_path: Path) -> None:
    problems = ROOT / "recipes" / "stand_ins" / "math500.jsonl"
    rows = [json.loads(line) for line in problems.read_text().splitlines()]
    more = [{**row, "unique_id": f"{row['unique_id']}/{number}"} for number in range(3) for row in rows]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    run("bench_scoring", "--toy", "--data", tmp_path / "problems.jsonl", "--out", tmp_path / "out.json")
    assert (tmp_path / "out.json").stat().st_size > 100
