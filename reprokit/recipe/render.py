"""A complete recipe as YAML, each value with a comment that says where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

import yaml

from reprokit.recipe.problems import one_line
from reprokit.recipe.schema import Recipe
from reprokit.recipe.tree import RecipeYaml
from reprokit.recipe.typed import escape

_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")


def to_yaml(recipe: Recipe, origins: Mapping[str, str]) -> str:
    """Text that loads as `recipe`; `origins`: dotted key -> place."""
    return "".join(f"{line}\n" for line in _lines(asdict(recipe), origins, "", ""))


def _lines(section: Mapping[str, Any], origins: Mapping[str, str], prefix: str, indent: str) -> Iterator[str]:
    for name, value in section.items():
        key = prefix + name
        if isinstance(value, dict) and value:
            yield f"{indent}{_text(name)}:"
            yield from _lines(value, origins, f"{key}.", indent + "  ")
        else:
            yield f"{indent}{_text(name)}: {_flow(value)}  # {one_line(origins[key])}"


def _flow(value: Any) -> str:
    """Plain data on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, Enum):
        return value.name
    return _text(escape(value)) if isinstance(value, str) else yaml.safe_dump(value).splitlines()[0]


def _text(text: str) -> str:
    """`text` as a YAML string, in quotes unless it is a plain word."""
    if _BARE.fullmatch(text) and yaml.load(text, RecipeYaml) == text:
        return text
    return yaml.safe_dump(text, default_style='"', width=float("inf"), allow_unicode=True).rstrip("\n")
