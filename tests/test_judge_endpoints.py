"""A judge behind a real HTTP server that fails at times, and replies whose judge is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reprokit import benchmarks
from reprokit.errors import UserError
from reprokit.evaluation.judges import endpoint, sources, stage
from reprokit.evaluation.judges.replies import Replies, describe, question_digest
from reprokit.preparation import judges as preparation
from reprokit.recipe.schema import Recipe
from reprokit.records.run_directory import RunDirectory
from tests.test_judges import DISTINCT, HEX_BENCHMARK, Share, lines, make_run, recipe_of, reward_run, standin


@pytest.fixture(autouse=True)
def _standins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "get", standin)


@dataclass
class Server:
    """An OpenAI-compatible server; `script` gives status and error code of the next requests, then it answers.

    After `limit` requests it answers none until `limit` is lifted and `opened` set.
    """

    url: str
    script: list[tuple[int, str | None]]
    asked: list[dict[str, Any]]
    keys: set[str]
    limit: int | None = None
    opened: threading.Event = field(default_factory=threading.Event)
    arrived: int = 0


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server("", [], [], set())
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                state.arrived += 1
                late = state.limit is not None and state.arrived > state.limit
            if late:
                state.opened.wait(120)
                return
            with lock:
                status, code = state.script.pop(0) if state.script else (200, None)
                state.keys.add(self.headers["authorization"])
                if status == 200:
                    state.asked.append(body)
            message = {"role": "assistant", "content": f"#thescore: {len(body['messages'][0]['content'])}"}
            good = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            bad = {"error": {"message": "no, sk-secr**et", "code": code, "type": "t", "param": None}}
            content = json.dumps(good | {"choices": [choice]} if status == 200 else bad).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.send_header("content-type", "application/json")
            self.send_header("retry-after-ms", "5")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    threading.Thread(target=served.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{served.server_address[1]}/v1"
    yield state
    served.shutdown()
    served.server_close()


def endpoint_run(root: Path, url: str) -> tuple[RunDirectory, Recipe]:
    run = make_run(root, HEX_BENCHMARK)
    section = {"endpoint": url, "model": "gpt-4.1", "api_key_variable": "JUDGE_KEY"}
    recipe = recipe_of({"harm": section}, HEX_BENCHMARK)
    preparation.prepare_judges(run, recipe)
    return run, recipe


def test_an_endpoint_is_tried_again_and_asked_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    run, recipe = endpoint_run(tmp_path / "run", server.url)
    server.script += [(429, None), (500, None), (503, None), (429, None), (400, "content_filter")]
    stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    replies = Replies(run, recipe, "harm")
    assert len(replies) == DISTINCT and Counter(replies.values())[""] == 1  # the refused one: counted, not dropped
    assert len(server.asked) == DISTINCT - 1
    for question in stage.gather(run, recipe)["harm"].values():
        text = question.before + question.body + question.after
        assert replies[question_digest(question)] in ("", f"#thescore: {len(text)}")
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.asked} == {("gpt-4.1", 0, 4096)}
    assert {tuple(turn["role"] for turn in body["messages"]) for body in server.asked} == {("user",)}
    stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    assert len(server.asked) == DISTINCT - 1
    assert describe(run, recipe, "harm")["name"] == "gpt-4.1 at 127.0.0.1"
    written = b"".join(path.read_bytes() for path in run.root.rglob("*") if path.is_file())
    assert server.keys == {"Bearer sk-secret"} and b"sk-secret" not in written


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([(401, "invalid_api_key")], "refuses the key .401.. Check the environment variable JUDGE_KEY"),
        ([(404, "model_not_found")], "has no model 'gpt-4.1'"),
        ([(400, "unsupported_parameter")], "does not answer as it should: Error code: 400"),
        ([(429, "insufficient_quota")] * 6, "no more requests at present"),
    ],
)
def test_an_endpoint_that_refuses_loses_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: list[tuple[int, str | None]], said: str
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    monkeypatch.setattr(endpoint, "THREADS", 1)
    run, recipe = endpoint_run(tmp_path / "run", server.url)
    server.script += [(200, None)] * 3 + script
    with pytest.raises(UserError, match=said) as raised:
        stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    assert "launch again" in str(raised.value)
    assert "401" not in said or "sk-secr" not in str(raised.value)  # which the server's message has a part of
    assert 3 <= len(lines(run)) < DISTINCT
    stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    assert len(lines(run)) == len(server.asked) == DISTINCT


def test_replies_that_nobody_takes_any_more_are_not_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was told to leave has seconds, and a reply may take minutes."""
    monkeypatch.setenv("JUDGE_KEY", "secret")
    run, recipe = endpoint_run(tmp_path, server.url)
    server.limit = 1
    with stage.load(run, recipe, "harm") as judge:
        replies = judge.answer(list(stage.gather(run, recipe)["harm"].values()))
        next(replies)
        replies.close()  # type: ignore[attr-defined]
    assert server.arrived <= 1 + endpoint.THREADS, "none was tried again"
    server.limit = None
    server.opened.set()


def test_an_endpoint_without_key_or_way_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    run, recipe = endpoint_run(tmp_path / "run", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(UserError, match="the environment variable JUDGE_KEY .* is not set"):
        stage.judge(run, recipe, Share(0, 1), run.progress("judge"))
    monkeypatch.setenv("JUDGE_KEY", "x")
    monkeypatch.setattr(endpoint, "RETRIES", 1)
    with pytest.raises(UserError, match="cannot be reached"):
        stage.judge(run, recipe, Share(0, 1), run.progress("judge"))


KILLED = """
import sys
from pathlib import Path
from tests.test_judge_endpoints import *
benchmarks.get = standin
run = RunDirectory(Path(sys.argv[1]))
section = {"endpoint": sys.argv[2], "model": "gpt-4.1", "api_key_variable": "JUDGE_KEY"}
stage.judge(run, recipe_of({"harm": section}, HEX_BENCHMARK), Share(0, 1), run.progress("judge"))
"""


def test_a_killed_process_asks_an_endpoint_only_for_the_rest(server: Server, tmp_path: Path) -> None:
    run, recipe = endpoint_run(tmp_path / "run", server.url)
    server.limit = 4
    command = [sys.executable, "-c", KILLED, str(run.root), server.url]
    environment = {**os.environ, "JUDGE_KEY": "x"}
    worker = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 300
    while len(lines(run)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert len(lines(run)) == len(server.asked) == 4
    server.limit = None
    server.opened.set()
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert len(server.asked) == DISTINCT
    assert len({line.question for line in lines(run)}) == len(lines(run)) == DISTINCT


def test_replies_count_where_the_model_of_the_judge_is_gone(tmp_path: Path) -> None:
    run, recipe = reward_run(tmp_path / "run")
    assert sources.is_prepared(run, recipe)
    shutil.rmtree(run.judge("RB2") / "model")
    assert sources.is_as_asked(run, recipe, "RB2") and not sources.is_prepared(run, recipe)
