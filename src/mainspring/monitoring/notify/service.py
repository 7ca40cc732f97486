"""Operations on channels, and the outbox: messages are written with what they tell of, and sent from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mainspring.core.entity import Create, Patch, born
from mainspring.core.events import Event
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.errors import MainspringError, Refused
from mainspring.monitoring.incidents import Incidents
from mainspring.monitoring.model import Incident, Severity
from mainspring.monitoring.notify import rules
from mainspring.monitoring.notify.letter import letter
from mainspring.monitoring.notify.model import Channel, Message
from mainspring.ports.notifier import Notification, Notifier
from mainspring.store import Store
from mainspring.store.transaction import Transaction

CURSOR = "notifications"
LISTING = "mainspring notifications list"
_PAGE = 500
_MOST = 50
"""Messages of a channel that one look sends: a burst must not keep the controller from its other work."""


class Notifications:
    """Channels and the messages that go to them.

    Args:
        store: The database.
        incidents: Tells what messages say.
        notifier: Gives the notifier for an address and its options.
        page_url: Address of the pages, without a slash at the end.
        buttons: Label -> address, for what a message can have done.
    """

    def __init__(
        self, store: Store, incidents: Incidents, notifier: Callable[..., Notifier], page_url: str = "",
        buttons: Callable[[Message], dict[str, str]] = lambda _: {},
    ) -> None:  # fmt: skip
        self._store = store
        self._incidents = incidents
        self._notifier = notifier
        self._page_url = page_url
        self._buttons = buttons

    @operation("POST", "/channels")
    def create(self, new: Create[Channel]) -> Channel:
        """Creates a channel; it hears of what happens from now on."""
        channel = born(Channel, new, id=new_id(), created=self._store.clock.now())
        rules.check_channel(channel)
        with self._store.transaction() as tx:
            if not self._store.count(Channel):  # nobody was told so far, and nobody asks for what is past
                newest = self._store.events(newest=True, limit=1)
                tx.advance(CURSOR, newest[0].seq if newest else 0)
            tx.insert(channel)
            tx.emit("monitoring.channel.created", channel.name, severities=channel.severities)
        return channel

    @operation("PATCH", "/channels/{name}")
    def update(self, name: str, change: Patch[Channel]) -> Channel:
        """Changes a channel."""
        with self._store.transaction() as tx:
            channel = tx.patch(self.show(name), change, "monitoring.channel.changed", name)
            rules.check_channel(channel)  # raising here takes the change back
        return channel

    @operation("GET", "/channels", command="list")
    def find(self, limit: int = 100) -> list[Channel]:
        """Lists channels by name."""
        return self._store.find(Channel, order="name", limit=limit)

    @operation("GET", "/channels/{name}")
    def show(self, name: str) -> Channel:
        """Shows a channel; secrets are named, never told."""
        return self._store.get(Channel, name=name, listing=LISTING)

    @operation("POST", "/channels/{name}/test", command="test")
    def test(self, name: str) -> Channel:
        """Sends a test message, now.

        Raises:
            Unreachable: The receiver does not answer.
            Refused: It does not take the message.
        """
        channel = self.show(name)
        told = Notification(
            id=new_id(), time=self._store.clock.now(), type="monitoring.channel.tested", severity="digest",
            subject=f"Test of channel {name}", text="If you can read this, the channel works.",
            link=self._page_url, source=self._page_url,
        )  # fmt: skip
        self._open(channel).send(told)
        return channel

    @operation("GET", "/messages", command="messages")
    def messages(self, channel: str = "", status: str = "", limit: int = 100) -> list[Message]:
        """Lists messages, newest first."""
        asked = {"channel": channel, "status": status}
        equals: dict[str, Any] = {key: value for key, value in asked.items() if value}
        return self._store.find(Message, order="-created", limit=limit, **equals)

    def send(
        self,
        subject: str,
        text: str,
        severity: Severity,
        facts: dict[str, Any],
        channels: list[str],
        key: str,
    ) -> None:
        """Puts a message into the outbox, once for each key (for automation; not an operation).

        Args:
            subject: One line.
            text: A few lines.
            severity: How grave it is.
            facts: Name -> value, for programs.
            channels: Names of channels; all that take the severity when empty.
            key: The same key sent again sends nothing.

        Raises:
            NotFound: There is no such channel.
        """
        named = [self.show(name) for name in channels]
        found = named or [item for item in self.find(limit=1000) if rules.takes(item, severity, "")]
        with self._store.transaction() as tx:
            self._put(tx, found, key, "automation.message", severity, subject, text, facts, "")

    def tick(self) -> None:
        """Writes messages for what has happened and sends what is due (for the controller)."""
        channels = self.find(limit=1000)
        if not channels:
            return
        while self._notice(channels):
            pass
        for channel in channels:
            self._join_held(channel)
            self._deliver(channel)

    def _notice(self, channels: list[Channel]) -> bool:
        """Reads events since the last time; a message is written in the transaction that moves the cursor."""
        events = self._store.events(after=self._store.cursor(CURSOR), limit=_PAGE)
        if not events:
            return False
        with self._store.transaction() as tx:
            for event in events:
                if event.type.startswith("monitoring.incident."):
                    self._tell(tx, channels, event)
            tx.advance(CURSOR, events[-1].seq)
        return len(events) == _PAGE

    def _tell(self, tx: Transaction, channels: list[Channel], event: Event) -> None:
        incident = self._store.first(Incident, name=event.subject)
        if incident is None:
            return
        begins = rules.told(event.type, bool(event.data.get("raised")), incident, event.time)
        severity: Severity = event.data["severity"]
        found = [
            item for item in channels if item.created <= event.time and rules.takes(item, severity, incident.deployment)
        ]
        if begins is None or not found:
            return
        told = letter(self._store, self._incidents, incident, begins)
        link = f"{self._page_url}/incidents/{incident.name}" if self._page_url else ""
        self._put(tx, found, event.id, event.type, severity, told.subject, told.text, told.facts, link)

    def _put(
        self, tx: Transaction, channels: Iterable[Channel], key: str, kind: str, severity: Severity, subject: str,
        text: str, facts: dict[str, Any], link: str,
    ) -> None:  # fmt: skip
        now = self._store.clock.now()
        for channel in channels:
            if self._store.first(Message, channel=channel.name, key=key):
                continue
            status, due = rules.placed(channel, severity, now)
            tx.insert(
                Message(
                    id=new_id(), created=now, channel=channel.name, key=key, type=kind, severity=severity,
                    subject=subject, text=text, facts=facts, link=link, status=status, due=due,
                )
            )  # fmt: skip

    def _join_held(self, channel: Channel) -> None:
        """Makes one message of what was held for a digest, once that is due and there is room."""
        now = self._store.clock.now()
        columns = self._store.columns(Message)
        if not self._room(channel).left:
            return
        with self._store.transaction() as tx:
            held = self._store.find(Message, columns.due <= now, channel=channel.name, status="held", order="created")
            if not held:
                return
            severity, subject, text = rules.joined(held)
            whole = Message(
                id=new_id(), created=now, channel=channel.name, key=f"digest {held[0].id}",
                type="monitoring.digest", severity=severity, subject=subject, text=text, due=now,
                facts={"messages": [item.facts for item in held]}, link=held[0].link if len(held) == 1 else "",
            )  # fmt: skip
            tx.insert(whole)
            for item in held:
                tx.update(msgspec.structs.replace(item, status="joined", digest=whole.id))

    def _room(self, channel: Channel) -> rules.Room:
        now = self._store.clock.now()
        columns = self._store.columns(Message)
        recent = (columns.sent > now - rules.HOUR, columns.status == "sent")
        sent = self._store.find(Message, *recent, channel=channel.name, order="-sent", limit=max(channel.budget, 1))
        return rules.room(channel, [item.sent for item in sent if item.sent], now)

    def _deliver(self, channel: Channel) -> None:
        now = self._store.clock.now()
        columns = self._store.columns(Message)
        due = self._store.find(
            Message, columns.due <= now, channel=channel.name, status="waiting", order="created", limit=_MOST
        )
        for item in sorted(due, key=lambda item: item.severity != "page"):
            left, free = self._room(channel)
            if not left:
                self._hold(item, free)
            elif not self._send(channel, item):
                return  # the others would fail in the same way: they wait for the next look

    def _hold(self, message: Message, free: Any) -> None:
        """More than the budget: it waits to be joined with the others; what is joined already just waits."""
        status = "waiting" if message.type == "monitoring.digest" else "held"
        with self._store.transaction() as tx:
            tx.update(msgspec.structs.replace(message, status=status, due=free))

    def _send(self, channel: Channel, message: Message) -> bool:
        """Sends a message; False when that did not go well and may later.

        That it is tried is on record before it is tried, so a second controller, or one after a kill, waits its turn.
        """
        now = self._store.clock.now()
        with self._store.transaction() as tx:
            message = self._store.get(Message, id=message.id)
            if message.status != "waiting" or message.due > now:
                return True
            tried = message.attempts + 1
            message = tx.update(msgspec.structs.replace(message, attempts=tried, due=now + rules.wait(tried - 1)))
        try:
            told = Notification(
                id=message.id, time=message.created, type=message.type, severity=message.severity,
                subject=message.subject, text=message.text, facts=message.facts, link=message.link,
                buttons=self._buttons(message), source=self._page_url,
            )  # fmt: skip
            self._open(channel).send(told)
        except Refused as error:
            self._settle(message, "failed", error.message)
            return True
        except Exception as error:  # noqa: BLE001 - one strange notifier must not keep messages from the other channels
            again = message.attempts < rules.MAX_ATTEMPTS
            told_error = error.message if isinstance(error, MainspringError) else f"{type(error).__name__}: {error}"
            self._settle(message, "waiting" if again else "failed", told_error)
            return False
        self._settle(message, "sent", "")
        return True

    def _settle(self, message: Message, status: str, error: str) -> None:
        sent = self._store.clock.now() if status == "sent" else None
        with self._store.transaction() as tx:
            tx.update(msgspec.structs.replace(message, status=status, error=error, sent=sent))
            if status == "failed":
                tx.emit("monitoring.message.failed", message.channel, message=message.id, error=error)

    def _open(self, channel: Channel) -> Notifier:
        options = {"private": "1" if channel.private else ""}
        if channel.secret:
            options["secret"] = rules.filled(f"${{{channel.secret}}}", os.environ)
        return self._notifier(rules.filled(channel.url, os.environ), **options)
