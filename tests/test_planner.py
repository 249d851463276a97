"""Whether a recipe fits its machines: the estimate by hand and against real parts, and remedies that help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reprokit.campaign import needs
from reprokit.campaign.memory import FP32_STATES, OFFLOADED_STATES, STATES, estimate, model_size
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.errors import UserError
from reprokit.recipe.schema import Arithmetic, DataSection, ModelSection, Precision, Recipe, TrainingSection

GIB = 1024**3
QWEN3_14B = {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 8}
QWEN3_14B |= {"head_dim": 128, "intermediate_size": 17408, "vocab_size": 151936, "tie_word_embeddings": False}
QWEN3_1_7B = {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
QWEN3_1_7B |= {"head_dim": 128, "intermediate_size": 6144, "vocab_size": 151936, "tie_word_embeddings": True}
# 40 layers of 5120 x (2 x 5120 + 2 x 1024 + 3 x 17408), embeddings and head of 5120 x 151936 each
PARAMETERS_14B, HEAD_14B = 14_767_882_240, 777_912_320


def recipe_of(shape: dict[str, Any], max_length: int = 20000, **training: Any) -> Recipe:
    """A recipe on a hub model of the given sizes, with the paper's batch."""
    settings = {"learning_rate": 5e-5, "epochs": 8, "global_batch_size": 256, "checkpoint_steps": [10, 640], **training}
    model = ModelSection(name="Base", hub_id="a/b", shape=dict(shape))
    return Recipe("run", model, DataSection(name="Data", max_length=max_length), TrainingSection(**settings))


def gpus(per_node: int, memory_gb: float, nodes: int = 1, host_gb: float | None = None) -> ClusterProfile:
    resources = Resources(nodes=nodes, tasks_per_node=per_node, gpus_per_node=per_node, memory_gb=host_gb)
    return ClusterProfile(gpu_memory_gb=memory_gb, train=resources)


def memory_of(recipe: Recipe, profile: ClusterProfile) -> Any:
    setup = needs.setup_of(recipe, profile)
    assert setup is not None
    return setup.memory


def refusal(recipe: Recipe, profile: ClusterProfile) -> str:
    with pytest.raises(UserError) as refused:
        needs.check_fits(recipe, profile, "mine")
    return str(refused.value)


def printed_remedies(message: str) -> list[str]:
    return [line for line in message.splitlines() if re.match(r"    (training\.|train\.nodes)", line)]


def follow(remedy: str, recipe: Recipe, profile: ClusterProfile) -> tuple[Recipe, ClusterProfile]:
    """Recipe and profile after a person did what the line says."""
    settings = {key: json.loads(value) for key, value in re.findall(r"training\.(\w+)=(\w+)", remedy)}
    nodes = re.search(r"train\.nodes: (\d+) in the cluster profile", remedy)
    assert settings or nodes, remedy
    resources = replace(profile.train, nodes=int(nodes[1])) if nodes else profile.train
    return replace(recipe, training=replace(recipe.training, **settings)), replace(profile, train=resources)


def test_14b_in_official_arithmetic_on_eight_gpus_of_141_gb_by_hand() -> None:
    recipe = recipe_of(QWEN3_14B, arithmetic=Arithmetic.official)
    memory = memory_of(recipe, gpus(8, 141))
    assert memory.tokens == 80000  # 4 rows of 20000
    assert memory.states == pytest.approx(PARAMETERS_14B * 10 / 8 / GIB)  # 17.2
    assert memory.activations == pytest.approx(2 * 80000 * 40 * 5120 / GIB)  # 30.5
    one_layer = 2 * 80000 * (10 * 5120 + 5 * 5120 + 5 * 1024 + 6 * 17408)  # 27.8 GiB
    assert memory.layer == pytest.approx((one_layer + 6 * HEAD_14B) / GIB)
    assert memory.loss == pytest.approx((2 * 80000 * 4 * 5120 + 10 * HEAD_14B) / GIB)  # 10.3
    assert memory.buffers == pytest.approx(2 + (4 * 5e8 + 2 * (1e9 + HEAD_14B)) / GIB)
    assert memory.step == pytest.approx(8e9 / GIB)
    assert memory.host == 0
    assert memory.rank == pytest.approx(87.0, abs=0.05)
    needs.check_fits(recipe, gpus(8, 141), "mine")
    assert "training.micro_batch_tokens=40000" in refusal(recipe, gpus(8, 80))


