"""The streams of every broker, by the contract, and what is special about each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mainspring.errors import InvalidInput, Unreachable
from mainspring.ports.plugins import resolve
from mainspring.ports.stream import Message, Place, shown
from mainspring.testing.streams import StreamContract, collect, joined, numbered, published, run


class TestFolder(StreamContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return (tmp_path / "flights").as_uri()

    def test_lines_of_others_are_messages(self, url: str, tmp_path: Path) -> None:
        async def work() -> None:
            await published(url, numbered(1))
            lines = b'{"age": 41}\nnot json\n\n{"id": "x"}\n{"age": 4'
            (tmp_path / "flights" / "by-hand.jsonl").write_bytes(lines)
            stream = await joined(url)
            found = await collect(stream, 4)
            assert [item.data for item in found] == [b"0", b'{"age": 41}', b"not json", b'{"id": "x"}']
            assert len({item.id for item in found}) == 4
            with (tmp_path / "flights" / "by-hand.jsonl").open("ab") as file:
                file.write(b"1}\n")
            assert [item.data for item in await collect(stream, 1)] == [b'{"age": 41}']
            await stream.close()

        run(work)

    def test_half_a_line_of_a_dead_publisher_is_no_message(self, url: str, tmp_path: Path) -> None:
        async def work() -> None:
            await published(url, numbered(2))
            (segment,) = (tmp_path / "flights").glob("*.jsonl")
            with segment.open("ab") as file:
                file.write(b'{"id": "half", "da')
            await published(url, numbered(1, 2))
            stream = await joined(url)
            assert [item.id for item in await collect(stream, 3)] == ["m0", "m1", "m2"]
            await stream.close()

        run(work)

    def test_one_member_reads_at_a_time_and_another_takes_over(self, url: str) -> None:
        async def work() -> None:
            await published(url, numbered(2))
            first, second = await joined(url), await joined(url)
            assert len(await first.receive(1, 0.1)) == 1
            assert await second.receive(10, 0.1) == []
            await first.close()
            assert [item.id for item in await collect(second, 2)] == ["m0", "m1"]
            await second.close()

        run(work)


class TestNats(StreamContract):
    @pytest.fixture
    def url(self, nats_broker: Any) -> str:
        return nats_broker.url()

    def test_a_message_published_twice_is_there_once(self, url: str) -> None:
        async def work() -> None:
            await published(url, numbered(2))
            await published(url, numbered(3))
            stream = await joined(url)
            assert [item.id for item in await collect(stream, 3)] == ["m0", "m1", "m2"]
            assert await stream.receive(1, 0.2) == []
            await stream.close()

        run(work)

    def test_what_is_too_large_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidInput, match="refuses"):
            asyncio.run(published(url, [Message(id="large", data=bytes(2 << 20))]))


class TestRedis(StreamContract):
    @pytest.fixture
    def url(self, redis_broker: Any) -> str:
        return redis_broker.url()


def test_kafka(kafka_broker: Any) -> None:
    """The contract in one test, because each join takes seconds."""
    url = kafka_broker.url(ack_wait=6)

    async def work() -> None:
        binary = Message(id="bytes", data=bytes(range(256)), headers={"colour": "blue"})
        await published(url, [*numbered(4), binary])
        first = await joined(url)
        held = await collect(first, 5, ack=False)
        assert [item.id for item in held] == ["m0", "m1", "m2", "m3", "bytes"]
        assert (held[4].data, held[4].headers) == (binary.data, {"colour": "blue"})
        await first.ack(held[1:2])  # the first is not done, so nothing may be committed
        await first.ack(held[:1])
        await first.nak(held[3:])
        again = await collect(first, 2, ack=False)
        assert [(item.id, item.sequence) for item in again] == [(item.id, item.sequence) for item in held[3:]]
        await first.close()
        second = await joined(url)
        assert [item.id for item in await collect(second, 3)] == ["m2", "m3", "bytes"]
        assert await second.receive(1, 0.1) == []
        await second.close()

    run(work)


@pytest.mark.parametrize("scheme", ["nats", "redis", "kafka"])
def test_a_broker_that_is_not_there(scheme: str) -> None:
    with pytest.raises(Unreachable, match=rf"{scheme}://127.0.0.1:9/flights") as caught:
        asyncio.run(joined(f"{scheme}://anna:secret@127.0.0.1:9/flights"))
    assert "secret" not in caught.value.message + caught.value.hint


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable):
        asyncio.run(joined((tmp_path / "file" / "flights").as_uri()))


@pytest.mark.parametrize(
    "url", ["nats://host", "redis://host/", "kafka:///topic", "nats://host/a?colour=blue", "file://", "mqtt://host/a"]
)
def test_addresses_that_say_too_little_or_too_much(url: str) -> None:
    with pytest.raises(InvalidInput):
        resolve("streams", url)


@pytest.mark.parametrize(("option", "word"), [("ack_wait=soon", "ack_wait"), ("ca=/nowhere.pem", "ca")])
def test_options_that_cannot_be(option: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        asyncio.run(joined(f"nats://127.0.0.1:9/flights?tls=true&{option}"))


def test_addresses_are_taken_apart() -> None:
    place = Place.of("kafka://an%20na:p%40ss@one,two:77/deep/topic?tls=true&ack_wait=2", 9092)
    assert place.hosts == ("one:9092", "two:77")
    assert (place.user, place.password, place.subject) == ("an na", "p@ss", "deep/topic")
    assert (place.tls is not None, place.ack_seconds) == (True, 2.0)
    assert str(place) == "kafka://one:9092,two:77/deep/topic"
    assert shown("nats://anna:secret@host/flights?x=1") == "nats://host/flights"
