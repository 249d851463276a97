"""Finding and reading cluster profiles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.recipe.compose import Composer
from reprokit.recipe.problems import Problem, RecipeError, closest
from reprokit.recipe.tree import COMMAND_LINE, Origin
from reprokit.recipe.typed import convert, literal, with_defaults

_POSITIVE = ("must be positive", "give a positive number")
PROFILES = Path(__file__).resolve().parents[2] / "slurm"


def profile_names(folder: Path = PROFILES) -> list[str]:
    """The profiles of the folder `slurm/`."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_profile(name: str, folder: Path = PROFILES) -> ClusterProfile:
    """Load `slurm/<name>.yaml`, or a .yaml file anywhere.

    Raises:
        RecipeError: no such profile, or everything that is wrong with it, with file and line.
    """
    path = Path(name).absolute() if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        known = profile_names(folder)
        guess = closest(name, known)
        remedy = f"did you mean cluster={guess}?" if guess else f"write {path} (copy slurm/default.yaml)"
        problem = Problem("", f"no such file: {path}", remedy, name, ", ".join(known), COMMAND_LINE)
        raise RecipeError(name, [problem], what="cluster profile")
    composer = Composer(folder)
    root = with_defaults(ClusterProfile, composer.file(path))
    values, mistyped = convert(root, Origin(f"{composer.place(path)}:1", path), ClusterProfile)
    problems = [*composer.problems, *mistyped]
    if not problems:
        merged = OmegaConf.merge(OmegaConf.structured(ClusterProfile), literal(values))
        profile = cast(ClusterProfile, OmegaConf.to_object(merged))
        profile.environment = {name: os.path.expanduser(value) for name, value in profile.environment.items()}
        problems = _check(profile, composer.place(path))
    if problems:
        raise RecipeError(name, problems, what="cluster profile")
    return profile


def _check(profile: ClusterProfile, place: str) -> list[Problem]:
    problems = []
    for stage in ("train", "evaluate", "score", "collect"):
        resources: Resources = getattr(profile, stage)
        for key in ("nodes", "tasks_per_node", "cpus_per_task", "hours"):
            if getattr(resources, key) <= 0:
                given = str(getattr(resources, key))
                problems.append(Problem(f"{stage}.{key}", *_POSITIVE, given, where=place))
        if profile.gpu_memory_gb is not None and stage in ("train", "evaluate"):
            if resources.gpus_per_node != resources.tasks_per_node:
                message = f"{resources.gpus_per_node} GPUs for {resources.tasks_per_node} tasks per node"
                remedy = "one task drives one GPU: set both to the same number"
                problems.append(Problem(f"{stage}.tasks_per_node", message, remedy, where=place))
    if profile.scheduler is Scheduler.local and max(profile.train.nodes, profile.evaluate.nodes) > 1:
        problems.append(Problem("nodes", "this machine is one node", "set nodes: 1", where=place))
    for key in ("max_parallel", "checkpoints_per_element"):
        if getattr(profile, key) < 1:
            given = str(getattr(profile, key))
            problems.append(Problem(key, *_POSITIVE, given, where=place))
    return problems