def test_14b_in_standard_arithmetic_on_eight_gpus_of_80_gb() -> None:
    recipe = recipe_of(QWEN3_14B)
    memory = memory_of(recipe, gpus(8, 80))
    assert memory.states == pytest.approx(PARAMETERS_14B * 18 / 8 / GIB)  # 30.9
    assert memory.rank == pytest.approx(57.0, abs=0.1)
    needs.check_fits(recipe, gpus(8, 80), "mine")
    told = refusal(replace(recipe, training=replace(recipe.training, gradient_checkpointing=False)), gpus(8, 80))
    assert printed_remedies(told)[0].startswith("    training.gradient_checkpointing=true  (about 57.0 GiB)")


def test_14b_on_one_gpu_names_offload_and_more_nodes() -> None:
    recipe, profile = recipe_of(QWEN3_14B), gpus(1, 80)
    message = refusal(recipe, profile)
    print(message)
    assert "14.8 billion parameters" in message and "247.6  parameters, gradients and optimizer states" in message
    offload, nodes = printed_remedies(message)
    assert offload == "    training.cpu_offload=true  (about 50.3 GiB, and 275 GiB of memory in every node)"
    assert re.match(r"    train\.nodes: 5 in the cluster profile  \(about 7\d\.\d GiB\)", nodes)
    for remedy in (offload, nodes):
        needs.check_fits(*follow(remedy, recipe, profile), "mine")
    four = replace(profile, train=replace(profile.train, nodes=4))
    assert "does not fit" in refusal(recipe, four)


def test_a_host_that_cannot_take_the_states_is_not_offered_them() -> None:
    recipe = recipe_of(QWEN3_14B)
    assert "cpu_offload=true  (" not in refusal(recipe, gpus(1, 80, host_gb=200))
    assert "cpu_offload=true and train.nodes: 2" in refusal(recipe, gpus(1, 80, host_gb=200))  # half on each
    assert "cpu_offload=true  (" in refusal(recipe, gpus(1, 80, host_gb=300))
    offloading = replace(recipe, training=replace(recipe.training, cpu_offload=True))
    needs.check_fits(offloading, gpus(1, 80, host_gb=300), "mine")
    message = refusal(offloading, gpus(1, 80, host_gb=200))
    assert "275 GiB in the memory of every node" in message and "200 GiB of memory in a node" in message
    assert "cpu_offload" not in refusal(recipe_of(QWEN3_14B, arithmetic=Arithmetic.official), gpus(1, 80))


def test_1_7b_fits_one_gpu_of_80_gb() -> None:
    recipe = recipe_of(QWEN3_1_7B, max_length=16384)
    memory = memory_of(recipe, gpus(1, 80))
    count = 28 * 2048 * (2 * 2048 + 2 * 1024 + 3 * 6144) + 2048 * 151936
    assert memory.states == pytest.approx(count * 18 / GIB)  # 28.8
    assert memory.buffers == pytest.approx(2 + 2e9 / GIB)  # nothing is gathered on one rank
    assert 40 < memory.rank < 46
    needs.check_fits(recipe, gpus(1, 80), "mine")
    assert "does not fit" in refusal(recipe, gpus(1, 40))


GRID = [
    (shape, max_length, arithmetic, per_node, nodes, memory)
    for shape in ("14b", "1.7b")
    for max_length in (2000, 20000, 120000)
    for arithmetic in Arithmetic
    for per_node, nodes in ((1, 1), (2, 1), (4, 2), (8, 1))
    for memory in (16, 24, 40, 80)
]


def test_every_printed_remedy_makes_the_recipe_fit() -> None:
    fitting = refused = helped = 0
    slowest = 0.0
    for shape, max_length, arithmetic, per_node, nodes, memory in GRID:
        sizes = QWEN3_14B if shape == "14b" else QWEN3_1_7B
        checkpointing = max_length != 2000
        recipe = recipe_of(sizes, max_length, arithmetic=arithmetic, gradient_checkpointing=checkpointing)
        profile = gpus(per_node, memory, nodes)
        started = time.perf_counter()
        try:
            needs.check_fits(recipe, profile, "mine")
            fitting += 1
            continue
        except UserError as error:
            message = str(error)
        slowest = max(slowest, time.perf_counter() - started)
        found = printed_remedies(message)
        assert bool(found) != ("No setting" in message) and len(found) <= 2
        refused += 1
        helped += bool(found)
        for remedy in found:
            changed = follow(remedy, recipe, profile)
            needs.check_fits(*changed, "mine")
            needs.check_shares(*changed, "mine")
    print(f"{fitting} fit, {refused} refused, {helped} of them with a remedy; slowest search {slowest:.2f} s")
    assert fitting > 20 and helped > 40 and refused > helped


