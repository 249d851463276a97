"""The stages of a data set as jobs call them, but for the sampling: that is the evaluation of a model."""

from __future__ import annotations

from pathlib import Path

from reprokit.building.directory import DatasetDirectory
from reprokit.building.load import load_dataset
from reprokit.building.schema import DatasetRecipe, TeacherRecipe
from reprokit.cluster import rendezvous
from reprokit.cluster.attempt import attempt


def prepare(root: Path) -> None:
    """Fetch or make questions, teacher, answers of others and evaluation sets. Runs where the network is."""
    directory = DatasetDirectory(root)
    with attempt("prepare", directory.run):
        from reprokit.building.prepare import prepare as make_inputs

        make_inputs(directory, _recipe(directory), directory.run.progress("prepare"))


def verify(root: Path, shard: int) -> None:
    """Tell which responses to the questions of one shard are right."""
    directory = DatasetDirectory(root)
    with attempt("verify", directory.run):
        from reprokit.building.verify import verify as verify_shard

        rendezvous.check_cores()
        recipe = _recipe(directory)
        assert isinstance(recipe, TeacherRecipe)
        verify_shard(directory, recipe, shard, directory.run.progress("verify"))


def assemble(root: Path) -> None:
    """Write the file of the data set and its report."""
    directory = DatasetDirectory(root)
    with attempt("assemble", directory.run):
        from reprokit.building.assemble import assemble as write

        rendezvous.check_cores()
        write(directory, _recipe(directory), directory.run.progress("assemble"))


def _recipe(directory: DatasetDirectory) -> DatasetRecipe:
    return load_dataset(str(directory.run.recipe), local_files=False)[0]
