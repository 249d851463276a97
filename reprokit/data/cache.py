"""Token arrays made once for all runs that need the same ones.

<cache>/<key>/ holds what `tokens.build` writes, <cache>/<key>.lock keeps two launches from making it at once. The key
is a digest of everything that decides the arrays: rows, tokenizer, chat template, length. An entry may be removed at
any time: runs have hard links of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from transformers import PreTrainedTokenizerBase

from reprokit.data import tokens
from reprokit.data.rows import Row

FORMAT = 1  # raise it when the same inputs give other arrays or another report

# Of a tokenizer's folder: what decides no ids, or is in the key by itself.
_NOT_IDS = {"config.json", "tokenizer_config.json", "chat_template.jinja"}


class Inputs(msgspec.Struct, kw_only=True):
    """What decides token arrays: digests (sha256) of rows and tokenizer, the template as text, the length in tokens."""

    data: str
    tokenizer: str
    chat_template: str
    max_length: int

    @property
    def key(self) -> str:
        """Name of the cache entry: a sha256."""
        parts = [FORMAT, self.data, self.tokenizer, self.chat_template, self.max_length]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of what decides the ids of a tokenizer: the files that it saves, its special tokens, its class."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    digest = hashlib.sha256(json.dumps([type(tokenizer).__name__, special], sort_keys=True).encode())
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            if path.name not in _NOT_IDS:
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def digest_of_rows(rows: Iterable[Row]) -> str:
    """Digest of rows that are in no file."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(msgspec.json.encode(row) + b"\n")
    return digest.hexdigest()


def provide(cache: Path, key: str, folder: Path, build: Callable[[Path], object]) -> bool:
    """Put the arrays of `key` into `folder`, making them with `build(entry)` unless `cache` has them undamaged.

    `folder` appears only when complete and replaces an older one. Its files are hard links of those in the cache, or
    copies where the file system has none. Another process that needs the same arrays waits.

    Returns:
        Whether they were in the cache.
    """
    cache.mkdir(parents=True, exist_ok=True)
    entry = cache / key
    with _locked(cache / f"{key}.lock"):
        for left_over in cache.glob(f".{key}.*"):  # of a build that was killed: we hold the lock
            shutil.rmtree(left_over, ignore_errors=True)
        found = tokens.is_intact(entry)
        if not found:
            build(entry)
        _link(entry, folder)
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; the lock goes with the process, however that ends."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _link(entry: Path, folder: Path) -> None:
    with tokens.replacing(folder) as new:
        for name in (*tokens.ARRAYS, "report.json"):
            try:
                os.link(entry / name, new / name)
            except OSError:
                shutil.copyfile(entry / name, new / name)
