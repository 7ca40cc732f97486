"""The contract of `mainspring.ports.stream.Stream`, as tests.

A subclass of `StreamContract` gives the fixture ``url``: the address of a subject that is not there yet, whose broker
hands out again after about a second what was not acknowledged (``?ack_wait=1``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mainspring.ports.plugins import resolve
from mainspring.ports.stream import Message, Stream

PATIENCE_SECONDS = 30.0


async def joined(url: str, group: str = "readers") -> Stream:
    """A member of a group."""
    stream: Stream = resolve("streams", url)
    try:
        await stream.connect()
        await stream.subscribe(group)
    except BaseException:
        await stream.close()
        raise
    return stream


async def collect(stream: Stream, count: int, *, ack: bool = True) -> list[Message]:
    """Receives until there are so many messages."""
    found: list[Message] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages came"
        some = await stream.receive(count - len(found), 0.5)
        if ack:
            await stream.ack(some)
        found += some
    return found


async def published(url: str, messages: list[Message]) -> None:
    """Publishes over a connection of its own."""
    stream: Stream = resolve("streams", url)
    try:
        await stream.connect()
        await stream.publish(messages)
    finally:
        await stream.close()


def numbered(count: int, start: int = 0) -> list[Message]:
    """Messages with the ids ``m0``, ``m1`` and so on."""
    return [Message(id=f"m{number}", data=b"%d" % number) for number in range(start, start + count)]


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Runs a coroutine function in a loop of its own."""

    async def whole() -> Any:
        return await work()

    return asyncio.run(whole())


class StreamContract:
    """What every stream must do. Subclasses give the fixture ``url``."""

    def test_messages_come_whole_and_in_order(self, url: str) -> None:
        async def work() -> None:
            sent = [
                Message(id="first", data=b'{"a": 1}', headers={"colour": "blue"}),
                Message(id="second", data=bytes(range(256))),
                Message(id="third", data=b""),
            ]
            before = time.time_ns() // 1000
            await published(url, sent)
            stream = await joined(url)
            found = await collect(stream, 3)
            assert [(item.id, item.data) for item in found] == [(item.id, item.data) for item in sent]
            assert found[0].headers["colour"] == "blue"
            assert len({item.sequence for item in found}) == 3
            assert all(before - 1_000_000 < item.time < before + 60_000_000 for item in found)
            assert await stream.receive(10, 0.1) == []
            await stream.close()

        run(work)

    def test_every_group_gets_everything(self, url: str) -> None:
        async def work() -> None:
            await published(url, numbered(5))
            for group in ("one", "two"):
                stream = await joined(url, group)
                assert [item.id for item in await collect(stream, 5)] == ["m0", "m1", "m2", "m3", "m4"]
                await stream.close()

        run(work)

    def test_what_is_acknowledged_does_not_come_again(self, url: str) -> None:
        async def work() -> None:
            await published(url, numbered(6))
            first = await joined(url)
            await collect(first, 3)
            await first.close()
            second = await joined(url)
            assert [item.id for item in await collect(second, 3)] == ["m3", "m4", "m5"]
            await second.close()

        run(work)

    def test_what_a_member_left_undone_goes_to_another_with_the_same_names(self, url: str) -> None:
        async def work() -> None:
            await published(url, numbered(4))
            first = await joined(url)
            held = await collect(first, 4, ack=False)
            await first.ack(held[:1])
            await first.close()
            second = await joined(url)
            again = await collect(second, 3)
            told = {(item.id, item.sequence, item.time) for item in held[1:]}
            assert {(item.id, item.sequence, item.time) for item in again} == told
            assert all(item.deliveries != 1 for item in again)
            await second.close()

        run(work)

    def test_what_is_given_back_comes_again(self, url: str) -> None:
        async def work() -> None:
            await published(url, numbered(3))
            stream = await joined(url)
            held = await collect(stream, 3, ack=False)
            await stream.ack(held[:1])
            await stream.nak(held[1:])
            again = await collect(stream, 2)
            assert {item.id for item in again} == {"m1", "m2"}
            assert await stream.receive(10, 0.1) == []
            await stream.close()

        run(work)

    def test_what_is_acknowledged_twice_or_late_does_no_harm(self, url: str) -> None:
        async def work() -> None:
            await published(url, numbered(2))
            stream = await joined(url)
            held = await collect(stream, 2)
            await stream.ack(held)
            await stream.nak(held[:0])
            await stream.ack([])
            await published(url, numbered(1, 2))
            assert [item.id for item in await collect(stream, 1)] == ["m2"]
            await stream.close()

        run(work)

    def test_who_waits_hears_soon(self, url: str) -> None:
        async def work() -> None:
            stream = await joined(url)
            waiting = asyncio.create_task(stream.receive(100, 20.0))
            await asyncio.sleep(0.3)
            start = time.monotonic()
            await published(url, numbered(1))
            assert [item.id for item in await waiting] == ["m0"]
            assert time.monotonic() - start < 10
            await stream.close()

        run(work)
