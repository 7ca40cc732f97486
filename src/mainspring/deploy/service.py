"""Operations on deployments."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import polars as pl

from mainspring.core.entity import Create, Patch, born, patched
from mainspring.core.humility import Humility, check_names
from mainspring.core.ids import new_id
from mainspring.core.mask import Mask
from mainspring.core.operation import operation
from mainspring.core.signature import Signature
from mainspring.deploy import rules
from mainspring.deploy.checks import Examiner, failure, try_out, way_out
from mainspring.deploy.model import (
    Check,
    Deployment,
    Difference,
    Environment,
    HistoryEntry,
    Release,
    Verdict,
    VersionEvidence,
)
from mainspring.deploy.recommend import RecommendedRule, input_rules, uncertain_rule
from mainspring.deploy.rollout import LISTING, Rollouts
from mainspring.deploy.usage import Usage
from mainspring.errors import Conflict, InvalidInput, NotFound, Refused
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.target import HostedModel, Role, Route, Target, TargetSpec, TargetStatus
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.store import Store
from mainspring.usecases.service import UseCases

_BACKGROUND_ROWS = 100


class Deployments:
    """Deployments: their wanted state, releases, rollouts and rollbacks.

    Args:
        store: The database.
        usecases: The room `usecases`.
        models: The room `registry`.
        target: Gives the target for an environment's address.
        folder: Where models are unpacked for targets.
        log_folder: Where serving processes write their prediction logs.
        artifacts: Where reference rows and holdouts are.
        mask_key: File of the key that masked columns are hashed with; made when missing.

    Attributes:
        examiners: Rooms that know more of a version than what its folder tells; asked once that has passed.
    """

    def __init__(
        self,
        store: Store,
        usecases: UseCases,
        models: Models,
        target: Callable[[str], Target],
        folder: Path,
        log_folder: Path,
        artifacts: ArtifactStore,
        mask_key: Path,
    ) -> None:
        self._store = store
        self._usecases = usecases
        self._rollouts = Rollouts(store, models)
        self._models = models
        usage = Usage(store)
        models.followers.append(usage)
        models.trusting.append(usage.trusted)
        self._target = target
        self._folder = folder
        self._log_folder = log_folder
        self._artifacts = artifacts
        self._mask_key = mask_key
        self.examiners: list[Examiner] = []

    @operation("PUT", "/environments", command="")
    def set_environment(self, new: Create[Environment]) -> Environment:
        """Declares an environment."""
        with self._store.transaction() as tx:
            before = self._store.first(Environment, name=new.name)
            if before is not None and before.target == new.target:
                return before
            if before is None:
                environment = tx.insert(born(Environment, new, id=new_id(), created=self._store.clock.now()))
            else:
                environment = tx.update(msgspec.structs.replace(before, target=new.target))
            tx.emit("deploy.environment.set", new.name, target=new.target)
        return environment

    @operation("GET", "/environments", command="environments")
    def environments(self) -> list[Environment]:
        """Lists environments."""
        return self._store.find(Environment, order="name")

    @operation("POST", "/deployments")
    def create(self, new: Create[Deployment]) -> Deployment:
        """Creates a deployment; it answers once a version is released to it."""
        self._models.show(new.model)
        self._store.get(Environment, name=new.environment, listing="mainspring deployments environments")
        deployment = born(Deployment, new, id=new_id(), created=self._store.clock.now())
        self.kpi_values(deployment)
        check_names(deployment.humility)
        self._check_beside(deployment)
        with self._store.transaction() as tx:
            tx.insert(deployment)
            tx.emit(
                "deploy.deployment.created", deployment.name, model=deployment.model, environment=deployment.environment
            )
        return deployment

    @operation("PATCH", "/deployments/{name}")
    def update(self, name: str, change: Patch[Deployment]) -> Deployment:
        """Changes a deployment's declaration."""
        with self._store.transaction() as tx:
            before = self.show(name)
            deployment, changes = patched(before, change)
            if changes:
                self.kpi_values(deployment)
                rules.check_change(before, deployment)
                self._check_humility(deployment)
                self._check_beside(deployment)
                if deployment.canary and before.strategy.shares != deployment.strategy.shares:  # the test begins anew
                    facts = {"weight": deployment.strategy.shares[0], "step_since": self._store.clock.now()}
                    deployment = msgspec.structs.replace(deployment, **facts)
                if deployment.live and rules.running(before) != rules.running(deployment):  # what runs must hear of it
                    deployment = msgspec.structs.replace(deployment, revision=deployment.revision + 1)
                tx.update(deployment)
                tx.emit("deploy.deployment.changed", name, fields=sorted(changes))
        return deployment

    @operation("GET", "/deployments", command="list")
    def find(self, limit: int = 100) -> list[Deployment]:
        """Lists deployments by name."""
        return self._store.find(Deployment, order="name", limit=limit)

    @operation("GET", "/deployments/{name}")
    def show(self, name: str) -> Deployment:
        """Shows a deployment: what is wanted."""
        return self._store.get(Deployment, name=name, listing=LISTING)

    @operation("GET", "/deployments/{name}/status")
    def status(self, name: str) -> TargetStatus:
        """What really runs."""
        target = self._target_of(self.show(name))
        try:
            return target.status(name)
        except NotFound:  # never started, or ended in order
            return TargetStatus(name=name, state="stopped")

    @operation("GET", "/deployments/{name}/releases")
    def releases(self, name: str, limit: int = 100) -> list[Release]:
        """Lists a deployment's releases, newest first."""
        return self._store.find(Release, order="-number", limit=limit, deployment=self.show(name).name)

    @operation("POST", "/deployments/{name}/releases")
    def release(
        self,
        name: str,
        version: str,
        reason: str = "",
        arms: list[str] | None = None,
        skip_checks: str = "",
        at_once: bool = False,
    ) -> Deployment:
        """Lets an approved version take over, by the deployment's strategy.

        Before anything is routed the version must pass the deployment's checks. Releasing what is live or rolling
        already changes nothing.

        Args:
            name: The deployment.
            version: Address of the version.
            reason: Why, for the record.
            arms: Further versions, for an A/B test of more than one.
            skip_checks: Why the checks are left out; goes on record.
            at_once: Whether it answers everything now, whatever the strategy.

        Raises:
            Refused: The version is not approved, or a check failed.
            Conflict: Another rollout is under way.
            InvalidInput: The strategy takes another number of versions, or a humility rule is about a column that one
                does not read.
        """
        chosen = [self._models.version(address) for address in (version, *(arms or ()))]
        for item in chosen:
            if item.status != "approved":
                hint = f"mainspring approvals show {item.address}"
                raise Refused(f"{item.address} is {item.status}, not approved", hint=hint)
        if skip_checks and not skip_checks.strip():
            raise InvalidInput("leaving out the checks needs a reason", hint="--skip-checks 'why this once'")
        deployment = self.show(name)
        if at_once and deployment.canary == chosen[0].address:
            return self._rollouts.promote(name, version, reason)
        if chosen[0].address in (deployment.live, deployment.canary):
            return deployment
        self._rollouts.check_fit(deployment, chosen, at_once=at_once)
        for item in chosen:
            Humility(deployment.humility, item.signature)
        checks = [self._checked(deployment, item, skip_checks) for item in chosen]
        for item, found in zip(chosen, checks, strict=True):
            if why := failure(found):
                self._rollouts.refuse(name, item.address, why, found)
                told = f"{item.address} is not released, it fails a check: {why}"
                raise Refused(told, hint=way_out(found, item.address, name))
        return self._rollouts.begin(name, chosen, reason, checks, skip_checks, at_once=at_once)

    @operation("POST", "/deployments/{name}/checks", command="check")
    def check(self, name: str, version: str) -> list[Check]:
        """Tries a version as a release would, without releasing it."""
        return self._tried(self.show(name), self._models.version(version))

    def _checked(self, deployment: Deployment, version: ModelVersion, skipped: str) -> list[Check]:
        if skipped:
            return [Check(name="skipped", ok=True, detail=skipped)]
        return self._tried(deployment, version) if deployment.checks.enabled else []

    def _tried(self, deployment: Deployment, version: ModelVersion) -> list[Check]:
        live = self.signature(deployment.live) if deployment.live else None
        trusted = self._models.trusted(deployment.serving.trusted_types)
        found = try_out(self._models.unpack(version.address, self._folder), deployment.checks, live, trusted)
        told = [] if failure(found) else [examine(deployment, version) for examine in self.examiners]
        return [*found, *filter(None, told)]

    @operation("POST", "/deployments/{name}/promote")
    def promote(self, name: str, version: str = "", reason: str = "") -> Deployment:
        """Lets the version that is being rolled out take over now.

        Raises:
            Conflict: It is not being rolled out, or there are several and none is named.
        """
        return self._rollouts.promote(name, version, reason)

    @operation("POST", "/deployments/{name}/rollback")
    def rollback(self, name: str, reason: str = "") -> Deployment:
        """Takes a rollout back, or returns to the version that was live before.

        What belongs to the version comes back with it: its signature and its threshold.

        Raises:
            Conflict: There is nothing to return to.
        """
        with self._store.transaction():
            deployment = self.show(name)
            if deployment.canary:
                return self._rollouts.take_back(deployment, reason or "rolled back by hand")
            return self._rollouts.go_back(name, reason)

    def judge(
        self,
        name: str,
        live: VersionEvidence,
        canary: VersionEvidence,
        arms: Sequence[VersionEvidence] = (),
        revision: int | None = None,
    ) -> Verdict:
        """Looks at a rollout with fresh evidence and does what follows (for the controller; not an operation)."""
        return self._rollouts.judge(name, live, canary, arms, revision)

    def judge_kept(self, name: str, live: VersionEvidence, kept: VersionEvidence) -> None:
        """Looks at a version that was switched to while the old one is kept warm (for the controller)."""
        self._rollouts.judge_kept(name, live, kept)

    @operation("GET", "/deployments/{name}/history")
    def history(self, name: str, limit: int = 200) -> list[HistoryEntry]:
        """Tells what happened to a deployment, oldest first: who did what, why, and what it was decided on.

        Args:
            name: The deployment.
            limit: The latest so many.
        """
        events = self._store.events(subject=self.show(name).name, prefix="deploy.", newest=True, limit=limit)
        return rules.history(events[::-1], self.releases(name, limit=limit))[-limit:]

    @operation("GET", "/deployments/{name}/diff")
    def diff(self, name: str) -> list[Difference]:
        """Tells how what runs differs from what is wanted; empty when it does not."""
        return rules.differences(self.show(name), self.status(name))

    def kpi_values(self, deployment: Deployment) -> dict[str, dict[str, float]]:
        """KPI -> value of each outcome of a decision, for those that the strategy names.

        Raises:
            InvalidInput: The use case has no such KPI, or it says nothing of single decisions.
        """
        strategy = deployment.strategy
        names = dict.fromkeys(name for name in (strategy.kpi, *(guard.kpi for guard in strategy.guards)) if name)
        if not names:
            return {}
        kpis = self._usecases.show(deployment.use_case).kpis if deployment.use_case else []
        known = {kpi.name: kpi.value for kpi in kpis}
        for name in names:
            if not known.get(name):
                raise InvalidInput(
                    f"the use case of {deployment.name} has no KPI `{name}` with a value of each decision",
                    hint="declare it: [[use_case.kpis]] with value = { tp = …, fp = … }",
                )
        return {name: known[name] for name in names}

    def signature(self, version: str) -> Signature:
        """What a version accepts."""
        return self._models.version(version).signature

    def log_folder(self, name: str) -> Path:
        """Where the deployment's prediction log is written."""
        return self._log_folder / name

    def reconcile(self, name: str) -> TargetStatus | None:
        """Makes what runs equal to what is wanted; None when nothing is wanted yet (for the controller).

        Starts what died, changes what differs, leaves alone what is right.
        """
        deployment = self.show(name)
        if not deployment.live:
            return None
        status = self.status(name)
        if rules.differences(deployment, status):
            status = self._apply(deployment, status)
        after = self.show(name)
        if after.revision != deployment.revision:
            return self.reconcile(name)
        if deployment.canary and deployment.strategy.kind == "blue-green" and deployment.strategy.promote:
            self._rollouts.switch(name, deployment.canary)
            return self.reconcile(name)
        return status

    def _apply(self, deployment: Deployment, before: TargetStatus) -> TargetStatus:
        """Tells the target what is wanted; a new version that the target refuses is taken back."""
        name, spec = deployment.name, self._spec(deployment)
        try:
            status = self._target_of(deployment).apply(spec)
        except InvalidInput as error:
            with self._store.transaction():
                present = self.show(name)
                other = any(route.role == "live" and route.version != deployment.live for route in before.routes)
                if present.revision != deployment.revision or not (deployment.canary or other):
                    raise
                why = f"the target refuses it: {error.message}"
                if deployment.canary:
                    self._rollouts.take_back(present, why)
                else:
                    self._rollouts.go_back(name, why)
            return self.status(name)
        with self._store.transaction() as tx:
            kind = "repaired" if before.revision == deployment.revision else "applied"
            tx.emit(f"deploy.target.{kind}", name, revision=deployment.revision, url=status.url, state=status.state)
        return status

    @operation("POST", "/deployments/{name}/stop")
    def stop(self, name: str) -> None:
        """Ends what runs, its streams first; the wanted state stays, so a controller at work starts it again."""
        deployment = self.show(name)
        for running in (*deployment.serving.scorers(name), name):
            self._target_of(deployment).remove(running)

    def spec(self, name: str) -> TargetSpec:
        """What should run, for who runs it beside the target, such as a scorer of streams (not an operation).

        Raises:
            Conflict: Nothing was released yet.
        """
        deployment = self.show(name)
        if not deployment.live:
            raise Conflict(f"{name} has no version yet", hint=f"mainspring deploy {deployment.model}@…")
        return self._spec(deployment)

    def _spec(self, deployment: Deployment) -> TargetSpec:
        routes = [self._route(*wanted) for wanted in rules.wanted_routes(deployment)]
        beside = [self._models.version(address) for address in deployment.serving.models]
        return TargetSpec(
            name=deployment.name,
            revision=deployment.revision,
            routes=tuple(routes),
            durable=deployment.durable,
            key=deployment.strategy.key,
            log_dir=str(self.log_folder(deployment.name)),
            humility=deployment.humility,
            outcome_key=deployment.log.outcome_key,
            token=self.token(deployment),
            models=tuple(HostedModel(name=item.model, path=str(self._folder_of(item.address))) for item in beside),
            **deployment.serving.facts() | {"trusted_types": self._models.trusted(deployment.serving.trusted_types)},
            log_sample=deployment.log.sample,
            log_mask=deployment.log.mask,
            mask_key=self.mask_key() if deployment.log.mask else "",
        )

    def token(self, deployment: Deployment) -> str | None:
        """What callers of a deployment must send; None where they need not (not an operation).

        Raises:
            InvalidInput: Its file cannot be read, or is empty.
        """
        path = deployment.serving.token_file
        if not path:
            return None
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if told := Path(path).read_text().strip():
                return told
        raise InvalidInput(
            f"the token of {deployment.name} cannot be read from {path}", hint="put it there, on one line, mode 0600"
        )

    @operation("GET", "/versions/{version}/recommended-rules", command="")
    def recommended_rules(self, version: str, error_rate: float = 0.3) -> list[RecommendedRule]:
        """Recommends humility rules for a version, from the rows that it was trained and tried on; changes nothing.

        Args:
            version: Address of the version.
            error_rate: Share of wrong labels around the threshold above which a score is called uncertain.

        Raises:
            InvalidInput: The version was registered without reference rows.
        """
        chosen = self._models.version(version)
        if not chosen.reference:
            raise InvalidInput(
                f"{chosen.address} has no reference rows", hint="register it with `reference=` in mainspring.package"
            )
        rows = self._rows(chosen.reference)
        found = input_rules(chosen.signature, rows)
        if chosen.signature.kind == "classifier" and chosen.holdout:
            model = self._models.load(chosen.address, self._folder)
            uncertain = uncertain_rule(model, rows, self._rows(chosen.holdout), error_rate)
            found += [uncertain] if uncertain else []
        return found

    def _rows(self, digest: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self._artifacts.read(digest)))

    def mask(self, deployment: Deployment) -> Mask:
        """What hides columns of its prediction log, and finds a value there again."""
        return Mask(deployment.log.mask, self.mask_key() if deployment.log.mask else "")

    def mask_key(self) -> str:
        """The key that masked columns are hashed with, hexadecimal; made when it is first needed."""
        path = self._mask_key
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)  # of two that make one at the same time, the first stays
            fresh.unlink()
        return path.read_text()

    def _check_humility(self, deployment: Deployment) -> None:
        """Raises `InvalidInput` when the rules are not for the versions that answer."""
        check_names(deployment.humility)
        for version in filter(None, (deployment.live, deployment.canary, *deployment.arms)):
            Humility(deployment.humility, self.signature(version))

    def _check_beside(self, deployment: Deployment) -> None:
        """Raises `Refused` when a model that is to answer beside the deployment's own is not approved."""
        for item in map(self._models.version, deployment.serving.models):
            if item.model == deployment.name:
                raise InvalidInput(f"{item.model} is the deployment's own name", hint="deploy it under another name")
            if item.status != "approved":
                hint = f"mainspring approvals show {item.address}"
                raise Refused(f"{item.address} is {item.status}, not approved", hint=hint)

    def _folder_of(self, version: str) -> Path:
        """The version's unpacked folder, with rows to explain its scores by."""
        folder = self._models.unpack(version, self._folder)
        self._add_background(version, folder / "background.json")
        return folder

    def _route(self, version: str, role: Role, weight: float) -> Route:
        return Route(version=version, path=str(self._folder_of(version)), role=role, weight=weight)

    def _add_background(self, version: str, path: Path) -> None:
        """Puts rows of the version's reference beside it: scores are explained by comparison with them."""
        chosen = self._models.version(version)
        names = [field.name for field in chosen.signature.inputs]
        if path.exists() or not chosen.reference:
            return
        rows = self._rows(chosen.reference).select(names)
        rows = rows.sample(min(_BACKGROUND_ROWS, rows.height), seed=0)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(rows.to_dict(as_series=False)))
        fresh.replace(path)

    def _target_of(self, deployment: Deployment) -> Target:
        environment = self._store.get(
            Environment, name=deployment.environment, listing="mainspring deployments environments"
        )
        return self._target(environment.target)
