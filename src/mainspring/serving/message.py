"""What the HTTP face and whoever answers say to each other: calls, replies, limits, and refusals of both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec

from mainspring.errors import InvalidInput, MainspringError, Unreachable

JSON, TEXT = b"application/json", b"text/plain; version=0.0.4"
GRPC = "grpc"
"""The path of calls that came over gRPC, to whatever model."""
STREAM = "stream"
"""The path of calls that are messages of a stream."""


class TooLarge(InvalidInput):
    """The body is larger than the server reads."""

    code = "too_large"
    status = 413


class HeadTooLarge(InvalidInput):
    """The request line and headers are larger than the server reads."""

    code = "head_too_large"
    status = 431


class TooSlow(InvalidInput):
    """The request did not arrive in time."""

    code = "too_slow"
    status = 408


class WrongMethod(InvalidInput):
    """The path exists, for another method."""

    code = "wrong_method"
    status = 405


class UnmetExpectation(InvalidInput):
    """The request expects what this server cannot do."""

    code = "unmet_expectation"
    status = 417


class Overloaded(Unreachable):
    """More is asked at a time than the server takes on."""

    code = "overloaded"


class Call(msgspec.Struct, gc=False):
    """One request, read.

    Attributes:
        method: As sent.
        path: Without the query, unquoted.
        headers: Lower-case name -> value; of several with one name the last.
        body: Unpacked, if it was compressed.
        peer: Address of the client; empty when unknown.
        here: Address that the client called.
        caller: Who asks, once the token is known.
        query: What stands behind the question mark, as sent.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes
    peer: str = ""
    here: str = ""
    caller: str = ""
    query: str = ""


class Reply(NamedTuple):
    """What is sent back, and what is left to do then."""

    status: int
    body: bytes
    kind: bytes = JSON
    after: Callable[[], None] | None = None
    headers: bytes = b""
    """More header lines, each with its end of line."""


def _unheard(reply: Reply) -> None:
    """Nobody waits yet."""


class Coming(msgspec.Struct, gc=False, kw_only=True):
    """A reply that comes within this turn of the event loop: a task for it would cost more than the reply.

    Attributes:
        tell: Hears it; set by whoever asked.
    """

    tell: Callable[[Reply], None] = _unheard


class Handler(Protocol):
    """Who answers."""

    def answer(self, call: Call) -> Reply | Coming | Awaitable[Reply]:
        """Answers; at once where that is quick, later where something must be waited for. Never raises."""
        ...

    def refuse(self, path: str, error: MainspringError) -> Reply:
        """Words a refusal in the form that the path's protocol has for it."""
        ...


class Limits(msgspec.Struct, frozen=True):
    """What one client may ask for.

    Attributes:
        body: Largest body, bytes, compressed or not.
        head: Largest request line with headers, bytes.
        read_seconds: For a head, and again for a body, to arrive.
        idle_seconds: How long a connection may stay without a request.
        connections: How many at a time.
        waiting: Calls that wait for their answer at a time.
    """

    body: int = 16 << 20
    head: int = 32 << 10
    read_seconds: float = 9.0
    idle_seconds: float = 75.0
    connections: int = 4096
    waiting: int = 1024


Observer = Callable[[Call, Reply, float], None]
"""Told of each answered call: the call, the reply, and the seconds from the whole request to the answer."""


def too_large(limit: int) -> TooLarge:
    """What is said of a body over the limit."""
    return TooLarge(f"the body is larger than {limit} bytes", hint="send fewer rows at a time", limit=limit)