def test_sequence_parallelism_is_the_remedy_for_rows_that_do_not_fit() -> None:
    recipe = recipe_of(QWEN3_14B, max_length=120000)
    remedy = printed_remedies(refusal(recipe, gpus(8, 80)))[0]
    assert remedy.startswith("    training.sequence_parallel=4  ")
    assert "sequence_parallel" not in refusal(recipe, gpus(7, 80))  # 7 does not divide 40 heads


def test_without_gpus_all_ranks_share_the_memory_of_the_machine() -> None:
    local = ClusterProfile(scheduler=Scheduler.local, train=Resources(tasks_per_node=2))
    setup = needs.setup_of(recipe_of(QWEN3_1_7B, max_length=512), local)
    assert setup is not None
    assert setup.memory.rank == pytest.approx(memory_of(recipe_of(QWEN3_1_7B, max_length=512), local).rank)
    assert replace(setup, here_gib=2 * setup.memory.rank / 0.94).fits()
    assert not replace(setup, here_gib=2 * setup.memory.rank / 0.96).fits()
    per_node = replace(setup, resources=Resources(nodes=9, memory_gb=2 * setup.memory.rank / 0.94))
    assert per_node.fits()
    assert "no GPU" in refusal(recipe_of(QWEN3_14B), local)


def test_what_is_printed_before_a_run() -> None:
    memory = needs.summary(recipe_of(QWEN3_14B, arithmetic=Arithmetic.official), gpus(8, 141)) or ""
    assert memory.startswith("memory: about 87 GiB of 141 GB on each GPU (estimate: states 17 GiB, activations 31 GiB")
    assert memory.endswith("696 GiB on all 8")
    unknown = Recipe("run", ModelSection(name="x", hub_id="a/b"), DataSection(), TrainingSection())
    assert needs.summary(unknown, gpus(8, 141)) is None
    needs.check_fits(unknown, gpus(8, 141), "mine")


@pytest.mark.parametrize(
    ("settings", "per_node", "nodes", "expected"),
    [
        ({}, 8, 1, None),
        ({}, 8, 40, "enough for at most 256 ranks"),
        ({}, 5, 1, None),  # standard arithmetic balances any number of ranks
        ({"sequence_parallel": 4}, 8, 100, None),
        ({"sequence_parallel": 4}, 8, 200, "enough for at most 1024 ranks"),
        ({"sequence_parallel": 4}, 6, 2, "must divide the ranks of a node; valid: 1, 2, 3, 6"),
        ({"arithmetic": Arithmetic.official}, 8, 1, None),
        ({"arithmetic": Arithmetic.official}, 8, 2, None),
        ({"arithmetic": Arithmetic.official}, 8, 32, None),  # each micro-batch of 4 rows shared by 4 groups
        ({"arithmetic": Arithmetic.official}, 8, 3, "valid numbers of ranks: 1, 2, 4, 8, 16, 32, 64, 128, 256;"),
        ({"arithmetic": Arithmetic.official}, 8, 64, "64 micro-batches"),
        ({"arithmetic": Arithmetic.official, "micro_batch_size": 2, "global_batch_size": 48}, 8, 1, None),
        ({"arithmetic": Arithmetic.official, "micro_batch_size": 2, "global_batch_size": 48}, 4, 4, ", 12, 24, 48;"),
        (
            {"arithmetic": Arithmetic.official, "sequence_parallel": 2},
            8,
            3,
            "ranks: 2, 4, 8, 16, 32, 64, 128, 256, 512",
        ),
    ],
)
def test_ranks_that_can_share_the_batch(
    settings: dict[str, Any], per_node: int, nodes: int, expected: str | None
) -> None:
    recipe, profile = recipe_of(QWEN3_14B, **settings), gpus(per_node, 80, nodes)
    if expected is None:
        needs.check_shares(recipe, profile, "mine")
        return
    with pytest.raises(UserError, match=re.escape(expected)):
        needs.check_shares(recipe, profile, "mine")


def test_fewer_rows_in_a_pass_where_groups_share_a_micro_batch() -> None:
    recipe = recipe_of(QWEN3_14B, arithmetic=Arithmetic.official)
    assert [memory_of(recipe, gpus(8, 141, nodes)).tokens for nodes in (1, 8, 16, 32)] == [80000, 80000, 40000, 20000]


