"""Experiments, runs and logged models that another system has recorded, entered as they were, ids and times kept.

Each is entered in steps that may be repeated: what is there already stays, so that whoever was interrupted begins
again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from mainspring.core.ids import new_id, to_hex
from mainspring.store import Store
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.journal import as_moment
from mainspring.tracking.logged import LoggedModels
from mainspring.tracking.model import Experiment, Lifecycle, LoggedModel, LoggedModelMetric, Run
from mainspring.tracking.store import (
    Input,
    Logged,
    Place,
    add_points,
    microseconds,
    next_run,
    put_inputs,
    put_labels,
    put_models,
)

MAX_NUMBER = 10**18
_CARRIED = "tracking.run.carried"
_PLACE = "SELECT number, experiment_number, created FROM run WHERE id = ?"


class Carried:
    """What others have recorded.

    Args:
        store: The database.
        experiments: For experiments that are here already.
        logged: For metrics of logged models.
    """

    def __init__(self, store: Store, experiments: Experiments, logged: LoggedModels) -> None:
        self._store = store
        self._experiments = experiments
        self._logged = logged

    def experiment(
        self, name: str, number: int, created: datetime, changed: datetime, location: str, tags: dict[str, str]
    ) -> tuple[Experiment, bool]:
        """The experiment of this name, entered when there is none; and whether it was.

        Args:
            name: Its name.
            number: Its number, kept where it is free.
            created: When it was made.
            changed: When it last changed.
            location: Where its files are kept, empty for here.
            tags: Tags.
        """
        with self._store.transaction() as tx:
            if (found := self._store.first(Experiment, name=name)) is not None:
                if tags.keys() <= found.tags.keys():
                    return found, False
                return tx.update(msgspec.structs.replace(found, tags=tags | found.tags)), False
            free = 0 < number < MAX_NUMBER and self._store.first(Experiment, number=number) is None
            if not free:
                number = int(tx.driver.row("SELECT max(number) FROM experiment")[0]) + 1  # type: ignore[index]
            made = Experiment(
                id=new_id(), created=created, changed=changed, name=name, number=number, location=location, tags=tags
            )
            tx.insert(made)
            tx.emit("tracking.experiment.carried", name, number=number)
        return made, True

    def begin(
        self,
        run: Run,
        inputs: Iterable[Input] = (),
        read: Iterable[str] = (),
        made: Iterable[tuple[str, int]] = (),
    ) -> Run:
        """Enters a run, or brings what is here to what is told; name and number are given here.

        Args:
            run: The run, with the id that it is known by.
            inputs: Datasets it has read.
            read: Logged models it has read.
            made: Logged models it has made, each with a step.
        """
        with self._store.transaction() as tx:
            before = self._store.first(Run, id=run.id)
            if before is None:
                number, name, _ = next_run(tx.driver, run.id, run.experiment_number)
                run = tx.insert(msgspec.structs.replace(run, number=number, name=name, title=run.title or name))
            else:
                kept = {"number": before.number, "name": before.name, "title": run.title or before.name}
                run = tx.update(msgspec.structs.replace(run, metrics=before.metrics, **kept))
                for table in ("run_param", "run_tag"):
                    tx.driver.run(f"DELETE FROM {table} WHERE run = ?", (run.number,))  # noqa: S608
            place = Place(run.number, run.experiment_number, microseconds(run.created))
            put_labels(tx.driver, "run_param", place, run.params)
            put_labels(tx.driver, "run_tag", place, run.tags)
            put_inputs(tx.driver, place, inputs)
            put_models(tx.driver, place.run, "input", [(model, 0) for model in read])
            put_models(tx.driver, place.run, "output", made)
        return run

    def points(self, run: str, points: Sequence[Logged]) -> None:
        """Adds points to a run's curves, by the run's id; those that are there stay."""
        with self._store.transaction() as tx:
            row = tx.driver.row(_PLACE, (run,))
            assert row is not None
            changed = add_points(tx.driver, Place(row[0], row[1], microseconds(as_moment(row[2]))), list(points))
            known = self._store.first(Run, id=run)
            assert known is not None
            now = {key: value for key, value in (known.metrics | changed).items() if not math.isnan(value)}
            if now != known.metrics:
                tx.update(msgspec.structs.replace(known, metrics=now))

    def end(self, run: Run, lifecycle: Lifecycle, facts: dict[str, Any]) -> None:
        """Says that all of a run is here; ``facts`` tell from where, and what was counted."""
        with self._store.transaction() as tx:
            known = self._store.first(Run, id=run.id)
            assert known is not None
            tx.update(msgspec.structs.replace(known, lifecycle=lifecycle))
            tx.emit(_CARRIED, run.name, **facts)

    def facts(self, run: str) -> dict[str, Any] | None:
        """What `end` was told last about a run, by the run's id; None when it never was."""
        known = self._store.first(Run, id=run)
        if known is None:
            return None
        found = self._store.events(subject=known.name, prefix=_CARRIED, newest=True, limit=1)
        return found[0].data if found else None

    def logged(self, model: LoggedModel, metrics: Sequence[LoggedModelMetric]) -> bool:
        """Enters a logged model with its metrics; whether anything was new."""
        with self._store.transaction() as tx:
            before = self._store.first(LoggedModel, id=model.id)
            known = len(self._logged.metrics([model.id]).get(model.id, ()))
            if before == model and known == len(metrics):
                return False
            if before is None:
                tx.insert(model)
            else:
                tx.update(model)
            self._logged.measured(metrics)
            tx.emit("tracking.logged_model.carried", f"m-{to_hex(model.id)}", name=model.name, run=model.run)
        return True

    def turn(self, experiment: Experiment, lifecycle: Lifecycle) -> None:
        """Deletes an experiment that was deleted where it came from; its runs are told so one by one."""
        with self._store.transaction() as tx:
            now = self._experiments.show(experiment.name)
            if now.lifecycle != lifecycle:
                tx.update(msgspec.structs.replace(now, lifecycle=lifecycle))
                tx.emit("tracking.experiment.deleted", now.name, number=now.number)
