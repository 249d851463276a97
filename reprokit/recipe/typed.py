"""A tree of entries against the schema: defaults, interpolations, types; all that does not fit, at once."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from reprokit.recipe.problems import Problem, closest
from reprokit.recipe.schema import Recipe
from reprokit.recipe.tree import DEFAULT, Entry, Origin, dotted, leaves, plain, shown, wrap

Section = TypeVar("Section")
LARGEST_INTEGER = 2**63 - 1
MISSING_VALUE, NO_VALUE = "missing required value", "refers to a key without a value"  # no faults of a fragment
_KINDS = {
    int: "a whole number",
    float: "a number, for example 5.0e-5",
    bool: "true or false",
    str: "text",
}
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@cache
def hints(section: Any) -> dict[str, Any]:
    """Field name -> type of a section of the schema."""
    return get_type_hints(section)


def with_defaults(section: Any, entry: Entry) -> Entry:
    """`entry` with the schema's default for every key that is not given; a required key gets MISSING."""
    given = Entry({}, entry.origin) if entry.value is None else entry
    if not isinstance(given.value, dict):
        return given
    default = Origin(DEFAULT)
    entries = {}
    for field in dataclasses.fields(section):
        hint, _ = _optional(hints(section)[field.name])
        own = given.value.get(field.name)
        if dataclasses.is_dataclass(hint):
            entries[field.name] = with_defaults(hint, own or Entry(None, default))
        elif own is None:
            entries[field.name] = wrap(_default(field), default)
        elif (benchmark := _section_of(hint)) and isinstance(own.value, dict):
            named = ((name, value) for name, value in own.value.items() if value.value is not False)
            # `name: false` takes back what an included file gave
            sections = {name: with_defaults(benchmark, value) for name, value in named}
            entries[field.name] = Entry(sections, own.origin)
        else:
            entries[field.name] = own
    return Entry({**given.value, **entries}, given.origin)


def resolve(root: Entry) -> tuple[Entry, list[Problem]]:
    """Replace `${...}` by what it refers to, anywhere in the recipe."""
    pending = []
    problems: list[Problem] = []
    values = plain(root)
    for path, leaf in leaves(root):
        if not (isinstance(leaf.value, str) and "${" in leaf.value):
            continue
        try:
            OmegaConf.create([leaf.value])  # complains about what is no interpolation
            pending.append((path, leaf))
        except OmegaConfBaseException as error:
            problems.append(_interpolation_problem(path, leaf, error))
            root = _replace(root, path, MISSING)
            _parent(values, path)[path[-1]] = MISSING
    config = OmegaConf.create(values if pending else {})
    for path, leaf in pending:
        try:
            value = _parent(config, path)[path[-1]]
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except (OmegaConfBaseException, RecursionError) as error:
            problems.append(_interpolation_problem(path, leaf, error))
            value = MISSING
        root = _replace(root, path, value)
    return root, problems


def convert(root: Entry, top: Origin, schema: type = Recipe) -> tuple[dict[str, Any], list[Problem]]:
    """Plain values of the right types; what is wrong or missing is MISSING and a problem.

    Args:
        root: a tree with defaults and without interpolations.
        top: where a required key is said to be missing when its section is not in any file.
        schema: the dataclass that the tree must fit.
    """
    converter = _Converter(top, schema)
    return converter.section(schema, root, ()), converter.problems


def build(section: type[Section], values: dict[str, Any]) -> Section:
    """The dataclass `section` with values that `convert` made, none of which is MISSING.

    OmegaConf would do the same, fifty times slower: too slow where many recipes are loaded at once.
    """
    types: dict[str, Any] = hints(cast(Any, section))
    return section(**{name: _object(types[name], value) for name, value in values.items()})


def _object(hint: Any, value: Any) -> Any:
    hint, _ = _optional(hint)
    if value is None:
        return None
    if dataclasses.is_dataclass(hint):
        return build(cast(type, hint), value)
    if below := _section_of(hint):
        return {name: build(below, own) for name, own in value.items()}
    return hint[value] if isinstance(hint, type) and issubclass(hint, Enum) else value


def is_complete(values: Any) -> bool:
    """Whether nothing in what `convert` made is MISSING."""
    if isinstance(values, dict):
        return all(map(is_complete, values.values()))
    return not isinstance(values, str) or values != MISSING


