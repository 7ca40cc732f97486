"""What runs log, and how it is read back in bulk: the short way, by a run's id.

`Runs` has the operations by name; this is what they, and programs that speak other systems' protocols, stand on. A call
is one transaction: all of it is kept, durably, when it returns, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from mainspring.core.ids import to_hex
from mainspring.errors import NotFound
from mainspring.store import Store
from mainspring.store.driver import Driver
from mainspring.tracking import rules
from mainspring.tracking.model import Lifecycle, Run
from mainspring.tracking.store import (
    Input,
    Last,
    Logged,
    Place,
    add_points,
    among,
    curve,
    inputs_of,
    last_values,
    microseconds,
    models_of,
    put_inputs,
    put_labels,
    put_models,
    rank,
)

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(dict[str, Any], strict=False).decode
_STATE = "SELECT number, experiment_number, created, lifecycle, params, tags, metrics FROM run WHERE "
_STATE_AND_LAST = """SELECT number, experiment_number, created, lifecycle, params, tags, metrics, m.step, m.time,
    m.value
FROM run LEFT JOIN run_metric m ON m.run = run.number AND m.key = ? WHERE run.id = ?"""
_RUN = """
SELECT run.number, run.id, run.name, run.title, run.experiment_number, experiment.location, run.actor, run.status,
       run.created, run.ended, run.lifecycle, run.params, run.tags,
       EXISTS (SELECT 1 FROM dataset_input d WHERE d.run = run.number)
       OR EXISTS (SELECT 1 FROM run_model m WHERE m.run = run.number)
FROM run JOIN experiment ON experiment.number = run.experiment_number WHERE """


class RunRow(NamedTuple):
    """A run as it is read in bulk; parameters and tags are still JSON.

    Attributes:
        number: Its number.
        id: Its id.
        name: Its unique name.
        title: The name its author gave it.
        experiment: Its experiment's number.
        location: Where the experiment's artifacts are kept; empty: in this workspace.
        actor: Who started it.
        status: Its state.
        created: When it started, as the driver gives times (see `milliseconds`).
        ended: When it ended.
        lifecycle: Whether it is deleted.
        params: Parameters, JSON.
        tags: Tags, JSON.
        linked: Whether there are datasets or models that it has read or made.
    """

    number: int
    id: str
    name: str
    title: str
    experiment: int
    location: str
    actor: str
    status: str
    created: Any
    ended: Any
    lifecycle: Lifecycle
    params: str
    tags: str
    linked: bool


class Journal:
    """What runs log.

    Args:
        store: Where it is kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def log(
        self,
        run: str,
        points: Sequence[Logged] = (),
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Adds to a run, all or nothing.

        Args:
            run: The run's id.
            points: Points of metrics.
            params: Parameters; one that is there must have the same value.
            tags: Tags; one that is there gets the new value.

        Raises:
            NotFound: There is no such run.
            Conflict: The run is deleted.
            InvalidInput: A parameter would change.
        """
        with self._store.transaction() as tx:
            driver = tx.driver
            row, last = _state(driver, run, points)
            if row is None:
                raise no_run(run)
            rules.check_lifecycle("run", to_hex(run), row[3])
            place = Place(row[0], row[1], microseconds(as_moment(row[2])))
            changes: dict[str, Any] = {}
            if points:
                changed = add_points(driver, place, list(points), last)
                known = msgspec.json.decode(row[6])
                now = {key: value for key, value in (known | changed).items() if not math.isnan(value)}
                if now != known:
                    changes["metrics"] = _encode(now).decode()
            if params:
                before = _decode(row[4])
                rules.check_unchanged(before, params)
                fresh = {key: value for key, value in params.items() if key not in before}
                put_labels(driver, "run_param", place, fresh)
                changes["params"] = _encode(before | fresh).decode()
            if tags:
                put_labels(driver, "run_tag", place, tags)
                changes["tags"] = _encode(_decode(row[5]) | tags).decode()
                if tags.get(rules.RUN_NAME_TAG):
                    changes["title"] = tags[rules.RUN_NAME_TAG]
            _change(driver, place.run, changes)

    def drop_tag(self, run: str, key: str) -> None:
        """Removes a tag.

        Raises:
            NotFound: There is no such run, or it has no such tag.
        """
        with self._store.transaction() as tx:
            row = tx.driver.row(_STATE + "id = ?", (run,))
            if row is None:
                raise no_run(run)
            rules.check_lifecycle("run", to_hex(run), row[3])
            tags = _decode(row[5])
            if tags.pop(key, None) is None:
                raise NotFound(f"No tag with name: {key} in run with id {to_hex(run)}", hint="list the run's tags")
            tx.driver.run("DELETE FROM run_tag WHERE run = ? AND key = ?", (row[0], key))
            _change(tx.driver, row[0], {"tags": _encode(tags).decode()})

    def replace_tags(self, run: str, tags: dict[str, str]) -> None:
        """Brings the table of tags to the tags of the run's row (inside the caller's transaction)."""
        with self._store.transaction() as tx:
            row = tx.driver.row(_STATE + "id = ?", (run,))
            assert row is not None
            tx.driver.run("DELETE FROM run_tag WHERE run = ?", (row[0],))
            put_labels(tx.driver, "run_tag", Place(row[0], row[1], 0), tags)

    def add_inputs(
        self, run: str, inputs: Iterable[Input], models: Iterable[str] = (), made: Iterable[tuple[str, int]] = ()
    ) -> None:
        """Says which datasets and models a run has read, and which models it has made, at which steps."""
        with self._store.transaction() as tx:
            row = tx.driver.row(_STATE + "id = ?", (run,))
            if row is None:
                raise no_run(run)
            rules.check_lifecycle("run", to_hex(run), row[3])
            put_inputs(tx.driver, Place(row[0], row[1], 0), inputs)
            put_models(tx.driver, row[0], "input", [(model, 0) for model in models])
            put_models(tx.driver, row[0], "output", made)

    def run(self, run: str) -> RunRow:
        """One run.

        Raises:
            NotFound: There is no such run.
        """
        with self._store.driver() as driver:
            row = driver.row(_RUN + "run.id = ?", (run,))
        if row is None:
            raise no_run(run)
        return RunRow._make(row)

    def runs(self, numbers: list[int]) -> list[RunRow]:
        """Runs by number, in the order asked for."""
        with self._store.driver() as driver:
            where, chosen = among(driver, "run.number", "bigint", numbers)
            found = {row[0]: RunRow._make(row) for row in driver.rows(_RUN + where, (chosen,))}
        return [found[number] for number in numbers if number in found]

    def last_values(self, numbers: list[int]) -> dict[int, list[tuple[int, str, float | None, int, int]]]:
        """Of each run: its number, key, value, step and time (microseconds) of every metric's last point."""
        found: dict[int, list[tuple[int, str, float | None, int, int]]] = {number: [] for number in numbers}
        with self._store.driver() as driver:
            for row in last_values(driver, numbers):
                found[row[0]].append(row)
        return found

    def inputs(self, numbers: list[int]) -> dict[int, list[Input]]:
        """Of each run: the datasets it has read."""
        found: dict[int, list[Input]] = {}
        with self._store.driver() as driver:
            for number, item in inputs_of(driver, numbers):
                found.setdefault(number, []).append(item)
        return found

    def models(self, numbers: list[int]) -> dict[int, list[tuple[str, str, int]]]:
        """Of each run: role (``input`` or ``output``), id and step of the models it has read or made."""
        found: dict[int, list[tuple[str, str, int]]] = {}
        with self._store.driver() as driver:
            for number, role, model, step in models_of(driver, numbers):
                found.setdefault(number, []).append((role, model, step))
        return found

    def dataset_names(self, experiments: list[int], limit: int = 1000) -> list[tuple[int, str, str, str | None]]:
        """Experiment, name, digest and context of the datasets that runs of some experiments have read."""
        with self._store.driver() as driver:
            where, chosen = among(driver, "experiment", "bigint", experiments)
            return driver.rows(
                f"SELECT DISTINCT experiment, name, digest, context FROM dataset_input WHERE {where} "
                f"ORDER BY experiment, name, digest LIMIT {limit}",
                (chosen,),
            )

    def curve(
        self, run: str, key: str, limit: int = -1, after: tuple[int, int, float, int] | None = None
    ) -> list[tuple[int, int, float, int]]:
        """Points of a metric in the order of time: time (microseconds), step, value, and 1 where the value is NaN.

        Raises:
            NotFound: There is no such run.
        """
        with self._store.driver() as driver:
            row = driver.row("SELECT number FROM run WHERE id = ?", (run,))
            if row is None:
                raise no_run(run)
            return curve(driver, row[0], key, limit, after)


