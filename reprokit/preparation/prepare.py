"""Everything that jobs need, made before they run, where the network is: base model, tokenizer, tokens, problems."""

from __future__ import annotations

from pathlib import Path

from reprokit import benchmarks
from reprokit.data.report import describe
from reprokit.preparation.base_model import complete_tokenizer, local_weights, prepare_base, prepare_tokenizer
from reprokit.preparation.training_data import open_source, prepare_tokens
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import Recipe
from reprokit.records.files import write_json_lines
from reprokit.records.progress import ProgressBar
from reprokit.records.run_directory import RunDirectory


def prepare(run: RunDirectory, recipe: Recipe, progress: Path) -> None:
    """Make the inputs of a run, and print what the tokens are; what is there already is kept.

    Raises:
        UserError: a model, data set or template cannot be fetched or does not fit the recipe.
    """
    with ProgressBar(total=4, desc="prepare", unit="part", path=progress) as bar:
        weights = local_weights(recipe.model)
        source = open_source(recipe.data)
        bar.update()
        tokenizer = prepare_tokenizer(run, recipe.model, weights, source.rows())
        report = prepare_tokens(run, source, tokenizer, recipe.data.max_length)
        bar.update()
        prepare_base(run, recipe.model, recipe.training.precision, weights, tokenizer)
        complete_tokenizer(run)
        bar.update()
        for name in recipe.evaluation.benchmarks:
            wanted = sampling(recipe.evaluation, name).items
            write_json_lines(run.items(name), benchmarks.get(name).items(wanted))
        bar.update()
    print(describe(report), flush=True)