def literal(value: Any) -> Any:
    """Plain data for OmegaConf, protected from being read as interpolations or missing values."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"^(?=\\+\?\?\?$)", r"\\", escape(value))
    return value


def escape(text: str) -> str:
    r"""`text` with `${` written as `\${`, as OmegaConf and a recipe file want it."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


class _Converter:
    """Checks keys and types, and remembers what is wrong."""

    def __init__(self, top: Origin, schema: type) -> None:
        self.top = top
        self.schema = schema
        self.problems: list[Problem] = []

    def section(self, section: Any, entry: Entry, path: tuple[str | int, ...]) -> Any:
        if not isinstance(entry.value, dict):
            return self._wrong(entry, path, "wrong type", _kind(section))
        values = {}
        top = entry.origin if entry.origin.file else self.top
        for key, value in entry.value.items():
            if key in hints(section):
                values[key] = self._value(hints(section)[key], value, (*path, key), top)
            else:
                self._unknown(section, value, (*path, key))
        return values

    def _value(self, hint: Any, entry: Entry, path: tuple[str | int, ...], top: Origin) -> Any:
        hint, optional = _optional(hint)
        if entry.value == MISSING:
            return self._missing(hint, entry, path, top)
        if dataclasses.is_dataclass(hint):
            return self.section(hint, entry, path)
        if entry.value is None:
            return None if optional else self._wrong(entry, path, "no value", _kind(hint))
        if get_origin(hint) is list:
            return self._list(get_args(hint)[0], entry, path, _kind(hint))
        if get_origin(hint) is dict:
            return self._mapping(hint, entry, path)
        return self._scalar(hint, entry, path)

    def _list(self, hint: Any, entry: Entry, path: tuple[str | int, ...], kind: str) -> Any:
        if not isinstance(entry.value, list):
            return self._wrong(entry, path, "wrong type", kind)
        items = [self._value(hint, item, (*path, index), self.top) for index, item in enumerate(entry.value)]
        return MISSING if MISSING in items else items

    def _mapping(self, hint: Any, entry: Entry, path: tuple[str | int, ...]) -> Any:
        if not isinstance(entry.value, dict):
            return self._wrong(entry, path, "wrong type", _kind(hint))
        section = _section_of(hint)
        if section is None:
            missing = [(below, leaf) for below, leaf in leaves(entry) if leaf.value == MISSING]
            for below, leaf in missing:
                self._missing(str, leaf, (*path, *below), self.top)
            return MISSING if missing else plain(entry)
        return {key: self.section(section, value, (*path, key)) for key, value in entry.value.items()}

    def _scalar(self, hint: Any, entry: Entry, path: tuple[str | int, ...]) -> Any:
        if not isinstance(entry.value, (dict, list)):
            try:
                return _read(hint, entry)
            except (ValueError, KeyError, OverflowError):
                pass
        return self._wrong(entry, path, "wrong type", _kind(hint), _number_hint(hint, entry))

    def _unknown(self, section: Any, entry: Entry, path: tuple[str | int, ...]) -> None:
        key, above = str(path[-1]), dotted(path[:-1])
        elsewhere = [full for full in _all_keys(self.schema) if full.split(".")[-1] == key]
        guess = closest(key, hints(section))
        if elsewhere:
            remedy = f"did you mean {elsewhere[0]}?"
        elif guess:
            remedy = f"did you mean {above + '.' if above else ''}{guess}?"
        else:
            remedy = "remove it, or use one of the valid keys"
        self._report(entry.origin.place, path, "unknown key", remedy, shown(entry), ", ".join(hints(section)))

    def _missing(self, hint: Any, entry: Entry, path: tuple[str | int, ...], top: Origin) -> str:
        if entry.text == MISSING:  # else an interpolation that failed, which is a problem already
            where = top if entry.origin.place == DEFAULT else entry.origin
            remedy = f"add {dotted(path)}: {_example(hint)}"
            self._report(where.place, path, MISSING_VALUE, remedy, "", _kind(hint))
        return MISSING

    def _wrong(self, entry: Entry, path: tuple[str | int, ...], message: str, kind: str, remedy: str = "") -> str:
        self._report(entry.origin.place, path, message, remedy or f"write {kind}", shown(entry), kind)
        return MISSING

    def _report(
        self, where: str, path: tuple[str | int, ...], message: str, remedy: str, given: str, valid: str
    ) -> None:
        self.problems.append(Problem(dotted(path), message, remedy, given, valid, where))


