"""The paper's ten benchmarks on a real Slurm: generation by two engines, judges, scores, a result for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reprokit.recipe import load_resolved
from reprokit.recipe.sampling import OFFICIAL
from reprokit.records.files import read_json, read_json_lines
from reprokit.records.record import read_results
from reprokit.records.result import CellResult, Sample
from reprokit.records.run_directory import RunDirectory
from tests.conftest import launch
from tests.test_pipeline_slurm import wait_until_gone

PROFILE = """\
environment: {{SLURM_CONF: {conf}}}
partition: main
evaluate: {{tasks_per_node: 2, gpus_per_node: 2, hours: 0.5}}
score: {{cpus_per_task: 2, hours: 0.2}}
collect: {{hours: 0.1}}
"""
# Absent where there is nothing to say: no group, no judge, no verdict of a judge with random weights.
MAY_BE_EMPTY = {
    "groups",
    "judge",
    "value",
    "interval_low",
    "interval_high",
    "judges",
    "scored_with",
    "data",
    "settings",
}


@pytest.fixture(scope="module")
def evaluated(trained_run: RunDirectory, slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which random weights were evaluated as `recipe=mini_ten` does it, without its training."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "cluster.yaml").write_text(PROFILE.format(conf=slurm["SLURM_CONF"]))
    model = ("source=model", "model.tokenizer_vocab_size=null", f"model.tokenizer={trained_run.tokenizer}")
    none = [f"evaluation.benchmarks.{name}=false" for name in ("countdown_repeats", "chain_sum", "syllogism")]
    words = ("recipe=mini_ten", *model, *none, "evaluation.max_tokens=24", "evaluation.benchmarks.countdown.items=2")
    done = launch(folder, *words, f"cluster={folder}/cluster.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until_gone(slurm)
    return folder


@pytest.fixture(scope="module")
def run(evaluated: Path) -> RunDirectory:
    return RunDirectory(evaluated / "runs" / "mini_ten")


def test_every_benchmark_has_a_result_with_every_field(run: RunDirectory) -> None:
    for name in OFFICIAL:
        result = read_json(run.result(0, name), CellResult)
        assert {metric.protocol for metric in result.metrics} == {"official", "clean"}
        assert [metric.protocol for metric in result.metrics if metric.headline] == ["official"]
        assert all(metric.value is not None for metric in result.metrics if metric.protocol == "official"), name
        assert dict(empty(msgspec.to_builtins(result))) == {}, name
        assert result.provenance["engine"]["name"] == "vllm" and result.provenance["slurm"]["SLURM_JOB_ID"]
        assert result.provenance["tokens_per_second"] > 0 and result.provenance["engines"] == 2
        assert len(result.data["files"]) == (3 if name == "halueval" else 1)


def empty(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Fields without content, by their dotted names."""
    if isinstance(value, dict) and value:
        for name, below in value.items():
            if name not in MAY_BE_EMPTY:
                yield from empty(below, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value:
        for place, below in enumerate(value):
            yield from empty(below, f"{key}[{place}]")
    elif value is None or value == "" or value == {} or value == []:
        yield key, value


def test_judged_results_name_their_judges_and_count_what_could_not_be_read(run: RunDirectory) -> None:
    judges = {name: read_json(run.result(0, name), CellResult).judges for name in OFFICIAL}
    assert {name: set(keys) for name, keys in judges.items() if keys} == {
        "alpaca_eval": {"RB2"},
        "truthfulqa": {"truth", "info"},
        "hex_phi": {"harm"},
    }
    assert all("random qwen3" in judge for keys in judges.values() for judge in keys.values())
    clean = [m for m in read_json(run.result(0, "hex_phi"), CellResult).metrics if m.protocol == "clean"]
    assert all(metric.items + metric.missing == 3 for metric in clean)


def test_sampling_is_the_official_code_s_where_the_recipe_says_nothing(run: RunDirectory) -> None:
    assert load_resolved(run.recipe).evaluation.max_tokens == 24
    for name, samples in (("math500", 3), ("aime24", 10), ("livecodebench_v2", 3), ("alpaca_eval", 1)):
        rows = list(read_json_lines(run.samples(0, name), Sample))
        items = {row.item for row in rows}
        assert len(rows) == samples * len(items) and {row.sample for row in rows} == set(range(samples))
    settings = read_json(run.result(0, "alpaca_eval"), CellResult).settings
    assert (settings["top_k"], settings["presence_penalty"]) == (50, 0.1)


def test_records_have_both_protocols_and_one_headline_for_each_benchmark(evaluated: Path) -> None:
    results = read_results(evaluated / "results" / "mini_ten.json")
    assert results.missing == []
    assert sorted(record.benchmark for record in results.records if record.headline) == sorted({*OFFICIAL, "countdown"})
    assert (evaluated / "figures" / "mini_ten" / "score.png").exists()
    assert str(evaluated) not in (evaluated / "results" / "mini_ten.json").read_text()


def test_a_second_launch_finds_nothing_to_do(evaluated: Path, run: RunDirectory) -> None:
    recipe = run.root / "again.yaml"
    recipe.write_text(run.recipe.read_text())
    again = launch(evaluated, f"recipe={recipe}", f"cluster={evaluated}/cluster.yaml")
    assert again.returncode == 0 and "nothing was run again" in again.stdout, again.stdout + again.stderr
