"""Calls webhooks of rules: signed CloudEvents, to hosts that are public or named in the settings."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from urllib.parse import SplitResult

from mainspring.errors import InvalidInput
from mainspring.ports import outbound


def check_url(url: str, allowed: Collection[str] = ()) -> SplitResult:
    """The parts of an address that may be called.

    Args:
        url: The address.
        allowed: Hosts that may be called without TLS and within one's own network.

    Raises:
        InvalidInput: It is no address of a web server, holds a password, or would travel unencrypted.
    """
    parts = outbound.check(url)
    if parts.scheme == "http" and parts.hostname not in allowed:
        hint = f'use https, or allow the host: [settings] webhook_hosts = "{parts.hostname}"'
        raise InvalidInput(f"`{url[:100]}` would travel unencrypted", hint=hint)
    return parts


def call(url: str, body: bytes, secret: str, identity: str, now: datetime, allowed: Collection[str] = ()) -> int:
    """Posts a signed CloudEvent; returns the status of the answer. It raises what `post` does."""
    headers = {"content-type": "application/cloudevents+json", **signature(secret, identity, now, body)}
    return post(url, body, headers, allowed)


def post(url: str, body: bytes, headers: dict[str, str], allowed: Collection[str] = ()) -> int:
    """Posts a body; returns the status of the answer. It raises what `check_url` and `outbound.post` do."""
    host = check_url(url, allowed).hostname or ""
    hint = f'allow it if that is meant: [settings] webhook_hosts = "{host}"'
    return outbound.post(url, body, headers, private=host in allowed, hint=hint)


def signature(secret: str, identity: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows the sender; without a secret only the id and the time."""
    stamp = str(int(now.timestamp()))
    headers = {"webhook-id": identity, "webhook-timestamp": stamp}
    if secret:
        headers["webhook-signature"] = outbound.signed(secret, identity, stamp, body)
    return headers
