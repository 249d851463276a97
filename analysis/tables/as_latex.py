"""A table as LaTeX; needs the packages booktabs and graphicx."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from analysis.tables.model import Cell, Piece, Table

NEEDED = "% needs \\usepackage{booktabs,graphicx}"
TEXT_COLUMN = "p{0.36\\textwidth}"
_SPECIAL = {
    **{char: f"\\{char}" for char in "{}$&%#"},
    "_": "\\_\\allowbreak{}",  # names of runs are long
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    # Behind the end of a row these would be arguments of it.
    **{char: f"{{{char}}}" for char in "[]*"},
    "–": "\\textendash{}",
    "±": "$\\pm$",
}
# Two of these in a row would become another character.
_LIGATURE = re.compile(r"([-'`,])(?=\1)|([?!])(?=`)")
_MINUS = re.compile(r"-(?=\d)")


def escape(text: str) -> str:
    """`text` on one line, every character standing for itself; what pdfLaTeX cannot print as `[U+6F22]`."""
    return _LIGATURE.sub(r"\1\2{}", "".join(map(_character, text)))


def _character(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if not char.isprintable():
        return " "
    return char if char.isascii() else f"{{[}}U+{ord(char):04X}{{]}}"


def latex(table: Table) -> str:
    """A float with caption, rules and notes, to be read by `\\input`; tables of the paper keep their numbers."""
    heads = len(table.rows[0].heads)
    columns = ["l"] * heads + list(_alignments(table))
    is_wide = TEXT_COLUMN not in columns
    lines = [
        NEEDED,
        "\\begin{table*}",
        "\\centering",
        *([f"\\renewcommand{{\\thetable}}{{{table.number}}}"] if table.number else []),
        f"\\caption{{{escape(_caption(table))}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', table.name)}}}",
        "\\resizebox{\\textwidth}{!}{%" if is_wide else "\\footnotesize",
        f"\\begin{{tabular}}{{{''.join(columns)}}}",
        "\\toprule",
        _line([*map(escape, table.header[:heads]), *map(_column_title, table.header[heads:])]),
        *_rows(table),
        f"\\bottomrule\n\\end{{tabular}}{'}' if is_wide else ''}",
        *_notes(table),
        "\\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _caption(table: Table) -> str:
    title = table.title.removeprefix(f"Table {table.number}: ")
    return f"{title[0].upper()}{title[1:]}. {table.caption}"


def _column_title(title: str) -> str:
    """A word per line, so that columns are no wider than their numbers need."""
    return _stacked(list(map(escape, title.split())))


def _alignments(table: Table) -> Iterator[str]:
    """Numbers to the right; text columns have a width so that their lines break."""
    for cells in zip(*(row.cells for row in table.rows), strict=True):
        yield "r" if any(cell.values for cell in cells) else TEXT_COLUMN


def _rows(table: Table) -> Iterator[str]:
    sections = list(dict.fromkeys(row.section for row in table.rows))
    for section in sections:
        yield "\\midrule"
        if len(sections) > 1:
            yield f"\\multicolumn{{{len(table.header)}}}{{l}}{{\\textit{{{escape(section)}}}}} \\\\"
        for row in table.rows:
            if row.section == section:
                yield _line([*map(escape, row.heads), *map(_cell, row.cells)])
                if any(len(cell.pieces) > 1 for cell in row.cells):
                    yield "\\addlinespace"


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _cell(cell: Cell) -> str:
    return _stacked(list(map(_piece, cell.pieces)))


def _stacked(lines: Sequence[str]) -> str:
    if len(lines) < 2:
        return "".join(lines)
    body = " \\\\ ".join(lines)
    return f"\\begin{{tabular}}[t]{{@{{}}r@{{}}}}{body}\\end{{tabular}}"


def _piece(piece: Piece) -> str:
    # A hyphen before a digit is a minus in numbers, and part of a name elsewhere.
    is_text = piece.kind == "text"
    text = escape(piece.text) if is_text else "$-$".join(map(escape, _MINUS.split(piece.text)))
    return f"{text}\\textsuperscript{{{','.join(piece.marks)}}}" if piece.marks else text


def _notes(table: Table) -> Iterator[str]:
    if not table.notes:
        return
    yield "\\begin{flushleft}\\footnotesize"
    for note in table.notes:
        mark = f"\\textsuperscript{{{note.mark}}} " if note.mark else ""
        yield f"{mark}{escape(note.text)}\\par"
    yield "\\end{flushleft}"
