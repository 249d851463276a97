"""A real Slurm on one machine: a controller and three nodes with two stand-in GPUs each, for the current user only.

  python3 slurm/devcluster/devcluster.py up [--folder DIR] [--accounting]
  eval "$(python3 slurm/devcluster/devcluster.py env [--folder DIR])"
  python3 slurm/devcluster/devcluster.py status|restart|down [--folder DIR]

Everything lies in one folder, by default ~/.local/state/reprokit-devcluster. Needs nothing but Python and the Debian
packages of packages.txt. Jobs of the partition urgent preempt those of the others: those of main are queued again,
those of cancelled are not. `restart` stops and starts the controller under the jobs.
Exit codes: 0 done; 1 it did not work, or status: not up; 2 something to put right first.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from configuration import write_configuration
from daemons import (
    Starter,
    check_packages,
    clean_environment,
    node_states,
    run,
    start_accounting,
    start_controller,
    start_munge,
    start_slurm,
)
from layout import NODES, ClusterError, Layout, default_folder, layout_of
from processes import Process, find_leftovers, read_record, stop

SECONDS_FOR_JOBS_TO_END = 5.0  # jobs that heed SIGTERM need not be longer; the others are killed after it


@contextlib.contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Keep other `up` and `down` of the same folder waiting.

    Raises:
        ClusterError: called from a job of this very cluster, which ends with it.
    """
    if "SLURMD_NODENAME" in os.environ and os.environ.get("SLURM_CONF") == str(layout.slurm_conf):
        raise ClusterError("this is a job of that cluster: start and stop it from outside", exit_code=2)
    layout.folder.mkdir(parents=True, exist_ok=True)
    layout.folder.chmod(0o700)
    with layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(layout: Layout, accounting: bool) -> None:
    """Start the cluster and wait until every node is idle; does nothing if it is up."""
    environment = clean_environment(layout)
    check_packages(environment, accounting)
    with held(layout):
        daemons = read_record(layout)
        if daemons and all(daemon.alive for daemon in daemons):
            _say_already_up(layout, daemons, accounting)
            return
        if daemons or find_leftovers(layout):
            print(f"cleaning up after a cluster in {layout.folder} that was not stopped by `down`")
        _end(layout, environment)
        begin = time.monotonic()
        starter = Starter(layout, environment)
        try:
            write_configuration(layout, accounting)
            start_munge(starter)
            if accounting:
                start_accounting(starter)
            start_slurm(starter)
        except BaseException:
            _end(layout, environment)
            raise
        print(f"Slurm is up after {time.monotonic() - begin:.1f} s: {_describe(starter.processes)}\n{_usage(layout)}")


def restart(layout: Layout) -> None:
    """Stop the controller and start it again, as for maintenance; nodes and jobs run on."""
    with held(layout):
        daemons = read_record(layout)
        if not any(daemon.name == "slurmctld" for daemon in daemons):
            raise ClusterError(f"no cluster is up in {layout.folder}; start it with `up`")
        stop(daemon for daemon in daemons if daemon.name == "slurmctld")
        starter = Starter(layout, clean_environment(layout))
        starter.processes += [daemon for daemon in daemons if daemon.name != "slurmctld"]
        start_controller(starter)
    print("the controller was stopped and is up again")


def down(layout: Layout) -> None:
    """Cancel the jobs, stop every process of the cluster, and remove all but the logs."""
    if not read_record(layout) and not find_leftovers(layout):
        print(f"no cluster is up in {layout.folder}")
        return
    with held(layout):
        _end(layout, clean_environment(layout))
    print(f"Slurm is down and no process of it is left; logs stay in {layout.logs}")


def status(layout: Layout) -> bool:
    """Print the state of daemons and nodes. Returns whether the whole cluster is up."""
    daemons = read_record(layout)
    if not daemons:
        print(f"no cluster is up in {layout.folder}")
        return False
    for daemon in daemons:
        print(f"{daemon.name:10} {daemon.pid:>8} {'runs' if daemon.alive else 'has ended'}")
    if not all(daemon.alive for daemon in daemons):
        print("the cluster is broken: `down`, or `up` to begin afresh")
        return False
    for node, state in node_states(clean_environment(layout)).items():
        print(f"{node:10} {state}")
    return True


def _end(layout: Layout, environment: Mapping[str, str]) -> None:
    """Leave no job, no process and no state behind."""
    daemons = read_record(layout)
    if any(daemon.name == "slurmctld" and daemon.alive for daemon in daemons):
        _cancel_jobs(environment)
    for names in (NODES, ("slurmctld",), ("slurmdbd",), ("mariadbd",), ("munged",)):
        stop(daemon for daemon in daemons if daemon.name in names)
    stop(find_leftovers(layout), grace=2.0)
    left = [*(daemon for daemon in daemons if daemon.alive), *find_leftovers(layout)]
    if left:
        raise ClusterError(f"these processes do not end: {_describe(left)}; the cluster's folder stays as it is")
    for folder in layout.folders:
        shutil.rmtree(folder, ignore_errors=True)
    for file in layout.files:
        file.unlink(missing_ok=True)


def _cancel_jobs(environment: Mapping[str, str]) -> None:
    """Cancel every job and wait for them; what does not end in time is stopped later, process by process."""
    deadline = time.monotonic() + SECONDS_FOR_JOBS_TO_END
    while jobs := run(environment, "squeue", "--noheader", "--format=%A").stdout.split():
        if time.monotonic() > deadline:
            return
        run(environment, "scancel", *set(jobs))
        time.sleep(0.2)


def _describe(processes: list[Process]) -> str:
    return ", ".join(f"{process.name} ({process.pid})" for process in processes)


def _say_already_up(layout: Layout, daemons: list[Process], accounting: bool) -> None:
    if accounting and not layout.slurmdbd_conf.exists():
        raise ClusterError(
            f"a cluster without accounting is up in {layout.folder}: `down` first, then `up --accounting`", 2
        )
    print(f"Slurm is up already: {_describe(daemons)}\n{_usage(layout)}")


def _usage(layout: Layout) -> str:
    return f"  logs:  {layout.logs}\n  use:   . {layout.environment}   (then sbatch, srun, squeue ... as usual)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{up,down,restart,env,status}")
    helps = {
        "up": "start it",
        "down": "cancel its jobs and stop it",
        "restart": "stop its controller and start that again, under the running jobs",
        "env": "print the shell commands that point sbatch, srun ... at it",
        "status": "show its daemons and nodes",
    }
    for name, what in helps.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("--folder", type=Path, default=default_folder(), help="default: %(default)s")
        if name == "up":
            command.add_argument("--accounting", action="store_true", help="with slurmdbd and MariaDB: sacct works")
    given = parser.parse_args()
    try:
        layout = layout_of(given.folder)
        if given.command == "up":
            up(layout, given.accounting)
        elif given.command == "down":
            down(layout)
        elif given.command == "restart":
            restart(layout)
        elif given.command == "status":
            return 0 if status(layout) else 1
        elif not layout.environment.exists():
            raise ClusterError(f"no cluster is up in {layout.folder}; start it with `up`")
        else:
            print(layout.environment.read_text(), end="")
    except ClusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"devcluster: {error}; --folder chooses another folder", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
