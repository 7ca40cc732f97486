"""What channels and their messages are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed
from mainspring.monitoring.model import Severity


class Channel(Entity):
    """Where messages go.

    Attributes:
        name: Unique name.
        url: ``webhook:https://…``, ``slack:${NAME}``, ``teams:${NAME}``, ``smtp://…`` or ``log:``. ``${NAME}`` stands
            for the environment variable ``MAINSPRING_SECRET_NAME`` of the process that sends; it is never stored.
        secret: NAME of the secret that messages are signed with, where the receiver checks that.
        severities: What it takes.
        deployments: Whose incidents it takes; all when empty.
        budget: Messages an hour; what is more is joined into one.
        digest: How often what is of severity ``digest`` is sent.
        digest_hour: At which hour (UTC); weekly on Mondays.
        private: Whether the receiver may be at a private address.
        enabled: Whether it takes messages.
    """

    __table__: ClassVar[str] = "channel"
    __unique__ = (("name",),)
    name: Fixed[Name]
    url: str
    secret: str = ""
    severities: tuple[Severity, ...] = ("page", "ticket", "digest")
    deployments: list[str] = []
    budget: int = 20
    digest: Literal["daily", "weekly"] = "daily"
    digest_hour: int = 7
    private: bool = False
    enabled: bool = True


class Message(Entity):
    """One message to one channel; its id is what the receiver knows it by.

    Attributes:
        channel: Name of the channel.
        key: What it tells of, such as the id of an event: at most one message for a channel and key.
        type: Sort of event.
        severity: How grave it is.
        subject: One line.
        text: A few lines.
        facts: Name -> value.
        link: Page with everything about it.
        status: ``waiting`` to be sent, ``held`` for a digest, ``joined`` to one, ``sent``, or ``failed`` for good.
        due: When it may be sent (again), or when the digest is due.
        attempts: How often it was tried.
        sent: When it was taken.
        error: Why it was not.
        digest: Id of the message that it was joined to.
        pressed: Buttons of it that were used.
    """

    __table__: ClassVar[str] = "message"
    __unique__ = (("channel", "key"),)
    __index__ = (("status", "due"), ("channel", "sent"))
    channel: str
    key: str
    type: str
    severity: Severity
    subject: str
    due: datetime
    text: str = ""
    facts: dict[str, Any] = {}
    link: str = ""
    status: Literal["waiting", "held", "joined", "sent", "failed"] = "waiting"
    attempts: int = 0
    sent: datetime | None = None
    error: str = ""
    digest: str = ""
    pressed: list[str] = []
