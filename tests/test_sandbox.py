"""The sandbox: whatever a program does, it is contained, nothing of it survives, and the next program runs.

What is expected of each kind of isolation is written out, so that it is plain what `rlimits` does not do.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprokit.errors import UserError
from reprokit.sandbox import Isolation, Limits, Program, Sandbox, isolation, running
from reprokit.sandbox.calls import refusals
from reprokit.sandbox.commands import Way, runtime, ways
from reprokit.sandbox.processes import descendants, nameless_files

ROOT = Path(__file__).parents[1]
SEPARATE = (Isolation.bubblewrap, Isolation.namespaces)
LIMITS = {"memory": 512 << 20, "processes": 16, "file_bytes": 8 << 20, "cpu_seconds": 20}
SECONDS = 2.0
MARK = "_serve_in_children"  # in the command line of everything that runs inside


@functools.cache
def way(kind: Isolation) -> Way | None:
    return next((way for way in ways(kind) if running.works(way)), None)


def usable(kind: Isolation) -> Way:
    found = way(kind)
    return found if found is not None else pytest.skip(f"{kind.value} does not work on this machine for this user")


def survivors() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if MARK in path.read_text(errors="replace") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_survives() -> Iterator[None]:
    before = set(survivors())
    yield
    assert not set(survivors()) - before


# Name -> program, how it may end in a process of its own, and how in the shared one (all tests in one process).
HOSTILE = {
    "fork bomb": ("import os\nwhile True:\n try: os.fork()\n except OSError: pass", "time processes memory", "failed"),
    "10 GB": ("x = bytearray(10 << 30)", "failed", "failed"),
    "memory of many": (
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0: break\nx = bytearray(200 << 20)\ntime.sleep(9)",
        "memory",
        "failed",
    ),
    "endless loop": ("while True: pass", "time", "time"),
    "sleep": ("import time\ntime.sleep(99)", "time", "time"),
    "endless output": ("while True: print('x' * 100000)", "failed time", "failed memory time"),
    "huge file": ("with open('f', 'wb') as f:\n    for _ in range(99): f.write(bytes(1 << 20))", "failed", "failed"),
    "kills its parent": (
        "import os\nos.kill(os.getppid(), 9)\nimport time\ntime.sleep(9)",
        "gone time done failed",
        "failed",
    ),
    "endless recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "failed memory",
        "failed memory gone time",
    ),
    "end of the stack": ("x = []\nfor _ in range(10**6): x = [x]\nstr(x)", "failed", "failed gone"),
    "null pointer": ("import ctypes\nctypes.string_at(0)", "failed", "gone"),
    "closes everything": ("import os\nos.closerange(0, 256)", "done failed", "gone"),
    "child in background": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    time.sleep(99)",
        "done",
        "failed",
    ),
}


def run(kind: Isolation, code: str, given: str = "", shared: bool = False) -> running.Outcome:
    """The outcome of a program; the next one is checked to run."""
    with Sandbox(Program(code, shared=shared), Limits(**LIMITS), usable(kind)) as sandbox:
        outcome = sandbox.run(given, SECONDS)
    with Sandbox(Program("print(int(input()) + 1)", shared=shared), Limits(**LIMITS), usable(kind)) as sandbox:
        assert sandbox.run("41", 20).output == "42\n"
    return outcome


@pytest.mark.parametrize("shared", [False, True], ids=["own process", "shared process"])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", Isolation, ids=str)
def test_a_hostile_program_is_contained(kind: Isolation, name: str, shared: bool) -> None:
    code, endings, shared_endings = HOSTILE[name]
    start = time.monotonic()
    outcome = run(kind, code, shared=shared)
    assert outcome.ending in (shared_endings if shared else endings).split()
    assert time.monotonic() - start < SECONDS + 15


@pytest.mark.parametrize("kind", SEPARATE, ids=str)
def test_killing_everybody_reaches_nobody_outside(kind: Isolation) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        assert run(kind, "import os\nos.kill(-1, 9)\nimport time\ntime.sleep(9)").ending in ("gone", "failed")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


CURIOUS = """
import json, os, socket
given = json.loads(input())
seen = []
for path in given["secrets"]:
    try: seen.append(open(path).read())
    except OSError: pass
for folder in given["folders"]:
    try:
        open(os.path.join(folder, "made_by_a_program"), "w").close()
        seen.append("written " + folder)
    except OSError: pass
try:
    socket.create_connection(("127.0.0.1", given["port"]), 1).close()
    seen.append("connected")
