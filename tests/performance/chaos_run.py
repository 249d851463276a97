"""A long run of random misfortune on a real Slurm: what it cost, and whether its results are those of a quiet one.

    python -m tests.performance.chaos_run [--events 200] [--seed 1] [--accounting] [--folder DIR]

About 40 minutes on 2 cores. Half-way it prints what `python -m reprokit.status` says. The folder keeps both campaigns.
Exit code 1: the results differ.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import Chaos
from tests.slurm_cluster import running_cluster
from tests.survival import Campaign, Slurm, outcome, prepare

EVENTS_PER_STATE = 1.2  # of a training that is long enough for half of the events


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.chaos_run", description=__doc__)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--accounting", action="store_true", help="on a cluster with sacct")
    parser.add_argument("--folder", type=Path, help="default: a new one in /tmp")
    given = parser.parse_args(words)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    (folder / "prepared").mkdir(parents=True)
    states = max(8, round(given.events / EVENTS_PER_STATE))
    steps, saved = 4 * states, max(4, states // 8)
    checkpoints = sorted({*range(steps // saved, steps, steps // saved), steps})
    prepared = prepare(folder / "prepared", rows=4 * steps, checkpoints=checkpoints, state_every=4, items=16)
    with running_cluster(Path(tempfile.mkdtemp(prefix="rk-")) / "c", given.accounting) as variables:
        slurm = Slurm(Path(variables["SLURM_CONF"]))
        quiet = Campaign(folder / "quiet", slurm, prepared)
        quiet.launch()
        quiet.wait_until_over()
        struck = Campaign(folder / "struck", slurm, prepared)
        chaos = Chaos(struck, given.seed, given.events)
        chaos.say = lambda text: _say(chaos, text)
        chaos.run()
    same = outcome(struck) == outcome(quiet)
    print(f"{chaos.summary()}\nresults equal to those of the quiet run: {'yes' if same else 'NO'}\n{folder}")
    return 0 if same else 1


def _say(chaos: Chaos, text: str) -> None:
    print(text, flush=True)
    if len(chaos.events) == chaos.most // 2:
        command = [sys.executable, "-m", "reprokit.status", "run=tiny"]
        print(subprocess.run(command, cwd=chaos.campaign.folder, capture_output=True, text=True).stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
