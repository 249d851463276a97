"""Whatever is damaged in a finished run folder: it is told, what can be is mended, and the rest is left alone."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from reprokit.campaign import launching
from reprokit.campaign.collect import collect_into
from reprokit.campaign.graph import Workspace
from reprokit.campaign.launching import Campaign
from reprokit.campaign.mending import damaged_pieces
from reprokit.campaign.submission import read_jobs
from reprokit.cluster.profiles import load_profile
from reprokit.cluster.queue import queued
from reprokit.cluster.snapshot import take
from reprokit.data.report import Histogram, Report
from reprokit.errors import NodeError, UserError
from reprokit.evaluation.judges import replies, sources
from reprokit.evaluation.score_stage import score_run
from reprokit.preparation.benchmark_items import prepare_items
from reprokit.recipe import load
from reprokit.recipe.load import RECIPES
from reprokit.records import interrupted, manifest
from reprokit.records.files import write_bytes, write_json, write_json_lines, write_text
from reprokit.records.result import FINISHED, Sample
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import SampleLog, read_log
from reprokit.stages import STAGES
from tests import test_submission
from tests.conftest import launch
from tests.finished_run import WORDS, finished_run
from tests.test_submission import ALL, mini

cluster = test_submission.cluster
PATIENCE_SECONDS = 120

LOADED = load("mini", WORDS)
RECIPE = LOADED.recipe
STEPS = RECIPE.training.checkpoint_steps
LAST = STEPS[-1]
REPORT = Report(
    rows=20480,
    **dict.fromkeys(("tokens", "target_tokens", "length_min", "length_max", "max_length"), 512),
    **dict.fromkeys(("rows_truncated", "tokens_truncated", "eos_id", "rows_without_system_turn"), 0),
    **dict.fromkeys(("eos_token", "template_preamble", "first_row_prompt", "first_row_target"), ""),
    **dict.fromkeys(("vocabulary", "first_row_prompt_tokens", "first_row_target_tokens"), 1),
    **dict.fromkeys(("length_median", "length_mean"), 512.0),
    length_histogram=Histogram([512, 513], [20480]),
    arrays={},
)


def sealed(folder: Path, step: int, needed: int = 0) -> None:
    with manifest.draft(folder, step, needed) as draft:
        (draft.folder / "model.safetensors").write_text("weights")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, collected, as a training and an evaluation leave it."""
    folder = tmp_path_factory.mktemp("made")
    run = finished_run(folder)
    for step in (0, *STEPS):
        sealed(run.checkpoint(step), step)
    write_text(run.tokenizer / "config.json", "{}")
    write_json(run.data / "report.json", REPORT)
    write_json_lines(run.metrics, [{"step": step, "seconds": 1.0, "tokens": 9} for step in range(1, LAST + 1)])
    write_json(run.training_complete, {"steps": LAST})
    write_json(run.provenance, {"code": {"commit": "c0ffee"}, "device": "cpu"})
    collect_into(folder / "results", run, RECIPE)
    write_json(folder / "figures/index.json", {"figures": [], "read": []})
    return folder


