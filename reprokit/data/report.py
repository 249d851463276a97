"""What the token arrays of a run hold, as facts on disk and as a page to read before training."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

_BINS = 12
_BAR = 40  # characters of the longest bar
_LINES = 8  # of the first row's prompt, and of its response, from either end
_WIDTH = 100  # characters of a line of the first row


class Histogram(msgspec.Struct):
    """Rows per range of lengths: `counts[i]` rows of `edges[i]` to `edges[i + 1] - 1` tokens."""

    edges: list[int]
    counts: list[int]


class Report(msgspec.Struct, kw_only=True):
    """What the arrays hold; lengths are in tokens of prompt and response together, after truncation.

    A truncated row has lost its EOS too, since EOS is the last token: `rows_truncated` counts both, and
    `tokens_truncated` includes EOS. `template_preamble` is what the chat template puts in front of each of the
    `rows_without_system_turn`. `arrays` maps the array files to their sha256.
    """

    rows: int
    tokens: int
    target_tokens: int
    length_min: int
    length_median: float
    length_mean: float
    length_max: int
    length_histogram: Histogram
    max_length: int
    rows_truncated: int
    tokens_truncated: int
    eos_id: int
    eos_token: str
    vocabulary: int
    rows_without_system_turn: int
    template_preamble: str
    first_row_prompt: str
    first_row_prompt_tokens: int
    first_row_target: str
    first_row_target_tokens: int
    arrays: dict[str, str]


def histogram(lengths: Sequence[int]) -> Histogram:
    """Histogram over at most 12 ranges of whole numbers, about equally wide, from the shortest to the longest row."""
    wanted = np.linspace(min(lengths), max(lengths) + 1, _BINS + 1)
    edges = np.unique(wanted.round().astype(int))
    counts, _ = np.histogram(lengths, edges)
    return Histogram(edges.tolist(), counts.tolist())


def describe(report: Report) -> str:
    """The report as text of at most about 60 lines of 120 characters; `>` marks what the loss is on."""
    share = report.target_tokens / report.tokens
    lines = [
        f"{report.rows:,} rows, {report.tokens:,} tokens, {report.target_tokens:,} of them targets ({share:.1%})",
        f"length of a row: {report.length_min:,} to {report.length_max:,} tokens, "
        f"median {report.length_median:,.0f}, mean {report.length_mean:,.1f}",
        *_bars(report.length_histogram),
        _truncation(report),
        f"EOS, the last target of every whole row: {report.eos_token} (id {report.eos_id})",
    ]
    if report.template_preamble:
        lines.append(
            f"NOTE: the chat template puts text of its own in front of the {report.rows_without_system_turn:,} rows "
            f"that have no system turn: {report.template_preamble!r}"
        )
    lines += [
        f"first row: {report.first_row_prompt_tokens:,} tokens of prompt (|, no loss), "
        f"{report.first_row_target_tokens:,} targets (>, loss on each):",
        *_excerpt("|", report.first_row_prompt),
        *_excerpt(">", report.first_row_target),
    ]
    return "\n".join(lines)


def _bars(lengths: Histogram) -> list[str]:
    most = max(lengths.counts)
    lines = []
    for low, above, count in zip(lengths.edges, lengths.edges[1:], lengths.counts, strict=False):
        bar = "#" * -(-count * _BAR // most)  # a range with any row has a bar
        lines.append(f"  {low:>7,} to {above - 1:>7,}  {bar:<{_BAR}}  {count:>7,}")
    return lines


def _truncation(report: Report) -> str:
    if not report.rows_truncated:
        return f"truncation at {report.max_length:,} tokens: none, every row keeps its EOS"
    return (
        f"truncation at {report.max_length:,} tokens: {report.rows_truncated:,} of {report.rows:,} rows are cut "
        f"({report.rows_truncated / report.rows:.2%}), {report.tokens_truncated:,} tokens are lost; a row that is cut "
        "has lost its EOS and teaches no end"
    )


def _excerpt(mark: str, text: str) -> list[str]:
    """Lines of `text` behind `mark`; long lines, and long texts, are shortened in the middle."""
    lines = [f"  {mark} {_shortened(line)}" for line in text.split("\n")]
    left_out = len(lines) - 2 * _LINES
    if left_out <= 1:
        return lines
    return [*lines[:_LINES], f"  {mark} [... {left_out:,} lines ...]", *lines[-_LINES:]]


def _shortened(line: str) -> str:
    left_out = len(line) - _WIDTH
    if left_out <= 0:
        return line
    return f"{line[: _WIDTH // 2]} [... {left_out:,} characters ...] {line[-_WIDTH // 2 :]}"
