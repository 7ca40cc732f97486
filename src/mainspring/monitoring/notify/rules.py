"""Decisions about channels and messages: pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from mainspring.errors import InvalidInput
from mainspring.monitoring.model import Incident, Severity
from mainspring.monitoring.notify.model import Channel, Message

PREFIX = "MAINSPRING_SECRET_"
HOUR = timedelta(hours=1)
MAX_ATTEMPTS = 40
_FIRST, _LONGEST = timedelta(seconds=10), timedelta(hours=2)
_SECRET = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
_ADDRESS_IS_SECRET = ("slack", "teams")
_GRAVE: tuple[Severity, ...] = ("digest", "ticket", "page")
_TOLD = {
    "monitoring.incident.opened": "",
    "monitoring.incident.continued": "graver: ",
    "monitoring.incident.resolved": "over: ",
    "monitoring.incident.dismissed": "expected: ",
}


def check_channel(channel: Channel) -> None:
    """Raises `InvalidInput` when a channel cannot work, or when its address would store a secret in clear."""
    parts = urlsplit(channel.url)
    named = f"channel `{channel.name}`"
    if parts.scheme in _ADDRESS_IS_SECRET and not _SECRET.search(channel.url):
        raise InvalidInput(
            f"{named}: the address of a {parts.scheme} webhook is a secret and is not stored",
            hint=f'url = "{parts.scheme}:${{NAME}}", and the address in {PREFIX}NAME',
        )
    inner = urlsplit(channel.url.partition(":")[2]) if parts.scheme == "webhook" else parts
    _, password, secret = inner.netloc.rpartition("@")[0].partition(":")
    if password and not _SECRET.fullmatch(secret):
        raise InvalidInput(f"{named}: a password is not stored", hint=f"write ${{NAME}}, and set {PREFIX}NAME")
    if channel.budget < 1 or not 0 <= channel.digest_hour < 24:
        raise InvalidInput(f"{named}: `budget` is at least 1, `digest_hour` from 0 to 23")
    if not channel.severities:
        raise InvalidInput(f"{named}: it takes nothing", hint='severities = ["page"]')


def filled(url: str, environment: Mapping[str, str]) -> str:
    """An address with its secrets; only variables that are meant for this can be named.

    Raises:
        InvalidInput: A secret is not set.
    """

    def value(found: re.Match[str]) -> str:
        name = PREFIX + found[1]
        if name not in environment:
            raise InvalidInput(f"the secret `{found[1]}` is not set", hint=f"set {name} where the controller runs")
        return environment[name]

    return _SECRET.sub(value, url)


def takes(channel: Channel, severity: Severity, deployment: str) -> bool:
    """Whether a channel takes what is so grave, of a deployment."""
    ours = not channel.deployments or not deployment or deployment in channel.deployments
    return channel.enabled and severity in channel.severities and ours


def told(event: str, raised: bool, incident: Incident, at: datetime) -> str | None:
    """How a message about an event of an incident begins; None when nothing is sent.

    Args:
        event: Type of the event.
        raised: Whether the incident became graver by it.
        incident: The incident.
        at: When the event happened; a snoozed incident is quiet, unless it became graver or is over.
    """
    if event not in _TOLD or (event.endswith("continued") and not raised):
        return None
    snoozed = incident.snoozed_until is not None and at < incident.snoozed_until
    return None if snoozed and not raised and incident.status in ("open", "acknowledged") else _TOLD[event]


def digest_due(channel: Channel, now: datetime) -> datetime:
    """The next moment of the channel's digest, after ``now``."""
    moment = datetime.combine(now.date(), time(channel.digest_hour), now.tzinfo)
    if channel.digest == "weekly":
        moment += timedelta(days=-moment.weekday() % 7)
    step = timedelta(days=7 if channel.digest == "weekly" else 1)
    return moment if moment > now else moment + step


class Room(NamedTuple):
    """How many messages a channel may still be sent in this hour, and when the next one if none."""

    left: int
    free: datetime


def room(channel: Channel, sent: Sequence[datetime], now: datetime) -> Room:
    """What is left of a channel's budget.

    Args:
        channel: Gives the budget.
        sent: When messages were sent, any order.
        now: The present.
    """
    recent = sorted(moment for moment in sent if moment > now - HOUR)
    left = max(0, channel.budget - len(recent))
    return Room(left, now if left else recent[-channel.budget] + HOUR)


def wait(attempts: int) -> timedelta:
    """How long to wait before the next try: twice as long each time, at most two hours."""
    return min(_FIRST * float(2 ** min(attempts, 20)), _LONGEST)


Placing = Literal["waiting", "held"]


def placed(channel: Channel, severity: Severity, now: datetime) -> tuple[Placing, datetime]:
    """Whether a new message is sent at once or with the next digest, and when."""
    return ("held", digest_due(channel, now)) if severity == "digest" else ("waiting", now)


def joined(messages: Sequence[Message]) -> tuple[Severity, str, str]:
    """Many messages as one: severity, subject and text."""
    severity = max((item.severity for item in messages), key=_GRAVE.index)
    subject = f"{len(messages)} messages: {messages[0].subject}" if len(messages) > 1 else messages[0].subject
    if len(messages) == 1:
        return severity, subject, messages[0].text
    lines = [" ".join(filter(None, (f"- [{item.severity}] {item.subject}", item.link))) for item in messages]
    return severity, subject, "\n".join(lines)
