"""Inputs of a run: hub models and data from the cache, pinned hashes, tokenizers, and what cannot be had."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from reprokit.errors import UserError
from reprokit.preparation.base_model import fetch_model, prepare_tokenizer
from reprokit.preparation.prepare import load_rows
from reprokit.recipe.schema import DataSection, ModelSection
from reprokit.records.run_directory import RunDirectory
from tests.conftest import launch

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_cache(folder: Path, kind: str, files: dict[str, Path]) -> None:
    """What huggingface_hub leaves in HF_HOME after fetching `me/it` at COMMIT."""
    repository = folder / "hub" / f"{kind}--me--it"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, source in files.items():
        shutil.copyfile(source, snapshot / name)


def write_rows(path: Path, count: int = 64) -> Path:
    lines = [json.dumps({"message": f"What is {n} + 1?", "response": f"\\boxed{{{n + 1}}}"}) for n in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_run_from_hub_ids_needs_no_network_once_they_are_fetched(
    local_run: RunDirectory, tiny_recipe: Path, tmp_path: Path
) -> None:
    weights = {path.name: path for path in local_run.checkpoint(16).iterdir()}
    hub_cache(tmp_path / "hf", "models", weights)
    hub_cache(tmp_path / "hf", "datasets", {"rows.jsonl": write_rows(tmp_path / "rows.jsonl")})
    words = ["model.config=null", "model.tokenizer_vocab_size=null", "model.hub_id=me/it", f"model.revision={COMMIT}"]
    words += ["data.generator=null", "data.hub_id=me/it", "data.file=rows.jsonl", "data.rows=64"]
    words += ["training.checkpoint_steps=[4]", "stages=prepare", "cluster=local"]
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = launch(tmp_path, f"recipe={tiny_recipe}", *words, **home)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = RunDirectory(tmp_path / "runs" / "tiny").manifest(0)
    assert manifest is not None and manifest.revision == COMMIT
    assert manifest.weights == str(tmp_path / "hf" / "hub" / "models--me--it" / "snapshots" / COMMIT)
    absent = launch(tmp_path, f"recipe={tiny_recipe}", *words, "name=other", "model.hub_id=me/that", **home)
    assert absent.returncode == 2 and "Traceback" not in absent.stderr
    assert "model.hub_id=me/that" in absent.stderr and "set model.path" in absent.stderr


def test_an_unreachable_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="set model.path to a folder"):
        fetch_model("me/it", COMMIT)


def test_pinned_data_must_be_the_file_that_is_meant(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rows, source = load_rows(DataSection(name="x", path=str(path), sha256=digest, rows=64))
    assert len(rows) == source["rows"] == 64 and source["sha256"] == digest
    with pytest.raises(UserError, match="is not the file that the recipe means"):
        load_rows(DataSection(name="x", path=str(path), sha256="0" * 64))
    with pytest.raises(UserError, match="64 rows, but the recipe says data.rows=65"):
        load_rows(DataSection(name="x", path=str(path), rows=65))


def test_a_chat_template_of_the_recipe_replaces_the_tokenizers_own(local_run: RunDirectory, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for turn in messages %}Q: {{ turn.content }}\n{% endfor %}A: ")
    weights = local_run.checkpoint(0)
    model = ModelSection(name="x", path=str(weights), chat_template=str(template))
    run = RunDirectory(tmp_path / "run")
    prepare_tokenizer(run, model, weights, [])
    again = prepare_tokenizer(run, ModelSection(name="x", path=str(weights)), weights, [])  # as it was saved
    messages = [{"role": "user", "content": "why?"}]
    assert again.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == "Q: why?\nA: "
