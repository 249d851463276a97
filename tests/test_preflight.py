"""What is looked for before a training: every rank raises the same error, and it names the node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from reprokit.errors import NodeError, UserError
from reprokit.recipe.schema import Precision, Recipe, TrainingSection
from reprokit.records.files import write_json
from reprokit.records.manifest import Manifest
from reprokit.records.run_directory import RunDirectory
from reprokit.training import preflight

# One process imports; each case has three forked ranks on nodes of their own, all cases at once, for most of it is
# waiting. What a case does is executed in each of its ranks; `rank`, `run`, `options` may be changed there.
RANKS = """
import json, os, sys, threading, time, traceback
from pathlib import Path
import torch
from reprokit.errors import NodeError, UserError
from reprokit.records.run_directory import RunDirectory
from reprokit.training import meeting, preflight
root, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(1)
usual, nodes = torch.distributed, ("n1", "n2", "n3")
def one(name, code, rank, port):
    os.environ.update(RANK=str(rank), WORLD_SIZE="3", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        SLURMD_NODENAME=nodes[rank])
    run = RunDirectory(root / name)
    options = {"needed_bytes": 1000, "code": "abc", "hosts": nodes, "complaint": None, "joining": 60.0}
    space = {**globals(), "rank": rank, "run": run, "options": options}
    exec(code, space)
    store = meeting.join("gloo", nodes, options.pop("joining"))
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=3)
    exec(space.get("then", ""), space)
    preflight.check(space["run"], **options)
children = {}
for name, (port, code) in cases.items():
    (root / name).mkdir()
    for rank in range(3):
        child = os.fork()
        if child == 0:
            sys.stdout = open(root / name / f"said.{rank}", "w")
            said = ["nothing", "", None]
            try:
                one(name, code, rank, port)
            except (NodeError, UserError) as error:
                said = [type(error).__name__, str(error), getattr(error, "node", None)]
            except BaseException:
                said = ["another", traceback.format_exc(), None]
            sys.stdout.flush()
            print(json.dumps(said), file=open(root / name / f"error.{rank}", "w"), flush=True)
            os._exit(0)
        children[child] = name
while children:
    children.pop(os.wait()[0])
