"""Where everything of one development cluster lies: a single folder, safe to be looked at and to be removed."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path

NODES = ("n1", "n2", "n3")
GPUS_PER_NODE = 2
UNIX_SOCKET_LIMIT = 107  # bytes of a path in sockaddr_un, without the closing zero
LONGEST_SOCKET = "/spool/n1/n1_99999999.4294967295"  # slurmstepd makes one per step


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message says why and what to do. `exit_code` is the command's."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Layout:
    """Paths inside the cluster's folder. `logs` outlives the cluster; everything else goes when it stops."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Held by `up` and `down`; also marks the folder as a cluster's own."""
        return self.folder / "devcluster.lock"

    @property
    def record(self) -> Path:
        """The started processes."""
        return self.folder / "processes.json"

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def gres_conf(self) -> Path:
        return self.folder / "gres.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        return self.folder / "slurmdbd.conf"

    @property
    def environment(self) -> Path:
        """Shell commands that point Slurm's own commands at this cluster."""
        return self.folder / "environment"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def munge(self) -> Path:
        return self.folder / "munge"

    @property
    def munge_socket(self) -> Path:
        return self.munge / "socket"

    @property
    def database(self) -> Path:
        return self.folder / "database"

    @property
    def database_socket(self) -> Path:
        return self.database / "socket"

    @property
    def devices(self) -> Path:
        return self.folder / "devices"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that are made for one life of the cluster."""
        return (self.spool, self.state, self.munge, self.database, self.devices)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that are made for one life of the cluster."""
        return (self.slurm_conf, self.gres_conf, self.slurmdbd_conf, self.environment, self.record)

    def output(self, daemon: str) -> Path:
        """What a daemon printed; Slurm's own daemons write a .log beside it, which also has the steps of jobs."""
        return self.logs / f"{daemon}.out"


def default_folder() -> Path:
    """~/.local/state/reprokit-devcluster, which the profile slurm/dev.yaml names too."""
    return Path.home() / ".local" / "state" / "reprokit-devcluster"


def user_name() -> str:
    """Name of the current user, who owns every daemon of the cluster.

    Raises:
        ClusterError: the user id has no name; Slurm and munge need one.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ClusterError(
            f"user id {os.geteuid()} has no name in the user database, and Slurm needs one; be a user that has one",
            exit_code=2,
        ) from None


def layout_of(folder: Path) -> Layout:
    """The layout of a folder that can hold a cluster.

    Raises:
        ClusterError: the path is too long for sockets, or has characters that Slurm's configuration cannot hold, or
            the folder belongs to something else.
    """
    layout = Layout(folder.expanduser().absolute())
    path = str(layout.folder)
    if not re.fullmatch(r"[A-Za-z0-9_./+@-]+", path):
        raise ClusterError(
            f"folder {path!r}: only letters, digits and _ . / + @ - can stand in a path in slurm.conf; "
            "choose another one with --folder",
            exit_code=2,
        )
    longest = UNIX_SOCKET_LIMIT - len(LONGEST_SOCKET)
    if len(path) > longest:
        raise ClusterError(
            f"folder {path}: {len(path)} characters, at most {longest} leave room for the sockets in it; "
            "choose a shorter one with --folder",
            exit_code=2,
        )
    if layout.folder.is_dir() and not layout.lock.exists() and any(layout.folder.iterdir()):
        raise ClusterError(
            f"folder {path} holds files of something else; choose an empty or a new one with --folder",
            exit_code=2,
        )
    if layout.folder.exists() and not layout.folder.is_dir():
        raise ClusterError(f"{path} is not a folder; choose another one with --folder", exit_code=2)
    return layout