except OSError: pass
print(json.dumps(seen))
"""


def test_files_and_network_are_out_of_reach(tmp_path: Path) -> None:
    secrets = [Path.home() / f".secret_{os.getpid()}", Path("/tmp") / f"secret_{os.getpid()}"]
    folders = [
        str(Path.home()),
        str(ROOT),
        str(tmp_path),
        "/etc",
        "/usr/lib",
        "/dev",
        "/",
        str(Path(sys.prefix) / "lib"),
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = {"secrets": [*map(str, secrets), str(ROOT / "setup.cfg"), "/etc/passwd"], "folders": folders}
        given["port"] = server.getsockname()[1]  # type: ignore[assignment]
        try:
            for secret in secrets:
                secret.write_text("secret")
            for kind in SEPARATE:
                if way(kind) is not None:
                    assert run(kind, CURIOUS, json.dumps(given)).output == "[]\n"
        finally:
            for secret in secrets:
                secret.unlink()
    assert not [folder for folder in folders if (Path(folder) / "made_by_a_program").exists()]
    if not any(way(kind) for kind in SEPARATE):
        pytest.skip("neither bubblewrap nor namespaces work on this machine")


@pytest.mark.parametrize("kind", SEPARATE, ids=str)
def test_the_work_folder_is_small_and_private(kind: Isolation) -> None:
    code = """
import os
print(sorted(os.listdir("/")), os.listdir("."), len([n for n in os.listdir("/proc") if n.isdigit()]) < 5)
written = 0
try:
    for n in range(9):
        with open(str(n), "wb") as file: written += file.write(bytes(4 << 20))
except OSError as error: print(error.strerror, written >> 20)
"""
    first, second = run(kind, code).output.splitlines()
    seen = sorted({Path(path).parts[2] for path in runtime() if path.startswith("/tmp/")})  # of an environment there
    assert first.endswith(f"{seen} True") and not {"home", "mnt", "srv", "sys", "var"} & set(first.split("'"))
    assert second == "No space left on device 8"
    assert not Path("/tmp/0").exists()


UNPRIVILEGED = """
import json, sys, warnings
from reprokit.sandbox import Isolation, Limits, Program, Sandbox, isolation, running
from reprokit.sandbox.commands import ways
kind, programs, limits, seconds = json.load(sys.stdin)
way = next((way for way in ways(Isolation(kind)) if running.works(way)), None)
found = {}
for name, (code, given) in programs.items() if way else ():
    with Sandbox(Program(code), Limits(**limits), way) as sandbox:
        outcome = sandbox.run(given, seconds)
        found[name] = [outcome.ending, outcome.output]
    with Sandbox(Program("print(input() * 2)"), Limits(**limits), way) as sandbox:
        found[name].append(sandbox.run("ab", 20).output)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    running.ways = lambda kind, all=ways: all(kind) if kind is Isolation.rlimits else []
    names = [isolation(), isolation()]
print(json.dumps([way and way.counted, found, names, [str(warning.message) for warning in caught]]))
"""


@pytest.mark.parametrize("kind", Isolation, ids=str)
def test_an_unprivileged_user_is_served_as_well(kind: Isolation) -> None:
    """With Debian's Python, because that of the tests may lie in the home folder of root."""
    if os.getuid() or shutil.which("setpriv") is None or not Path("/usr/bin/python3").exists():
        pytest.skip("takes root, setpriv and a Python that everybody can start")
    if kind is Isolation.bubblewrap and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    programs = {name: (code, "") for name, (code, _, _) in HOSTILE.items()}
    server = socket.create_server(("127.0.0.1", 0))
    given = {"secrets": ["/etc/hostname"], "folders": ["/etc"], "port": server.getsockname()[1]}
    programs["curious"] = CURIOUS, json.dumps(given)
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    asked = subprocess.run(
        [*user, "env", f"PYTHONPATH={ROOT}", "/usr/bin/python3", "-B", "-c", UNPRIVILEGED],
        input=json.dumps([kind.value, programs, LIMITS, SECONDS]), capture_output=True, text=True, cwd="/", timeout=300,
    )  # fmt: skip
    server.close()
    assert asked.returncode == 0, asked.stderr
    counted, found, names, warned = json.loads(asked.stdout)
    if counted is None:
        pytest.skip(f"{kind.value} does not work here for an unprivileged user")
    assert counted is (kind is not Isolation.rlimits)
    seen = json.loads(found.pop("curious")[1])
    assert seen == ([Path("/etc/hostname").read_text(), "connected"] if kind is Isolation.rlimits else [])
    for name, (ending, _, after) in found.items():
        assert ending in HOSTILE[name][1].split(), name
        assert after == "abab\n", name
    assert names == ["rlimits", "rlimits"]
    assert len(warned) == 1 and "without isolation" in warned[0] and "reach the network" in warned[0]


