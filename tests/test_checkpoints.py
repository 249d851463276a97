"""Checkpoints: what `save_pretrained` would write, in pieces, and complete or not there."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from reprokit import benchmarks
from reprokit.errors import UserError
from reprokit.evaluation import worker
from reprokit.recipe import load
from reprokit.records import manifest
from reprokit.records.files import sha256_of_file, write_json, write_json_lines
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory
from reprokit.training import checkpoints, shards
from reprokit.training.shards import TensorPlan, write_shards, write_weights

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {"model_type": "qwen3", **SMALL, "head_dim": 16, "tie_word_embeddings": False},
    "qwen3-tied": {"model_type": "qwen3", **SMALL, "head_dim": 16, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", **SMALL},
    "llama": {"model_type": "llama", **SMALL},
    "gemma3-text": {"model_type": "gemma3_text", **SMALL, "head_dim": 16},
    "gemma3": {
        "model_type": "gemma3",
        "text_config": {**SMALL, "head_dim": 16},
        "vision_config": VISION,
        "mm_tokens_per_image": 4,
    },
}
SHARD_BYTES = 20_000  # the embeddings have 19,200 bytes

SAVE = """
import json, os, sys, weakref
from pathlib import Path
rank, root, shard_bytes, names = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[5:]
os.environ.update(RANK=sys.argv[1], WORLD_SIZE="2", LOCAL_RANK=sys.argv[1], MASTER_ADDR="127.0.0.1",
    MASTER_PORT=sys.argv[4], DS_ACCELERATOR="cpu")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import HfDeepSpeedConfig
from reprokit.records.run_directory import RunDirectory
from reprokit.training import checkpoints, engine, shards
engine.initialise_distributed(rank, 1)
shards.MAX_SHARD_BYTES = shard_bytes
zero3 = HfDeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, "zero_optimization":
    {"stage": 3, "stage3_param_persistence_threshold": 0}, "bf16": {"enabled": True}})
alive, most = 0, 0
def counted(tensors):
    global alive, most
    for name, tensor in tensors:
        alive += tensor.nbytes
        most = max(most, alive)
        weakref.finalize(tensor.untyped_storage(), gone, tensor.nbytes)
        yield name, tensor
def gone(size):
    global alive
    alive -= size
usual = checkpoints._gathered
checkpoints._gathered = lambda model, rank: counted(usual(model, rank))
tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer")
said = {}
for name in names:
    model = AutoModelForCausalLM.from_pretrained(root / "reference" / name, dtype=torch.bfloat16)
    assert all(parameter.numel() == 0 for parameter in model.parameters()), "it is not partitioned"
    most = 0
    checkpoints.save(RunDirectory(root / "runs" / name), model, tokenizer, 5, rank)
    said[name] = most
if rank == 0:
    print(json.dumps(said))
engine.leave_distributed()
"""


def tokenizer() -> Any:
    backend = Tokenizer(models.WordLevel({"a": 0, "<end>": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Every model by `save_pretrained`, and by two ranks of ZeRO-3; the most bytes that rank 0 held at a time."""
    root = tmp_path_factory.mktemp("checkpoints")
    tokenizer().save_pretrained(root / "tokenizer")
    for seed, (name, fields) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields), dtype=torch.bfloat16)
        model.save_pretrained(root / "reference" / name)
        (root / "runs" / name).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(root), str(SHARD_BYTES), str(port), *MODELS]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE, str(rank), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said[0][1][-3000:]
    return root, json.loads(said[0][0].splitlines()[-1])


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("name", MODELS)
def test_partitioned_models_are_saved_as_by_save_pretrained(saved: tuple[Path, dict[str, int]], name: str) -> None:
    root, most = saved
    reference, run = root / "reference" / name, RunDirectory(root / "runs" / name)
    folder = run.checkpoint(5)
    expected, found = tensors_in(reference), tensors_in(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) and tensor.dtype == torch.bfloat16 for key, tensor in found.items())
    for config in ("config.json", "generation_config.json"):
        assert json.loads((folder / config).read_text()) == json.loads((reference / config).read_text())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 2 and set(index["weight_map"].values()) == set(files)
    largest = max(tensor.nbytes for tensor in expected.values())
    for file in files:
        held = load_file(folder / file)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= SHARD_BYTES
        assert {index["weight_map"][key] for key in held} == {file}
    assert 0 < most[name] <= SHARD_BYTES + largest
    whole = sum(tensor.nbytes for tensor in expected.values())
    print(f"\n{name}: {len(files)} files, {whole:,} bytes, at most {most[name]:,} of them in memory", end="")


@pytest.mark.parametrize("name", MODELS)
def test_saved_checkpoints_load_and_answer_the_same(saved: tuple[Path, dict[str, int]], name: str) -> None:
    root, _ = saved
    ids = torch.arange(3, 20)[None]
    answers = []
    for folder in (root / "reference" / name, RunDirectory(root / "runs" / name).weights(5)):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        with torch.no_grad():
            answers.append(model(input_ids=ids).logits)
    assert torch.equal(*answers)
    assert AutoTokenizer.from_pretrained(RunDirectory(root / "runs" / name).checkpoint(5)).eos_token == "<end>"


