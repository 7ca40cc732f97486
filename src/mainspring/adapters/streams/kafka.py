"""Streams on Kafka and what speaks its protocol: a topic, read by a consumer group with offsets committed by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.ids import new_id
from mainspring.errors import InvalidInput, MissingExtra, Unauthorized, Unreachable
from mainspring.ports.stream import ID_HEADER, Message, Place

try:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.errors import (
        AuthenticationFailedError,
        CommitFailedError,
        IllegalStateError,
        KafkaError,
        MessageSizeTooLargeError,
    )
except ModuleNotFoundError:
    raise MissingExtra.named("streams on Kafka", "kafka") from None

_PORT = 9092
_SECONDS = 10_000  # in milliseconds, as the client wants it


class _Partition:
    """What of a partition was handed out: its offsets in order, and which of them are done."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.done: set[int] = set()

    def settle(self) -> int | None:
        """The offset to commit, when all before it are done; None while the first is not."""
        last = None
        while self.given and self.given[0] in self.done:
            last = self.given.pop(0)
            self.done.discard(last)
        return None if last is None else last + 1


class KafkaStream:
    """A topic.

    Args:
        place: The address.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._consumer: Any = None
        self._producer: Any = None
        self._partitions: dict[Any, _Partition] = {}

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> KafkaStream:
        """``kafka://[user:password@]host[:port]/topic``; options ``tls``, ``ca``, ``ack_wait``, ``mechanism``."""
        del options
        return cls(Place.of(url, _PORT, ["mechanism"]))

    def _facts(self) -> dict[str, Any]:
        place, context = self._place, self._place.tls
        kind = ("SASL_SSL" if context else "SASL_PLAINTEXT") if place.user else ("SSL" if context else "PLAINTEXT")
        facts: dict[str, Any] = {
            "bootstrap_servers": list(place.hosts),
            "security_protocol": kind,
            "ssl_context": context,
            "request_timeout_ms": _SECONDS,
        }
        if place.user:
            facts |= {"sasl_plain_username": place.user, "sasl_plain_password": place.password}
            facts["sasl_mechanism"] = place.options.get("mechanism", "PLAIN")
        return facts

    async def connect(self) -> None:
        """Connects, and creates the topic when there is none."""
        with self._reached():
            admin = AIOKafkaAdminClient(**self._facts())
            try:
                await admin.start()
                if self._place.subject not in await admin.list_topics():
                    await admin.create_topics([NewTopic(self._place.subject, 1, 1)])
            finally:
                await admin.close()

    async def subscribe(self, group: str) -> None:
        """Joins the consumer group."""
        consumer = AIOKafkaConsumer(
            group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
            session_timeout_ms=int(self._place.ack_seconds * 1000), heartbeat_interval_ms=1000, **self._facts(),
        )  # fmt: skip
        consumer.subscribe([self._place.subject], listener=_Forget(self._partitions))
        with self._reached():
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
        self._consumer = consumer

    async def receive(self, most: int, seconds: float) -> list[Message]:
        """The next records."""
        with self._reached():
            told = await self._consumer.getmany(timeout_ms=int(seconds * 1000), max_records=most)
        found = []
        for partition, records in told.items():
            state = self._partitions.setdefault(partition, _Partition())
            state.given += [record.offset for record in records]
            found += [self._message(partition, record) for record in records]
        return found

    def _message(self, partition: Any, record: Any) -> Message:
        sequence = f"{partition.partition}/{record.offset}"
        headers = {name.lower(): value.decode("utf-8", "replace") for name, value in record.headers}
        known = headers.pop(ID_HEADER, "")
        return Message(
            id=known or f"{partition.topic}/{sequence}/{record.timestamp:x}", data=record.value or b"", headers=headers,
            subject=partition.topic, sequence=sequence, time=max(0, record.timestamp) * 1000,
        )  # fmt: skip

    async def ack(self, messages: Sequence[Message]) -> None:
        """Commits what is done in a row; a partition that has moved to another member is theirs."""
        touched = {}
        for message in messages:
            partition, offset = self._where(message)
            if state := self._partitions.get(partition):
                state.done.add(offset)
                touched[partition] = state
        offsets = {partition: found for partition, state in touched.items() if (found := state.settle()) is not None}
        if offsets:
            with self._reached(), contextlib.suppress(CommitFailedError, IllegalStateError):
                await self._consumer.commit(offsets)

    async def nak(self, messages: Sequence[Message]) -> None:
        """Goes back to the first of them in each partition."""
        first: dict[Any, int] = {}
        for message in messages:
            partition, offset = self._where(message)
            first[partition] = min(offset, first.get(partition, offset))
        for partition, offset in first.items():
            if state := self._partitions.get(partition):
                state.given = [given for given in state.given if given < offset]
                state.done = {done for done in state.done if done < offset}
                with contextlib.suppress(IllegalStateError):
                    self._consumer.seek(partition, offset)

    def _where(self, message: Message) -> tuple[Any, int]:
        number, _, offset = message.sequence.partition("/")
        return TopicPartition(message.subject, int(number)), int(offset)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Sends all, then waits until all replicas that must have them do."""
        with self._reached():
            if self._producer is None:
                producer = AIOKafkaProducer(acks="all", **self._facts())
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            coming = [await self._sent(message) for message in messages]
            await asyncio.gather(*coming)

    async def _sent(self, message: Message) -> Any:
        known = message.id or new_id()
        headers = [(name, value.encode()) for name, value in {**message.headers, ID_HEADER: known}.items()]
        try:
            return await self._producer.send(self._place.subject, message.data, key=known.encode(), headers=headers)
        except MessageSizeTooLargeError as error:
            raise InvalidInput(f"{self._place} refuses a message: {error}", hint="raise its message size") from None

    async def close(self) -> None:
        """Leaves the group."""
        for part in (self._consumer, self._producer):
            if part is not None:
                with contextlib.suppress(KafkaError, OSError):
                    await part.stop()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationFailedError:
            raise Unauthorized(f"{self._place} does not let us in", hint="kafka://user:password@host/topic") from None
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unreachable(f"{self._place} does not answer: {error}", hint="is the broker running there?") from None


class _Forget(ConsumerRebalanceListener):  # type: ignore[misc]
    """Forgets what was handed out of partitions that go to others."""

    def __init__(self, partitions: dict[Any, _Partition]) -> None:
        self._partitions = partitions

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self._partitions.clear()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self._partitions.clear()
