"""Engines over several GPUs: who takes part in which, how many GPUs one needs, and that its answers do not change."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from reprokit.campaign import engines
from reprokit.campaign.memory import ModelSize, model_size
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.cluster.rendezvous import Task
from reprokit.errors import UserError
from reprokit.evaluation import parallel
from reprokit.recipe.architecture import from_config
from reprokit.recipe.schema import BenchmarkSection, EvaluationSection, ModelSection, Precision, Recipe, TrainingSection

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def places(nodes: int, on_node: int, gpus: int) -> list[parallel.Place | None]:
    """What every task of a job does, by rank."""
    hosts = [f"node{n}" for n in range(nodes)]
    tasks = [
        Task("7_1", "start", rank, nodes * on_node, rank % on_node, on_node, tuple(hosts))
        for rank in range(nodes * on_node)
    ]
    return [parallel.place(task, gpus, hosts, 20000) for task in tasks]


def shown(place: parallel.Place | None) -> str:
    """engine:devices, with the node of an engine that has several."""
    if place is None:
        return "-"
    devices = f"{place.engine}:{place.devices[0]}-{place.devices[-1]}"
    return devices if place.leader_host is None else f"{devices}@{place.leader_host}+{place.node}"


@pytest.mark.parametrize(
    ("nodes", "on_node", "gpus", "expected"),
    [
        (1, 1, 1, "0:0-0"),
        (2, 2, 1, "0:0-0 1:1-1 2:0-0 3:1-1"),
        (2, 2, 2, "0:0-1 - 1:0-1 -"),
        (1, 4, 2, "0:0-1 - 1:2-3 -"),
        (2, 2, 4, "0:0-1@node0+0 - 0:0-1@node0+1 -"),
        (4, 2, 4, "0:0-1@node0+0 - 0:0-1@node0+1 - 1:0-1@node2+0 - 1:0-1@node2+1 -"),
        (3, 1, 3, "0:0-0@node0+0 0:0-0@node0+1 0:0-0@node0+2"),
    ],
)
def test_placements(nodes: int, on_node: int, gpus: int, expected: str) -> None:
    assert " ".join(map(shown, places(nodes, on_node, gpus))) == expected


@pytest.mark.parametrize(("nodes", "on_node"), [(1, 8), (2, 8), (6, 4), (4, 1)])
def test_every_gpu_belongs_to_one_engine(nodes: int, on_node: int) -> None:
    sizes = parallel.valid_sizes(nodes, on_node)
    for gpus in sizes:
        found = [(rank, place) for rank, place in enumerate(places(nodes, on_node, gpus)) if place is not None]
        held = Counter((rank // on_node, device) for rank, place in found for device in place.devices)
        assert held == Counter((node, device) for node in range(nodes) for device in range(on_node))
        assert [place.engine for _, place in found if place.leads] == list(range(nodes * on_node // gpus))
        assert {place.tensor * place.pipeline for _, place in found} == {gpus}
        assert {place.engines for _, place in found} == {nodes * on_node // gpus}
        # Each engine meets at a port of its own, whatever the cluster's nodes are.
        assert len({(place.engine, place.port) for _, place in found if place.port}) == (
            nodes * on_node // gpus if gpus > on_node else 0
        )
    assert sizes == sorted({size for size in range(1, nodes * on_node + 1) if possible(nodes, on_node, size)})


def possible(nodes: int, on_node: int, size: int) -> bool:
    try:
        places(nodes, on_node, size)
    except UserError:
        return False
    return True


@pytest.mark.parametrize(("nodes", "on_node", "gpus"), [(1, 8, 0), (1, 8, 3), (1, 8, 16), (3, 8, 16), (2, 8, 12)])
def test_impossible_numbers_are_refused(nodes: int, on_node: int, gpus: int) -> None:
    with pytest.raises(
        UserError, match=rf"engines of {gpus} GPUs .* {nodes} nodes with {on_node} GPUs each; valid are 1"
    ):
        places(nodes, on_node, gpus)


def paper_recipe(shape: dict[str, Any] | None, **evaluation: Any) -> Recipe:
    """The paper's evaluation of a model of these sizes."""
    paper = yaml.safe_load((RECIPES / "evaluation" / "paper.yaml").read_text())["evaluation"]["benchmarks"]
    benchmarks = {name: BenchmarkSection(**own) for name, own in paper.items()}
    settings = {"benchmarks": benchmarks, **evaluation}
    return Recipe(
        name="run",
        model=ModelSection(name="Base", hub_id="a/b", shape=shape),
        evaluation=EvaluationSection(**settings),
    )


