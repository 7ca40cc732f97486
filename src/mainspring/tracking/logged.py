"""Operations on logged models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from mainspring.core.actor import current_actor
from mainspring.core.entity import Create, Patch, born, patched
from mainspring.core.ids import from_hex, new_id, to_hex
from mainspring.core.operation import operation
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.store import Store
from mainspring.tracking import rules
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.files import Files, check_path
from mainspring.tracking.model import LoggedModel, LoggedModelMetric, RunArtifact

LISTING = "mainspring logged list"
_BLOCK = 500


class LoggedModels:
    """Models that scripts have logged.

    Args:
        store: The database.
        experiments: Which they belong to.
    """

    def __init__(self, store: Store, experiments: Experiments) -> None:
        self._store = store
        self._experiments = experiments

    @operation("POST", "/logged-models")
    def create(self, new: Create[LoggedModel]) -> LoggedModel:
        """Creates a logged model; its files come next, then `finish`."""
        experiment = self._experiments.by_number(new.experiment)
        rules.check_lifecycle("experiment", experiment.name, experiment.lifecycle)
        now = self._store.clock.now()
        made = born(LoggedModel, new, id=new_id(), created=now, changed=now, actor=current_actor().name)
        with self._store.transaction() as tx:
            tx.insert(made)
            tx.emit("tracking.logged_model.created", f"m-{to_hex(made.id)}", name=made.name, run=made.run)
        return made

    @operation("GET", "/logged-models", command="list")
    def find(self, experiment: int = 0, limit: int = 100, offset: int = 0) -> list[LoggedModel]:
        """Lists an experiment's logged models, newest first."""
        return self._store.find(
            LoggedModel, order="-created", limit=limit, offset=offset, experiment=experiment, lifecycle="active"
        )

    @operation("GET", "/logged-models/{model}")
    def show(self, model: str) -> LoggedModel:
        """Shows a logged model.

        Args:
            model: Its id, such as ``m-0190…``.
        """
        id = from_hex(model.removeprefix("m-"))
        found = self._store.first(LoggedModel, id=id) if id else None
        if found is None or found.lifecycle == "deleted":
            raise NotFound(f"Logged model with ID '{model}' not found.", hint=f"list them: `{LISTING}`")
        return found

    @operation("PATCH", "/logged-models/{model}")
    def update(self, model: str, change: Patch[LoggedModel]) -> LoggedModel:
        """Changes tags or parameters."""
        with self._store.transaction() as tx:
            after, fields = patched(self.show(model), change)
            if not fields:
                return after
            after = tx.update(msgspec.structs.replace(after, changed=self._store.clock.now()))
            tx.emit("tracking.logged_model.changed", model, fields=sorted(fields))
        return after

    @operation("POST", "/logged-models/{model}/finish", command="finish")
    def finish(self, model: str, status: Literal["ready", "failed"] = "ready") -> LoggedModel:
        """Says that its files are all there, or will never be."""
        with self._store.transaction() as tx:
            before = self.show(model)
            if before.status == status:
                return before
            after = tx.update(msgspec.structs.replace(before, status=status, changed=self._store.clock.now()))
            tx.emit(f"tracking.logged_model.{status}", model, name=after.name, run=after.run)
        return after

    @operation("POST", "/logged-models/{model}/files", command="")
    def attach(self, model: str, path: str, digest: str, size: int) -> RunArtifact:
        """Attaches stored bytes to a logged model that is not finished."""
        found = self.show(model)
        if found.status != "pending":
            raise Conflict(f"logged model {model} is {found.status}", hint="log another one")
        return Files(self._store).put("", f"{found.folder}/{check_path(path)}", digest, size)

    @operation("POST", "/logged-models/{model}/delete", command="delete")
    def delete(self, model: str) -> None:
        """Deletes a logged model; versions registered from it keep their files."""
        with self._store.transaction() as tx:
            before = self.show(model)
            tx.update(msgspec.structs.replace(before, lifecycle="deleted", changed=self._store.clock.now()))
            tx.emit("tracking.logged_model.deleted", model, name=before.name)

    def add_params(self, model: str, params: dict[str, str]) -> LoggedModel:
        """Adds parameters; one that is there already must have the same value (not an operation).

        Raises:
            InvalidInput: A parameter has another value.
        """
        with self._store.transaction():
            before = self.show(model)
            for key, value in params.items():
                if before.params.get(key, value) != value:
                    raise InvalidInput(
                        f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                        f"value='{before.params[key]}' for logged model ID='{model}'.",
                        hint="use another key",
                    )
            return self._replace(before, params=before.params | params)

    def set_tags(self, model: str, tags: dict[str, str]) -> LoggedModel:
        """Sets tags (not an operation)."""
        with self._store.transaction():
            before = self.show(model)
            return self._replace(before, tags=before.tags | tags)

    def delete_tag(self, model: str, key: str) -> None:
        """Removes a tag (not an operation).

        Raises:
            NotFound: It has no such tag.
        """
        with self._store.transaction():
            before = self.show(model)
            if key not in before.tags:
                raise NotFound(f"No tag with key {key!r} found for model with ID {model!r}.", hint="look at its tags")
            self._replace(before, tags={name: value for name, value in before.tags.items() if name != key})

    def _replace(self, before: LoggedModel, **fields: dict[str, str]) -> LoggedModel:
        with self._store.transaction() as tx:
            changed = self._store.clock.now()
            return tx.update(msgspec.structs.replace(before, changed=changed, **fields))

    def measured(self, points: Iterable[LoggedModelMetric]) -> None:
        """Keeps metrics of logged models; a point that is there already stays (not an operation)."""
        points = list(points)
        with self._store.transaction() as tx:
            for model in {point.model for point in points}:
                if self._store.first(LoggedModel, id=model) is None:
                    raise NotFound(f"Logged model with ID 'm-{to_hex(model)}' not found.", hint=LISTING)
            for point in points:
                try:
                    tx.insert(point)
                except Conflict:
                    continue

    def newest_metrics(self, model: str) -> dict[str, float]:
        """A logged model's metrics, each as measured last, without those that are NaN (not an operation)."""
        points = self.metrics([model]).get(model, [])
        newest = {point.key: point.value for point in points}
        return {key: value for key, value in newest.items() if value is not None}

    def metrics(self, models: Sequence[str]) -> dict[str, list[LoggedModelMetric]]:
        """Logged model's id -> its metrics, in the order of time (not an operation)."""
        found: dict[str, list[LoggedModelMetric]] = {}
        column = self._store.columns(LoggedModelMetric)
        for start in range(0, len(models), _BLOCK):
            chosen = column.model.in_(models[start : start + _BLOCK])
            offset = 0
            while page := self._store.find(LoggedModelMetric, chosen, order="time", limit=10_000, offset=offset):
                for point in page:
                    found.setdefault(point.model, []).append(point)
                offset += len(page)
                if len(page) < 10_000:
                    break
        return found
