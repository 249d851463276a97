"""Everything that jobs need, made before they run, where the network is: base model, tokenizer, tokens, problems."""

from __future__ import annotations

import json
from pathlib import Path

from reprokit.data import tokens
from reprokit.data.report import describe
from reprokit.errors import UserError
from reprokit.preparation.base_model import complete_tokenizer, local_weights, prepare_base, prepare_tokenizer
from reprokit.preparation.benchmark_items import prepare_items
from reprokit.preparation.judges import prepare_judges
from reprokit.preparation.published import prepare_published
from reprokit.preparation.training_data import open_source, prepare_tokens
from reprokit.recipe.architecture import from_config
from reprokit.recipe.schema import Recipe, Source
from reprokit.records.progress import ProgressBar
from reprokit.records.run_directory import RunDirectory


def prepare(run: RunDirectory, recipe: Recipe, progress: Path) -> None:
    """Make the inputs of a run, and print what the tokens are; what is there already is kept.

    Raises:
        UserError: a model, data set or template cannot be fetched or does not fit the recipe.
    """
    trains = recipe.source is Source.training
    with ProgressBar(total=6, desc="prepare", unit="part", path=progress) as bar:
        weights = local_weights(recipe.model)
        source = open_source(recipe.data) if trains else None
        bar.update()
        tokenizer = prepare_tokenizer(run, recipe.model, weights, source.rows() if source else [])
        report = prepare_tokens(run, source, tokenizer, recipe.data.max_length) if source else None
        bar.update()
        prepare_base(run, recipe.model, recipe.training.precision, weights, tokenizer)
        complete_tokenizer(run)
        if trains:
            check_vocabulary(run)
        bar.update()
        if recipe.source is Source.published:
            prepare_published(run, recipe, tokenizer)
        bar.update()
        prepare_items(run, recipe)
        bar.update()
        prepare_judges(run, recipe)
        bar.update()
    if report is not None:
        print(describe(report), flush=True)


def check_vocabulary(run: RunDirectory) -> None:
    """Raises UserError when a token id of the rows has no place in the model's embeddings."""
    architecture = from_config(json.loads((run.weights(0) / "config.json").read_bytes()))
    largest = tokens.load(run.data).largest_id()
    if architecture is not None and largest >= architecture.vocabulary:
        raise UserError(
            f"the tokenizer gives ids up to {largest}, but the model has embeddings for {architecture.vocabulary} "
            "tokens only: this tokenizer belongs to another model. Leave model.tokenizer out to take the model's own."
        )
