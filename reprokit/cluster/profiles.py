"""Finding and reading cluster profiles."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from reprokit.cluster.profile import STAGES, ClusterProfile, Resources, Scheduler
from reprokit.cluster.sbatch_options import check_sbatch
from reprokit.recipe.compose import Composer
from reprokit.recipe.gpus import GPUS
from reprokit.recipe.problems import Problem, RecipeError, closest
from reprokit.recipe.tree import COMMAND_LINE, Entry, Origin, shown
from reprokit.recipe.typed import convert, literal, with_defaults
from reprokit.records.files import write_text
from reprokit.records.secrets import assigned_secrets, is_secret, without_secrets

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
    if not os.path.isfile(path):
        known = profile_names(folder)
        guess = closest(name, known)
        remedy = f"did you mean cluster={guess}?" if guess else f"write {path} (copy slurm/default.yaml)"
        problem = Problem("", f"no such file: {path}", remedy, name, ", ".join(known), COMMAND_LINE)
        raise RecipeError(name, [problem], what="cluster profile")
    composer = Composer(folder)
    root, not_text = _as_written(composer.file(path))
    origin = Origin(f"{composer.place(path)}:1", path)
    values, mistyped = convert(with_defaults(ClusterProfile, root), origin, ClusterProfile)
    problems = [*composer.problems, *not_text, *mistyped]
    if not problems:
        merged = OmegaConf.merge(OmegaConf.structured(ClusterProfile), literal(values))
        profile = cast(ClusterProfile, OmegaConf.to_object(merged))
        profile.environment = {name: os.path.expanduser(value) for name, value in profile.environment.items()}
        profile.runs = profile.runs and os.path.expandvars(os.path.expanduser(profile.runs))
        problems = _check(profile, composer.place(path))
    if problems:
        raise RecipeError(name, problems, what="cluster profile")
    return profile


def save_profile(profile: ClusterProfile, path: Path) -> None:
    """Write a profile where `load_profile` finds it again, all but the secrets of its environment.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    values = {**asdict(profile), "scheduler": profile.scheduler.value}
    values["environment"] = without_secrets(profile.environment)
    given = {key: _given(value) if isinstance(value, dict) else value for key, value in values.items()}
    write_text(
        path, "# The cluster profile of the last submission.\n" + yaml.safe_dump(_given(given), allow_unicode=True)
    )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _as_written(root: Entry) -> tuple[Entry, list[Problem]]:
    """`root` with the values of its maps of text as they are written, `on`, `1.50` and `007` too."""
    entries, problems = dict(root.value), []
    for key in ("environment", "sbatch"):
        if key not in entries or not isinstance(entries[key].value, dict):
            continue
        texts = {}
        for name, entry in entries[key].value.items():
            if entry.value is None or isinstance(entry.value, (dict, list)):
                remedy = f"write {name}: and its text, or leave {name} out"
                problems.append(Problem(f"{key}.{name}", "no text", remedy, shown(entry), where=entry.origin.place))
            else:
                texts[str(name)] = replace(entry, value=entry.text)
        entries[key] = replace(entries[key], value=texts)
    return replace(root, value=entries), problems


def _check(profile: ClusterProfile, place: str) -> list[Problem]:
    problems = [Problem(key, message, remedy, given, where=place) for key, message, remedy, given in _wrong(profile)]
    return problems + check_sbatch(profile, place)


def _wrong(profile: ClusterProfile) -> Iterator[tuple[str, str, str, str]]:
    """Key, message, remedy and what was given, of everything that is wrong."""
    for stage in STAGES:
        resources: Resources = getattr(profile, stage)
        for key in ("nodes", "tasks_per_node", "cpus_per_task", "hours", "memory_gb"):
            value = getattr(resources, key)
            if value is not None and not 0 < value < math.inf:
                yield f"{stage}.{key}", *_POSITIVE, str(value)
        if resources.gpus_per_node < 0:
            given = str(resources.gpus_per_node)
            yield f"{stage}.gpus_per_node", "must not be negative", "give a number of GPUs", given
        if profile.gpu_memory_gb is not None and stage in ("train", "evaluate"):
            if resources.gpus_per_node != resources.tasks_per_node:
                message = f"{resources.gpus_per_node} GPUs for {resources.tasks_per_node} tasks per node"
                yield f"{stage}.tasks_per_node", message, "one task drives one GPU: set both to the same number", ""
    if profile.scheduler is Scheduler.local and max(profile.train.nodes, profile.evaluate.nodes) > 1:
        yield "nodes", "this machine is one node", "set nodes: 1", ""
    for key in ("max_parallel", "checkpoints_per_element", "gpu_memory_gb"):
        value = getattr(profile, key)
        if value is not None and not 0 < value < math.inf:
            yield key, *_POSITIVE, str(value)
    if profile.gpu is not None and profile.gpu not in GPUS:
        remedy = f"name one of {', '.join(GPUS)}; or leave gpu out, or add the kind to reprokit/recipe/gpus.py"
        yield "gpu", "no GPU whose rates are known", remedy, profile.gpu
    for key in ("training_mfu", "decoding_mbu"):
        rate = getattr(profile, key)
        if rate is not None and not 0 < rate <= 1:
            yield key, "out of range", "give the measured part of the peak, above 0 and at most 1", str(rate)
    for name, text in profile.environment.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in text:
            remedy = "write NAME: text, the name of letters, digits and _"
            yield f"environment.{name}", "no environment variable", remedy, "" if is_secret(name) else text
    for key, line in [*(("setup", line) for line in profile.setup), ("python", profile.python or "")]:
        for name in assigned_secrets(line):
            remedy = f"export {name} before you launch, or write it in `environment`: Slurm hands it on to the jobs"
            yield key, f"{name} would stand in batch scripts and run folders", remedy, ""
    for key in ("partition", "account", "qos", "constraint", "exclude"):
        value = getattr(profile, key)
        if value is not None and (not value.strip() or not value.isprintable()):
            yield key, "not one line of text", "write it in one line, or leave it out", value
    if profile.gpu_type is not None and not re.fullmatch(r"[\w.-]+", profile.gpu_type):
        remedy = "write it as `sinfo -o %G` does between the colons: of gpu:h200:8 it is h200"
        yield "gpu_type", "no type of GPU", remedy, profile.gpu_type
    if profile.python is not None and (not profile.python.strip() or not profile.python.isprintable()):
        remedy = "write one line, for example: apptainer exec --nv image.sif python"
        yield "python", "not one shell command", remedy, profile.python
    if profile.runs is not None and (not os.path.isabs(profile.runs) or "$" in profile.runs):
        remedy = "write an absolute path; every variable in it must be set where you type the command"
        yield "runs", "not an absolute path", remedy, profile.runs
