"""Who is recorded: the setting, the block, the system's user, on both transports."""

from __future__ import annotations

import getpass
from collections.abc import Iterator

import pytest

from mainspring.client.client import Client
from mainspring.core.actor import acting_as, become
from mainspring.core.entity import draft
from mainspring.usecases.model import UseCase
from mainspring.workspace import Workspace


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MAINSPRING_ACTOR", "")
    become("")
    yield
    become("")


def _creator(client: Client, workspace: Workspace, name: str) -> str:
    client.usecases.create(draft(UseCase, name=name))
    return workspace.store.events(subject=name, limit=1)[0].actor


def test_the_systems_user_is_recorded_by_default(client: Client, sqlite_workspace: Workspace) -> None:
    assert _creator(client, sqlite_workspace, "a") == getpass.getuser()


def test_the_setting_names_the_user(client: Client, sqlite_workspace: Workspace) -> None:
    become("Zoë 李")
    assert _creator(client, sqlite_workspace, "b") == "Zoë 李"


def test_a_block_names_somebody_else(client: Client, sqlite_workspace: Workspace) -> None:
    become("zoe")
    with acting_as("ann"):
        assert _creator(client, sqlite_workspace, "c") == "ann"
    assert _creator(client, sqlite_workspace, "d") == "zoe"
