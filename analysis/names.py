"""Display names of benchmarks, and the order in which figures show them."""

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
