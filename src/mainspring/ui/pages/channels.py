"""Channels: who hears of what, and what was sent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy as sa

from mainspring.monitoring.notify.model import Message
from mainspring.ui.page import Page, Query
from mainspring.ui.views import tuples_of
from mainspring.workspace import Workspace


def index(workspace: Workspace, query: Query) -> Page:
    """Every channel with what it takes, and the newest messages."""
    store = workspace.store
    column = store.columns(Message)
    counted = sa.select(column.channel, column.status, sa.func.count()).group_by(column.channel, column.status)
    counts: dict[str, Counter[str]] = {}
    for channel, status, count in tuples_of(store, counted):
        counts.setdefault(channel, Counter())[status] += count
    channels: list[dict[str, Any]] = [
        {"channel": item, "counts": counts.get(item.name, {})} for item in workspace.notifications.find(500)
    ]
    wanted = query.get("channel", "")
    messages = workspace.notifications.messages(wanted, limit=100)
    failed = sum(found["failed"] for found in counts.values())
    some = "channel" if len(channels) == 1 else "channels"
    title = f"{len(channels)} {some}, {failed} messages failed" if channels else "Nobody is told yet"
    context = {"channels": channels, "messages": messages, "wanted": wanted}
    crumbs = (("Monitoring", "/monitoring"), ("Channels", ""))
    return Page(title=title, template="channels.html", context=context, section="monitoring", crumbs=crumbs)
