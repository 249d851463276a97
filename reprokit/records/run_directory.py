"""Where everything of a run lies, and what tells that a piece is complete.

A piece counts as there only when the file that is written last is there: `manifest.json` of a checkpoint,
`result.json` of a cell (run x step x benchmark), `report.json` of the tokenised data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import msgspec

from reprokit.records.files import read_json


class Manifest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`manifest.json` of a checkpoint: `files` maps each file to its sha256.

    `weights` names another folder when the checkpoint is a base model that lies elsewhere (then `files` is empty),
    `revision` its hub commit.
    """

    step: int
    files: dict[str, str] = msgspec.field(default_factory=dict)
    weights: Optional[str] = None
    revision: Optional[str] = None


class SubmittedJobs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`jobs.json`: the Slurm ids of the last launch, by stage, and whom to ask about them."""

    cluster: str
    slurm_conf: Optional[str] = None
    ids: dict[str, str]


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
    def logs(self) -> Path:
        return self.root / "logs"

    def progress(self, job: str) -> Path:
        """Where the first task of a job says how far it is."""
        return self.logs / f"{job}.progress.json"

    def checkpoint(self, step: int) -> Path:
        return self.root / "checkpoints" / f"step_{step:06d}"

    def manifest(self, step: int) -> Manifest | None:
        """The manifest of a complete checkpoint, None if there is none."""
        path = self.checkpoint(step) / "manifest.json"
        return read_json(path, Manifest) if path.exists() else None

    def has_trained(self) -> bool:
        """Whether a training has left anything here, complete or not."""
        kinds = ("checkpoints", "evaluation")
        return any(path.name != self.checkpoint(0).name for kind in kinds for path in (self.root / kind).glob("step_*"))

    def weights(self, step: int) -> Path:
        """Folder with the weights of a complete checkpoint.

        Raises:
            FileNotFoundError: the checkpoint is not there or not complete.
        """
        manifest = self.manifest(step)
        if manifest is None:
            raise FileNotFoundError(f"{self.checkpoint(step)}: no complete checkpoint (manifest.json is missing)")
        return Path(manifest.weights) if manifest.weights else self.checkpoint(step)

    def is_prepared(self, benchmarks: Iterable[str]) -> bool:
        """Whether base model, tokenizer, tokens and the problems of all benchmarks are there."""
        needed = [self.tokenizer / "config.json", self.data / "report.json", *map(self.items, benchmarks)]
        return self.manifest(0) is not None and all(path.exists() for path in needed)

    def items(self, benchmark: str) -> Path:
        """The problems of a benchmark as they are put to every checkpoint."""
        return self.root / "evaluation" / "items" / f"{benchmark}.jsonl"

    def cell(self, step: int, benchmark: str) -> Path:
        """Folder of one run x step x benchmark."""
        return self.root / "evaluation" / f"step_{step:06d}" / benchmark

    def result(self, step: int, benchmark: str) -> Path:
        return self.cell(step, benchmark) / "result.json"
