"""The words of a command line, `key=value`, and how a command ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reprokit.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

LOG_WIDTH = 140  # columns where the output is no terminal
PARTIAL = 3  # exit code: done, but something that was asked for is missing


def split(words: Sequence[str], usage: str) -> list[tuple[str, str]]:
    """Key and value of every word.

    Raises:
        UserError: a word without `=`; the message ends with `usage`.
        SystemExit: a word asks for help, which was printed.
    """
    pairs = []
    for word in words:
        if word in ("-h", "--help"):
            print(usage)
            raise SystemExit(0)
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is not of the form key=value.\n\n{usage}")
        pairs.append((key, value))
    return pairs


def options(words: Sequence[str], defaults: Mapping[str, str], usage: str, hint: str) -> dict[str, str]:
    """The value of every option: what the words say, else its default.

    Raises:
        UserError: a word that is no option or has no value; the message ends with `hint`.
    """
    found = dict(defaults)
    for key, value in split(words, usage):
        if key not in found or not value:
            raise UserError(f"{key}={value} is not understood{hint}")
        found[key] = value
    return found


def without_dashes(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The words, with `watch=true` for `--watch`, for those names that are `flags`."""
    return [f"{word[2:]}=true" if word.startswith("--") and word[2:] in flags else word for word in words]


def truth(key: str, value: str) -> bool:
    """`true` or `false`."""
    if value.lower() not in ("true", "false"):
        raise UserError(f"{key}={value}: valid are true and false")
    return value.lower() == "true"


def stages(value: str, valid: Sequence[str]) -> tuple[str, ...]:
    """`train,evaluate` -> those of the valid stages, in the order in which they run.

    Raises:
        UserError: one of them is unknown, or there is none.
    """
    given = [stage.strip() for stage in value.strip("[]").split(",") if stage.strip()]
    if not given or set(given) - set(valid):
        raise UserError(f"stages={value}: valid are {', '.join(valid)}, separated by commas")
    return tuple(stage for stage in valid if stage in given)


def interpreter() -> str:
    """The Python that runs, as it is typed in the current folder: for commands that are printed."""
    here = Path(sys.executable)
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


def terminal(width: int = LOG_WIDTH) -> Console:
    """Where a command prints: as wide as the terminal, or `width` columns where there is none."""
    from rich.console import Console  # which not every command needs

    return Console(width=None if sys.stdout.isatty() else width)


def run(command: Callable[[], int | None]) -> int:
    """Run a command; returns its exit code: its own (None: 0), 2 for what the person at the keyboard can put right.

    Being terminated is as being interrupted: what the command has started is ended.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}. What is finished is kept; put this right and give the same command.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, the same command does the rest", file=sys.stderr)
        return 130
