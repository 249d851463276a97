"""A results file of any harness -> what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from reprokit.errors import UserError
from reprokit.readers import evalchemy, lighteval, lm_eval
from reprokit.readers.interface import Evaluation

READERS: tuple[ModuleType, ...] = (lighteval, evalchemy, lm_eval)  # from the one with the most marks of its own


def read_file(path: Path) -> Evaluation:
    """The numbers of a results file.

    Raises:
        UserError: no such file, not JSON, of no harness that is known, or without a number that can be taken.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"file={path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"file={path}: not JSON ({error}). Give the results_*.json of the harness") from error
    reader = next((one for one in READERS if isinstance(content, dict) and one.recognises(content)), None)
    if reader is None:
        names = ", ".join(sorted(one.HARNESS for one in READERS))
        raise UserError(f"file={path}: this is the results file of none of {names}. Give the results_*.json of one")
    evaluation = _with_names(reader.read(content))
    if not evaluation.numbers:
        why = "; ".join(evaluation.left_out) or "it has no task"
        raise UserError(f"file={path}: a file of {evaluation.harness} without a number that can be taken ({why})")
    return evaluation


def _with_names(evaluation: Evaluation) -> Evaluation:
    """Without numbers whose benchmark or metric has no name that can be printed, and no other such text."""
    named = [one for one in evaluation.numbers if all(map(_is_name, (one.task, one.benchmark, one.metric)))]
    nameless = len(evaluation.numbers) - len(named)
    left_out = [f"{nameless} numbers of tasks or metrics without a name that can be printed"] if nameless else []
    left_out += [
        "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)
        for line in evaluation.left_out
    ]
    return replace(evaluation, numbers=named, left_out=left_out)


def _is_name(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()
