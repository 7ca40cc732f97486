"""The steps of a rollout as changes of the wanted state; each is one transaction, which a kill cannot halve."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from mainspring.core.actor import current_actor
from mainspring.core.ids import new_id
from mainspring.deploy import rules
from mainspring.deploy.model import Check, Deployment, Release, ReleaseStatus, Verdict, VersionEvidence
from mainspring.errors import Conflict, InvalidInput
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.store import Store

LISTING = "mainspring deployments list"


class Rollouts:
    """Releases of deployments, from their first step to their end (for the service of this room)."""

    def __init__(self, store: Store, models: Models) -> None:
        self._store = store
        self._models = models

    def show(self, name: str) -> Deployment:
        """A deployment."""
        return self._store.get(Deployment, name=name, listing=LISTING)

    def check_fit(self, deployment: Deployment, versions: Sequence[ModelVersion], *, at_once: bool = False) -> None:
        """Raises `Conflict` or `InvalidInput` when these versions cannot be released there now."""
        name = deployment.name
        for version in versions:
            if version.model != deployment.model:
                raise Conflict(
                    f"{name} serves {deployment.model}, not {version.model}",
                    hint=f"mainspring models versions {deployment.model}",
                )
        addresses = [version.address for version in versions]
        if deployment.canary:
            raise Conflict(f"{deployment.canary} is being rolled out", hint=f"mainspring rollback {name}")
        tested = deployment.strategy.kind == "ab" and deployment.live and not at_once
        shares = deployment.strategy.shares if tested else (100.0,)
        if len(set(addresses)) < len(versions) or len(versions) != len(shares) or deployment.live in addresses:
            arms = f"{len(shares)} new {'version' if len(shares) == 1 else 'versions'}, each another one"
            raise InvalidInput(
                f"{name} takes {arms} by its strategy {deployment.strategy.kind}, not {', '.join(addresses)}",
                hint="give the further arms of an A/B test with `arms`, and a share for each in its strategy",
            )

    def begin(
        self,
        name: str,
        versions: Sequence[ModelVersion],
        reason: str,
        checks: Sequence[list[Check]],
        skipped: str,
        *,
        at_once: bool,
    ) -> Deployment:
        """Enters releases, and lets the first step of the strategy begin, or `at_once` its last."""
        with self._store.transaction() as tx:
            deployment = self.show(name)
            self.check_fit(deployment, versions, at_once=at_once)
            releases = []
            for version, found in zip(versions, checks, strict=True):
                releases.append(self._enter(name, version.address, "rolling", deployment.live, reason, found))
                facts = {"previous": deployment.live, "number": releases[-1].number, "reason": reason}
                facts |= {"skipped_checks": skipped} if skipped else {}
                tx.emit("deploy.release.started", name, version=version.address, **facts)
            strategy, now = deployment.strategy, self._store.clock.now()
            if at_once:  # nothing is kept beside it: it may be one that could not answer what the live one does
                return self.go_live(deployment, releases[0], reason, keep=False)
            stepless = strategy.kind == "all-at-once" or (strategy.kind == "canary" and not strategy.steps)
            if stepless or not deployment.live:
                return self.go_live(deployment, releases[0], reason)
            weights = {"canary": strategy.steps[:1], "ab": strategy.shares[:1]}.get(strategy.kind, (0.0,))
            return self._route(
                deployment, canary=releases[0].version, arms=[item.version for item in releases[1:]],
                weight=weights[0], step=0, step_since=now, kept="", kept_until=None,
            )  # fmt: skip

    def refuse(self, name: str, version: str, reason: str, checks: list[Check]) -> Release:
        """Puts on record that a version was not released because a check failed."""
        with self._store.transaction() as tx:
            release = self._enter(name, version, "refused", self.show(name).live, reason, checks)
            tx.emit("deploy.release.refused", name, version=version, number=release.number, reason=reason)
        return release

    def _enter(
        self, name: str, version: str, status: ReleaseStatus, previous: str, reason: str, checks: list[Check]
    ) -> Release:
        now, actor = self._store.clock.now(), current_actor()
        with self._store.transaction() as tx:
            return tx.insert(
                Release(
                    id=new_id(), created=now, deployment=name, number=self._store.count(Release, deployment=name) + 1,
                    version=version, status=status, previous=previous, reason=reason, checks=checks,
                    actor=actor.name, cause=actor.cause, ended=now if status == "refused" else None,
                )
            )  # fmt: skip

    def judge(
        self,
        name: str,
        live: VersionEvidence,
        canary: VersionEvidence,
        arms: Sequence[VersionEvidence] = (),
        revision: int | None = None,
    ) -> Verdict:
        """Looks at a rollout with fresh evidence and does what follows.

        Nothing follows from evidence about other versions or an earlier revision than the present one: somebody else
        was quicker.
        """
        with self._store.transaction():
            deployment = self.show(name)
            verdict = rules.judge(deployment, live, canary, self._store.clock.now(), arms)
            seen = [live.version, canary.version, *(item.version for item in arms)]
            if seen != [deployment.live, *rules.candidates(deployment)] or revision not in (None, deployment.revision):
                return msgspec.structs.replace(verdict, action="hold", reason="the evidence is about an earlier state")
            releases = self._rolling(name)
            if verdict.action == "hold":
                self._hold(releases[0], deployment.step, verdict)
                return verdict
            releases[0] = self._noted(releases[0], verdict)
            if verdict.action == "advance":
                step = deployment.step + 1
                self._route(deployment, weight=deployment.strategy.steps[step], step=step, step_since=verdict.time)
            elif verdict.action == "promote":
                winner = next(item for item in releases if item.version == (verdict.winner or deployment.canary))
                self.go_live(deployment, winner, verdict.reason)
            else:
                self.take_back(deployment, verdict.reason)
        return verdict

    def judge_kept(self, name: str, live: VersionEvidence, kept: VersionEvidence) -> None:
        """Returns to the version that is kept warm when the new one breaks a rule; lets it go when its time is up."""
        with self._store.transaction():
            deployment, now = self.show(name), self._store.clock.now()
            if (live.version, kept.version) != (deployment.live, deployment.kept) or not deployment.kept_until:
                return
            verdict = rules.judge_kept(deployment, live, kept, now)
            if verdict.action == "roll_back":
                current = self._store.get(Release, deployment=name, status="live")
                self._noted(current, verdict)
                self.go_back(name, verdict.reason)
            elif now >= deployment.kept_until:
                self._route(deployment, kept="", kept_until=None, step_since=None)

    def switch(self, name: str, canary: str) -> None:
        """Lets a blue-green version that is loaded take over; the old one stays warm."""
        with self._store.transaction():
            deployment = self.show(name)
            if deployment.canary == canary and deployment.strategy.kind == "blue-green":
                self.go_live(deployment, self._rolling(name)[0], "it is loaded and has scored a row")

    def promote(self, name: str, version: str, reason: str) -> Deployment:
        """Lets a version that is being rolled out take over now.

        Raises:
            Conflict: It is not being rolled out.
        """
        with self._store.transaction():
            deployment = self.show(name)
            chosen = version or deployment.canary
            release = next((item for item in self._rolling(name) if item.version == chosen), None)
            if release is None or (deployment.arms and not version):
                rolling = ", ".join(rules.candidates(deployment)) or "nothing"
                raise Conflict(
                    f"{chosen or 'no version'} cannot be promoted: {rolling} is being rolled out",
                    hint=f"mainspring deployments promote {name} --version VERSION",
                )
            return self.go_live(deployment, release, reason or "promoted by hand")

    def go_back(self, name: str, reason: str) -> Deployment:
        """Returns to the version that was live before, with its signature and threshold, which are the version's own.

        Raises:
            Conflict: There is nothing to return to.
        """
        with self._store.transaction() as tx:
            deployment = self.show(name)
            current = self._store.first(Release, deployment=name, status="live", order="-number")
            if current is None or not current.previous:
                raise Conflict(f"{name} has no version to return to", hint=f"mainspring deployments releases {name}")
            self._end(current, "rolled_back", reason)
            before = self._before(name, current.previous)
            told = reason or f"back from {current.version}"
            back = self._enter(name, current.previous, "rolling", before, told, [])
            tx.emit("deploy.release.rolled_back", name, version=current.version, back_to=back.version, reason=reason)
            return self.go_live(deployment, back, reason, keep=False)

    def _before(self, name: str, version: str) -> str:
        released = self._store.columns(Release).status != "refused"
        earlier = self._store.first(Release, released, deployment=name, version=version, order="-number")
        return earlier.previous if earlier else ""

    def take_back(self, deployment: Deployment, reason: str) -> Deployment:
        """Ends a rollout; the live version answers everything again."""
        with self._store.transaction() as tx:
            for release in self._rolling(deployment.name):
                self._end(release, "rolled_back", reason)
                facts = {"version": release.version, "back_to": deployment.live, "reason": reason}
                tx.emit("deploy.release.rolled_back", deployment.name, **facts)
            return self._route(deployment, canary="", arms=[], weight=0.0, step=0, step_since=None)

    def go_live(self, deployment: Deployment, release: Release, reason: str, *, keep: bool = True) -> Deployment:
        """Lets a version answer everything."""
        name, now, strategy = deployment.name, self._store.clock.now(), deployment.strategy
        with self._store.transaction() as tx:
            ended = [*self._store.find(Release, deployment=name, status="live"), *self._rolling(name)]
            for before in ended:
                if before.id != release.id:
                    self._end(before, "retired", f"replaced by {release.version}")
            tx.update(msgspec.structs.replace(release, status="live", live_since=now))
            version = self._models.version(release.version)
            self._models.set_alias(version.model, "live", version.number)
            facts = {"version": release.version, "previous": release.previous, "reason": reason}
            tx.emit("deploy.release.live", name, **facts)
            warm = keep and strategy.kind == "blue-green" and strategy.keep_minutes > 0 and deployment.live
            kept: dict[str, Any] = {"kept": "", "kept_until": None, "step_since": None}
            if warm:
                until = now + timedelta(minutes=strategy.keep_minutes)
                kept = {"kept": deployment.live, "kept_until": until, "step_since": now}
            return self._route(deployment, live=release.version, canary="", arms=[], weight=0.0, step=0, **kept)

    def _route(self, deployment: Deployment, **changes: Any) -> Deployment:
        with self._store.transaction() as tx:
            changed = msgspec.structs.replace(deployment, revision=deployment.revision + 1, **changes)
            tx.update(changed)
            shown: dict[str, Any] = {"live": changed.live, "canary": changed.canary, "weight": changed.weight}
            shown |= {"arms": changed.arms} if changed.arms else {}
            shown |= {"kept": changed.kept} if changed.kept else {}
            tx.emit("deploy.deployment.routed", changed.name, revision=changed.revision, **shown)
        return changed

    def _rolling(self, name: str) -> list[Release]:
        return self._store.find(Release, order="number", deployment=name, status="rolling")

    def _noted(self, release: Release, verdict: Verdict) -> Release:
        with self._store.transaction() as tx:
            return tx.update(msgspec.structs.replace(release, verdicts=[*release.verdicts, verdict]))

    def _hold(self, release: Release, step: int, verdict: Verdict) -> None:
        if (holds := rules.held(release.holds, step, verdict)) is not None:
            with self._store.transaction() as tx:
                tx.update(msgspec.structs.replace(release, holds=holds))

    def _end(self, release: Release, status: ReleaseStatus, reason: str) -> None:
        with self._store.transaction() as tx:
            kept = reason or release.reason
            tx.update(msgspec.structs.replace(release, status=status, reason=kept, ended=self._store.clock.now()))
