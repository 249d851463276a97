"""Which runs, checkpoints and benchmarks each figure and table of the paper needs (version 1; version 2 where known).

Runs have the names of the official code. Sources: README and run scripts of the official code, and public notes on the
paper; what none of them states is said in a note. The base models are taken everywhere but for Table 1, though of some
figures it is not known whether they show them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from reprokit.errors import UserError

NINE = (
    *("math500", "aime24", "livecodebench_v2", "gpqa_diamond", "mmlu_pro"),
    *("ifeval", "alpaca_eval", "halueval", "truthfulqa"),
)
SAFETY = ("hex_phi",)

DEFAULT = "lr5e-5_ep8_bs256"
COT, NO_COT, NUMINA = "Math-CoT-20k", "Math-NoCoT-20k", "Numina-Math-20k"
COUNTDOWN, R1 = "Countdown-CoT-20k", "DeepSeek-R1-20k"
QWEN3 = ("Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B", "Qwen3-14B")
QWEN25 = ("Qwen2.5-1.5B", "Qwen2.5-3B", "Qwen2.5-7B", "Qwen2.5-14B")
INTERNLM = "InternLM2.5-20B"
MAIN = ("Qwen3-14B", "Qwen3-8B", INTERNLM)  # the models of the main text

Steps = Literal["all", "last", "base"]


@dataclass(frozen=True)
class Exhibit:
    """A figure or table.

    `steps`: every evaluated checkpoint of each run but for those `omitted`, its last one, or nothing but the base model
    of each run. `base`: whether the base models are shown too. `judges`: those that are asked beside the default ones.
    `note` says what is not known.
    """

    runs: tuple[str, ...]
    steps: Steps
    benchmarks: tuple[str, ...] = NINE
    base: bool = True
    omitted: tuple[int, ...] = ()
    judges: tuple[str, ...] = ()
    note: str = ""


def _runs(models: Iterable[str], data: Iterable[str], tail: str = DEFAULT) -> tuple[str, ...]:
    return tuple(f"{model}_{rows}_{tail}" for model in models for rows in data)


def _schedules(*tails: str) -> tuple[str, ...]:
    return tuple(f"Qwen3-14B_{COT}_{tail}" for tail in tails)


STRESS = _schedules(DEFAULT, "lr5e-5_ep16_bs256", "lr5e-5_ep16_bs256_ConstLR", "lr1e-4_ep16_bs256_ConstLR")
SMALL_DATA = "Qwen3-14B_Math-CoT-2.5k_lr5e-5_ep8_bs32"
ONE_EPOCH, SMALL_BATCH = _schedules("lr5e-5_ep1_bs256", "lr5e-5_ep1_bs32")
_STRESS = Exhibit(STRESS, "all", note="which benchmarks it shows is not known: all nine are taken")
_APPENDIX = "not described anywhere; taken for the stress test of Figure 4 on all benchmarks"

FIGURES: dict[str, Exhibit] = {
    "2": Exhibit((ONE_EPOCH,), "last", note="the change against the base after one epoch is taken"),
    "3": Exhibit(_runs(MAIN, [COT]), "all"),
    "4": _STRESS,
    "5": Exhibit(_runs(QWEN3, [COT]), "all", note="which benchmarks it shows is not known: all nine are taken"),
    "6": Exhibit(_runs(MAIN, [COT, NO_COT]), "last", SAFETY, note="the last checkpoints are taken"),
    "7": Exhibit(_runs(MAIN, [R1]), "all"),
    "8": Exhibit(_runs(QWEN25, [COT]), "all"),
    **{number: Exhibit(STRESS, "all", note=_APPENDIX) for number in ("9", "10", "11")},
    **{number: Exhibit(_runs(QWEN3, [COT]), "all") for number in ("12", "13")},
    **{number: Exhibit(_runs(QWEN25, [COT]), "all") for number in ("14", "15")},
}
NO_FIGURES = {"1": "is a drawing without numbers"}

REWARDS = ("Sky", "Mis")  # of AlpacaEval in Appendix D, beside RB2
_ORDER = "which of the tables of its group has which run is not known: they are taken in this order"


def _per_step(first: int, runs: Iterable[str], note: str = "") -> dict[str, Exhibit]:
    """Tables of Appendix D, one run each; those of NoCoT data have no row for step 20."""
    return {
        str(number): Exhibit((run,), "all", omitted=(20,) * (NO_COT in run), judges=REWARDS, note=note)
        for number, run in enumerate(runs, start=first)
    }


TABLES: dict[str, Exhibit] = {
    "1": Exhibit((*_schedules(DEFAULT), SMALL_DATA, SMALL_BATCH), "last", base=False),
    "2": Exhibit(_runs(MAIN, [COT, NO_COT, NUMINA, COUNTDOWN]), "last"),
    "4": Exhibit(_schedules("lr5e-5_ep1_bs256", "lr1e-5_ep1_bs256", "lr1e-5_ep2_bs256"), "last"),
    "5": Exhibit(_runs([*QWEN3, *QWEN25, INTERNLM], [COT]), "base", judges=REWARDS),
    **_per_step(6, _runs(QWEN3[:2], [COT, COUNTDOWN, NO_COT])),
    **_per_step(12, _runs(("Qwen3-8B", "Qwen3-14B"), [COT, COUNTDOWN, NO_COT, NUMINA, R1]), _ORDER),
    **_per_step(
        22,
        (
            *_runs([INTERNLM], [COT, COUNTDOWN, NO_COT, NUMINA, R1]),
            *_runs(QWEN25, [COT]),
            *(ONE_EPOCH, *STRESS[1:], SMALL_DATA, SMALL_BATCH),
        ),
        _ORDER,
    ),
}
TABLES_OF_VERSION_2 = {"5": "18", "6": "19", "8": "21", "9": "22", "11": "24"}  # of others it is not known for certain
NO_TABLES = {"3": "has the settings of training and no results: see `python -m reprokit.recipes show`"}


def base_of(run: str) -> str | None:
    """Name of the base model that a run of the paper starts from; None for any other run."""
    known = {name for shown in (*FIGURES.values(), *TABLES.values()) for name in shown.runs}
    return f"{run.partition('_')[0]}-Base" if run in known else None


def exhibit(kind: Literal["figure", "table"], number: str) -> Exhibit:
    """What figure or table `number` of version 1 needs.

    Raises:
        UserError: there is none of that number, or it has no results.
    """
    known, without = (FIGURES, NO_FIGURES) if kind == "figure" else (TABLES, NO_TABLES)
    if number in known:
        return known[number]
    title = f"{kind} {number} of the paper"
    why = without.get(number, "does not exist")
    raise UserError(f"{kind}={number}: {title} {why}. Valid: {', '.join(known)}, several separated by commas")
