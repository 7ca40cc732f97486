"""Operations on evaluation datasets: what applications are tried on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from mainspring.core.actor import current_actor
from mainspring.core.entity import Create, Patch, Value, born, patched
from mainspring.core.ids import from_hex, new_id, to_hex
from mainspring.core.operation import operation
from mainspring.errors import InvalidInput, NotFound
from mainspring.store import Store, Transaction
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.model import EvaluationDataset, EvaluationRecord

LISTING = "mainspring evaluations list"
USER = "mlflow.user"
"""The tag in which MLflow's client says who adds a record."""
_TYPES = {type(None): "null", bool: "boolean", int: "integer", float: "float", str: "string", list: "array",
          dict: "object"}  # fmt: skip


class Question(Value, frozen=True, kw_only=True):
    """A record as it is told; see `EvaluationRecord`."""

    inputs: dict[str, Any]
    outputs: Any = msgspec.UNSET
    expectations: dict[str, Any] | None = None
    tags: dict[str, str] | None = None
    source: dict[str, Any] | None = None


class Merged(Value, frozen=True, kw_only=True):
    """How many records are new, and how many were there."""

    inserted: int
    updated: int


class Evaluations:
    """Evaluation datasets and their records.

    Args:
        store: The database.
        experiments: Which they belong to.
    """

    def __init__(self, store: Store, experiments: Experiments) -> None:
        self._store = store
        self._experiments = experiments

    @operation("POST", "/evaluations")
    def create(self, new: Create[EvaluationDataset]) -> EvaluationDataset:
        """Creates an evaluation dataset without records."""
        if not new.name.strip():
            raise InvalidInput("an evaluation dataset needs a name", hint="give it one")
        self._check(new.experiments)
        now = self._store.clock.now()
        actor = new.tags.get(USER) or current_actor().name
        made = born(EvaluationDataset, new, id=new_id(), created=now, changed=now, actor=actor, editor=actor)
        with self._store.transaction() as tx:
            tx.insert(made)
            tx.emit("tracking.evaluation.created", spoken(made), name=made.name)
        return made

    @operation("GET", "/evaluations", command="list")
    def find(self, limit: int = 100, offset: int = 0) -> list[EvaluationDataset]:
        """Lists evaluation datasets, newest first."""
        return self._store.find(EvaluationDataset, order="-created", limit=limit, offset=offset)

    @operation("GET", "/evaluations/{dataset}")
    def show(self, dataset: str) -> EvaluationDataset:
        """Shows an evaluation dataset.

        Args:
            dataset: Its id, such as ``d-0190…``, or its name where no other has it.
        """
        id = from_hex(dataset.removeprefix("d-"))
        found = self._store.first(EvaluationDataset, id=id) if id else None
        if found is None:
            named = self._store.find(EvaluationDataset, name=dataset, limit=2)
            if len(named) > 1:
                raise InvalidInput(f"several evaluation datasets are called {dataset}", hint="name its id")
            found = named[0] if named else None
        if found is None:
            raise NotFound(f"Evaluation dataset with id '{dataset}' not found", hint=f"list them: `{LISTING}`")
        return found

    @operation("PATCH", "/evaluations/{dataset}")
    def update(self, dataset: str, change: Patch[EvaluationDataset]) -> EvaluationDataset:
        """Changes an evaluation dataset's tags, or which experiments it belongs to."""
        with self._store.transaction() as tx:
            before = self.show(dataset)
            after, fields = patched(before, change)
            if not fields:
                return before
            self._check(set(after.experiments).difference(before.experiments))
            after = tx.update(replace(after, changed=self._store.clock.now()))
            tx.emit("tracking.evaluation.changed", spoken(after), fields=sorted(fields))
        return after

    @operation("POST", "/evaluations/{dataset}/delete", command="delete")
    def delete(self, dataset: str) -> None:
        """Removes an evaluation dataset with its records."""
        with self._store.transaction() as tx:
            found = self.show(dataset)
            tx.driver.run("DELETE FROM evaluation_record WHERE dataset = ?", (found.id,))
            tx.delete(found)
            tx.emit("tracking.evaluation.deleted", spoken(found), name=found.name, records=found.records)

    @operation("GET", "/evaluations/{dataset}/records", command="records")
    def records(self, dataset: str, limit: int = 1000, offset: int = 0) -> list[EvaluationRecord]:
        """Lists a dataset's records in the order in which they came."""
        found = self.show(dataset)
        return self._store.find(EvaluationRecord, order="id", limit=limit, offset=offset, dataset=found.id)

    @operation("POST", "/evaluations/{dataset}/records", command="")
    def merge(self, dataset: str, questions: list[Question]) -> Merged:
        """Adds records; one whose question is there already gets what is new: its output, expectations and tags."""
        inserted = updated = 0
        with self._store.transaction() as tx:
            found = self.show(dataset)
            editor = found.editor
            for question in questions:
                editor = (question.tags or {}).get(USER) or current_actor().name
                key = hashlib.sha256(msgspec.json.encode(question.inputs, order="deterministic")).hexdigest()
                before = self._store.first(EvaluationRecord, dataset=found.id, key=key)
                if before is None:
                    self._insert(tx, found, key, question, editor)
                    inserted += 1
                else:
                    tx.update(_merged(before, question, self._store.clock.now(), editor))
                    updated += 1
            self._changed(tx, found, inserted, _fields(found.fields, questions), editor)
        return Merged(inserted=inserted, updated=updated)

    @operation("POST", "/evaluations/{dataset}/records/delete", command="")
    def forget(self, dataset: str, records: list[str]) -> int:
        """Removes records by their ids; how many there were."""
        with self._store.transaction() as tx:
            found, gone = self.show(dataset), 0
            for name in dict.fromkeys(records):
                id = from_hex(name.removeprefix("dr-"))
                record = self._store.first(EvaluationRecord, id=id, dataset=found.id) if id else None
                if record is not None:
                    tx.delete(record)
                    gone += 1
            if gone:
                self._changed(tx, found, -gone, found.fields, current_actor().name)
        return gone

    def _insert(self, tx: Transaction, dataset: EvaluationDataset, key: str, said: Question, actor: str) -> None:
        now = self._store.clock.now()
        tx.insert(EvaluationRecord(
            id=new_id(), created=now, changed=now, dataset=dataset.id, key=key, inputs=said.inputs,
            outputs=None if said.outputs is msgspec.UNSET else said.outputs, expectations=said.expectations or {},
            tags=said.tags or {}, source=said.source or {}, actor=actor, editor=actor,
        ))  # fmt: skip

    def _changed(
        self, tx: Transaction, before: EvaluationDataset, more: int, fields: dict[str, Any], editor: str
    ) -> None:
        """Says that records came or went: each state of a dataset has a time of its own."""
        now = self._store.clock.now()
        after = replace(before, changed=now, fields=fields, records=before.records + more, editor=editor)
        tx.update(after)
        tx.emit("tracking.evaluation.changed", spoken(after), records=after.records)

    def _check(self, experiments: Iterable[int]) -> None:
        for number in experiments:
            self._experiments.by_number(number)


def spoken(dataset: EvaluationDataset) -> str:
    """Its id as it is told."""
    return f"d-{to_hex(dataset.id)}"


def _merged(before: EvaluationRecord, said: Question, now: Any, editor: str) -> EvaluationRecord:
    """A record with what is told of it anew."""
    return replace(
        before, changed=now, editor=editor, outputs=before.outputs if said.outputs is msgspec.UNSET else said.outputs,
        expectations=before.expectations | (said.expectations or {}), tags=before.tags | (said.tags or {}),
    )  # fmt: skip


def _fields(known: dict[str, Any], questions: Sequence[Question]) -> dict[str, Any]:
    """What records have, with that of new ones; the type that a field was first seen with stays."""
    found: dict[str, Any] = {part: known.get(part, {}) for part in ("inputs", "outputs", "expectations")}
    for question in questions:
        for part, before in found.items():
            value = getattr(question, part)
            if isinstance(value, dict) and isinstance(before, dict):
                found[part] = {name: _TYPES.get(type(item), "unknown") for name, item in value.items()} | before
            elif value not in (None, msgspec.UNSET) and not before:
                found[part] = _TYPES.get(type(value), "unknown")
    return found
