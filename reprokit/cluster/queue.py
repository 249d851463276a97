"""What Slurm says about the jobs of this user: those that wait or run, and how others ended."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reprokit.cluster.asking import Answer, ask, last_line
from reprokit.errors import UserError

SEPARATOR = "\x1f"  # of fields: names and comments may hold every sign that can be typed
FIELDS = ("%i", "%T", "%r", "%N", "%M", "%l", "%j", "%o", "%k")
SECONDS = 20.0  # that squeue may take; it tries for some itself while the controller restarts
FINAL = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("DEADLINE", "REVOKED"),
}


@dataclass(frozen=True)
class QueuedJob:
    """A job, or those elements of an array that are in the same state.

    id: "12", "12_3", or "12_[4-9%2]" for elements that wait. state: Slurm's long form (PENDING, COMPLETING ...).
    reason: why it waits, else "None". nodes: Slurm's names, expanded; none before it starts. elapsed, limit: seconds,
    limit None where there is none. script: path of the batch script. name, comment: as given to sbatch.
    """

    id: str
    name: str
    state: str
    reason: str
    nodes: list[str]
    elapsed: int
    limit: int | None
    script: str
    comment: str

    @property
    def job_id(self) -> str:
        """The id without elements, that `jobs.json` has."""
        return self.id.partition("_")[0]

    @property
    def is_held(self) -> bool:
        """Whether it waits for its release alone, by whomever it is held: a launch, a person, or Slurm after errors."""
        return self.state == "PENDING" and is_held(self.reason)

    @property
    def elements(self) -> list[int] | None:
        """Indices of the array elements that this is about; None for a job without elements."""
        _, underscore, indices = self.id.partition("_")
        return element_indices(indices) if underscore else None

    @property
    def element_ids(self) -> list[str]:
        """The ids of the elements that this is about, or its own."""
        return [self.id] if self.elements is None else [f"{self.job_id}_{index}" for index in self.elements]


def queued(configuration: str | None) -> list[QueuedJob]:
    """All jobs of this user that wait, run or end just now, by one call of squeue.

    `configuration` is the SLURM_CONF of their cluster, if one is named; a cluster whose file is gone has none.

    Raises:
        UserError: Slurm does not answer: what waits or runs is not known.
    """
    if configuration is not None and not Path(configuration).exists():
        return []
    if shutil.which("squeue") is None:
        raise UserError("This machine has no squeue to ask which jobs wait or run: type this on a login node of Slurm.")
    answer = _squeue(configuration)
    if not answer.well:
        said = last_line(answer.complaint) or f"squeue ended with code {answer.code}"
        raise UserError(f"Slurm does not say which jobs wait or run: {said}. Try again when `squeue` answers.")
    return list(_jobs(answer.text))


def ended(job_ids: Iterable[str], configuration: str | None) -> dict[str, str]:
    """The final state of those of the jobs that have ended and that Slurm still knows: id -> COMPLETED, TIMEOUT ...

    An array gives one entry per element that has ended (`12` -> `12_0`, `12_1` ...). The controller, which remembers
    jobs for some minutes, is asked first, then `sacct` where there is accounting. Jobs that neither knows, or that have
    not ended, are absent; so are all when Slurm does not answer.
    """
    asked = set(job_ids)
    if not asked or (configuration is not None and not Path(configuration).exists()):
        return {}
    answer = _squeue(configuration, "--states=all", "--array")
    known = {job.id: job.state for job in (_jobs(answer.text) if answer.well else ()) if _is_of(job.id, asked)}
    states = {**_accounted(asked, configuration), **known}  # accounting may be behind
    return {job: state for job, state in states.items() if state in FINAL}


def cancel(job_ids: Sequence[str], configuration: str | None) -> None:
    """Cancel jobs, arrays or elements; those that have ended are passed over.

    Raises:
        UserError: Slurm does not do it.
    """
    if not job_ids:
        return
    answer = ask("scancel", *job_ids, environment=_environment(configuration))
    if not answer.well:
        raise UserError(f"Slurm does not cancel {', '.join(job_ids)}: {last_line(answer.complaint)}")


def release(job_ids: Sequence[str], configuration: str | None) -> None:
    """Let jobs go that wait only because they are held.

    Raises:
        UserError: Slurm does not do it.
    """
    if not job_ids:
        return
    answer = ask("scontrol", "release", ",".join(job_ids), environment=_environment(configuration))
    if not answer.well:
        raise UserError(f"Slurm does not let jobs {', '.join(job_ids)} go: {last_line(answer.complaint)}")


def is_held(reason: str) -> bool:
    """Whether a job that waits for this reason is held: `JobHeldUser`, `launch failed requeued held` ..."""
    return "held" in reason.lower()


def element_indices(text: str) -> list[int]:
    """Indices of array elements as Slurm writes them: `3`, `[4-9%2]`, `[0,3-9:3]`; a list cut short gives its part."""
    indices: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        if found := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last, step = found.groups()
            indices += range(int(first), int(last or first) + 1, int(step or 1))
    return indices


def seconds_of(text: str) -> int | None:
    """Slurm's `1-02:03:04`, `2:03:04` or `3:04` in seconds; None for UNLIMITED, INVALID and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def node_names(text: str) -> list[str]:
    """Slurm's `n[1-3,07],gpu1` as a list of names; a range keeps its leading zeros."""
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        names = [""]
        for plain, listed in re.findall(r"([^\[]+)|\[([^\]]*)\]", part):
            endings = [plain] if plain else list(_numbers(listed))
            names = [name + ending for name in names for ending in endings]
        found += names
    return found


