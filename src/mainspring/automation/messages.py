"""Messages of a broker make rules fire: each once, however often the broker delivers it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from mainspring.automation.hooks import plain_message
from mainspring.automation.service import Rules
from mainspring.errors import InvalidInput

log = logging.getLogger("mainspring.messages")


class Messages(Protocol):
    """Where messages come from."""

    def receive(self) -> Iterator[tuple[str, str, bytes]]:
        """Messages as they come: subject, the broker's id of the message, content. May end, when none waits."""
        ...

    def ack(self, identity: str) -> None:
        """Says that a message was dealt with and need not come again."""
        ...


def consume(rules: Rules, name: str, messages: Messages) -> int:
    """Hands the messages that come to a rule until the source ends; returns how many it took.

    A message is acknowledged after the firing that it makes is stored. Killed in between, the broker delivers it again,
    and the rule knows it by its id. A message that can never be read is acknowledged too, or it would come for ever.
    """
    taken = 0
    for subject, identity, content in messages.receive():
        try:
            taken += rules.deliver(name, plain_message(subject, identity, content)).status == "accepted"
        except InvalidInput as error:
            log.warning("message %s of %s is left: %s", identity, subject, error.message)
        messages.ack(identity)
    return taken
