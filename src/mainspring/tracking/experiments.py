"""Operations on experiments."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from mainspring.core.entity import Create, Patch, born, draft, patched
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.store import Store
from mainspring.tracking import rules
from mainspring.tracking.model import DEFAULT_EXPERIMENT, Experiment, Lifecycle

MAX_NAME = 500
MAX_COUNTED = 10**12
LISTING = "mainspring experiments list"


class Home(NamedTuple):
    """What a new run must know of its experiment.

    Attributes:
        number: Its number.
        name: Its name.
        location: Where artifacts of its runs are kept; empty: in this workspace.
    """

    number: int
    name: str
    location: str


class Experiments:
    """Experiments: groups of runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("POST", "/experiments")
    def create(self, new: Create[Experiment]) -> Experiment:
        """Creates an experiment.

        Raises:
            Conflict: The name is taken, perhaps by a deleted one.
        """
        _check_name(new.name)
        now = self._store.clock.now()
        with self._store.transaction() as tx:
            taken = tx.driver.row("SELECT lifecycle FROM experiment WHERE name = ?", (new.name,))
            if taken is not None:
                raise Conflict(
                    f"Experiment(name={new.name}) already exists",
                    hint="restore it, or choose another name" if taken[0] == "deleted" else "choose another name",
                    lifecycle=taken[0],
                )
            # Experiments that came from a folder of MLflow's keep numbers of 18 digits: they are not counted on.
            last = tx.driver.row("SELECT max(number) FROM experiment WHERE number < ?", (MAX_COUNTED,))
            number = (last[0] if last and last[0] is not None else -1) + 1
            made = born(Experiment, new, id=new_id(), created=now, changed=now, number=number)
            tx.insert(made)
            tx.emit("tracking.experiment.created", made.name, number=number)
        return made

    @operation("GET", "/experiments", command="list")
    def find(
        self, lifecycle: Lifecycle | Literal["any"] = "active", limit: int = 100, offset: int = 0
    ) -> list[Experiment]:
        """Lists experiments, newest first."""
        equals = {} if lifecycle == "any" else {"lifecycle": lifecycle}
        return self._store.find(Experiment, order="-created", limit=limit, offset=offset, **equals)

    @operation("GET", "/experiments/{name}")
    def show(self, name: str) -> Experiment:
        """Shows an experiment."""
        return self._store.get(Experiment, name=name, listing=LISTING)

    def by_number(self, number: int) -> Experiment:
        """The experiment with this number (not an operation).

        Raises:
            NotFound: There is none.
        """
        found = self._store.first(Experiment, number=number)
        if found is None:
            raise _unnumbered(number)
        return found

    def ensure(self, name: str) -> Experiment:
        """The active experiment of this name, made when there is none (not an operation).

        Raises:
            Conflict: It is deleted.
        """
        found = self._store.first(Experiment, name=name)
        if found is None:
            return self.create(draft(Experiment, name=name))
        rules.check_lifecycle("experiment", name, found.lifecycle)
        return found

    @operation("PATCH", "/experiments/{name}")
    def update(self, name: str, change: Patch[Experiment]) -> Experiment:
        """Changes an experiment's name or tags; its runs follow.

        Raises:
            Conflict: It is deleted, or the new name is taken.
        """
        with self._store.transaction() as tx:
            before = self.show(name)
            rules.check_lifecycle("experiment", name, before.lifecycle)
            after, fields = patched(before, change)
            if not fields:
                return before
            if after.name != before.name:
                _check_name(after.name)
                if self._store.first(Experiment, name=after.name) is not None:
                    raise Conflict(f"Experiment(name={after.name}) already exists", hint="choose another name")
                tx.driver.run("UPDATE run SET experiment = ? WHERE experiment_number = ?", (after.name, after.number))
            tx.update(msgspec.structs.replace(after, changed=self._store.clock.now()))
            tx.emit("tracking.experiment.changed", after.name, fields=sorted(fields), number=after.number)
        return self.show(after.name)

    @operation("POST", "/experiments/{name}/delete")
    def delete(self, name: str) -> Experiment:
        """Deletes an experiment with its runs; `restore` brings them back.

        Raises:
            Conflict: It is deleted already, or it is the one that always exists.
        """
        if name == DEFAULT_EXPERIMENT:
            raise Conflict(f"{name} always exists", hint="delete its runs instead")
        return self._turn(name, "deleted")

    @operation("POST", "/experiments/{name}/restore")
    def restore(self, name: str) -> Experiment:
        """Brings a deleted experiment back, with its runs.

        Raises:
            Conflict: It is not deleted.
        """
        return self._turn(name, "active")

    def _turn(self, name: str, to: Lifecycle) -> Experiment:
        now: datetime = self._store.clock.now()
        with self._store.transaction() as tx:
            before = self.show(name)
            rules.check_lifecycle("experiment", name, before.lifecycle, "deleted" if to == "active" else "active")
            after = tx.update(msgspec.structs.replace(before, lifecycle=to, changed=now))
            tx.driver.run("UPDATE run SET lifecycle = ? WHERE experiment_number = ?", (to, after.number))
            tx.emit(f"tracking.experiment.{'deleted' if to == 'deleted' else 'restored'}", name, number=after.number)
        return after


def home_of(number: int, found: tuple[str, str, str] | None) -> Home:
    """What a new run must know of an active experiment, out of its name, location and lifecycle.

    Raises:
        NotFound: There is none.
        Conflict: It is deleted.
    """
    if found is None:
        raise _unnumbered(number)
    name, location, lifecycle = found
    rules.check_lifecycle("experiment", str(number), lifecycle)  # type: ignore[arg-type]
    return Home(number, name, location)


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidInput(f"Invalid experiment name: '{name}'", hint="give it a name")
    if len(name) > MAX_NAME:
        raise InvalidInput(f"'name' exceeds the maximum length of {MAX_NAME} characters", hint="choose a shorter one")


def _unnumbered(number: int) -> NotFound:
    return NotFound(f"No Experiment with id={number} exists", hint=f"list them: `{LISTING}`")
