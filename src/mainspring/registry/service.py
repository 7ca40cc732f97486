"""Operations on models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.actor import current_actor
from mainspring.core.address import parse_model_address
from mainspring.core.entity import Create, Patch, born, create_type, draft, patched
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.core.package import ModelPackage
from mainspring.errors import Conflict, InvalidInput, NotFound, unknown_name
from mainspring.pipelines.service import Pipelines
from mainspring.ports.artifacts import ArtifactStore, Blob
from mainspring.registry.compatibility import Compatibility, breaking_changes
from mainspring.registry.follower import Follower
from mainspring.registry.model import PICKLE, PROMPT_TAG, SOURCE, Alias, Model, ModelVersion, Stage, VersionStatus
from mainspring.registry.sources import Source, Sources
from mainspring.store import Store
from mainspring.tracking.logged import LoggedModels
from mainspring.tracking.service import Runs

if TYPE_CHECKING:
    from mainspring.registry.adopt import Adopted
    from mainspring.registry.load import Model as LoadedModel

LISTING = "mainspring models list"


class Models:
    """Models, their versions and aliases.

    Args:
        store: The database.
        runs: The room `tracking`.
        pipelines: The room `pipelines`.
        artifacts: Where files are.
        logged: Models that scripts have logged, of the room `tracking`.
        code: Which models that are code may be loaded: the words ``source`` and ``pickle``.

    Attributes:
        followers: Rooms that keep models' names; they are asked before one goes.
        trusting: Rooms that know types which the versions of a model may be made of, beyond scikit-learn's own.
        sources: What addresses stand for.
    """

    def __init__(
        self, store: Store, runs: Runs, pipelines: Pipelines, artifacts: ArtifactStore, logged: LoggedModels,
        code: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._store = store
        self._runs = runs
        self._pipelines = pipelines
        self._artifacts = artifacts
        self._logged = logged
        self._code = code
        self.sources = Sources(store, runs, logged, self.version)
        self.followers: list[Follower] = []
        self.trusting: list[Callable[[str], Iterable[str]]] = []

    @operation("POST", "/models")
    def create(self, new: Create[Model]) -> Model:
        """Creates a model; versions are proposed to it afterwards."""
        now = self._store.clock.now()
        model = born(Model, new, id=new_id(), created=now, changed=now)
        with self._store.transaction() as tx:
            tx.insert(model)
            tx.emit("registry.model.created", model.name, use_case=model.use_case)
        return model

    @operation("PATCH", "/models/{name}")
    def update(self, name: str, change: Patch[Model]) -> Model:
        """Changes a model's description or tags."""
        with self._store.transaction() as tx:
            after, fields = patched(self.show(name), change)
            if not fields:
                return after
            after = tx.update(msgspec.structs.replace(after, changed=self._store.clock.now()))
            tx.emit("registry.model.changed", name, fields=sorted(fields))
        return after

    @operation("POST", "/models/{name}/delete")
    def delete(self, name: str) -> None:
        """Removes a model with all its versions; its name is free again, the log keeps what was.

        Raises:
            Conflict: A deployment uses it.
        """
        with self._store.transaction() as tx:
            model = self.show(name)
            for follower in self.followers:
                follower.removed(name, "")
            for version in self._store.find(ModelVersion, model=name, limit=10_000):
                tx.delete(version)
            for alias in self._store.find(Alias, model=name, limit=10_000):
                tx.delete(alias)
            prefix = f"model:{name}@"
            tx.driver.run("DELETE FROM artifact_owner WHERE substr(owner, 1, ?) = ?", (len(prefix), prefix))
            tx.delete(model)
            tx.emit("registry.model.deleted", name)

    @operation("POST", "/models/{name}/rename")
    def rename(self, name: str, to: str) -> Model:
        """Gives a model another name; its versions and aliases follow.

        Raises:
            Conflict: The new name is taken, or the model was released anywhere: its name is on record there.
        """
        with self._store.transaction() as tx:
            before = self.show(name)
            new = msgspec.convert({"name": to}, create_type(Model)).name  # type: ignore[attr-defined]
            if to == name:
                return before
            if self._store.first(Model, name=to) is not None:
                raise Conflict(f"Registered Model (name={to}) already exists", hint="choose another name")
            for follower in self.followers:
                follower.renamed(name, new)
            after = tx.update(msgspec.structs.replace(before, name=new, changed=self._store.clock.now()))
            tx.driver.run(
                "UPDATE model_version SET model = ?, address = ? || '@' || number WHERE model = ?", (to, to, name)
            )
            tx.driver.run("UPDATE alias SET model = ? WHERE model = ?", (to, name))
            tx.driver.run(
                "UPDATE artifact_owner SET owner = ? || substr(owner, ?) WHERE substr(owner, 1, ?) = ?",
                (f"model:{to}@", len(f"model:{name}@") + 1, len(f"model:{name}@"), f"model:{name}@"),
            )
            tx.emit("registry.model.renamed", to, before=name)
        return after

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
        model = self.show(name).name
        return self._store.find(ModelVersion, order="-number", limit=limit, model=model, lifecycle="active")

    @operation("GET", "/models/{name}/aliases")
    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a model, with the number each points at."""
        return {item.alias: item.number for item in self._store.find(Alias, order="alias", model=self.show(name).name)}

    @operation("GET", "/model-versions/{address}")
    def version(self, address: str) -> ModelVersion:
        """Shows one version: ``churn@3``, ``churn@live``, or the newest of ``churn``."""
        name, number, alias = parse_model_address(address)
        if alias is not None:
            aliases = self.aliases(name)
            if alias not in aliases:
                raise unknown_name("alias", alias, aliases, listing=f"mainspring models show {name}")
            number = aliases[alias]
        wanted = {"model": name} if number is None else {"address": f"{name}@{number}"}
        found = self._store.first(ModelVersion, order="-number", lifecycle="active", **wanted)
        if found is not None:
            return found
        if known := [item.address for item in self.versions(name)]:
            raise unknown_name("model version", address, known, listing=f"mainspring models versions {name}")
        hint = f"`mainspring up` proposes what was trained; by hand: `mainspring models propose {name} --run RUN`"
        raise NotFound(f"model `{name}` has no version yet", hint=hint)

    @operation("GET", "/model-versions/{address}/compatibility", command="compare")
    def compare(self, address: str, before: str = "") -> Compatibility:
        """Tells which callers of an earlier version would break with this one, in words.

        Args:
            address: The version.
            before: The earlier one; by default the newest below it.
        """
        new, column = self.version(address), self._store.columns(ModelVersion)
        known = {"model": new.model, "lifecycle": "active"}
        old = self.version(before) if before else self._store.first(
            ModelVersion, column.number < new.number, order="-number", **known
        )  # fmt: skip
        return Compatibility(old.address, breaking_changes(old.signature, new.signature)) if old else Compatibility()

    @operation("POST", "/models/{name}/versions")
    def propose(self, name: str, run: str) -> ModelVersion:
        """Makes a run's output ``model`` a candidate; the same run proposed again gives the version that exists.

        The outputs ``metrics`` (name -> number), ``holdout`` (labelled rows) and ``reference`` (rows that drift is
        measured against) are taken along where the pipeline returns them.

        Raises:
            Conflict: The run has not succeeded.
            NotFound: It has no output ``model``.
        """
        if before := self._store.first(ModelVersion, run=run, source=""):
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

    def _enter(
        self, new: ModelVersion, owned: list[Blob], why: str = "", as_was: dict[str, Any] | None = None
    ) -> ModelVersion:
        """Gives the candidate its number, or that which it had, and stores it; of a run's output there is one."""
        with self._store.transaction() as tx:
            if not new.source and (before := self._store.first(ModelVersion, run=new.run, source="")):
                return before
            last = self._store.first(ModelVersion, model=new.model, order="-number")
            number, actor, now = last.number + 1 if last else 1, current_actor(), self._store.clock.now()
            facts = {"created": now, "changed": now, "number": number, "actor": actor.name} | (as_was or {})
            address = f"{new.model}@{facts['number']}"
            version = born(ModelVersion, new, id=new_id(), address=address, cause=actor.cause, **facts)
            tx.insert(version)
            for blob in owned:
                tx.own(blob.digest, f"model:{version.address}", blob.size)
            if as_was is None:
                tx.update(msgspec.structs.replace(self.show(new.model), changed=now))
            told = {name: getattr(new, name) for name in ("model", "run", "metrics", "datasets")}
            if why:
                told["not_served"] = why
            # What has no files here cannot be evaluated here; what was carried over was judged where it came from.
            kind = "carried" if as_was else "proposed" if new.files else "registered"
            tx.emit(f"registry.version.{kind}", version.address, **told)
        return version

    @operation("POST", "/models/{name}/register")
    def register(
        self, name: str, source: str, run: str = "", run_link: str = "", description: str = "",
        tags: dict[str, str] | None = None,
    ) -> ModelVersion:  # fmt: skip
        """Makes a version of what a script has logged, or of another version.

        Args:
            name: Name of the model.
            source: ``runs:/RUN/path``, ``models:/m-ID``, ``models:/name/3``, ``models:/name@alias``, or an address in
                an object store, which is kept as it is and never fetched.
            run: The run that made it, where the source does not say.
            run_link: Address of a page about that run.
            description: What is special about it.
            tags: Free labels.
        """
        model, labels = self.show(name), tags or {}
        prompt = labels.get(PROMPT_TAG) == "true"
        found = Source(None) if prompt else self.sources.read(source)
        said = {"run": found.run or run, "run_link": run_link, "description": description, "tags": labels}
        return self._enter(*self._registered(model.name, source, found, said))

    def _registered(
        self, model: str, source: str, found: Source, said: dict[str, Any]
    ) -> tuple[ModelVersion, list[Blob], str]:
        """What is to be entered for a source: the version, the blobs it owns, and why it cannot be served."""
        copied = found.version
        kept = ("flavor", "signature", "metrics", "datasets", "holdout", "reference", "twin_difference")
        files, more = dict(found.files or {}), {name: getattr(copied, name) for name in kept} if copied else {}
        why = ""
        if files and not copied:
            adopted = self._adopt(files)
            why = adopted.why
            files = adopted.files | files  # what was logged stays as it is
            more = {
                "flavor": adopted.flavor,
                "signature": adopted.signature,
                "twin_difference": adopted.twin_difference,
            }
        if found.logged:
            more["metrics"] = self._logged.newest_metrics(found.logged.id)
        new = draft(
            ModelVersion,
            model=model,
            files={path: blob.digest for path, blob in files.items()},
            source=source,
            logged_model=found.logged.id if found.logged else copied.logged_model if copied else "",
            **said,
            **more,
        )
        owned = list(files.values())
        if copied:
            with self._store.driver() as driver:
                rows = driver.rows(
                    "SELECT digest, size FROM artifact_owner WHERE owner = ?", (f"model:{copied.address}",)
                )
            owned = [Blob(*row) for row in rows]
        return new, owned, why

    def carry_model(self, model: Model) -> bool:
        """Enters a model that another system has, times kept (not an operation); False when it is here already."""
        with self._store.transaction() as tx:
            if self._store.first(Model, name=model.name) is not None:
                return False
            tx.insert(model)
            tx.emit("registry.model.carried", model.name)
        return True

    def carry_aliases(self, name: str, aliases: dict[str, int]) -> list[str]:
        """Sets the aliases that a model has not yet: they may have moved on here (not an operation).

        Returns:
            Aliases that could not be set: there is no such version, or their name cannot be one here.
        """
        known, left = self.aliases(name), []
        for alias, number in aliases.items():
            try:
                if alias not in known:
                    self.set_alias(name, alias, number)
            except (NotFound, InvalidInput):
                left.append(alias)
        return left

    def carry_version(
        self, name: str, source: str, found: Source, said: dict[str, Any], as_was: dict[str, Any]
    ) -> ModelVersion:
        """Enters a version that another system has under the number it had there (not an operation).

        Args:
            name: Name of the model.
            source: What it was registered from.
            found: Its files, or none.
            said: ``run``, ``run_link``, ``description``, ``tags``.
            as_was: ``number``, ``created``, ``changed``, ``actor``, ``stage``.

        Raises:
            Conflict: The model has a version of this number.
        """
        return self._enter(*self._registered(name, source, found, said), as_was)

    def _adopt(self, files: dict[str, Blob]) -> Adopted:
        from mainspring.registry.adopt import adopt  # noqa: PLC0415 - takes ONNX Runtime, which few processes need

        return adopt(files, self._artifacts, self.trusted())

    @operation("PATCH", "/model-versions/{address}", command="edit")
    def edit(self, address: str, change: Patch[ModelVersion]) -> ModelVersion:
        """Changes what is said about a version: its description or tags."""
        with self._store.transaction() as tx:
            before = self.version(address)
            after, fields = patched(before, change)
            if not fields:
                return after
            after = tx.update(msgspec.structs.replace(after, changed=self._store.clock.now()))
            tags = {key: value for key, value in after.tags.items() if before.tags.get(key) != value}
            gone = sorted(before.tags.keys() - after.tags.keys())
            facts = {"fields": sorted(fields), "model": after.model, "tags": tags, "tags_removed": gone}
            tx.emit("registry.version.changed", after.address, **facts)
        return after

    @operation("POST", "/model-versions/{address}/stage", command="stage")
    def set_stage(self, address: str, stage: Stage, archive_others: bool = False) -> ModelVersion:
        """Moves a version to a stage.

        Args:
            address: Such as ``churn@3``.
            stage: ``None``, ``Staging``, ``Production`` or ``Archived``.
            archive_others: Whether versions that stand there now are archived.
        """
        with self._store.transaction() as tx:
            version, now = self.version(address), self._store.clock.now()
            if archive_others and stage in ("Staging", "Production"):
                for other in self._store.find(ModelVersion, model=version.model, stage=stage, limit=10_000):
                    if other.id != version.id and other.lifecycle == "active":
                        tx.update(msgspec.structs.replace(other, stage="Archived", changed=now))
                        tx.emit("registry.version.staged", other.address, stage="Archived", before=stage)
            after = tx.update(msgspec.structs.replace(version, stage=stage, changed=now))
            tx.emit("registry.version.staged", version.address, stage=stage, before=version.stage)
        return after

    @operation("POST", "/model-versions/{address}/delete", command="remove")
    def delete_version(self, address: str) -> None:
        """Deletes a version; its number is not given again, its aliases are gone.

        Raises:
            Conflict: A deployment uses it.
        """
        with self._store.transaction() as tx:
            version, now = self.version(address), self._store.clock.now()
            for follower in self.followers:
                follower.removed(version.model, version.address)
            for alias in self._store.find(Alias, model=version.model, number=version.number):
                tx.delete(alias)
            gone = {"lifecycle": "deleted", "status": "retired", "files": {}, "changed": now}
            tx.update(msgspec.structs.replace(version, **gone))
            tx.driver.run("DELETE FROM artifact_owner WHERE owner = ?", (f"model:{version.address}",))
            tx.update(msgspec.structs.replace(self.show(version.model), changed=now))
            tx.emit("registry.version.deleted", version.address, model=version.model)

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

    @operation("POST", "/models/{name}/aliases/{alias}/delete", command="unalias")
    def delete_alias(self, name: str, alias: str) -> None:
        """Removes an alias; one that is not there stays gone."""
        with self._store.transaction() as tx:
            before = self._store.first(Alias, model=self.show(name).name, alias=alias)
            if before is not None:
                tx.delete(before)
                tx.emit("registry.alias.deleted", f"{name}@{before.number}", model=name, alias=alias)

    def set_status(self, address: str, status: VersionStatus) -> ModelVersion:
        """Notes a decision about a version (for the room `governance`: nobody decides past it)."""
        with self._store.transaction() as tx:
            version = self.version(address)
            if version.status == status:
                return version
            version = tx.update(msgspec.structs.replace(version, status=status))
            tx.emit(f"registry.version.{status}", address, model=version.model)
        return version

    def load(self, address: str, folder: Path) -> LoadedModel:
        """A version ready to score, unpacked below ``folder`` (not an operation).

        Raises:
            Refused: It is code, which this workspace does not load, or made of types that nobody trusts.
        """
        from mainspring.registry.load import load_model  # noqa: PLC0415 - loads ONNX Runtime

        return load_model(self.unpack(address, folder), trusted=self.trusted_of(self.version(address).model))

    def resting_on(self, runs: Sequence[str]) -> dict[str, str]:
        """Runs that versions came from -> which version (not an operation)."""
        found = self._store.find(ModelVersion, self._store.columns(ModelVersion).run.in_(runs), limit=10_000)
        return {item.run: f"{item.address} came from it" for item in found if item.lifecycle == "active"}

    def trusted_of(self, model: str) -> tuple[str, ...]:
        """What versions of a model may be made of wherever they are loaded (not an operation)."""
        return self.trusted(sorted({name for types in self.trusting for name in types(model)}))

    def trusted(self, types: Collection[str] = ()) -> tuple[str, ...]:
        """What models may be made of: some types, and code as the workspace allows (not an operation)."""
        return (*(name for name in types if name not in (SOURCE, PICKLE)), *self._code)

    def unpack(self, address: str, folder: Path) -> Path:
        """Writes a version's files below ``folder``, verified, and returns where (not an operation)."""
        version = self.version(address)
        target = folder / version.id / version.address  # another model may bear the name of one that was deleted
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
