"""Messages of brokers make rules fire: each once, however often the broker delivers it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable

from mainspring.automation.hooks import plain_message
from mainspring.automation.service import Rules
from mainspring.errors import InvalidInput, MainspringError, NotFound
from mainspring.monitoring.notify.rules import filled
from mainspring.ports.stream import Message, Stream

log = logging.getLogger("mainspring.messages")
_MOST = 100
_WAIT_SECONDS = 1.0
_LOOK_SECONDS = 2.0
_PAUSE_SECONDS = 5.0


def take(rules: Rules, name: str, message: Message) -> bool:
    """Hands a message to a rule; whether the rule took it. One that can never be read is left, with a warning."""
    try:
        return rules.deliver(name, plain_message(message.subject, message.id, message.data)).status == "accepted"
    except (InvalidInput, NotFound) as error:
        log.warning("message %s of %s is left: %s", message.id, message.subject, error.message)
        return False


async def follow(rules: Rules, name: str, stream: Stream) -> None:
    """Hands what comes to a rule, until it is cancelled.

    A message is acknowledged after the firing that it makes is stored. Killed in between, the broker delivers it again,
    and the rule knows it by its id.
    """
    await stream.connect()
    await stream.subscribe(f"mainspring-rule-{name}")
    while True:
        for message in await stream.receive(_MOST, _WAIT_SECONDS):
            await asyncio.to_thread(take, rules, name, message)
            await stream.ack([message])


class Listener:
    """Follows the streams of all rules that are switched on, in a thread of its own; changes count within seconds.

    Args:
        rules: The rules.
        resolve: Gives the adapter for an address.
    """

    def __init__(self, rules: Rules, resolve: Callable[[str], Stream]) -> None:
        self._rules = rules
        self._resolve = resolve
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="messages", daemon=True)

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()

    def close(self) -> None:
        """Stops, after the messages that are being handed on."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    async def _run(self) -> None:
        running: dict[tuple[str, str], asyncio.Task[None]] = {}
        while not self._stop.is_set():
            try:
                wanted = await asyncio.to_thread(self._wanted)
            except MainspringError as error:  # the database is away: what runs goes on
                log.warning("%s", error.message)
                wanted = set(running)
            for gone in running.keys() - wanted:
                await _end(running.pop(gone))
            for name, address in wanted - running.keys():
                running[name, address] = asyncio.create_task(self._keep(name, address))
            await asyncio.to_thread(self._stop.wait, _LOOK_SECONDS)
        for task in running.values():
            await _end(task)

    def _wanted(self) -> set[tuple[str, str]]:
        """Rule and address of every stream that is to be followed."""
        return {
            (rule.name, trigger.stream)
            for rule in self._rules.find(limit=10_000)
            if rule.enabled
            for trigger in rule.when
            if trigger.stream
        }

    async def _keep(self, name: str, address: str) -> None:
        """Follows a stream, again after it failed; a failure is told once as long as it stays the same."""
        told = ""
        while True:
            stream = None
            try:
                stream = self._resolve(filled(address, os.environ))
                await follow(self._rules, name, stream)
            except MainspringError as error:
                if error.message != told:
                    told = error.message
                    log.warning("rule %s does not hear its stream: %s; %s", name, error.message, error.hint)
            finally:
                if stream is not None:
                    with contextlib.suppress(MainspringError):
                        await stream.close()
            await asyncio.sleep(_PAUSE_SECONDS)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
