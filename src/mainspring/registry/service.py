"""Operations on models."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mainspring.core.actor import current_actor
from mainspring.core.address import parse_address
from mainspring.core.entity import Create, Patch, born, draft
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.core.package import ModelPackage
from mainspring.errors import Conflict, InvalidInput, NotFound, unknown_name
from mainspring.pipelines.service import Pipelines
from mainspring.ports.artifacts import ArtifactStore, Blob
from mainspring.registry.model import Alias, Model, ModelVersion, VersionStatus
from mainspring.store import Store
from mainspring.tracking.service import Runs

LISTING = "mainspring models list"


class Models:
    """Models, their versions and aliases."""

    def __init__(self, store: Store, runs: Runs, pipelines: Pipelines, artifacts: ArtifactStore) -> None:
        self._store = store
        self._runs = runs
        self._pipelines = pipelines
        self._artifacts = artifacts

    @operation("POST", "/models")
    def create(self, new: Create[Model]) -> Model:
        """Creates a model; versions are proposed to it afterwards."""
        model = born(Model, new, id=new_id(), created=self._store.clock.now())
        with self._store.transaction() as tx:
            tx.insert(model)
            tx.emit("registry.model.created", model.name, use_case=model.use_case)
        return model

    @operation("PATCH", "/models/{name}")
    def update(self, name: str, change: Patch[Model]) -> Model:
        """Changes a model's description."""
        with self._store.transaction() as tx:
            return tx.patch(self.show(name), change, "registry.model.changed", name)

    @operation("GET", "/models", command="list")
    def find(self, limit: int = 100) -> list[Model]:
        """Lists models by name."""
        return self._store.find(Model, order="name", limit=limit)

    @operation("GET", "/models/{name}")
    def show(self, name: str) -> Model:
        """Shows a model."""
        return self._store.get(Model, name=name, listing=LISTING)

    @operation("GET", "/models/{name}/versions")
    def versions(self, name: str, limit: int = 100) -> list[ModelVersion]:
        """Lists the versions of a model, newest first."""
        return self._store.find(ModelVersion, order="-number", limit=limit, model=self.show(name).name)

    @operation("GET", "/models/{name}/aliases")
    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a model, with the number each points at."""
        return {item.alias: item.number for item in self._store.find(Alias, order="alias", model=self.show(name).name)}

    @operation("GET", "/model-versions/{address}")
    def version(self, address: str) -> ModelVersion:
        """Shows one version: ``churn@3``, ``churn@live``, or the newest of ``churn``."""
        name, number, alias = parse_address(address)
        if alias is not None:
            aliases = self.aliases(name)
            if alias not in aliases:
                raise unknown_name("alias", alias, aliases, listing=f"mainspring models show {name}")
            number = aliases[alias]
        if number is not None:
            listing = f"mainspring models versions {name}"
            return self._store.get(ModelVersion, address=f"{name}@{number}", listing=listing)
        newest = self._store.first(ModelVersion, order="-number", model=self.show(name).name)
        if newest is None:
            raise NotFound(f"model `{name}` has no version", hint=f"mainspring models propose {name} --run RUN")
        return newest

    @operation("POST", "/models/{name}/versions")
    def propose(self, name: str, run: str) -> ModelVersion:
        """Makes a run's output ``model`` a candidate; the same run proposed again gives the version that exists.

        The outputs ``metrics`` (name -> number), ``holdout`` (labelled rows) and ``reference`` (rows that drift is
        measured against) are taken along where the pipeline returns them.

        Raises:
            Conflict: The run has not succeeded.
            NotFound: It has no output ``model``.
        """
        if before := self._store.first(ModelVersion, run=run):
            return before
        made_by = self._runs.show(run)
        if made_by.status != "ok":
            raise Conflict(f"run {run} has not succeeded: {made_by.status}", hint=f"mainspring runs show {run}")
        packed = self._packed(run)
        files = {path: self._artifacts.put(content) for path, content in packed.files.items()}
        outputs = self._pipelines.plan_of(run).plan.outputs
        extra = {key: self._pipelines.output(run, key) for key in ("holdout", "reference") if key in outputs}
        new = draft(
            ModelVersion,
            model=self.show(name).name,
            run=run,
            flavor=packed.flavor,
            files={path: blob.digest for path, blob in files.items()},
            signature=packed.signature,
            metrics=_numbers(self._pipelines.value(run, "metrics") if "metrics" in outputs else made_by.metrics),
            datasets=made_by.datasets,
            twin_difference=packed.twin_difference,
            **{key: parts[0].digest for key, parts in extra.items() if parts},
        )
        owned = [*files.values(), *(Blob(part.digest, part.size) for parts in extra.values() for part in parts)]
        return self._enter(new, owned)

    def _packed(self, run: str) -> ModelPackage:
        """The run's output ``model``, checked."""
        packed = self._pipelines.value(run, "model")
        if not isinstance(packed, ModelPackage):
            raise InvalidInput(
                f"output `model` of run {run} is no packed model", hint="let a step return `mainspring.package(…)`"
            )
        for path in packed.files:
            if path.startswith("/") or "\\" in path or ".." in path.split("/"):
                raise InvalidInput(f"`{path}` is not a path within the model", hint="use a relative path without `..`")
        return packed

    def _enter(self, new: ModelVersion, owned: list[Blob]) -> ModelVersion:
        """Gives the candidate its number and stores it; of one run there is one version."""
        with self._store.transaction() as tx:
            if before := self._store.first(ModelVersion, run=new.run):
                return before
            number, actor = self._store.count(ModelVersion, model=new.model) + 1, current_actor()
            version = born(
                ModelVersion, new, id=new_id(), created=self._store.clock.now(), number=number,
                address=f"{new.model}@{number}", actor=actor.name, cause=actor.cause,
            )  # fmt: skip
            tx.insert(version)
            for blob in owned:
                tx.own(blob.digest, f"model:{version.address}", blob.size)
            facts = {"model": new.model, "run": new.run, "metrics": new.metrics, "datasets": new.datasets}
            tx.emit("registry.version.proposed", version.address, **facts)
        return version

    @operation("POST", "/models/{name}/aliases/{alias}", command="alias")
    def set_alias(self, name: str, alias: str, number: int) -> Alias:
        """Points an alias at a version."""
        version = self.version(f"{name}@{number}")
        with self._store.transaction() as tx:
            before = self._store.first(Alias, model=name, alias=alias)
            if before is not None and before.number == number:
                return before
            if before is not None:
                pointed = tx.update(msgspec.structs.replace(before, number=number))
            else:
                pointed = tx.insert(
                    Alias(id=new_id(), created=self._store.clock.now(), model=name, alias=alias, number=number)
                )
            tx.emit(
                "registry.alias.set", version.address, model=name, alias=alias, before=before.number if before else None
            )
        return pointed

    def set_status(self, address: str, status: VersionStatus) -> ModelVersion:
        """Notes a decision about a version (for the room `governance`: nobody decides past it)."""
        with self._store.transaction() as tx:
            version = self.version(address)
            if version.status == status:
                return version
            version = tx.update(msgspec.structs.replace(version, status=status))
            tx.emit(f"registry.version.{status}", address, model=version.model)
        return version

    def unpack(self, address: str, folder: Path) -> Path:
        """Writes a version's files to ``folder/address``, verified, and returns that folder (not an operation)."""
        version = self.version(address)
        target = folder / version.address
        for path, digest in version.files.items():
            place = target / path
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                self._artifacts.fetch(digest, place)
        return target


def _numbers(metrics: object) -> dict[str, float]:
    if not isinstance(metrics, dict):
        return {}
    return {
        str(key): float(value)
        for key, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
