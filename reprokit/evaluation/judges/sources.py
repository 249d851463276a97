"""Which model a judge is, as the preparation found it: where it lies, its name in records, and a digest of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

import msgspec

from reprokit.errors import UserError
from reprokit.recipe.judges import JUDGES
from reprokit.recipe.schema import JudgeSection, Recipe
from reprokit.records.files import DamagedFileError, read_json
from reprokit.records.run_directory import RunDirectory

VERSION = 1  # of how questions are put to judges, raised when a reply may come out differently
WEIGHTS = (".safetensors", ".bin")
TEXTS = (".json", ".jinja", ".txt", ".model")  # configuration, tokenizer, chat template
SAMPLES, SAMPLE_BYTES = 16, 1 << 16  # of the content of a weight file


class Source(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`source.json` of a judge, written last by the preparation.

    `asked` is the section of the recipe; `name` has no path of this machine and no credentials. `folder` is None for
    an endpoint, `revision` the commit of a hub model, `prompt` the text of the file that the recipe names.
    """

    asked: dict[str, Any]
    name: str
    digest: str
    folder: Optional[str] = None
    revision: Optional[str] = None
    prompt: str = ""


def path_of(run: RunDirectory, key: str) -> Path:
    """Where the source of a judge is written."""
    return run.judge(key) / "source.json"


def section_of(recipe: Recipe, key: str) -> JudgeSection:
    """What the recipe says of a judge; nothing said means the default model."""
    return recipe.evaluation.judges.get(key) or JudgeSection()


def asked_of(recipe: Recipe, key: str) -> dict[str, Any]:
    """The section of a judge as plain data; which variable holds the key of an endpoint does not change the judge."""
    asked = dataclasses.asdict(section_of(recipe, key))
    del asked["api_key_variable"]
    if asked["path"] is None and asked["endpoint"] is None and asked["config"] is None:
        asked["hub_id"] = asked["hub_id"] or JUDGES[key].hub_id
    return asked


def keys_of(recipe: Recipe, benchmark: str) -> list[str]:
    """Judges that a benchmark of the recipe asks: its own, and those optional ones that the recipe lists."""
    listed = recipe.evaluation.judges
    return [
        key for key, judge in JUDGES.items() if judge.benchmark == benchmark and (not judge.optional or key in listed)
    ]


def all_keys(recipe: Recipe) -> list[str]:
    """Judges of all benchmarks of the recipe, in the order in which they are loaded."""
    asked = {key for name in recipe.evaluation.benchmarks for key in keys_of(recipe, name)}
    return [key for key in JUDGES if key in asked]


def read(run: RunDirectory, recipe: Recipe, key: str) -> Source:
    """The source of a judge.

    Raises:
        UserError: the judge was not prepared, or the recipe names another one since.
    """
    source = find(run, key)
    if source is None or source.asked != asked_of(recipe, key):
        state = "has not been prepared" if source is None else "is not the one that was prepared"
        raise UserError(
            f"evaluation.judges.{key}: the judge {state} ({path_of(run, key)}).\n"
            "Launch again: the preparation, where the network is, fetches or checks the judges."
        )
    return source


def find(run: RunDirectory, key: str) -> Source | None:
    """What the last preparation wrote; None if nothing, or it is damaged."""
    try:
        return read_json(path_of(run, key), Source)
    except (FileNotFoundError, DamagedFileError):
        return None


def is_prepared(run: RunDirectory, recipe: Recipe) -> bool:
    """Whether every judge of the recipe is as the recipe asks, and its model is here."""

    def is_here(source: Source | None) -> bool:
        return source is not None and (source.folder is None or Path(source.folder).is_dir())

    return all(is_as_asked(run, recipe, key) and is_here(find(run, key)) for key in all_keys(recipe))


def is_as_asked(run: RunDirectory, recipe: Recipe, key: str) -> bool:
    """Whether a judge was prepared as the recipe has it now; what it replied counts even where its model is gone."""
    source = find(run, key)
    if source is None or source.asked != asked_of(recipe, key):
        return False
    prompt = section_of(recipe, key).prompt
    return prompt is None or not Path(prompt).is_file() or Path(prompt).read_text() == source.prompt


def digest_of(key: str, model: dict[str, str], prompt: str) -> str:
    """16 hex digits that change with anything a reply depends on: model, kind, length of a reply, prompt."""
    judge = JUDGES[key]
    content = {
        "version": VERSION,
        "kind": judge.kind.value,
        "max_tokens": judge.max_tokens,
        "model": model,
        "prompt": prompt,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check_unchanged(key: str, source: Source) -> None:
    """Raises UserError if the folder of a judge is gone, or is not what was prepared."""
    assert source.folder is not None
    folder = Path(source.folder)
    if not folder.is_dir():
        state = "is gone"
    elif source.revision is None and digest_of(key, model_of_folder(folder), source.prompt) != source.digest:
        state = "has changed since it was prepared"
    else:
        return
    raise UserError(f"evaluation.judges.{key}: the model folder {folder} {state}. Prepare the run again.")


def model_of_folder(folder: Path) -> dict[str, str]:
    """The `model` of `digest_of` for a local folder; where the folder lies does not matter."""
    return {"folder": digest_of_folder(folder)}


def digest_of_folder(folder: Path) -> str:
    """Hex digest of a model folder: configuration and tokenizer whole, weights by size and samples of the content."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (*WEIGHTS, *TEXTS):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            for block in _blocks(path):
                digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    """All of a text; of weights the beginning, which holds the shapes, and blocks at even distances up to the end."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if path.suffix in TEXTS or size <= SAMPLES * SAMPLE_BYTES:
            yield stream.read()
            return
        for number in range(SAMPLES):
            stream.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            yield stream.read(SAMPLE_BYTES)


def endpoint_host(endpoint: str) -> str:
    """Host of a base URL, for records: neither port nor path nor credentials."""
    return urlsplit(endpoint).hostname or "unknown host"
