"""Streams on NATS JetStream: a pull consumer per group, publishing with acknowledgement and without doubles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mainspring.errors import InvalidInput, MissingExtra, Unauthorized, Unreachable
from mainspring.ports.stream import ID_HEADER, Message, Place

try:
    import nats
    from nats.aio.msg import Msg
    from nats.errors import Error, MaxPayloadError
    from nats.errors import TimeoutError as NatsTimeout
    from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
    from nats.js.errors import APIError, BadRequestError, NotFoundError
except ModuleNotFoundError:
    raise MissingExtra.named("streams on NATS", "nats") from None

_PORT = 4222
_CONNECT_SECONDS = 3.0
_CONFIRM_SECONDS = 5.0
_SOME_SECONDS = 0.02
_DUPLICATE = "Nats-Msg-Id"


class NatsStream:
    """A subject of JetStream. The stream that holds it is created, on disk, when there is none.

    A message that is published twice within the stream's window for that (two minutes by default) is stored once.

    Args:
        place: The address.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._connection: Any = None
        self._jetstream: Any = None
        self._messages: Any = None
        self._given: dict[str, Msg] = {}
        self._trouble = ""

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> NatsStream:
        """``nats://[user:password@]host[:port]/subject``; options ``tls``, ``ca``, ``ack_wait``, ``creds`` (a file)."""
        del options
        return cls(Place.of(url, _PORT, ["creds"]))

    async def connect(self) -> None:
        """Connects; from then on the client connects again by itself."""
        place = self._place
        facts: dict[str, Any] = {"user_credentials": place.options.get("creds"), "tls": place.tls}
        if place.user and not place.password:
            facts["token"] = place.user
        elif place.user:
            facts |= {"user": place.user, "password": place.password}

        async def note(error: Exception) -> None:
            self._trouble = str(error) or type(error).__name__

        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                self._connection = await nats.connect(
                    [f"nats://{host}" for host in place.hosts], error_cb=note, max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1, connect_timeout=2, **facts,
                )  # fmt: skip
        except (OSError, TimeoutError, Error) as error:
            told = str(error) or self._trouble or "no answer"
            if "authorization" in (told + self._trouble).lower():
                raise Unauthorized(
                    f"{place} does not let us in", hint="nats://user:password@… or ?creds=FILE"
                ) from None
            raise Unreachable(f"{place} cannot be reached: {told}", hint="is the broker running there?") from None
        self._jetstream = self._connection.jetstream(timeout=_CONFIRM_SECONDS)
        with self._reached():
            await self._ensure_stream()

    async def _ensure_stream(self) -> None:
        try:
            await self._jetstream.find_stream_name_by_subject(self._place.subject)
        except NotFoundError:
            name = re.sub(r"[^A-Za-z0-9_-]+", "_", self._place.subject)
            with contextlib.suppress(BadRequestError):  # another process was faster
                await self._jetstream.add_stream(StreamConfig(name=name, subjects=[self._place.subject]))

    async def subscribe(self, group: str) -> None:
        """Joins the durable consumer; it is created when there is none."""
        wanted = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=self._place.ack_seconds, max_ack_pending=10_000)
        with self._reached():
            self._messages = await self._jetstream.pull_subscribe(
                self._place.subject, durable=re.sub(r"[^A-Za-z0-9_-]+", "_", group), config=wanted
            )

    async def receive(self, most: int, seconds: float) -> list[Message]:
        """The next messages: what is there, else the first that comes."""
        with self._reached():
            try:
                found = await self._messages.fetch(most, timeout=_SOME_SECONDS)
            except (NatsTimeout, TimeoutError):
                try:
                    found = await self._messages.fetch(1, timeout=seconds)
                except (NatsTimeout, TimeoutError):
                    if not self._connection.is_connected:
                        raise Unreachable(f"{self._place} is away", hint="it is connected to again") from None
                    return []
        return [self._message(item) for item in found]

    def _message(self, item: Msg) -> Message:
        facts = item.metadata
        sequence = f"{facts.stream}/{facts.sequence.stream}"
        self._given[sequence] = item
        time = int(facts.timestamp.timestamp() * 1e6)
        headers = {name.lower(): value for name, value in (item.headers or {}).items()}
        known = headers.pop(ID_HEADER, "") or headers.get(_DUPLICATE.lower(), "")
        headers.pop(_DUPLICATE.lower(), None)
        return Message(
            id=known or f"{sequence}/{time:x}", data=item.data, headers=headers, subject=item.subject,
            sequence=sequence, time=time, deliveries=facts.num_delivered or 0,
        )  # fmt: skip

    async def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledges each."""
        with self._reached():
            for message in messages:
                if item := self._given.pop(message.sequence, None):
                    await item.ack()

    async def nak(self, messages: Sequence[Message]) -> None:
        """Has each delivered again."""
        with self._reached():
            for message in messages:
                if item := self._given.pop(message.sequence, None):
                    await item.nak()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publishes all, then waits for all confirmations."""
        subject = self._place.subject
        coming: list[asyncio.Future[Any]] = []
        with self._reached():
            try:
                async with asyncio.timeout(_CONFIRM_SECONDS):
                    for message in messages:
                        # The broker tells doubles by this id within the whole stream, which may hold other subjects.
                        told = {_DUPLICATE: f"{subject}/{message.id}", ID_HEADER: message.id, **message.headers}
                        coming.append(await self._jetstream.publish_async(subject, message.data, headers=told))
                    await asyncio.gather(*coming)
            except MaxPayloadError as error:
                raise InvalidInput(f"{self._place} refuses a message: {error}", hint="raise its max_payload") from None
            finally:
                for future in coming:
                    future.cancel()

    async def close(self) -> None:
        """Leaves the consumer, which stays."""
        if self._connection is not None:
            with contextlib.suppress(Error, TimeoutError, OSError):
                await asyncio.wait_for(self._connection.flush(), 1)  # acknowledgements that are still on their way
            await self._connection.close()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (Error, APIError, OSError, TimeoutError, json.JSONDecodeError) as error:
            told = str(error) or self._trouble or type(error).__name__
            raise Unreachable(
                f"{self._place} does not answer: {told}",
                hint="is the broker well, and JetStream on (`-js`)?",
            ) from None
