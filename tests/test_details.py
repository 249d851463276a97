"""Samples -> values of items, lengths, thinking, behaviour, cases; the table that analysis makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import behaviour as table
from analysis.holdings import read_library
from reprokit import benchmarks
from reprokit.benchmarks.grading.answers import after_thinking
from reprokit.benchmarks.interface import PROTOCOLS, Item
from reprokit.campaign.cells import all_cells
from reprokit.campaign.collect import collect_into
from reprokit.campaign.run_folder import write_recipe
from reprokit.errors import UserError
from reprokit.evaluation import details as made
from reprokit.evaluation.cases import CASES, KEPT
from reprokit.evaluation.details import gather, prompts_open_thinking
from reprokit.evaluation.score_stage import score_run
from reprokit.evaluation.summary import summarise
from reprokit.preparation.benchmark_items import prepare_items
from reprokit.recipe import load, load_resolved
from reprokit.recipe.sampling import settings
from reprokit.recipe.schema import Recipe
from reprokit.records.details import CellDetails, Details
from reprokit.records.files import read_json, read_json_lines, write_json, write_json_lines
from reprokit.records.result import Cell, CellResult, Generation, Sample, SampleScore
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import items_digest

STEPS = (0, 10, 20, 40)
Answer = Callable[[int, int, Item], str]  # step, place of the item, item -> text
_OFF = (
    "countdown",
    "countdown_repeats",
    "math500",
    "aime24",
    "livecodebench_v2",
    "alpaca_eval",
    "truthfulqa",
    "hex_phi",
)
TEN = (
    *(f"evaluation.benchmarks.{name}=false" for name in _OFF),
    *(f"evaluation.judges.{judge}=false" for judge in ("RB2", "truth", "info", "harm")),
    "evaluation.benchmarks.chain_sum.items=6",
)


def answered(
    folder: Path, words: Sequence[str], answer: Answer, recipe: str = "mini_ten"
) -> tuple[RunDirectory, Recipe]:
    """A run folder in which every sample of a recipe is there with the text that `answer` gives, and scored."""
    loaded = load(recipe, [f"evaluation.steps=[{','.join(map(str, STEPS))}]", *words])
    run = RunDirectory(folder / "runs" / loaded.recipe.name)
    write_recipe(run, loaded)
    prepare_items(run, loaded.recipe)
    for cell in all_cells(loaded.recipe):
        draw(run, loaded.recipe, cell, answer)
    score_run(run, loaded.recipe, run.progress("score"))
    return run, load_resolved(run.recipe)


def draw(run: RunDirectory, recipe: Recipe, cell: Cell, answer: Answer) -> None:
    """A response that never ends its thinking was cut off; tokens are words."""
    asked = settings(recipe.evaluation, cell.benchmark)
    samples = [
        Sample(
            benchmark=cell.benchmark,
            item=item.id,
            sample=number,
            seed=0,
            request="",
            text=(text := answer(cell.step, place, item) + "!" * number),
            prompt_tokens=5,
            response_tokens=len(text.split()),
            finish_reason="length" if after_thinking(text) is None else "stop",
            seconds=0.1,
        )
        for place, item in enumerate(read_json_lines(run.items(cell.benchmark), Item))
        for number in range(asked["samples"])
    ]
    digest = items_digest(run, cell.benchmark) or ""
    generation = Generation(
        step=cell.step, benchmark=cell.benchmark, settings=asked, items=digest, provenance={"engine": "none"}
    )
    write_json_lines(run.samples(cell.step, cell.benchmark), samples)
    write_json(run.generation(cell.step, cell.benchmark), generation)


def solved(step: int, place: int, item: Item) -> str:
    """Right at the base, wrong at step 10, and so on by place; some texts are long, some think for ever."""
    right = {0: place % 2 == 0, 10: False, 20: place % 4 == 1, 40: place % 3 != 2}[step]
    answer = item.answer.get("answer") or item.answer.get("letter") or item.answer.get("hallucination") or "no comma"
    thinking = "<think>Wait, that's not right. Let me check this." + " and so on" * (2000 if place == 3 else place)
    return (
        f"{thinking}" if place in (2, 7) and step else f"{thinking}</think> \\boxed{{{answer if right else '12345'}}}"
    )


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Recipe]:
    """Chain sums, syllogisms, and four of the paper's benchmarks: weights, clusters and several samples among them."""
    return answered(tmp_path_factory.mktemp("ten"), [*TEN, "evaluation.benchmarks.syllogism.items=12"], solved)


