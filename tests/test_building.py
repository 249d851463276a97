"""A data set is built on a real Slurm by a real, tiny teacher; elements that are killed change nothing in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from reprokit.benchmarks.interface import Item
from reprokit.building.directory import DatasetDirectory
from reprokit.building.report import BuildReport
from reprokit.building.thinking import cut
from reprokit.data import rows
from reprokit.records.files import read_json, read_json_lines, sha256_of_file
from reprokit.records.result import Sample
from reprokit.records.run_directory import SubmittedJobs
from reprokit.records.starts import read_starts
from tests.generating import wait_for
from tests.markov import make_teacher

RECIPE = """\
dataset: Tiny-CoT
made: teacher
rows: 30
questions: {path: questions.jsonl}
model: {name: Markov, path: teacher}
sampling: {samples: 24, temperature: 1.0, top_p: 1.0, max_tokens: 380}
shard_size: 24
overlap: {math500: {path: evaluation.jsonl}}
"""
SLURM = """\
environment: {{SLURM_CONF: {conf}}}
partition: main
evaluate: {{gpus_per_node: 1, hours: 0.5}}
score: {{hours: 0.1}}
collect: {{hours: 0.1}}
"""
LOCAL = "scheduler: local\nevaluate: {tasks_per_node: 2}\n"
HERE = ("cluster=here.yaml", "shard_size=72")
SAMPLES = "evaluation/step_000000/log/*.jsonl"
SHARED = "Of all the positive numbers that are smaller than seven take away five and add"


def build(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type `python -m reprokit.data.build` in `folder`."""
    typed = [sys.executable, "-m", "reprokit.data.build", *words]
    variables = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"}
    return subprocess.run(typed, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)


def built(folder: Path, *words: str) -> str:
    """What the command prints when all goes well."""
    done = build(folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def questions() -> list[dict[str, str]]:
    """72 whose answers are 1 to 6, of which the teacher knows five, and some that cannot be asked."""
    asked = [{"problem": f"What is {n} minus {n} plus {n % 6 + 1}?", "answer": f"{n % 6 + 1}"} for n in range(71)]
    asked.append({"problem": f"{SHARED} one.", "answer": "3"})
    others = [("What  is 0 minus 0\nplus 1?", "1"), ("Prove it.", "proof"), ("And?", ""), ("", "1"), ("So?", "}{")]
    return asked + [{"problem": problem, "answer": answer} for problem, answer in others]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    make_teacher(folder / "teacher")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions()))
    other = {"problem": f"{SHARED} two.", "solution": "\\boxed{4}", "answer": "4", "subject": "", "unique_id": "shared"}
    (folder / "evaluation.jsonl").write_text(json.dumps(other))
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data set was built on this machine, all questions in one shard that two engines share."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "here.yaml").write_text(LOCAL)
    shown = built(folder, f"dataset={recipe}", *HERE)
    assert "Tiny-CoT: 30 rows" in shown
    return folder


def made_in(folder: Path) -> DatasetDirectory:
    return DatasetDirectory(folder / "datasets" / "Tiny-CoT")


def logged(directory: DatasetDirectory) -> Counter[int]:
    """Samples in the logs of each shard."""
    lines: Counter[int] = Counter()
    for shard in range(3):
        lines[shard] = sum(path.read_bytes().count(b"\n") for path in directory.shard(shard).root.glob(SAMPLES))
    return lines


def wait_until_done(slurm: dict[str, str]) -> None:
    """Wait until nothing is queued; a controller that is too busy to answer is asked again."""

    def is_done() -> bool:
        time.sleep(1)
        shown = subprocess.run(["squeue", "-h"], env={**os.environ, **slurm}, capture_output=True, text=True)
        return shown.returncode == 0 and not shown.stdout.strip()

    wait_for(is_done, patience=400)


def workers(ids: dict[str, str], shard: int) -> list[psutil.Process]:
    """The processes that draw samples for a shard, once they are there."""
    named = {"SLURM_ARRAY_JOB_ID": ids["sample"], "SLURM_ARRAY_TASK_ID": str(shard)}
    return [
        process
        for process in psutil.process_iter(["environ", "cmdline"])
        if "submitit.core._submit" in (process.info["cmdline"] or [])
        and "srun" not in process.info["cmdline"][0]
        and named.items() <= (process.info["environ"] or {}).items()
    ]


