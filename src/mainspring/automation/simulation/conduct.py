"""Carries the policies of a simulation on, side by side on the executor; each training is done once for all.

Whatever is done is stored at once: a policy's course after every stretch of windows, a model when it is trained. A
process that was killed leaves nothing to be done twice but the stretches and trainings that were under way.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

import msgspec

from mainspring.automation.simulation.course import decoded
from mainspring.automation.simulation.model import SimulatedModel, SimulatedPolicy
from mainspring.automation.simulation.replay import Need, Setting
from mainspring.automation.simulation.training import Trained, TrainTask
from mainspring.automation.simulation.work import Advanced, AdvanceTask
from mainspring.core.ids import new_id
from mainspring.errors import StepFailed
from mainspring.pipelines.desk import Desk
from mainspring.ports.executor import Result, Task
from mainspring.store import Store

_ROOM = "mainspring.automation.simulation."
_STRETCH = 60
"""Windows of a policy that are replayed before its course is stored."""
_TRIES = 3


class Conductor:
    """Carries simulations out.

    Args:
        store: The database.
        artifacts: Address that workers open the artifact store by.
        desk: Where tasks for the executor are handed in.
    """

    def __init__(self, store: Store, artifacts: str, desk: Desk) -> None:
        self._store = store
        self._artifacts = artifacts
        self._desk = desk

    def policies(self, run: str) -> list[SimulatedPolicy]:
        """The policies of a simulation with their courses."""
        return self._store.find(SimulatedPolicy, order="position", limit=1000, run=run)

    def work(self, run: str, setting: Setting, until: float | None) -> bool:
        """Carries the policies on; whether all are at their end.

        Args:
            run: The simulation's run.
            setting: The simulation.
            until: When to begin nothing more, by the monotonic clock; None for never.

        Raises:
            StepFailed: A policy cannot be carried on.
        """
        round_ = _Round(self._store, self._desk, self._artifacts, setting, self.policies(run))
        try:
            round_.begin(needed_alone=False)
            while round_.running or round_.ready:
                late = until is not None and time.monotonic() >= until
                round_.begin(needed_alone=late)
                if late and not round_.running:
                    return False
                round_.collect()
        finally:
            self._desk.cancel(round_.running)
        return True


class _Round:
    """Who is at what: policies that can go on, trainings that are due, and what waits for them."""

    def __init__(
        self, store: Store, desk: Desk, artifacts: str, setting: Setting, policies: list[SimulatedPolicy]
    ) -> None:
        self._store = store
        self._desk = desk
        self._artifacts = artifacts
        self._setting = setting
        self._policies = {item.name: item for item in policies}
        self._given: dict[str, set[str]] = {item.name: set() for item in policies}
        self._waiting: dict[str, list[str]] = {}
        self._needs: dict[str, tuple[Need, str]] = {}
        self._needed: set[tuple[str, str]] = set()
        self._tries: Counter[tuple[str, str]] = Counter()
        self.ready: deque[tuple[str, str]] = deque(("advance", item.name) for item in policies if not item.done)
        self.running: dict[str, tuple[str, str]] = {}

    def begin(self, needed_alone: bool) -> None:
        """Hands in as much as there is room for.

        Args:
            needed_alone: Only trainings that a policy waits for, and policies whose training was done before: so much
                is done in every round, however short it is.
        """
        while self.ready and len(self.running) < self._desk.capacity():
            if needed_alone and self.ready[0] not in self._needed:
                return
            kind, name = self.ready.popleft()
            self._needed.discard((kind, name))
            task_id = new_id()
            self.running[task_id] = (kind, name)
            self._tries[(kind, name)] += 1
            payload = self._advance(name) if kind == "advance" else self._train(name)
            module = "work:advance" if kind == "advance" else "training:train"
            self._desk.submit(Task(id=task_id, entry=_ROOM + module, payload=payload))

    def collect(self) -> None:
        """Stores what came in."""
        for result in self._desk.wait(self.running):
            kind, name = self.running.pop(result.id)
            if result.status == "lost" and self._tries[(kind, name)] < _TRIES:
                self.ready.appendleft((kind, name))
                continue
            if result.status != "done":
                raise StepFailed(f"`{name[:80]}` cannot be carried on: {result.error}", hint="read the server's log")
            self._tries[(kind, name)] = 0
            self._advanced(name, result) if kind == "advance" else self._trained(name, result)

    def _advance(self, name: str) -> bytes:
        item = self._policies[name]
        wanted = sorted(decoded(item.state).versions | {*self._given[name]})
        columns = self._store.columns(SimulatedModel)
        models = self._store.find(SimulatedModel, columns.key.in_(wanted), limit=10_000) if wanted else []
        task = AdvanceTask(
            setting=self._setting, policy=item.policy, state=item.state, models={item.key: item for item in models},
            most=_STRETCH, artifacts=self._artifacts,
        )  # fmt: skip
        return msgspec.msgpack.encode(task)

    def _advanced(self, name: str, result: Result) -> None:
        found = msgspec.msgpack.decode(result.payload, type=Advanced)
        if found.error:
            raise StepFailed(f"policy `{name}`: {found.error}", hint=found.hint or "mainspring simulations policies")
        before = self._policies[name]
        done = found.step >= before.whole
        with self._store.transaction() as tx:
            after: Any = tx.update(msgspec.structs.replace(before, state=found.state, windows=found.step, done=done))
        self._policies[name] = after
        if found.need is None:
            if not done:
                self.ready.append(("advance", name))
            return
        key = found.need.key
        self._given[name].add(key)
        if self._store.first(SimulatedModel, key=key):
            self._needed.add(("advance", name))
            self.ready.appendleft(("advance", name))
        elif key in self._waiting:
            self._waiting[key].append(name)
        else:
            self._waiting[key] = [name]
            self._needs[key] = (found.need, name)
            self._needed.add(("train", key))
            self.ready.appendleft(("train", key))  # others may wait for it

    def _train(self, key: str) -> bytes:
        need = self._needs[key][0]
        task = TrainTask(
            key=key, past=self._setting.past, trainer=self._setting.trainer, start=need.start, now=need.now,
            holdout_days=need.holdout_days, params=need.params, seed=self._setting.seed, artifacts=self._artifacts,
        )  # fmt: skip
        return msgspec.msgpack.encode(task)

    def _trained(self, key: str, result: Result) -> None:
        found = msgspec.msgpack.decode(result.payload, type=Trained)
        if found.model.error and not decoded(self._policies[self._needs[key][1]].state).keys:
            raise StepFailed(
                f"the first model: {found.model.error}", hint="--judge warmup_days=31, or mend what trains"
            )
        with self._store.transaction() as tx:
            if self._store.first(SimulatedModel, key=key) is None:
                made = msgspec.structs.replace(found.model, id=new_id())
                tx.insert(made)
            for digest, size in found.blobs.items():
                tx.own(digest, f"simulated_model:{key}", size)
        for name in self._waiting.pop(key):
            self.ready.append(("advance", name))
