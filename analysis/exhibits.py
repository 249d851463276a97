"""What each figure of the paper shows: its form, its columns, and what its series are called.

Which runs and steps it has stands in `reprokit.records.paper.FIGURES`. Where the form is inferred (figures 2 and 4 to
15), nobody outside has seen the paper's axes; captions say so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.columns import NINE_COLUMNS, REASONING, SAFETY_COLUMNS, Column

Form = Literal["scores", "lengths", "changes", "levels"]


@dataclass(frozen=True)
class Picture:
    """The form of one figure.

    `form`: scores or response lengths against step, changes against the base, or levels at the last checkpoint beside
    those of the base. `with_lengths`: scores have a strip of response lengths below them. `part` says which part of
    the paper's figures this one is taken for, where that is not known.
    """

    form: Form
    heading: str
    columns: tuple[Column, ...] = NINE_COLUMNS
    with_lengths: bool = False
    part: str = ""


GENERAL = NINE_COLUMNS[len(REASONING) :]
_SIZES3, _SIZES25 = "Capability: four sizes of Qwen3", "Capability: four sizes of Qwen2.5"
_STRESS = "Stress test: four schedules of Qwen3-14B"
PICTURES: dict[str, Picture] = {
    "2": Picture("changes", "One epoch: change against the base"),
    "3": Picture("scores", "Dip and recovery: three models on Math-CoT-20k", with_lengths=True),
    "4": Picture("scores", _STRESS, with_lengths=True),
    "5": Picture("scores", _SIZES3, with_lengths=True),
    "6": Picture("levels", "Safety: HEx-PHI with and without chains of thought", SAFETY_COLUMNS),
    "7": Picture("scores", "Another teacher: three models on DeepSeek-R1-20k", with_lengths=True),
    "8": Picture("scores", "Another family: four sizes of Qwen2.5", with_lengths=True),
    "9": Picture("scores", f"{_STRESS}, reasoning", REASONING, part="here the reasoning benchmarks"),
    "10": Picture("scores", f"{_STRESS}, general ability", GENERAL, part="here general ability"),
    "11": Picture("lengths", f"{_STRESS}, response length", part="here the response lengths"),
    "12": Picture("scores", f"{_SIZES3}, all benchmarks"),
    "13": Picture("lengths", f"{_SIZES3}, response length"),
    "14": Picture("scores", f"{_SIZES25}, all benchmarks"),
    "15": Picture("lengths", f"{_SIZES25}, response length"),
}

_NAME = re.compile(r"(?P<model>[^_]+)_(?P<data>[^_]+)_lr(?P<rate>[^_]+)_ep(?P<epochs>\d+)_bs(?P<batch>\d+)(?P<tail>.*)")


def _words(run: str) -> list[str]:
    """Model, data, learning rate, epochs, batch size and schedule, read off a run name of the official code."""
    match = _NAME.fullmatch(run)
    if match is None:
        return [run]
    epochs = f"{match['epochs']} epoch" + "s" * (match["epochs"] != "1")
    schedule = "constant" if match["tail"] == "_ConstLR" else "cosine"
    return [match["model"], match["data"], f"lr {match['rate']}", epochs, f"batch {match['batch']}", schedule]


def short_names(runs: Sequence[str]) -> dict[str, str]:
    """What runs of the paper are called beside each other: what differs between them, else the model."""
    words = {run: _words(run) for run in runs}
    places = range(min(map(len, words.values())))
    differing = [place for place in places if len({found[place] for found in words.values()}) > 1] or [0]
    return {run: ", ".join(found[place] for place in differing) for run, found in words.items()}


def shared_words(runs: Sequence[str]) -> str:
    """What runs of the paper have in common, for example `Math-CoT-20k, lr 5e-5, 8 epochs, batch 256, cosine`."""
    words = [_words(run) for run in runs]
    return ", ".join(same[0] for same in zip(*words, strict=False) if len(set(same)) == 1)


def model_and_data(run: str) -> tuple[str, str]:
    """Model and data set in the name of a run of the paper."""
    model, data = _words(run)[:2]
    return model, data