def gpus(per_node: int, memory_gb: float | None, nodes: int = 1) -> ClusterProfile:
    resources = Resources(nodes=nodes, tasks_per_node=per_node, gpus_per_node=per_node)
    return ClusterProfile(gpu_memory_gb=memory_gb, evaluate=resources)


def paper_shapes() -> dict[str, dict[str, Any]]:
    return {
        path.stem: yaml.safe_load(path.read_text())["model"]["shape"] for path in (RECIPES / "models").glob("*.yaml")
    }


# Like Llama 3 70B.
BIG = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
BIG |= {"head_dim": 128, "intermediate_size": 28672, "vocab_size": 128256, "tie_word_embeddings": False}
BIG |= {"max_position_embeddings": 131072}


def test_the_papers_models_have_an_engine_per_gpu() -> None:
    found = {
        (name, memory): engines.gpus_per_engine(paper_recipe(shape), gpus(8, memory))
        for name, shape in paper_shapes().items()
        for memory in (80, 141)
    }
    # 50 GiB of weights and, if all layers keep everything, 19 GiB for 40960 tokens; of the teacher 61 and 10 GiB.
    several = {key: size for key, size in found.items() if size > 1}
    assert several == {("gemma3_27b_pt", 80): 2, ("qwen3_32b", 80): 2}


def test_without_gpus_the_weights_must_fit_the_memory() -> None:
    recipe = paper_recipe(paper_shapes()["qwen3_14b_base"])
    node = Resources(tasks_per_node=2, memory_gb=64)
    assert engines.gpus_per_engine(recipe, ClusterProfile(evaluate=node)) == 1
    assert engines.gpus_per_engine(recipe, ClusterProfile(evaluate=replace(node, memory_gb=None))) == 1
    with pytest.raises(UserError, match="2 engines without a GPU need 28 GiB each .* there are 32 GiB"):
        engines.gpus_per_engine(recipe, ClusterProfile(evaluate=replace(node, memory_gb=32)))


@pytest.mark.parametrize(
    ("per_node", "memory", "nodes", "expected"),
    [
        (8, 80, 1, 4),
        (8, 141, 1, 2),
        (4, 80, 2, 4),
        (8, 40, 1, 8),
        (4, 40, 2, 8),
        (8, 24, 2, 16),
        (8, 24, 4, 16),
        (8, 24, 3, 24),  # engines are made of equal parts of the job
        (8, None, 1, 1),
    ],
)
def test_gpus_of_a_large_model(per_node: int, memory: float | None, nodes: int, expected: int) -> None:
    size = engines.gpus_per_engine(paper_recipe(BIG), gpus(per_node, memory, nodes))
    assert size == expected
    assert size in parallel.valid_sizes(nodes, per_node)


def test_memory_by_hand() -> None:
    """A layer caches 2 x 8 heads x 128 values of 2 bytes for every token."""
    shape = from_config(BIG)
    assert shape is not None
    size = ModelSize(shape.parameters, shape)
    layer, head, cache = 855_638_016, 128256 * 8192, 40960 * 2 * 8 * 128 * 2
    whole = (2 * (80 * layer + 2 * head) + 80 * cache) / 2**30 + engines.RESERVE
    assert engines.gpu_gib(size, 1, 1, 40960, 2) == pytest.approx(whole)
    assert engines.gpu_gib(size, 4, 1, 40960, 2) - engines.RESERVE == pytest.approx((whole - engines.RESERVE) / 4)
    # A stage has 27 layers at most; more GPUs than key-value heads keep copies of them.
    stage = (2 * (27 * layer + head) / 16 + 27 * cache / 8) / 2**30 + engines.RESERVE
    assert engines.gpu_gib(size, 16, 3, 40960, 2) == pytest.approx(stage)


def test_fp32_takes_twice_the_gpus() -> None:
    recipe = paper_recipe(BIG)
    recipe.training = TrainingSection(precision=Precision.fp32)
    assert engines.gpus_per_engine(recipe, gpus(8, 80)) == 8


