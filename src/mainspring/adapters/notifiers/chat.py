"""Slack and Microsoft Teams, through the incoming webhook of a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from mainspring.ports.notifier import PRIVATE_HINT, Notification
from mainspring.ports.outbound import check, post

_MOST = 2900  # of a section's 3,000 characters
_COLOURS = {"page": "attention", "ticket": "warning", "digest": "default"}


class _Chat:
    """Posts a message to the address of a chat's incoming webhook.

    Args:
        url: The address; it is the secret.
        private: Whether private addresses are allowed.
    """

    def __init__(self, url: str, private: bool) -> None:
        check(url)
        self._url = url
        self._private = private

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> Self:
        """``slack:${NAME}`` or ``teams:${NAME}``, where the secret NAME holds the address."""
        return cls(url.partition(":")[2], options.get("private") == "1")

    def send(self, notification: Notification) -> None:
        """See `Notifier.send`."""
        body = msgspec.json.encode(self.message(notification))
        post(
            self._url,
            body,
            {"content-type": "application/json; charset=utf-8"},
            private=self._private,
            hint=PRIVATE_HINT,
        )

    def message(self, notification: Notification) -> dict[str, Any]:
        """The notification in the chat's own form."""
        raise NotImplementedError


class SlackNotifier(_Chat):
    """Posts to a Slack channel, as blocks with buttons to the page and to what can be done."""

    def message(self, notification: Notification) -> dict[str, Any]:
        """``text`` is what notifications of the phone show; what people see are the blocks."""
        head = {"type": "header", "text": {"type": "plain_text", "text": notification.subject[:150]}}
        blocks: list[dict[str, Any]] = [head]
        if notification.text:
            told = {"type": "mrkdwn", "text": _slack_text(notification.text)[:_MOST]}
            blocks.append({"type": "section", "text": told})
        if found := _links(notification):
            buttons = [
                {"type": "button", "text": {"type": "plain_text", "text": label}, "url": url} for label, url in found
            ]
            blocks.append({"type": "actions", "elements": buttons})
        blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": _footer(notification)}]})
        return {"text": _slack_text(f"{notification.severity}: {notification.subject}"), "blocks": blocks}


class TeamsNotifier(_Chat):
    """Posts to a Teams channel, as an adaptive card."""

    def message(self, notification: Notification) -> dict[str, Any]:
        """A message with one card of version 1.4."""
        colour = _COLOURS[notification.severity]
        body: list[dict[str, Any]] = [
            {"type": "TextBlock", "text": notification.subject, "weight": "bolder", "wrap": True, "color": colour}
        ]
        body += [{"type": "TextBlock", "text": line, "wrap": True} for line in notification.text.splitlines() if line]
        body.append({"type": "TextBlock", "text": _footer(notification), "isSubtle": True, "size": "small"})
        card: dict[str, Any] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": body,
        }
        if found := _links(notification):
            card["actions"] = [{"type": "Action.OpenUrl", "title": label, "url": url} for label, url in found]
        kind = "application/vnd.microsoft.card.adaptive"
        return {"type": "message", "attachments": [{"contentType": kind, "content": card}]}


def _links(notification: Notification) -> list[tuple[str, str]]:
    """Label and address: the page, and what can be done."""
    return ([("Open", notification.link)] if notification.link else []) + list(notification.buttons.items())


def _slack_text(text: str) -> str:
    """Slack asks to escape these three, and no others."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _footer(notification: Notification) -> str:
    return f"{notification.severity}, {notification.time:%Y-%m-%d %H:%M} UTC, {notification.id}"
