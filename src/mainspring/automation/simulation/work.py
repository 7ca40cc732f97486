"""What runs in a worker process: carrying a policy on."""

from __future__ import annotations

import functools
import io
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mainspring.automation.simulation.course import decoded
from mainspring.automation.simulation.model import Policy, SimulatedModel
from mainspring.automation.simulation.replay import Loaded, Need, Replay, Setting
from mainspring.automation.simulation.table import Table
from mainspring.data.local import local_copy
from mainspring.errors import MainspringError
from mainspring.measures.reference import Reference, from_bytes
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.plugins import resolve


class AdvanceTask(msgspec.Struct, frozen=True, kw_only=True):
    """A policy to carry on.

    Attributes:
        setting: The simulation.
        policy: The policy.
        state: Its course so far.
        models: Key -> model, of those that it may need.
        most: Windows to replay at once.
        artifacts: Address of the artifact store.
    """

    setting: Setting
    policy: Policy
    state: bytes
    models: dict[str, SimulatedModel]
    most: int
    artifacts: str


class Advanced(msgspec.Struct, frozen=True, kw_only=True):
    """How far it came, and the training that it waits for, or why it cannot go on."""

    state: bytes = b""
    step: int = 0
    need: Need | None = None
    error: str = ""
    hint: str = ""


def advance(payload: bytes) -> bytes:
    """Carries a policy on (entry of a worker's task)."""
    task = msgspec.msgpack.decode(payload, type=AdvanceTask)
    try:
        result = _advance(task)
    except MainspringError as error:
        result = Advanced(error=error.message, hint=error.hint)
    except Exception as error:  # noqa: BLE001 - a custom monitor's code may raise anything
        result = Advanced(error=f"{type(error).__name__}: {error}")
    return msgspec.msgpack.encode(result)


def _advance(task: AdvanceTask) -> Advanced:
    table = _table(task.artifacts, task.setting.past.digest)

    def model(key: str) -> Loaded | None:
        facts = task.models.get(key)
        if facts is None:
            return None
        if facts.error:
            return Loaded(facts, np.empty(0), _NO_REFERENCE)
        return Loaded(facts, _scores(task.artifacts, facts.scores), _reference(task.artifacts, facts.reference))

    replay = Replay(task.setting, task.policy, table, model, decoded(task.state))
    need = replay.advance(task.most)
    return Advanced(state=replay.course.encoded(), step=replay.course.step, need=need)


_NO_REFERENCE: Any = None
"""A model that could not be trained is asked for nothing."""


@functools.lru_cache(maxsize=1)
def _table(artifacts: str, digest: str) -> Table:
    return Table(local_copy(_store(artifacts), digest))


@functools.lru_cache(maxsize=16)
def _scores(artifacts: str, digest: str) -> NDArray[np.float64]:
    """Mapped where the store keeps files on this machine, so that only what is looked at is read."""
    own = _store(artifacts).local_path(digest)
    if own is not None:
        return np.load(own, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    return np.load(io.BytesIO(_store(artifacts).read(digest)), allow_pickle=False)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=16)
def _reference(artifacts: str, digest: str) -> Reference:
    return from_bytes(_store(artifacts).read(digest))


@functools.lru_cache(maxsize=2)
def _store(artifacts: str) -> ArtifactStore:
    return resolve("artifacts", artifacts)  # type: ignore[no-any-return]
