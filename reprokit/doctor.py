"""python -m reprokit.doctor [cluster=NAME] [write=FILE.yaml]

Looks at the Slurm cluster and the machine it stands on and says what is well, what is not, and what to do about that.
Drafts a cluster profile; `write` puts the draft into a new file. With `cluster`, a profile of `slurm/` or a path, it
says what of that profile does not fit the cluster, and drafts one only for `write`. Submits and changes nothing.
Exit code 1: there are problems.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reprokit.cluster import diagnosis, fitting, inspection, machine, slurm
from reprokit.cluster.draft import draft
from reprokit.cluster.findings import Finding, Level, ok, problem
from reprokit.cluster.inspection import Slurm
from reprokit.cluster.profile import ClusterProfile, Scheduler
from reprokit.cluster.profiles import load_profile
from reprokit.errors import UserError
from reprokit.records.files import write_text
from reprokit.words import run, split, terminal

LOG_WIDTH = 160  # columns of the table where the output is no terminal
STYLES = {Level.ok: "green", Level.warning: "yellow", Level.problem: "bold red"}


def examine(words: Sequence[str]) -> list[Finding]:
    """Do what the words say; returns what was found.

    Raises:
        UserError: unknown words, no such profile or one with errors, or a file to write that is there already.
    """
    given = dict(split(words, __doc__))
    if unknown := set(given) - {"cluster", "write"}:
        raise UserError(f"unknown: {', '.join(sorted(unknown))}\n\n{__doc__}")
    file = _file_to_write(given["write"]) if "write" in given else None
    name = given.get("cluster")
    profile = load_profile(name) if name is not None else None
    if profile is not None:
        slurm.apply_environment(profile)
    console = terminal(LOG_WIDTH)
    with console.status("looking at the cluster and this machine"):
        found, text = _look(profile, name or "")
    if file is not None and text is None:
        to_do = "a draft needs a cluster that answers: put that right, without cluster=local"
        found.append(problem("write", f"{file} was not written", to_do))
    _print(found, console)
    if text is not None and file is not None:
        write_text(file, text)
        load_profile(str(file))
        console.print(f"draft: {file}", markup=False)
    elif text is not None and name is None:
        console.print("\nA draft of a profile (write=slurm/NAME.yaml puts it into a file):")
        console.print(text, markup=False, highlight=False, soft_wrap=True, end="")
    return found


def _look(profile: ClusterProfile | None, name: str) -> tuple[list[Finding], str | None]:
    """All findings, and the draft of a profile where a cluster answers."""
    runs = Path(profile.runs) if profile is not None and profile.runs is not None else Path.cwd() / "runs"
    here = machine.inspect(runs)
    if profile is not None and profile.scheduler is Scheduler.local:
        note = ok(f"cluster={name}", "runs on this machine, without Slurm")
        return [note, *diagnosis.of_machine(here, None)], None
    cluster = inspection.inspect()
    found = [*diagnosis.of_slurm(cluster), *diagnosis.of_machine(here, cluster)]
    if not isinstance(cluster, Slurm):
        return found, None
    if profile is not None:
        found += fitting.of_profile(profile, cluster)
    return found, draft(cluster, here)


def _file_to_write(name: str) -> Path:
    path = Path(os.path.expanduser(name))
    if path.suffix != ".yaml":
        raise UserError(f"write={name}: give the name of a file that ends in .yaml, for example slurm/mine.yaml")
    if not path.parent.is_dir():
        raise UserError(f"write={name}: there is no folder {path.parent}")
    if path.exists():
        raise UserError(f"write={name}: that file is there already; give another name, or remove it")
    return path


def _print(found: Sequence[Finding], console: Console) -> None:
    table = Table("", "what", "found", "to do", box=None, header_style="bold")
    for finding in found:
        level = Text(finding.level.value, STYLES[finding.level])
        table.add_row(level, Text(finding.what), Text(finding.found), Text(finding.to_do))
    console.print(table)
    console.print(", ".join(_count(found, level) for level in (Level.problem, Level.warning)))


def _count(found: Sequence[Finding], level: Level) -> str:
    number = sum(finding.level is level for finding in found)
    return f"{number} {level.value}{'' if number == 1 else 's'}"


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0 fine, 1 problems found, 2 words that cannot be used."""
    found: list[Finding] = []
    code = run(lambda: found.extend(examine(words)))
    return code or int(any(finding.level is Level.problem for finding in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