@pytest.fixture(scope="module")
def gathered(ten: tuple[RunDirectory, Recipe]) -> Details:
    run, recipe = ten
    return gather(run, recipe, all_cells(recipe))


def a_copy(ten: tuple[RunDirectory, Recipe], folder: Path) -> tuple[RunDirectory, Recipe]:
    shutil.copytree(ten[0].root, folder / "runs" / ten[0].root.name)
    return RunDirectory(folder / "runs" / ten[0].root.name), ten[1]


def test_the_weighted_mean_of_the_items_is_the_headline(ten: tuple[RunDirectory, Recipe], gathered: Details) -> None:
    run, recipe = ten
    assert [(cell.step, cell.benchmark) for cell in gathered.cells] == sorted(
        (cell.step, cell.benchmark) for cell in all_cells(recipe)
    )
    for cell in gathered.cells:
        result = read_json(run.result(cell.step, cell.benchmark), CellResult)
        headline = next(metric for metric in result.metrics if metric.headline)
        weights = [cell.weights.get(item, 1.0) for item in cell.items]
        assert 100 * np.average(list(cell.items.values()), weights=weights) == pytest.approx(headline.value)
        assert (cell.metric, cell.unit, cell.digest) == (headline.metric, headline.unit, result.items)
        assert len(cell.items) == headline.items


def test_weights_and_clusters_are_there_where_items_differ_in_them(gathered: Details) -> None:
    ifeval, mmlu = gathered.cell(0, "ifeval"), gathered.cell(0, "mmlu_pro")
    assert ifeval is not None and sorted(ifeval.weights.values()) == [1.0, 1.0, 2.0]
    assert mmlu is not None and mmlu.weights == {} and len(mmlu.items) == 4
    assert mmlu.clusters == {"1": "1", "1#2": "1"}  # the other rows stand for themselves
    gpqa = gathered.cell(0, "gpqa_diamond")
    assert gpqa is not None and gpqa.metric == "avg@3" and gpqa.responses == 3 * len(gpqa.items)


def test_lengths_thinking_and_behaviour_are_counted_over_all_responses(
    ten: tuple[RunDirectory, Recipe], gathered: Details
) -> None:
    samples = list(read_json_lines(ten[0].samples(10, "syllogism"), Sample))
    cell = gathered.cell(10, "syllogism")
    assert cell is not None and cell.responses == len(samples) == 12
    cut = [sample.response_tokens for sample in samples if sample.finish_reason == "length"]
    assert 0 < len(cut) < 12 and cell.truncated.responses == len(cut)
    assert cell.truncated.mean_tokens == pytest.approx(np.mean(cut))
    assert cell.truncated.quantiles["0.9"] == pytest.approx(np.quantile(cut, 0.9))
    assert cell.unfinished_thinking == 2
    tokens = sum(sample.response_tokens for sample in samples)
    found = cell.behaviour["backtracking"]
    assert (found.responses, found.occurrences) == (12, 24)
    assert found.per_thousand_tokens == pytest.approx(24 / tokens * 1000)
    assert cell.behaviour["verification"].occurrences == 12 and cell.behaviour["sub_goals"].responses == 0
    assert cell.behaviour["repetition"].responses == sum(text.text.count("and so on") > 10 for text in samples)


def test_a_cell_without_cut_responses_has_no_lengths_of_them(tmp_path: Path) -> None:
    words = [
        *TEN,
        *(f"evaluation.benchmarks.{name}=false" for name in ("gpqa_diamond", "mmlu_pro", "ifeval", "halueval")),
    ]
    run, recipe = answered(tmp_path, [*words, "evaluation.benchmarks.syllogism=false"], lambda *_: "even")
    cell = gather(run, recipe, [Cell(0, "chain_sum")]).cells[0]
    assert (cell.truncated.responses, cell.truncated.mean_tokens, cell.truncated.quantiles) == (0, None, {})
    assert cell.unfinished_thinking == 0  # a model without think tags


