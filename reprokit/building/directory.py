"""Where everything of a data set lies: `datasets/<name>/`.

```
recipe.yaml              in full, with where each value comes from
questions.jsonl          what the teacher is asked
prepared.json            written last by the prepare stage: what was asked for, sources, rejected questions, shards
tokenizer/               counts lengths where there is no teacher
teacher/                 run folder with the teacher's tokenizer, a reference to its weights, and evaluation sets
shards/0042/             run folder of some questions; samples.jsonl in it, as of any evaluation
shards/0042/verdicts.json    which responses are right
<name>.parquet           the data set
report.json              written last: what was kept, what was rejected and why, lengths, overlap
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import msgspec

from reprokit.records.files import DamagedFileError, read_json
from reprokit.records.run_directory import RunDirectory


class Prepared(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`prepared.json`.

    `asked` is what the recipe says of what does not change between launches; `overlap` has the sha256 of the problems
    of each evaluation set; `sources` have hub ids, revisions and the
    sha256 of files; `files` are local paths by source, for jobs without a network; `stamps` are size and time of those
    that are not from the hub, by path. `rejected`: reason -> questions.
    """

    asked: dict[str, Any]
    overlap: dict[str, Optional[str]]
    sources: dict[str, Any]
    files: dict[str, list[str]]
    stamps: dict[str, str]
    rejected: dict[str, int] = msgspec.field(default_factory=dict)
    questions: int = 0
    shards: int = 0


class Verdict(msgspec.Struct, kw_only=True, array_like=True):
    """What became of one sample of a question."""

    item: str
    sample: int
    verdict: str
    tokens: int


class Verdicts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`verdicts.json`: of the samples whose `generation.json` has the sha256 `generation`, by this scorer."""

    generation: str
    scorer: int
    verdicts: list[Verdict]
    failures: list[str]


@dataclass(frozen=True)
class DatasetDirectory:
    """Paths inside `datasets/<name>/`."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def run(self) -> RunDirectory:
        """The folder as what launching needs of a run: logs, lock, ids of the jobs."""
        return RunDirectory(self.root)

    @property
    def questions(self) -> Path:
        return self.root / "questions.jsonl"

    @property
    def prepared(self) -> Path:
        return self.root / "prepared.json"

    @property
    def teacher(self) -> RunDirectory:
        return RunDirectory(self.root / "teacher")

    @property
    def tokenizer(self) -> Path:
        """Of the lengths in the report, where there is no teacher."""
        return self.root / "tokenizer"

    def shard(self, number: int) -> RunDirectory:
        return RunDirectory(self.root / "shards" / f"{number:04d}")

    def verdicts(self, number: int) -> Path:
        return self.shard(number).root / "verdicts.json"

    @property
    def file(self) -> Path:
        return self.root / f"{self.root.name}.parquet"

    @property
    def report(self) -> Path:
        return self.root / "report.json"

    def read_prepared(self) -> Optional[Prepared]:
        """None before it is there."""
        try:
            return read_json(self.prepared, Prepared)
        except (FileNotFoundError, DamagedFileError):
            return None
