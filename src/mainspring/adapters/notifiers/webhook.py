"""Webhooks: CloudEvents 1.0 as structured JSON, signed as Standard Webhooks describes where a secret is given."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mainspring.core.events import TYPE_PREFIX
from mainspring.ports.notifier import PRIVATE_HINT, Notification
from mainspring.ports.outbound import check, post, signed


class WebhookNotifier:
    """Posts each notification to an address.

    Args:
        url: Where to.
        private: Whether private addresses are allowed.
        secret: Key of the signature; empty for none.
    """

    def __init__(self, url: str, private: bool, secret: str) -> None:
        check(url)
        self._url = url
        self._private = private
        self._secret = secret

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> WebhookNotifier:
        """``webhook:https://example.org/hook``."""
        return cls(url.partition(":")[2], options.get("private") == "1", options.get("secret", ""))

    def send(self, notification: Notification) -> None:
        """See `Notifier.send`; the event's id is that of the notification."""
        body = msgspec.json.encode(cloudevent(notification))
        stamp = str(int(notification.time.timestamp()))
        headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
        if self._secret:
            headers |= {
                "webhook-id": notification.id,
                "webhook-timestamp": stamp,
                "webhook-signature": signed(self._secret, notification.id, stamp, body),
            }
        post(self._url, body, headers, private=self._private, hint=PRIVATE_HINT)


def cloudevent(notification: Notification) -> dict[str, object]:
    """The notification as a CloudEvent."""
    told = {
        "specversion": "1.0",
        "id": notification.id,
        "source": notification.source or "mainspring",
        "type": TYPE_PREFIX + notification.type,
        "time": notification.time.isoformat().replace("+00:00", "Z"),
        "subject": str(notification.facts.get("incident") or ""),
        "datacontenttype": "application/json",
        "data": {
            "severity": notification.severity,
            "subject": notification.subject,
            "text": notification.text,
            "link": notification.link,
            "facts": notification.facts,
        },
    }
    return {name: value for name, value in told.items() if value != ""}