def kill(directory: DatasetDirectory, ids: dict[str, str], shard: int) -> None:
    """`kill -9` of the process that draws samples for a shard, in the middle of that.

    (`scancel` gives it some seconds, in which so small a shard is finished.)
    """
    found: list[psutil.Process] = []
    wait_for(lambda: bool(found.extend(workers(ids, shard)) or found), patience=200)
    wait_for(lambda: logged(directory)[shard] > 10, patience=200)
    for process in found:
        process.kill()


def test_elements_that_are_killed_change_nothing_in_the_data_set(
    recipe: Path, undisturbed: Path, slurm: dict[str, str], tmp_path: Path
) -> None:
    """Two of three elements are killed with samples in their logs; the same command draws what is missing."""
    (tmp_path / "cluster.yaml").write_text(SLURM.format(conf=slurm["SLURM_CONF"]))
    words = (f"dataset={recipe}", "cluster=cluster.yaml")
    directory = made_in(tmp_path)
    shown = built(tmp_path, *words)
    ids = read_json(directory.run.jobs, SubmittedJobs).ids
    assert list(ids) == ["sample", "verify", "assemble"] and ids["sample"] in shown
    assert "already at work" in built(tmp_path, *words)

    with ThreadPoolExecutor() as both:
        list(both.map(partial(kill, directory, ids), (0, 1)))
    wait_until_done(slurm)
    kept = logged(directory)
    assert 10 < kept[0] < 24 * 24 and 10 < kept[1] < 24 * 24 and kept[2] == 0, kept
    assert not directory.file.exists() and not directory.report.exists()
    logs = "".join(path.read_text() for path in directory.run.logs.glob("*/assemble/*_log.out"))
    assert "2 of 3 shards are not sampled and verified, such as 0, 1" in logs

    built(tmp_path, *words)
    again = read_json(directory.run.jobs, SubmittedJobs).ids
    wait_until_done(slurm)
    jobs = {start.job for start in read_starts(directory.run)}
    for name in ("sample", "verify"):  # of the one shard that was finished nothing was done again
        assert sum(job.startswith(f"{again[name]}_") for job in jobs) == 2, jobs
    assert sha256_of_file(directory.file) == sha256_of_file(made_in(undisturbed).file)
    assert "is complete; nothing was run again" in built(tmp_path, *words)
    first, second = (read_json(made_in(where).report, BuildReport) for where in (tmp_path, undisturbed))
    assert (first.questions, first.responses, first.lengths) == (second.questions, second.responses, second.lengths)


def test_rows_have_right_answers_of_the_samples_that_were_drawn(undisturbed: Path) -> None:
    directory = made_in(undisturbed)
    table = pq.read_table(directory.file)
    assert table.column_names == ["message", "response", "advantage", "answer"]
    drawn: dict[str, set[str]] = {}
    shard = directory.shard(0)
    contents = {item.id: item.messages[0]["content"] for item in read_json_lines(shard.items("_questions"), Item)}
    for sample in read_json_lines(shard.samples(0, "_questions"), Sample):
        drawn.setdefault(contents[sample.item], set()).add(sample.text)
    prompts = set()
    for row in table.to_pylist():
        prompt = row["message"][0]["content"]
        assert row["message"] == [{"role": "user", "content": prompt}] and row["advantage"] == 1.0
        assert prompt.endswith("\nPlease reason step by step, and put your final answer within \\boxed{}.")
        assert row["response"] in drawn[prompt] and row["response"].startswith("<think>w")
        assert row["response"].endswith(f"\\boxed{{{row['answer']}}}") and row["answer"] in "12345"
        prompts.add(prompt)
    assert len(prompts) == 30
    assert [row.response for row in rows.from_file(directory.file)] == table["response"].to_pylist()