def test_sizes_of_models_come_from_files_without_torch(tmp_path: Path) -> None:
    folder = ModelSection(name="x", path=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_14B))
    size = model_size(folder)
    assert size is not None and size.parameters == PARAMETERS_14B and size.architecture is not None
    for text in ("[]", '{"model_type": "other"}', '{"text_config": 5}', json.dumps({**QWEN3_14B, "head_dim": -1})):
        (tmp_path / "config.json").write_text(text)
        assert model_size(folder) is None
    header = json.dumps({"__metadata__": {}, "a": {"shape": [3, 5]}, "b": {"shape": [7]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    size = model_size(folder)
    assert size is not None and size.parameters == 22 and size.architecture is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        model_size(folder)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        model_size(folder)


# One update of 100,352 parameters; prints bytes per parameter of every storage that ZeRO-3 keeps between updates.
STATES_OF_DEEPSPEED = """
    import os, sys, torch
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[3])
    from reprokit.recipe.schema import Arithmetic, Precision, TrainingSection
    from reprokit.training import engine
    engine.initialise_distributed(0, 1)
    import deepspeed
    training = TrainingSection(
        learning_rate=1e-3, arithmetic=Arithmetic[sys.argv[1]], precision=Precision[sys.argv[2]],
        cpu_offload=sys.argv[4] == "True",
    )
    config = engine.deepspeed_config(training, 1)
    dtype = getattr(torch, training.precision.dtype)
    with deepspeed.zero.Init(config_dict_or_path=config):
        model = torch.nn.Linear(512, 196, bias=False)
    built, *_ = deepspeed.initialize(model=model, optimizer=engine.optimizer(model, training), config=config)
    built.backward(built(torch.ones(4, 512, dtype=dtype)).float().sum())
    built.step()
    zero = built.optimizer
    kept = [*zero.fp16_partitioned_groups_flat, *zero.fp32_partitioned_groups_flat, zero.grad_partitions_flat_buffer]
    kept += [group.grad for group in zero.fp32_partitioned_groups_flat if group.grad is not None]
    kept += [state[name] for state in zero.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    print("bytes per parameter:", sum(storages.values()) / (512 * 196))
"""


@pytest.mark.parametrize(
    ("arithmetic", "precision", "offload", "expected"),
    [
        ("standard", "bf16", False, STATES[Arithmetic.standard]),
        ("official", "bf16", False, STATES[Arithmetic.official]),
        ("standard", "fp32", False, FP32_STATES),
        ("standard", "bf16", True, OFFLOADED_STATES + 2),
    ],
)
def test_bytes_per_parameter_are_those_that_deepspeed_keeps(
    arithmetic: str, precision: str, offload: bool, expected: int, unused_port: int
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(STATES_OF_DEEPSPEED), arithmetic, precision]
    done = subprocess.run([*command, str(unused_port), str(offload)], capture_output=True, text=True, timeout=300)
    found = re.search(r"bytes per parameter: (\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) == expected


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(("kind", "most"), [("qwen3", 1.06), ("llama", 1.25)])
def test_activations_are_those_that_a_layer_keeps(kind: str, most: float) -> None:
    """Without checkpointing. The estimate has norms of queries and keys, which the Llama kind has not."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 1}
    sizes |= {"head_dim": 128, "intermediate_size": 1740, "vocab_size": 64}
    config = AutoConfig.for_model(kind, **sizes, attn_implementation="sdpa")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    tokens = 256
    hidden = torch.randn(1, tokens, 512, dtype=torch.bfloat16, requires_grad=True)
    positions = torch.arange(tokens)[None]
    rotations = model.get_decoder().rotary_emb(hidden, positions)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.get_decoder().layers[0](hidden, position_embeddings=rotations, position_ids=positions)
    real = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in parameters)
    size = model_size(ModelSection(name="x", hub_id="a/b", shape=sizes))
    assert size is not None
    training = TrainingSection(gradient_checkpointing=False)
    estimated = estimate(size, training, Resources(), True, tokens).activations * GIB
    print(f"{kind}: {real / tokens:,.0f} bytes per token and layer, estimated {estimated / tokens:,.0f}")
    assert real <= estimated <= most * real


def test_fp32_takes_twice_the_activations() -> None:
    half, full = (memory_of(recipe_of(QWEN3_1_7B, precision=precision), gpus(8, 80)) for precision in Precision)
    assert full.activations == 2 * half.activations and full.states == pytest.approx(half.states * 20 / 18)
