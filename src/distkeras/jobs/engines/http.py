"""Requests to a service by HTTP, with the standard library."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import urlencode

from distkeras.jobs.engine import JobError
from distkeras.jobs.profiles import Profile, ProfileError, check_url, read_token

TIMEOUT = 60.0
"""Seconds that a service has to answer."""


class NotFound(JobError):
    """The service knows no such thing."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirection would take the token to another machine."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Service:
    """A service at the address of a profile.

    Args:
        profile: `url`, `token_file`, `user`, `ca_file` and `allow_http` count.

    Raises:
        ProfileError: the address or the token is not as it must be.
    """

    def __init__(self, profile: Profile) -> None:
        token = None if profile.token_file is None else read_token(profile.token_file)
        self.url = check_url(profile.url, has_token=token is not None, allow_http=profile.allow_http)
        self._headers = {"Accept": "application/json"}
        if token is not None and profile.user is not None:
            pair = base64.b64encode(f"{profile.user}:{token}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        elif token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        context = _trusting(profile.ca_file)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirects()
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        kind: str | None = None,
    ) -> Any:
        """Return the JSON that the service answers; `None` for an empty answer.

        Raises:
            NotFound: the service answers 404.
            JobError: it does not answer, or refuses.
        """
        headers = {} if kind is None else {"Content-Type": kind}
        try:
            with self.opened(method, path, query=query, body=body, headers=headers) as answer:
                content = answer.read()
            return json.loads(content) if content else None
        except (OSError, HTTPException, ValueError) as error:
            raise self.silent(error) from error

    def opened(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse:
        """Return an answer that is not read yet, such as a stream.

        Raises:
            NotFound: the service answers 404.
            JobError: it refuses.
            OSError, HTTPException: it does not answer.
        """
        url = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        asked = urllib.request.Request(url, body, {**self._headers, **(headers or {})}, method=method)
        try:
            return cast(HTTPResponse, self._opener.open(asked, timeout=TIMEOUT))
        except urllib.error.HTTPError as error:
            self._refused(error)

    def silent(self, error: Exception) -> JobError:
        """Return what to raise if there was no answer."""
        return JobError(f"Expected an answer of {self.url}. Received: {error}")

    def _refused(self, error: urllib.error.HTTPError) -> NoReturn:
        said = _reason(error.read(4000))
        message = f"{self.url} answers {error.code} {error.reason}: {said or 'no reason'}"
        raise (NotFound if error.code == 404 else JobError)(message) from error


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if ca_file is not None:
            context.load_verify_locations(Path(ca_file).expanduser())
    except OSError as error:
        raise ProfileError(
            f"Expected a certificate in PEM. Received: ca_file={ca_file!r}: {error}"
        ) from error
    return context


def _reason(body: bytes) -> str:
    """Return why a service refuses: its words, where they are JSON with an `error`."""
    text = body.decode(errors="replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        return text
    return str(said["error"]) if isinstance(said, dict) and "error" in said else text
