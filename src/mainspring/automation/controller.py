"""The controller: one process that reads the event log and keeps the loop going.

Each `tick` does what is due now, in a fixed order, until nothing is left to do. Everything it does is idempotent by its
cause and recorded in the transaction of its effect, so a controller that was killed anywhere carries on where the log
and the rows say it was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from mainspring.automation.registry_hooks import RegistryHooks
from mainspring.automation.service import CONTROLLER, Rules
from mainspring.automation.simulation.service import Simulations
from mainspring.automation.streams import Streams
from mainspring.core.actor import acting_as
from mainspring.core.events import Event
from mainspring.deploy.model import Deployment, Release
from mainspring.deploy.service import Deployments
from mainspring.errors import CorruptArtifact, MainspringError, StoreError, Unreachable
from mainspring.governance.service import Approvals
from mainspring.monitoring.notify.service import Notifications
from mainspring.monitoring.service import Monitors
from mainspring.pipelines.service import Pipelines
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.serving.challenges import Challenges
from mainspring.serving.compaction import Compaction
from mainspring.serving.jobs import Scorings
from mainspring.serving.retention import Retention
from mainspring.serving.service import Predictions
from mainspring.store import Store
from mainspring.tracking.files import Files

log = logging.getLogger("mainspring.controller")
CURSOR = "controller"
_MAX_ROUNDS = 50
_ORPHAN_AGE = timedelta(hours=1)
_UNFINISHED_AGE = timedelta(days=7)
_SIMULATE_SECONDS = 10.0


class Controller:
    """Carries the loop on.

    Args:
        store: The database.
        pipelines: The room `pipelines`.
        models: The room `registry`.
        approvals: The room `governance`.
        deployments: The room `deploy`.
        predictions: Predictions and outcomes, of the room `serving`.
        retention: How long they are kept.
        compaction: Merges their small pieces.
        scorings: Its batch jobs.
        challenges: Versions tried offline, of the same room.
        monitors: The room `monitoring`.
        notifications: Its messages.
        rules: Rules and what they do.
        hooks: Who hears of models.
        streams: Processes that answer messages.
        artifacts: Swept of what nobody owns.
        simulations: Pasts that are replayed.
    """

    def __init__(
        self,
        store: Store,
        pipelines: Pipelines,
        models: Models,
        approvals: Approvals,
        deployments: Deployments,
        predictions: Predictions,
        retention: Retention,
        compaction: Compaction,
        scorings: Scorings,
        challenges: Challenges,
        monitors: Monitors,
        notifications: Notifications,
        rules: Rules,
        hooks: RegistryHooks,
        artifacts: ArtifactStore,
        simulations: Simulations,
        streams: Streams,
    ) -> None:
        self._store = store
        self._pipelines = pipelines
        self._models = models
        self._approvals = approvals
        self._deployments = deployments
        self._predictions = predictions
        self._retention = retention
        self._compaction = compaction
        self._scorings = scorings
        self._challenges = challenges
        self._monitors = monitors
        self._notifications = notifications
        self._rules = rules
        self._hooks = hooks
        self._artifacts = artifacts
        self._simulations = simulations
        self._streams = streams
        self._repairing = threading.Lock()

    def tick(self) -> None:
        """Does everything that is due now."""
        with acting_as(CONTROLLER, "controller"):
            self.reconcile()
            for deployment in self._deployments.find(limit=1000):
                self._guard(deployment.name, self._predictions.ingest, deployment.name)
                self._guard(deployment.name, self._monitors.count, deployment.name)
                self._guard(deployment.name, self._retention.run_due, deployment.name)
            for deployment in self._deployments.find(limit=1000):
                self._guard(deployment.name, self._judge, deployment.name)
                self._guard(deployment.name, self._challenges.run_due, deployment.name)
            for monitor in self._monitors.find(limit=1000):
                self._guard(monitor.name, self._monitors.evaluate_due, monitor.name)
            self._rules.look_at_schedules()
            for _ in range(_MAX_ROUNDS):
                if not self._react() and not self._work():
                    break
            for simulation in self._simulations.abandoned():  # after everything real, a stretch at a time
                self._guard(simulation.run, self._simulations.carry_on, simulation.run, _SIMULATE_SECONDS)
            self._guard("notifications", self._notifications.tick)
            self._guard("webhooks", self._hooks.deliver_due)
            self._guard("monitoring", self._monitors.roll_up)
            self.reconcile()

    def reconcile(self) -> None:
        """Makes what runs equal to what is wanted: starts what died, changes what differs.

        May be called from another thread than `tick`, which can be busy with a training.
        """
        with self._repairing, acting_as(CONTROLLER, "controller"):
            for deployment in self._deployments.find(limit=1000):
                self._guard(deployment.name, self._deployments.reconcile, deployment.name)
                self._guard(deployment.name, self._streams.reconcile, deployment.name)

    def _react(self) -> bool:
        """Reads the events since the last time; whether there were any."""
        read = 0
        for event in self._store.events(after=self._store.cursor(CURSOR), limit=500):
            self._rules.notice(event)
            reaction = {
                "tracking.run.succeeded": self._propose,
                "registry.version.proposed": self._evaluate,
            }.get(event.type)
            with acting_as(CONTROLLER, "controller", cause=event.id):
                if reaction is not None and not self._guard(event.subject, reaction, event):
                    break  # a store does not answer: the next tick goes on from here
            read = event.seq
        if read:
            with self._store.transaction() as tx:
                tx.advance(CURSOR, read)
        return bool(read)

    def _work(self) -> bool:
        """Does what rules say, carries out runs, releases what is approved; whether there was any."""
        moved = self._rules.work()
        waiting = self._pipelines.abandoned()
        for run in waiting:
            self._guard(run.name, self._pipelines.execute, run.name)
        jobs = self._scorings.abandoned()
        for job in jobs:
            self._guard(job.run, self._scorings.execute, job.run)
        released = [self._release_newest(item.name) for item in self._deployments.find(limit=1000)]
        return bool(moved or waiting or jobs or any(released))

    def _propose(self, event: Event) -> None:
        """A pipeline's run has succeeded: what it made becomes a candidate."""
        name = str(event.data.get("pipeline", ""))
        model = self._pipelines.show(name).model if name else ""
        if model:
            self._models.propose(model, event.subject)

    def _evaluate(self, event: Event) -> None:
        self._approvals.evaluate(event.subject)

    def _release_newest(self, name: str) -> bool:
        """Releases the newest approved version that was never released here, when no rollout is under way."""
        deployment = self._deployments.show(name)
        if deployment.canary or not deployment.follow or (deployment.live and self._rules.takes_over(name)):
            return False
        newest = self._store.first(ModelVersion, model=deployment.model, status="approved", order="-number")
        if newest is None or self._store.first(Release, deployment=name, version=newest.address):
            return False
        reason = self._approvals.show(newest.address).reason
        with acting_as(CONTROLLER, "controller", reason=reason, cause=newest.cause):
            self._guard(name, self._deployments.release, name, newest.address, reason)
        return self._store.first(Release, deployment=name, version=newest.address) is not None

    def _judge(self, name: str) -> None:
        """Looks at a rollout with the outcomes known by now."""
        deployment = self._deployments.show(name)
        if not deployment.canary:
            self._judge_kept(deployment)
            return
        if deployment.step_since is None or deployment.strategy.kind == "blue-green":
            return  # what is only loaded gives no evidence: it is switched to once it runs
        rolling = [deployment.canary, *deployment.arms]
        live, canary, *arms = self._predictions.evidence(name, deployment.step_since, deployment.live, rolling)
        self._deployments.judge(name, live, canary, arms, deployment.revision)

    def _judge_kept(self, deployment: Deployment) -> None:
        """Looks at a version that was switched to, while the old one is still warm."""
        if not deployment.kept or deployment.step_since is None:
            return
        name = deployment.name
        kept, live = self._predictions.evidence(name, deployment.step_since, deployment.kept, [deployment.live])
        self._deployments.judge_kept(name, live, kept)

    def sweep(self, older_than: timedelta = _ORPHAN_AGE) -> int:
        """Removes artifacts that nobody owns and that are older than a moment; returns how many.

        Parts of files that were never sent whole go first; small segments of the prediction log are merged, too.
        """
        Files(self._store).forget_uploads(self._store.clock.now() - _UNFINISHED_AGE)
        before = datetime.now(UTC) - older_than  # the age of files is told by the machine's clock, not the workspace's
        owned = self._store.artifact_owners()
        orphans = [blob for blob in self._artifacts.list() if blob.digest not in owned and blob.modified < before]
        for blob in orphans:
            self._artifacts.delete(blob.digest)
        self._artifacts.sweep(before)
        with acting_as(CONTROLLER, "controller"):  # last: who is reading what is merged now has until the next sweep
            for deployment in self._deployments.find(limit=1000):
                self._guard(deployment.name, self._compaction.run_due, deployment.name)
        return len(orphans)

    def _guard(self, subject: str, action: Callable[..., object], *arguments: object) -> bool:
        """Lets one thing fail without stopping the rest; a failure is told once, in the log of events.

        Returns:
            False when it may go well later, because something did not answer; True when it is settled.
        """
        try:
            action(*arguments)
        except MainspringError as error:
            log.warning("%s: %s", subject, error.message)
            self._tell(subject, error)
            return isinstance(error, CorruptArtifact) or not isinstance(error, (Unreachable, StoreError))
        except Exception as error:  # one strange model or file must not stop the loop for all others
            log.exception("%s: a failure nobody foresaw", subject)
            self._tell(subject, MainspringError(f"{type(error).__name__}: {error}"))
        return True

    def _tell(self, subject: str, error: MainspringError) -> None:
        last = self._store.events(subject=subject, prefix="automation.action.failed", newest=True, limit=1)
        if last and last[0].data.get("message") == error.message:
            return
        with self._store.transaction() as tx:
            tx.emit("automation.action.failed", subject, message=error.message, hint=error.hint)
