"""Everything that jobs need, made before they run, where the network is: base model, tokenizer, tokens, problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reprokit import benchmarks
from reprokit.data import rows as training_rows
from reprokit.data import tokens
from reprokit.errors import UserError
from reprokit.preparation.base_model import complete_tokenizer, local_weights, prepare_base, prepare_tokenizer
from reprokit.recipe.sampling import sampling
from reprokit.recipe.schema import DataSection, Recipe
from reprokit.records.files import sha256_of_file, write_json, write_json_lines
from reprokit.records.progress import ProgressBar
from reprokit.records.run_directory import RunDirectory


def prepare(run: RunDirectory, recipe: Recipe, progress: Path) -> None:
    """Make the inputs of a run; what is there already is kept.

    Raises:
        UserError: a model, data set or template cannot be fetched or does not fit the recipe.
    """
    with ProgressBar(total=4, desc="prepare", unit="part", path=progress) as bar:
        weights = local_weights(recipe.model)
        rows, source = load_rows(recipe.data)
        bar.update()
        tokenizer = prepare_tokenizer(run, recipe.model, weights, rows)
        if not (run.data / "report.json").exists():
            tokens.build(rows, tokenizer, recipe.data.max_length, run.data)
        write_json(run.data / "source.json", source)
        bar.update()
        prepare_base(run, recipe.model, recipe.training.precision, weights, tokenizer)
        complete_tokenizer(run)
        bar.update()
        for name in recipe.evaluation.benchmarks:
            wanted = sampling(recipe.evaluation, name).items
            write_json_lines(run.items(name), benchmarks.get(name).items(wanted))
        bar.update()


def load_rows(data: DataSection) -> tuple[list[Any], dict[str, Any]]:
    """Training rows and where they are from (name, hub id and revision, sha256 of the file, number of rows)."""
    source: dict[str, Any] = {"name": data.name, "hub_id": data.hub_id, "revision": data.revision}
    if data.generator is not None:
        assert data.rows is not None
        rows = list(training_rows.from_generator(data.generator, data.rows, data.seed))
        return rows, {**source, "generator": data.generator, "seed": data.seed, "rows": len(rows)}
    path = Path(data.path) if data.path is not None else fetch_data(data)
    digest = sha256_of_file(path)
    if data.sha256 is not None and digest != data.sha256:
        raise UserError(
            f"{path}: sha256 is {digest}, but the recipe pins data.sha256={data.sha256}. This is not the file that the "
            "recipe means: fetch it again, or correct data.sha256 if the new file is wanted."
        )
    rows = list(training_rows.from_file(path))
    if data.rows is not None and len(rows) != data.rows:
        raise UserError(f"{path} has {len(rows)} rows, but the recipe says data.rows={data.rows}")
    return rows, {**source, "sha256": digest, "rows": len(rows)}


def fetch_data(data: DataSection) -> Path:
    """Local path of a hub data file, downloaded unless it is in the Hugging Face cache.

    Raises:
        UserError: no such file, no permission, or no way to the hub.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    assert data.hub_id is not None and data.file is not None
    try:
        return Path(hf_hub_download(data.hub_id, data.file, repo_type="dataset", revision=data.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"data.hub_id={data.hub_id} file={data.file} (revision {data.revision or 'default'}) could not be "
            f"fetched: {error}\nCheck the id and the network of this machine, or set data.path to a local file."
        ) from error
