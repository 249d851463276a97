"""Jobs on Slurm, through submitit."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from reprokit.cluster import queue
from reprokit.cluster.asking import ask
from reprokit.cluster.job import Job, stage_in
from reprokit.cluster.profile import ClusterProfile
from reprokit.cluster.sbatch_options import flag
from reprokit.errors import UserError
from reprokit.records.secrets import without_secrets

OFFLINE = {"HF_HUB_OFFLINE": "1"}  # which transformers and vLLM heed too
LARGEST_ARRAY = 1001  # elements, where Slurm does not say MaxArraySize: its default
GRACE = (30, 600)  # seconds before the time limit at which a job is told to leave: least and most
# The signal comes up to 30 s earlier than that, so that of a limit of one or two minutes little would be left.
LARGEST_GRACE = 1 / 6  # of the time limit
# Shell lines after the command of a job that comes back: its task was killed (137), and the job not cancelled.
COME_BACK = (
    "code=$?",
    'if [ $code -eq 137 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ] &&',
    '    [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
    "exit $code",
)
NOTHING: Mapping[str, str] = MappingProxyType({})
# What Slurm and submitit put into a job, and what of it would be taken as an option by a job's own sbatch.
_OF_A_JOB = re.compile(
    r"(?!SLURM_CONF$)(SLURM|SLURMD|SRUN|SUBMITIT|PMI|PMIX)_|SLURMD?$|SBATCH_(CPU|MEM)_BIND|"
    r"(CUDA_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ROCR_VISIBLE_DEVICES|ZE_AFFINITY_MASK)$"
)


class _PlanningExecutor(SlurmExecutor):
    """Writes sbatch text on a machine without Slurm too."""

    @classmethod
    def affinity(cls) -> int:
        return 1


@dataclass(frozen=True)
class _Part:
    """A job, or one of the arrays that it takes: `evaluate`, `evaluate.2` ...

    `parallel` elements run at a time; `follows` names the array of the same job that it waits for.
    """

    name: str
    job: Job
    parallel: int
    follows: str | None


def available() -> bool:
    """Whether this machine can submit to Slurm: its commands are here and know a cluster."""
    if shutil.which("sbatch") is None:
        return False
    if "SLURM_CONF" in os.environ and not Path(os.environ["SLURM_CONF"]).exists():
        return False  # the commands would wait for the file
    return "Could not establish a configuration source" not in ask("scontrol", "ping").complaint


def sbatch_text(
    job: Job, profile: ClusterProfile, logs: Path, dependency: str | None, environment: Mapping[str, str] = NOTHING
) -> str:
    """The batch script that `submit` would hand to sbatch; of several arrays, the first."""
    part = _parts(job, LARGEST_ARRAY, profile.max_parallel)[0]
    executor = _PlanningExecutor(logs / job.name, python=_python(profile))
    executor.update_parameters(**_parameters(part, profile, dependency, environment))
    if len(part.job.elements) > 1:
        executor.parameters["map_count"] = len(part.job.elements)
    return executor._make_submission_file_text(executor._submitit_command_str, uid="")


def submit(
    jobs: Sequence[Job],
    profile: ClusterProfile,
    logs: Path,
    remember: Callable[[dict[str, str]], None],
    environment: Mapping[str, str] = NOTHING,
    earlier: Mapping[str, str] = NOTHING,
) -> dict[str, str]:
    """Submit all jobs with their dependencies; returns the Slurm id of each, by name.

    None can begin before all are submitted and `remember`, which is called with the ids, has returned: a process that
    is killed before that leaves jobs that are held, and no others.

    Args:
        logs: the folder of the batch scripts and logs, of this submission alone.
        environment: variables of the jobs beside those of the profile.
        earlier: ids of other jobs, by name, that `after` may name too.

    Raises:
        UserError: sbatch refused a job.

    Whatever goes wrong, the jobs that were submitted before it are cancelled: none is left that nobody knows of.
    """
    ids: dict[str, str] = {}
    held: list[str] = []
    refused = ""
    others = {*earlier.values(), os.environ.get("SLURM_JOB_ID")}  # which may have their scripts in the same folder
    with outside_of_jobs():
        try:
            for part in _all_parts(jobs, profile):
                refused = part.name
                dependency = dependency_of(part.job, {**earlier, **ids}, part.follows)
                executor = SlurmExecutor(logs / part.job.name, python=_python(profile))
                executor.update_parameters(**_parameters(part, profile, dependency, environment))
                submitted = executor.map_array(part.job.function, *zip(*part.job.elements, strict=True))
                ids[part.name] = submitted[0].job_id.split("_")[0]
                held += [] if dependency or "hold" in profile.sbatch else [ids[part.name]]
            remember(dict(ids))
            queue.release(held, None)
        except BaseException as error:
            _cancel_below(logs, ids, others)
            if not isinstance(error, (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError)):
                raise
            raise UserError(
                f"Slurm refused job {refused}; nothing was left submitted. It said:\n{str(error) or error.__cause__}\n"
                "Check partition, account, limits and resources in the cluster profile with "
                "`python -m reprokit.doctor cluster=NAME`."
            ) from error
    return ids


def dependency_of(job: Job, ids: Mapping[str, str], follows: str | None = None) -> str | None:
    """Value of --dependency; jobs that are not in `ids` were finished before.

    A job that has several arrays is waited for by all of them; `follows` names one that is waited for however it ends.
    """
    waits_for = [ids[name] for name in ids if stage_in(name) in job.after]
    kinds = [f"{'afterok' if job.needs_success else 'afterany'}:{':'.join(waits_for)}"] if waits_for else []
    kinds += [f"afterany:{ids[follows]}"] if follows else []
    return ",".join(kinds) or None


def usable_nodes(partition: str | None) -> set[str]:
    """Names of the nodes of a partition (None: of the default one) that run jobs or could; none if Slurm is silent."""
    asked = ask("sinfo", "-h", "-N", "-o", "%N %T %P", *(["-p", partition] if partition else []))
    rows = [line.split() for line in asked.text.splitlines()] if asked.well else []
    well = re.compile(r"(idle|mixed|allocated|completing|planned|reserved)[+-]?$")
    return {row[0] for row in rows if len(row) == 3 and well.match(row[1]) and (partition or row[2].endswith("*"))}


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Inside a Slurm job, leave out of the environment what the job's own submissions would take as theirs."""
    names = list(os.environ) if "SLURM_JOB_ID" in os.environ else []
    kept = {name: os.environ.pop(name) for name in names if _OF_A_JOB.match(name)}
    try:
        yield
    finally:
        os.environ.update(kept)