def _read(hint: Any, entry: Entry) -> Any:
    """The scalar of an entry as `hint`.

    Raises:
        ValueError, KeyError, OverflowError: it is none.
    """
    value = entry.value
    if hint is str:  # as written: a name 1.10 or a revision 12345e6 is no number
        return entry.text
    if issubclass(hint, Enum):
        return hint[entry.text].name
    if hint is bool:
        return value if isinstance(value, bool) else _TRUTH[entry.text.lower()]
    if isinstance(value, bool):
        raise ValueError
    if hint is float:
        return float(value)
    if isinstance(value, float) or abs(int(value)) > LARGEST_INTEGER:
        raise ValueError
    return int(value)


def _number_hint(hint: Any, entry: Entry) -> str:
    """What to write instead of a value that should have been a number; "" if there is nothing to say."""
    if hint is int and isinstance(entry.value, float) and entry.value.is_integer():
        return f"write {int(entry.value)}"
    if hint in (int, float) and isinstance(entry.value, str):
        bare = re.sub(r"[,'\s]", "", entry.value)
        if re.fullmatch(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", bare):
            return f"this is text, not a number: write {bare}"
        return "this is text, not a number: write it without quotes, units and words"
    return ""


def _optional(hint: Any) -> tuple[Any, bool]:
    """(X, True) of Optional[X], (X, False) of X."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(arg for arg in get_args(hint) if arg is not type(None)), True
    return hint, False


def _section_of(hint: Any) -> Any:
    """The section type of a `dict[str, section]`, else None."""
    if get_origin(hint) is dict and dataclasses.is_dataclass(get_args(hint)[1]):
        return get_args(hint)[1]
    return None


def _default(field: dataclasses.Field[Any]) -> Any:
    value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return value.name if isinstance(value, Enum) else value


def _kind(hint: Any) -> str:
    """What values a type takes, for people."""
    if dataclasses.is_dataclass(hint):
        return "a section with " + ", ".join(field.name for field in dataclasses.fields(hint))
    if get_origin(hint) is list:
        return f"a list of {'text' if get_args(hint)[0] is str else 'numbers'}, for example {_example(hint)}"
    if get_origin(hint) is dict:
        return "a mapping, for example " + _example(hint)
    if issubclass(hint, Enum):
        return ", ".join(hint.__members__)
    return _KINDS[hint]


def _example(hint: Any) -> str:
    if get_origin(hint) is list:
        return {int: "[10, 20, 40]", str: "[first, second]"}.get(get_args(hint)[0], "[0.9, 0.999]")
    if get_origin(hint) is dict:
        return "{countdown: {items: 200}}" if _section_of(hint) else "{model_type: qwen3, hidden_size: 128}"
    return f"<{_kind(hint)}>"


def _all_keys(section: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all values that a recipe can have."""
    for name, hint in hints(section).items():
        if dataclasses.is_dataclass(hint):
            yield from _all_keys(hint, f"{prefix}{name}.")
        else:
            yield prefix + name


def _parent(values: Any, path: tuple[str | int, ...]) -> Any:
    for part in path[:-1]:
        values = values[part]
    return values


def _replace(root: Entry, path: tuple[str | int, ...], value: Any) -> Entry:
    """`root` with another value at `path`."""
    if not path:
        return wrap(value, root.origin) if value != MISSING else Entry(MISSING, root.origin)
    below = _replace(root.value[path[0]], path[1:], value)
    if isinstance(root.value, list):
        items = list(root.value)
        items[path[0]] = below  # type: ignore[index]
        return dataclasses.replace(root, value=items)
    return dataclasses.replace(root, value={**root.value, path[0]: below})


def _interpolation_problem(path: tuple[str | int, ...], leaf: Entry, error: Exception) -> Problem:
    remedy = "refer to a key of the recipe, for example ${training.epochs}"
    if isinstance(error, InterpolationToMissingValueError):
        message, remedy = NO_VALUE, "give that key a value"
    elif isinstance(error, InterpolationKeyError):
        message = "refers to a key that does not exist"
        remedy += "; environment variables are ${oc.env:NAME}, and $NAME in paths"
    elif isinstance(error, UnsupportedInterpolationType):
        message = "unknown kind of interpolation"
    else:
        message = f"cannot be resolved: {str(error).splitlines()[0] if str(error) else 'it refers to itself'}"
    return Problem(dotted(path), message, remedy, leaf.text, where=leaf.origin.place)
