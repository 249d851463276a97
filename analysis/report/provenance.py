"""What made the numbers, each fact once, with the runs that it holds for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.holdings import Library
from analysis.names import benchmark_name
from analysis.runs import ResultFile
from reprokit.records.details import details_path
from reprokit.records.files import sha256_of_file
from reprokit.records.record import Origin

# In the order shown; what is not named here follows by name.
_TITLES = {
    "code": "Code",
    "packages": "Packages",
    "python": "Python",
    "machine": "Machine",
    "cores": "Cores",
    "slurm": "Slurm jobs",
    "device": "Training device",
    "world_size": "Training ranks",
    "resumed_at": "Training resumed at step",
    "arithmetic": "Training arithmetic",
    "attention": "Training attention",
    "engine": "Engine",
    "engines": "Engines",
    "seed": "Sampling seed",
    "settings": "Sampling settings",
    "data": "Problems",
    "scored_with": "Scored with",
    "scorer": "Version of the scoring",
    "judges": "Judges",
}
_VERSIONS = {"packages", "scored_with"}
_COSTS = {"generated_tokens", "tokens_per_second", "engine_seconds"}  # shown with the costs


@dataclass(frozen=True)
class Fact:
    """One thing that is known, and the runs that it is known of; no runs where it holds for all that have records."""

    title: str
    value: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class SourceFile:
    """A file that the page was made from, its path within the results folder."""

    name: str
    sha256: str
    measured: int
    reported: int


def source_files(results: Path, library: Library) -> list[SourceFile]:
    """The result files, each followed by its details where there are some."""
    found = []
    for file in library.files:
        found.append(SourceFile(file.name, file.sha256, _count(file, "measured"), _count(file, "reported")))
        path = details_path(results, file.results.run)
        if file.results.run in library.details:
            found.append(SourceFile(str(path.relative_to(results)), sha256_of_file(path), 0, 0))
    return found


def facts(library: Library, origin: Origin) -> list[Fact]:
    """Every fact of the provenance of records of that origin, in the order of `_TITLES`."""
    holds: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for file in library.files:
        if _count(file, origin):
            for key, value in _of_file(file):
                holds[key, value][file.results.run] = None
    everywhere = {file.results.run for file in library.files if _count(file, origin)}
    order = list(_TITLES)
    return [
        Fact(_TITLES.get(key, key), value, () if set(runs) == everywhere else tuple(runs))
        for (key, value), runs in sorted(
            holds.items(), key=lambda item: (order.index(item[0][0]) if item[0][0] in order else len(order), item[0])
        )
    ]


def words(value: Any) -> str:
    """Plain data in one line: `top p: 0.95, seed: 1234`; what is None or empty is left out."""
    if isinstance(value, dict):
        parts = ((_name(str(key)), words(inner), isinstance(inner, dict)) for key, inner in value.items())
        return ", ".join(
            f"{name}: ({inner})" if is_nested else f"{name}: {inner}" for name, inner, is_nested in parts if inner
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(words, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _name(key: str) -> str:
    """A key in words; the name of a file as it is."""
    return key if "." in key else key.replace("_", " ")


def _versions(value: dict[str, Any]) -> str:
    return ", ".join(f"{name} {words(version)}" for name, version in value.items() if words(version))


def _count(file: ResultFile, origin: Origin) -> int:
    return sum(record.origin == origin for record in file.results.records)


def _of_file(file: ResultFile) -> Iterator[tuple[str, str]]:
    jobs: dict[str, None] = {}
    for name, entry in file.results.provenance.items():
        if not {"evaluation", "code"} & set(entry):  # of reported numbers, of other harnesses: all of it is one fact
            yield name, words(entry)
            continue
        known = {**_part(entry, "evaluation"), **{key: value for key, value in entry.items() if key != "evaluation"}}
        jobs |= dict.fromkeys(str(job) for job in _part(known, "slurm").values())
        benchmark = str(_part(known, "data").get("benchmark", ""))
        for key, value in known.items():
            if key not in _COSTS and key != "slurm" and (text := _text(key, value, benchmark)):
                yield key, text
    if jobs:
        yield "slurm", ", ".join(jobs)


def _text(key: str, value: Any, benchmark: str) -> str:
    if key == "code" and isinstance(value, dict):
        return _code(value)
    if key in {"data", "settings"} and benchmark and isinstance(value, dict):
        inner = words({name: what for name, what in value.items() if name != "benchmark"})
        return f"{benchmark_name(benchmark)}: {inner}"
    return _versions(value) if key in _VERSIONS and isinstance(value, dict) else words(value)


def _code(state: dict[str, Any]) -> str:
    if "commit" not in state:
        return "not from a git checkout"
    return f"commit {state['commit']}" + (", with changes that were not committed" if state.get("dirty") else "")


def _part(entry: dict[str, Any], key: str) -> dict[str, Any]:
    part = entry.get(key)
    return part if isinstance(part, dict) else {}
