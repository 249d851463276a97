"""Where everything of a run lies, and what tells that a piece is complete.

A piece counts as there only when the file that is written last is there: `manifest.json` of a checkpoint or a
resumable state, whose files must have the sizes that it lists, `result.json` of a cell (run x step x benchmark),
`report.json` of the tokenised data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import msgspec

from reprokit.errors import UserError
from reprokit.records import manifest as manifests
from reprokit.records.manifest import Manifest


class LeftOut(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What failed in a way that trying again cannot mend: a stage, or its elements of some checkpoints.

    steps: those of the checkpoints; none means the whole stage. failure: value of `cluster.failures.Failure`.
    """

    stage: str
    steps: list[int] = []
    failure: str
    reason: str


class SubmittedJobs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`jobs.json`: the Slurm ids of the last submission, whom to ask about them, and how the back-fill is getting on.

    ids: by stage; further arrays of a stage are `evaluate.2`, `evaluate.3`. launch: name of their folder below `logs/`.
    stages: what may be submitted for this run. code: sha256 of the snapshot that they run. released: whether they were
    let go after all of them had been submitted. command: words of the launch, for people. round: counts submissions
    since a person launched, `fruitless` those in a row that left nothing new on disk. done: mark of what was on disk
    when this round was submitted. excluded: nodes at fault.
    """

    cluster: str
    slurm_conf: Optional[str] = None
    ids: dict[str, str]
    launch: str = ""
    stages: list[str] = []
    code: str = ""
    released: bool = True
    command: str = ""
    round: int = 1
    fruitless: int = 0
    done: int = 0
    excluded: list[str] = []
    left_out: list[LeftOut] = []


class Stopped(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`stopped.json`: why the back-fill submits nothing more. when: seconds since 1970."""

    reason: str
    advice: str
    round: int
    when: float


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside `runs/<run name>/`."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs.json"

    @property
    def cluster(self) -> Path:
        """The cluster profile of the last submission, without secrets."""
        return self.root / "cluster.yaml"

    @property
    def stopped(self) -> Path:
        return self.root / "stopped.json"

    @property
    def lock(self) -> Path:
        return self.root / "launch.lock"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def metrics(self) -> Path:
        return self.root / "train" / "metrics.jsonl"

    @property
    def training_complete(self) -> Path:
        """Written when training has reached its end and every checkpoint was saved."""
        return self.root / "train" / "complete.json"

    @property
    def code(self) -> Path:
        """Folder of the snapshots of the code that jobs ran, each named after its content."""
        return self.root / "code"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def progress(self, job: str) -> Path:
        """Where the first task of a job says how far it is."""
        return self.logs / f"{job}.progress.json"

    def checkpoint(self, step: int) -> Path:
        return self.root / "checkpoints" / f"step_{step:06d}"

    def manifest(self, step: int) -> Manifest | None:
        """The manifest of a complete checkpoint, None if there is none."""
        return manifests.read(self.checkpoint(step))

    def state(self, step: int) -> Path:
        """Folder of the resumable state of the training after `step` steps."""
        return self.root / "state" / f"step_{step:06d}"

    def states(self) -> list[int]:
        """Steps of which a folder of a resumable state is there, complete or not, newest first."""
        steps = (step_of(path) for path in (self.root / "state").glob("step_*"))
        return sorted((step for step in steps if step > 0), reverse=True)

    def resume_step(self) -> int:
        """The step after which an interrupted training goes on: that of its newest complete state, 0 without any."""
        return next((step for step in self.states() if manifests.flaw(self.state(step)) is None), 0)

    def has_trained(self) -> bool:
        """Whether a training has left anything here, complete or not."""
        return next(self.made_after(0), None) is not None

    def made_after(self, step: int) -> Iterator[Path]:
        """Folders of results, checkpoints and states of later steps than `step`, in this order."""
        for kind in ("evaluation", "checkpoints", "state"):
            yield from (path for path in sorted((self.root / kind).glob("step_*")) if step_of(path) > step)

    def weights(self, step: int) -> Path:
        """Folder with the weights of a complete checkpoint.

        Raises:
            UserError: the checkpoint is not there or not complete.
        """
        manifest = self.manifest(step)
        if manifest is None:
            reason = manifests.flaw(self.checkpoint(step))
            raise UserError(
                f"there is no complete checkpoint of step {step}: {reason}. Launch again for what can be made."
            )
        return Path(manifest.weights) if manifest.weights else self.checkpoint(step)

    def is_prepared(self, benchmarks: Iterable[str], trains: bool, steps: Iterable[int] = (0,)) -> bool:
        """Whether tokenizer, tokens (if the run trains), problems and the checkpoints of `steps` are there."""
        needed = [self.tokenizer / "config.json"]
        needed += [place(name) for name in benchmarks for place in (self.items, self.items_source)]
        needed += [self.data / "report.json"] if trains else []
        checkpoints = all(self.manifest(step) is not None for step in steps)
        return checkpoints and all(path.exists() for path in needed)

    def has_evaluated(self) -> bool:
        """Whether there is anything of an evaluation, be it only its problems."""
        return (self.root / "evaluation").is_dir()

    def items(self, benchmark: str) -> Path:
        """The problems of a benchmark as they are put to every checkpoint."""
        return self.root / "evaluation" / "items" / f"{benchmark}.jsonl"

    def items_source(self, benchmark: str) -> Path:
        """Where the problems are from: hub id, revision, sha256 of the files."""
        return self.root / "evaluation" / "items" / f"{benchmark}.source.json"

    def evaluated(self, step: int) -> Path:
        """Folder of what a checkpoint has answered."""
        return self.root / "evaluation" / f"step_{step:06d}"

    def cell(self, step: int, benchmark: str) -> Path:
        """Folder of one run x step x benchmark."""
        return self.evaluated(step) / benchmark

    def samples(self, step: int, benchmark: str) -> Path:
        """The samples of a cell, all of them."""
        return self.cell(step, benchmark) / "samples.jsonl"

    def other_samples(self, step: int, benchmark: str) -> Path:
        """Samples that were drawn for a cell and are not asked for now: of more problems, or other settings."""
        return self.cell(step, benchmark) / "other_samples.jsonl"

    def generation(self, step: int, benchmark: str) -> Path:
        """Says what the samples are; written after them."""
        return self.cell(step, benchmark) / "generation.json"

    def result(self, step: int, benchmark: str) -> Path:
        return self.cell(step, benchmark) / "result.json"

    def sample_logs(self, step: int) -> Path:
        """Folder in which the workers of a checkpoint log samples as they finish."""
        return self.evaluated(step) / "log"

    @property
    def judgements(self) -> Path:
        """Folder with the replies of the judges, one file per judge and worker."""
        return self.root / "evaluation" / "judgements"

    def judge(self, key: str) -> Path:
        """Folder of a judge model whose weights were made here, with random weights."""
        return self.root / "judges" / key


def step_of(folder: Path) -> int:
    """The step of a folder `step_NNNNNN`; -1 for a name that is none."""
    number = folder.name.removeprefix("step_")
    return int(number) if number.isdecimal() else -1
