"""The page itself: one HTML file with its style and script inside, that asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.behaviour import Share
from analysis.claims.findings import interval_words, number
from analysis.claims.verdict import Used, Verdict
from analysis.report.places import known
from analysis.tables.model import Row, Table

HERE = Path(__file__).parent
_HASH = re.compile(r"\b([0-9a-f]{40,})\b")
SECTIONS = {
    "summary": "Summary",
    "claims": "Claims",
    "figures": "Figures",
    "tables": "Tables",
    "completeness": "Completeness",
    "behaviour": "Behaviour",
    "cases": "Cases",
    "provenance": "Provenance",
    "cost": "Cost",
}


def render(**content: Any) -> str:
    """The page with this content; whatever is in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "columns": _columns,
        "effect": _effect,
        "groups": _sections,
        "hashes": _hashes,
        "known": known,
        "records": _records,
        "share": _share,
        "tokens": _tokens,
    }
    style, script = _part("style.css"), _part("report.js")
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    page = environment.get_template("page.jinja")
    # Not escaped are these two files of this package, and the cases, which are JSON made safe for a script element.
    return page.render(sections=SECTIONS.items(), style=Markup(style), script=Markup(script), **hashes, **content)


def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an inline style or script that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _effect(verdict: Verdict) -> str:
    """`+3.1 points [1.2, 5.0]`; empty where there is none."""
    if verdict.effect is None:
        return ""
    return f"{number(verdict.effect, verdict.unit)} {interval_words(verdict.low, verdict.high, verdict.unit)}".rstrip()


def _sections(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    return ((section, list(found)) for section, found in groupby(rows, lambda row: row.section))


def _hashes(text: str) -> Markup:
    """The text with its hashes cut short to the eye alone: they are copied and searched as a whole."""
    pieces = _HASH.split(text)  # every second one is a hash
    cut = Markup('<code class="hash" title="{0}">{0}</code>')
    return Markup("").join(cut.format(piece) if place % 2 else piece for place, piece in enumerate(pieces))


def _columns(table: Table) -> list[tuple[str, str]]:
    """Title and kind of every column: `head`, `number` or `words`."""
    heads, cells = (table.rows[0].heads, table.rows[0].cells) if table.rows else (table.header, ())
    kinds = ["words" if cell.pieces[0].kind == "text" else "number" for cell in cells]
    return list(zip(table.header, ["head"] * len(heads) + kinds, strict=True))


def _records(used: Sequence[Used]) -> list[str]:
    """One line per file, run and benchmark: `mini.json: mini, Countdown, steps 0, 10`."""
    steps: dict[tuple[str, str, str], list[int]] = {}
    for record in used:
        steps.setdefault((record.file, record.run, record.benchmark), []).append(record.step)
    return [
        f"{file}: {run}, {benchmark}, step{'s' * (len(found) > 1)} {', '.join(map(str, sorted(found)))}"
        for (file, run, benchmark), found in steps.items()
    ]


def _share(share: Share) -> str:
    return f"{100 * share.value:.1f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _tokens(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
