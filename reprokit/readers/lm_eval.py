"""Results of EleutherAI's lm-evaluation-harness: `results_*.json` of 0.4, and the flat ones of 0.3.

In 0.4 a task has `metric,filter` and `metric_stderr,filter`, in 0.3 `metric` and `metric_stderr`. A group stands beside
its subtasks, which `group_subtasks` lists, and has numbers of its own only where it aggregates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reprokit.readers.interface import (
    IFEVAL_METRICS,
    PASS_AT_1,
    Evaluation,
    Known,
    Number,
    arranged,
    count,
    number,
    section,
    text,
)

HARNESS = "lm-evaluation-harness"
_EXACT = {"exact_match": PASS_AT_1}
# Scores of answers that the model wrote; those of likelihoods (acc, acc_norm) are other measures and keep their names.
_GPQA: Known = ("gpqa_diamond", {"exact_match,flexible-extract": PASS_AT_1, "exact_match,none": PASS_AT_1})
_KNOWN: dict[str, Known] = {
    "ifeval": ("ifeval", IFEVAL_METRICS),
    "leaderboard_ifeval": ("ifeval", IFEVAL_METRICS),
    "mmlu_pro": ("mmlu_pro", _EXACT),
    "leaderboard_mmlu_pro": ("mmlu_pro", {}),
    "gpqa_diamond_cot_zeroshot": _GPQA,
    "gpqa_diamond_cot_n_shot": _GPQA,
    "gpqa_diamond_generative_n_shot": _GPQA,
    "leaderboard_gpqa_diamond": ("gpqa_diamond", {}),
    "minerva_math500": ("math500", {"math_verify": PASS_AT_1, **_EXACT}),
    "hendrycks_math500": ("math500", _EXACT),
    "aime24": ("aime24", _EXACT),
}
Metric = tuple[str, str, float | None]  # name, filter, value
_SHARE = re.compile(
    r"(\w+_)?acc(uracy)?(_norm|_bytes|_mutual_info)?|exact_match|math_verify|pass(@|_at_)\d+|(em|f1|mc[12])"
)
_NOT_METRICS = {"alias", "name", "samples", "sample_len", "sample_count"}
_STANDARD_ERROR = "_stderr"


def recognises(content: dict[str, Any]) -> bool:
    """Whether this is such a file."""
    return bool(section(content, "results")) and bool(section(content, "versions") or section(content, "configs"))


def read(content: dict[str, Any]) -> Evaluation:
    """The numbers of every task, or of its group where that has numbers; parts of a group are left out."""
    numbers: list[Number] = []
    results, left_out = section(content, "results"), []
    for task, values in results.items():
        if group := _group_of(content, task):
            left_out.append(f"{task}: a part of {group}")
        elif isinstance(values, dict):
            found, not_taken = task_numbers(task, values, content)
            numbers += found
            left_out += not_taken
    config = section(content, "config")
    model = text(content.get("model_name")) or text(config.get("model_args")) or text(config.get("model"))
    return Evaluation(HARNESS, text(content.get("lm_eval_version")), model, arranged(numbers), left_out)


def task_numbers(task: str, values: dict[str, Any], content: dict[str, Any]) -> tuple[list[Number], list[str]]:
    """Those of one task, the headline first; and what was not taken."""
    benchmark, names = _KNOWN.get(task, (task, {}))
    found: list[Number] = []
    left_out = []
    metrics = list(_metrics(values))
    ours = _named(metrics, names)
    for metric, filtered, value in metrics:
        label = metric if filtered == "none" else f"{metric}, {filtered}"
        share = _SHARE.fullmatch(metric) is not None
        if value is None or (share and not 0 <= value <= 1):
            left_out.append(f"{task}: {label} is {values.get(f'{metric},{filtered}', values.get(metric))!r}")
            continue
        error = number(values.get(f"{metric}{_STANDARD_ERROR},{filtered}", values.get(f"{metric}{_STANDARD_ERROR}")))
        found.append(
            Number(
                task,
                benchmark,
                ours.get((metric, filtered), label),
                value,
                "percent" if share else "score",
                error,
                _items(content, task),
                _samples(content, task),
                remark=_shots(content, task),
            )
        )
    order = list(ours.values())
    return sorted(found, key=lambda one: order.index(one.metric) if one.metric in order else len(order)), left_out


def _named(metrics: Sequence[Metric], names: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Metric and filter -> our name, each name once: it goes to the first that there is, in the order of `names`."""
    found: dict[tuple[str, str], str] = {}
    for key, ours in names.items():
        there = ((metric, filtered) for metric, filtered, value in metrics if value is not None)
        match = next((one for one in there if key in (one[0], ",".join(one))), None)
        if match is not None and ours not in found.values():
            found[match] = ours
    return found


def _metrics(values: dict[str, Any]) -> Iterator[Metric]:
    """Everything that is no standard error; of files of 0.3 the filter is `none`."""
    has_filters = any("," in key for key in values)
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if metric.endswith(_STANDARD_ERROR) or key in _NOT_METRICS or (has_filters and not comma):
            continue
        yield metric, filtered or "none", number(value)


def _group_of(content: dict[str, Any], task: str) -> str | None:
    """The group with numbers of its own that a task is a part of, if any."""
    for group, parts in section(content, "group_subtasks").items():
        values = section(section(content, "results"), group)
        if isinstance(parts, list) and task in parts and any(value is not None for *_, value in _metrics(values)):
            return str(group)
    return None


def _parts(content: dict[str, Any], task: str, above: tuple[str, ...] = ()) -> list[str]:
    """The tasks that a group is made of, through groups of groups; of a task itself."""
    parts = section(content, "group_subtasks").get(task)
    if not isinstance(parts, list) or not parts or task in above:
        return [task]
    return [leaf for part in parts for leaf in _parts(content, str(part), (*above, task))]


def _items(content: dict[str, Any], task: str) -> int | None:
    sizes = section(content, "n-samples")
    counts = [count(section(sizes, part).get("effective")) for part in _parts(content, task)]
    known = [found for found in counts if found is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _samples(content: dict[str, Any], task: str) -> int | None:
    """1 where every problem was asked once; what of several answers counts depends on the filter, and is not known."""
    configs = section(content, "configs")
    repeats = {count(section(configs, part).get("repeats")) for part in _parts(content, task)}
    return 1 if repeats == {1} else None


def _shots(content: dict[str, Any], task: str) -> str:
    shots = section(content, "n-shot")
    found = {number(shots.get(part)) for part in _parts(content, task)}
    known = found.pop() if len(found) == 1 else None
    return "" if known is None else f"{known:g}-shot"
