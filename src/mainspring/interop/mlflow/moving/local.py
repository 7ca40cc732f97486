"""This workspace as a source: what it would tell a client, asked without a server between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from mainspring.interop.mlflow import experiments, logged, messages, metrics, models, runs, traces, versions
from mainspring.interop.mlflow.moving.server import ServerSource
from mainspring.interop.mlflow.moving.wire import Fields
from mainspring.interop.mlflow.rooms import SCHEME, Rooms

_ENDPOINTS = {
    **experiments.ENDPOINTS, **runs.ENDPOINTS, **metrics.ENDPOINTS, **models.ENDPOINTS, **versions.ENDPOINTS,
    **logged.ENDPOINTS,
    **{(method, f"/api/3.0/mlflow/{path}"): found for (method, path), found in traces.ENDPOINTS.items()},
}  # fmt: skip


class _Inside:
    """Requests that are answered in this process."""

    url = "this workspace"

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def get(self, path: str, /, **fields: Any) -> Fields:
        return self.post(path, "GET", **fields)

    def post(self, path: str, method: str = "POST", /, **fields: Any) -> Fields:
        message, handle = _ENDPOINTS[method, path]
        given = {name: value for name, value in fields.items() if value is not None}
        answer = handle(self._rooms, messages.read_json(message, msgspec.json.encode(given)))
        return msgspec.json.decode(answer, type=dict[str, Any])

    def pages(self, path: str, items: str, /, *, by: str = "POST", **fields: Any) -> Iterator[Fields]:
        token = None
        while True:
            page = self.post(path, by, **fields, page_token=token)
            yield from page.get(items, ())
            token = page.get("next_page_token")
            if not token:
                return

    def close(self) -> None:
        """Nothing is open."""


class WorkspaceSource(ServerSource):
    """What is here.

    Args:
        rooms: Where.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._wire = _Inside(rooms)  # type: ignore[assignment]
        self.name = self._wire.url

    def files(self, place: str, owner: str = "") -> Iterator[tuple[str, int]]:
        if place.startswith(SCHEME):
            found = self._rooms.runs.files.place(place.removeprefix(SCHEME))
            for item in self._rooms.runs.files.under(found.run, found.path):
                yield item.path, item.size

    def open(self, place: str, path: str, owner: str = "") -> BinaryIO:
        found = self._rooms.runs.files.place(f"{place.removeprefix(SCHEME)}/{path}")
        return self._rooms.artifacts.open(self._rooms.runs.files.get(found.run, found.path).digest)
