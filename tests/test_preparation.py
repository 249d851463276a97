"""Inputs of a run: hub models and data from the cache, pinned hashes, tokenizers, tokens made once for all runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from reprokit.data import cache, rows, tokens
from reprokit.data.rows import Row
from reprokit.errors import UserError
from reprokit.preparation.base_model import fetch_model, prepare_tokenizer
from reprokit.preparation.training_data import open_source, prepare_tokens
from reprokit.recipe.schema import DataSection, ModelSection
from reprokit.records.files import read_json
from reprokit.records.run_directory import RunDirectory
from tests.conftest import launch
from tests.tokenizers import PLAIN_TEMPLATE, SYSTEM_TEMPLATE, qwen_like

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def prepared(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The tiny recipe after its preparation."""
    folder = tmp_path_factory.mktemp("prepared")
    done = launch(folder, f"recipe={tiny_recipe}", "stages=prepare", "cluster=local")
    assert done.returncode == 0, done.stdout + done.stderr
    return RunDirectory(folder / "runs" / "tiny")


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
    prepared: RunDirectory, tiny_recipe: Path, tmp_path: Path
) -> None:
    weights = {path.name: path for path in prepared.checkpoint(0).iterdir()}
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
    source = open_source(DataSection(name="x", path=str(path), sha256=digest, rows=64))
    assert len(list(source.rows())) == source.facts["rows"] == 64 and source.facts["sha256"] == source.digest == digest
    with pytest.raises(UserError, match="is not the file that the recipe means"):
        open_source(DataSection(name="x", path=str(path), sha256="0" * 64))
    with pytest.raises(UserError, match="64 rows, but the recipe says data.rows=65"):
        open_source(DataSection(name="x", path=str(path), rows=65))


def test_a_chat_template_of_the_recipe_replaces_the_tokenizers_own(prepared: RunDirectory, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for turn in messages %}Q: {{ turn.content }}\n{% endfor %}A: ")
    weights = prepared.checkpoint(0)
    model = ModelSection(name="x", path=str(weights), chat_template=str(template))
    run = RunDirectory(tmp_path / "run")
    prepare_tokenizer(run, model, weights, [])
    again = prepare_tokenizer(run, ModelSection(name="x", path=str(weights)), weights, [])  # as it was saved
    messages = [{"role": "user", "content": "why?"}]
    assert again.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == "Q: why?\nA: "


def test_preparation_prints_what_the_tokens_are(prepared: RunDirectory) -> None:
    (log,) = prepared.logs.glob("*/prepare/*.out")
    printed = log.read_text()
    assert "256 rows, " in printed and "<|endoftext|> (id 0)" in printed
    assert "  | <|im_start|>user\n" in printed and "  > <think>\n" in printed
    facts = read_json(prepared.data / "source.json", dict)
    assert facts["generator"] == "countdown" and facts["rows"] == 256
    shared = prepared.root.parent / ".tokens" / facts["tokens"]
    assert f"tokens: made and kept in {shared}" in printed
    for name in tokens.ARRAYS:
        assert os.path.samefile(shared / name, prepared.data / name)


def test_a_second_run_takes_the_tokens_of_the_first(prepared: RunDirectory, tiny_recipe: Path) -> None:
    words = [f"recipe={tiny_recipe}", "name=second", "training.learning_rate=1e-3", "stages=prepare", "cluster=local"]
    done = launch(prepared.root.parents[1], *words)
    assert done.returncode == 0, done.stdout + done.stderr
    second = RunDirectory(prepared.root.parent / "second")
    (log,) = second.logs.glob("*/prepare/*.out")
    assert "tokens: taken from " in log.read_text() and "256 rows, " in log.read_text()
    assert os.path.samefile(prepared.data / "tokens.npy", second.data / "tokens.npy")
    shutil.rmtree(prepared.root.parent / ".tokens")
    assert len(tokens.load(second.data)) == 256  # the run folder is complete by itself


def write_data(path: Path, ends: str = "") -> DataSection:
    path.write_text("".join(json.dumps({"message": f"{n}+1", "response": f"{n + 1}{ends}"}) + "\n" for n in range(64)))
    return DataSection(name="x", path=str(path))


def key_of(run: RunDirectory) -> str:
    return str(read_json(run.data / "source.json", dict)["tokens"])


def test_what_decides_the_tokens_decides_the_key(tmp_path: Path) -> None:
    data = write_data(tmp_path / "rows.jsonl")

    def prepared_key(name: str, template: str = PLAIN_TEMPLATE, length: int = 100, given: DataSection = data) -> str:
        run = RunDirectory(tmp_path / "runs" / name)
        prepare_tokens(run, open_source(given), qwen_like(template), length)
        return key_of(run)

    first = prepared_key("first")
    moved = tmp_path / "moved.jsonl"
    shutil.copyfile(tmp_path / "rows.jsonl", moved)
    assert prepared_key("again") == prepared_key("moved", given=DataSection(name="y", path=str(moved))) == first
    others = {
        prepared_key("template", template=SYSTEM_TEMPLATE),
        prepared_key("length", length=99),
        prepared_key("data", given=write_data(tmp_path / "other.jsonl", ends=".")),
    }
    assert len(others | {first}) == 4

    tokenizer = qwen_like(PLAIN_TEMPLATE)
    before = cache.fingerprint(tokenizer)
    tokenizer.eos_token = "<|im_end|>"
    assert cache.fingerprint(tokenizer) != before == cache.fingerprint(qwen_like(SYSTEM_TEMPLATE))
    tokenizer = qwen_like(PLAIN_TEMPLATE)
    tokenizer.add_tokens(["<think>"])
    assert cache.fingerprint(tokenizer) != before
    made = [Row([{"role": "user", "content": "a"}], "b"), Row([{"role": "user", "content": "c"}], "d")]
    assert cache.digest_of_rows(made) != cache.digest_of_rows(made[::-1])