def test_the_isolation_of_this_machine_is_reported() -> None:
    assert isolation() == next(kind.value for kind in Isolation if way(kind) is not None)


@pytest.mark.parametrize(
    ("code", "ending", "output"),
    [
        ("print(input()[::-1])", "done", "cba\n"),
        ("import sys; print(sys.stdin.buffer.read(), open(0).closed)", "done", "b'abc\\nd' False\n"),
        ("print(open('/dev/stdin').read())", "done", "abc\nd\n"),
        ("print(1)\nimport sys; sys.exit()", "done", "1\n"),
        ("print(1)\nimport sys; sys.exit(1)", "failed", ""),
        ("print(1, flush=True)\nimport os; os._exit(0)", "done", "1\n"),
        ("print(1)\nimport os; os._exit(0)", "done", ""),
        ("print(1)\n1 / 0", "failed", ""),
        ("print(1", "failed", ""),
        ("print(1)\nimport sys; sys.stdout.close()", "done", "1\n"),
        ("import os; os.write(1, b'1')", "done", "1"),
        ("import builtins; builtins.len = builtins.open = builtins.print = None", "done", ""),
        (
            "from threading import Thread, stack_size\nstack_size(2**26)\nThread(target=lambda: print(1)).start()",
            "done",
            "1\n",
        ),
        ("if __name__ == '__main__': print(1)", "done", "1\n"),
        ("from __future__ import annotations\nprint(1)", "done", "1\n"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1))", "done", "A(x=1)\n"),
        ("import numpy; print(numpy.arange(3).sum())", "done", "3\n"),
        ("import reprokit", "failed", ""),
        ("print('\\udc80')", "done", "?\n"),
        ("print('ä')", "done", "ä\n"),
    ],
)
def test_a_program_of_its_own_behaves_as_if_started_by_hand(code: str, ending: str, output: str) -> None:
    with Sandbox(Program(code)) as sandbox:
        for _ in range(2):
            outcome = sandbox.run("abc\nd", 10)
            assert (outcome.ending, outcome.output) == (ending, output)


def test_only_the_shared_process_remembers() -> None:
    code = "import builtins\nbuiltins.count = getattr(builtins, 'count', 0) + 1\nprint(builtins.count)"
    for shared, expected in ((True, ["1\n", "2\n"]), (False, ["1\n", "1\n"])):
        with Sandbox(Program(code, shared=shared)) as sandbox:
            assert [sandbox.run("", 10).output for _ in range(2)] == expected


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("def f(x): return [x, None, True, 1.5, {'a': 'b'}]", '[true, [3, null, true, 1.5, {"a": "b"}]]'),
        ("def f(x): return (x, [x])", "[false, [3, [3]]]"),
        ("def f(x): return {x: 1}", '[false, {"3": 1}]'),
        ("import numpy\ndef f(x): return numpy.int64(x)", "[true, 3]"),
        ("import numpy\ndef f(x): return numpy.arange(x)", "[false, [0, 1, 2]]"),
        ("class A:\n    def __eq__(self, other): return True\ndef f(x): return A()", None),
        ("def f(x):\n    x = []\n    x.append(x)\n    return x", None),
        ("class Solution:\n    def __init__(self): self.n = 1\n    def f(self, x): return x + self.n", "[true, 4]"),
        ("class Solution:\n    def other(self, x): return x", "[true, 3]"),
        ("class Solution:\n    def one(self, x): return x\n    def two(self, x): return x", None),
        ("def g(x): return 5", "[true, 5]"),
        ("f = 5\ndef g(x): return 5", "[true, 5]"),
        ("def f(x):\n    print('[true, 7]')\n    return 1", "[true, 1]"),
    ],
)
def test_values_of_functions(code: str, output: str | None) -> None:
    with Sandbox(Program(code, calls=("f", "Solution.f", "Solution.*", "g"))) as sandbox:
        outcome = sandbox.run([3], 10)
    assert (outcome.output if outcome.ending == "done" else None) == output


def test_programs_inputs_and_outputs_of_many_megabytes_arrive() -> None:
    text = "1234567890\n" * 2_000_000
    with Sandbox(Program("import sys; sys.stdout.write(sys.stdin.read())" + " " * (4 << 20))) as sandbox:
        assert sandbox.run(text, 20).output == text


def test_after_a_program_has_ended_it_stays_ended() -> None:
    before = set(descendants(os.getpid()))  # of other tests
    with Sandbox(Program("while True: pass")) as sandbox:
        assert sandbox.run("", 0.2).ending == "time"
        assert sandbox.run("", 0.2).ending == "gone"
        assert set(descendants(os.getpid())) <= before