def test_heads_limit_what_a_node_can_share() -> None:
    """Qwen2.5-7B has 28 heads, which 7 GPUs could share, but not its 4 key-value heads; 8 share neither."""
    shape = paper_shapes()["qwen2_5_7b"]
    assert engines.gpus_per_engine(paper_recipe(shape), gpus(8, 12)) == 4
    for node in (7, 8):
        with pytest.raises(UserError, match=f"shared among 1, 2, 4 GPUs of a node, not among {node}"):
            engines.gpus_per_engine(paper_recipe(shape), gpus(node, 8))


def test_refusal_says_what_would_do() -> None:
    recipe = paper_recipe(BIG)
    with pytest.raises(UserError) as refused:
        engines.gpus_per_engine(recipe, gpus(8, 24))
    message = str(refused.value)
    assert "131.4 GiB for 70.6 billion parameters" in message
    assert "sequence of 40,960 tokens" in message
    assert "1 x 8 GPUs of 24 GB" in message
    assert "evaluate.nodes: 2 or a multiple" in message
    assert engines.gpus_per_engine(recipe, gpus(8, 24, nodes=2)) == 16
    assert engines.gpus_per_engine(recipe, gpus(8, 24, nodes=6)) == 16
    local = gpus(8, 24)
    local.scheduler = Scheduler.local
    with pytest.raises(UserError) as refused:
        engines.gpus_per_engine(recipe, local)
    assert "evaluate.nodes" not in str(refused.value)


def test_a_model_of_unknown_size_gets_one_gpu() -> None:
    assert engines.gpus_per_engine(paper_recipe(None), gpus(8, 24)) == 1
    assert model_size(paper_recipe(None).model) is None


