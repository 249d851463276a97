"""The problems of the benchmarks in the run folder: generated, from local files, or fetched from the hub once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from reprokit import benchmarks
from reprokit.benchmarks.interface import Benchmark, Item, Upstream
from reprokit.errors import UserError
from reprokit.evaluation.problems import ItemsSource, asked_of, current_source, local_files, stamps
from reprokit.preparation.hub import fetching
from reprokit.recipe.schema import Recipe
from reprokit.records.files import sha256_of_file, write_json, write_json_lines
from reprokit.records.run_directory import RunDirectory


def prepare_items(run: RunDirectory, recipe: Recipe) -> None:
    """Make the problems of every benchmark of the recipe; those that are there and still wanted are kept.

    Raises:
        UserError: data cannot be fetched, is not of its upstream form, or has fewer problems than are asked for.
    """
    for name in recipe.evaluation.benchmarks:
        source = current_source(run, recipe, name)
        if source is None or not run.items(name).exists() or source.items != sha256_of_file(run.items(name)):
            _make(run, recipe, benchmarks.get(name))


def _make(run: RunDirectory, recipe: Recipe, benchmark: Benchmark) -> None:
    asked = asked_of(recipe, benchmark.name)
    hub_id = revision = None
    files: list[Path] = []
    if benchmark.read is None:
        items = benchmark.items(asked["items"])
    else:
        if asked["path"] is not None:
            files = local_files(benchmark.name, Path(asked["path"]))
        else:
            assert benchmark.upstream is not None
            hub_id = benchmark.upstream.hub_id
            files, revision = fetch(benchmark.name, benchmark.upstream, asked["revision"])
        items = _first(benchmark.name, _unique(files, benchmark.read(files)), asked["items"])
    write_json_lines(run.items(benchmark.name), items)
    source = ItemsSource(
        benchmark=benchmark.name,
        asked=asked,
        items=sha256_of_file(run.items(benchmark.name)),
        count=len(items),
        hub_id=hub_id,
        revision=revision,
        files={file.name: sha256_of_file(file) for file in files},
        stamps=stamps(files) if asked["path"] is not None else {},
    )
    write_json(run.items_source(benchmark.name), source)
    whole = f", where upstream has {benchmark.size}" if benchmark.size not in (None, len(items)) and files else ""
    print(f"{benchmark.name}: {len(items)} problems{whole}", flush=True)


def _unique(files: list[Path], items: list[Item]) -> list[Item]:
    repeated = [item for item, times in Counter(item.id for item in items).items() if times > 1]
    if repeated:
        names = ", ".join(str(file) for file in files)
        raise UserError(
            f"{names}: {len(repeated)} problems stand there more than once, such as {', '.join(repeated[:3])}; give "
            "the one file that has them, or take the repeated rows out"
        )
    return items


def _first(name: str, items: list[Item], count: int | None) -> list[Item]:
    if count is not None and count > len(items):
        raise UserError(
            f"{name}: {count} items asked for, the data has {len(items)}; lower evaluation.benchmarks.{name}.items, or "
            "leave it out to take all"
        )
    return items[:count]


def fetch(name: str, upstream: Upstream, revision: str | None) -> tuple[list[Path], str]:
    """Local paths of the files of a hub data set, and the commit they are of.

    Raises:
        UserError: no such data set, revision or file, no permission, or no way to the hub.
    """
    from huggingface_hub import snapshot_download

    wanted = revision or upstream.revision
    key = f"evaluation.benchmarks.{name}"
    gated = " It is gated: ask for access on its page and log in with `hf auth login`." if upstream.gated else ""
    advice = f"Check the network of this machine.{gated} Or set {key}.path to a file or folder that has it."
    with fetching(f"the data of {name} ({upstream.hub_id}, revision {wanted or 'default'})", advice):
        folder = Path(
            snapshot_download(
                upstream.hub_id, repo_type="dataset", revision=wanted, allow_patterns=list(upstream.files)
            )
        )
    files = sorted(path for pattern in upstream.files for path in folder.glob(pattern) if path.is_file())
    if not files:
        raise UserError(f"{upstream.hub_id} has no file like {', '.join(upstream.files)}; set {key}.path instead")
    return files, folder.name
