"""Checkpoints that the authors released: fetched from the hub or found in a folder, and put in their places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from reprokit.errors import UserError
from reprokit.preparation.base_model import WEIGHT_FILES, commit_of, is_internlm2
from reprokit.preparation.hub import fetching
from reprokit.recipe import evaluated_steps
from reprokit.recipe.schema import PublishedSection, Recipe
from reprokit.records.files import write_json
from reprokit.records.manifest import Manifest
from reprokit.records.run_directory import RunDirectory


def prepare_published(run: RunDirectory, recipe: Recipe, tokenizer: Any) -> None:
    """Make a reference to the weights of every evaluated checkpoint, fetched if need be; those there are kept.

    Those of an InternLM2 model are written anew, as of a Llama model. All checkpoints are of one commit of the hub.

    Raises:
        UserError: a checkpoint is not released, cannot be fetched, or its folder holds no model.
    """
    steps = [step for step in evaluated_steps(recipe) if step > 0]
    there = [made.revision for made in map(run.manifest, steps) if made is not None]
    published = replace(recipe.published, revision=next(filter(None, there), recipe.published.revision))
    for step in steps:
        if run.manifest(step) is not None:
            continue
        weights = folder_of(published, step)
        published = replace(published, revision=commit_of(weights.parent) or published.revision)
        if is_internlm2(weights):
            from reprokit.preparation import internlm2

            internlm2.convert(weights, run.checkpoint(step), tokenizer, step, published.revision)
        else:
            made = Manifest(step=step, weights=str(weights), revision=published.revision)
            write_json(run.checkpoint(step) / "manifest.json", made)


def folder_of(published: PublishedSection, step: int) -> Path:
    """Local folder of one released checkpoint, `stepN` of the hub model or of `published.path`.

    Raises:
        UserError: as `prepare_published`.
    """
    name = f"step{step}"
    folder = Path(published.path).absolute() / name if published.path is not None else _fetch(published, name)
    if not ((folder / "config.json").is_file() and any(folder.glob("*.safetensors"))):
        there = published.path or f"{published.hub_id}, revision {published.revision or 'default'}"
        raise UserError(
            f"{there} has no checkpoint of step {step}: {name}/ holds no config.json beside *.safetensors. Name the "
            "steps that are there in evaluation.steps (0 is the base), or give their place with published.path"
        )
    return folder


def _fetch(published: PublishedSection, name: str) -> Path:
    from huggingface_hub import snapshot_download

    assert published.hub_id is not None
    wanted = [f"{name}/{pattern}" for pattern in WEIGHT_FILES]
    advice = (
        "Check the id and the network of this machine, or set published.hub_id=null and published.path to a folder "
        f"that has {name}/ and the others."
    )
    with fetching(f"published.hub_id={published.hub_id} ({name}, revision {published.revision or 'default'})", advice):
        return Path(snapshot_download(published.hub_id, revision=published.revision, allow_patterns=wanted)) / name