@pytest.mark.parametrize("name", MODELS)
def test_fresh_models_are_saved_as_by_save_pretrained(tmp_path: Path, name: str) -> None:
    """As for the base model of a recipe with `model.config`; one file is enough at the usual size."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**MODELS[name]))
    model.save_pretrained(tmp_path / "reference")
    run = RunDirectory(tmp_path)
    checkpoints.write(run, model, model.state_dict(), tokenizer(), step=0)
    expected, found = tensors_in(tmp_path / "reference"), tensors_in(run.weights(0))
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())
    assert [path.name for path in run.checkpoint(0).glob("*.safetensors*")] == ["model.safetensors"]


def test_a_checkpoint_is_sealed_with_size_and_digest_of_every_file(saved: tuple[Path, dict[str, int]]) -> None:
    folder = RunDirectory(saved[0] / "runs" / "qwen3").checkpoint(5)
    made = manifest.read(folder)
    assert made is not None and made.step == 5
    assert made.files == {path.name: manifest.entry(path) for path in folder.iterdir() if path.name != "manifest.json"}
    assert {"config.json", "generation_config.json", "tokenizer.json"} < set(made.files)


@pytest.fixture
def run(saved: tuple[Path, dict[str, int]], tmp_path: Path) -> RunDirectory:
    """A run folder with one checkpoint, of step 5."""
    shutil.copytree(saved[0] / "runs" / "qwen3", tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])  # of a JSON file the brace and the newline


@pytest.mark.parametrize("file", ["model-00002-of-*.safetensors", "config.json", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_a_truncated_checkpoint_is_none(run: RunDirectory, file: str, damage: Any) -> None:
    assert run.manifest(5) is not None
    (path,) = run.checkpoint(5).glob(file)
    damage(path)
    assert run.manifest(5) is None
    with pytest.raises(UserError, match=path.name):
        run.weights(5)
    with pytest.raises(UserError, match=path.name):
        manifest.verify(run.checkpoint(5))


def test_a_checkpoint_with_a_flipped_bit_is_not_evaluated(run: RunDirectory, tmp_path: Path) -> None:
    tokenizer().save_pretrained(run.tokenizer)
    write_json_lines(run.items("countdown"), benchmarks.get("countdown").items(3))
    write_json(run.items_source("countdown"), {"items": sha256_of_file(run.items("countdown"))})
    manifest.verify(run.checkpoint(5))
    (path,) = run.checkpoint(5).glob("model-00002-of-*.safetensors")
    flip_a_bit(path)
    with pytest.raises(UserError, match=f"(?s){path.name}.*sha256.*Move the folder away"):
        worker.generate(
            run, load("mini").recipe, [Cell(5, "countdown")], worker.Share(0, 1), tmp_path / "progress.json", "job"
        )


def test_nothing_of_a_full_disk_is_left_and_the_older_checkpoint_stays(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = manifest.read(run.checkpoint(5))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**MODELS["qwen3"], "vocab_size": 9000}))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limit[1]))
    try:
        with pytest.raises(UserError, match=r"(?s)model.*safetensors.*It needs 0\.\d\d GiB.*GiB free.*launch again"):
            checkpoints.write(run, model, model.state_dict(), tokenizer(), step=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    usage = shutil.disk_usage(run.root)
    monkeypatch.setattr(manifest.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match="0.00 GiB free"):
        checkpoints.write(run, model, model.state_dict(), tokenizer(), step=6)
    monkeypatch.undo()
    assert [path.name for path in (run.root / "checkpoints").iterdir()] == ["step_000005"]
    assert manifest.read(run.checkpoint(5)) == before
    manifest.verify(run.checkpoint(5))
    checkpoints.write(run, model, model.state_dict(), tokenizer(), step=5)
    assert manifest.read(run.checkpoint(5)) not in (None, before)


def test_shards_hold_no_more_than_one_file_and_one_large_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of 1 to 9 KiB, some larger than a shard; what was yielded and is still alive is counted."""
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 5 * 1024)
    sizes = [3, 1, 9, 1, 2, 4, 6, 1, 1, 1, 1, 1, 5, 2]
    plan = [TensorPlan(f"t{number}", (size, 256), torch.float32) for number, size in enumerate(sizes)]
    alive, most = 0, 0

    def gone(size: int) -> None:
        nonlocal alive
        alive -= size

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal alive, most
        for number, tensor in enumerate(plan):
            made = torch.full(tensor.shape, float(number))
            alive += made.nbytes
            most = max(most, alive)
            weakref.finalize(made.untyped_storage(), gone, made.nbytes)
            yield tensor.name, made
            del made

    write_weights(tmp_path, plan, tensors())
    found = tensors_in(tmp_path)
    assert all(
        torch.equal(found[f"t{number}"], torch.full((size, 256), float(number))) for number, size in enumerate(sizes)
    )
    print(f"\n{sum(sizes)} KiB in files of 5 KiB: at most {most / 1024:.0f} KiB in memory")
    assert most <= (5 + 9) * 1024


def test_tensors_that_are_not_as_planned_are_refused(tmp_path: Path) -> None:
    plan = [TensorPlan("a", (2,), torch.float32), TensorPlan("b", (2,), torch.float32)]
    a, b = ("a", torch.zeros(2)), ("b", torch.zeros(2))
    for wrong in ([a], [a, b, b], [a, ("c", torch.zeros(2))], [a, ("b", torch.zeros(3))], [a, ("b", b[1].half())]):
        with pytest.raises(ValueError, match="planned"):
            write_shards(tmp_path, plan, wrong, shards.WEIGHTS)
    assert write_shards(tmp_path, plan, [b, a], shards.WEIGHTS) == {"model.safetensors": ["a", "b"]}
