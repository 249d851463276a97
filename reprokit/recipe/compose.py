"""A recipe file, its includes and the overrides of the command line -> one tree of entries."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from reprokit.recipe.problems import Problem, closest
from reprokit.recipe.tree import COMMAND_LINE, Entry, Origin, dotted, merge, parse, shown, split_key

INCLUDE = "include"
DATASETS = "datasets"  # folder of the recipes of data sets, which have keys of their own (reprokit.building)
_OVERRIDE_KEY = re.compile(r"[^.\[\]=]+(?:\.[^.\[\]=]+|\[\d+\])*")


class Composer:
    """Reads recipe files; `problems` collects what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the recipes folder, where includes are looked for after the folder of the including file."""
        self.folder = folder
        self.problems: list[Problem] = []
        self._composed: dict[Path, Entry] = {}

    def file(self, path: Path, chain: tuple[Path, ...] = ()) -> Entry:
        """The content of `path` on top of its includes, which are read left to right."""
        if path not in self._composed:
            read = self._read(path)
            include = read.value.get(INCLUDE)
            root = Entry({key: below for key, below in read.value.items() if key != INCLUDE}, read.origin)
            merged = Entry({}, root.origin)
            for fragment in self._includes(include, path, (*chain, path)) if include else []:
                merged = merge_recipes(merged, self.file(fragment, (*chain, path)))
            self._composed[path] = merge_recipes(merged, root)
        return self._composed[path]

    def place(self, path: Path) -> str:
        """`path` as messages show it: short if it is in the recipes folder or below the current folder."""
        if path.is_relative_to(self.folder):
            return str(path.relative_to(self.folder.parent))
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    def _read(self, path: Path) -> Entry:
        """One file without its includes; an unreadable or unsuitable one is a problem and counts as empty."""
        place = self.place(path)
        empty = Entry({}, Origin(f"{place}:1", path))
        try:
            content = path.read_bytes()
        except OSError as error:
            self._report(f"{place}:1", "", f"cannot be read: {error.strerror}", "check the file and its permissions")
            return empty
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            given = f"byte 0x{content[error.start]:02x}"
            self._report(f"{place}:{line}", "", "not UTF-8 text", "save the file as UTF-8", given)
            return empty
        entry, problems = _parsed(text, place, path)
        self.problems += problems
        if isinstance(entry.value, dict):
            return entry
        if entry.value is not None:
            self._report(
                entry.origin.place, "", "a recipe is a mapping of sections", "write section: {key: value}", shown(entry)
            )
        return empty

    def _includes(self, include: Entry, path: Path, chain: tuple[Path, ...]) -> list[Path]:
        """The files that an `include` list names; what is no such list, missing or a cycle is a problem."""
        remedy = "write include: [models/..., data/..., training/..., evaluation/...]"
        if not isinstance(include.value, list):
            if include.value is not None:
                self._report(include.origin.place, INCLUDE, "not a list of recipe files", remedy, shown(include))
            return []
        found = []
        for item in include.value:
            if not isinstance(item.value, str) or not item.value or "\0" in item.value:
                self._report(item.origin.place, INCLUDE, "not the name of a recipe file", remedy, shown(item))
                continue
            fragment = self._locate(item, path)
            if fragment in chain:
                cycle = " -> ".join(self.place(step) for step in (*chain[chain.index(fragment) :], fragment))
                message = f"include cycle: {cycle}"
                self._report(item.origin.place, INCLUDE, message, "remove this include", shown(item))
            elif fragment:
                found.append(fragment)
        return found

    def _locate(self, item: Entry, path: Path) -> Path | None:
        """The file that an item of `include` means, looked for beside `path` and in the recipes folder."""
        name = os.path.expanduser(with_suffix(item.value))
        candidates = list(dict.fromkeys(Path(os.path.realpath(base / name)) for base in (path.parent, self.folder)))
        for candidate in candidates:
            if os.path.isfile(candidate):
                return candidate
        known = fragment_names(self.folder)
        guess = closest(item.value.removesuffix(".yaml"), known)
        self.problems.append(
            Problem(
                INCLUDE,
                f"no such file: looked for {' and '.join(self.place(candidate) for candidate in candidates)}",
                f"did you mean {guess}?" if guess else "correct the name, or create the file",
                shown(item),
                ", ".join(known),
                item.origin.place,
            )
        )
        return None

    def _report(self, where: str, key: str, message: str, remedy: str, given: str = "") -> None:
        self.problems.append(Problem(key, message, remedy, given, where=where))


@lru_cache(maxsize=128)  # recipes share their fragments; entries are never changed
def _parsed(text: str, place: str, path: Path) -> tuple[Entry, list[Problem]]:
    """The content of `path`, which is known by its text alone: a file may change while its age does not."""
    return parse(text, lambda line: Origin(f"{place}:{line}", path))


def with_suffix(name: str) -> str:
    """The file name of a recipe or fragment that may be named without its suffix."""
    return name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"


def fragment_names(folder: Path) -> list[str]:
    """Every recipe and fragment of a recipes folder, as `include` names it."""
    names = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    return [name for name in names if not name.startswith(f"{DATASETS}/")]


def merge_recipes(base: Entry, over: Entry) -> Entry:
    """Like `merge`, but a section that is left empty (`training:`) takes nothing away."""
    kept = {key: entry for key, entry in over.value.items() if entry.value is not None or key not in base.value}
    return merge(base, Entry(kept, over.origin))


def apply_overrides(root: Entry, overrides: Sequence[str]) -> tuple[Entry, list[Problem]]:
    """`key=value` words on top of `root`: keys as in OmegaConf's dotlists (`a.b`, `a.c[0]`), values in YAML."""
    problems: list[Problem] = []
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not _OVERRIDE_KEY.fullmatch(key):
            remedy = "write key=value, for example training.epochs=2"
            problems.append(Problem("", "not an override", remedy, word, where=COMMAND_LINE))
            continue
        value, wrong = parse(text, lambda line: Origin(COMMAND_LINE))
        problems += [Problem(key, item.message, item.remedy, text, where=COMMAND_LINE) for item in wrong]
        if not wrong:
            root = _put(root, split_key(key), value, problems)
    return root, problems


def _put(entry: Entry, path: tuple[str | int, ...], value: Entry, problems: list[Problem], done: int = 0) -> Entry:
    """`entry` with `value` merged in at `path`, of which the first `done` parts lead to `entry`."""
    if done == len(path):
        return merge(entry, value)
    part = path[done]
    if isinstance(part, str):
        below = entry.value.get(part) if isinstance(entry.value, dict) else None
        new = _put(below or Entry(None, value.origin), path, value, problems, done + 1)
        return merge(entry, Entry({part: new}, value.origin))
    if not isinstance(entry.value, list) or part >= len(entry.value):
        length = len(entry.value) if isinstance(entry.value, list) else 0
        message = f"there is no element {part}: the list has {length}"
        remedy = f"give the whole list: {dotted(path[:done])}=[...]"
        problems.append(Problem(dotted(path), message, remedy, shown(value), where=value.origin.place))
        return entry
    items = list(entry.value)
    items[part] = _put(items[part], path, value, problems, done + 1)
    return Entry(items, value.origin)
