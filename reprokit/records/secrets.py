"""Which environment variables hold secrets: such values are written nowhere, for run folders and results are shared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

# Words of names, as in HF_TOKEN, OPENAI_API_KEY, AWS_SECRET_ACCESS_KEY, PGPASSWORD and githubToken; `tokens` counts.
_WORDS = frozenset(
    "accesskey apikey auth authorization cookie credential credentials jwt key keys pass passphrase passwd password "
    "passwords pat pgpassword privatekey pwd secret secretkey secrets token".split()
)
_HARMLESS = frozenset(("HF_TOKEN_PATH", "OLDPWD", "PWD", "SSH_AUTH_SOCK"))  # paths


def is_secret(name: str) -> bool:
    """Whether the environment variable `name` holds a token, a key or a password, told from the words of its name."""
    if name.upper() in _HARMLESS:
        return False
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return bool(_WORDS.intersection(re.split(r"[^a-z]+", words)))


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables that may be written to a file: no secret by its name, no URL with a password."""
    return {name: value for name, value in variables.items() if not (is_secret(name) or has_credentials(value))}


def assigned_secrets(shell: str) -> list[str]:
    """Variables with secrets whose values a line of shell has in it; `X_TOKEN=$(cat file)` has none."""
    assigned = re.findall(r"\b([A-Za-z_]\w*)=[\"']?(?=[^\s\"'$`])", shell)
    return [name for name in assigned if is_secret(name)]


def has_credentials(url: str) -> bool:
    """Whether a text is a URL that has a user's name or password in it (`https://user:password@host`)."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return False
    return bool(parts.scheme) and "@" in parts.netloc