def test_the_report_accounts_for_every_question_and_response(undisturbed: Path) -> None:
    directory = made_in(undisturbed)
    report = read_json(directory.report, BuildReport)
    assert sum(report.questions.values()) == len(questions()) and report.questions["kept"] == 30
    once = ["duplicate question", "no text", "answer that math-verify cannot read"]
    assert {reason: report.questions[reason] for reason in once} == dict.fromkeys(once, 1)
    assert report.questions["no final answer"] == 2
    unsolved = sum(number for reason, number in report.questions.items() if reason.startswith("no right response"))
    assert unsolved >= 11  # those whose answer is 6
    assert sum(report.responses.values()) == 72 * 24
    assert set(report.responses) == {"correct", "wrong answer", "truncated", "no finished thinking"}
    responses = pq.read_table(directory.file)["response"].to_pylist()
    # One token per byte and per tag, and the one that ends the response.
    tokens = [
        len(cut(response)) + len(response.partition("</think>")[0]) - len("<think>") + 3 for response in responses
    ]
    assert report.lengths.unit == "tokens" and report.lengths.mean == pytest.approx(sum(tokens) / 30, abs=0.01)
    found = report.overlap["math500"]
    kept = any(SHARED in row["message"][0]["content"] for row in pq.read_table(directory.file).to_pylist())
    assert (found.items, found.rows, found.items_found) == (1, int(kept), int(kept))


def test_fewer_rows_or_other_seeds_need_no_teacher(undisturbed: Path, recipe: Path) -> None:
    """Only the last stage runs again; rows that are left keep their responses and their order."""
    directory = made_in(undisturbed)
    before = pq.read_table(directory.file)["response"].to_pylist()
    shown = built(undisturbed, f"dataset={recipe}", *HERE, "rows=10")
    assert "sample: started" not in shown and "verify: started" not in shown and "Tiny-CoT: 10 rows" in shown
    assert pq.read_table(directory.file)["response"].to_pylist() == before[:10]
    built(undisturbed, f"dataset={recipe}", *HERE, "rows=10", "seed=1")
    assert pq.read_table(directory.file)["response"].to_pylist() != before[:10]
    built(undisturbed, f"dataset={recipe}", *HERE)
    assert pq.read_table(directory.file)["response"].to_pylist() == before


def test_what_is_damaged_is_made_again_from_what_it_was_made_of(undisturbed: Path, recipe: Path) -> None:
    directory = made_in(undisturbed)
    before = sha256_of_file(directory.file)
    words = (f"dataset={recipe}", *HERE)
    assert "lacks nothing of sample, verify; nothing was run again" in built(
        undisturbed, *words, "stages=verify,sample"
    )
    directory.file.write_bytes(directory.file.read_bytes()[:-100])
    shown = built(undisturbed, *words)
    assert "assemble: started" in shown and "verify: started" not in shown and sha256_of_file(directory.file) == before
    directory.verdicts(0).write_text("{")
    shown = built(undisturbed, *words)
    assert "verify: started" in shown and "sample: started" not in shown and sha256_of_file(directory.file) == before


def test_other_questions_in_the_same_folder_are_refused(undisturbed: Path, recipe: Path) -> None:
    done = build(undisturbed, f"dataset={recipe}", *HERE, "questions.seed=7", "sampling.top_k=5")
    assert done.returncode == 2 and "questions.seed: 0 -> 7" in done.stderr and "sampling.top_k: 20 -> 5" in done.stderr
    assert "name=" in done.stderr
    file = recipe.parent / "questions.jsonl"
    before = file.stat()
    try:
        os.utime(file, (time.time(), time.time()))
        changed = build(undisturbed, f"dataset={recipe}", *HERE)
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.returncode == 2 and f"{file} has changed" in changed.stderr


def test_more_rows_than_solved_questions_is_a_clear_error(undisturbed: Path, recipe: Path) -> None:
    before = sha256_of_file(made_in(undisturbed).file)
    done = build(undisturbed, f"dataset={recipe}", *HERE, "rows=70")
    assert done.returncode == 2 and "questions have a right response" in done.stderr
    assert "sampling.samples" in done.stderr and "Traceback" not in done.stderr
    assert sha256_of_file(made_in(undisturbed).file) == before
