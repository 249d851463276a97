"""Further options of sbatch that a profile may name, and those that would break what a job is."""

from __future__ import annotations

import re

from reprokit.cluster.profile import STAGES, ClusterProfile
from reprokit.recipe.problems import Problem

_OURS = {  # option of sbatch -> where it comes from instead
    "account": "account",
    "array": "checkpoints_per_element",
    "constraint": "constraint",
    "cpus-per-task": "train.cpus_per_task",
    "dependency": "",
    "error": "",
    "exclude": "exclude",
    "gpus-per-node": "train.gpus_per_node and gpu_type",
    "job-name": "",
    "kill-on-invalid-dep": "",
    "mem": "train.memory_gb",
    "nodes": "train.nodes",
    "ntasks-per-node": "train.tasks_per_node",
    "open-mode": "",
    "output": "",
    "partition": "partition",
    "qos": "qos",
    "signal": "",
    "time": "train.hours",
}
# These change how many tasks and GPUs there are, what they inherit, who runs them, or whether sbatch submits at all.
_BREAKING = (
    "chdir cluster clusters export export-file gid gpus gpus-per-socket gpus-per-task help input ntasks "
    "ntasks-per-core ntasks-per-gpu ntasks-per-socket parsable quiet test-only uid usage version wait wrap"
).split()
_MEMORY = ("mem-per-cpu", "mem-per-gpu")


def flag(value: str) -> str | bool:
    """What submitit wants of an option's value: True for an option without one."""
    return True if value.lower() == "true" else value


def check_sbatch(profile: ClusterProfile, place: str) -> list[Problem]:
    """What is wrong with the `sbatch` options of a profile; whether sbatch knows them is for sbatch to say."""
    problems = []
    for name, value in profile.sbatch.items():
        found = _wrong(name, value) or _second_memory(name, profile)
        if found:
            problems.append(Problem(f"sbatch.{name}", *found, value, where=place))
    return problems


def _wrong(name: str, value: str) -> tuple[str, str] | None:
    if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
        return "no long option of sbatch", "write it as in `sbatch --help`, without the leading dashes"
    if name in _OURS:
        key = _OURS[name]
        return "is set by reprokit", f"use {key} of the profile" if key else "remove it"
    if name in _BREAKING:
        return "would break the jobs", "remove it"
    if value.lower() == "false":
        return "an option cannot be false", "leave it out"
    if not value.strip() or not value.isprintable():
        return "no value", "write one line of text, or true for an option that has no value"
    return None


def _second_memory(name: str, profile: ClusterProfile) -> tuple[str, str] | None:
    given = [stage for stage in STAGES if getattr(profile, stage).memory_gb is not None]
    if name in _MEMORY and given:
        return "excludes memory_gb", f"remove it, or memory_gb of {', '.join(given)}"
    return None
