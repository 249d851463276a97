"""Results of lighteval (Hugging Face): `results_*.json`, by task `suite|task|fewshot`, or `task|fewshot` since 0.11.

A metric stands beside `<metric>_stderr`; its name ends with how it was sampled, `pass@k:k=1&n=4` or
`math_pass@1:4_samples`. `all` and `<task>:_average|<fewshot>` are means over tasks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from reprokit.readers.interface import (
    IFEVAL_METRICS,
    PASS_AT_1,
    Evaluation,
    Number,
    arranged,
    count,
    number,
    section,
    text,
)

HARNESS = "lighteval"
_KNOWN = {
    "math_500": "math500",
    "aime24": "aime24",
    "aime24_avg": "aime24",
    "gpqa:diamond": "gpqa_diamond",
    "mmlu_pro": "mmlu_pro",
    "ifeval": "ifeval",
    "lcb:codegeneration_release_v2": "livecodebench_v2",  # v2 without release_ has only the problems that v2 added
}
# pass@1 estimated from n samples is their mean.
_ACCURACY = (
    re.compile(r"(?:\w+_)?(?:pass@1|avg@n|avg@k)(?::(?:n=|k=)?(?P<n>\d{1,9})(?:_samples)?)?"),
    re.compile(r"(?:\w+_)?pass@k:k=1(?:&n=(?P<n>\d{1,9}))?"),
    re.compile(r"(?:\w+_)?pass@k:n=(?P<n>\d{1,9})&k=1"),
    re.compile(r"extractive_match"),
)
_SHARE = re.compile(
    r"(\w+_)?acc(_norm.*)?|(\w+[-_])*pass@.*|(maj|avg)@.*|(\w*exact|extractive)_match|qem|pqem|em(_.*)?|f1(_.*)?|\w*mc[12]"
)
_STANDARD_ERROR = "_stderr"


def recognises(content: dict[str, Any]) -> bool:
    """Whether this is such a file."""
    return bool(section(content, "results")) and "config_general" in content


def read(content: dict[str, Any]) -> Evaluation:
    """The numbers of every task; means over several tasks are left out."""
    numbers: list[Number] = []
    left_out: list[str] = []
    for key, values in section(content, "results").items():
        if key == "all" or ":_average|" in key:
            left_out.append(f"{key}: a mean over tasks")
        elif isinstance(values, dict):
            found, not_taken = _task_numbers(key, values, content)
            numbers += found
            left_out += not_taken
    general = section(content, "config_general")
    model = text(general.get("model_name")) or text(section(general, "model_config").get("model_name"))
    return Evaluation(HARNESS, text(general.get("lighteval_sha")), model, arranged(numbers), left_out)


def _task_numbers(key: str, values: dict[str, Any], content: dict[str, Any]) -> tuple[list[Number], list[str]]:
    task, shots = _parts(key)
    found: list[Number] = []
    left_out = []
    metrics = [metric for metric in values if not metric.endswith(_STANDARD_ERROR)]
    ours = _named(task, metrics)
    for metric in metrics:
        name, samples = ours.get(metric, (metric, None))
        share = metric in ours or _SHARE.fullmatch(metric) is not None
        value = number(values[metric])
        if value is None or (share and not 0 <= value <= 1):
            left_out.append(f"{task}: {metric} is {values[metric]!r}")
            continue
        error, items = number(values.get(f"{metric}{_STANDARD_ERROR}")), _items(content, key)
        unit: Literal["percent", "score"] = "percent" if share else "score"
        found.append(Number(task, _KNOWN.get(task, task), name, value, unit, error, items, samples, remark=shots))
    order = [name for name, _ in ours.values()]
    return sorted(found, key=lambda one: order.index(one.metric) if one.metric in order else len(order)), left_out


def _parts(key: str) -> tuple[str, str]:
    """Task and few-shot examples: `lighteval|gpqa:diamond|0` -> `gpqa:diamond`, `0-shot`."""
    parts = key.split("|")
    shots = next((place for place in range(len(parts) - 1, 0, -1) if parts[place].isdigit()), None)
    if shots is None:
        return parts[-1], ""
    return parts[shots - 1], f"{parts[shots]}-shot"


def _named(task: str, metrics: Sequence[str]) -> dict[str, tuple[str, int | None]]:
    """By metric our name, and over how many samples of a problem it is a mean; of several accuracies that of the most
    samples has it."""
    if task == "ifeval":
        return {metric: (ours, None) for metric, ours in IFEVAL_METRICS.items() if metric in metrics}
    accuracies = {}
    for metric in metrics:
        match = next(filter(None, (pattern.fullmatch(metric) for pattern in _ACCURACY)), None)
        if match is not None:
            accuracies[metric] = count(int(match.groupdict().get("n") or 0))
    if not accuracies:
        return {}
    best = max(accuracies, key=lambda metric: accuracies[metric] or 0)
    samples = accuracies[best]
    return {best: (f"avg@{samples}" if samples and samples > 1 else PASS_AT_1, samples)}


def _items(content: dict[str, Any], key: str) -> int | None:
    """The problems that were put; the configuration of a task stands under its key with or without the examples."""
    configs = section(content, "config_tasks")
    config = section(configs, key) or section(configs, key.rpartition("|")[0])
    return count(config.get("effective_num_docs"))