def _all_parts(jobs: Sequence[Job], profile: ClusterProfile) -> list[_Part]:
    largest = _largest_array() if any(len(job.elements) > 1 for job in jobs) else LARGEST_ARRAY
    return [part for job in jobs for part in _parts(job, largest, profile.max_parallel)]


def _largest_array() -> int:
    """How many elements an array may have: their largest index is one less than MaxArraySize."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config").text, re.M)
    return int(found.group(1)) if found else LARGEST_ARRAY


def _parts(job: Job, largest: int, max_parallel: int) -> list[_Part]:
    """The arrays of a job, all of which together run at most `max_parallel` elements at a time.

    With more arrays than that, each waits for the one that many places before it.
    """
    count = -(-len(job.elements) // largest)
    size = -(-len(job.elements) // count)
    lanes = min(count, max_parallel)
    parts: list[_Part] = []
    for number in range(count):
        elements = job.elements[number * size : (number + 1) * size]
        parallel = max_parallel // lanes + (number % lanes < max_parallel % lanes)
        follows = parts[number - lanes].name if number >= lanes else None
        name = job.name if number == 0 else f"{job.name}.{number + 1}"
        parts.append(_Part(name, job.of(elements), parallel, follows))
    return parts


def _cancel_below(logs: Path, ids: Mapping[str, str], others: Collection[str | None]) -> None:
    """Cancel the jobs of these ids, and those but the `others` that sbatch took without that its answer came."""
    found = set(ids.values())
    with suppress(UserError):
        found |= {job.job_id for job in queue.queued(None) if is_below(job.script, logs)}
    with suppress(UserError):  # Slurm does not answer; what it has is held, and the next launch finds it
        queue.cancel(sorted(found.difference(others)), None)


def is_below(script: str, logs: Path) -> bool:
    """Whether a batch script lies in a folder; either may be named through links."""
    return bool(script) and Path(_real(script)).is_relative_to(_real(str(logs)))


@lru_cache(maxsize=8192)
def _real(path: str) -> str:
    """A path without links; every job in the queue is asked about for every run, on a file system that may be slow."""
    return os.path.realpath(path)


def _parameters(
    part: _Part, profile: ClusterProfile, dependency: str | None, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Keyword arguments of submitit's Slurm executor."""
    job, resources = part.job, part.job.resources
    cpus = resources.cpus_per_task
    minutes = max(1, round(resources.hours * 60))
    # sbatch itself hands secrets on to the job, from the environment of launch.
    named = without_secrets({**(OFFLINE if profile.offline else {}), **profile.environment})
    exports = [f"export {name}={shlex.quote(value)}" for name, value in {**named, **environment}.items()]
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
        "time": minutes,
        "signal_delay_s": min(max(minutes * 6, GRACE[0]), GRACE[1], round(minutes * 60 * LARGEST_GRACE)),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": cpus,
        "array_parallelism": part.parallel,
        "stderr_to_stdout": True,
        # Tasks of a job wait for each other: one that dies must end them all; one that has done its part must not.
        # A job that is requeued goes on in the same log.
        "srun_args": ["--kill-on-bad-exit=1", "--wait=0", "--open-mode=append"],
        "setup": [*exports, *profile.setup],
        "teardown": list(COME_BACK) if job.comes_back else None,
        "additional_parameters": _further_options(profile, dependency),
        **{key: value for key, value in given.items() if value is not None},
    }


def _further_options(profile: ClusterProfile, dependency: str | None) -> dict[str, str | bool]:
    return {
        "kill-on-invalid-dep": "yes",  # a job whose dependency failed must not wait for ever
        **({} if "no-requeue" in profile.sbatch else {"requeue": True}),
        **({} if dependency else {"hold": True}),  # until all are submitted
        **{name: flag(value) for name, value in profile.sbatch.items()},
    }


def _python(profile: ClusterProfile) -> str:
    """Shell words that start a task: until it can heed the signals that tell it to leave, they do not kill it."""
    return f"""sh -c 'trap "" USR2 TERM; exec "$0" "$@"' {profile.python or shlex.quote(sys.executable)}"""


def _gpus(count: int, kind: str | None) -> int | str | None:
    """Value of --gpus-per-node; None for none."""
    return f"{kind}:{count}" if count and kind else count or None


def apply_environment(profile: ClusterProfile) -> None:
    """Put the profile's environment into this process, for its Slurm commands."""
    os.environ.update(profile.environment)
