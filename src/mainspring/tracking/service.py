"""Operations on runs."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from mainspring.core.actor import current_actor
from mainspring.core.entity import Create, Patch, born
from mainspring.core.ids import new_id, spoken_name
from mainspring.core.operation import operation
from mainspring.errors import Conflict, InvalidInput
from mainspring.store import Store, Transaction
from mainspring.tracking.environment import is_alive, this_process
from mainspring.tracking.model import Point, Run, RunArtifact, RunStatus
from mainspring.tracking.store import history, metric


class Runs:
    """Runs, their metrics and artifacts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._executing: set[str] = set()

    @operation("POST", "/runs", command="create")
    def start(self, new: Create[Run]) -> Run:
        """Starts a run and gives it a name.

        A run with the same pipeline and cause is returned as it is: one cause starts one run, however often it is told.
        """
        actor = current_actor()
        with self._store.transaction() as tx:
            if new.cause and (before := self._store.first(Run, pipeline=new.pipeline, cause=new.cause)):
                return before
            run_id = new_id()
            run = born(
                Run,
                msgspec.structs.replace(new, cause=new.cause or None),
                id=run_id,
                created=self._store.clock.now(),
                name=self._free_name(run_id),
                actor=actor.name,
                actor_kind=actor.kind,
            )
            tx.insert(run)
            tx.emit(
                "tracking.run.started",
                run.name,
                pipeline=run.pipeline,
                use_case=run.use_case,
                trigger=run.trigger,
                datasets=run.datasets,
            )
        return run

    def _free_name(self, run_id: str) -> str:
        for attempt in range(1000):
            name = spoken_name(f"{run_id}{attempt}")
            if self._store.first(Run, name=name) is None:
                return name
        return run_id

    @operation("GET", "/runs", command="list")
    def find(
        self,
        experiment: str = "",
        use_case: str = "",
        pipeline: str = "",
        status: str = "",
        limit: int = 100,
        offset: int = 0,
    ) -> list[Run]:
        """Lists runs, newest first."""
        given = {"experiment": experiment, "use_case": use_case, "pipeline": pipeline, "status": status}
        equals = {name: value for name, value in given.items() if value}
        return self._store.find(Run, order="-created", limit=limit, offset=offset, **equals)

    @operation("GET", "/runs/{name}")
    def show(self, name: str) -> Run:
        """Shows a run."""
        return self._store.get(Run, name=name, listing="mainspring runs list")

    @operation("POST", "/runs/{name}/metrics", command="")
    def log(self, name: str, points: list[Point]) -> int:
        """Adds points to the run's metrics, all or none; a point sent again replaces itself.

        Returns:
            How many points were stored.

        Raises:
            InvalidInput: A value is NaN or infinite.
        """
        for point in points:
            if not math.isfinite(point.value):
                raise InvalidInput(f"metric `{point.key}` is {point.value}", hint="log finite numbers only")
        with self._store.transaction() as tx:
            self._log(tx, self.show(name), points)
        return len(points)

    def _log(self, tx: Transaction, run: Run, points: list[Point]) -> Run:
        if not points:
            return run
        start = self._store.clock.now()
        rows: dict[tuple[str, int, datetime], dict[str, object]] = {}
        for index, point in enumerate(points):
            # One microsecond apart, so that two values of one step in one call are both kept.
            time = point.time or start + timedelta(microseconds=index)
            rows[point.key, point.step, time] = {
                "run": run.name,
                "key": point.key,
                "step": point.step,
                "time": time,
                "value": point.value,
            }
        if any(point.time for point in points):
            for key, step, time in rows:
                where = sa.and_(
                    metric.c.run == run.name, metric.c.key == key, metric.c.step == step, metric.c.time == time
                )
                tx.execute(sa.delete(metric).where(where))
        tx.execute(sa.insert(metric), list(rows.values()))
        return tx.update(
            msgspec.structs.replace(run, metrics=run.metrics | {point.key: point.value for point in points})
        )

    @operation("GET", "/runs/{name}/metrics/{key}", command="history")
    def history(self, name: str, key: str) -> list[Point]:
        """The curve of a metric, in order of steps."""
        rows = self._store.rows(history(self.show(name).name, key))
        return [Point(key=key, value=row.value, step=row.step, time=row.time) for row in rows]

    @operation("POST", "/runs/{name}/artifacts", command="")
    def add_artifact(self, name: str, path: str, digest: str, size: int) -> RunArtifact:
        """Attaches stored bytes to a run under a path; a path attached before is replaced."""
        if path.startswith("/") or ".." in path.split("/") or "\\" in path:
            raise InvalidInput(f"`{path}` is not a path within the run", hint="use a relative path without `..`")
        run = self.show(name)
        artifact = RunArtifact(
            id=new_id(), created=self._store.clock.now(), run=run.name, path=path, digest=digest, size=size
        )
        with self._store.transaction() as tx:
            if before := self._store.first(RunArtifact, run=run.name, path=path):
                tx.delete(before)
            tx.insert(artifact)
            tx.own(digest, f"run:{run.name}", size)
        return artifact

    @operation("GET", "/runs/{name}/artifacts")
    def artifacts(self, name: str) -> list[RunArtifact]:
        """Lists a run's artifacts by path."""
        return self._store.find(RunArtifact, order="path", run=self.show(name).name)

    @operation("POST", "/runs/{name}/finish", command="")
    def finish(self, name: str, status: RunStatus = "ok", error: str = "") -> Run:
        """Ends a run; ending it again in the same state changes nothing.

        Raises:
            Conflict: It has ended in another state.
        """
        with self._store.transaction() as tx:
            run = self.show(name)
            if run.status == status:
                return run
            if run.status != "running":
                raise Conflict(f"run {name} has already ended: {run.status}", hint=f"mainspring runs show {name}")
            run = tx.update(
                msgspec.structs.replace(run, status=status, error=error, ended=self._store.clock.now(), holder="")
            )
            tx.emit(
                f"tracking.run.{'succeeded' if status == 'ok' else status}", name, error=error, pipeline=run.pipeline
            )
        return run

    @operation("PATCH", "/runs/{name}")
    def update(self, name: str, change: Patch[Run]) -> Run:
        """Changes a run's tags."""
        with self._store.transaction() as tx:
            return tx.patch(self.show(name), change, "tracking.run.changed", name)

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Makes this thread the only one anywhere that executes the run (not an operation).

        Raises:
            Conflict: Another living process, or another thread of this one, is at it.
        """
        me, holder = this_process(), self.show(name).holder
        with self._lock:
            taken = name in self._executing or (holder not in ("", me) and is_alive(holder))
            if taken or not self.hold(name, me, holder):
                raise Conflict(
                    f"run {name} is being executed by {self.show(name).holder or 'another process'}",
                    hint=f"watch it: mainspring runs show {name}",
                )
            self._executing.add(name)
        try:
            yield
        finally:
            self._executing.discard(name)

    def is_free(self, run: Run) -> bool:
        """Whether nobody executes the run: it is new, or its process has died."""
        mine = run.holder in ("", this_process()) or not is_alive(run.holder)
        return run.status == "running" and mine and run.name not in self._executing

    def hold(self, name: str, holder: str, before: str) -> bool:
        """Whether the run still was held by ``before``: of several processes that try at once, one gets it."""
        columns = self._store.columns(Run)
        free = sa.and_(columns.name == name, columns.holder == before, columns.status == "running")
        with self._store.transaction() as tx:
            return tx.execute(sa.update(columns.name.table).where(free).values(holder=holder)).rowcount == 1