@pytest.mark.parametrize(
    ("shape", "settings", "expected"),
    [
        (BIG, {}, 32768 + engines.PROMPT_TOKENS),  # MATH500 limits the response only
        ({**BIG, "max_position_embeddings": 32768}, {}, 32768),
        (BIG, {"max_model_length": 16384}, 16384),
        (BIG, {"benchmarks": {"gpqa_diamond": BenchmarkSection()}}, 32768),
        (BIG, {"benchmarks": {"hex_phi": BenchmarkSection()}}, 16384),
        (BIG, {"benchmarks": {"math500": BenchmarkSection(max_tokens=100)}}, 100 + engines.PROMPT_TOKENS),
        (None, {"benchmarks": {"math500": BenchmarkSection(max_tokens=100)}}, 100 + engines.PROMPT_TOKENS),
    ],
)
def test_longest_sequence(shape: dict[str, Any] | None, settings: dict[str, Any], expected: int) -> None:
    assert engines.longest_sequence(paper_recipe(shape, **settings)) == expected


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> list[parallel.Place]:
    """Leader and follower of an engine over two nodes that are both this machine."""
    for name in ("VLLM_HOST_IP", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    free = parallel._free_port()
    tasks = [Task("7", "start", rank, 2, 0, 1, ()) for rank in range(2)]
    found = [parallel.place(task, 2, ["127.0.0.1"] * 2, free) for task in tasks]
    return [place for place in found if place is not None]


@pytest.mark.parametrize("says_stop", [True, False])
def test_followers_take_part_until_the_leader_is_gone(
    two_nodes: list[parallel.Place], monkeypatch: pytest.MonkeyPatch, says_stop: bool
) -> None:
    leader, follower = two_nodes
    served: list[dict[str, Any]] = []

    def serve(options: dict[str, Any], link: socket.socket) -> None:
        served.append(options)
        parallel.wait([link])

    monkeypatch.setattr(parallel, "_serve", serve)
    following = threading.Thread(target=parallel.follow, args=[follower, "127.0.0.1"], daemon=True)
    following.start()
    own = []
    with parallel.Followers(leader) as followers:
        for weights in ("step-2", "step-4"):
            own.append(followers.start({"model": weights, "max_model_len": None}))
            if says_stop:
                followers.stop()
        assert os.environ["VLLM_HOST_IP"] == "127.0.0.1"
        assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
        assert following.is_alive()
    following.join(60)
    assert not following.is_alive()
    assert served == [{**options, "node_rank": 1} for options in own]
    assert [options["model"] for options in own] == ["step-2", "step-4"]
    assert own[0]["nnodes"] == own[0]["pipeline_parallel_size"] == 2
    assert own[0]["node_rank"] == 0


def test_strangers_do_not_count_as_followers(two_nodes: list[parallel.Place], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MEETING_SECONDS", 1.0)
    leader, _ = two_nodes

    def call() -> None:
        time.sleep(0.3)
        socket.create_connection(("127.0.0.1", leader.port)).close()

    threading.Thread(target=call, daemon=True).start()
    with pytest.raises(UserError, match="0 of 1 other nodes came"):
        parallel.Followers(leader)


def test_workers_that_wait_for_a_dead_leader_are_killed() -> None:
    here, there = socket.socketpair()
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=[600], daemon=True)
    worker.start()
    with here, parallel._workers_killed_by(here):
        assert worker.is_alive()
        there.close()
        worker.join(60)
    assert worker.exitcode == -9


# One task of an engine over all tasks of its job, with the weights of both folders one after the other.
TASK = """
import json, os, sys
os.environ.update(CUDA_VISIBLE_DEVICES="", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1",
                  VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_LOGGING_LEVEL="ERROR",
                  VLLM_NO_USAGE_STATS="1", VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS="1")
from reprokit.cluster.rendezvous import Task
from reprokit.evaluation import parallel

def lead(place, folders):
    from vllm import LLM, SamplingParams
    prompts = [{"prompt_token_ids": [(7 + 13 * n + 31 * k) % 512 for k in range(5 + 4 * n)]} for n in range(3)]
    greedy = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    options = dict(model=folders[0], skip_tokenizer_init=True, dtype="float32", max_model_len=64, enforce_eager=True,
                   enable_chunked_prefill=False)
    with parallel.Followers(place) as followers:
        llm = LLM(**followers.start(options))
        if place.pipeline > 1:
            parallel.warm_up_stages(llm)
        for folder in folders:
            if folder != folders[0]:
                llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
                llm.reset_prefix_cache()
            print(json.dumps([list(o.outputs[0].token_ids) for o in llm.generate(prompts, greedy, use_tqdm=False)]))
        followers.stop()
        llm.llm_engine.engine_core.shutdown()

if __name__ == "__main__":
    rank, nodes, on_node, port = map(int, sys.argv[1:5])
    task = Task("7", "start", rank, nodes * on_node, rank % on_node, on_node, ())
    place = parallel.place(task, nodes * on_node, ["127.0.0.1"] * nodes, port)
    if place is not None and place.leads:
        lead(place, sys.argv[5:])
    elif place is not None:
        parallel.follow(place, "127.0.0.1")
"""


def answers(folder: Path, nodes: int, on_node: int) -> list[str]:
    """Greedy answers of an engine over so many tasks: with one checkpoint, then with another swapped in place."""
    script = folder / "task.py"
    script.write_text(TASK)
    port = str(parallel._free_port())
    tasks = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(nodes), str(on_node), port, folder / "1", folder / "2"],
            env={**os.environ, "PYTHONPATH": str(RECIPES.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(nodes * on_node)
    ]
    try:
        said = [task.communicate(timeout=600) for task in tasks]
    finally:
        for task in tasks:
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)
    assert [task.returncode for task in tasks] == [0] * len(tasks), "\n".join(errors for _, errors in said)
    return [line for line in said[0][0].splitlines() if line.startswith("[[")]


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=96,
        vocab_size=512,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.3,  # so that answers do not repeat one token
    )
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed in (1, 2):
        torch.manual_seed(seed)
        Qwen3ForCausalLM(config).save_pretrained(folder / str(seed))
    return folder


@pytest.fixture(scope="module")
def answers_of_one(two_checkpoints: Path) -> list[str]:
    first, swapped = answers(two_checkpoints, 1, 1)
    assert first != swapped
    assert len(set(json.loads(first)[0])) > 1
    return [first, swapped]


@pytest.mark.parametrize(("nodes", "on_node"), [(1, 2), (2, 1)])
def test_an_engine_over_two_tasks_answers_as_one(
    two_checkpoints: Path, answers_of_one: list[str], nodes: int, on_node: int
) -> None:
    """Tensor parallel in a node, pipeline parallel over two: the same tokens, also after a swap in place."""
    assert answers(two_checkpoints, nodes, on_node) == answers_of_one
