"""What judges replied, one line per question: written as it comes, read by scoring. Needs no GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import msgspec

from reprokit.benchmarks.interface import Question, Reply
from reprokit.evaluation.judges import sources
from reprokit.recipe.schema import Recipe
from reprokit.records.files import cut_off_half_a_line
from reprokit.records.run_directory import RunDirectory


class Judgement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line of a file of replies: digest of the question, the reply, whether the judge saw the body only in part."""

    question: str
    reply: str | float
    cut: bool = False


def question_digest(question: Question) -> str:
    """Hex sha256 of all fields of a question: the same question has one reply, whoever asks it."""
    return hashlib.sha256(msgspec.json.encode(question)).hexdigest()


def judges_for(run: RunDirectory, recipe: Recipe, benchmark: str) -> dict[str, str]:
    """The `judges` argument of `Benchmark.questions`: key -> prompt of the recipe, empty for the benchmark's own.

    Raises:
        UserError: a judge with a prompt of its own was not prepared.
    """
    named = {key: sources.section_of(recipe, key).prompt is not None for key in sources.keys_of(recipe, benchmark)}
    return {key: sources.read(run, recipe, key).prompt if own else "" for key, own in named.items()}


def describe(run: RunDirectory, recipe: Recipe, key: str) -> dict[str, str]:
    """`name` and `digest` of a judge for records; no path of this machine and no credentials.

    Raises:
        UserError: the judge was not prepared.
    """
    source = sources.read(run, recipe, key)
    return {"name": source.name, "digest": source.digest}


class Replies(Mapping[str, Reply]):
    """Replies of one judge so far, by the digest of the question; those of another judge under its key are not read.

    `cut` counts the replies to a body that the judge saw only in part.

    Raises:
        UserError: the judge was not prepared.
    """

    def __init__(self, run: RunDirectory, recipe: Recipe, key: str) -> None:
        digest = sources.read(run, recipe, key).digest
        self._judgements = {
            judgement.question: judgement
            for path in sorted(run.judgements.glob(f"{key}.{digest}.*.jsonl"))
            for judgement in _read(path)
        }

    def __getitem__(self, question: str) -> Reply:
        return self._judgements[question].reply

    def __iter__(self) -> Iterator[str]:
        return iter(self._judgements)

    def __len__(self) -> int:
        return len(self._judgements)

    @property
    def cut(self) -> int:
        return sum(judgement.cut for judgement in self._judgements.values())


class ReplyLog:
    """The file to which one worker appends the replies of one judge; a damaged last line is cut off.

    A reply that was added is on disk, whatever then happens to this process.
    """

    def __init__(self, run: RunDirectory, key: str, digest: str, rank: int) -> None:
        path = run.judgements / f"{key}.{digest}.{rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            cut_off_half_a_line(path)
        self._stream = path.open("ab")

    def add(self, judgement: Judgement) -> None:
        self._stream.write(msgspec.json.encode(judgement) + b"\n")
        self._stream.flush()

    def __enter__(self) -> ReplyLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def _read(path: Path) -> Iterator[Judgement]:
    """Lines that are whole; the last one may not be, where a worker was killed or is writing now."""
    decoder = msgspec.json.Decoder(Judgement)
    with path.open("rb") as stream:
        for line in stream:
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # its question is asked again
