"""YAML text -> a tree of entries, each of which knows the file and line that it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from reprokit.recipe.problems import Problem

COMMAND_LINE = "command line"
DEFAULT = "default"
MOST_NODES = 10_000  # of one file with its aliases written out
DEEPEST = 30  # levels of nesting

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "value")}
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class RecipeYaml(yaml.SafeLoader):
    """PyYAML's safe loader with numbers as people write them: 5e-5 is a float; 1:30, 010 and dates are text."""


RecipeYaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in ("int", "float", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeYaml.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
RecipeYaml.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class Origin:
    """Where a value was written. `place` is for people; `file` is None for the command line and for defaults."""

    place: str
    file: Path | None = None


@dataclass(frozen=True)
class Entry:
    """A value and where it was written. `value`: dict[str, Entry], list[Entry] or a scalar; `text`: as written."""

    value: Any
    origin: Origin
    text: str = ""


def parse(text: str, origin_of: Callable[[int], Origin]) -> tuple[Entry, list[Problem]]:
    """Parse one YAML document.

    Args:
        text: the document; an empty one is an entry with the value None.
        origin_of: line number, counted from 1 -> the origin that entries of this line get.

    Returns:
        The tree without what could not be understood, and all problems.
    """
    builder = _Builder(origin_of)
    try:
        loader = RecipeYaml(text)
        node = loader.get_single_node()
        entry = Entry(None, origin_of(1)) if node is None else builder.build(loader, node, 0)
    except yaml.YAMLError as error:
        builder.problems.append(_syntax_problem(error, text, origin_of))
        entry = Entry({}, origin_of(1))
    except (RecursionError, _TooMuch):
        remedy = f"keep to {DEEPEST} levels and {MOST_NODES} values, aliases written out"
        builder.problems.append(Problem("", "nested too deeply or too large", remedy, where=origin_of(1).place))
        entry = Entry({}, origin_of(1))
    return entry, builder.problems


class _TooMuch(Exception):
    """More nodes or levels than any recipe has: aliases that contain themselves or multiply."""


class _Builder:
    """Turns YAML nodes into entries and collects what is wrong with them."""

    def __init__(self, origin_of: Callable[[int], Origin]) -> None:
        self.origin_of = origin_of
        self.problems: list[Problem] = []
        self._nodes = 0

    def build(self, loader: RecipeYaml, node: yaml.Node, depth: int, line: int | None = None) -> Entry:
        """Entry of `node`; `line` is that of its key, if it has one."""
        self._nodes += 1
        if depth > DEEPEST or self._nodes > MOST_NODES:
            raise _TooMuch
        origin = self.origin_of(line or node.start_mark.line + 1)
        if node.tag not in _PLAIN_TAGS:
            self._report(origin, f"YAML tag {node.tag} is not supported", "remove the tag", str(node.value))
            return Entry(None, origin)
        if isinstance(node, yaml.MappingNode):
            return Entry(self._mapping(loader, node, depth), origin)
        if isinstance(node, yaml.SequenceNode):
            return Entry([self.build(loader, item, depth + 1) for item in node.value], origin)
        try:
            node.value.encode()
            return Entry(loader.construct_object(node), origin, node.value)
        except (ValueError, LookupError):  # a tag that does not fit, thousands of digits, half a surrogate pair
            self._report(origin, "not a usable value", "write plain text or a plain number", node.value)
            return Entry(None, origin)

    def _mapping(self, loader: RecipeYaml, node: yaml.MappingNode, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(self.origin_of(line), "a key must be a word", "write key: value", str(key_node.value))
                continue
            key = key_node.value
            if key_node.tag == _TAG + "merge":
                self._report(self.origin_of(line), "YAML merge keys are not supported", "use include", key)
            elif key in entries:
                message = f"duplicate key: it is already given in line {lines[key]}"
                self._report(self.origin_of(line), message, "keep one of the two", _text_of(value_node), key)
            else:
                lines[key] = line
                entries[key] = self.build(loader, value_node, depth + 1, line)
        return entries

    def _report(self, origin: Origin, message: str, remedy: str, given: str, key: str = "") -> None:
        self.problems.append(Problem(key, message, remedy, given, where=origin.place))


def _text_of(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else f"a {node.id}"


def _syntax_problem(error: yaml.YAMLError, text: str, origin_of: Callable[[int], Origin]) -> Problem:
    """Problem for what PyYAML could not parse; the line that it stumbled on is the value given."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        start = f" that starts in line {error.context_mark.line + 1}" if error.context_mark else ""
        parts = [part for part in (error.context and error.context + start, error.problem) if part]
    else:
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        parts = [f"character {text[position : position + 1]!r} is not allowed"]
    lines = text.splitlines()
    given = lines[line - 1].strip() if line <= len(lines) else "(end of file)"
    remedy = "check indentation (spaces, no tabs), brackets, quotes and colons at and above this line"
    return Problem("", f"YAML syntax: {', '.join(parts)}", remedy, given, where=origin_of(line).place)


def merge(base: Entry, over: Entry) -> Entry:
    """`over` on top of `base`: mappings are merged key by key, everything else is replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, entry in over.value.items():
        merged[key] = merge(merged[key], entry) if key in merged else entry
    origin = over.origin if over.origin.file or not base.origin.file else base.origin
    return replace(base, value=merged, origin=origin)


def plain(entry: Entry) -> Any:
    """The values alone."""
    if isinstance(entry.value, dict):
        return {key: plain(value) for key, value in entry.value.items()}
    if isinstance(entry.value, list):
        return [plain(item) for item in entry.value]
    return entry.value


def wrap(value: Any, origin: Origin) -> Entry:
    """Entries for plain data, all of one origin."""
    if isinstance(value, dict):
        return Entry({str(key): wrap(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, list):
        return Entry([wrap(item, origin) for item in value], origin)
    return Entry(value, origin, "" if value is None else str(value))


def leaves(entry: Entry, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Entry]]:
    """Every scalar of a tree with the keys and indices that lead to it."""
    if isinstance(entry.value, dict):
        for key, value in entry.value.items():
            yield from leaves(value, (*path, key))
    elif isinstance(entry.value, list):
        for index, item in enumerate(entry.value):
            yield from leaves(item, (*path, index))
    else:
        yield path, entry


def shown(entry: Entry) -> str:
    """The value as a person wrote it, on one line."""
    if isinstance(entry.value, dict):
        return "{" + ", ".join(f"{key}: {shown(value)}" for key, value in entry.value.items()) + "}"
    if isinstance(entry.value, list):
        return "[" + ", ".join(shown(item) for item in entry.value) + "]"
    return entry.text if entry.value is not None else "null"


def dotted(path: tuple[str | int, ...]) -> str:
    """("training", "betas", 0) -> "training.betas[0]"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def split_key(key: str) -> tuple[str | int, ...]:
    """The inverse of `dotted`, for keys without further dots and brackets."""
    parts = re.findall(r"\[\d+\]|[^.\[\]]+", key)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts)