NAMELESS = """
import os, time
files = [os.memfd_create("") for _ in range(10)]
for file in files:
    for _ in range(48): os.write(file, bytes(1 << 20))
time.sleep(9)
"""


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", Isolation, ids=str)
def test_files_without_a_name_are_memory(kind: Isolation, shared: bool) -> None:
    with Sandbox(Program(NAMELESS, shared=shared), Limits(memory=256 << 20), usable(kind)) as sandbox:
        assert sandbox.run("", 8).ending == "memory"


def test_files_without_a_name_that_processes_share_count_once() -> None:
    file = os.memfd_create("")
    before = nameless_files([os.getpid()])
    try:
        for _ in range(64):
            os.write(file, bytes(1 << 20))
        assert nameless_files([os.getpid()] * 2) - before == 64 << 20
    finally:
        os.close(file)


REFUSED = """
import ctypes, errno, os, threading
kernel, number = ctypes.CDLL(None, use_errno=True), __import__("json").loads(input())
def refused(call, *arguments):
    return kernel.syscall(number[call], *arguments) == -1 and ctypes.get_errno() == errno.ENOSYS
print(refused("shmget", 0, 4096, 0o1600), refused("unshare", 0x10000000), refused("clone", 0x10000011, 0, 0, 0, 0))
thread = threading.Thread(target=print, args=("threads and processes are not",))
thread.start()
thread.join()
os.waitpid(os.fork() or os._exit(0), 0)
"""
NUMBERS = {
    "x86_64": {"shmget": 29, "unshare": 272, "clone": 56},
    "aarch64": {"shmget": 194, "unshare": 97, "clone": 220},
}


@pytest.mark.parametrize("kind", Isolation, ids=str)
def test_shared_memory_without_a_process_and_new_namespaces_are_refused(kind: Isolation) -> None:
    if "seccomp" not in os.listdir("/proc/sys/kernel") or os.uname().machine not in NUMBERS:
        pytest.skip("this kernel cannot refuse system calls")
    outcome = run(kind, REFUSED, json.dumps(NUMBERS[os.uname().machine]))
    assert outcome.output == "True True True\nthreads and processes are not\n"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_refusals_are_those_of_the_machine(machine: str) -> None:
    lines = list(struct.iter_unpack("=HBBI", refusals(machine)))
    refuse = len(lines) - 1
    taken = {value for place, (code, yes, _, value) in enumerate(lines) if code == 0x15 and place + 1 + yes == refuse}
    assert {NUMBERS[machine]["shmget"], NUMBERS[machine]["unshare"]} < taken
    assert NUMBERS[machine]["clone"] not in taken
    assert all(place + 1 + max(yes, no) < len(lines) for place, (_, yes, no, _) in enumerate(lines[:-2]))
    assert refusals("other") == b""


def test_returned_values_that_would_take_gigabytes_to_read_are_not_taken() -> None:
    code = "def f(size): return 'x' * size"
    with Sandbox(Program(code, calls=("f",))) as sandbox:
        assert [sandbox.run([size << 20], 10).ending for size in (8, 20)] == ["done", "output"]


def test_a_reply_that_is_not_ours_is_a_failure() -> None:
    forged = (4).to_bytes(8, "big") + b"+\xff\xfe\xfd"
    code = f"""
import os, time
for descriptor in range(3, 32):
    try: os.write(descriptor, {forged!r})
    except OSError: pass
time.sleep(9)
"""
    with Sandbox(Program(code, shared=True)) as sandbox:
        assert sandbox.run("", 8).ending == "failed"


def test_library_folders_never_bring_the_home_or_the_project_folder_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, libraries = tmp_path / "users" / "me", tmp_path / "users" / "me" / "libraries"
    libraries.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    entries = ["/", str(home), str(home.parent), str(tmp_path / "link"), str(ROOT), str(ROOT.parent), "lib", ""]
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    usual = set(runtime.__wrapped__())
    for folder, added in ((Path("/"), {str(libraries)}), (libraries, set())):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LD_LIBRARY_PATH", ":".join([*entries, str(libraries)]))
        assert set(runtime.__wrapped__()) == usual | added


def test_a_sandbox_that_does_not_start_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "command", lambda way, limits, uid: ["sh", "-c", "echo no room >&2"])
    assert issubclass(running.SandboxError, UserError)
    with pytest.raises(running.SandboxError, match="does not start .*no room; install bubblewrap"):
        with Sandbox(Program("")):
            pass
