"""What Slurm's commands say about jobs, as read from them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reprokit.cluster import queue
from reprokit.cluster.queue import ended, node_names, queued, seconds_of
from reprokit.errors import UserError
from tests.fake_commands import commands, put_command, put_queue, queue_line

__all__ = ["commands"]


def test_jobs_are_read_whatever_their_names_and_comments_hold(commands: Path) -> None:
    put_queue(
        commands,
        [
            queue_line("7", "RUNNING", "a b|c%d.run", nodes="n[1-2],gpu007", elapsed="1-02:03:04", script="/x y/s.sh"),
            queue_line("8", "PENDING", reason="(Nodes required, e.g. n1)", limit="UNLIMITED", comment="two\nlines"),
            queue_line("9_3", "COMPLETING", elapsed="INVALID", nodes="n1"),
            queue_line("9_[4-9,12%2]", "PENDING", reason="JobArrayTaskLimit"),
            "CLUSTER: somewhere",
        ],
    )
    first, second, third, fourth = queued(None)
    assert (first.name, first.state, first.reason, first.script) == ("a b|c%d.run", "RUNNING", "None", "/x y/s.sh")
    assert (first.nodes, first.elapsed, first.limit) == (["n1", "n2", "gpu007"], 93784, 8 * 3600)
    assert (second.state, second.reason, second.limit) == ("PENDING", "(Nodes required, e.g. n1)", None)
    assert (second.comment, first.comment, second.elements, second.nodes) == ("two", "", None, [])
    assert (third.id, third.job_id, third.elements, third.elapsed) == ("9_3", "9", [3], 0)
    assert (fourth.job_id, fourth.elements) == ("9", [4, 5, 6, 7, 8, 9, 12])
    assert fourth.element_ids[-1] == "9_12" and first.element_ids == ["7"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("3:04", 184), ("0:00", 0), ("02:03:04", 7384), ("10-00:00:00", 864000), ("NOT_SET", None)]
)
def test_times(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[08-10,12]-ib,gpu1", ["n08-ib", "n09-ib", "n10-ib", "n12-ib", "gpu1"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
    ],
)
def test_lists_of_nodes(text: str, names: list[str]) -> None:
    assert node_names(text) == names


def test_views_of_the_person_do_not_change_what_is_read(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    put_command(commands, "squeue", f'env > {commands}/env; [ -z "$SQUEUE_STATES$SQUEUE_FORMAT" ]')
    assert queued("/dev/null") == []
    seen = (commands / "env").read_text().splitlines()
    assert "SLURM_CONF=/dev/null" in seen and "SLURM_BITSTR_LEN=0" in seen


def test_a_slurm_that_does_not_answer_is_said_to(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_command(commands, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match="Unable to contact slurm controller"):
        queued(None)
    assert ended(["7"], None) == {}
    monkeypatch.setattr(queue, "SECONDS", 0.2)
    put_command(commands, "squeue", "exec sleep 600")
    began = time.monotonic()
    with pytest.raises(UserError, match="gave no answer"):
        queued(None)
    assert time.monotonic() - began < 300  # it does not wait for the command


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no squeue"):
        queued(None)
    assert queued(str(tmp_path / "slurm.conf")) == []  # a cluster that is gone has no jobs
    assert ended(["7"], str(tmp_path / "slurm.conf")) == {}


def test_how_jobs_ended_is_known_without_accounting(commands: Path) -> None:
    put_queue(
        commands,
        [queue_line("12_2", "RUNNING"), queue_line("14", "PENDING")],
        [queue_line("12_0", "COMPLETED"), queue_line("12_1", "NODE_FAIL"), queue_line("13", "TIMEOUT")],
    )
    assert ended(["12", "14"], None) == {"12_0": "COMPLETED", "12_1": "NODE_FAIL"}
    assert ended(["12_1", "13", "99"], None) == {"12_1": "NODE_FAIL", "13": "TIMEOUT"}
    assert ended([], None) == {}


def test_accounting_knows_what_the_controller_has_forgotten(commands: Path) -> None:
    put_queue(commands, [queue_line("12_2", "RUNNING")], [queue_line("12_1", "COMPLETED")])
    put_command(
        commands,
        "sacct",
        'echo "12_0|CANCELLED by 1000"; echo "12_1|RUNNING"; echo "12_2|PREEMPTED"; echo "12_[4-9]|PENDING"',
    )
    assert ended(["12"], None) == {"12_0": "CANCELLED", "12_1": "COMPLETED"}
