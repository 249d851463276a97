"""IFEval's instructions, checked by lm-eval's own checkers (`lm_eval.tasks.ifeval`, the harness of the official code).

Only that package of lm-eval is imported, and nothing is downloaded: the checkers count sentences with NLTK's model
`punkt_tab`, which has to be on the machine. What they leave to chance (the language of a text, and a letter in place of
a character that is none) is drawn with a fixed seed, so that a score is the same every time.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import random
import sys
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from reprokit.errors import UserError

SEED = 0
LETTER_FREQUENCY = "keywords:letter_frequency"
SIGN_FREQUENCY = "keywords:sign_frequency"  # ours: like LETTER_FREQUENCY, for a character that is no letter

_PACKAGE = "lm_eval.tasks.ifeval"
_SENTENCE_MODEL = "tokenizers/punkt_tab/english/"
_CARRIER = ("llama_index", "core/_static/nltk_cache")  # a package on PyPI whose files include the sentence model


def instruction_ids() -> tuple[str, ...]:
    """Ids of all instructions that can be checked.

    Raises:
        UserError: lm-eval, a package that its checkers need, or NLTK's sentence model is not installed.
    """
    return tuple(_checkers().instructions_registry.INSTRUCTION_DICT)


def followed(instruction: str, arguments: Mapping[str, Any], prompt: str, text: str) -> tuple[bool, bool]:
    """Whether a text follows an instruction: strictly, and loosely (without markup, first or last line).

    A text on which a checker fails (brackets nested too deep for the JSON parser, say) does not follow it.

    Raises:
        UserError: as in `instruction_ids`.
    """
    return _followed(instruction, json.dumps(dict(arguments)), prompt, text)


@lru_cache(maxsize=16)  # most texts are the same under both protocols, and both are scored in turn
def _followed(instruction: str, arguments: str, prompt: str, text: str) -> tuple[bool, bool]:
    checkers = _checkers()
    checkers.chance.seed(SEED)
    row = {"key": 0, "prompt": prompt, "instruction_id_list": [instruction], "kwargs": [json.loads(arguments)]}
    try:
        results = checkers.process_results(row, [text])
    except (ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
        return False, False
    return bool(results["prompt_level_strict_acc"]), bool(results["prompt_level_loose_acc"])


@cache
def _checkers() -> ModuleType:
    """lm-eval's module that checks texts, with `chance`, the source of all that its checkers draw."""
    try:
        _find_sentence_model()
        checkers = _import_checkers()
    except ModuleNotFoundError as error:
        raise UserError(
            f"IFEval's checkers need the Python package {error.name!r}; install what requirements/cpu.txt lists: "
            "lm_eval and langdetect, immutabledict, nltk"
        ) from error
    _make_repeatable(checkers)
    return checkers


def _find_sentence_model() -> None:
    import nltk

    carrier = importlib.util.find_spec(_CARRIER[0])
    for folder in (carrier.submodule_search_locations or []) if carrier else []:
        nltk.data.path.append(str(Path(folder) / _CARRIER[1]))
    try:
        nltk.data.find(_SENTENCE_MODEL)
    except LookupError as error:
        raise UserError(
            f"IFEval's checkers need NLTK's sentence model punkt_tab, which is in none of {', '.join(nltk.data.path)}; "
            "run `pip install --no-deps llama-index-core`, which carries it, or, with network, `python -m "
            "nltk.downloader punkt_tab` (the environment variable NLTK_DATA names another folder)"
        ) from error


def _import_checkers() -> ModuleType:
    """`lm_eval.tasks.ifeval.utils`, without `lm_eval.tasks`, whose import loads torch, transformers and datasets."""
    harness = importlib.util.find_spec("lm_eval")
    if harness is None or not harness.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'lm_eval'", name="lm_eval")
    tasks = _PACKAGE.rpartition(".")[0]
    if tasks in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.utils")
    bare = ModuleType(tasks)
    bare.__path__ = [str(Path(folder) / "tasks") for folder in harness.submodule_search_locations]
    sys.modules[tasks] = bare
    try:
        return importlib.import_module(f"{_PACKAGE}.utils")
    finally:
        del sys.modules[tasks]


def _make_repeatable(checkers: ModuleType) -> None:
    import langdetect

    langdetect.DetectorFactory.seed = SEED
    registry = checkers.instructions_registry
    checkers.chance = random.Random(SEED)  # type: ignore[attr-defined]
    registry.instructions.random = checkers.chance
    # A text in no language is logged as an error, whole, through the root logger.
    registry.instructions.logging = SimpleNamespace(error=logging.getLogger(__name__).debug)
    registry.INSTRUCTION_DICT[SIGN_FREQUENCY] = _sign_frequency(registry.INSTRUCTION_DICT[LETTER_FREQUENCY])


def _sign_frequency(letter_frequency: type) -> type:
    class SignFrequency(letter_frequency):  # type: ignore[misc]
        """Counts the character that the instruction names, where lm-eval draws a letter if it is none."""

        def build_description(self, *, letter: str, **arguments: Any) -> str:
            description: str = super().build_description(letter=letter, **arguments)
            self._letter = letter
            return description

    return SignFrequency
