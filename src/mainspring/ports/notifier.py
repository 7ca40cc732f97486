"""Notifier: a way to tell people or programs that something happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Protocol

from mainspring.core.entity import Value

PRIVATE_HINT = "if that is meant: mainspring notifications update NAME --private"
"""How a channel is allowed a receiver within one's own network."""


class Notification(Value, frozen=True, kw_only=True):
    """What is told.

    Attributes:
        id: Stays the same however often it is sent: receivers tell repetitions by it.
        time: When it happened (UTC).
        type: Sort of event, such as ``monitoring.incident.opened``.
        severity: How grave it is.
        subject: One line.
        text: A few lines, plain text.
        facts: Name -> value, for programs and short lists.
        link: Page with everything about it; empty where no address is known.
        buttons: Label -> address that opens the page with an action filled in. Opening it changes nothing.
        source: Who tells: the workspace's address.
    """

    id: str
    time: datetime
    type: str
    severity: Literal["page", "ticket", "digest"]
    subject: str
    text: str = ""
    facts: dict[str, Any] = {}
    link: str = ""
    buttons: dict[str, str] = {}
    source: str = ""


class Notifier(Protocol):
    """Tells one receiver.

    Made by ``from_url(url, options)``. The option ``private`` is ``1`` where receivers may be at private addresses,
    ``secret`` is the key that messages are signed with, where the adapter can.
    """

    def send(self, notification: Notification) -> None:
        """Hands a notification over; returns once the receiver has taken it.

        Raises:
            Unreachable: It was not taken now; sending it again later may help.
            Refused: It never will be: wrong address, wrong secret, forbidden address.
        """
        ...
