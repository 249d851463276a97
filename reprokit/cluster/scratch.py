"""The folder of runs on another file system than the current folder: a link to it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from reprokit.cluster.profile import ClusterProfile
from reprokit.errors import UserError


def link_runs(root: Path, profile: ClusterProfile) -> None:
    """Make `root/runs` a link to what the profile names as `runs`, so that every command finds the runs there.

    Raises:
        UserError: `root/runs` is something else already.
    """
    if profile.runs is None:
        return
    place, link = Path(profile.runs), root / "runs"
    place.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        link.symlink_to(place)
    if os.path.realpath(link) != os.path.realpath(place):
        what = f"a link to {os.readlink(link)}" if link.is_symlink() else "a folder of its own"
        raise UserError(
            f"the cluster profile keeps runs in {place}, but {link} is {what}. Move what is in it there and remove it, "
            f"or take `runs` out of the profile"
        )
