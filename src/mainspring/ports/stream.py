"""Stream: a subject of a message broker, read by groups and written to."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from mainspring.errors import InvalidInput

ID_HEADER = "mainspring-id"
"""The header in which adapters carry a message's id, where the broker has no place of its own for it."""
ACK_SECONDS = 30.0
"""After so long a message that was handed out and not acknowledged is handed out again; ``?ack_wait=`` changes it."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message, read or to be published.

    Attributes:
        id: As it was published; of messages from others the broker's name for it. The same at each delivery.
        data: The body.
        headers: Name -> value; names in lower case when it is read.
        subject: Where it was read.
        sequence: Its place there, such as ``partition/offset``; the same at each delivery.
        time: When the broker took it, microseconds since 1970; 0 where that is not known.
        deliveries: How often it was handed out, 0 where the broker does not count.
    """

    id: str
    data: bytes
    headers: dict[str, str] = {}
    subject: str = ""
    sequence: str = ""
    time: int = 0
    deliveries: int = 0


class Stream(Protocol):
    """One subject (topic, stream) at its broker. Constructed with an address, it does nothing before `connect`.

    Contract: what was published is handed to every group, to one of its members at a time, at least once: what a member
    has not acknowledged is handed out again when it asked for that, when it is gone, or when it took too long. A new
    group begins at the first message that is there. Messages of one publisher come in their order, but for those that
    are handed out again. A lost connection is taken up again by itself; meanwhile calls raise `Unreachable`, and what
    was not published for certain may be published again. All calls come from one event loop.
    """

    async def connect(self) -> None:
        """Connects.

        Raises:
            Unreachable: The broker does not answer.
            Unauthorized: It does not let us in.
        """
        ...

    async def subscribe(self, group: str) -> None:
        """Joins a durable group; the subject is created when there is none.

        Raises:
            Unreachable: As `connect`.
        """
        ...

    async def receive(self, most: int, seconds: float) -> list[Message]:
        """Up to ``most`` messages, waiting up to ``seconds`` for the first; empty when none came.

        Raises:
            Unreachable: The broker is away.
        """
        ...

    async def ack(self, messages: Sequence[Message]) -> None:
        """Marks messages as done for the group. One that is no longer ours is ignored: it is handed out again.

        Raises:
            Unreachable: The broker is away.
        """
        ...

    async def nak(self, messages: Sequence[Message]) -> None:
        """Gives messages back, to be handed out again soon, to whichever member.

        Raises:
            Unreachable: The broker is away; then they are once they took too long.
        """
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publishes messages, and returns when the broker has confirmed all of them.

        Raises:
            Unreachable: Some are not confirmed.
            InvalidInput: The broker refuses one, for instance because it is too large.
        """
        ...

    async def close(self) -> None:
        """Leaves; what was handed out and not acknowledged goes to others."""
        ...


class Place(NamedTuple):
    """What an address such as ``kafka://user:secret@host:9092/flights?tls=true`` says.

    Attributes:
        scheme: The broker's kind.
        hosts: ``host:port``, one or several.
        subject: What stands behind the slash.
        user: Who connects, empty for nobody in particular.
        password: Their password.
        options: What stands behind the question mark.
    """

    scheme: str
    hosts: tuple[str, ...]
    subject: str
    user: str
    password: str
    options: Mapping[str, str]

    @classmethod
    def of(cls, url: str, port: int, known: Sequence[str] = ()) -> Place:
        """Takes an address apart.

        Args:
            url: The address.
            port: The broker's usual port.
            known: Options that it may have beside ``tls``, ``ca`` and ``ack_wait``.

        Raises:
            InvalidInput: It names no subject, or has an option that the adapter does not know.
        """
        parts = urlsplit(url)
        user, _, hosts = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        subject = unquote(parts.path.strip("/"))
        example = f"{parts.scheme}://host:{port}/flights"
        if not subject or not hosts:
            raise InvalidInput(f"{shown(url)} names no subject", hint=f"for instance {example}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        allowed = ("tls", "ca", "ack_wait", *known)
        if strange := [option for option in options if option not in allowed]:
            raise InvalidInput(f"{shown(url)} has no option `{strange[0]}`", hint="known: " + ", ".join(allowed))
        found = tuple(host if ":" in host.rpartition("]")[2] else f"{host}:{port}" for host in hosts.split(","))
        place = cls(parts.scheme, found, subject, unquote(name), unquote(password), options)
        place.ack_seconds  # noqa: B018 - to be told now if it cannot be
        return place

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What the connection is encrypted with: with ``tls=true``, or ``ca=FILE`` for an authority of one's own.

        Raises:
            InvalidInput: The authority's file cannot be used.
        """
        ca = self.options.get("ca", "")
        if not ca and self.options.get("tls", "false").lower() not in ("true", "1", "yes"):
            return None
        try:
            return ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise InvalidInput(f"`ca` cannot be used: {error}", hint="give a PEM file of certificates") from None

    @property
    def ack_seconds(self) -> float:
        """See `ACK_SECONDS`.

        Raises:
            InvalidInput: ``ack_wait`` is not a number of seconds.
        """
        told = self.options.get("ack_wait", str(ACK_SECONDS))
        try:
            seconds = float(told)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < 1e6:
            raise InvalidInput(f"`ack_wait` is seconds, not `{told}`", hint=f"leave it out for {ACK_SECONDS:g}")
        return seconds

    def __str__(self) -> str:
        return f"{self.scheme}://{','.join(self.hosts)}/{self.subject}"


def shown(url: str) -> str:
    """An address for people's eyes: without credentials and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
