"""The log of the process, for trying out and for those who collect logs."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mainspring.ports.notifier import Notification

log = logging.getLogger("mainspring.notifications")
_LEVELS = {"page": logging.ERROR, "ticket": logging.WARNING, "digest": logging.INFO}


class LogNotifier:
    """Writes each notification as a line."""

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> LogNotifier:
        """``log:``."""
        del url, options
        return cls()

    def send(self, notification: Notification) -> None:
        """See `Notifier.send`."""
        parts = (notification.subject, *notification.text.splitlines(), notification.link)
        line = " | ".join(filter(None, (" ".join(part.split()) for part in parts)))  # a message is one line of the log
        log.log(_LEVELS[notification.severity], "%s %s", notification.id, line)
