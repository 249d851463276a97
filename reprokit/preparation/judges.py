"""Judge models, fetched, checked or made on the login node, so that jobs load them without the network."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reprokit.data.tokenizer import CHAT_TEMPLATE
from reprokit.errors import UserError
from reprokit.evaluation.judges import sources
from reprokit.evaluation.judges.sources import Source
from reprokit.preparation.base_model import WEIGHT_FILES, fetch_model, random_weights
from reprokit.recipe.judges import JUDGES, JudgeKind
from reprokit.recipe.schema import JudgeSection, Precision, Recipe
from reprokit.records.files import read_json, write_json
from reprokit.records.run_directory import RunDirectory


def prepare_judges(run: RunDirectory, recipe: Recipe) -> None:
    """Make every judge that the benchmarks of the recipe ask ready; what is there already is kept.

    Needs the tokenizer of the run. Writes `source.json` of every judge.

    Raises:
        UserError: a judge cannot be fetched, made or used as what it is to be.
    """
    for key in sources.all_keys(recipe):
        section = sources.section_of(recipe, key)
        asked = sources.asked_of(recipe, key)
        known = sources.find(run, key)
        kept = known if known is not None and known.asked == asked else None
        source = _source(run, key, section, kept)
        source.asked = asked
        if source != known:
            write_json(sources.path_of(run, key), source)


def _source(run: RunDirectory, key: str, section: JudgeSection, kept: Source | None) -> Source:
    """The source of a judge but for `asked`; `kept` is that of an earlier preparation of the same section."""
    prompt = _prompt(key, section)
    if section.endpoint is not None:
        return _endpoint(key, section, section.endpoint, prompt)
    if section.path is not None:
        folder, revision = Path(os.path.abspath(section.path)), None
        name, model = folder.name, None
    elif section.config is not None:
        folder, revision = run.judge(key) / "model", None
        name, model = f"random {section.config.get('model_type', 'weights')}", None
        if kept is None or not folder.is_dir():
            _make(run, key, section.config, folder)
    else:
        hub_id = section.hub_id or JUDGES[key].hub_id
        known = Path(kept.folder) if kept is not None and kept.folder is not None else None
        # A snapshot folder is named by its commit: without a revision in the recipe, the first one stays.
        folder = known if known is not None and known.is_dir() else _fetch(key, hub_id, section.revision)
        revision = folder.name
        name, model = f"{hub_id}@{revision}", {"hub_id": hub_id, "revision": revision}
    check_folder(key, folder)
    digest = sources.digest_of(key, model or sources.model_of_folder(folder), prompt)
    return Source(asked={}, name=name, digest=digest, folder=str(folder), revision=revision, prompt=prompt)


def _prompt(key: str, section: JudgeSection) -> str:
    if section.prompt is None:
        return ""
    try:
        return Path(section.prompt).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"evaluation.judges.{key}.prompt={section.prompt} cannot be read: {error}") from error


def _endpoint(key: str, section: JudgeSection, endpoint: str, prompt: str) -> Source:
    """A judge behind a server. That it answers is not tried: the key may be at hand in jobs only."""
    place = f"evaluation.judges.{key}"
    if JUDGES[key].kind is not JudgeKind.chat:
        raise UserError(f"{place}.endpoint={endpoint}: only a chat judge can be a server. Give path or hub_id.")
    if not section.model:
        raise UserError(f"{place}.endpoint={endpoint} needs {place}.model: the name of the model at that server.")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{place}.endpoint={endpoint} is no URL. Give one like https://host/v1.")
    if "@" in parts.netloc:
        raise UserError(
            f"{place}.endpoint has a user in it. Put the key into the variable of {place}.api_key_variable."
        )
    print(f"{key}: {section.model} at {parts.hostname}; the judge jobs need a way to it", flush=True)
    model = {"endpoint": endpoint, "model": section.model}
    digest = sources.digest_of(key, model, prompt)
    return Source(asked={}, name=f"{section.model} at {parts.hostname}", digest=digest, prompt=prompt)


def _fetch(key: str, hub_id: str, revision: str | None) -> Path:
    """Snapshot of a hub model. Pickled weights come along only where there are no others; no code in them is run."""
    from huggingface_hub import snapshot_download

    try:
        folder = fetch_model(hub_id, revision)
        if not any(folder.glob("*.safetensors")):
            snapshot_download(hub_id, revision=folder.name, allow_patterns=[*WEIGHT_FILES, "*.bin"])
    except (UserError, OSError) as error:
        place = f"evaluation.judges.{key}"
        raise UserError(
            f"{place}: {hub_id} (revision {revision or 'default'}) could not be fetched: {error.__cause__ or error}\n"
            "Check the id and the network of this machine, log in with `hf auth login` if the model is gated, or set "
            f"{place}.path to a folder that has the model."
        ) from error
    return folder


def check_folder(key: str, folder: Path) -> None:
    """Raises UserError unless `folder` has a model of the kind that the judge is to be."""
    place, kind = f"evaluation.judges.{key}", JUDGES[key].kind

    def fault(what: str) -> UserError:
        return UserError(f"{place}: {folder} {what}\nName another model with {place}.path or {place}.hub_id.")

    if not (folder / "config.json").is_file():
        raise fault("has no config.json: it is not a Hugging Face model folder.")
    if not any(path.suffix in sources.WEIGHTS for path in folder.iterdir()):
        raise fault(f"has no weights ({', '.join('*' + suffix for suffix in sources.WEIGHTS)}).")
    classes = read_json(folder / "config.json", dict[str, Any]).get("architectures") or []
    if any(name.endswith("ForSequenceClassification") for name in classes) != (kind is JudgeKind.reward):
        needed = "a sequence classifier" if kind is JudgeKind.reward else "a language model"
        raise fault(f"holds {', '.join(classes) or 'an unknown model'}, but {key} has to be {needed}.")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise fault(f"has no tokenizer that can be loaded: {error}") from error
    if kind is not JudgeKind.completion and not tokenizer.chat_template:
        raise fault("has no chat template, which a judge of conversations needs.")


def _make(run: RunDirectory, key: str, config: dict[str, Any], folder: Path) -> None:
    """Write a model with random weights and the tokenizer of the run; the same `config` gives the same weights.

    Raises:
        UserError: transformers does not take the configuration.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    seed = zlib.crc32(key.encode())  # judges of one config differ
    reward = JUDGES[key].kind is JudgeKind.reward
    model = random_weights(f"evaluation.judges.{key}.config", config, tokenizer, Precision.fp32, seed, reward)
    aside = folder.with_name(".model.partial")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
