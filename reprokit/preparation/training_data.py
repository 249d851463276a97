"""The training rows of a recipe, and their token ids in the run folder."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from reprokit.data import cache, tokens
from reprokit.data import rows as training_rows
from reprokit.data.report import Report
from reprokit.data.rows import Row
from reprokit.errors import UserError
from reprokit.preparation.hub import fetching
from reprokit.recipe.schema import DataSection
from reprokit.records.files import read_json, sha256_of_file, write_json
from reprokit.records.run_directory import RunDirectory


@dataclass(frozen=True)
class DataSource:
    """Rows that are read when asked for, and where they are from.

    `digest` (a sha256) stands for the rows: that of the file, or of the file and the places of a subset, or of the rows
    of a generator. `facts` are for `source.json`; `origin`, for messages, is the file and None for a generator.
    """

    digest: str
    facts: dict[str, Any]
    rows: Callable[[], Iterable[Row]] = field(repr=False)
    origin: str | None = None


def open_source(data: DataSection) -> DataSource:
    """The rows of `data`, fetched or found; a file is not parsed yet, but it is the one that is meant.

    Raises:
        UserError: it cannot be fetched, is not the pinned file, has another number of rows than the recipe says, or
            fewer than the subset.
    """
    facts: dict[str, Any] = {"name": data.name, "hub_id": data.hub_id, "revision": data.revision}
    if data.subset is not None:
        facts |= {"subset": data.subset, "seed": data.seed}
    if data.generator is not None:
        assert data.rows is not None
        rows = list(training_rows.from_generator(data.generator, data.rows, data.seed))
        facts |= {"generator": data.generator, "seed": data.seed, "rows": len(rows)}
        if data.subset is not None:
            rows = list(_at(rows, drawn(len(rows), data.subset, data.seed)))
        return DataSource(cache.digest_of_rows(rows), facts, lambda: rows)
    path = Path(data.path) if data.path is not None else fetch_data(data)
    count = training_rows.count(path)
    digest = sha256_of_file(path)
    if data.sha256 is not None and digest != data.sha256:
        raise UserError(
            f"{path}: sha256 is {digest}, but the recipe pins data.sha256={data.sha256}. This is not the file that the "
            "recipe means: fetch it again, or correct data.sha256 if the new file is wanted."
        )
    if data.rows is not None and count != data.rows:
        raise UserError(f"{path} has {count} rows, but the recipe says data.rows={data.rows}")
    facts |= {"sha256": digest, "rows": count}
    if data.subset is None:
        return DataSource(digest, facts, partial(training_rows.from_file, path), str(path))
    places = drawn(count, data.subset, data.seed)
    digest = hashlib.sha256(json.dumps([digest, places]).encode()).hexdigest()
    origin = f"{path}, the {data.subset} rows drawn with data.seed={data.seed}"
    return DataSource(digest, facts, lambda: _at(training_rows.from_file(path), places), origin)


def drawn(rows: int, subset: int, seed: int) -> list[int]:
    """Places (from 0, increasing) of `subset` of `rows` rows, drawn at random without repetition.

    Raises:
        UserError: there are fewer rows.
    """
    if subset > rows:
        raise UserError(f"data.subset={subset}, but there are only {rows} rows: lower it, or leave it out to take all")
    return sorted(random.Random(seed).sample(range(rows), subset))


def _at(rows: Iterable[Row], places: Iterable[int]) -> Iterator[Row]:
    """The rows at increasing `places`; all rows are read, so that faults of the others are found too."""
    wanted = set(places)
    return (row for place, row in enumerate(rows) if place in wanted)


def prepare_tokens(
    run: RunDirectory, source: DataSource, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Report:
    """Make the token arrays of the run, or take them from the cache that all runs of a folder share.

    Raises:
        UserError: rows, template and length do not fit, see `tokens.build`.
    """
    facts = run.data / "source.json"
    if not (facts.exists() and tokens.is_intact(run.data)):
        inputs = cache.Inputs(
            data=source.digest,
            tokenizer=cache.fingerprint(tokenizer),
            chat_template=str(tokenizer.chat_template),
            max_length=max_length,
        )

        def build(entry: Path) -> None:
            tokens.build(source.rows(), tokenizer, max_length, entry, source.origin)

        shared = run.root.parent / ".tokens"
        found = cache.provide(shared, inputs.key, run.data, build)
        print(f"tokens: {'taken from' if found else 'made and kept in'} {shared / inputs.key}")
        write_json(facts, {**source.facts, "tokens": inputs.key, "made_from": inputs})
    return read_json(run.data / "report.json", Report)


def fetch_data(data: DataSection) -> Path:
    """Local path of a hub data file, downloaded unless it is in the Hugging Face cache.

    Raises:
        UserError: no such file, no permission, or no way to the hub.
    """
    from huggingface_hub import hf_hub_download

    assert data.hub_id is not None and data.file is not None
    what = f"data.hub_id={data.hub_id} file={data.file} (revision {data.revision or 'default'})"
    with fetching(what, "Check the id and the network of this machine, or set data.path to a local file."):
        return Path(hf_hub_download(data.hub_id, data.file, repo_type="dataset", revision=data.revision))
