"""Operations on runs."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.actor import current_actor
from mainspring.core.entity import Create, Patch, born
from mainspring.core.ids import new_id, to_hex
from mainspring.core.operation import operation
from mainspring.errors import Conflict, InvalidInput
from mainspring.store import Store, Transaction
from mainspring.tracking import rules
from mainspring.tracking.curves import Curves
from mainspring.tracking.environment import is_alive, this_process
from mainspring.tracking.experiments import Experiments, home_of
from mainspring.tracking.files import Files
from mainspring.tracking.journal import Journal, no_run
from mainspring.tracking.model import Experiment, Lifecycle, Point, Run, RunArtifact, RunStatus
from mainspring.tracking.store import Logged, Place, microseconds, moment, next_run, put_labels
from mainspring.tracking.table import Table

MAX_COMPARED = 100


class Runs:
    """Runs, their metrics and artifacts."""

    def __init__(self, store: Store, experiments: Experiments | None = None) -> None:
        self._store = store
        self._experiments = experiments or Experiments(store)
        self.journal = Journal(store)
        self.files = Files(store)
        self.table = Table(store, self._experiments)
        self.curves = Curves(store)
        self._lock = threading.Lock()
        self._executing: set[str] = set()

    @operation("POST", "/runs", command="create")
    def start(self, new: Create[Run]) -> Run:
        """Starts a run and gives it a name.

        A run with the same pipeline and cause is returned as it is: one cause starts one run, however often it is told.
        """
        return self.begin(new)[0]

    def begin(
        self,
        new: Create[Run],
        experiment: int | None = None,
        at: datetime | None = None,
        actor: str = "",
        run_id: str = "",
    ) -> tuple[Run, str]:
        """Starts a run as another system tells it (not an operation).

        Args:
            new: What is known of it.
            experiment: Number of its experiment, instead of the name in ``new``.
            at: When it started; now by default.
            actor: Who started it; whoever calls by default.
            run_id: The id it shall have; a new one by default.

        Returns:
            The run, and where its experiment's artifacts are kept.
        """
        with self._store.transaction() as tx:
            if new.cause and (before := self._store.first(Run, pipeline=new.pipeline, cause=new.cause)):
                return before, ""
            if experiment is None:
                experiment = self._experiments.ensure(new.experiment).number
            tx.announce()
            run_id = run_id or new_id()
            number, name, found = next_run(tx.driver, run_id, experiment)
            home, by = home_of(experiment, found), current_actor()
            run = born(
                Run,
                new,
                id=run_id,
                created=at or self._store.clock.now(),
                name=name,
                number=number,
                title=new.title or name,
                cause=new.cause or None,
                experiment=home.name,
                experiment_number=experiment,
                actor=actor or by.name,
                actor_kind=by.kind,
            )
            tx.insert(run, free=True)  # names and numbers were looked up just now
            place = Place(number, experiment, microseconds(run.created))
            put_labels(tx.driver, "run_param", place, {key: rules.text_of(item) for key, item in run.params.items()})
            put_labels(tx.driver, "run_tag", place, run.tags)
            told = {"pipeline": run.pipeline, "use_case": run.use_case, "trigger": run.trigger}
            tx.emit("tracking.run.started", name, **told, datasets=run.datasets)
        return run, home.location

    @operation("POST", "/runs/replay", command="")
    def replay(self, run: str, new: dict[str, Any], at: int) -> str:
        """Starts a run whose id its own process has chosen; told again, it is that run, as it is.

        Args:
            run: The id.
            new: What is known of it: the fields that `start` takes.
            at: When it started, microseconds since 1970.

        Returns:
            Its name.

        Raises:
            InvalidInput: This is no id, or a field is wrong.
        """
        rules.check_id(run)
        try:
            fields = msgspec.convert(new, Create[Run], strict=False)
            begun = moment(rules.check_time(at))
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"this run cannot be started: {error}", hint="see `mainspring runs create --help`"
            ) from None
        with self._store.transaction():
            before = self._store.first(Run, id=run)
            return (before or self.begin(fields, at=begun, run_id=run)[0]).name

    @operation("POST", "/runs/{run}/record", command="")
    def record(
        self,
        run: str,
        points: list[tuple[str, float | None, int, int]] = [],  # noqa: B006 - never changed
        params: dict[str, str] = {},  # noqa: B006
        tags: dict[str, str] = {},  # noqa: B006
        status: str = "",
        error: str = "",
        at: int = 0,
    ) -> str:
        """Adds to a run, by its id, all or nothing; what is told again changes nothing.

        Args:
            run: The run's id.
            points: Key, value (null is NaN), step, and microseconds since 1970.
            params: Parameters; one that is there must have the same value.
            tags: Tags; one that is there gets the new value.
            status: How it ended, where it has; a run that has ended already stays as it is.
            error: Why it failed.
            at: When it ended, microseconds since 1970; now by default.

        Returns:
            The run's name.
        """
        rules.check_id(run)
        logged = [
            Logged(
                key, math.nan if value is None else rules.finite(value), rules.check_time(time), rules.check_step(step)
            )
            for key, value, step, time in points
        ]
        ended = moment(rules.check_time(at)) if at else self._store.clock.now()
        with self._store.transaction() as tx:
            self.journal.log(run, logged, params, tags)
            found = self._by_id(run)
            if status in ("ok", "failed", "cancelled") and found.status in ("running", "scheduled"):
                found = self._end(tx, found, status, ended, error)  # type: ignore[arg-type]
        return found.name

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
        """Lists runs that are not deleted, newest first."""
        given = {"use_case": use_case, "pipeline": pipeline, "status": status}
        equals: dict[str, Any] = {name: value for name, value in given.items() if value}
        if experiment:
            found = self._store.first(Experiment, name=experiment)
            if found is None:
                return []
            equals["experiment_number"] = found.number
        return self._store.find(Run, order="-created", limit=limit, offset=offset, lifecycle="active", **equals)

    @operation("POST", "/runs/search", command="")
    def search(
        self, filter: str = "", order: tuple[str, ...] = (), experiment: str = "", limit: int = 100, offset: int = 0
    ) -> list[Run]:
        """Searches runs that are not deleted; without an order, newest first.

        Args:
            filter: Comparisons joined by AND, such as ``metrics.auc > 0.9 AND params.depth = '3'``.
            order: Such as ``metrics.auc DESC``, first to last; what has no value comes last.
            experiment: Name of the experiment; all by default.
            limit: How many at most.
            offset: How many to pass over.

        Raises:
            InvalidInput: The filter or the order cannot be read.
        """
        return self.table.page(self.table.asked(filter, order, experiment), limit, offset)[0]

    @operation("POST", "/runs/table", command="search", words=("filter",))
    def lines(
        self,
        filter: str = "",
        order: tuple[str, ...] = (),
        columns: tuple[str, ...] = (),
        experiment: str = "",
        limit: int = 100,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Searches runs, each told in one line: name, state, start, and columns such as ``metrics.auc``.

        Args:
            filter: Comparisons joined by AND, such as ``metrics.auc > 0.9 AND params.depth = '3'``.
            order: Such as ``metrics.auc DESC``, first to last; what has no value comes last.
            columns: Which metrics, parameters and tags, also several with commas between; by default the metrics that
                most of these runs have.
            experiment: Name of the experiment; all by default.
            limit: How many at most.
            offset: How many to pass over.
        """
        runs = self.search(filter, order, experiment, limit, offset)
        asked = [word.split()[0] for word in order if word.split()]
        chosen = tuple(name for text in columns for name in text.split(",") if name)
        shown = chosen or tuple(dict.fromkeys([*asked, *rules.common_metrics(runs)]))
        told = ((run, rules.fields_of(run)) for run in runs)
        return [
            {"name": run.name, "status": run.status, "created": run.created, **{key: of.get(key) for key in shown}}
            for run, of in told
        ]

    @operation("POST", "/runs/compare", command="compare", words=("names",))
    def compare(self, names: tuple[str, ...], everything: bool = False) -> list[dict[str, Any]]:
        """Shows in what runs differ: a line per field, with the value of each run.

        Args:
            names: The runs.
            everything: Whether fields in which they are equal are shown too.

        Raises:
            InvalidInput: Fewer than two runs, or more than a hundred.
        """
        names = tuple(dict.fromkeys(names))
        if not 2 <= len(names) <= MAX_COMPARED:
            raise InvalidInput(f"2 to {MAX_COMPARED} runs can be compared, not {len(names)}", hint="name two runs")
        return rules.differing([self.show(name) for name in names], everything=everything)

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
        start = microseconds(self._store.clock.now())
        self.journal.log(
            self.show(name).id,
            [
                # One microsecond apart, so that two values of one step in one call are both kept.
                Logged(item.key, item.value, microseconds(item.time) if item.time else start + index, item.step)
                for index, item in enumerate(points)
            ],
        )
        return len(points)

    @operation("GET", "/runs/{name}/metrics/{key}", command="history")
    def history(self, name: str, key: str) -> list[Point]:
        """The curve of a metric, in order of steps; points that are NaN are left out."""
        rows = [row for row in self.journal.curve(self.show(name).id, key) if not row[3]]
        rows.sort(key=lambda row: row[1])  # stable, and fast where steps rise with time, as they do
        return [Point(key=key, value=value, step=step, time=moment(time)) for time, step, value, _ in rows]

    @operation("POST", "/runs/{name}/artifacts", command="")
    def add_artifact(self, name: str, path: str, digest: str, size: int) -> RunArtifact:
        """Attaches stored bytes to a run under a path; a path attached before is replaced."""
        return self.files.put(self.show(name).name, path, digest, size)

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
            if run.status not in ("running", "scheduled"):
                raise Conflict(f"run {name} has already ended: {run.status}", hint=f"mainspring runs show {name}")
            return self._end(tx, run, status, self._store.clock.now(), error)

    def _end(self, tx: Transaction, run: Run, status: RunStatus, at: datetime | None, error: str = "") -> Run:
        ended = None if status in ("running", "scheduled") else at
        run = tx.update(msgspec.structs.replace(run, status=status, error=error, ended=ended, holder=""))
        told = {"ok": "succeeded", "running": "resumed"}.get(status, status)
        tx.emit(f"tracking.run.{told}", run.name, error=error, pipeline=run.pipeline)
        return run

    def mark(
        self, run_id: str, status: RunStatus | None = None, ended: datetime | None = None, title: str | None = None
    ) -> Run:
        """Sets what another system says of a run: a run that has ended may be resumed (not an operation).

        Args:
            run_id: The run's id.
            status: Its new state.
            ended: When it ended; now by default, where ``status`` is an end.
            title: Its new name.

        Raises:
            Conflict: It is deleted.
        """
        with self._store.transaction() as tx:
            run = self._by_id(run_id)
            rules.check_lifecycle("run", to_hex(run_id), run.lifecycle)
            if title and title != run.title:
                self.journal.log(run_id, tags={rules.RUN_NAME_TAG: title})
                run = self._by_id(run_id)
            if status is not None and (status != run.status or ended):
                run = self._end(tx, run, status, ended or self._store.clock.now())
        return run

    def _by_id(self, run_id: str) -> Run:
        run = self._store.first(Run, id=run_id)
        if run is None:
            raise no_run(run_id)
        return run

    @operation("PATCH", "/runs/{name}")
    def update(self, name: str, change: Patch[Run]) -> Run:
        """Changes a run's title or tags."""
        with self._store.transaction() as tx:
            before = self.show(name)
            after = tx.patch(before, change, "tracking.run.changed", name)
            if after.tags != before.tags:
                self.journal.replace_tags(after.id, after.tags)
        return after

    @operation("POST", "/runs/{name}/delete")
    def delete(self, name: str) -> Run:
        """Deletes a run; `restore` brings it back.

        Raises:
            Conflict: It is deleted already.
        """
        return self.turn(self.show(name).id, "deleted")

    @operation("POST", "/runs/{name}/restore")
    def restore(self, name: str) -> Run:
        """Brings a deleted run back.

        Raises:
            Conflict: It is not deleted.
        """
        return self.turn(self.show(name).id, "active")

    def turn(self, run_id: str, to: Lifecycle) -> Run:
        """Deletes or restores a run by its id (not an operation)."""
        with self._store.transaction() as tx:
            run = self._by_id(run_id)
            rules.check_lifecycle("run", to_hex(run_id), run.lifecycle, "deleted" if to == "active" else "active")
            run = tx.update(msgspec.structs.replace(run, lifecycle=to))
            tx.emit(f"tracking.run.{'deleted' if to == 'deleted' else 'restored'}", run.name, pipeline=run.pipeline)
        return run

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
