"""Operations on deployments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.actor import current_actor
from mainspring.core.entity import Create, Patch, born, patched
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.deploy import rules
from mainspring.deploy.model import Deployment, Environment, Release, ReleaseStatus, Verdict, VersionEvidence
from mainspring.errors import Conflict, NotFound, Refused
from mainspring.ports.target import Route, Target, TargetSpec, TargetStatus
from mainspring.registry.service import Models
from mainspring.store import Store

LISTING = "mainspring deployments list"


class Deployments:
    """Deployments: their wanted state, releases, rollouts and rollbacks.

    Args:
        store: The database.
        models: The room `registry`.
        target: Gives the target for an environment's address.
        folder: Where models are unpacked for targets.
        log_folder: Where serving processes write their prediction logs.
    """

    def __init__(
        self, store: Store, models: Models, target: Callable[[str], Target], folder: Path, log_folder: Path
    ) -> None:
        self._store = store
        self._models = models
        self._target = target
        self._folder = folder
        self._log_folder = log_folder

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
            deployment, changes = patched(self.show(name), change)
            if changes:
                if "durable" in changes and deployment.live:  # what runs must hear of it
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
    def release(self, name: str, version: str, reason: str = "") -> Deployment:
        """Lets an approved version take over, by the deployment's strategy.

        Releasing what is live or rolling already changes nothing.

        Raises:
            Refused: The version is not approved.
            Conflict: Another rollout is under way.
        """
        chosen = self._models.version(version)
        if chosen.status != "approved":
            raise Refused(
                f"{chosen.address} is {chosen.status}, not approved", hint=f"mainspring approvals show {chosen.address}"
            )
        with self._store.transaction() as tx:
            deployment = self.show(name)
            if chosen.address in (deployment.live, deployment.canary):
                return deployment
            if deployment.canary:
                raise Conflict(f"{deployment.canary} is being rolled out", hint=f"mainspring rollback {name}")
            if chosen.model != deployment.model:
                raise Conflict(
                    f"{name} serves {deployment.model}, not {chosen.model}",
                    hint=f"mainspring models versions {deployment.model}",
                )
            now, actor = self._store.clock.now(), current_actor()
            at_once = deployment.strategy.kind == "all-at-once" or not deployment.live or not deployment.strategy.steps
            release = Release(
                id=new_id(), created=now, deployment=name, number=self._store.count(Release, deployment=name) + 1,
                version=chosen.address, status="rolling", previous=deployment.live, reason=reason,
                actor=actor.name, cause=actor.cause,
            )  # fmt: skip
            tx.insert(release)
            tx.emit(
                "deploy.release.started", name, version=chosen.address, previous=deployment.live, number=release.number
            )
            if at_once:
                return self._go_live(deployment, release)
            weight = deployment.strategy.steps[0]
            return self._change(deployment, canary=chosen.address, weight=weight, step=0, step_since=now)

    def judge(self, name: str, live: VersionEvidence, canary: VersionEvidence) -> Verdict:
        """Looks at a rollout with fresh evidence and does what follows (for the controller; not an operation)."""
        with self._store.transaction():
            deployment = self.show(name)
            verdict = rules.judge(deployment, live, canary, self._store.clock.now())
            if verdict.action == "hold" or not deployment.canary:
                return verdict
            release = self._noted(self._rolling(name), verdict)
            if verdict.action == "advance":
                step = deployment.step + 1
                self._change(deployment, weight=deployment.strategy.steps[step], step=step, step_since=verdict.time)
            elif verdict.action == "promote":
                self._go_live(deployment, release)
            else:
                self._take_back(deployment, release, verdict.reason)
        return verdict

    @operation("POST", "/deployments/{name}/rollback")
    def rollback(self, name: str, reason: str = "") -> Deployment:
        """Takes a rollout back, or returns to the version that was live before.

        Raises:
            Conflict: There is nothing to return to.
        """
        with self._store.transaction() as tx:
            deployment = self.show(name)
            if deployment.canary:
                return self._take_back(deployment, self._rolling(name), reason or "rolled back by hand")
            current = self._store.first(Release, deployment=name, status="live", order="-number")
            if current is None or not current.previous:
                raise Conflict(f"{name} has no version to return to", hint=f"mainspring deployments releases {name}")
            self._end(current, "rolled_back", reason)
            now, actor = self._store.clock.now(), current_actor()
            back = Release(
                id=new_id(), created=now, deployment=name, number=self._store.count(Release, deployment=name) + 1,
                version=current.previous, status="rolling", previous=self._before(name, current.previous),
                reason=reason or f"back from {current.version}", actor=actor.name,
            )  # fmt: skip
            tx.insert(back)
            tx.emit("deploy.release.rolled_back", name, version=current.version, back_to=back.version, reason=reason)
            return self._go_live(deployment, back)

    def _before(self, name: str, version: str) -> str:
        earlier = self._store.first(Release, deployment=name, version=version, order="-number")
        return earlier.previous if earlier else ""

    def _take_back(self, deployment: Deployment, release: Release, reason: str) -> Deployment:
        with self._store.transaction() as tx:
            self._end(release, "rolled_back", reason)
            tx.emit(
                "deploy.release.rolled_back",
                deployment.name,
                version=release.version,
                back_to=deployment.live,
                reason=reason,
            )
            return self._change(deployment, canary="", weight=0.0, step=0, step_since=None)

    def _go_live(self, deployment: Deployment, release: Release) -> Deployment:
        now = self._store.clock.now()
        with self._store.transaction() as tx:
            before = self._store.first(Release, deployment=deployment.name, status="live")
            if before is not None:
                self._end(before, "retired", f"replaced by {release.version}")
            tx.update(msgspec.structs.replace(release, status="live", live_since=now))
            version = self._models.version(release.version)
            self._models.set_alias(version.model, "live", version.number)
            tx.emit("deploy.release.live", deployment.name, version=release.version, previous=release.previous)
            return self._change(deployment, live=release.version, canary="", weight=0.0, step=0, step_since=None)

    def _change(self, deployment: Deployment, **changes: Any) -> Deployment:
        with self._store.transaction() as tx:
            changed = msgspec.structs.replace(deployment, revision=deployment.revision + 1, **changes)
            tx.update(changed)
            shown = {"live": changed.live, "canary": changed.canary, "weight": changed.weight}
            tx.emit("deploy.deployment.routed", changed.name, revision=changed.revision, **shown)
        return changed

    def _rolling(self, name: str) -> Release:
        return self._store.get(Release, deployment=name, status="rolling")

    def _noted(self, release: Release, verdict: Verdict) -> Release:
        with self._store.transaction() as tx:
            return tx.update(msgspec.structs.replace(release, verdicts=[*release.verdicts, verdict]))

    def _end(self, release: Release, status: ReleaseStatus, reason: str) -> None:
        with self._store.transaction() as tx:
            kept = reason or release.reason
            tx.update(msgspec.structs.replace(release, status=status, reason=kept, ended=self._store.clock.now()))

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
        if status.state == "running" and status.revision == deployment.revision:
            return status
        repaired = status.revision == deployment.revision
        status = self._target_of(deployment).apply(self._spec(deployment))
        with self._store.transaction() as tx:
            kind = "repaired" if repaired else "applied"
            tx.emit(f"deploy.target.{kind}", name, revision=deployment.revision, url=status.url, state=status.state)
        return status

    @operation("POST", "/deployments/{name}/stop")
    def stop(self, name: str) -> None:
        """Ends what runs; the wanted state stays, so a controller that is at work starts it again."""
        self._target_of(self.show(name)).remove(name)

    def _spec(self, deployment: Deployment) -> TargetSpec:
        routes = [self._route(deployment.live, "live", 0.0)]
        if deployment.canary:
            routes.append(self._route(deployment.canary, "canary", deployment.weight))
        return TargetSpec(
            name=deployment.name,
            revision=deployment.revision,
            routes=tuple(routes),
            durable=deployment.durable,
            log_dir=str(self.log_folder(deployment.name)),
        )

    def _route(self, version: str, role: Any, weight: float) -> Route:
        folder = self._models.unpack(version, self._folder)
        return Route(version=version, path=str(folder), role=role, weight=weight)

    def _target_of(self, deployment: Deployment) -> Target:
        environment = self._store.get(
            Environment, name=deployment.environment, listing="mainspring deployments environments"
        )
        return self._target(environment.target)
