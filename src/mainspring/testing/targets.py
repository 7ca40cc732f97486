"""The contract of `mainspring.ports.target.Target`, as tests.

A subclass of `TargetContract` gives two fixtures: ``target``, a fresh target that leaves nothing running behind, and
``models``, two folders written by `mainspring.testing.models.write_model`.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mainspring.errors import InvalidInput, NotFound
from mainspring.ports.target import Route, Target, TargetSpec
from mainspring.testing.models import RECORD

SESAME = "open sesame"


def ask(url: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """One HTTP request; a POST when there is a body.

    Returns:
        Status and decoded JSON.
    """
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


class TargetContract:
    """What every target must do. Subclasses give the fixtures ``target`` and ``models``."""

    def spec(self, models: list[Path], revision: int = 1, **facts: Any) -> TargetSpec:
        """A deployment of the first model as ``flights@1``, with changes."""
        routes = (Route(version="flights@1", path=str(models[0])),)
        return TargetSpec(**{"name": "flights", "revision": revision, "routes": routes, **facts})

    def test_applied_deployment_answers(self, target: Target, models: list[Path]) -> None:
        status = target.apply(self.spec(models))
        assert (status.state, status.revision, status.detail) == ("running", 1, "")
        assert target.endpoint("flights") == status.url
        code, answer = ask(status.url, "/predict", {"records": [RECORD]})
        assert code == 200
        assert answer["predictions"][0]["version"] == "flights@1"

    def test_applying_twice_changes_nothing(self, target: Target, models: list[Path]) -> None:
        first = target.apply(self.spec(models))
        assert target.apply(self.spec(models)) == first

    def test_new_revision_comes_into_force_in_place(self, target: Target, models: list[Path]) -> None:
        first = target.apply(self.spec(models))
        routes = (Route(version="flights@2", path=str(models[1])),)
        second = target.apply(self.spec(models, 2, routes=routes))
        assert (second.revision, second.url) == (2, first.url)
        _, answer = ask(second.url, "/predict", {"records": [RECORD]})
        assert answer["predictions"][0]["version"] == "flights@2"

    def test_impossible_change_leaves_the_deployment_as_it_was(self, target: Target, models: list[Path]) -> None:
        first = target.apply(self.spec(models))
        broken = (Route(version="flights@9", path=str(models[0] / "nothing")),)
        with pytest.raises(InvalidInput):
            target.apply(self.spec(models, 2, routes=broken))
        after = target.status("flights")
        assert (after.state, after.revision, after.url) == ("running", 1, first.url)
        assert ask(first.url, "/predict", {"records": [RECORD]})[0] == 200
        assert target.apply(self.spec(models)).detail == ""

    def test_impossible_start_is_told(self, target: Target, models: list[Path]) -> None:
        with pytest.raises(InvalidInput, match="flights"):
            target.apply(self.spec([models[0] / "nothing"]))
        assert target.status("flights").state == "failed"
        assert target.apply(self.spec(models)).state == "running"

    def test_token_is_asked_for(self, target: Target, models: list[Path]) -> None:
        url = target.apply(self.spec(models, token=SESAME)).url
        assert ask(url, "/predict", {"records": [RECORD]})[0] == 401
        headers = {"Authorization": f"Bearer {SESAME}"}
        assert ask(url, "/predict", {"records": [RECORD]}, headers)[0] == 200

    def test_removed_deployment_is_gone(self, target: Target, models: list[Path]) -> None:
        url = target.apply(self.spec(models)).url
        target.remove("flights")
        with pytest.raises(NotFound):
            target.status("flights")
        with pytest.raises(NotFound):
            target.endpoint("flights")
        with pytest.raises(OSError):  # noqa: PT011 - refused, reset, gone: all the same
            ask(url, "/v2/health/live")
        target.remove("flights")

    def test_unknown_name(self, target: Target) -> None:
        for question in (target.status, target.endpoint, target.logs):
            with pytest.raises(NotFound):
                question("nobody")

    def test_impossible_name(self, target: Target, models: list[Path]) -> None:
        with pytest.raises(InvalidInput):
            target.apply(self.spec(models, name="../flights"))

    def test_logs(self, target: Target, models: list[Path]) -> None:
        target.apply(self.spec(models))
        assert len(target.logs("flights", 1)) <= 1
        assert target.logs("flights", 0) == []
