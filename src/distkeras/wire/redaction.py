"""Removes secrets from logs, events and errors: passwords and tokens in addresses."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6
"""Shortest password that is also searched for by itself: a shorter one may be a part of any word."""
_USER = re.compile(r"(?<=://)[^/\s'\"]+@")
_NAMES = r"[\w.-]*(?:secret|passw|token|credential|signature|key|\bsig)[\w.-]*"
_QUERY = re.compile(rf"(?<=[?&])({_NAMES}=)[^&\s'\"]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return `text` with "***" for the part before the @ of an address, and for keys in its query."""
    return _QUERY.sub(rf"\g<1>{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def secrets_in(address: str | None, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Return the secrets in an address, in the forms in which filesystems may repeat them.

    Args:
        address: the address; `None` for none.
        storage_options: arguments of its filesystem: every text in them counts as a secret.
    """
    found = list(_texts_in(storage_options))
    for user in _USER.findall(address or ""):
        password = user[:-1].partition(":")[2]
        found += [user, unquote(user)] + [
            each for each in (password, unquote(password)) if len(each) >= SHORTEST
        ]
    for assignment in _QUERY.finditer(address or ""):
        value = assignment[0].partition("=")[2]
        found += [each for each in (value, unquote(value)) if len(each) >= SHORTEST]
    return found


class Redaction:
    """Hides given secrets in texts, and everything that `without_secrets` finds.

    Args:
        secrets: the texts to hide.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted(set(secrets), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, f"{HIDDEN}@" if secret.endswith("@") else HIDDEN)
        return without_secrets(text)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _texts_in(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _texts_in(part)
    elif isinstance(value, str) and len(value) >= SHORTEST:
        yield value


@contextlib.contextmanager
def hidden_in_errors(address: str | None, storage_options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Hide the secrets of `address` in errors of a `with` block: a filesystem's message may repeat them.

    Raises:
        OSError: in place of an error that repeats a secret, with its type and its message without the secret.
    """
    hide = Redaction(secrets_in(address, storage_options))
    try:
        yield
    except Exception as error:
        if hide(str(error)) == str(error):
            raise
        raise OSError(f"{type(error).__name__}: {hide(str(error))}") from None