def no_run(run: str) -> NotFound:
    """The error of a run that is not there."""
    digits = to_hex(run) if run else ""
    return NotFound(f"Run with id={digits} not found", hint="list them: `mainspring runs list`", run=digits)


def row_of(run: Run, location: str) -> RunRow:
    """A new run as it is read in bulk, out of the entity and the place of its experiment's artifacts."""
    return RunRow(
        run.number, run.id, run.name, run.title, run.experiment_number, location, run.actor, run.status, run.created,
        run.ended, run.lifecycle, _encode(run.params).decode(), _encode(run.tags).decode(),
        linked=False,
    )  # fmt: skip


def as_moment(value: Any) -> datetime:
    """A time as the driver gives it: text on SQLite."""
    if isinstance(value, str):
        return datetime.fromisoformat(value + "Z")
    return value  # type: ignore[no-any-return]


def milliseconds(value: Any) -> int:
    """A time as the driver gives it, in milliseconds since 1970."""
    return microseconds(as_moment(value)) // 1000


def _state(driver: Driver, run: str, points: Sequence[Logged]) -> tuple[tuple[Any, ...] | None, Last | None]:
    """A run as `_STATE` tells it and, where there is but one point, what is known of the last one of its curve."""
    if len(points) != 1:
        return driver.row(_STATE + "id = ?", (run,)), None
    key = points[0].key
    row = driver.row(_STATE_AND_LAST, (key, run))
    if row is None or row[7] is None:
        return row, {}
    step, time, value = row[7:]
    return row, {key: rank(step, time, value)}


def _change(driver: Driver, run: int, changes: dict[str, Any]) -> None:
    if changes:
        assigned = ", ".join(f"{name} = ?" for name in changes)
        driver.later(f"UPDATE run SET {assigned} WHERE number = ?", (*changes.values(), run))