os._exit(0)
"""

CASES = {
    "healthy": "",
    "version": "if rank == 1: preflight.package_versions = lambda names: {'torch': '1.0'}\n"
    "else: preflight.package_versions = lambda names: {'torch': '2.0'}",
    "code": "if rank == 2: options['code'] = 'abd'",
    "wrong": "reduce = torch.distributed.all_reduce\n"
    "if rank == 1: torch.distributed.all_reduce = lambda tensor: (reduce(tensor), tensor[:1].add_(1))",
    "elsewhere": "preflight.SIGHT = 0.5\n"
    "if rank == 2: run = RunDirectory(root / 'elsewhere' / 'other'); run.root.mkdir()",
    "gone": "if rank == 2: run = RunDirectory(root / 'gone' / 'nothing')",
    "unseen": "preflight.SIGHT = 0.5\nusual_file = preflight._token_file\n"
    "if rank == 1: preflight._token_file = lambda run, token, rank: "
    "usual_file(run, token + 'x' if rank else token, rank)",
    "full": "options['needed_bytes'] = 10**18",
    "disk": "def full(*_): raise OSError(28, 'No space left on device')\nif rank == 0: Path.write_text = full",
    "read_only": "def denied(*_): raise OSError(30, 'Read-only file system')\n"
    "usual_look = preflight._look_and_write\n"
    "def look(*words): Path.write_text = denied; return usual_look(*words)\n"
    "if rank == 2: preflight._look_and_write = look",
    "absent": "preflight.ARRIVAL = 20.0\nif rank == 1: then = 'os._exit(0)'",
    "never_joins": "options['joining'] = 20.0\nif rank == 1: os._exit(0)",
    "no_first": "options['joining'] = 3.0\nif rank == 0: os._exit(0)",
    "first_dies": "if rank == 0: preflight.check_files = lambda *_: os._exit(0)",
    "hangs": "preflight.COLLECTIVES = 3.0\nif rank == 1: preflight.collectives = lambda device: time.sleep(1000)",
    "fails": "preflight.COLLECTIVES = 3.0\ndef fail(device): raise RuntimeError('NCCL error: unhandled system error')\n"
    "if rank == 2: preflight.collectives = fail",
    "slow": "preflight.PAYLOAD = {'cpu': 2**16}; preflight.FLOOR = {'cpu': 1e15}\n"
    "def late(move): return lambda tensor, *words: (time.sleep(0.5 * (len(tensor) > 1)), move(tensor, *words))\n"
    "if rank == 1: torch.distributed.send, torch.distributed.recv = map(late, (usual.send, usual.recv))",
    "cores_of_one": "if rank == 1: options['complaint'] = 'may use 1 of 8 cores'",
    "cores_of_all": "options['complaint'] = 'may use 1 of 8 cores'",
}


@dataclass
class Case:
    """What became of the three ranks: (name of the error, its text, its node), and what they printed."""

    errors: list[list[str | None]]
    printed: list[str]
    left: list[str]

    def verdict(self, *ranks: int) -> tuple[str | None, str, str | None]:
        """The error of `ranks` (default: all), which must be one and the same."""
        first, *others = [self.errors[rank] for rank in ranks or (0, 1, 2)]
        assert all(other == first for other in others), self.errors
        return first[0], str(first[1]), first[2]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root, first = tmp_path_factory.mktemp("cases"), 10000 + os.getpid() % 200 * 30
    asked = {name: (first + number, code) for number, (name, code) in enumerate(CASES.items())}
    command = [sys.executable, "-c", RANKS, str(root), json.dumps(asked)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    def text(name: str, kind: str, rank: int) -> str:
        path = root / name / f"{kind}.{rank}"
        return path.read_text() if path.exists() else ""

    return {
        name: Case(
            [json.loads(text(name, "error", rank) or "[null, null, null]") for rank in range(3)],
            [text(name, "said", rank) for rank in range(3)],
            [path.name for path in (root / name).rglob(f"{preflight.TOKEN}*")],
        )
        for name in CASES
    }


def test_a_healthy_job_says_so_in_one_line(cases: dict[str, Case]) -> None:
    assert cases["healthy"].verdict()[0] == "nothing"
    line, *others = cases["healthy"].printed
    assert line.startswith("preflight: 3 ranks on 3 nodes, all-reduce ") and line.count("\n") == 1
    assert others == ["", ""]


@pytest.mark.parametrize(
    ("name", "node", "said"),
    [
        ("version", "n2", "node n2, rank 1: has torch 1.0, the others 2.0"),
        ("code", "n3", "node n3, rank 2: has another copy of the code than the others"),
        ("wrong", "n2", "node n2, rank 1: wrong results of all-reduce"),
        ("elsewhere", "n3", "is not seen within 0 s: is that the same file system?"),
        ("gone", "n3", "node n3, rank 2: "),
        ("unseen", "n2", "node n2, rank 1: rank 0 does not see what it wrote"),
        ("read_only", "n3", "node n3, rank 2: cannot write: [Errno 30] Read-only file system"),
        ("fails", "n3", "node n3, rank 2: collectives: RuntimeError: NCCL error"),
        ("slow", "n2", "The slowest link is from rank "),
        ("cores_of_one", "n2", "node n2, rank 1: may use 1 of 8 cores"),
    ],
)
def test_a_node_at_fault_is_named_by_every_rank(cases: dict[str, Case], name: str, node: str, said: str) -> None:
    kind, text, at_fault = cases[name].verdict()
    assert (kind, at_fault) == ("NodeError", node) and said in text
    assert cases[name].left == []


def test_who_never_comes_is_named(cases: dict[str, Case]) -> None:
    for name in ("absent", "never_joins"):
        assert cases[name].verdict(0, 2) == ("NodeError", "nothing was heard of rank 1 (node n2) for 20 s", "n2")
    kind, text, node = cases["first_dies"].verdict(1, 2)
    assert (kind, node) == ("NodeError", "n1") and "rank 0, where the ranks meet, is gone" in text
    for kind, text, node in (cases["no_first"].verdict(rank) for rank in (1, 2)):
        assert (kind, node) == ("NodeError", "n1") and "rank 0 on n1 was not reached in 3 s" in text


def test_a_collective_that_hangs_ends(cases: dict[str, Case]) -> None:
    kind, text, node = cases["hangs"].verdict()
    assert (kind, node) == ("NodeError", None) and "did not end in 3 s" in text


def test_what_no_other_node_would_put_right_is_for_the_user(cases: dict[str, Case]) -> None:
    kind, text, _ = cases["full"].verdict()
    assert kind == "UserError" and "need 1,000,000,000.0 GB" in text and "fewer training.checkpoint_steps" in text
    kind, text, _ = cases["disk"].verdict()
    assert kind == "UserError" and "No space left on device" in text
    kind, text, _ = cases["cores_of_all"].verdict()
    assert kind == "UserError" and "node n3, rank 2: may use 1 of 8 cores" in text
    assert cases["full"].left == cases["disk"].left == []


def test_gpus_that_are_only_pretended_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "1")
    monkeypatch.setattr(preflight, "has_nvidia_hardware", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert preflight.gpu_faults() == []  # a torch for CPUs
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "sees none" in preflight.gpu_faults()[0]
    monkeypatch.setattr(preflight, "has_nvidia_hardware", lambda: False)
    assert preflight.gpu_faults() == []  # stand-ins for devices
    monkeypatch.setattr(preflight, "has_nvidia_hardware", lambda: True)
    for name in ("SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    assert preflight.gpu_faults() == []  # none was granted


def test_a_gpu_that_others_use_or_that_computes_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, gb = torch.ones, 10**9
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    monkeypatch.setattr(torch, "ones", lambda *size, device: usual(*size))
    for free, faults in ((79 * gb, []), (60 * gb, ["others hold 20.0 of the 80 GB of its GPU"])):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 80 * gb))
        assert preflight.gpu_faults() == faults
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (79 * gb, 80 * gb))
    monkeypatch.setattr(torch, "ones", lambda *size, device: usual(*size) * 2)
    assert "computes wrongly" in preflight.gpu_faults()[0]

    def broken() -> tuple[int, int]:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nmore")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert preflight.gpu_faults() == ["its GPU does not work: CUDA error: uncorrectable ECC error encountered"]


def test_ranks_without_a_gpu_of_their_own_are_found() -> None:
    def facts(*gpus: str) -> list[dict[str, object]]:
        return [
            {"node": f"n{rank // 2}", "gpu": gpu, "wrong": [], "complaint": None, "same": {}}
            for rank, gpu in enumerate(gpus)
        ]

    assert preflight.findings_of(facts("a", "b", "c", "d")) == []
    assert preflight.findings_of(facts("", "", "", "")) == []
    assert [(one.rank, one.text) for one in preflight.findings_of(facts("a", "b", "c", ""))] == [
        (3, "has no GPU, while others have")
    ]
    shared = preflight.findings_of(facts("a", "a", "c", "d"))
    assert [one.rank for one in shared] == [0, 1] and "ranks 0, 1 have the same GPU" in shared[0].text
    with pytest.raises(NodeError):
        preflight.conclude(shared, ["n0", "n0", "n1", "n1"])
    with pytest.raises(UserError, match="node n1, ranks 2, 3: ranks 2, 3 have"):
        preflight.conclude(preflight.findings_of(facts("a", "a", "c", "c")), ["n0", "n0", "n1", "n1"])


def test_of_two_nodes_none_is_blamed_for_the_network_between_them() -> None:
    between = preflight.slow(0.1e9, 0.2e9, [0.05e9, 90e9, 0.06e9, 90e9], ["n1", "n1", "n2", "n2"])
    assert between.node is None and "from rank 3 (node n2) to rank 0 (node n1): 0.05 GB/s" in str(between)
    assert preflight.slow(0.1e9, 0.2e9, [0.05e9, 90e9], ["n1", "n1"]).node == "n1"


def test_space_is_asked_for_what_is_still_to_be_saved(tmp_path: Path) -> None:
    """The same sizes as the planner's."""
    run, recipe = RunDirectory(tmp_path / "run"), Recipe()
    (tmp_path / "model").mkdir()
    save_file({"a": np.zeros((3, 5), np.float16), "b": np.zeros(85, np.float16)}, tmp_path / "model/x.safetensors")
    write_json(run.checkpoint(0) / "manifest.json", Manifest(step=0, weights=str(tmp_path / "model")))
    recipe.training = TrainingSection(checkpoint_steps=[10, 20, 40], precision=Precision.bf16)
    assert preflight.needed_bytes(run, recipe) == 100 * (3 * 2 + 3 * 12)
    write_json(run.state(20) / "manifest.json", Manifest(step=20))
    assert preflight.needed_bytes(run, recipe) == 100 * (1 * 2 + 2 * 12)
