"""Numbers as tables print them."""

from __future__ import annotations

from decimal import Decimal

from analysis.runs import Entry
from analysis.statistics import Difference

_DECIMALS = {"percent": 1, "percentage points": 1, "tokens": 0}  # of measured numbers; others have two
_ROUGHLY_EQUAL = 0.15  # of the wider half: two halves of an interval that differ by less are printed as one


def decimals(unit: str) -> int:
    """How many decimals a measured number of that unit has."""
    return _DECIMALS.get(unit, 2)


def fixed(value: float, places: int, sign: bool = False) -> str:
    """`value` rounded, never as a negative zero; `sign` writes a plus too."""
    rounded = round(value, places) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''},.{places}f}"


def as_reported(value: float) -> str:
    """With as many decimals as the source has, at least one."""
    exponent = Decimal(repr(value)).as_tuple().exponent
    return fixed(value, max(1, -exponent if isinstance(exponent, int) else 1))


def bounds(low: float, high: float, places: int, sign: bool = False) -> str:
    """An interval in brackets."""
    return f"[{fixed(low, places, sign)}, {fixed(high, places, sign)}]"


def with_interval(value: float, low: float | None, high: float | None, places: int) -> str:
    """`79.1 ± 2.3` where the interval is about symmetric, else `0.0 [0.0, 3.7]`; the value alone without one."""
    shown = fixed(value, places)
    if low is None or high is None:
        return shown
    below, above = value - low, high - value
    if abs(below - above) <= _ROUGHLY_EQUAL * max(below, above):
        return f"{shown} ± {fixed((high - low) / 2, places)}"
    return f"{shown} {bounds(low, high, places)}"


def measured(entry: Entry) -> str:
    """A measured record with its interval."""
    record = entry.record
    return with_interval(record.value, record.interval_low, record.interval_high, decimals(record.unit))


def score(entry: Entry) -> str:
    """A record of either origin."""
    return as_reported(entry.record.value) if entry.record.origin == "reported" else measured(entry)


def signed(difference: Difference, unit: str) -> str:
    """A difference, with its interval where that is known."""
    places = decimals(unit)
    shown = fixed(difference.effect, places, sign=True)
    if difference.low is None or difference.high is None:
        return shown
    return f"{shown} {bounds(difference.low, difference.high, places, sign=True)}"
