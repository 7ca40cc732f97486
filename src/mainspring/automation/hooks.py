"""What comes from outside: verified on its raw bytes, then read. Pure functions; nothing here trusts what it reads."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import urllib.parse
from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.errors import InvalidInput, Unauthorized

MAX_PUSH = 25 * 1024 * 1024
"""Bytes of a push: the most that GitHub sends."""
MAX_MESSAGE = 256 * 1024
_MAX_ID = 300
_MAX_PATHS = 3000
_NO_COMMIT = "0" * 40
_HINT = "the secret is made with: mainspring rules secret RULE"


class Delivery(msgspec.Struct, frozen=True):
    """One thing that was told.

    Attributes:
        kind: ``git`` or ``message``.
        id: The sender's id of it, the same when it is sent again; empty when there is nothing to do about it.
        event: What it says: ``type``, ``subject``, ``data`` and more.
        why: In words.
    """

    kind: str
    id: str
    event: dict[str, Any]
    why: str


def receive(headers: Mapping[str, str], body: bytes, secret: str) -> Delivery:
    """Verifies and reads a delivery.

    Args:
        headers: Names in lower case.
        body: As it came.
        secret: What signs it, or is its token.

    Raises:
        Unauthorized: The signature or token is missing or wrong; nothing of the body was read.
        InvalidInput: It is no push and no CloudEvent.
    """
    host = next((host for host in ("gitea", "gitlab", "github") if f"x-{host}-event" in headers), "")
    if not _authentic(host, headers, body, secret):
        raise Unauthorized("the delivery's signature or token is missing or wrong", hint=_HINT)
    most = MAX_PUSH if host else MAX_MESSAGE
    if len(body) > most:
        raise InvalidInput(f"the delivery is larger than {most} bytes", hint="send a reference to large data")
    return _push(host, headers, body) if host else _message(headers, body)


def _authentic(host: str, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether the sender knows the secret; compared in constant time, and never true without a secret."""
    key = secret.encode()
    signed = hmac.new(key, body, hashlib.sha256).hexdigest()
    given, wanted = {
        "github": (headers.get("x-hub-signature-256", ""), f"sha256={signed}"),
        "gitea": (headers.get("x-gitea-signature", ""), signed),
        "gitlab": (headers.get("x-gitlab-token", ""), secret),
        "": (headers.get("authorization", ""), f"Bearer {secret}"),
    }[host]
    # Header values are Latin-1; a token of other characters must not raise.
    return bool(secret) and hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _push(host: str, headers: Mapping[str, str], body: bytes) -> Delivery:
    what = headers[f"x-{host}-event"]
    if what.lower() not in ("push", "push hook"):
        return Delivery("git", "", {"type": f"git.{what[:60]}"}, f"{what[:60]} of {host}")
    told = _object(body)
    ref, after = _text(told, "ref"), _text(told, "after") or _text(told, "checkout_sha")
    branch = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
    names = {"github": "x-github-delivery", "gitea": "x-gitea-delivery", "gitlab": "idempotency-key"}
    # GitLab before 17.4 sends no key: the branch and its new commit say as well which push this is.
    delivery = headers.get(names[host]) or (f"{ref}@{after}" if host == "gitlab" else "")
    repository = told.get("project" if host == "gitlab" else "repository")
    name = _text(repository, "path_with_namespace" if host == "gitlab" else "full_name")
    if not ref or not name or not delivery:
        raise InvalidInput(f"this is no push of {host}: a repository, a ref or the delivery's id is missing")
    paths = _paths(told.get("commits"))
    if not (ref + name + delivery + after).isprintable():
        raise InvalidInput(f"this is no push of {host}: a name holds control characters")
    person = told.get("pusher") if host != "gitlab" else {"name": told.get("user_username")}
    data = {
        "repository": name, "branch": branch, "commit": after, "before": _text(told, "before"), "paths": paths,
        "deleted": after == _NO_COMMIT or told.get("deleted") is True,
        "author": _text(person, "name") or _text(person, "login"),
        "message": _text(told.get("head_commit"), "message")[:500],
    }  # fmt: skip
    event = {"type": "git.push", "subject": name, "id": delivery[:_MAX_ID], "data": data}
    return Delivery("git", _identity(name, delivery), event, f"push of {after[:9]} to {branch or ref} of {name}")


