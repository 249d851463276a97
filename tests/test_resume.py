"""A training that is killed and goes on is the training that was never stopped. `pytest -s` prints what was lost."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from reprokit.records import interrupted, manifest
from reprokit.records.files import read_json, write_json, write_text
from reprokit.records.run_directory import RunDirectory
from reprokit.training import state
from tests.conftest import launch
from tests.forked_ranks import LEFT, Attempt, Job

RECIPE = """\
name: tiny
model:
  name: Qwen3-tiny
  config: {model_type: qwen3, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
    head_dim: 16, intermediate_size: 48, tie_word_embeddings: false, attention_dropout: 0.1,
    max_position_embeddings: 512}
  tokenizer_vocab_size: 350
data: {name: Countdown-CoT, generator: countdown, rows: 96, max_length: 256}
training: {learning_rate: 3.0e-3, epochs: 1, global_batch_size: 8, micro_batch_size: 1, precision: fp32,
  gradient_checkpointing: false, checkpoint_steps: [5, 12], state_every: 3}
evaluation: {max_tokens: 8, benchmarks: {chain_sum: {items: 1}}}
"""
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32, in several files": {"shard_bytes": 20_000},
    "fp32, offloaded": {"training": {"cpu_offload": True}},
    "fp32, small parameters kept whole": {"threshold": 100_000},
    "bf16, standard": {"training": {"precision": "bf16"}},
    "bf16, official": {"training": {"precision": "bf16", "arithmetic": "official"}},
}
TOLD = ("fp32, offloaded", "bf16, standard", "bf16, official")  # those that are told to leave too
# What a step says that does not depend on the clock or the machine.
COLUMNS = ("step", "epoch", "loss", "learning_rate", "gradient_norm", "clipped", "tokens", "target_tokens", "padding")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("prepared")
    write_text(folder / "tiny.yaml", RECIPE)
    done = launch(folder, "recipe=tiny.yaml", "cluster=local", "stages=prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    return RunDirectory(folder / "runs" / "tiny")


def fresh(prepared: RunDirectory, root: Path) -> str:
    """A run folder in which everything is prepared and nothing trained."""
    shutil.copytree(prepared.root, root)
    return str(root)


def train(jobs: list[Job]) -> list[list[Attempt]]:
    """Run the jobs, of which the last attempts must succeed."""
    outcomes, said = attempt(jobs)
    for attempts in outcomes:
        assert set(attempts[-1].codes) == {0}, said[-3000:]
    return outcomes


def attempt(jobs: list[Job]) -> tuple[list[list[Attempt]], str]:
    """What became of the jobs, and everything that their ranks said."""
    command = [sys.executable, "-m", "tests.forked_ranks", json.dumps([asdict(job) for job in jobs])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [[Attempt(**one) for one in job] for job in json.loads(done.stdout.splitlines()[-1])]
    return outcomes, done.stdout + done.stderr


def metrics(run: RunDirectory) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{name: line[name] for name in COLUMNS} for line in lines]


def digests(run: RunDirectory) -> dict[str, str]:
    """sha256 of every file of every checkpoint."""
    found = {}
    for folder in sorted((run.root / "checkpoints").iterdir()):
        files = read_json(folder / manifest.NAME, manifest.Manifest).files
        found |= {f"{folder.name}/{name}": entry.sha256 for name, entry in files.items()}
    return found


def test_a_killed_training_goes_on_bit_for_bit(prepared: RunDirectory, tmp_path: Path) -> None:
    jobs = []
    for name, variant in VARIANTS.items():
        jobs.append(Job(fresh(prepared, tmp_path / name / "whole"), [2], **variant))
        jobs.append(Job(fresh(prepared, tmp_path / name / "killed"), [2], kills=1, kill_at=8, **variant))
    for name in TOLD:
        jobs.append(
            Job(fresh(prepared, tmp_path / name / "told"), [2], kills=1, kill_at=4, told=True, **VARIANTS[name])
        )
    complete = RunDirectory(tmp_path / TOLD[0] / "whole")
    jobs.append(Job(str(complete.root), [2], **VARIANTS[TOLD[0]]))
    leaves = train(jobs)[-len(TOLD) - 1 : -1]
    assert not list(complete.root.glob("interrupted_*")), "a complete training that is started again is left alone"
    for name in VARIANTS:
        whole, killed = RunDirectory(tmp_path / name / "whole"), RunDirectory(tmp_path / name / "killed")
        lost = [json.loads(line)["step"] for line in (killed.root / "train/metrics.attempt_01.jsonl").open()]
        assert min(lost) in (4, 7, 10), "it went on from a state, not from the start"
        assert metrics(killed) == metrics(whole)
        assert digests(killed) == digests(whole)
        losses = [line["loss"] for line in metrics(whole)]
        assert len(losses) == 12 and losses[-1] < losses[0]
        print(f"\n{name}: went on after step {min(lost) - 1}, 12 losses, last {losses[-1]!r}, equal", end="")
    for name, attempts in zip(TOLD, leaves, strict=True):
        whole, told = RunDirectory(tmp_path / name / "whole"), RunDirectory(tmp_path / name / "told")
        assert attempts[0].codes == [LEFT, LEFT] and attempts[0].kept == attempts[0].reached >= 4
        assert metrics(told) == metrics(whole) and digests(told) == digests(whole)


def test_another_number_of_ranks_goes_on(prepared: RunDirectory, tmp_path: Path) -> None:
    for name in ("whole", "two_one", "one_three"):
        config = Path(fresh(prepared, tmp_path / name)) / "checkpoints/step_000000/config.json"
        drop_dropout(config)
    jobs = [
        Job(str(tmp_path / "whole"), [2]),
        Job(str(tmp_path / "two_one"), [2, 1], kills=1, kill_at=8),
        Job(str(tmp_path / "one_three"), [1, 3], kills=1, kill_at=8),
    ]
    train(jobs)
    expected = [line["loss"] for line in metrics(RunDirectory(tmp_path / "whole"))]
    for name in ("two_one", "one_three"):
        run = RunDirectory(tmp_path / name)
        losses = [line["loss"] for line in metrics(run)]
        worst = max(abs(one - other) / other for one, other in zip(losses, expected, strict=True))
        print(f"\n{name}: largest relative difference of a loss {worst:.1e}", end="")
        assert worst < 1e-5
        assert (run.root / "train/metrics.attempt_01.jsonl").exists()


def drop_dropout(config: Path) -> None:
    """Dropout draws on each rank: with other ranks it is another training."""
    folder = config.parent
    changed = {**json.loads(config.read_text()), "attention_dropout": 0.0}
    write_json(config, changed)
    made = read_json(folder / manifest.NAME, manifest.Manifest)
    made.files["config.json"] = manifest.entry(config)
    write_json(folder / manifest.NAME, made)


def test_twenty_kills_change_nothing(prepared: RunDirectory, tmp_path: Path) -> None:
    """SIGKILL at random moments, half-written states and checkpoints included, until the training is through.

    Told to leave instead, by a signal to one rank or to all, it does not lose a single step.
    """
    longer = {"training": {"epochs": 10, "checkpoint_steps": list(range(5, 121, 5))}}
    whole, killed, told = (RunDirectory(tmp_path / name) for name in ("whole", "killed", "told"))
    jobs = [
        Job(fresh(prepared, whole.root), [2], **longer),
        Job(fresh(prepared, killed.root), [2], kills=20, **longer),
        Job(fresh(prepared, told.root), [2], kills=8, told=True, **longer),
    ]
    _, attempts, leaves = train(jobs)
    deaths = [attempt for attempt in attempts if -9 in attempt.codes]
    lost = [attempt.reached - attempt.kept for attempt in deaths]
    print(
        f"\n{len(deaths)} kills, {sum(attempt.writing for attempt in deaths)} of them while a checkpoint or state was "
        f"written; steps lost: median {statistics.median(lost)}, max {max(lost)} (a state every 3 steps)"
    )
    assert len(deaths) == 20 and any(attempt.writing for attempt in deaths)
    assert max(lost) <= 3
    assert metrics(killed) == metrics(whole)
    assert [line["step"] for line in metrics(killed)] == list(range(1, 121))
    assert digests(killed) == digests(whole)
    assert killed.states() == whole.states() == [117, 114]
    assert not list(killed.root.glob("*/.step_*")), "nothing half-written is left"
    left = leaves[:-1]
    print(f"\ntold to leave {len(left)} times, after steps {[attempt.reached for attempt in left]}; none lost", end="")
    assert all(attempt.codes == [LEFT, LEFT] and attempt.kept == attempt.reached for attempt in left)
    assert any(attempt.reached % 3 for attempt in left), "states off the grid too"
    assert metrics(told) == metrics(whole) and digests(told) == digests(whole)
    assert not list(told.root.glob("train/metrics.attempt_*")) and not list(told.root.glob("interrupted_*"))


def test_damaged_states_are_passed_over_and_others_refused(prepared: RunDirectory, tmp_path: Path) -> None:
    """12 steps with states of 6 and 9, then a second training in copies of the run folder without its end."""
    whole = RunDirectory(tmp_path / "whole")
    train([Job(fresh(prepared, whole.root), [2])])
    assert whole.states() == [9, 6]
    runs = {name: RunDirectory(tmp_path / name) for name in ("flipped", "truncated", "changed", "full")}
    for run in runs.values():
        shutil.copytree(whole.root, run.root)
        run.training_complete.unlink()
    flip_a_bit(runs["flipped"].state(9) / "rank_001_of_002.safetensors")
    for step in (6, 9):
        path = runs["truncated"].state(step) / "state.json"
        path.write_bytes(path.read_bytes()[:-1])
    assert runs["flipped"].resume_step() == 9 and runs["truncated"].resume_step() == 0
    outcomes, said = attempt(
        [
            Job(str(runs["flipped"].root), [2]),
            Job(str(runs["truncated"].root), [2]),
            Job(str(runs["changed"].root), [1], training={"learning_rate": 1e-4, "state_every": 4}),
            Job(str(runs["full"].root), [2], training={"state_every": 11}, file_limit=20_000),
        ]
    )
    assert [attempts[-1].codes for attempts in outcomes] == [[0, 0], [0, 0], [1], [1, 1]], said[-3000:]
    assert "state of step 9 is damaged" in said and "rank_001_of_002.safetensors" in said
    assert f"{runs['truncated'].state(6) / 'state.json'} has" in said
    for name, resumed in (("flipped", 6), ("truncated", 0)):
        run = runs[name]
        assert metrics(run) == metrics(whole) and digests(run) == digests(whole)
        aside = run.root / "interrupted_01"
        assert (aside / "state/step_000009").exists() and (aside / "checkpoints/step_000012").exists()
        assert (aside / "checkpoints/step_000005").exists() == (resumed == 0)
    assert "training.learning_rate: 0.003 -> 0.0001" in said and "state_every" not in said
    assert runs["changed"].states() == [9, 6] and len(metrics(runs["changed"])) == 12, "nothing was touched"
    final = runs["full"].state(11)
    assert re.search(
        f"UserError: {final} was not saved: \[Errno 27\] .*rank_001_of_002.*It needs .* GiB; .* GiB free", said
    )
    assert runs["full"].states() == [9, 6]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("step", "end", "kept", "cut"),
    [
        (4, "", [1, 2, 3, 4], 2),
        (6, "", [1, 2, 3, 4, 5, 6], 0),
        (6, '{"step":7,"loss', [1, 2, 3, 4, 5, 6], 1),
        (5, '{"step":7,"loss', [1, 2, 3, 4, 5], 2),
        (9, '{"step":7}', [1, 2, 3, 4, 5, 6], 1),  # without its newline the next line would be joined to it
        (0, "", [], 6),
    ],
)
def test_metrics_are_cut_back_to_the_state(tmp_path: Path, step: int, end: str, kept: list[int], cut: int) -> None:
    run = RunDirectory(tmp_path)
    write_text(run.metrics, "".join(f'{{"step":{number},"loss":1.5}}\n' for number in range(1, 7)) + end)
    before = run.metrics.read_text()
    interrupted.trim_metrics(run, step)
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == kept
    attempts = sorted(run.metrics.parent.glob("metrics.attempt_*.jsonl"))
    assert len(attempts) == (cut > 0)
    if cut:
        assert len(attempts[0].read_text().splitlines()) == cut
        assert run.metrics.read_text() + attempts[0].read_text() == before
        write_text(run.metrics, before)
        interrupted.trim_metrics(run, step)
        assert len(list(run.metrics.parent.glob("metrics.attempt_*.jsonl"))) == 2, "the first is kept"


def test_all_ranks_take_the_newest_state_that_any_of_them_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system shows a new folder to one node before the other."""
    run = RunDirectory(tmp_path)
    for step in (6, 9, 12):
        write_json(run.state(step) / manifest.NAME, manifest.Manifest(step=step))
    write_text(run.state(12) / manifest.NAME, "cut short")
    others: list[Any] = [[9, 6], None, None]  # what rank 1 says: the states it sees, and that the states are whole
    monkeypatch.setattr(state, "_of_ranks", lambda mine, _: [mine, others.pop(0)])
    monkeypatch.setattr(RunDirectory, "states", lambda _: [12, 6])
    assert state.latest(run, 0, 2) == 9


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with manifest.draft(run.state(3), 3, needed=0) as draft:
        write_text(draft.folder / "file", "content")
    for folder in (manifest.aside_of(run.state(6)), manifest.aside_of(run.checkpoint(5))):
        write_text(folder / "half", "writ")
    interrupted.remove_leftovers(run)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")}
    assert left == {"state/step_000003"} and run.resume_step() == 3
    interrupted.remove_needless(run)
    assert not list(tmp_path.glob("*/*")), "a complete training needs none"
