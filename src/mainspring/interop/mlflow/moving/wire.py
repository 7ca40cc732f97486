"""Requests to a server that speaks MLflow's protocol."""

from __future__ import annotations

import base64
import http.client
import os
import time
from collections.abc import Iterator
from typing import IO, Any, BinaryIO, cast
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from mainspring.errors import InvalidInput, MainspringError, NotFound, Refused, Unauthorized, Unreachable

SECONDS = 120.0
ATTEMPTS = 5
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_KINDS: dict[int, type[MainspringError]] = {401: Unauthorized, 403: Refused, 404: NotFound}
Fields = dict[str, Any]


class Wire:
    """One connection to a server; not for several threads.

    The caller's name is taken from MLflow's own variables: ``MLFLOW_TRACKING_TOKEN``, or
    ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.

    Args:
        url: The server's address, ``http://host:port`` or https.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InvalidInput(
                "this is not a server's address",
                hint="use http://host:port; a password goes into MLFLOW_TRACKING_PASSWORD",
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._root = parts.path.rstrip("/")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=SECONDS)
        self._headers = _credentials()

    def get(self, path: str, /, **fields: Any) -> Fields:
        """A GET under ``/api/2.0/mlflow/``, or of a whole path that begins with a slash."""
        given = {name: value for name, value in fields.items() if value is not None}
        return self._json("GET", f"{_full(path)}?{urlencode(given, doseq=True)}", None)

    def post(self, path: str, method: str = "POST", /, **fields: Any) -> Fields:
        """A request with a body of JSON."""
        given = {name: value for name, value in fields.items() if value is not None}
        return self._json(method, _full(path), msgspec.json.encode(given))

    def pages(self, path: str, items: str, /, *, by: str = "POST", **fields: Any) -> Iterator[Fields]:
        """The items of all pages."""
        token = None
        while True:
            page = (self.get if by == "GET" else self.post)(path, **fields, page_token=token)
            yield from page.get(items, ())
            token = page.get("next_page_token")
            if not token:
                return

    def open(self, path: str) -> BinaryIO:
        """The body of an answer; it must be read or closed before the next request."""
        return cast("BinaryIO", self._exchange("GET", path, None))

    def send(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """A request with another body than JSON's usual, or headers of its own."""
        self._exchange("POST", path, content, headers).read()

    def put(self, path: str, content: IO[bytes], size: int) -> None:
        """Sends a file."""
        for attempt in range(ATTEMPTS):
            content.seek(0)
            try:
                self._exchange("PUT", path, content, {"content-length": str(size)}, attempts=1).read()
            except Unreachable:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _json(self, method: str, path: str, body: bytes | None) -> Fields:
        content = self._exchange(method, path, body).read()
        try:
            return msgspec.json.decode(content, type=dict[str, Any]) if content else {}
        except msgspec.DecodeError:
            raise Unreachable(
                f"{self.url} does not speak MLflow's protocol", hint="give the address of a tracking server"
            ) from None

    def _exchange(
        self, method: str, path: str, body: Any, more: dict[str, str] | None = None, attempts: int = ATTEMPTS
    ) -> http.client.HTTPResponse:
        headers = self._headers | {"content-type": "application/json"} | (more or {})
        why = ""
        for attempt in range(attempts):
            if attempt:
                self._connection.close()
                time.sleep(0.2 * 2**attempt)
            try:
                self._connection.request(method, self._root + path, body, headers)
                answer = self._connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                why = str(error) or type(error).__name__
                continue
            if answer.status < 300:
                return answer
            content = answer.read(1 << 16)
            if answer.status not in _AGAIN:
                raise _error(answer.status, content)
            why = f"{answer.status}: {_told(content)[1]}"
        raise Unreachable(f"{self.url} does not answer: {why[:300]}", hint="is it running, and the address right?")


class ServerRefused(InvalidInput):
    """The other server refuses a request; ``facts`` has its ``error_code``."""


def quoted(path: str) -> str:
    """A path of an artifact as part of an address."""
    return quote(path, safe="/")


def _full(path: str) -> str:
    return path if path.startswith("/") else f"/api/2.0/mlflow/{path}"


def _told(content: bytes) -> tuple[str, str]:
    try:
        found = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        return "", content[:200].decode(errors="replace")
    return str(found.get("error_code", "")), str(found.get("message", ""))


def _error(status: int, content: bytes) -> MainspringError:
    code, message = _told(content)
    kind = _KINDS.get(status, ServerRefused)
    hint = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return kind(
        f"the server answers {status}: {message[:500]}",
        hint=hint if status in (401, 403) else "look at the other server's log",
        error_code=code,
    )


def _credentials() -> dict[str, str]:
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if token:
        return {"authorization": f"Bearer {token}"}
    if user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}
