"""What fetching from the Hugging Face Hub has in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reprokit.errors import UserError


@contextmanager
def fetching(what: str, advice: str) -> Iterator[None]:
    """Around a download: whatever keeps it from being made is said in one way.

    Args:
        what: keys and values that name it, with its revision.
        advice: what to do about it.

    Raises:
        UserError: no such repository, revision or file, no permission, or no way to the hub.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(f"{what} could not be fetched: {error}\n{advice}") from error