def _paths(commits: object) -> list[str]:
    """Files that the commits change, each once."""
    found: dict[str, None] = {}
    for commit in commits if isinstance(commits, list) else []:
        for what in ("added", "modified", "removed"):
            listed = commit.get(what) if isinstance(commit, dict) else None
            found.update(dict.fromkeys(path for path in listed or [] if isinstance(path, str)))
    return list(found)[:_MAX_PATHS]


def _message(headers: Mapping[str, str], body: bytes) -> Delivery:
    """A CloudEvent (1.0, HTTP binding) in structured or in binary mode."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media.startswith("application/cloudevents-batch"):
        raise InvalidInput("events in a batch are not taken", hint="send each event by itself")
    if media.startswith("application/cloudevents"):
        return cloud_event(_object(body))
    told: dict[str, Any] = {
        name.removeprefix("ce-"): urllib.parse.unquote(value)
        for name, value in headers.items()
        if name.startswith("ce-")
    }
    if media:
        told["datacontenttype"] = media
    return cloud_event(told | ({"data": _data(media, body)} if body else {}))


def _data(media: str, body: bytes) -> Any:
    if media == "application/json" or media.endswith("+json"):
        return _json(body)
    try:
        return body.decode() if media.startswith("text/") else base64.b64encode(body).decode()
    except UnicodeDecodeError:
        raise InvalidInput("the event's text is not UTF-8") from None


def cloud_event(told: Mapping[str, Any]) -> Delivery:
    """A CloudEvent's attributes as a delivery.

    Raises:
        InvalidInput: An attribute that every event has is missing, or it is of another version.
    """
    missing = [name for name in ("id", "source", "type") if not isinstance(told.get(name), str) or not told[name]]
    if missing:
        raise InvalidInput(f"this is no CloudEvent: `{missing[0]}` is missing", hint="see https://cloudevents.io")
    if told.get("specversion") != "1.0":
        raise InvalidInput("this is no CloudEvent of version 1.0: `specversion` differs")
    if "data_base64" in told:
        try:
            base64.b64decode(told["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InvalidInput("`data_base64` is not base64") from None
    for name in ("id", "source", "type", "subject"):
        if not str(told.get(name) or "x").isprintable():
            raise InvalidInput(f"`{name}` of the event holds control characters")
    event = {str(name)[:_MAX_ID]: value for name, value in told.items() if name != "specversion"}
    event.setdefault("subject", "")
    event["data"] = told.get("data", told.get("data_base64"))
    why = f"{told['type'][:_MAX_ID]} of {told['source'][:_MAX_ID]}"
    return Delivery("message", _identity(told["source"], told["id"]), event, why)


def plain_message(subject: str, identity: str, data: bytes) -> Delivery:
    """A broker's message: a CloudEvent where it is one, otherwise its subject is its type.

    Raises:
        InvalidInput: It is larger than a message may be.
    """
    if len(data) > MAX_MESSAGE:
        raise InvalidInput(f"the message is larger than {MAX_MESSAGE} bytes", hint="send a reference to large data")
    if not (subject + identity).isprintable():
        raise InvalidInput("the message's subject or id holds control characters")
    try:
        told = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = base64.b64encode(data).decode()
    if isinstance(told, dict) and told.get("specversion") == "1.0":
        return cloud_event(told)
    event = {"type": subject, "subject": subject, "id": identity, "data": told}
    return Delivery("message", _identity(subject, identity), event, f"message {identity[:_MAX_ID]} of {subject}")


def _identity(*parts: str) -> str:
    """One name for what these name together, of bounded length."""
    joined = "/".join(parts)
    short = len(joined) <= _MAX_ID and "/" not in parts[-1]
    return joined if short else hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _object(body: bytes) -> dict[str, Any]:
    told = _json(body)
    if not isinstance(told, dict):
        raise InvalidInput("the delivery is not a JSON object")
    return told


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the delivery is not JSON: {error}") from None


def _text(told: object, name: str) -> str:
    value = told.get(name) if isinstance(told, dict) else None
    return value[:_MAX_ID] if isinstance(value, str) else ""