def test_a_hit_does_not_even_parse_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, tokenizer = write_data(tmp_path / "rows.jsonl"), qwen_like(PLAIN_TEMPLATE)
    prepare_tokens(RunDirectory(tmp_path / "runs" / "a"), open_source(data), tokenizer, 100)

    def never(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(rows, "_row", never)
    run = RunDirectory(tmp_path / "runs" / "b")
    report = prepare_tokens(run, open_source(data), tokenizer, 100)
    assert report.rows == len(tokens.load(run.data)) == 64
    with pytest.raises(AssertionError, match="parsed"):
        prepare_tokens(RunDirectory(tmp_path / "runs" / "c"), open_source(data), tokenizer, 99)


@pytest.mark.parametrize("harm", ["flipped", "cut", "no report", "half", "empty"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, tokenizer = write_data(tmp_path / "rows.jsonl"), qwen_like(PLAIN_TEMPLATE)
    first = RunDirectory(tmp_path / "runs" / "first")
    prepare_tokens(first, open_source(data), tokenizer, 100)
    wanted = (first.data / "tokens.npy").read_bytes()
    entry = tmp_path / "runs" / ".tokens" / key_of(first)
    if harm == "flipped":
        (entry / "tokens.npy").write_bytes(wanted[:-1] + bytes([wanted[-1] ^ 1]))
    elif harm == "cut":
        (entry / "offsets.npy").write_bytes((entry / "offsets.npy").read_bytes()[:-8])
    elif harm == "no report":
        (entry / "report.json").unlink()
    elif harm == "half":
        shutil.rmtree(entry)
        (entry.parent / f".{entry.name}.killed" / "new").mkdir(parents=True)
    else:
        shutil.rmtree(entry)
        entry.mkdir()
    capsys.readouterr()
    second = RunDirectory(tmp_path / "runs" / "second")
    prepare_tokens(second, open_source(data), tokenizer, 100)
    assert "tokens: made and kept in" in capsys.readouterr().out
    assert (second.data / "tokens.npy").read_bytes() == wanted and tokens.is_intact(entry)
    assert sorted(path.name for path in entry.parent.iterdir()) == [entry.name, f"{entry.name}.lock"]
    third = RunDirectory(tmp_path / "runs" / "third")
    prepare_tokens(third, open_source(data), tokenizer, 100)
    assert "tokens: taken from" in capsys.readouterr().out


def test_damaged_tokens_of_a_run_are_replaced(tmp_path: Path) -> None:
    data, tokenizer = write_data(tmp_path / "rows.jsonl"), qwen_like(PLAIN_TEMPLATE)
    run = RunDirectory(tmp_path / "runs" / "a")
    prepare_tokens(run, open_source(data), tokenizer, 100)
    wanted = np.load(run.data / "tokens.npy")
    (run.data / "tokens.npy").unlink()
    (run.data / "tokens.npy").write_bytes(b"x")
    prepare_tokens(run, open_source(data), tokenizer, 100)
    assert np.array_equal(np.load(run.data / "tokens.npy"), wanted)


def test_a_failed_tokenisation_leaves_nothing_to_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    data = write_data(path)
    path.write_text(path.read_text() + '{"message": "a", "response": ""}\n')
    run = RunDirectory(tmp_path / "runs" / "a")
    with pytest.raises(UserError, match=r"rows\.jsonl, row 65: response is empty str"):
        prepare_tokens(run, open_source(data), qwen_like(PLAIN_TEMPLATE), 100)
    assert not run.data.exists()
    assert [path.suffix for path in (tmp_path / "runs" / ".tokens").iterdir()] == [".lock"]


def test_without_hard_links_the_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refused)
    data = write_data(tmp_path / "rows.jsonl")
    run = RunDirectory(tmp_path / "runs" / "a")
    prepare_tokens(run, open_source(data), qwen_like(PLAIN_TEMPLATE), 100)
    entry = tmp_path / "runs" / ".tokens" / key_of(run)
    assert tokens.is_intact(run.data) and not os.path.samefile(run.data / "tokens.npy", entry / "tokens.npy")


def test_launches_at_once_make_the_tokens_once(tmp_path: Path) -> None:
    made: list[Path] = []
    tokenizer = qwen_like(PLAIN_TEMPLATE)

    def slow(entry: Path) -> None:
        made.append(entry)
        time.sleep(0.2)
        tokens.build([Row([{"role": "user", "content": "a"}], "b")], tokenizer, 100, entry)

    def one(number: int) -> bool:
        return cache.provide(tmp_path / ".tokens", "key", tmp_path / f"run_{number}" / "data", slow)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert sorted(found) == [False, True, True, True] and len(made) == 1
    assert all(tokens.is_intact(tmp_path / f"run_{number}" / "data") for number in range(4))


def test_a_tokenizer_of_another_model_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    """Its ids would be looked up beyond the end of the embeddings, in the middle of a training."""
    done = launch(tmp_path, f"recipe={tiny_recipe}", "model.config.vocab_size=300", "stages=prepare", "cluster=local")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the model has embeddings for 300 tokens only" in done.stdout + done.stderr
