"""Jobs on Slurm, through submitit."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from reprokit.cluster.asking import ask
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile
from reprokit.cluster.sbatch_options import flag
from reprokit.errors import UserError

OFFLINE = {"HF_HUB_OFFLINE": "1"}  # which transformers and vLLM heed too


class _PlanningExecutor(SlurmExecutor):
    """Writes sbatch text on a machine without Slurm too."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def available() -> bool:
    """Whether this machine can submit to Slurm: its commands are here and know a cluster."""
    if shutil.which("sbatch") is None:
        return False
    if "SLURM_CONF" in os.environ and not Path(os.environ["SLURM_CONF"]).exists():
        return False  # the commands would wait for the file
    return "Could not establish a configuration source" not in ask("scontrol", "ping").complaint


def sbatch_text(job: Job, profile: ClusterProfile, logs: Path, dependency: str | None) -> str:
    """The batch script that `submit` would hand to sbatch."""
    executor = _PlanningExecutor(logs / job.name, python=profile.python)
    executor.update_parameters(**_parameters(job, profile, dependency))
    if len(job.elements) > 1:
        executor.parameters["map_count"] = len(job.elements)
    return executor._make_submission_file_text(executor._submitit_command_str, uid="")


def submit(
    jobs: Sequence[Job], profile: ClusterProfile, logs: Path, remember: Callable[[dict[str, str]], None]
) -> dict[str, str]:
    """Submit all jobs with their dependencies; returns the Slurm id of each, by name.

    `remember` is called with the ids so far after each submission.

    Raises:
        UserError: sbatch refused a job.

    Whatever goes wrong, the jobs that were submitted before it are cancelled: none is left that nobody knows of.
    """
    ids: dict[str, str] = {}
    try:
        for job in jobs:
            executor = SlurmExecutor(logs / job.name, python=profile.python)
            executor.update_parameters(**_parameters(job, profile, dependency_of(job, ids)))
            submitted = executor.map_array(job.function, *zip(*job.elements, strict=True))
            ids[job.name] = submitted[0].job_id.split("_")[0]
            remember(ids)
    except BaseException as error:
        if ids:
            subprocess.run(["scancel", *ids.values()], check=False)
        if not isinstance(error, (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError)):
            raise
        said = str(error.__cause__ or error)
        raise UserError(
            f"Slurm refused job {job.name}; nothing was left submitted. It said:\n{said}\n"
            "Check partition, account, limits and resources in the cluster profile with "
            "`python -m reprokit.doctor cluster=NAME`."
        ) from error
    return ids


def dependency_of(job: Job, ids: dict[str, str]) -> str | None:
    """Value of --dependency; jobs that are not in `ids` were finished before."""
    waits_for = [ids[name] for name in job.after if name in ids]
    if not waits_for:
        return None
    return ("afterok:" if job.needs_success else "afterany:") + ":".join(waits_for)


def active(job_ids: Sequence[str], configuration: str | None) -> dict[str, str]:
    """Those of the jobs that wait or run, with their Slurm state; needs no accounting database.

    `configuration` is the SLURM_CONF they were submitted with, if one was named; a cluster whose file is gone is gone.

    Raises:
        UserError: Slurm does not answer: whether they run is not known.
    """
    if configuration is not None and not Path(configuration).exists():
        return {}
    if shutil.which("squeue") is None:
        raise UserError("This machine has no squeue to ask whether they still run.")
    named = {} if configuration is None else {"SLURM_CONF": configuration}
    states = {}
    for job_id in job_ids:
        # One call per job: squeue fails for all when one of several ids has been purged.
        asked = ["squeue", "-h", "-j", job_id, "-o", "%T"]
        shown = subprocess.run(asked, capture_output=True, text=True, env={**os.environ, **named})
        if shown.returncode and "Invalid job id" not in shown.stderr:
            raise UserError(f"Slurm does not say whether job {job_id} still runs: {shown.stderr.strip()}")
        if shown.stdout.strip():
            states[job_id] = ",".join(sorted(set(shown.stdout.split())))
    return states


def _parameters(job: Job, profile: ClusterProfile, dependency: str | None) -> dict[str, Any]:
    """Keyword arguments of submitit's Slurm executor."""
    resources = job.resources
    cpus = resources.cpus_per_task
    variables = {**(OFFLINE if profile.offline else {}), **profile.environment}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # Since Slurm 22.05 srun does not take --cpus-per-task from the batch job: it would get one core.
    exports.append(f"export SRUN_CPUS_PER_TASK={cpus}")
    given = {
        "partition": resources.partition or profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "gpus_per_node": _gpus(resources.gpus_per_node, profile.gpu_type),
        "mem": None if resources.memory_gb is None else f"{round(resources.memory_gb * 1024)}M",
        "dependency": dependency,
    }
    return {
        "job_name": f"{job.name}.{job.run}",
        "wckey": None,  # submitit's default would be refused where wckeys are enforced
        "time": max(1, round(resources.hours * 60)),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": cpus,
        "array_parallelism": profile.max_parallel,
        "stderr_to_stdout": True,
        # Tasks of a job wait for each other: one that dies must end them all; one that has done its part must not.
        "srun_args": ["--kill-on-bad-exit=1", "--wait=0"],
        "setup": [*exports, *profile.setup],
        # A job whose dependency failed must not wait for ever.
        "additional_parameters": {
            "kill-on-invalid-dep": "yes",
            **{name: flag(value) for name, value in profile.sbatch.items()},
        },
        **{key: value for key, value in given.items() if value is not None},
    }


def _gpus(count: int, kind: str | None) -> int | str | None:
    """Value of --gpus-per-node; None for none."""
    return f"{kind}:{count}" if count and kind else count or None


def apply_environment(profile: ClusterProfile) -> None:
    """Put the profile's environment into this process, for its Slurm commands."""
    os.environ.update(profile.environment)