def _numbers(listed: str) -> Iterator[str]:
    for part in listed.split(","):
        first, dash, last = part.partition("-")
        if not dash:
            yield part
        else:
            yield from (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))


def _squeue(configuration: str | None, *options: str) -> Answer:
    shape = SEPARATOR.join(FIELDS)
    return ask(
        "squeue", "--me", "--all", "-h", *options, "-o", shape, seconds=SECONDS, environment=_environment(configuration)
    )


def _environment(configuration: str | None) -> dict[str, str]:
    """For Slurm's commands: this one without a person's own views, and lists of elements in full."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    named = {} if configuration is None else {"SLURM_CONF": configuration}
    return {**kept, "SLURM_BITSTR_LEN": "0", **named}


def _jobs(text: str) -> Iterator[QueuedJob]:
    """Lines that are none of a job are passed over: a comment may have several."""
    for line in text.split("\n"):
        fields = line.split(SEPARATOR, len(FIELDS) - 1)
        if len(fields) == len(FIELDS):
            yield _job([field.strip() for field in fields])


def _job(fields: Sequence[str]) -> QueuedJob:
    number, state, reason, nodes, elapsed, limit, name, script, comment = fields
    return QueuedJob(
        id=number,
        name=name,
        state=state,
        reason=reason,
        nodes=node_names(nodes),
        elapsed=seconds_of(elapsed) or 0,
        limit=seconds_of(limit),
        script=script,
        comment="" if comment == "(null)" else comment,
    )


def _is_of(job: str, asked: set[str]) -> bool:
    """Whether an element or job is one of those asked about, or an element of one."""
    return job in asked or job.partition("_")[0] in asked


def _accounted(asked: set[str], configuration: str | None) -> dict[str, str]:
    """What sacct says of the jobs; nothing where there is no accounting or it does not answer."""
    shape = ("-n", "-P", "-X", "-o", "JobID,State")
    answer = ask("sacct", *shape, "-j", ",".join(sorted(asked)), environment=_environment(configuration))
    states = {}
    for line in answer.text.splitlines() if answer.well else ():
        job, _, state = line.partition("|")
        if state and _is_of(job, asked):
            states[job] = state.split()[0]  # "CANCELLED by 1000"
    return states
