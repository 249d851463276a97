"""Questions, answers of others, Countdown puzzles, overlap, and errors of data-set recipes."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprokit import benchmarks
from reprokit.benchmarks.grading.expressions import evaluate
from reprokit.benchmarks.interface import Item
from reprokit.building import prepare as preparing
from reprokit.building.asking import is_prepared, shard_recipe
from reprokit.building.directory import DatasetDirectory, Verdicts
from reprokit.building.load import FOLDER, dataset_names, load_dataset
from reprokit.building.overlap import overlap
from reprokit.building.questions import (
    countdown_questions,
    identity,
    is_held_out,
    luffy_questions,
    mathematics_item,
    openr1_questions,
    puzzle_item,
)
from reprokit.building.report import BuildReport
from reprokit.building.schema import AnswersRecipe, CutRecipe, TeacherRecipe
from reprokit.building.sources import normal, question_of
from reprokit.building.thinking import cut, whole
from reprokit.data.prompts import BOX_INSTRUCTION
from reprokit.errors import UserError
from reprokit.recipe import recipe_names
from reprokit.recipe.problems import RecipeError
from reprokit.recipe.registry import QUESTIONS, benchmark_names
from reprokit.recipe.sampling import settings
from reprokit.records.files import read_json, read_json_lines, sha256_of_file, write_json, write_json_lines
from reprokit.records.result import Generation, Sample
from reprokit.records.sample_log import items_digest
from tests.markov import make_teacher
from tests.test_building import LOCAL, build, built

TEACHER = "dataset: x\nmade: teacher\nquestions: {format: countdown, count: 30000}\n"
PAPER = ["countdown_cot_20k", "deepseek_r1_20k", "math_cot_20k", "math_nocot_20k", "numina_math_20k"]


def test_the_five_data_sets_of_the_paper_load_and_are_no_recipes_of_runs() -> None:
    assert dataset_names() == PAPER
    recipes = {name: load_dataset(name)[0] for name in PAPER}
    assert [type(recipe) for recipe in recipes.values()] == [
        TeacherRecipe,
        AnswersRecipe,
        TeacherRecipe,
        CutRecipe,
        AnswersRecipe,
    ]
    assert not [name for name in recipe_names() if name.startswith("datasets")]
    teacher = recipes["math_cot_20k"]
    assert isinstance(teacher, TeacherRecipe) and teacher.rows == 20480
    assert teacher.model.hub_id == "Qwen/Qwen3-32B"
    drawn = settings(shard_recipe(teacher, 0).evaluation, QUESTIONS)
    assert drawn == {
        **{"items": None, "samples": 32, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 16384},
        **{"seed": 1234, "presence_penalty": 0.0, "frequency_penalty": 0.0, "context": None},
        "skip_special_tokens": False,
    }


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_in_full_loads_as_itself(name: str, tmp_path: Path) -> None:
    recipe, text = load_dataset(name, ["rows=7", "overlap.math500=false"])
    (tmp_path / "full.yaml").write_text(text)
    assert load_dataset(str(tmp_path / "full.yaml"))[0] == recipe
    assert recipe.rows == 7 and "math500" not in recipe.overlap
    opening = (FOLDER / f"{name}.yaml").read_text()
    assert f"#   python -m reprokit.data.build dataset={name}\n" in opening


def test_every_problem_of_a_recipe_is_reported_with_its_place(tmp_path: Path) -> None:
    lines = [
        "dataset: ../Elsewhere",
        "made: teacher",
        "rows: 10",
        "questions: {path: nowhere.jsonl, count: 5}",
        "model: {name: Teacher, hub_id: a/b, path: also-nowhere}",
        "sampling: {samples: 0, top_p: 1.5}",
        "overlap: {math5000: {}, aime24: {path: nowhere.json}}",
    ]
    (tmp_path / "bad.yaml").write_text("\n".join(lines))
    with pytest.raises(RecipeError) as caught:
        load_dataset(str(tmp_path / "bad.yaml"))
    found = {(problem.key, problem.where.rpartition(":")[2]) for problem in caught.value.problems}
    assert found == {
        ("dataset", "1"),
        ("questions.path", "4"),
        ("questions.count", "4"),
        ("model.hub_id", "5"),  # beside a path
        ("model.path", "5"),
        ("sampling.samples", "6"),
        ("sampling", "6"),
        ("overlap.math5000", "7"),
        ("overlap.aime24.path", "7"),
    }
    assert "did you mean math500?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: x\n", "how the rows are made is not said"),
        ("dataset: x\nmade: magic\n", "valid: teacher, answers, cut"),
        ("dataset: x\nmade: cut\nbase: {dataset: y}\nteacher: z\n", "teacher: unknown key"),
        ("dataset: x\nmade: cut\n", "base: exactly one source is needed"),
        ("dataset: x\nmade: cut\nbase: {dataset: y, hub_id: a/b}\n", "base.dataset=y, base.hub_id=a/b|base.hub_id=a/b"),
        ("dataset: x\nmade: answers\nbase: {dataset: y}\nanswers: {hub_id: a/b}\n", "answers.format: missing"),
        ("dataset: x\nmade: cut\nbase: {dataset: y}\nrows: many\n", "rows: wrong type"),
        ("dataset: x\nmade: cut\nbase: {dataset: x}\n", "the data set itself"),
        ('dataset: "x\\ny"\nmade: cut\nbase: {dataset: z}\n', "dataset: not usable as the name of a folder"),
        (f"{TEACHER}model: {{name: a, hub_id: b/c}}\nsampling: {{seed: -1}}\n", "sampling.seed: out of range"),
        (
            "dataset: x\nmade: cut\nbase: {dataset: y}\noverlap: {aime24: {items: 0}}\n",
            "overlap.aime24.items: out of range",
        ),
        (f"{TEACHER}model: {{name: a, path: ., shape: {{model_type: qwen3}}}}\n", "only beside model.hub_id"),
        (f"{TEACHER}model: {{name: ' ', hub_id: b/c}}\n", "model.name: empty name"),
        ("made: teacher\nquestions: {format: countdown}\nmodel: {name: a, hub_id: b/c}\n", "dataset: missing"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_dataset(str(tmp_path / "bad.yaml"))
    assert any(part in str(caught.value) for part in said.split("|")), caught.value


def test_words_of_the_command_are_checked(tmp_path: Path) -> None:
    for words, said in (
        ((), "no data set given; there are countdown_cot_20k"),
        (("dataset=math_cot_20",), "did you mean dataset=math_cot_20k?"),
        (("dataset=math_cot_20k", "stages=train"), "valid are prepare, sample, verify, assemble"),
        (("dataset=math_cot_20k", "stages=sample", "cluster=local"), "is not prepared yet: add prepare to stages"),
        (("dataset=math_nocot_20k", "cluster=local"), "base.dataset=null base.hub_id=jasonrqh/Math-CoT-20k"),
    ):
        done = build(tmp_path, *words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    shown = built(tmp_path, "dataset=countdown_cot_20k", "cluster=h200", "dry_run=true")
    assert "#SBATCH --array=0-51" in shown and "4 responses of at most 16,384 tokens to each question" in shown
    assert re.search(r"52 shards of 2,000, of 8,200 tokens each \(assumed, half of the limit\); [\d.]+ [GT]B", shown)
    hours = float(re.search(r"about ([\d,]+) GPU-hours on H200", shown)[1].replace(",", ""))
    twice = built(tmp_path, "dataset=countdown_cot_20k", "cluster=h200", "dry_run=true", "sampling.samples=8")
    assert 1.6 * hours < float(re.search(r"about ([\d,]+) GPU-hours", twice)[1].replace(",", "")) < 2.1 * hours
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "more"), [("math_cot_20k", "questions.count=44000"), ("countdown_cot_20k", "seed=0")])
def test_what_a_recipe_costs_stands_in_it(name: str, more: str, tmp_path: Path) -> None:
    shown = built(tmp_path, f"dataset={name}", "cluster=h200", "dry_run=true", more)
    hours, size = (
        re.search(pattern, shown) for pattern in (r"about [\d,]+ GPU-hours on H200", r"[\d.]+ GB of samples")
    )
    assert hours is not None and size is not None
    opening = (FOLDER / f"{name}.yaml").read_text().replace("\n# ", " ")
    assert f"{hours[0]} and {size[0]}" in opening


def test_questions_of_a_data_set_are_no_benchmark_to_choose() -> None:
    assert QUESTIONS not in benchmark_names()
    with pytest.raises(UserError, match="python -m reprokit.data.build makes them"):
        benchmarks.get(QUESTIONS).items(1)


@given(st.text(), st.sampled_from(["", " ", "\n", "\t "]))
def test_a_question_is_the_same_whatever_its_white_space(question: str, blank: str) -> None:
    item = mathematics_item(question, "1")
    assert mathematics_item(f"{blank}{question}{blank}", "1").id == item.id
    assert normal(question_of(item.messages[0]["content"])) == normal(question_of(question))


@given(st.text(), st.text())
def test_thinking_is_cut_off_and_nothing_else(thoughts: str, rest: str) -> None:
    thought = f"<think>{thoughts}</think>{rest}"
    assert cut(thought) == (rest if "</think>" not in rest else rest.rpartition("</think>")[2]).strip()
    assert whole(thought) == thought
    assert cut(f"<think>{thoughts.replace('<', '')}") == ""
    assert whole(f"{thoughts.replace('<', '')}</think>") == f"<think>\n{thoughts.replace('<', '').lstrip()}</think>"


def test_overlap_is_found_by_thirteen_words_in_a_row() -> None:
    thirteen = "one two three four five six seven eight nine ten eleven twelve thirteen"
    problem = Item("p", [{"role": "user", "content": f"Before, {thirteen}. After{BOX_INSTRUCTION}"}], {})
    short = Item("s", [{"role": "user", "content": f"What is 1 + 1?{BOX_INSTRUCTION}"}], {})
    asked = [
        f"Other words: {thirteen.upper()}!",
        thirteen.replace("seven", "7"),
        "What is 1+1",
        "What is 1 + 1 + 1?",
        "After" + BOX_INSTRUCTION.removesuffix("."),
    ]
    found = overlap(asked[:4], [problem, short])
    assert (found.items, found.rows, found.items_found) == (2, 2, 2)
    assert found.examples == [(0, "p"), (2, "s")]
    assert overlap(asked[4:], [problem]).rows == 0  # the instruction that ends every prompt is no overlap


def expressions(values: Sequence[tuple[Fraction, str]]) -> Iterator[tuple[Fraction, str]]:
    """Every value that an expression of all of these has, with the expression."""
    if len(values) == 1:
        yield values[0]
        return
    for (i, (a, left)), (j, (b, right)) in itertools.permutations(enumerate(values), 2):
        rest = [value for place, value in enumerate(values) if place not in (i, j)]
        results = {"+": a + b, "-": a - b, "*": a * b} | ({"/": a / b} if b else {})
        for operator, value in results.items():
            yield from expressions([*rest, (value, f"({left} {operator} {right})")])


def solution(item: Item) -> str:
    numbers = [(Fraction(number), str(number)) for number in item.answer["numbers"]]
    return next(text for value, text in expressions(numbers) if value == item.answer["target"])


def test_puzzles_are_solvable_different_and_none_of_the_benchmarks() -> None:
    rejected: Counter[str] = Counter()
    items = countdown_questions(400, 3, rejected)
    assert items == countdown_questions(400, 3, Counter()) and items[:100] == countdown_questions(100, 3, Counter())
    assert items != countdown_questions(400, 4, Counter())
    assert len({item.id for item in items}) == 400
    assert {len(item.answer["numbers"]) for item in items} == {3, 4}
    held_out = set()
    for name in ("countdown", "countdown_repeats"):
        benchmark = benchmarks.get(name)
        held_out |= {item.id for item in benchmark.items(benchmark.size)}
    assert not held_out & {item.id for item in items}
    for item in items[:40]:
        value, used = evaluate(solution(item))
        assert value == item.answer["target"] and sorted(used) == sorted(item.answer["numbers"])
    assert rejected["puzzle held out for the Countdown benchmarks"] > 0


@pytest.mark.parametrize("name", ["countdown", "countdown_repeats"])
def test_every_puzzle_of_the_benchmarks_is_held_out(name: str) -> None:
    for item in benchmarks.get(name).items(500):
        numbers, target = item.answer["numbers"], item.answer["target"]
        assert is_held_out(numbers, target) and puzzle_item(numbers[::-1], target).id == item.id


# What a teacher may write about a puzzle, and what becomes of it.
WRITTEN = {
    "correct": lambda right, numbers: f"<think>hm</think>\nSo \\boxed{{{right}}}.",
    "wrong answer": lambda right, numbers: f"<think>\\boxed{{{right}}}</think>\\boxed{{{right} + {numbers[0]}}}",
    "no answer": lambda right, numbers: f"<think>\\boxed{{{right}}}</think>It is {right}.",
    "no finished thinking": lambda right, numbers: f"<think>hm \\boxed{{{right}}}",
    "truncated": lambda right, numbers: f"<think>hm</think>\\boxed{{{right}}}",
}


def test_countdown_rows_use_each_number_once(tmp_path: Path) -> None:
    """From prepared puzzles and responses that were written by hand, the command makes verdicts and rows."""
    make_teacher(tmp_path / "teacher")
    (tmp_path / "here.yaml").write_text(LOCAL)
    (tmp_path / "puzzles.yaml").write_text(
        "dataset: Puzzles\nmade: teacher\nrows: 6\nshard_size: 4\nquestions: {format: countdown, count: 6}\n"
        f"model: {{name: Markov, path: teacher}}\nsampling: {{samples: {len(WRITTEN)}, max_tokens: 100}}\n"
        "overlap: {countdown: {}}\n"
    )
    words = ("dataset=puzzles.yaml", "cluster=here.yaml")
    built(tmp_path, *words, "stages=prepare")
    directory = DatasetDirectory(tmp_path / "datasets" / "Puzzles")
    recipe, _ = load_dataset(str(tmp_path / "puzzles.yaml"))
    assert isinstance(recipe, TeacherRecipe)
    for number in range(2):
        answer_by_hand(directory, recipe, number)
    shown = built(tmp_path, *words)
    assert "sample: started" not in shown
    report = read_json(directory.report, BuildReport)
    assert report.questions["kept"] == 6 and report.responses == dict.fromkeys(WRITTEN, 6)
    for row in pq.read_table(directory.file).to_pylist():
        expression = row["response"].partition("\\boxed{")[2].removesuffix("}.")
        assert evaluate(expression)[0] == int(row["answer"])
        asked = row["message"][0]["content"]
        assert f"equals {row['answer']}. " in asked and asked.endswith(f"no equals sign.{BOX_INSTRUCTION}")
    assert read_json(directory.verdicts(0), Verdicts).failures == []

    # Neither fewer samples than asked for, nor rows of another kind, take the place of what is there.
    few = build(tmp_path, *words, "stages=assemble", "sampling.samples=9", "rows=5")
    assert few.returncode == 2 and "2 of 2 shards are not sampled and verified" in few.stderr
    (tmp_path / "cut.yaml").write_text("dataset: Puzzles\nmade: cut\nbase: {path: datasets/Puzzles/Puzzles.parquet}\n")
    other = build(tmp_path, "dataset=cut.yaml", "cluster=here.yaml")
    assert other.returncode == 2 and "was made with other settings" in other.stderr
    assert read_json(directory.report, BuildReport) == report and sha256_of_file(directory.file) == report.sha256

    # A damaged sample is not counted as wrong: its shard counts as not sampled, and what is whole is kept.
    directory.verdicts(0).unlink()
    samples = directory.shard(0).samples(0, QUESTIONS)
    samples.write_bytes(samples.read_bytes().replace(b'"text"', b'"text', 1))
    failed = build(tmp_path, *words)
    assert failed.returncode == 2 and "line 1 is damaged" in failed.stderr and "drawn again" in failed.stderr
    again = built(tmp_path, *words, "dry_run=true")
    assert [line.split()[:2] for line in again.splitlines() if line.startswith(" sample")] == [["sample", "1"]]


def test_a_preparation_that_is_killed_is_no_preparation_of_any_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other questions are being put into shards when it dies: the first recipe is not taken as prepared."""
    make_teacher(tmp_path / "teacher")
    (tmp_path / "puzzles.yaml").write_text(
        "dataset: Puzzles\nmade: teacher\nrows: 6\nshard_size: 4\nquestions: {format: countdown, count: 6}\n"
        "model: {name: Markov, path: teacher}\n"
    )
    directory = DatasetDirectory(tmp_path / "datasets" / "Puzzles")
    first, second = (load_dataset(str(tmp_path / "puzzles.yaml"), [f"questions.seed={seed}"])[0] for seed in (0, 1))
    preparing.prepare(directory, first, tmp_path / "progress")
    assert is_prepared(directory, first)
    with monkeypatch.context() as killed:
        killed.setattr(preparing, "_prepare_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            preparing.prepare(directory, second, tmp_path / "progress")
    assert not is_prepared(directory, first) and not is_prepared(directory, second)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    lines = {
        "half a pair": b'{"problem": "a\\ud800", "answer": "1"}',
        "too deep": b'{"answer": "1", "problem": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    }
    for name, line in lines.items():
        (tmp_path / f"{name}.jsonl").write_bytes(line)
        with pytest.raises(UserError, match=f"{name}.jsonl, line 1: not usable JSON"):
            list(openr1_questions([tmp_path / f"{name}.jsonl"], None, Counter()))
    with pytest.raises(UserError, match="is gone"):
        list(openr1_questions([tmp_path / "gone.jsonl"], None, Counter()))
    (tmp_path / "odd.jsonl").write_text('{"prompt": 5}\n{"prompt": "text"}\n')
    assert luffy_questions([tmp_path / "odd.jsonl"]) == {identity("")}


def answer_by_hand(directory: DatasetDirectory, recipe: TeacherRecipe, number: int) -> None:
    """Give a shard samples, one of each kind to every puzzle."""
    shard = directory.shard(number)
    samples = []
    for item in read_json_lines(shard.items(QUESTIONS), Item):
        right = solution(item)
        for place, (kind, write) in enumerate(WRITTEN.items()):
            text = write(right, item.answer["numbers"])
            reason = "length" if kind == "truncated" else "stop"
            fields: dict[str, Any] = {"seed": 0, "request": "", "prompt_tokens": 1, "seconds": 0.0}
            samples.append(
                Sample(
                    benchmark=QUESTIONS,
                    item=item.id,
                    sample=place,
                    text=text,
                    finish_reason=reason,
                    response_tokens=len(text),
                    **fields,
                )
            )
    write_json_lines(shard.samples(0, QUESTIONS), samples)
    wanted = settings(shard_recipe(recipe, number).evaluation, QUESTIONS)
    items = items_digest(shard, QUESTIONS) or ""
    made = Generation(step=0, benchmark=QUESTIONS, settings=wanted, items=items, provenance={})
    write_json(shard.generation(0, QUESTIONS), made)