@dataclass
class Place:
    """A copy of the finished run to damage."""

    folder: Path

    @property
    def run(self) -> RunDirectory:
        return Workspace(self.folder).run("mini")

    def look(self, *stages: str) -> tuple[list[str], str]:
        """What a launch would run, by name, and what it says of damage."""
        index = self.folder / "figures/index.json"
        said = Console(file=io.StringIO(), width=1000)
        campaign = Campaign(
            workspace=Workspace(self.folder),
            loaded=LOADED,
            command="recipe=mini",
            cluster="local",
            profile=load_profile("local"),
            stages=stages or tuple(STAGES),
            functions=STAGES,
            figures_current=lambda *_: index.exists(),
        )
        launching.checked_jobs(campaign)
        jobs = launching._mended_jobs(campaign, said)
        assert isinstance(said.file, io.StringIO)
        return [job.name for job in jobs], said.file.getvalue()

    def contents(self) -> dict[str, str]:
        """Digest of every file, by its path."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    return Place(Path(shutil.copytree(made, tmp_path / "w")))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeros(path: Path) -> None:
    """What a power failure leaves on some file systems."""
    path.write_bytes(bytes(path.stat().st_size))


def not_text(path: Path) -> None:
    path.write_bytes(b'{"step": "\xff"}\n')


def empty(path: Path) -> None:
    os.truncate(path, 0)


SCORED = ["score", "collect", "figures"]
PREPARED = ["prepare", "collect", "figures"]
CELL = "runs/mini/evaluation/step_000010/countdown"
ITEMS = "runs/mini/evaluation/items/countdown"
# File, what is run anew, what is said of it.
PIECES: dict[str, tuple[list[str], str]] = {
    f"{CELL}/result.json": (SCORED, "the result of step 10 on countdown is made again"),
    f"{CELL}/generation.json": ([], "the result of step 10 on countdown stands"),
    f"{ITEMS}.source.json": (["prepare", "evaluate", *SCORED], "the problems of countdown are made again"),
    "runs/mini/checkpoints/step_000000/manifest.json": (PREPARED, "checkpoint 0 is made again"),
    "runs/mini/checkpoints/step_000010/manifest.json": ([], "checkpoint 10 is lost, as its training is over"),
    "runs/mini/provenance.json": ([], "provenance.json was damaged: made again from"),
    "results/details/mini.json": (["collect", "figures"], ""),
}


@pytest.mark.parametrize("damage", [cut, zeros, not_text, empty])
@pytest.mark.parametrize("piece", PIECES)
def test_a_damaged_piece_is_told_and_no_other_is_touched(
    place: Place, piece: str, damage: Callable[[Path], None]
) -> None:
    assert place.look() == ([], "")
    before = place.contents()
    damage(place.folder / piece)
    damaged = place.contents()[piece]
    jobs, said = place.look()
    expected, words = PIECES[piece]
    assert jobs == expected and words in said and bool(said) == bool(words)
    after = place.contents()
    whole = before.pop(piece)
    if piece == "runs/mini/provenance.json":
        assert after.pop(piece) == whole and after.pop(f"{piece}.damaged_01") == damaged
    else:
        assert after.pop(piece) == damaged
    assert after == before


@pytest.mark.parametrize(
    ("piece", "jobs"),
    [
        (f"{CELL}/result.json", SCORED),
        (f"{CELL}/generation.json", []),
        (f"{ITEMS}.jsonl", PREPARED),
        (f"{ITEMS}.source.json", ["prepare", "evaluate", *SCORED]),
        ("runs/mini/checkpoints/step_000000/model.safetensors", PREPARED),
        ("runs/mini/checkpoints/step_000010/model.safetensors", []),
        ("runs/mini/tokenizer/config.json", PREPARED),
        ("runs/mini/data/report.json", PREPARED),
        ("results/mini.json", ["collect", "figures"]),
        ("results/details/mini.json", ["collect", "figures"]),
        ("figures/index.json", ["figures"]),
    ],
)
def test_a_piece_that_is_gone_is_made_again_alone(place: Place, piece: str, jobs: list[str]) -> None:
    (place.folder / piece).unlink()
    before = place.contents()
    assert place.look()[0] == jobs
    assert place.contents() == before


def test_a_training_that_has_all_its_checkpoints_is_not_taken_again(place: Place) -> None:
    place.run.training_complete.unlink()
    sealed(place.run.state(320), 320)
    jobs, said = place.look()
    assert jobs == [] and f"the training has taken its {LAST} steps" in said
    assert json.loads(place.run.training_complete.read_text()) == {"steps": LAST} and place.run.states() == []
    assert place.look() == ([], "")


@pytest.mark.parametrize("lack", ["checkpoint", "step", "metrics", "tokens"])
def test_a_training_that_lacks_something_is_not_taken_for_complete(place: Place, lack: str) -> None:
    place.run.training_complete.unlink()
    sealed(place.run.state(320), 320)
    files = {"checkpoint": place.run.checkpoint(480) / "model.safetensors", "step": place.run.metrics}
    files |= {"metrics": place.run.metrics, "tokens": place.run.data / "report.json"}
    if lack == "step":
        files[lack].write_bytes(files[lack].read_bytes().rpartition(b'{"step":640')[0])
    else:
        cut(files[lack])
    jobs, said = place.look()
    assert jobs[:2] == ["prepare", "train"] and not place.run.training_complete.exists()
    assert ("checkpoint 480 is set aside, and saved again by the training" in said) == (lack == "checkpoint")
    assert ("the tokens are made again" in said) == (lack == "tokens")


def test_damaged_states_are_told(place: Place) -> None:
    place.run.training_complete.unlink()
    place.run.metrics.unlink()
    for step in (160, 320):
        sealed(place.run.state(step), step)
    cut(place.run.state(320) / "model.safetensors")
    jobs, said = place.look()
    assert "train" in jobs and "the state of step 320 is passed over, the training goes on from step 160" in said


def test_a_stage_that_is_left_out_is_not_promised(place: Place) -> None:
    cut(place.run.result(10, "countdown"))
    cut(place.run.items_source("chain_sum"))
    jobs, said = place.look("collect")
    assert jobs == ["collect"]
    assert "the result of step 10 on countdown is missing" in said
    assert "the problems of chain_sum are to be made again by the stage prepare" in said


def test_a_judge_of_which_nothing_is_known_is_told(place: Place) -> None:
    asked = load("mini", [*WORDS, f"evaluation.benchmarks.hex_phi.path={RECIPES / 'stand_ins/hex_phi.csv'}"]).recipe
    write_text(sources.path_of(place.run, "harm"), "{")
    (line,) = damaged_pieces(place.run, asked, {"prepare"})
    assert line.startswith("judge harm is made again, and its replies kept: ") and "harm" in line


def test_lines_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    """Metrics are cut there, and a question whose reply is damaged is asked again."""
    run = RunDirectory(tmp_path)
    write_bytes(run.metrics, b'{"step": 1}\n{"step": "\xff"}\n{"step": 3}\n')
    interrupted.trim_metrics(run, 3)
    assert run.metrics.read_bytes() == b'{"step": 1}\n'
    assert b"".join(path.read_bytes() for path in run.metrics.parent.glob("*attempt*")).endswith(b'{"step": 3}\n')
    write_bytes(run.judgements / "a.jsonl", b'{"question":"a","reply":1.0}\n{"question":"\xff"}\n{"question":"b","re')
    assert [judgement.question for judgement in replies._read(run.judgements / "a.jsonl")] == ["a"]


@pytest.mark.parametrize("name", ["jobs", "stopped"])
def test_what_earlier_jobs_left_damaged_is_put_away(place: Place, name: str) -> None:
    path: Path = getattr(place.run, name)
    write_text(path, '{"cluster": "h2')
    jobs, said = place.look()
    assert jobs == [] and f"{path} was damaged: no job of this run waits or runs" in said
    assert not path.exists() and path.with_name(f"{path.name}.damaged_01").read_text() == '{"cluster": "h2'


def test_a_damaged_recipe_is_a_clear_error(place: Place) -> None:
    cut(place.run.recipe)
    with pytest.raises(UserError, match="recipe.yaml, which says what this folder was made with, cannot be read"):
        place.look()
    place.run.recipe.unlink()
    assert place.look() == ([], "")


def test_damaged_provenance_that_nobody_knows_keeps_no_number_back(place: Place) -> None:
    shutil.rmtree(place.folder / "results")
    cut(place.run.provenance)
    assert place.look()[0] == ["collect", "figures"]
    collected = collect_into(place.folder / "results", place.run, RECIPE)
    assert len(collected.results.records) == 12 and "training" not in collected.results.provenance
    assert any("provenance.json cannot be read" in note for note in collected.notes)
    assert place.look()[0] == []


@pytest.mark.parametrize("damage", ["cut", "a line less", "gone"])
def test_damaged_problems_are_prepared_anew_by_the_next_launch(place: Place, damage: str) -> None:
    run = place.run
    items, result = run.items("countdown"), run.result(10, "countdown")
    whole = items.read_bytes()
    before = json.loads(result.read_text())
    result.unlink()
    if damage == "gone":
        items.unlink()
    else:
        items.write_bytes(whole[: len(whole) // 2 if damage == "cut" else whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(UserError, match="Launch again: the problems of countdown are prepared anew"):
        score_run(run, RECIPE, run.progress("score"))
    assert place.look()[0][0] == "prepare"
    prepare_items(run, RECIPE)
    assert items.read_bytes() == whole
    score_run(run, RECIPE, run.progress("score"))
    assert json.loads(result.read_text())["metrics"] == before["metrics"]
    assert place.look()[0] == []


@pytest.mark.parametrize("damage", ["a line cut", "a line less"])
def test_damaged_samples_are_drawn_again_by_another_start(place: Place, damage: str) -> None:
    run = place.run
    for name in ("countdown", "chain_sum"):
        run.result(10, name).unlink()
    samples = run.samples(10, "countdown").read_bytes()
    run.samples(10, "countdown").write_bytes(
        samples[: -9 if damage == "a line cut" else samples.rindex(b"\n", 0, -1) + 1]
    )
    with pytest.raises(NodeError, match=r"countdown: .*samples.jsonl.* is damaged: .*drawn again"):
        score_run(run, RECIPE, run.progress("score"))
    assert run.result(10, "chain_sum").exists(), "the others are scored"
    assert place.look()[0] == ["prepare", "evaluate", "score", "collect", "figures"]


def test_files_from_the_future_are_as_good_as_others(place: Place) -> None:
    """A clock that was wrong when they were written, or was set back since."""
    for path in place.folder.rglob("*"):
        os.utime(path, (4e9, 4e9))
    assert place.look() == ([], "")


# A disk that is full or cannot be written.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def sample(number: int) -> Sample:
    given = {"seed": 0, "request": "", "prompt_tokens": 5, "response_tokens": 7, "seconds": 0.1}
    text = "x" * 40_000
    return Sample(benchmark="b", item=f"i{number}", sample=0, text=text, finish_reason=FINISHED, **given)


def test_a_full_disk_costs_nothing_that_was_written(small_disk: Path) -> None:
    kept, log = small_disk / "kept.json", small_disk / "log" / "1.jsonl"
    write_json(kept, {"a": 1})
    stream = SampleLog(log)
    written = 0
    with pytest.raises(OSError) as full:
        while True:
            stream.append(sample(written))
            written += 1
    assert full.value.errno == errno.ENOSPC and written > 10
    with pytest.raises(OSError):
        write_bytes(kept, bytes(100_000))
    with pytest.raises(UserError, match="No space left.*launch again"):
        sealed(small_disk / "checkpoints" / "step_000001", 1, needed=2_000_000)
    with pytest.raises(UserError, match="the code cannot be copied.*No space left"):
        take(RunDirectory(small_disk / "runs" / "r"))
    assert json.loads(kept.read_text()) == {"a": 1}
    assert not [path for path in small_disk.rglob("*") if path.name.startswith(".")]
    assert [row.item for row in read_log(log, Sample)] == [f"i{number}" for number in range(written)]
    with suppress(OSError):
        stream.close()
    again = SampleLog(log)  # of the next start, which has room
    assert log.read_bytes().endswith(b"\n")
    again.close()


def test_a_disk_that_cannot_be_written_is_a_clear_error(small_disk: Path) -> None:
    run = RunDirectory(small_disk / "runs" / "r")
    write_json(run.provenance, {"a": 1})
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError) as refused:
        write_json(run.provenance, {"a": 2})
    assert refused.value.errno == errno.EROFS and json.loads(run.provenance.read_text()) == {"a": 1}
    with pytest.raises(UserError, match="Read-only file system"):
        sealed(run.checkpoint(1), 1)
    with pytest.raises(UserError, match="the code cannot be copied.*Read-only file system"):
        take(run)


def test_a_folder_that_was_removed_is_not_made_again_by_what_runs_in_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "r")
    run.root.mkdir(parents=True)
    sealed(run.checkpoint(1), 1)
    shutil.rmtree(run.root)
    with pytest.raises(UserError, match=f"step_000002 was not saved: {run.root} was removed"):
        sealed(run.checkpoint(2), 2)
    assert not run.root.exists()


FULL = """\
import sys
from pathlib import Path
from reprokit.records.files import write_json
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_json(Path(sys.argv[1]), {"a": "x" * 5000})
except OSError as error:
    print(error.errno)
"""


def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path: Path) -> None:
    """The same without the right to mount."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EFBIG
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_jobs_that_the_run_folder_forgot_are_found_and_none_is_submitted_twice(cluster: str, tmp_path: Path) -> None:
    words = mini(tmp_path, cluster)
    run = RunDirectory(tmp_path / "runs" / "mini")
    assert launch(tmp_path, *words).returncode == 0
    ids = sorted(job.id for job in queued(cluster))
    assert len(ids) == len(ALL)
    cut(run.jobs)
    again = launch(tmp_path, *words)
    assert "already at work" in again.stdout, again.stdout + again.stderr
    shutil.rmtree(run.root)
    again = launch(tmp_path, *mini(tmp_path, cluster))
    assert "already at work" in again.stdout, again.stdout + again.stderr
    assert sorted(job.id for job in queued(cluster)) == ids
    subprocess.run(["scancel", "--me"], check=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while queued(cluster):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    write_text(run.jobs, "{")
    mended = launch(tmp_path, *words)
    assert "jobs.json was damaged: no job of this run waits or runs" in mended.stdout, mended.stdout + mended.stderr
    assert len(queued(cluster)) == len(ALL) and read_jobs(run) is not None
