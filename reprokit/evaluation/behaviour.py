r"""Rules that find patterns of reasoning in the text of a response, and loops in which it got caught.

    backtracking   what was just done is doubted or given up: "wait, no", "let me reconsider", "that can't be right"
    verification   a result is checked: "let me double-check", "substituting back", "this matches the expected value"
    sub_goals      the way is cut into parts: "first, I need to", "step 2:", "next, we must"
    enumeration    candidates are gone through: "case 1:", "try a = 3", "another possibility"
    repetition     the same words again and again without anything between them

Source: version 2 of the paper counts such behaviours by rules that are not public. These rules are our own: the numbers
can be compared between checkpoints and runs, and not with those of the paper. They are English, and made for precision:
what is said in other words is missed.

The whole response counts, thinking and answer alike: a model without thinking tags can be compared with one that has
them, and a response that was cut off in its thoughts with one that was not. In the search traces of this project's
Countdown data (`reprokit.data.countdown`) every line `5 + 3 = 8, 7 -> 22: 15 1 56 no` is a candidate, and a dead end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count

import numpy as np

from reprokit.evaluation.behaviour_rules import ANY, PATTERNS

# A loop is the same passage LOOP_TIMES times in a row, of that many words in all; of a "word" without end, as of a
# script without blanks, that many characters.
LOOP_TIMES, LOOP_WORDS, LOOP_CHARACTERS = 5, 30, 200
_GRAM, _PERIODS = 8, 3  # neighbours that are compared at once; lengths of a round that are tried

DETECTORS = (*PATTERNS, "repetition")


def behaviours(text: str) -> dict[str, int]:
    """How often each detector of `DETECTORS` finds something in a response; any text will do.

    Matches of one detector do not overlap. Takes time linear in the length of the text.
    """
    plain = plain_text(text)
    found, ends = dict.fromkeys(DETECTORS, 0), dict.fromkeys(PATTERNS, 0)
    hit = ANY.search(plain)
    while hit:
        for name, pattern in PATTERNS.items():
            match = pattern.match(plain, hit.start()) if hit.start() >= ends[name] else None
            if match:
                found[name] += 1
                ends[name] = match.end()
        hit = ANY.search(plain, hit.start() + 1)
    return {**found, "repetition": loops(text)}


def plain_text(text: str) -> str:
    """A text as the rules see it: in lower case, and with a blank after whatever begins a sentence or clause."""
    plain = f"\n{text}".lower().replace("’", "'").replace("<think>", "\n")
    return plain.replace("\n", "\n ").replace("—", "— ")


def loops(text: str) -> int:
    """In how many places the same passage stands LOOP_TIMES times or more in a row.

    Only exact repetition counts: not a list whose numbers go up.
    """
    words = text.split()
    endless = [word for word in words if len(word) >= LOOP_CHARACTERS]
    return _loops(words, LOOP_WORDS) + sum(_loops(word, LOOP_CHARACTERS) for word in endless)


def _loops(units: Sequence[str], shortest: int) -> int:
    """Loops of at least `shortest` units.

    In a loop every passage of _GRAM units, but for those of its first round, was there before: only such stretches are
    looked at closely.
    """
    if len(units) < shortest:
        return 0
    seen: dict[str, int] = {}
    codes = np.fromiter(map(seen.setdefault, units, count()), dtype=np.uint64, count=len(units))
    earliest = _earliest(codes)
    was_there = earliest < np.arange(len(earliest))
    least = shortest - shortest // LOOP_TIMES - _GRAM + 1  # what of the shortest loop with the longest round was there
    loops = [
        loop
        for start, end in _stretches(was_there, least)
        for loop in _in_stretch(codes, earliest[start:end], start, shortest)
    ]
    return _apart(loops)


def _earliest(codes: np.ndarray) -> np.ndarray:
    """Where each passage of _GRAM codes stands first, [passages]."""
    passages = len(codes) - _GRAM + 1
    grams = np.zeros(passages, dtype=np.uint64)
    for place in range(_GRAM):
        grams += codes[place : place + passages]
        grams *= np.uint64(0x9E3779B97F4A7C15)  # odd: no code is lost
    places, bits = np.arange(passages), (4 * passages).bit_length()
    buckets = (grams >> np.uint64(64 - bits)).astype(np.int64)
    table = np.empty(1 << bits, dtype=np.int64)
    table[buckets[::-1]] = places[::-1]  # of several, numpy keeps the last
    earliest = table[buckets]
    others = np.flatnonzero(grams[earliest] != grams)  # these share their bucket with an earlier passage
    seen: dict[int, int] = {}
    earliest[others] = list(map(seen.setdefault, grams[others].tolist(), others.tolist()))
    return earliest


def _stretches(holds: np.ndarray, least: int) -> list[tuple[int, int]]:
    """First place and end of every stretch of at least `least` places at which `holds` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], holds, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    kept = ends - starts >= least
    return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))


def _in_stretch(codes: np.ndarray, earliest: np.ndarray, start: int, shortest: int) -> list[tuple[int, int]]:
    """First place and end of the loops around a stretch: those of its three commonest distances of equal passages."""
    order = np.argsort(earliest, kind="stable")
    same = earliest[order][1:] == earliest[order][:-1]
    distances = Counter(np.diff(order)[same].tolist())
    loops = []
    for period, _ in sorted(distances.items(), key=lambda found: (-found[1], found[0]))[:_PERIODS]:
        low, high = max(0, start - period), start + len(earliest) + _GRAM - 1
        equal = codes[low + period : high] == codes[low : high - period]
        least = max(LOOP_TIMES * period, shortest) - period
        loops += [(low + first, low + end + period) for first, end in _stretches(equal, least)]
    return loops


def _apart(loops: Sequence[tuple[int, int]]) -> int:
    """Number of loops, those that overlap counted once."""
    number, reached = 0, -1
    for start, end in sorted(loops):
        number += start >= reached
        reached = max(reached, end)
    return number
