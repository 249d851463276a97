"""Results of evalchemy (mlfoundations): lm-evaluation-harness's file, with tasks of its own between those of the other.

A task of its own has `accuracy_avg` or `accuracy`; of several runs also `run_stats`, a list of `accuracy`, `num_solved`
and `num_total` by repetition. The standard error is then over the runs: it says nothing of other problems.
"""

from __future__ import annotations

from typing import Any

from reprokit.readers import lm_eval
from reprokit.readers.interface import PASS_AT_1, Evaluation, Number, arranged, count, number, section, text

HARNESS = "evalchemy"
_KNOWN = {
    "AIME24": "aime24",
    "MATH500": "math500",
    "GPQADiamond": "gpqa_diamond",
    "LiveCodeBench": "livecodebench_v2",  # its problems are those of release_v2
    "MMLUPro": "mmlu_pro",
    "IFEval": "ifeval",
}
# It scores in the strict form, then in the loose one, and reports the last.
_IFEVAL = {"instruction-level": "instruction-level loose", "prompt-level": "prompt-level loose"}
_OWN = {"run_stats", "accuracy_avg", "num_solved", *_IFEVAL}
_CLOSE = 1e-6


def recognises(content: dict[str, Any]) -> bool:
    """Whether this is such a file."""
    tasks = section(content, "results").values()
    return "annotator_model" in section(content, "config") or any(
        isinstance(values, dict) and _OWN & values.keys() for values in tasks
    )


def read(content: dict[str, Any]) -> Evaluation:
    """The accuracy of every task of its own, and every number of lm-evaluation-harness's tasks."""
    numbers: list[Number] = []
    left_out: list[str] = []
    for task, values in section(content, "results").items():
        if not isinstance(values, dict):
            left_out.append(f"{task}: no result ({values!r})")
        elif any("," in key for key in values):
            found, not_taken = lm_eval.task_numbers(task, values, content)
            numbers += found
            left_out += not_taken
        elif own := _ifeval(task, values) or _accuracy(task, values):
            numbers += own
        else:
            left_out.append(f"{task}: no accuracy that can be read, but {', '.join(sorted(values)) or 'nothing'}")
    model = text(content.get("model_name")) or text(section(content, "config").get("model_args"))
    return Evaluation(HARNESS, text(content.get("git_hash")), model, arranged(numbers), left_out)


def _accuracy(task: str, values: dict[str, Any]) -> list[Number]:
    """The mean accuracy; nothing if there is none, or it is not that of its runs."""
    runs = _runs(values)
    value = number(values.get("accuracy_avg", values.get("accuracy")))
    if value is None and runs:
        value = sum(runs) / len(runs)
    if value is None or not 0 <= value <= 1 or (runs and abs(value - sum(runs) / len(runs)) > _CLOSE):
        return []
    samples = len(runs) or count(values.get("num_repeat")) or 1
    items = next(
        filter(None, (count(values.get(key)) for key in ("num_total", "total_examples", "num_examples"))), None
    )
    error = None if samples > 1 or runs else number(values.get("accuracy_std_err"))
    remark = f"{samples} runs from {100 * min(runs):.1f} to {100 * max(runs):.1f} %" if len(runs) > 1 else ""
    metric = f"avg@{samples}" if samples > 1 else PASS_AT_1
    return [Number(task, _KNOWN.get(task, task), metric, value, "percent", error, items, samples, remark=remark)]


def _runs(values: dict[str, Any]) -> list[float]:
    """The accuracy of every run; empty if any of them cannot be read."""
    runs = values.get("run_stats")
    found = [number(section({"run": one}, "run").get("accuracy")) for one in runs] if isinstance(runs, list) else []
    return [one for one in found if one is not None] if None not in found else []


def _ifeval(task: str, values: dict[str, Any]) -> list[Number]:
    items = count(values.get("num_examples"))
    found = ((ours, number(values.get(key))) for key, ours in _IFEVAL.items())
    return [
        Number(task, _KNOWN.get(task, task), ours, value, "percent", None, items, 1)
        for ours, value in found
        if value is not None and 0 <= value <= 1
    ]
