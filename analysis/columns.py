"""Columns: what the numbers of different evaluations must share to stand below each other in a table."""

from __future__ import annotations

import re
from dataclasses import dataclass

from analysis.names import benchmark_name, benchmark_place
from reprokit.records.record import Record

ACCURACY = "accuracy"
CHANGE = ", change against base"  # end of the metric of a reported difference
# avg@k and pass@1 estimate the same quantity from k samples and from one.
_MEAN_ACCURACY = re.compile(r"avg@\d+|pass@1|accuracy")
_MEASURES = {
    # The paper does not name its IFEval metric; its values are possible only at the level of instructions.
    ("IFEval", "instruction-level strict"): ACCURACY,
    **{("AlpacaEval 2.0", f"mean reward {judge}"): judge for judge in ("RB2", "Sky", "Mis")},
    ("HEx-PHI", "attack success rate"): "ASR",
    ("HEx-PHI", "mean harmfulness score"): "harmfulness",
}


@dataclass(frozen=True)
class Column:
    """One measure of one benchmark; `benchmark` is its display name."""

    benchmark: str
    measure: str = ACCURACY

    @property
    def title(self) -> str:
        """For example `MATH500`, `TruthfulQA helpful`, `AlpacaEval 2.0 RB2`."""
        return self.benchmark if self.measure == ACCURACY else f"{self.benchmark} {self.measure}"

    @property
    def place(self) -> tuple[int, str, str]:
        """Sort key: the paper's order of benchmarks, then the measure."""
        return (*benchmark_place(self.benchmark), self.measure)


# The paper's nine columns (Tables 1 and 2) in its order, and those that Appendix D adds.
REASONING = tuple(map(Column, ("MATH500", "AIME24", "LCB v2", "GPQA-D", "MMLU-Pro")))
IFEVAL = Column("IFEval")
ALPACA, HALUEVAL, TRUTHFULQA = Column("AlpacaEval 2.0", "RB2"), Column("HaluEval"), Column("TruthfulQA", "helpful")
NINE_COLUMNS = (*REASONING, IFEVAL, ALPACA, HALUEVAL, TRUTHFULQA)
TRUTHFUL = Column("TruthfulQA", "truthful")
OTHER_REWARDS = (Column("AlpacaEval 2.0", "Sky"), Column("AlpacaEval 2.0", "Mis"))
SAFETY_COLUMNS = (Column("HEx-PHI", "ASR"), Column("HEx-PHI", "harmfulness"))


def column_of(record: Record) -> Column | None:
    """The column that a record belongs to; None for a record that is itself a response length.

    A metric that the paper does not have (pass@3, maj@3, ...) has a column of its own.
    """
    if record.unit == "tokens":
        return None
    benchmark, metric = benchmark_name(record.benchmark), record.metric.removesuffix(CHANGE)
    if _MEAN_ACCURACY.fullmatch(metric):
        return Column(benchmark)
    return Column(benchmark, _MEASURES.get((benchmark, metric), metric))


def is_change(record: Record) -> bool:
    """Whether the value is a difference to the base (in percentage points) instead of a score."""
    return record.unit == "percentage points"
