"""Results files of other harnesses, in the forms that these write, and the runs that they become."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from analysis.columns import IFEVAL, NINE_COLUMNS, REASONING, Column, column_of
from analysis.completeness import matrix
from analysis.holdings import read_library
from reprokit.campaign.run_folder import write_recipe
from reprokit.collect import main
from reprokit.errors import UserError
from reprokit.evaluation.statistics import wilson_interval
from reprokit.readers.files import read_file
from reprokit.readers.interface import Evaluation, Number
from reprokit.recipe import load
from reprokit.records.record import MissingCell, Record, Results, read_results, write_results
from reprokit.records.run_directory import RunDirectory

# The form of a file that lm-evaluation-harness 0.4.9.1 has written, with other tasks.
LM_EVAL: dict[str, Any] = {
    "results": {
        "ifeval": {
            "alias": "ifeval",
            "prompt_level_strict_acc,none": 0.30,
            "prompt_level_strict_acc_stderr,none": 0.02,
            "inst_level_strict_acc,none": 0.42,
            "inst_level_strict_acc_stderr,none": "N/A",
        },
        "mmlu_pro": {
            "exact_match,custom-extract": 0.456,
            "exact_match_stderr,custom-extract": 0.0044,
            "alias": "mmlu_pro",
        },
        "mmlu_pro_law": {
            "alias": " - law",
            "exact_match,custom-extract": 0.3,
            "exact_match_stderr,custom-extract": 0.01,
        },
        "mmlu_pro_math": {"alias": " - math", "exact_match,custom-extract": 0.6},
        "gpqa_diamond_cot_zeroshot": {
            "alias": "gpqa_diamond_cot_zeroshot",
            "exact_match,strict-match": 0.0,
            "exact_match_stderr,strict-match": 0.0,
            "exact_match,flexible-extract": 0.35,
            "exact_match_stderr,flexible-extract": 0.034,
        },
        "gpqa": {"alias": "gpqa"},
        "gpqa_main_zeroshot": {"acc,none": 0.25, "acc_stderr,none": 0.02, "acc_norm,none": float("nan")},
        "wikitext": {"alias": "wikitext", "word_perplexity,none": 14.5, "word_perplexity_stderr,none": "N/A"},
    },
    "group_subtasks": {"mmlu_pro": ["mmlu_pro_law", "mmlu_pro_math"], "gpqa": ["gpqa_main_zeroshot"], "ifeval": []},
    "configs": {name: {"repeats": 1} for name in ("ifeval", "mmlu_pro_law", "mmlu_pro_math")},
    "versions": {"ifeval": 4.0},
    "n-shot": {"ifeval": 0, "mmlu_pro_law": 5, "mmlu_pro_math": 5},
    "n-samples": {
        "ifeval": {"original": 541, "effective": 541},
        "mmlu_pro_law": {"original": 1101, "effective": 1000},
        "mmlu_pro_math": {"original": 1351, "effective": 1000},
        "gpqa_diamond_cot_zeroshot": {"original": 198, "effective": 198},
    },
    "config": {"model": "hf", "model_args": "pretrained=org/model"},
    "lm_eval_version": "0.4.9.1",
    "model_name": "org/model",
}
EVALCHEMY: dict[str, Any] = {
    "results": {
        "AIME24": {
            "num_total": 30,
            "solved_avg": 15.0,
            "run_stats": [
                {"repetition": 1, "num_total": 30, "num_solved": 12, "accuracy": 0.4},
                {"repetition": 2, "num_total": 30, "num_solved": 18, "accuracy": 0.6},
            ],
            "accuracy_avg": 0.5,
            "accuracy_std_err": 0.07,
            "num_repeat": 2,
        },
        "MATH500": {"num_total": 500, "num_solved": 450, "accuracy": 0.9, "examples": []},
        "MMLUPro": {"accuracy_avg": 0.6, "accuracy_std_err": 0.0045, "total_examples": 12032, "accuracy_law": 0.5},
        "LiveCodeBench": {"accuracy_avg": 0.9, "run_stats": [{"accuracy": 0.1}, {"accuracy": 0.2}], "num_repeat": 2},
        "IFEval": {"prompt-level": 0.5, "instruction-level": 0.6, "num_examples": 541},
        "JEEBench": {"accuracy_avg": 0.3, "accuracy_std_err": 0.01, "total_examples": 515},
        "alpaca_eval": {"win_rate": 12.0, "num_examples": 805},
        "MTBench": None,
        "hellaswag": {"acc,none": 0.7, "acc_stderr,none": 0.005},
    },
    "config": {"model_args": "pretrained=org/model", "annotator_model": "auto", "max_tokens": "default"},
    "git_hash": "1a2b3c4",
}
LIGHTEVAL: dict[str, Any] = {
    "config_general": {"lighteval_sha": "?", "model_name": "org/model", "max_samples": None},
    "results": {
        "custom|math_500|0": {"extractive_match": 0.748, "extractive_match_stderr": 0.0194},
        "lighteval|aime24|0": {
            "math_pass@1:1_samples": 0.5,
            "math_pass@1:1_samples_stderr": 0.09,
            "math_pass@1:64_samples": 0.55,
            "math_pass@1:64_samples_stderr": 0.08,
        },
        "gpqa:diamond|0": {"gpqa_pass@k:k=1&n=8": 0.4, "gpqa_pass@k:k=1&n=8_stderr": 0.03},
        "extended|lcb:codegeneration_release_v2|0": {"codegen_pass@1:16": 0.2, "codegen_pass@1:16_stderr": 0.015},
        "extended|lcb:codegeneration|0": {"codegen_pass@1:16": 0.1},
        "extended|ifeval|0": {"prompt_level_strict_acc": 0.3, "inst_level_strict_acc": 0.4},
        "leaderboard|mmlu:anatomy|5": {"acc": 0.3, "acc_stderr": 0.04},
        "leaderboard|mmlu:_average|5": {"acc": 0.3, "acc_stderr": 0.04},
        "all": {"acc": 0.3, "acc_stderr": 0.04},
    },
    "versions": {"custom|math_500|0": 1},
    "config_tasks": {
        "custom|math_500": {"name": "math_500", "effective_num_docs": 500},
        "gpqa:diamond|0": {"effective_num_docs": 198},
        "extended|ifeval": {"effective_num_docs": -1},
    },
}
WORDS = ("run=theirs", "model=Qwen3-14B-Base", "step=640")


def written(folder: Path, content: Any, name: str = "results_2026.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def read(folder: Path, content: Any) -> Evaluation:
    return read_file(written(folder, content))


def by_metric(evaluation: Evaluation, benchmark: str) -> dict[str, Number]:
    return {one.metric: one for one in evaluation.numbers if one.benchmark == benchmark}


def headline(evaluation: Evaluation, benchmark: str) -> Number:
    (found,) = [one for one in evaluation.numbers if one.benchmark == benchmark and one.headline]
    return found


def test_lm_eval_tasks_have_our_names_and_sizes(tmp_path: Path) -> None:
    found = read(tmp_path, LM_EVAL)
    assert (found.harness, found.version, found.model) == ("lm-evaluation-harness", "0.4.9.1", "org/model")
    ifeval = headline(found, "ifeval")
    assert (ifeval.metric, ifeval.value, ifeval.items, ifeval.samples) == ("instruction-level strict", 0.42, 541, 1)
    assert ifeval.standard_error is None and ifeval.remark == "0-shot"
    assert by_metric(found, "ifeval")["prompt-level strict"].standard_error == 0.02
    pro = headline(found, "mmlu_pro")
    assert (pro.metric, pro.value, pro.standard_error, pro.items, pro.remark) == (
        "pass@1",
        0.456,
        0.0044,
        2000,
        "5-shot",
    )
    assert "mmlu_pro_law: a part of mmlu_pro" in found.left_out
    assert {one.benchmark for one in found.numbers}.isdisjoint({"mmlu_pro_law", "mmlu_pro_math", "gpqa"})


def test_of_several_filters_one_is_the_accuracy(tmp_path: Path) -> None:
    found = by_metric(read(tmp_path, LM_EVAL), "gpqa_diamond")
    assert found["pass@1"].value == 0.35 and found["pass@1"].headline
    assert found["exact_match, strict-match"].value == 0.0 and not found["exact_match, strict-match"].headline


def test_the_better_check_of_an_answer_is_the_accuracy(tmp_path: Path) -> None:
    """Both are written for the same answers, the plain comparison of texts first."""
    values = {"exact_match,none": 0.4, "exact_match_stderr,none": 0.02, "math_verify,none": 0.5}
    found = by_metric(read(tmp_path, {"results": {"minerva_math500": values}, "versions": {"a": 1}}), "math500")
    assert {name: (one.value, one.headline) for name, one in found.items()} == {
        "pass@1": (0.5, True),
        "exact_match": (0.4, False),
    }


def test_unknown_tasks_keep_their_names_and_what_is_no_share_its_unit(tmp_path: Path) -> None:
    found = read(tmp_path, LM_EVAL)
    assert by_metric(found, "gpqa_main_zeroshot").keys() == {"acc"}  # its group has no numbers of its own
    assert "gpqa_main_zeroshot: acc_norm is nan" in found.left_out
    perplexity = headline(found, "wikitext")
    assert (perplexity.metric, perplexity.value, perplexity.unit) == ("word_perplexity", 14.5, "score")


def test_flat_files_of_lm_eval(tmp_path: Path) -> None:
    values = {"acc": 0.7, "acc_stderr": 0.005, "acc_norm": 0.8, "acc_norm_stderr": 0.004}
    found = read(tmp_path, {"results": {"hellaswag": values}, "versions": {"hellaswag": 0}, "config": {"model": "hf"}})
    assert by_metric(found, "hellaswag")["acc_norm"].standard_error == 0.004
    assert headline(found, "hellaswag").metric == "acc" and headline(found, "hellaswag").items is None


def test_groups_that_hold_each_other_end(tmp_path: Path) -> None:
    parts = {"a": ["b"], "b": ["a"]}
    content = {"results": {"a": {"acc,none": 0.5}}, "versions": {"a": 1}, "group_subtasks": parts}
    assert headline(read(tmp_path, content), "a").items is None


def test_two_tasks_of_one_benchmark_stay_apart(tmp_path: Path) -> None:
    content = copy.deepcopy(LM_EVAL)
    content["results"]["leaderboard_ifeval"] = {"inst_level_strict_acc,none": 0.9}
    found = read(tmp_path, content)
    assert headline(found, "ifeval").value == 0.42 and headline(found, "leaderboard_ifeval").value == 0.9


def test_evalchemy_means_over_its_runs(tmp_path: Path) -> None:
    found = read(tmp_path, EVALCHEMY)
    assert (found.harness, found.version) == ("evalchemy", "1a2b3c4")
    aime = headline(found, "aime24")
    assert (aime.metric, aime.value, aime.items, aime.samples) == ("avg@2", 0.5, 30, 2)
    assert aime.standard_error is None and aime.remark == "2 runs from 40.0 to 60.0 %"  # theirs is over runs only
    assert (headline(found, "math500").metric, headline(found, "math500").items) == ("pass@1", 500)
    assert headline(found, "mmlu_pro").standard_error == 0.0045 and headline(found, "mmlu_pro").items == 12032
    assert headline(found, "JEEBench").value == 0.3 and headline(found, "hellaswag").metric == "acc"


def test_evalchemy_reports_ifeval_in_the_loose_form(tmp_path: Path) -> None:
    found = by_metric(read(tmp_path, EVALCHEMY), "ifeval")
    assert {name: one.value for name, one in found.items()} == {
        "instruction-level loose": 0.6,
        "prompt-level loose": 0.5,
    }


def test_evalchemy_says_what_it_does_not_take(tmp_path: Path) -> None:
    said = {line.partition(":")[0]: line for line in read(tmp_path, EVALCHEMY).left_out}
    assert said.keys() == {"LiveCodeBench", "alpaca_eval", "MTBench"}  # the first is not the mean of its runs
    assert "num_examples, win_rate" in said["alpaca_eval"]


def test_lighteval_tasks_and_samples(tmp_path: Path) -> None:
    found = read(tmp_path, LIGHTEVAL)
    assert (found.harness, found.version, found.model) == ("lighteval", None, "org/model")
    math500 = headline(found, "math500")
    assert (math500.metric, math500.value, math500.standard_error, math500.items) == ("pass@1", 0.748, 0.0194, 500)
    assert math500.remark == "0-shot" and math500.samples is None
    aime = by_metric(found, "aime24")  # one accuracy: that of the most samples
    assert {name: one.samples for name, one in aime.items()} == {"avg@64": 64, "math_pass@1:1_samples": None}
    assert aime["avg@64"].headline and aime["math_pass@1:1_samples"].unit == "percent"
    gpqa = headline(found, "gpqa_diamond")
    assert (gpqa.metric, gpqa.samples, gpqa.items, gpqa.standard_error) == ("avg@8", 8, 198, 0.03)
    assert headline(found, "livecodebench_v2").metric == "avg@16" and headline(found, "lcb:codegeneration").value == 0.1
    assert headline(found, "ifeval").metric == "instruction-level strict" and headline(found, "ifeval").items is None
    assert found.left_out == ["leaderboard|mmlu:_average|5: a mean over tasks", "all: a mean over tasks"]
    assert headline(found, "mmlu:anatomy").remark == "5-shot"


@pytest.mark.parametrize(
    ("metric", "ours", "samples"),
    [
        ("pass@k:k=1", "pass@1", None),
        ("pass@k:k=1&n=1", "pass@1", 1),
        ("pass@k:k=1&n=4", "avg@4", 4),
        ("pass@k:k=4&n=8", "pass@k:k=4&n=8", None),
        ("avg@n:n=64", "avg@64", 64),
        ("math_pass@1:4_samples", "avg@4", 4),
        ("maj@n:n=8", "maj@n:n=8", None),
    ],
)
def test_names_of_lighteval_metrics(tmp_path: Path, metric: str, ours: str, samples: int | None) -> None:
    found = read(tmp_path, {"config_general": {}, "results": {"aime24|0": {metric: 0.5}}})
    assert [(one.metric, one.samples, one.unit) for one in found.numbers] == [(ours, samples, "percent")]


@pytest.mark.parametrize("content", [LM_EVAL, EVALCHEMY, LIGHTEVAL])
def test_any_damage_to_a_file_is_a_clear_error_or_left_out(tmp_path: Path, content: dict[str, Any]) -> None:
    """Every value of the file in turn is something else than its harness writes there."""
    for path in places(content):
        for wrong in (None, "text", -1, [], {}, {"a": {}}, math.inf, 10**400):
            damaged = copy.deepcopy(content)
            parent = damaged
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = wrong
            try:
                found = read(tmp_path, damaged)
            except UserError as error:
                assert "results_2026.json" in str(error)
            else:
                assert all(math.isfinite(one.value) for one in found.numbers)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [place for key in keys for place in ((*path, key), *places(content[key], (*path, key)))]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", '{"results": {}}', '{"results": {"a": {}}, "versions": {"a": 1}}']
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UserError, match="other.json"):
        read_file(tmp_path / "other.json")


@pytest.mark.parametrize("name", ["", " ", "a\u001b[31m", "a\nb", "a\ud800"])
def test_names_that_cannot_be_printed_are_not_taken(tmp_path: Path, name: str) -> None:
    """They would steer the terminal, or could not be written at all."""
    values = {"acc,none": 0.5, f"{name or ' '},none": 0.5}
    content = {"results": {name: values, "fine": values}, "versions": {"fine": 1}, "lm_eval_version": name}
    found = read(tmp_path, content)
    assert [(one.task, one.metric) for one in found.numbers] == [("fine", "acc")] and not (found.version or "").strip()
    assert found.left_out == ["3 numbers of tasks or metrics without a name that can be printed"]
    read(tmp_path, {"results": {f"a|{name}": 1, "x|fine|0": {f"pass@1:{'9' * 5000}": 0.5}}, "config_general": {}})
    part = {"results": {"group": values, f"part {name}": values}, "group_subtasks": {"group": [f"part {name}"]}}
    assert all(line.isprintable() for line in read(tmp_path, {**part, "versions": {"group": 1}}).left_out)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(folder: Path, run: str = "theirs") -> list[Record]:
    return read_results(folder / f"results/{run}.json").records


def test_imported_numbers_stand_in_the_papers_columns(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(workspace, LM_EVAL)
    assert main([f"file={file}", *WORDS, "dataset=Math-CoT-20k", "learning_rate=5e-5", "batch_size=256"]) == 0
    said = capsys.readouterr().out
    assert "lm-evaluation-harness 0.4.9.1" in said and "not taken: mmlu_pro_law: a part of mmlu_pro" in said
    columns = [column_of(record) for record in records(workspace)]
    assert len(set(columns)) == len(columns)  # no two numbers of one file claim the same place
    found = dict(zip(columns, records(workspace), strict=True))
    assert {IFEVAL, REASONING[3], REASONING[4]} <= found.keys()
    pro = found[REASONING[4]]
    assert pro.value == pytest.approx(45.6) and (pro.origin, pro.unit, pro.items) == ("measured", "percent", 2000)
    assert (pro.dataset, pro.learning_rate, pro.epochs, pro.batch_size) == ("Math-CoT-20k", 5e-5, None, 256)
    assert pro.source == "lm-evaluation-harness 0.4.9.1, results_2026.json" and "5-shot" in (pro.note or "")
    assert "not by this kit" in (pro.note or "") and "standard error" in (pro.note or "")
    library = read_library(workspace / "results")
    assert library.best("theirs", 640, IFEVAL, "measured") is not None
    assert not matrix(library).runs[0].is_planned


def test_intervals_are_of_the_standard_error_or_of_the_number_of_problems(workspace: Path) -> None:
    assert main([f"file={written(workspace, LM_EVAL)}", *WORDS]) == 0
    found = {(record.benchmark, record.metric): record for record in records(workspace)}
    pro = found["mmlu_pro", "pass@1"]
    assert pro.interval_low == pytest.approx(45.6 - 1.96 * 0.44, abs=0.02)
    assert pro.interval_high == pytest.approx(45.6 + 1.96 * 0.44, abs=0.02)
    ifeval = found["ifeval", "instruction-level strict"]  # no standard error: as if every problem were one trial
    low, high = wilson_interval(0.42, 541)
    assert (ifeval.interval_low, ifeval.interval_high) == pytest.approx((100 * low, 100 * high))
    strict = found["gpqa_diamond", "exact_match, strict-match"]  # a standard error of 0 says nothing
    assert strict.interval_low == 0 and strict.interval_high is not None and strict.interval_high > 1
    assert found["wikitext", "word_perplexity"].interval_low is None
    assert "no interval" in (found["wikitext", "word_perplexity"].note or "")


@pytest.mark.parametrize("error", [-0.1, 0.0, 1e-320, 1e-9, 1e14])
def test_a_standard_error_that_cannot_be_is_not_used(workspace: Path, error: float) -> None:
    values = {"exact_match,none": 0.5, "exact_match_stderr,none": error, "ppl,none": 3.0, "ppl_stderr,none": -error}
    content = {"results": {"aime24": values}, "versions": {"aime24": 1}, "n-samples": {"aime24": {"effective": 30}}}
    assert main([f"file={written(workspace, content)}", *WORDS]) == 0
    share, score = records(workspace)
    assert (share.interval_low, share.interval_high) == pytest.approx([100 * end for end in wilson_interval(0.5, 30)])
    assert error < 0 or score.interval_low is None


def test_files_of_other_steps_and_tasks_are_added(workspace: Path) -> None:
    assert main([f"file={written(workspace, LM_EVAL)}", *WORDS]) == 0
    assert main([f"file={written(workspace, LIGHTEVAL, 'light.json')}", *WORDS[:2], "step=320"]) == 0
    only = {"config_general": {}, "results": {"math_500|0": {"extractive_match": 0.5}}}
    assert main([f"file={written(workspace, only, 'math.json')}", *WORDS]) == 0
    steps = {record.step for record in records(workspace)}
    benchmarks = {record.benchmark for record in records(workspace) if record.step == 640}
    assert steps == {320, 640} and {"math500", "ifeval", "mmlu_pro"} <= benchmarks
    content = (workspace / "results/theirs.json").read_bytes()
    assert main([f"file={workspace / 'math.json'}", *WORDS]) == 0  # the same again changes nothing
    assert (workspace / "results/theirs.json").read_bytes() == content
    assert Column("MATH500") in NINE_COLUMNS


def test_cells_from_another_file_are_replaced_only_on_demand(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ({"config_general": {}, "results": {"math_500|0": {"extractive_match": x}}} for x in (0.5, 0.6))
    assert main([f"file={written(workspace, first, 'first.json')}", *WORDS]) == 0
    again = [f"file={written(workspace, second, 'second.json')}", *WORDS]
    assert main(again) == 2
    said = capsys.readouterr().err
    assert "first.json" in said and "step 640 on math500" in said and "replace=true" in said
    assert records(workspace)[0].value == 50
    assert main([*again, "replace=true"]) == 0
    results = read_results(workspace / "results/theirs.json")
    assert [record.value for record in results.records] == [60] and len(results.provenance) == 1


@pytest.mark.parametrize("kind", ["folder", "results", "missing"])
def test_what_this_kit_has_measured_is_never_touched(
    workspace: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "results/theirs.json"
    own = Record(
        run="theirs",
        model="m",
        step=0,
        benchmark="b",
        metric="pass@1",
        value=1.0,
        unit="percent",
        origin="measured",
        checkpoints="model",
    )
    if kind == "folder":
        write_recipe(RunDirectory(workspace / "runs/theirs"), load("mini"))
    elif kind == "results":
        write_results(path, Results(run="theirs", records=[own]))
    else:
        write_results(path, Results(run="theirs", records=[], missing=[MissingCell(step=0, benchmark="b")]))
    before = path.read_bytes() if path.exists() else None
    assert main([f"file={written(workspace, LM_EVAL)}", *WORDS, "replace=true"]) == 2
    assert "is evaluated by this kit" in capsys.readouterr().err
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run=theirs", "step=0"), "not given: model"),
        ((*WORDS, "colour=red"), "unknown: colour"),
        (("run=a/b", "model=m", "step=1"), "run=a/b"),
        (("run=a", "model=m", "step=-1"), "step"),
        (("run=a", "model=m", "step=x"), "step"),
        (("run=a\n", "model=m", "step=1"), "run=a"),
        (("run=a", "model=m", "step=99999999999999999999"), "step"),
        (("run=a", "model=m", "step=0", "epochs=8"), "untrained base"),
        ((*WORDS, "learning_rate=nan"), "learning_rate"),
        ((*WORDS, "replace=yes"), "replace=yes"),
    ],
)
def test_bad_words_are_refused(
    workspace: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"file={written(workspace, LM_EVAL)}", *words]) == 2
    assert said in capsys.readouterr().err and not (workspace / "results").exists()


def test_a_run_is_of_one_model_and_one_training(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(workspace, LM_EVAL)
    assert main([f"file={file}", *WORDS]) == 0
    assert main([f"file={file}", "run=theirs", "model=another", "step=320"]) == 2
    assert "is of model Qwen3-14B-Base" in capsys.readouterr().err
    assert main([f"file={file}", "run=theirs", "model=Qwen3-14B-Base", "step=320", "learning_rate=1e-5"]) == 2
    assert "learning_rate=1e-05" in capsys.readouterr().err
    assert main([f"file={file}", "run=theirs", "model=Qwen3-14B-Base", "step=0"]) == 0  # the base has no settings
    assert main([f"file={file}", "run=theirs", "model=Qwen3-14B-Base", "step=320"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["run=Qwen3-4B_Math-CoT-20k_lr5e-5_ep8_bs256", "model=Qwen3-8B-Base", "step=640"],
            "of the paper starts from Qwen3-4B-Base",
        ),
        (["run=Qwen3-4B-Base", "model=Qwen3-4B-Base", "step=640"], "is the base itself. Give step=0"),
    ],
)
def test_names_that_contradict_what_they_stand_for_are_refused(
    workspace: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = f"file={written(workspace, LM_EVAL)}"
    assert main([file, *words]) == 2
    assert said in capsys.readouterr().err and not list((workspace / "results").glob("*.json"))
    assert main([file, words[0], "model=Qwen3-4B-Base", "step=0"]) == 0
