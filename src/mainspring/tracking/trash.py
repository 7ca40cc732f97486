"""What is deleted and can still be restored, and its removal for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from mainspring.core.entity import Value
from mainspring.core.ids import from_hex, to_hex
from mainspring.core.operation import operation
from mainspring.errors import InvalidInput
from mainspring.store import Store, Transaction
from mainspring.tracking.files import Files
from mainspring.tracking.model import Experiment, LoggedModel, Run, Trace

_AT_ONCE = 500
_OF_RUN = ("metric", "run_metric", "run_param", "run_tag", "dataset_input", "run_model")
"""The narrow tables that hold what a run has logged, by its number."""


class Discarded(Value, frozen=True, kw_only=True):
    """A thing that is deleted.

    Attributes:
        kind: What it is.
        name: Name of the run or experiment, or id of the logged model.
        deleted: When it was deleted.
        kept: Why it cannot be removed for good; empty when it can.
    """

    kind: Literal["run", "logged model", "experiment"]
    name: str
    deleted: datetime
    kept: str = ""


class Trash:
    """Deleted runs, logged models and experiments.

    Args:
        store: The database.

    Attributes:
        keepers: Rooms that rest on runs: each tells, of some runs, which must stay, and why.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files = Files(store)
        self.keepers: list[Callable[[Sequence[str]], Mapping[str, str]]] = []

    @operation("GET", "/trash", command="list")
    def find(self, days: float = 0.0, limit: int = 100, offset: int = 0) -> list[Discarded]:
        """Lists what is deleted; it can be restored until the trash is emptied.

        Args:
            days: Only what was deleted so many days ago, or earlier.
            limit: How many at most.
            offset: How many to pass over.
        """
        if not 1 <= limit <= 10_000:
            raise InvalidInput(f"limit must be 1 to 10000, not {limit}")
        return self._found(days)[max(offset, 0) : max(offset, 0) + limit]

    @operation("POST", "/trash/empty")
    def empty(self, days: float = 30.0, dry_run: bool = False) -> list[Discarded]:
        """Removes for good what was deleted long enough ago, with metrics and files; tells what is gone, what is kept.

        The bytes of files that nothing else needs are freed by the controller's next sweep.

        Args:
            days: What was deleted so many days ago, or earlier; 0 for everything.
            dry_run: Tells only.
        """
        told = self._found(days)
        if dry_run:
            return told
        removals: dict[str, Callable[[Transaction, str], None]] = {
            "run": self._remove_run, "logged model": self._remove_model, "experiment": self._remove_experiment,
        }  # fmt: skip
        gone = [item for item in told if not item.kept]
        for start in range(0, len(gone), _AT_ONCE):
            with self._store.transaction() as tx:
                for item in gone[start : start + _AT_ONCE]:
                    removals[item.kind](tx, item.name)
        return told

    def _found(self, days: float) -> list[Discarded]:
        """What is deleted: runs first and experiments last, for those go when nothing is left in them."""
        if not 0 <= days <= 36_500:
            raise InvalidInput(f"days must be 0 to 36500, not {days}")
        until = self._store.clock.now() - timedelta(days=days)
        experiments = {item.number: item for item in self._deleted(Experiment)}
        runs = [Discarded(kind="run", name=item.name, deleted=self._time(item, experiments), kept=_of_pipeline(item))
                for item in self._deleted(Run)]  # fmt: skip
        runs = [item for item in runs if item.deleted <= until]
        found = [*self._asked(runs), *(
            Discarded(kind="logged model", name=f"m-{to_hex(item.id)}", deleted=item.changed)
            for item in self._deleted(LoggedModel) if item.changed <= until
        )]  # fmt: skip
        going = {item.name for item in found if not item.kept}
        for item in experiments.values():
            if item.changed <= until:
                found.append(
                    Discarded(kind="experiment", name=item.name, deleted=item.changed, kept=self._held(item, going))
                )
        return found

    def _deleted(self, kind: Any) -> list[Any]:
        found: list[Any] = []
        while page := self._store.find(kind, lifecycle="deleted", limit=10_000, offset=len(found)):
            found += page
        return found

    def _time(self, run: Run, experiments: Mapping[int, Experiment]) -> datetime:
        """When a run was deleted: alone, or with its experiment."""
        if (home := experiments.get(run.experiment_number)) is not None:
            return home.changed
        last = self._store.events(subject=run.name, prefix="tracking.run.deleted", newest=True, limit=1)
        return last[0].time if last else run.ended or run.created

    def _asked(self, runs: Sequence[Discarded]) -> list[Discarded]:
        """The same runs, with why the rooms that rest on them keep some."""
        why: dict[str, str] = {}
        for start in range(0, len(runs), _AT_ONCE):
            names = [item.name for item in runs[start : start + _AT_ONCE]]
            for keeper in self.keepers:
                why |= keeper(names)
        return [
            Discarded(kind="run", name=item.name, deleted=item.deleted, kept=item.kept or why.get(item.name, ""))
            for item in runs
        ]

    def _held(self, experiment: Experiment, going: set[str]) -> str:
        """What an experiment still holds when all this is gone."""
        runs = self._store.find(Run, experiment_number=experiment.number, limit=10_000)
        left = [item.name for item in runs if item.name not in going]
        return f"run {left[0]} is in it" if left else ""

    def _remove_run(self, tx: Transaction, name: str) -> None:
        run = self._store.get(Run, name=name)
        for table in _OF_RUN:
            tx.driver.run(f"DELETE FROM {table} WHERE run = ?", (run.number,))  # noqa: S608
        self._files.forget(name)
        tx.delete(run)
        tx.emit("tracking.run.removed", name, experiment=run.experiment, title=run.title)

    def _remove_model(self, tx: Transaction, name: str) -> None:
        model = self._store.get(LoggedModel, id=from_hex(name.removeprefix("m-")))
        tx.driver.run("DELETE FROM logged_model_metric WHERE model = ?", (model.id,))
        tx.driver.run("DELETE FROM run_model WHERE model = ?", (model.id,))
        self._files.remove("", model.folder)
        tx.delete(model)
        tx.emit("tracking.logged_model.removed", name, name=model.name)

    def _remove_experiment(self, tx: Transaction, name: str) -> None:
        experiment = self._store.get(Experiment, name=name)
        for model in self._store.find(LoggedModel, experiment=experiment.number, limit=10_000):
            self._remove_model(tx, f"m-{to_hex(model.id)}")
        for trace in self._store.find(Trace, experiment=experiment.number, limit=10_000):
            self._files.remove("", trace.folder)
            tx.driver.run("DELETE FROM trace_span WHERE trace = ?", (trace.name,))
            tx.delete(trace)
        tx.delete(experiment)
        tx.emit("tracking.experiment.removed", name, number=experiment.number)


def _of_pipeline(run: Run) -> str:
    """Why a pipeline's run stays: what its steps made is what later runs pass on."""
    return f"pipeline {run.pipeline} made it" if run.pipeline else ""
