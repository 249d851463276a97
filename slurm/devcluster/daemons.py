"""Starting the daemons, each in the foreground of a session of its own, and waiting until the cluster works."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from configuration import CLUSTER_NAME
from layout import NODES, ClusterError, Layout, user_name
from processes import Process, process_of, write_record

PACKAGE_OF = {  # Debian package of each program that is called
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "scontrol": "slurm-client",
}
ACCOUNTING_PACKAGE_OF = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
}
SECONDS_TO_START = 60.0  # of one daemon on a busy machine


def clean_environment(layout: Layout) -> dict[str, str]:
    """This process's environment, pointed at the cluster, with the places of system daemons on the path.

    Slurm's variables are left out: inside a job of another cluster, or with a user's format settings, they would
    change what its commands do.
    """
    prefixes = ("SLURM", "SBATCH", "SALLOC", "SRUN", "SQUEUE", "SINFO", "SCANCEL", "SACCT", "SCONTROL")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    environment["PATH"] = f"{environment.get('PATH', os.defpath)}:/usr/sbin:/usr/bin:/sbin:/bin"
    environment["SLURM_CONF"] = str(layout.slurm_conf)
    return environment


def check_packages(environment: Mapping[str, str], accounting: bool) -> None:
    """See that every program is there.

    Raises:
        ClusterError: some are missing; the message has the command that installs their packages.
    """
    needed = PACKAGE_OF | (ACCOUNTING_PACKAGE_OF if accounting else {})
    missing = [package for program, package in needed.items() if not shutil.which(program, path=environment["PATH"])]
    if missing:
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise ClusterError(
            f"the development cluster needs Debian packages that are not installed: {', '.join(missing)}\n"
            f"install them with:\n  {sudo}apt-get install -y --no-install-recommends {' '.join(missing)}",
            exit_code=2,
        )


def run(environment: Mapping[str, str], *command: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and capture what it says; a command that takes too long counts as failed."""
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {timeout:.0f} s")


class Starter:
    """Starts the daemons one after the other and keeps the record of them."""

    def __init__(self, layout: Layout, environment: Mapping[str, str]) -> None:
        self.layout = layout
        self.environment = environment
        self.processes: list[Process] = []
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str, **variables: str) -> None:
        """Start a daemon in the foreground of a new session, its output in a file, its id in the record."""
        program = shutil.which(command[0], path=self.environment["PATH"]) or command[0]
        with self.layout.output(name).open("wb") as output:
            child = subprocess.Popen(
                [program, *command[1:]],
                cwd=self.layout.folder,
                env={**self.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.children[name] = child
        process = process_of(name, child.pid)
        if process:  # else it has ended already, which wait_until reports
            self.processes.append(process)
            write_record(self.layout, self.processes)

    def wait_until(self, what: str, obstacle: Callable[[], str]) -> None:
        """Wait until `obstacle` returns nothing.

        Raises:
            ClusterError: a daemon has ended, or the time is over; the message says why and shows the end of its output.
        """
        deadline = time.monotonic() + SECONDS_TO_START
        while reason := obstacle():
            for name, child in self.children.items():
                if child.poll() is not None:
                    raise ClusterError(f"{name} ended with code {child.returncode}\n{self._end_of_output(name)}")
            if time.monotonic() > deadline:
                newest = list(self.children)[-1]
                raise ClusterError(
                    f"no {what} within {SECONDS_TO_START:.0f} s: {reason}\n{self._end_of_output(newest)}"
                )
            time.sleep(0.05)

    def _end_of_output(self, name: str) -> str:
        output = self.layout.output(name)
        lines = output.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"the end of {output}:", *(f"  {line}" for line in lines)])


def start_munge(starter: Starter) -> None:
    """The authentication daemon, with a key and a socket of its own.

    Forced, because munged wants its socket open to every user of the machine; this one is for its owner only.
    """
    folder = starter.layout.munge
    starter.start(
        "munged", "munged", "--foreground", "--force", "--num-threads=10", "--origin=127.0.0.1",
        f"--socket={starter.layout.munge_socket}", f"--key-file={folder / 'key'}",
        f"--pid-file={folder / 'pid'}", f"--seed-file={folder / 'seed'}",
    )  # fmt: skip
    starter.wait_until("munged", lambda: _not_connected(starter.layout.munge_socket))


def start_accounting(starter: Starter) -> None:
    """MariaDB on a socket only, and slurmdbd in front of it."""
    layout, user = starter.layout, user_name()
    options = (  # small and never synced: the data goes when the cluster stops, so it need not survive a power cut
        "--no-defaults",
        f"--datadir={layout.database / 'data'}",
        f"--user={user}",
        "--debug-no-sync",
        "--innodb-log-file-size=8M",
    )
    installed = run(
        starter.environment, "mariadb-install-db", *options, "--skip-test-db", "--skip-name-resolve",
        "--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}", timeout=SECONDS_TO_START,
    )  # fmt: skip
    if installed.returncode:
        raise ClusterError(f"MariaDB's system tables could not be made:\n{installed.stdout}{installed.stderr}")
    starter.start(
        "mariadbd", "mariadbd", *options, "--skip-networking", f"--socket={layout.database_socket}",
        f"--pid-file={layout.database / 'pid'}", "--innodb-lock-wait-timeout=900",
    )  # fmt: skip
    starter.wait_until("MariaDB", lambda: _not_connected(layout.database_socket))
    starter.start("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=str(layout.database_socket))
    starter.wait_until("slurmdbd", lambda: _failure(starter, "sacctmgr", "-n", "show", "cluster"))
    added = run(starter.environment, "sacctmgr", "-i", "add", "cluster", CLUSTER_NAME)
    if added.returncode:
        raise ClusterError(f"sacctmgr could not add the cluster: {added.stdout}{added.stderr}")


def start_slurm(starter: Starter) -> None:
    """The controller, then one slurmd per node."""
    start_controller(starter)
    for node in NODES:
        starter.start(node, "slurmd", "-D", "-N", node, "-f", str(starter.layout.slurm_conf))
    starter.wait_until("idle nodes", lambda: _not_idle(starter.environment))


def start_controller(starter: Starter) -> None:
    starter.start("slurmctld", "slurmctld", "-D", "-f", str(starter.layout.slurm_conf))
    starter.wait_until("slurmctld", lambda: _failure(starter, "scontrol", "ping"))


def node_states(environment: Mapping[str, str]) -> dict[str, str]:
    """State of each node by name; empty if the controller does not answer."""
    answer = run(environment, "sinfo", "--noheader", "--Node", "--format=%N %T")
    return dict(line.split() for line in answer.stdout.splitlines() if len(line.split()) == 2)


def _not_idle(environment: Mapping[str, str]) -> str:
    states = node_states(environment)
    return "" if states == dict.fromkeys(NODES, "idle") else f"node states are {states}"


def _failure(starter: Starter, *command: str) -> str:
    answer = run(starter.environment, *command)
    return "" if answer.returncode == 0 else f"{' '.join(command)} says: {answer.stdout}{answer.stderr}".rstrip()


def _not_connected(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as probe:
        code = probe.connect_ex(str(path))
    return f"{path}: {os.strerror(code)}" if code else ""
