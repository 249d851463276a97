"""What this machine has: Python and packages, GPUs, networks, file systems, sandbox, a way to the hub. Facts alone."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
import threading
import urllib.request
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import psutil
from huggingface_hub import constants

from reprokit import sandbox
from reprokit.cluster.asking import ask

HUB_SECONDS = 10.0
NO_NETWORKS = ("lo", "docker", "veth", "virbr", "br-", "cni", "cali", "flannel", "ifb", "tun", "tap", "dummy")
# Types of mounts; names of FUSE file systems come without their `fuse.`
SHARED = frozenset(
    "afs beegfs beegfs_nodev ceph cephfs cifs cvmfs fhgfs glusterfs gpfs lustre nfs nfs4 orangefs panfs pvfs2 "
    "quobyte s3fs smb2 smb3 smbfs sshfs wekafs".split()
)
LOCAL = frozenset("bcachefs btrfs ext2 ext3 ext4 f2fs overlay ramfs rootfs squashfs tmpfs xfs zfs".split())


@dataclass(frozen=True)
class Place:
    """A folder and the file system that it lies on, or will lie on. Sizes in GB."""

    purpose: str
    path: Path
    kind: str
    free_gb: float | None

    @property
    def shared(self) -> bool | None:
        """Whether other machines see it; None if the type of the file system does not tell."""
        if self.kind in SHARED:
            return True
        return False if self.kind in LOCAL else None


@dataclass(frozen=True)
class Machine:
    """The machine that this process runs on. `missing`: packages that reprokit lacks, None if it is not installed."""

    python: str
    missing: tuple[str, ...] | None
    gpus: tuple[tuple[str, float], ...]  # name, GB
    driver: str
    interfaces: tuple[str, ...]
    infiniband: tuple[str, ...]
    places: tuple[Place, ...]
    isolation: str
    hub: str  # "" if it answers, else why not


def inspect(runs: Path) -> Machine:
    """Look at this machine. `runs`: where run folders are to lie."""
    gpus, driver = _gpus()
    purposes = {
        "current folder": Path.cwd(),
        "runs": runs,
        "HF_HOME": Path(os.environ.get("HF_HOME", constants.HF_HOME)),  # a profile may have set it late
        "environment": Path(sys.prefix),
        "code": Path(__file__).resolve().parents[2],
    }
    return Machine(
        python=f"{sys.version.split()[0]}, {sys.executable}",
        missing=_missing_packages(),
        gpus=gpus,
        driver=driver,
        interfaces=_interfaces(),
        infiniband=infiniband(Path("/sys/class/infiniband")),
        places=tuple(_place(purpose, path) for purpose, path in purposes.items()),
        isolation=_isolation(),
        hub=hub(),
    )


def gpus(text: str) -> tuple[tuple[str, float], ...]:
    """Name and memory in whole GB of each line `name, MiB, driver` of nvidia-smi, in units of 2**30 bytes."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[1].isdigit():
            found.append((fields[0], round(int(fields[1]) / 1024)))
    return tuple(found)


def _gpus() -> tuple[tuple[tuple[str, float], ...], str]:
    query = ask("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
    if not query.well:
        return (), ""
    version = re.search(r"CUDA Version: *([\d.]+)", ask("nvidia-smi").text)
    driver = query.text.strip().splitlines()[0].split(",")[-1].strip() if query.text.strip() else ""
    return gpus(query.text), f"driver {driver}" + (f", CUDA {version.group(1)}" if version else "")


def infiniband(folder: Path) -> tuple[str, ...]:
    """Adapters with a port that is active, of /sys/class/infiniband."""
    active = (state.parts[-4] for state in folder.glob("*/ports/*/state") if "ACTIVE" in state.read_text())
    return tuple(sorted(set(active)))


def _interfaces() -> tuple[str, ...]:
    """Networks that NCCL can use for its start, with their speed in Gbit/s where it is known."""
    found = []
    for name, state in sorted(psutil.net_if_stats().items()):
        if state.isup and not name.startswith(NO_NETWORKS):
            found.append(f"{name} ({state.speed / 1000:g} Gbit/s)" if state.speed > 0 else name)
    return tuple(found)


def _place(purpose: str, path: Path) -> Place:
    existing = path
    # Commands look, in time, even if a server is dead: this process might wait for it for ever.
    while (seen := ask("test", "-e", str(existing))).code == 1 and existing != existing.parent:
        existing = existing.parent
    if not seen.well:
        return Place(purpose, path, seen.complaint or "unknown", None)
    shown = ask("df", "--block-size=1", "--output=fstype,avail", str(existing))
    fields = shown.text.splitlines()[-1].split() if shown.well else []
    if len(fields) != 2:
        return Place(purpose, path, shown.complaint or "unknown", None)
    return Place(purpose, path, fields[0].removeprefix("fuse."), int(fields[1]) / 1e9 if fields[1].isdigit() else None)


def _missing_packages() -> tuple[str, ...] | None:
    try:
        needed: Iterable[str] = importlib.metadata.requires("reprokit") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    names = [matched.group() for each in needed if (matched := re.match(r"[\w.-]+", each))]
    missing = [name for name in names if not _is_installed(name)]
    return (*missing, *(() if importlib.util.find_spec("vllm") else ("vllm",)))


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _isolation() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the finding says it
        return sandbox.isolation()


def hub() -> str:
    """ "" if the Hugging Face hub answers, else why not."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    reasons = [f"no answer within {HUB_SECONDS:g} s"]

    def connect() -> None:
        try:
            urllib.request.urlopen(constants.ENDPOINT, timeout=HUB_SECONDS).close()
        except (OSError, HTTPException, ValueError) as error:
            reasons.append(str(getattr(error, "reason", error)))
        else:
            reasons.append("")

    # A thread, because looking up a name knows no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return reasons[-1]