def cached(run: RunDirectory, step: int, benchmark: str) -> Path:
    return run.cell(step, benchmark) / "details.json"


def test_details_are_kept_and_made_anew_when_result_or_rules_change(
    ten: tuple[RunDirectory, Recipe], gathered: Details, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = a_copy(ten, tmp_path)
    cells, measured = [Cell(0, "chain_sum"), Cell(10, "chain_sum")], []

    def noted(run: RunDirectory, opened: bool, cell: Cell) -> CellDetails | str:
        measured.append(cell)
        return real(run, opened, cell)

    class Here:  # one process, in which the count can be seen
        def __init__(self, processes: int) -> None: ...
        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...
        def map(self, function: Callable[[Cell], object], cells: Sequence[Cell]) -> list[object]:
            return [function(cell) for cell in cells]

    real = made._measured
    monkeypatch.setattr(made, "_measured", noted)
    monkeypatch.setattr(made, "ProcessPoolExecutor", Here)
    expected = [cell for cell in gathered.cells if cell.benchmark == "chain_sum" and cell.step < 20]
    assert gather(run, recipe, cells).cells == expected and measured == []
    for damage in (b"", b"{}", b"\xff\xfe", cached(run, 0, "chain_sum").read_bytes()[:100]):
        cached(run, 0, "chain_sum").write_bytes(damage)
        assert gather(run, recipe, cells).cells == expected
    assert measured == [cells[0]] * 4
    run.result(10, "chain_sum").write_text(run.result(10, "chain_sum").read_text() + "\n")
    assert gather(run, recipe, cells).cells[1].made_from != expected[1].made_from and measured[4:] == [cells[1]]
    monkeypatch.setattr(made, "DETECTORS_VERSION", 99)
    assert {cell.detectors for cell in gather(run, recipe, cells).cells} == {99} and len(measured) == 7


def test_details_are_the_same_bytes_from_the_cache_and_anew(
    ten: tuple[RunDirectory, Recipe], gathered: Details, tmp_path: Path
) -> None:
    run, recipe = a_copy(ten, tmp_path)
    for path in run.root.glob("evaluation/step_*/*/details.json"):
        path.unlink()
    write_json(tmp_path / "anew.json", gather(run, recipe, all_cells(recipe)[::-1]))
    write_json(tmp_path / "kept.json", gather(run, recipe, all_cells(recipe)))
    write_json(tmp_path / "there.json", gathered)
    texts = {(tmp_path / name).read_bytes() for name in ("anew.json", "kept.json", "there.json")}
    assert len(texts) == 1 and str(tmp_path).encode() not in texts.pop()


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("samples.jsonl", "there is no samples.jsonl"),
        ("scores.jsonl", "there is no scores.jsonl"),
        ("result.json", "there is no result.json"),
    ],
)
def test_a_cell_without_its_files_has_no_details_and_the_others_have(
    ten: tuple[RunDirectory, Recipe],
    gathered: Details,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    lost: str,
    said: str,
) -> None:
    run, recipe = a_copy(ten, tmp_path)
    cached(run, 10, "chain_sum").unlink()
    (run.cell(10, "chain_sum") / lost).unlink()
    found = gather(run, recipe, all_cells(recipe))
    assert found.cell(10, "chain_sum") is None and len(found.cells) == len(gathered.cells) - 1
    assert f"no details of chain_sum, step 10: {said}" in capfd.readouterr().out


