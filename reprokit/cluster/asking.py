"""Commands of the system, asked with a time limit and never waited for longer."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    """What a command said. `code`: its exit code, None if it is not there or did not end in time."""

    code: int | None
    text: str = ""
    complaint: str = ""

    @property
    def well(self) -> bool:
        return self.code == 0


def ask(
    *command: str, text: str | None = None, seconds: float = SECONDS, environment: Mapping[str, str] | None = None
) -> Answer:
    """Run a command to its end, `text` being its input; what goes wrong is part of the answer.

    `environment`: all of its variables; default: those of this process.
    """
    try:
        done = subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            timeout=seconds,
            env=environment,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Answer(None, complaint=f"{command[0]} gave no answer within {seconds:.0f} s")
    except OSError as error:
        return Answer(None, complaint=f"{command[0]} cannot be run: {error.strerror}")
    return Answer(done.returncode, done.stdout, done.stderr.strip())


def last_line(text: str) -> str:
    """The last line that says something; a line of stars does not."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip(" *")), "")
