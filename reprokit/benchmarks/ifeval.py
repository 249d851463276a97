"""IFEval: whether the instructions in a prompt are followed, by lm-eval's checkers.

As in the official code: four accuracies with lm-eval's names: of prompts (all instructions followed)
or of instructions, strict or loose (also without markup, first or last line). Which one the paper tabulates is not
known; instruction level is likely, and its strict form our headline. A value of an instruction-level metric is the
fraction of the prompt's instructions that are followed, weighted by their number.

official: the text after the four-fold strip of thinking is checked, unfinished thoughts as they are. Where a prompt
wants a count of a character that is no letter (keys 1122 and 1129), lm-eval counts a letter drawn by chance.
clean: what follows the thinking of a finished response is checked, and that character is counted; an unfinished
response follows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.grading.instructions import LETTER_FREQUENCY, SIGN_FREQUENCY, followed, instruction_ids
from reprokit.benchmarks.grading.thinking import clean_answer, excerpt, strip_thinking
from reprokit.benchmarks.interface import Benchmark, Item, Metric, Protocol, Reply, Response, Score, Upstream
from reprokit.errors import UserError

COLUMNS = {"key": int | str, "prompt": str, "instruction_id_list": list, "kwargs": list}
METRICS = (
    Metric("inst_level_strict_acc", title="instruction-level strict"),
    Metric("prompt_level_strict_acc", title="prompt-level strict"),
    Metric("inst_level_loose_acc", title="instruction-level loose"),
    Metric("prompt_level_loose_acc", title="prompt-level loose"),
)


def _read(paths: Sequence[Path]) -> list[Item]:
    return [_item(path, number, row) for path in paths for number, row in enumerate(read_rows(path, COLUMNS), start=1)]


def _item(path: Path, number: int, row: Mapping[str, Any]) -> Item:
    ids, arguments = row["instruction_id_list"], row["kwargs"]
    if unknown := [name for name in ids if name not in instruction_ids()]:
        raise UserError(
            f"{path}, row {number}: lm-eval has no checker for {', '.join(map(str, unknown))}; "
            f"valid: {', '.join(instruction_ids())}"
        )
    if not ids or len(ids) != len(arguments):
        raise UserError(f"{path}, row {number}: {len(ids)} instructions with {len(arguments)} sets of arguments")
    if wrong := [given for given in arguments if not isinstance(given, dict)]:
        raise UserError(f"{path}, row {number}: {wrong[0]!r} in kwargs; it must be an object, as upstream has it")
    checks = [
        {"id": name, "arguments": {key: value for key, value in given.items() if value is not None}}
        for name, given in zip(ids, arguments, strict=True)
    ]
    return Item(
        id=str(row["key"]),
        messages=[{"role": "user", "content": f"Question: {row['prompt']}\nAnswer:"}],
        answer={"prompt": row["prompt"], "checks": checks},
    )


def _score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    checks = item.answer["checks"]
    text = strip_thinking(response.text) if protocol == "official" else clean_answer(response)
    if text is None:
        return Score({metric.name: 0.0 for metric in METRICS})
    results = [followed(_checker(check, protocol), check["arguments"], item.answer["prompt"], text) for check in checks]
    values = {}
    for way, flags in zip(("strict", "loose"), zip(*results, strict=True), strict=True):
        values[f"inst_level_{way}_acc"] = sum(flags) / len(flags)
        values[f"prompt_level_{way}_acc"] = float(all(flags))
    return Score(values, excerpt(text))


def _checker(check: Mapping[str, Any], protocol: Protocol) -> str:
    name: str = check["id"]
    wants_sign = name == LETTER_FREQUENCY and not str(check["arguments"].get("letter", "a")).isalpha()
    return SIGN_FREQUENCY if wants_sign and protocol == "clean" else name


def _weights(items: Sequence[Item], protocol: Protocol, metric: str) -> list[float]:
    by_instruction = metric.startswith("inst_level")
    return [float(len(item.answer["checks"])) if by_instruction else 1.0 for item in items]


BENCHMARK = Benchmark(
    name="ifeval",
    title="IFEval",
    size=541,
    read=_read,
    upstream=Upstream("google/IFEval", ("ifeval_input_data.jsonl",)),
    metrics=METRICS,
    score=_score,
    weights=_weights,
)
