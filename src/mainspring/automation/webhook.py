"""Calls webhooks: signed, without redirects, and never a machine of one's own network by accident.

The signature is that of the Standard Webhooks specification: ``webhook-id``, ``webhook-timestamp`` and
``webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">``. A name is resolved once, every address it
has must be public, and the connection goes to that very address, so that a name cannot change its mind in between
(DNS rebinding).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Collection
from datetime import datetime
from urllib.parse import SplitResult, urlsplit

from mainspring.errors import InvalidInput, Refused, Unreachable

SECONDS = 10.0
_MOST_READ = 64 * 1024
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check_url(url: str, allowed: Collection[str] = ()) -> SplitResult:
    """The parts of an address that may be called.

    Args:
        url: The address.
        allowed: Hosts that may be called without TLS and within one's own network.

    Raises:
        InvalidInput: It is no address of a web server, or holds a password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises when it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise InvalidInput(f"`{url[:100]}` is not a webhook's address", hint="https://host/path, without a password")
    if parts.scheme == "http" and parts.hostname not in allowed:
        hint = f'use https, or allow the host: [settings] webhook_hosts = "{parts.hostname}"'
        raise InvalidInput(f"`{url[:100]}` would travel unencrypted", hint=hint)
    return parts


def call(url: str, body: bytes, secret: str, identity: str, now: datetime, allowed: Collection[str] = ()) -> int:
    """Posts a signed CloudEvent; returns the status of the answer. It raises what `post` does."""
    headers = {"content-type": "application/cloudevents+json", **signature(secret, identity, now, body)}
    return post(url, body, headers, allowed)


def post(url: str, body: bytes, headers: dict[str, str], allowed: Collection[str] = ()) -> int:
    """Posts a body; returns the status of the answer.

    Raises:
        Refused: The host is of one's own network and not allowed, or the answer is a refusal for good.
        Unreachable: It does not answer, or asks to come again: worth another try.
    """
    parts = check_url(url, allowed)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = _Pinned(host, port, _address(host, port, host in allowed), parts.scheme == "https")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read(_MOST_READ)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{host} does not answer: {type(error).__name__}", hint="it is tried again") from error
    finally:
        connection.close()
    if answer.status >= 500 or answer.status in (408, 425, 429):
        raise Unreachable(f"{host} answers {answer.status}", hint="it is tried again")
    if not 200 <= answer.status < 300:
        raise Refused(f"{host} answers {answer.status}", hint="look at the receiver's log")
    return answer.status


def signature(secret: str, identity: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows the sender; without a secret only the id and the time."""
    stamp = str(int(now.timestamp()))
    headers = {"webhook-id": identity, "webhook-timestamp": stamp}
    if secret:
        headers["webhook-signature"] = signed(secret, identity, stamp, body)
    return headers


def signed(secret: str, identity: str, stamp: str, body: bytes) -> str:
    """A body's signature, with its version."""
    digest = hmac.new(secret.encode(), f"{identity}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def _address(host: str, port: int, private: bool) -> str:
    """An address of the host; all that it has must be public, unless private ones are allowed."""
    try:
        found = [str(item[4][0]) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise Unreachable(f"{host} has no address", hint="it is tried again") from None
    if not private and any(not _public(address) for address in found):
        hint = f'allow it if that is meant: [settings] webhook_hosts = "{host}"'
        raise Refused(f"{host} is a machine of this network", hint=hint)
    return found[0]


def _public(address: str) -> bool:
    known = ipaddress.ip_address(address.partition("%")[0])
    meant: ipaddress.IPv4Address | ipaddress.IPv6Address = known
    if isinstance(known, ipaddress.IPv6Address):  # several ways to write an address of the older kind
        translated = ipaddress.IPv4Address(int(known) & 0xFFFFFFFF) if known in _NAT64 else None
        meant = known.ipv4_mapped or known.sixtofour or (known.teredo or [None])[-1] or translated or known
    return all(item.is_global and not item.is_multicast for item in (known, meant))


class _Pinned(http.client.HTTPConnection):
    """A connection to one address under the name of its host."""

    def __init__(self, host: str, port: int, address: str, encrypted: bool) -> None:
        super().__init__(host, port, timeout=SECONDS)
        self._pinned = address
        self._encrypted = encrypted

    def connect(self) -> None:
        """Connects to the address that was checked, not to what the name means by now."""
        plain = socket.create_connection((self._pinned, self.port), SECONDS)
        try:
            context = ssl.create_default_context() if self._encrypted else None
            self.sock = context.wrap_socket(plain, server_hostname=self.host) if context else plain
        except BaseException:
            plain.close()
            raise
