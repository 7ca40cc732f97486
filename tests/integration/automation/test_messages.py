"""Brokers make rules fire."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mainspring.automation.messages import Listener
from mainspring.automation.model import Rule, Trigger
from mainspring.core.entity import change, draft
from mainspring.errors import InvalidInput
from mainspring.ports.plugins import resolve
from mainspring.ports.stream import Message


def publish(address: str, *messages: Message) -> None:
    async def send() -> None:
        stream = resolve("streams", address)
        await stream.connect()
        await stream.publish(messages)
        await stream.close()

    asyncio.run(send())


def declare(mill: Any, address: str) -> None:
    trigger = Trigger(on="message", source="sold*", stream=address)
    mill.workspace.rules.create(draft(Rule, name="sold", when=[trigger], pipeline="train", only_new_data=False))


@pytest.fixture
def listening(mill: Any) -> Iterator[Callable[[], None]]:
    running: list[Listener] = []

    def start() -> None:
        running.append(Listener(mill.workspace.rules, functools.partial(resolve, "streams")))
        running[-1].start()

    yield start
    for listener in running:
        listener.close()


def causes(mill: Any, count: int) -> list[str]:
    """The causes of the rule's firings, as soon as there are so many."""
    for _ in range(400):
        found = sorted(item.cause for item in mill.workspace.rules.firings("sold"))
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{found} after 20 seconds")


@pytest.mark.parametrize("kind", ["file", "nats", "redis", pytest.param("kafka", marks=pytest.mark.storm)])
def test_a_message_fires_a_rule_once(
    mill: Any, listening: Callable[[], None], request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    broker = None if kind == "file" else request.getfixturevalue(f"{kind}_broker")
    address = broker.url(f"sold-{time.monotonic_ns()}", ack_wait=6) if broker else f"file://{tmp_path}/sold"
    declare(mill, address)
    publish(address, Message(id="m-1", data=b'{"n": 1}'), Message(id="m-2", data=b"not JSON"))
    listening()
    assert len(causes(mill, 2)) == 2
    publish(address, Message(id="m-1", data=b'{"n": 1}'), Message(id="m-3", data=b"{}"))
    assert len(causes(mill, 3)) == 3


def test_a_rule_that_is_switched_off_hears_nothing_and_the_rest_later(
    mill: Any, listening: Callable[[], None], tmp_path: Path
) -> None:
    address = f"file://{tmp_path}/sold"
    declare(mill, address)
    mill.workspace.rules.update("sold", change(Rule, enabled=False))
    publish(address, Message(id="m-1", data=b"{}"))
    listening()
    time.sleep(0.3)
    assert mill.workspace.rules.firings("sold") == []
    mill.workspace.rules.update("sold", change(Rule, enabled=True))
    assert len(causes(mill, 1)) == 1


@pytest.mark.parametrize(
    ("trigger", "why"),
    [
        ({"on": "data", "stream": "nats://a/b"}, "only messages"),
        ({"on": "message", "stream": "nats://ann:secret@a/b"}, "password is not stored"),
    ],
)
def test_streams_that_cannot_be(mill: Any, trigger: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        mill.workspace.rules.create(draft(Rule, name="sold", when=[Trigger(**trigger)], pipeline="train"))
