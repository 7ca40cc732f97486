"""Streams on Redis: a stream key with consumer groups; what a dead consumer held is claimed by the others."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.ids import new_id
from mainspring.errors import MissingExtra, Unauthorized, Unreachable
from mainspring.ports.stream import Message, Place

try:
    import redis.asyncio as client
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
except ModuleNotFoundError:
    raise MissingExtra.named("streams on Redis", "redis") from None

_PORT = 6379
_CONNECT_SECONDS = 5.0
_DATA, _ID = b"data", b"id"


class RedisStream:
    """A stream key: each entry has the fields ``data``, ``id`` and one for each header.

    Args:
        place: The address.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._redis: Any = None
        self._group = ""
        self._member = f"{secrets.token_hex(8)}"
        self._back: deque[Message] = deque()
        self._claimed = 0.0

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> RedisStream:
        """``redis://[user:password@]host[:port]/stream``; options ``tls``, ``ca``, ``ack_wait``, ``db``."""
        del options
        return cls(Place.of(url, _PORT, ["db"]))

    async def connect(self) -> None:
        """Connects; a lost connection is made anew by the next call."""
        place = self._place
        host, _, port = place.hosts[0].rpartition(":")
        facts: dict[str, Any] = {}
        if place.tls:
            facts = {"ssl": True, "ssl_ca_certs": place.options.get("ca") or None}
        self._redis = client.Redis(
            host=host.strip("[]"), port=int(port), db=int(place.options.get("db", "0")),
            username=place.user or None, password=place.password or None, socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=None, retry=Retry(NoBackoff(), 0), **facts,
        )  # fmt: skip
        with self._reached():
            await self._redis.ping()

    async def subscribe(self, group: str) -> None:
        """Joins the group; stream and group are created when there are none."""
        self._group = group
        with self._reached(), contextlib.suppress(ResponseError):  # it is there already
            await self._redis.xgroup_create(self._place.subject, group, id="0", mkstream=True)

    async def receive(self, most: int, seconds: float) -> list[Message]:
        """What was given back, what others took too long for, what is new."""
        if self._back:
            return [self._back.popleft() for _ in range(min(most, len(self._back)))]
        with self._reached():
            try:
                if found := await self._overdue(most):
                    return found
                told = await self._redis.xreadgroup(
                    self._group, self._member, {self._place.subject: ">"}, count=most, block=max(1, int(seconds * 1000))
                )
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self.subscribe(self._group)  # the broker has lost its memory
                return []
        entries = told[0][1] if isinstance(told, list) and told else next(iter(told.values()))[0] if told else []
        return [self._message(entry, fields, 1) for entry, fields in entries]

    async def _overdue(self, most: int) -> list[Message]:
        """Takes over what somebody has had for too long; looks now and then."""
        wait = self._place.ack_seconds
        if time.monotonic() - self._claimed < wait / 4:
            return []
        subject = self._place.subject
        told = await self._redis.xautoclaim(subject, self._group, self._member, int(wait * 1000), "0-0", count=most)
        entries = [(entry, fields) for entry, fields in told[1] if fields]
        if not entries:
            self._claimed = time.monotonic()
            return []
        first, last = entries[0][0], entries[-1][0]
        pending = await self._redis.xpending_range(subject, self._group, first, last, most, self._member)
        counts = {item["message_id"]: item["times_delivered"] for item in pending}
        return [self._message(entry, fields, counts.get(entry, 1)) for entry, fields in entries]

    def _message(self, entry: bytes, fields: Mapping[bytes, bytes], deliveries: int) -> Message:
        sequence, subject = entry.decode(), self._place.subject
        named = {
            name.decode("utf-8", "replace").lower(): value.decode("utf-8", "replace")
            for name, value in fields.items()
            if name not in (_DATA, _ID)
        }
        return Message(
            id=fields.get(_ID, b"").decode("utf-8", "replace") or f"{subject}/{sequence}", data=fields.get(_DATA, b""),
            headers=named, subject=subject, sequence=sequence, time=int(sequence.partition("-")[0]) * 1000,
            deliveries=deliveries,
        )  # fmt: skip

    async def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledges them together."""
        if messages:
            with self._reached():
                await self._redis.xack(self._place.subject, self._group, *(message.sequence for message in messages))

    async def nak(self, messages: Sequence[Message]) -> None:
        """Keeps them for the next call; should we end before, others take them over."""
        self._back.extend(messages)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Adds all in one round trip."""
        if not messages:
            return
        with self._reached():
            pipe = self._redis.pipeline(transaction=False)
            for message in messages:
                fields: dict[Any, Any] = {**message.headers, _ID: message.id or new_id(), _DATA: message.data}
                pipe.xadd(self._place.subject, fields)
            await pipe.execute()

    async def close(self) -> None:
        """Leaves; what we hold is handed out again at once to whoever looks, instead of when it is overdue."""
        if self._redis is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (AuthenticationError, NoPermissionError):
            raise Unauthorized(f"{self._place} does not let us in", hint="redis://user:password@host/stream") from None
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable(f"{self._place} does not answer: {error}", hint="is the broker running there?") from None
