"""Display names of benchmarks, and the order in which figures show them; how counts are said."""

from __future__ import annotations

# In the paper's order: in-domain reasoning, out-of-domain reasoning, general ability, safety; then this kit's own.
_DISPLAY_NAMES = {
    "MATH500": "MATH500",
    "AIME24": "AIME24",
    "LiveCodeBench v2": "LCB v2",
    "GPQA-Diamond": "GPQA-D",
    "MMLU-Pro": "MMLU-Pro",
    "IFEval": "IFEval",
    "AlpacaEval 2.0": "AlpacaEval 2.0",
    "alpaca_eval": "AlpacaEval 2.0",
    "HaluEval": "HaluEval",
    "TruthfulQA": "TruthfulQA",
    "HEx-PHI": "HEx-PHI",
    "countdown": "Countdown",
    "countdown_repeats": "Countdown, repeats",
    "chain_sum": "Chain sum",
    "syllogism": "Syllogism",
    "all benchmarks": "All benchmarks",
}

# How the paper groups benchmarks (Section 2); those of this kit by what its own training data teach.
IN_DOMAIN, OUT_OF_DOMAIN, GENERAL, SAFETY = "in-domain reasoning", "OOD reasoning", "general ability", "safety"
_GROUPS = {
    IN_DOMAIN: ("MATH500", "AIME24", "Countdown", "Countdown, repeats"),
    OUT_OF_DOMAIN: ("LCB v2", "GPQA-D", "MMLU-Pro", "Chain sum", "Syllogism"),
    GENERAL: ("IFEval", "AlpacaEval 2.0", "HaluEval", "TruthfulQA"),
    SAFETY: ("HEx-PHI",),
}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


_KNOWN = {_plain(name): display for name, display in _DISPLAY_NAMES.items()}
_ORDER = {display: place for place, display in enumerate(_DISPLAY_NAMES.values())}


def benchmark_name(benchmark: str) -> str:
    """Display name; spellings that differ in case, spaces or punctuation only are one benchmark, a new one stays."""
    return _KNOWN.get(_plain(benchmark), benchmark)


def benchmark_place(display_name: str) -> tuple[int, str]:
    """Sort key of a display name: the paper's order first, then new ones by name."""
    return _ORDER.get(display_name, len(_ORDER)), display_name


def group_of(display_name: str) -> str | None:
    """The group of a benchmark; None for one that nobody has put into a group."""
    return next((group for group, names in _GROUPS.items() if display_name in names), None)


def plural(number: int, noun: str) -> str:
    """`1 cell`, `1,200 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
