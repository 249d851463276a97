"""The base model of a run, from a folder, the hub or random weights, and its tokenizer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reprokit.data.rows import Row
from reprokit.data.tokenizer import train_tokenizer
from reprokit.errors import UserError
from reprokit.preparation.hub import fetching
from reprokit.recipe.schema import ModelSection, Precision
from reprokit.records.files import write_bytes, write_json
from reprokit.records.manifest import Manifest
from reprokit.records.run_directory import RunDirectory

WEIGHT_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # no pickles, no remote code


def fetch_model(hub_id: str, revision: str | None) -> Path:
    """Local folder of a hub model, downloaded unless it is in the Hugging Face cache.

    Raises:
        UserError: no such model or revision, no permission, or no way to the hub.
    """
    from huggingface_hub import snapshot_download

    advice = (
        "Check the id and the network of this machine, log in with `hf auth login` if the model is gated, or set "
        "model.path to a folder that has the model."
    )
    with fetching(f"model.hub_id={hub_id} (revision {revision or 'default'})", advice):
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=WEIGHT_FILES))


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the Hugging Face cache is of; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def prepare_tokenizer(run: RunDirectory, model: ModelSection, weights: Path | None, rows: Iterable[Row]) -> Any:
    """The tokenizer of the run, saved in the run folder: trained on `rows`, given by the recipe, or the model's own."""
    from transformers import AutoTokenizer

    if (run.tokenizer / "tokenizer_config.json").exists():
        return AutoTokenizer.from_pretrained(run.tokenizer)
    if model.tokenizer_vocab_size is not None:
        tokenizer: Any = train_tokenizer(rows, model.tokenizer_vocab_size)
    else:
        tokenizer = _load_tokenizer(model.tokenizer or str(weights))
    if model.chat_template is not None:
        tokenizer.chat_template = Path(model.chat_template).read_text()
    aside = run.tokenizer.with_name(".tokenizer.partial")
    tokenizer.save_pretrained(aside)
    shutil.rmtree(run.tokenizer, ignore_errors=True)
    os.replace(aside, run.tokenizer)
    return tokenizer


def _load_tokenizer(source: str) -> Any:
    """The tokenizer of a folder or hub id; no code of it is run."""
    if is_internlm2(Path(source)):
        from reprokit.preparation.sentencepiece_tokenizer import load_internlm2_tokenizer

        return load_internlm2_tokenizer(Path(source))
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"no tokenizer could be loaded from {source}: {error}\nSet model.tokenizer.") from error


def is_internlm2(folder: Path) -> bool:
    """Whether `folder` has a model in InternLM2's own layout, which transformers knows by remote code only."""
    path = folder / "config.json"
    return path.is_file() and json.loads(path.read_bytes()).get("model_type") == "internlm2"


def prepare_base(
    run: RunDirectory, model: ModelSection, precision: Precision, weights: Path | None, tokenizer: Any
) -> None:
    """Make checkpoint 0: a reference to `weights`, or, for a `config:` block, fresh random weights.

    The weights of an InternLM2 model are written anew, as those of a Llama model.
    """
    if run.manifest(0) is not None:
        return
    revision = model.revision or (commit_of(weights) if weights is not None else None)
    if weights is not None and is_internlm2(weights):
        from reprokit.preparation import internlm2

        internlm2.convert(weights, run.checkpoint(0), tokenizer, 0, revision)
        return
    if weights is not None:
        write_json(run.checkpoint(0) / "manifest.json", Manifest(step=0, weights=str(weights), revision=revision))
        return
    from reprokit.training import checkpoints

    fresh = random_model(model, precision, tokenizer)
    checkpoints.write(run, fresh, fresh.state_dict(), tokenizer, step=0)


def complete_tokenizer(run: RunDirectory) -> None:
    """Put the model's config.json beside the tokenizer: loaders choose the tokenizer class by it."""
    write_bytes(run.tokenizer / "config.json", (run.weights(0) / "config.json").read_bytes())


def random_model(model: ModelSection, precision: Precision, tokenizer: Any) -> Any:
    """A model with random weights after the recipe's `model.config`; see `random_weights`."""
    return random_weights("model.config", model.config or {}, tokenizer, precision, model.seed)


def random_weights(
    key: str, config: dict[str, Any], tokenizer: Any, precision: Precision, seed: int, classifier: bool = False
) -> Any:
    """A causal model, or a classifier with one label, with random weights; vocabulary and EOS are the tokenizer's.

    Args:
        key: of the recipe, for the message.

    Raises:
        UserError: transformers does not take the configuration.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    fields = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **({"num_labels": 1} if classifier else {}),
        **config,
    }
    torch.manual_seed(seed)
    try:
        kind: Any = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
        return kind.from_config(AutoConfig.for_model(**fields), dtype=getattr(torch, precision.dtype))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{key}={config} is not a model that transformers can make: {error}") from error


def local_weights(model: ModelSection) -> Path | None:
    """Folder of the base weights, fetched if need be; None for a `config:` block."""
    if model.path is not None:
        return Path(os.path.abspath(model.path))
    if model.hub_id is not None:
        return fetch_model(model.hub_id, model.revision)
    return None
