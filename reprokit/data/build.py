"""python -m reprokit.data.build dataset=NAME [cluster=NAME] [stages=a,b] [dry_run=true] [key=value ...]

Builds a data set of `recipes/datasets/` (or of a .yaml file of that kind) in `datasets/<name>/`: prepare, then on Slurm
or on this machine sample (an array, one element per shard of questions), verify and assemble. Given again, it does what
is missing. name=NAME gives the data set another name; any key of the recipe may follow, for example rows=1000.

Every response has a seed of its own, whatever the sharing among engines, and none that is logged is drawn again. Only
GPUs may give another token where two are almost as likely, which depends on what else is in the batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from reprokit.building import launching, stages
from reprokit.building.directory import DatasetDirectory
from reprokit.building.graph import STAGES, Functions
from reprokit.building.load import dataset_names, load_dataset
from reprokit.cluster import slurm
from reprokit.cluster.profiles import load_profile
from reprokit.errors import UserError
from reprokit.stages import evaluate
from reprokit.words import run as run_command
from reprokit.words import split, terminal, truth
from reprokit.words import stages as chosen_stages

FUNCTIONS: Functions = {
    "prepare": stages.prepare,
    "sample": evaluate,
    "verify": stages.verify,
    "assemble": stages.assemble,
}


def run(words: Sequence[str]) -> None:
    """Do what the words say.

    Raises:
        UserError: a word without `=`, no data set, an unknown stage, or whatever `launching.launch` raises.
    """
    chosen, cluster, dry = "", None, False
    wanted: tuple[str, ...] = STAGES
    overrides: list[str] = []
    for key, value in split(words, str(__doc__)):
        if key == "dataset":
            chosen = value
        elif key == "name":
            overrides.append(f"dataset={value}")
        elif key == "cluster":
            cluster = value
        elif key == "stages":
            wanted = chosen_stages(value, STAGES)
        elif key == "dry_run":
            dry = truth(key, value)
        else:
            overrides.append(f"{key}={value}")
    if not chosen:
        raise UserError(f"no data set given; there are {', '.join(dataset_names())}.\n\n{__doc__}")
    recipe, text = load_dataset(chosen, overrides)
    console = terminal()
    cluster = cluster or ("default" if slurm.available() else "local")
    profile = load_profile(cluster)
    slurm.apply_environment(profile)
    directory = DatasetDirectory(Path.cwd() / "datasets" / recipe.dataset)
    building = launching.Building(directory, recipe, text, cluster, profile, wanted, FUNCTIONS)
    (launching.dry_run if dry else launching.launch)(building, console)


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run_command(lambda: run(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
