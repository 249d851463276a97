"""From differences to findings: which direction was claimed, and what the numbers say about it.

A statement on a group is tested on the mean over its cells (model x benchmark), with errors propagated; cells on
the same problems go together as the values of the problems do, others are taken as independent. A statement on
"most benchmarks" is tested by counting, where six benchmarks or more are compared (with fewer no count can be decided):
under the hypothesis of no difference each benchmark is as likely to speak for one side as for the other. Cells of one
benchmark then stand or fall together, for they share their problems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from analysis.claims.evidence import Cells, is_points
from analysis.claims.verdict import Finding, Status
from analysis.columns import Column
from analysis.statistics import LEVEL, Difference, Z, count_test, from_interval, mean

MARGIN = 2.0  # points between the paper's two evaluations of the same base (GPQA-D, Tables 2 and 5): no change at all
REWARD_MARGIN = 0.1  # below the smallest difference of rewards in Table 1 (0.93 to 1.10)
MANY = 4  # benchmarks: fewer are named
MIN_COUNTED = 6  # benchmarks: 6 of 6 is p = 0.031, 5 of 5 is 0.063
UNTESTABLE = "; no spread known: cannot be tested"  # of a part that is shown and does not count
POINTS, REWARD, TOKENS, SHARE = "percentage points", "reward", "tokens", "% of comparisons"


@dataclass(frozen=True)
class Claimed:
    """What a part of a claim says: its name, whether the effect is to be above 0 (1), below (-1), or not above (0)."""

    part: str
    sign: int
    counts: bool = True


def direction(found: Difference, sign: int, margin: float = MARGIN) -> Status:
    """Verdict on one difference.

    Reproduced: equality is rejected and the sign is the claimed one. Not reproduced: rejected with the other sign, or
    an effect of more than `margin` in the claimed direction is excluded. With sign 0 an effect of `margin` upwards has
    to be excluded, or is shown to be there.
    """
    if found.p_value is None or found.low is None or found.high is None:
        return "no data"
    if sign == 0:
        return "reproduced" if found.high < margin else "not reproduced" if found.low > margin else "undecided"
    if found.is_decided and found.effect != 0:
        return "reproduced" if found.effect * sign > 0 else "not reproduced"
    beyond = found.high if sign > 0 else -found.low
    return "not reproduced" if beyond < margin else "undecided"


def single(claimed: Claimed, subject: str, column: Column, found: Difference) -> Finding:
    """The finding on one cell."""
    unit = POINTS if is_points(column) else REWARD
    return finding(
        claimed,
        subject,
        column.title,
        found,
        direction(found, claimed.sign, margin_of(unit)),
        in_words(found, unit),
        unit,
    )


def finding(
    claimed: Claimed, subject: str, scope: str, found: Difference, status: Status, text: str, unit: str = POINTS
) -> Finding:
    """A finding with the numbers of a difference."""
    more = found.more_items if status == "undecided" else None
    numbers = (found.effect, found.low, found.high, unit, found.p_value, found.detectable, more)
    return Finding(claimed.part, subject, scope, status, text, *numbers, counts=claimed.counts)


def margin_of(unit: str) -> float:
    """What is no change at all, in that unit."""
    return REWARD_MARGIN if unit == REWARD else MARGIN


def nothing(claimed: Claimed, subject: str, scope: str, why: str) -> Finding:
    """The finding where there is nothing to test."""
    return Finding(claimed.part, subject, scope, "no data", why, counts=claimed.counts)


def on_mean(claimed: Claimed, subject: str, scope: str, cells: Cells) -> list[Finding]:
    """The mean over cells, then each cell (which does not count)."""
    singles = each(claimed, cells)
    tested, unit = _testable(cells)
    if not tested:
        values = ", ".join(f"{one.subject} {one.text.partition(',')[0]}" for one in singles)
        if values:
            return [nothing(replace(claimed, counts=False), subject, scope, values + UNTESTABLE), *singles]
        return [nothing(claimed, subject, scope, "no numbers"), *singles]
    found = mean(list(tested.values()))
    left = sorted({column.title for _, column in cells.keys() - tested.keys()})
    text = f"{_size(tested)}: {in_words(found, unit)}"
    text += f"; without {', '.join(left)} (other unit, or no spread known)" if left else ""
    return [
        finding(claimed, subject, scope, found, direction(found, claimed.sign, margin_of(unit)), text, unit),
        *singles,
    ]


def on_most(claimed: Claimed, subject: str, scope: str, cells: Cells) -> list[Finding]:
    """By counting, or by the mean where fewer than six benchmarks are compared; then each cell."""
    benchmarks = {column.benchmark for _, column in cells}
    if len(benchmarks) < MIN_COUNTED:
        by_mean, *singles = on_mean(claimed, subject, scope, cells)
        if len(benchmarks) == 1 and by_mean.status == "reproduced":
            text = f"{by_mean.text}; one benchmark says nothing about most"
            by_mean = replace(by_mean, status="undecided", text=text)
        return [by_mean, *singles]
    signs: dict[str, list[float]] = {}
    for (_, column), found in cells.items():
        signs.setdefault(column.benchmark, []).append(float(np.sign(found.effect) * claimed.sign))
    p_value = count_test(signs)
    right = sum(sign > 0 for there in signs.values() for sign in there)
    share, low, high = _share(signs)
    found = Difference(share, low, high, p_value, "signs by benchmark, exact", None, None, None)
    status: Status = "undecided" if p_value > LEVEL else "reproduced" if right > len(cells) / 2 else "not reproduced"
    against = sorted({f"{column.title}" for (_, column), one in cells.items() if one.effect * claimed.sign < 0})
    text = f"{right} of {len(cells)} comparisons as claimed ({p_words(p_value)})"
    text += f", against it {', '.join(against)}" if against else ""
    tested, unit = _testable(cells)
    if tested:
        whole = mean(list(tested.values()))
        text += f"; {_size(tested)}: {in_words(whole, unit)}"
        alone = direction(whole, claimed.sign, margin_of(unit))
        if alone != status:
            text += f" (by the mean alone {alone})"
        if whole.is_decided and status != "undecided" and alone != status:
            status = "undecided"  # many small differences against a few large ones
    return [finding(claimed, subject, scope, found, status, text, SHARE), *each(claimed, cells)]


def each(claimed: Claimed, cells: Cells) -> list[Finding]:
    """A finding for every cell, for information."""
    quiet = replace(claimed, counts=False)
    return [single(quiet, subject, column, found) for (subject, column), found in ordered(cells)]


def ordered(cells: Cells) -> list[tuple[tuple[str, Column], Difference]]:
    """Cells by benchmark, subjects in their own order."""
    return sorted(cells.items(), key=lambda cell: cell[0][1].place)


def minus(first: Difference, second: Difference) -> Difference:
    """`first` minus `second`, two independent differences that have a spread."""
    effect, half = first.effect - second.effect, Z * math.hypot(first.error or 0.0, second.error or 0.0)
    items = None if first.items is None or second.items is None else min(first.items, second.items)
    return from_interval(effect, effect - half, effect + half, "difference of two means, errors propagated", items)


def mean_of(cells: Cells) -> Difference | None:
    """The mean over the cells that can be tested; None without any."""
    tested, _ = _testable(cells)
    return mean(list(tested.values())) if tested else None


def number(value: float, unit: str = POINTS) -> str:
    """`+1.2 points`."""
    words = {POINTS: f"{value:+.1f} points", REWARD: f"{value:+.2f} reward", TOKENS: f"{value:+,.0f} tokens"}
    return words.get(unit, f"{value:.0f} {unit}")


def interval_words(low: float | None, high: float | None, unit: str = POINTS) -> str:
    """`[-0.3, 2.7]`; nothing without an interval."""
    places = {REWARD: 2, TOKENS: 0}.get(unit, 1)
    return "" if low is None or high is None else f"[{low:,.{places}f}, {high:,.{places}f}]"


def in_words(found: Difference, unit: str = POINTS) -> str:
    """Effect, interval and p-value as far as they are known."""
    words = f"{number(found.effect, unit)} {interval_words(found.low, found.high, unit)}".rstrip()
    return words + (", no spread known: cannot be tested" if found.p_value is None else f", {p_words(found.p_value)}")


def p_words(p_value: float) -> str:
    """`p = 0.043`."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _testable(cells: Cells) -> tuple[Cells, str]:
    """Cells with a known spread and of one unit: points where there are any, else rewards."""
    known = {key: found for key, found in cells.items() if found.error is not None}
    points = {key: found for key, found in known.items() if is_points(key[1])}
    return (points, POINTS) if points else (known, REWARD)


def _size(cells: Cells) -> str:
    subjects = {subject for subject, _ in cells}
    columns = {column for _, column in cells}
    names = [column.title for column in sorted(columns, key=lambda column: column.place)]
    words = ", ".join(names) if len(names) < MANY else f"{len(names)} benchmarks"
    words = f"{words}, {len(subjects)} models" if len(subjects) > 1 else words
    return f"mean of {words}" if len(cells) > 1 else words


def _share(signs: dict[str, list[float]]) -> tuple[float, float, float]:
    """Share of positive signs in percent, with Wilson's interval for as many trials as the groups are worth."""
    from statsmodels.stats.proportion import proportion_confint

    sizes = np.array([len(there) for there in signs.values()], dtype=float)
    right = np.array([sum(sign > 0 for sign in there) for there in signs.values()], dtype=float)
    share, count = float(right.sum() / sizes.sum()), len(signs)
    residuals = right - sizes * share
    variance = float(residuals @ residuals) * count / (count - 1) / float(sizes.sum()) ** 2
    trials = share * (1 - share) / variance if variance > 0 else float(count)
    low, high = proportion_confint(share * trials, trials, method="wilson")
    return 100 * share, 100 * float(low), 100 * float(high)
