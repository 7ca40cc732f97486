"""Buttons of messages: links that open an incident's page with an action filled in, each good for one action, once.

A link changes nothing by being opened, for mail servers open links to look at them; a person confirms on the page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote

import msgspec

from mainspring.automation.service import Rules
from mainspring.deploy.service import Deployments
from mainspring.errors import Conflict, Refused
from mainspring.monitoring.incidents import Incidents
from mainspring.monitoring.lifecycle import STILL
from mainspring.monitoring.model import Incident
from mainspring.monitoring.notify.model import Message
from mainspring.store import Store

Act = Literal["acknowledge", "roll_back", "retrain"]
LABELS: dict[Act, str] = {"acknowledge": "Acknowledge", "roll_back": "Roll back", "retrain": "Retrain"}
VALID = timedelta(days=3)
_TOLD = ("monitoring.incident.opened", "monitoring.incident.continued")
_SIZE = 16


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a link stands for.

    Attributes:
        message: Id of the message that it came with.
        incident: Name of the incident.
        act: What it does.
        until: When it expires, seconds since 1970.
    """

    message: str
    incident: str
    act: Act
    until: int


def sign(ticket: Ticket, key: bytes) -> str:
    """The ticket as text for an address, with its keyed hash (BLAKE2b, 128 bits)."""
    body = msgspec.msgpack.encode(ticket)
    return base64.urlsafe_b64encode(_hash(body, key) + body).decode().rstrip("=")


def read(text: str, key: bytes, now: datetime) -> Ticket:
    """The ticket that a link carries.

    Raises:
        Refused: It is not one of ours, or has expired.
    """
    try:
        whole = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        whole = b""
    body = whole[_SIZE:]
    if not hmac.compare_digest(whole[:_SIZE], _hash(body, key)):
        raise Refused("this button is not one of ours", hint="use the forms of the incident's page")
    ticket = msgspec.msgpack.decode(body, type=Ticket)
    if now.timestamp() > ticket.until:
        ended = datetime.fromtimestamp(ticket.until, UTC)
        raise Refused(f"this button expired on {ended:%Y-%m-%d %H:%M} UTC", hint="use the forms of the incident's page")
    return ticket


def _hash(body: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=_SIZE, person=b"button").digest()


class Buttons:
    """Makes the buttons of messages, and does what they say.

    Args:
        store: The database.
        incidents: The room `monitoring`.
        deployments: The room `deploy`.
        rules: Rules that train.
        key: Gives the key that links are signed with.
        page_url: Address of the pages, without a slash at the end; without one there are no buttons.
    """

    def __init__(
        self, store: Store, incidents: Incidents, deployments: Deployments, rules: Rules, key: Callable[[], bytes],
        page_url: str,
    ) -> None:  # fmt: skip
        self._store = store
        self._incidents = incidents
        self._deployments = deployments
        self._rules = rules
        self._key = key
        self._page_url = page_url

    def links(self, message: Message) -> dict[str, str]:
        """Label -> address, for what can be done about the incident that a message tells of."""
        name = str(message.facts.get("incident", ""))
        if message.type not in _TOLD or not name or not self._page_url:
            return {}
        until = int((message.created + VALID).timestamp())
        page = f"{self._page_url}/incidents/{quote(name)}?ticket="
        tickets = (Ticket(message.id, name, act, until) for act in self.offered(self._incidents.show(name)))
        return {LABELS[ticket.act]: page + sign(ticket, self._key()) for ticket in tickets}

    def offered(self, incident: Incident) -> list[Act]:
        """What can be done about an incident now."""
        if incident.status not in STILL:
            return []
        known = {release.version for release in self._deployments.releases(incident.deployment, limit=20)}
        found: list[Act] = ["acknowledge"] if incident.status == "open" else []
        found += ["roll_back"] if len(known) > 1 else []
        return found + (["retrain"] if self._rules.retrains(incident.deployment) else [])

    def opened(self, text: str, incident: str) -> Ticket:
        """The ticket of a link that somebody opened; nothing changes.

        Raises:
            Refused: It is not ours, is about another incident, or has expired.
            Conflict: It was used.
        """
        ticket = read(text, self._key(), self._store.clock.now())
        if ticket.incident != incident:
            raise Refused(f"this button is about {ticket.incident}", hint="open the link as it came")
        if ticket.act in self._store.get(Message, id=ticket.message).pressed:
            raise Conflict("this button was used already", hint="each works once; use the forms of the incident's page")
        return ticket

    def press(self, text: str, incident: str, reason: str = "") -> Ticket:
        """Does what a button says, in the name of who presses it; once.

        Raises:
            Refused: See `opened`.
            Conflict: It was used, or cannot be done as things are now; then it stays good.
        """
        why = reason or f"button of a message about {incident}"
        with self._store.transaction() as tx:
            ticket = self.opened(text, incident)
            message = self._store.get(Message, id=ticket.message)
            tx.update(msgspec.structs.replace(message, pressed=[*message.pressed, ticket.act]))
            self._do(ticket, why)
            tx.emit("automation.button.pressed", incident, act=ticket.act, message=ticket.message, reason=reason)
        return ticket

    def _do(self, ticket: Ticket, reason: str) -> None:
        about = self._incidents.show(ticket.incident)
        if ticket.act == "acknowledge":
            self._incidents.acknowledge(about.name)
        elif ticket.act == "roll_back":
            self._deployments.rollback(about.deployment, reason)
        else:
            rule = self._rules.retrains(about.deployment)
            if not rule:
                raise Conflict(f"no rule retrains {about.deployment} by hand", hint='when = [{ on = "manual" }, …]')
            self._rules.fire(rule, reason, key=f"button {ticket.message}")
