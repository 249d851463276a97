"""Runs programs that nobody has read: model-written code.

    with Sandbox(Program("print(int(input()) + 1)")) as sandbox:
        sandbox.run("41", seconds=6).output  # "42\\n"

Nothing that a program does gives it a verdict: what is expected stays outside, and outputs are compared there.
"""

from __future__ import annotations

from reprokit.sandbox.commands import Isolation, Limits
from reprokit.sandbox.running import Outcome, Program, Sandbox, SandboxError, isolation

__all__ = ["Isolation", "Limits", "Outcome", "Program", "Sandbox", "SandboxError", "isolation"]