def test_samples_or_scores_that_are_not_those_of_the_result_give_no_details(
    ten: tuple[RunDirectory, Recipe], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, recipe = a_copy(ten, tmp_path)
    changes: dict[int, tuple[Path, Callable[[str], str]]] = {
        0: (run.samples(0, "chain_sum"), lambda text: text.split("\n", 1)[1]),
        10: (run.cell(10, "chain_sum") / "scores.jsonl", lambda text: text.replace('"accuracy":0.0', '"accuracy":1.0')),
        20: (run.cell(20, "chain_sum") / "scores.jsonl", lambda text: text.replace("000003", "other")),
        40: (run.samples(40, "chain_sum"), lambda text: text[:-30]),
    }
    for step, (path, change) in changes.items():
        cached(run, step, "chain_sum").unlink()
        path.write_text(change(path.read_text()))
    cells = [Cell(step, "chain_sum") for step in STEPS]
    assert gather(run, recipe, cells).cells == []
    said = capfd.readouterr().out
    assert said.count("samples and scores are not those of its result") == 3
    assert f"no details of chain_sum, step 40: {run.samples(40, 'chain_sum')}, line 6 is damaged" in said


def test_the_kept_details_outlive_the_samples_and_cases_that_are_lost_are_named(
    ten: tuple[RunDirectory, Recipe], gathered: Details, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, recipe = a_copy(ten, tmp_path)
    for path in run.root.glob("evaluation/step_*/*/samples.jsonl"):
        path.unlink()
    scores = run.cell(40, "syllogism") / "scores.jsonl"
    scores.write_text(scores.read_text().replace('"official"', '"other"'))
    found = gather(run, recipe, all_cells(recipe))
    assert found.cells == gathered.cells and found.cases == []
    said = capfd.readouterr().out
    assert all(f"no cases of {name}: " in said for name in {case.benchmark for case in gathered.cases})


def test_a_folder_that_cannot_be_written_costs_time_only(
    ten: tuple[RunDirectory, Recipe], gathered: Details, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, value: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    run, recipe = a_copy(ten, tmp_path)
    cached(run, 0, "chain_sum").unlink()
    monkeypatch.setattr(made, "write_json", refused)
    assert gather(run, recipe, [Cell(0, "chain_sum")]).cells == [gathered.cell(0, "chain_sum")]
    assert not cached(run, 0, "chain_sum").exists()


def test_cases_show_each_way_that_items_went(gathered: Details) -> None:
    cases = [case for case in gathered.cases if case.benchmark == "syllogism"]
    assert len(cases) == CASES and {tuple(answer.step for answer in case.responses) for case in cases} == {(0, 10, 40)}
    patterns = [case.pattern for case in cases]
    assert patterns[0] == "right → wrong → right" and "wrong → wrong → right" in patterns
    assert "wrong → wrong → wrong" in patterns and len({case.item for case in cases}) == CASES
    for case in cases:
        place = int(case.item)
        assert case.responses[0].value == float(place % 2 == 0) and case.responses[1].value == 0.0
        assert case.prompt.startswith("Consider these statements:") and case.reference in ("Yes", "No")
        assert case.responses[0].text.startswith("<think>Wait") and case.responses[0].answer == (
            "12345" if place % 2 else case.reference
        )


def test_a_long_text_is_cut_in_the_middle(ten: tuple[RunDirectory, Recipe], gathered: Details) -> None:
    long = [answer for case in gathered.cases for answer in case.responses if answer.omitted]
    assert long
    for case in gathered.cases:
        samples = {
            (sample.item, step): sample.text
            for step in STEPS
            for sample in read_json_lines(ten[0].samples(step, case.benchmark), Sample)
            if sample.sample == 0
        }
        for answer in case.responses:
            text = samples[case.item, answer.step]
            assert len(answer.text) + answer.omitted == len(text) and len(answer.text) <= 2 * KEPT
            at = answer.cut_at
            assert answer.text == (text if at is None else text[:at] + text[at + answer.omitted :])


def test_problems_of_gated_data_sets_give_no_cases(gathered: Details) -> None:
    assert {case.benchmark for case in gathered.cases} == {"chain_sum", "syllogism", "mmlu_pro", "ifeval", "halueval"}
    assert gathered.cell(0, "gpqa_diamond") is not None


REWARDS = {"0000": (1.0, 0.5, 2.0), "0001": (1.0, 2.0, 3.0), "0002": (1.0, 0.0, 0.0)}


def judged(run: RunDirectory, recipe: Recipe, step: int, name: str, values: Sequence[float | None]) -> None:
    """A cell whose judge gave these verdicts, by item; None for no usable one."""
    cell, benchmark = Cell(step, name), benchmarks.get(name)
    draw(run, recipe, cell, lambda step, place, item: f"step {step}, {item.id}")
    items = list(read_json_lines(run.items(name), Item))
    answers: dict[str, str | None] = {protocol: "x" for protocol in PROTOCOLS}
    verdicts = [{} if value is None else {benchmark.metrics[0].name: value} for value in values]
    scores = [
        SampleScore(item=item.id, sample=0, values={protocol: verdict for protocol in PROTOCOLS}, answers=answers)
        for item, verdict in zip(items, verdicts, strict=True)
    ]
    samples = list(read_json_lines(run.samples(step, name), Sample))
    generation = read_json(run.generation(step, name), Generation)
    judges = {benchmark.metrics[0].judge: "a judge"}
    write_json_lines(run.cell(step, name) / "scores.jsonl", scores)
    write_json(run.result(step, name), summarise(benchmark, items, samples, scores, generation, judges, {}))


def test_safety_gives_no_cases_and_rewards_fall_and_rise(tmp_path: Path) -> None:
    loaded = load("mini_ten", ["evaluation.benchmarks.hex_phi.samples=1"])
    run = RunDirectory(tmp_path / "runs" / "mini_ten")
    prepare_items(run, loaded.recipe)
    cells = [Cell(step, name) for step in (0, 10, 20) for name in ("alpaca_eval", "hex_phi")]
    for place, step in enumerate((0, 10, 20)):
        judged(run, loaded.recipe, step, "alpaca_eval", [values[place] for values in REWARDS.values()])
        judged(run, loaded.recipe, step, "hex_phi", [1.0, 0.0, None])
    found = gather(run, loaded.recipe, cells)
    assert {case.benchmark for case in found.cases} == {"alpaca_eval"}
    assert {case.item: case.pattern for case in found.cases} == {
        "0000": "falls, rises",
        "0001": "rises, rises",
        "0002": "falls, stays",
    }
    assert all(case.reference is None and case.responses[1].step == 10 for case in found.cases)
    rewards, harm = found.cell(20, "alpaca_eval"), found.cell(20, "hex_phi")
    assert rewards is not None and (rewards.unit, rewards.items["0001"]) == ("reward", 3.0)
    assert harm is not None and len(harm.items) == 2 and harm.responses == 3  # no verdict is no value


def test_a_base_that_is_a_run_of_its_own_stands_beside_the_others(
    ten: tuple[RunDirectory, Recipe], gathered: Details, tmp_path: Path
) -> None:
    run, recipe = a_copy(ten, tmp_path)
    base = RunDirectory(run.root.parent / recipe.model.name)
    (base.root / "evaluation").mkdir(parents=True)
    shutil.move(run.evaluated(0), base.evaluated(0))
    shutil.copytree(run.root / "evaluation" / "items", base.root / "evaluation" / "items")
    found = gather(run, recipe, [cell for cell in all_cells(recipe) if cell.step])
    assert found.cases == gathered.cases and {cell.step for cell in found.cells} == {10, 20, 40}
    for path in (base.items_source("syllogism"), base.result(0, "syllogism")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"items": "other problems"}))
    without = gather(run, recipe, [cell for cell in all_cells(recipe) if cell.step]).cases
    assert {answer.step for case in without if case.benchmark == "syllogism" for answer in case.responses} == {
        10,
        20,
        40,
    }


TEMPLATE = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\nEND{% endif %}"


@pytest.mark.parametrize(
    ("end", "expected"), [("", True), ("\n\n</think>\n\n", False)], ids=["opened", "opened and closed"]
)
def test_a_template_can_open_the_thinking(tmp_path: Path, end: str, expected: bool) -> None:
    from reprokit.data.countdown import training_pairs
    from reprokit.data.rows import Row
    from reprokit.data.tokenizer import train_tokenizer

    rows = [Row(message=[{"role": "user", "content": asked}], response=said) for asked, said in training_pairs(20, 0)]
    tokenizer = train_tokenizer(rows, 300)
    tokenizer.save_pretrained(tmp_path / "plain")
    assert not prompts_open_thinking(tmp_path / "plain") and not prompts_open_thinking(tmp_path / "none")
    tokenizer.chat_template = TEMPLATE.replace("END", end)
    tokenizer.save_pretrained(tmp_path / "opening")
    assert prompts_open_thinking(tmp_path / "opening") is expected


def test_without_an_opening_tag_thinking_is_unfinished_where_the_template_opens_it(
    ten: tuple[RunDirectory, Recipe], tmp_path: Path
) -> None:
    run, recipe = a_copy(ten, tmp_path)
    path = run.samples(40, "syllogism")
    path.write_text(path.read_text().replace("<think>", ""))
    assert made.measure(run, Cell(40, "syllogism"), opened=True).unfinished_thinking == 2
    assert made.measure(run, Cell(40, "syllogism"), opened=False).unfinished_thinking == 0


@pytest.fixture(scope="module")
def results(ten: tuple[RunDirectory, Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    collect_into(folder, *ten)
    return folder


def test_the_table_has_a_row_per_checkpoint_and_benchmark(results: Path, gathered: Details) -> None:
    found = table.behaviour(read_library(results), "mini_ten")
    assert found.benchmarks == ["GPQA-D", "MMLU-Pro", "IFEval", "HaluEval", "Chain sum", "Syllogism"]
    assert [row.step for row in found.of("Syllogism")] == list(STEPS) and found.missing == []
    row, cell = found.of("GPQA-D")[1], gathered.cell(10, "gpqa_diamond")
    assert cell is not None and row.responses == cell.responses
    rate = row.rates["backtracking"]
    assert (rate.share.value, rate.share.high) == (1.0, 1.0)
    assert rate.share.low == pytest.approx(0.438, abs=1e-3)  # three items, whatever the number of their samples
    assert rate.per_thousand_tokens == cell.behaviour["backtracking"].per_thousand_tokens
    assert row.unfinished_thinking.value == pytest.approx(1 / 3)
    assert row.mean_tokens_finished == cell.finished.mean_tokens


def test_step_0_is_that_of_the_base_where_this_is_a_run_of_its_own(results: Path, tmp_path: Path) -> None:
    """The same rows from two files as from one."""
    for name, at_base in (("mini_ten", False), ("base", True)):
        for kind, key in ((results, "records"), (results / "details", "cells")):
            content = json.loads((kind / "mini_ten.json").read_text())
            content |= {"run": name, "missing": []} if key == "records" else {"run": name, "cases": []}
            content[key] = [row for row in content[key] if (row["step"] == 0) == at_base]
            content[key] = [row | ({"run": name, "model": "base"} if key == "records" else {}) for row in content[key]]
            write_json(tmp_path / kind.relative_to(results) / f"{name}.json", content)
    alone, together = (table.behaviour(read_library(folder), "mini_ten") for folder in (results, tmp_path))
    assert {row.run for row in together.rows if row.step == 0} == {"base"} and together.missing == []
    assert [replace(row, run="mini_ten") for row in together.rows] == alone.rows


def test_the_command_prints_it_and_says_what_is_not_there(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table.main(["run=mini_ten", f"results={results}"]) == 0
    assert "Chain sum" in capsys.readouterr().out
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results" / "details" / "mini_ten.json"
    less = json.loads(path.read_text())
    less["cells"] = [cell for cell in less["cells"] if (cell["step"], cell["benchmark"]) != (10, "ifeval")]
    path.write_text(json.dumps(less))
    assert table.main(["run=mini_ten", f"results={tmp_path / 'results'}"]) == 3
    assert "not there: IFEval, step 10: results, but no details" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"), [(["run=other"], "there are: mini_ten"), ([], "give run=NAME"), (["run"], "key=value")]
)
def test_what_cannot_be_shown_is_said(
    results: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words, f"results={results}"] if words else words
    assert table.main(given) == 2 and said in capsys.readouterr().err
    with pytest.raises(UserError):
        table.behaviour(read_library(results), "other")
