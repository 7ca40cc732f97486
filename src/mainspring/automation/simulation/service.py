"""Operations on simulations: start one, carry it out, read and compare what came of it."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from mainspring.automation.model import Rule
from mainspring.automation.simulation import rules
from mainspring.automation.simulation.adoption import commands
from mainspring.automation.simulation.canary import simulated
from mainspring.automation.simulation.conduct import Conductor
from mainspring.automation.simulation.course import Course, decoded
from mainspring.automation.simulation.model import (
    Compared,
    Drop,
    Judging,
    Past,
    Policy,
    SimulatedModel,
    SimulatedPolicy,
    Simulation,
    Trainer,
)
from mainspring.automation.simulation.replay import Setting
from mainspring.automation.simulation.source import Sources
from mainspring.core.entity import born, draft
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.data.service import Datasets
from mainspring.deploy.model import Deployment
from mainspring.deploy.service import Deployments
from mainspring.errors import InvalidInput, NotFound, StepFailed
from mainspring.monitoring.model import Monitor
from mainspring.pipelines.desk import Desk
from mainspring.pipelines.model import PipelineDefinition
from mainspring.pipelines.service import Pipelines
from mainspring.ports.artifacts import ArtifactStore
from mainspring.serving.service import Predictions
from mainspring.store import Store
from mainspring.tracking.environment import describe_environment
from mainspring.tracking.model import Run
from mainspring.tracking.service import Runs
from mainspring.usecases.model import UseCase
from mainspring.usecases.service import UseCases

EXPERIMENT = "simulation"
LISTING = "mainspring simulations list"
DEFAULT_RULES = [
    {
        "name": "worse",
        "when": [{"on": "incident", "source": "quality"}],
        "then": [{"do": "challenge"}, {"do": "replace"}],
        "cooldown_hours": 21 * 24.0,
    }
]
"""What is done about lost quality where nobody said anything: a challenger is trained, and replaces when it wins."""


class Progress(NamedTuple):
    """Policies of a simulation, windows that are done, windows in all, and the recommended policy."""

    policies: int
    windows: int
    whole: int
    best: str


class Simulations:
    """Simulations of a use case's past.

    Args:
        store: The database.
        usecases: The room `usecases`.
        runs: The room `tracking`.
        datasets: The room `data`.
        pipelines: The room `pipelines`.
        deployments: The room `deploy`.
        predictions: The prediction log, of the room `serving`.
        artifacts: Where histories and scores are kept, with the address that workers open it by.
        desk: Where tasks for the executor are handed in.
    """

    def __init__(
        self,
        store: Store,
        usecases: UseCases,
        runs: Runs,
        datasets: Datasets,
        pipelines: Pipelines,
        deployments: Deployments,
        predictions: Predictions,
        artifacts: tuple[ArtifactStore, str],
        desk: Desk,
    ) -> None:
        self._store = store
        self._usecases = usecases
        self._runs = runs
        self._pipelines = pipelines
        self._deployments = deployments
        self._sources = Sources(datasets, predictions, artifacts, desk)
        self._conductor = Conductor(store, artifacts[1], desk)

    @operation("POST", "/simulations")
    def start(
        self,
        use_case: str,
        policies: list[Policy] | None = None,
        data: str = "",
        label: str = "label",
        time: str = "",
        labels_delay: str = "0",
        since: datetime | None = None,
        until: datetime | None = None,
        seed: int = 0,
        train: str = "",
        score: str = "",
        judging: Judging | None = None,
        reason: str = "",
    ) -> Simulation:
        """Records a simulation; whoever carries them out (`execute`, the controller) replays the past.

        Args:
            use_case: The use case.
            policies: What is tried, side by side; what the use case has now, by default.
            data: A dataset (``flights``, ``flights@7``, several with commas), or ``log:NAME`` for what a deployment
                was really asked; what the use case's pipeline reads, by default.
            label: Column with what really happened, a number or yes and no.
            time: Column with the time of a row; the dataset's time column by default.
            labels_delay: Days until a label is known, or the column that tells when.
            since: Rows from then on.
            until: Rows before then.
            seed: For trainings that draw.
            train: Function ``module:name`` that trains in place of the pipeline.
            score: Function that scores with what it returns.
            judging: What counts as quality and when it is lost.
            reason: Why, in words.

        Raises:
            InvalidInput: A policy, the history or what trains cannot be used; nothing was recorded.
        """
        case, judging = self._usecases.show(use_case), judging or Judging()
        definition = self._definition(case.name, train)
        trainer = _trainer(definition, train, score)
        chosen = data or (next(iter(definition.inputs.values())).dataset if definition else "")
        if not chosen:
            raise InvalidInput(f"use case `{use_case}` has no pipeline that reads data", hint="--data DATASET")
        source = self._sources.resolve(chosen, time, label, labels_delay)
        past, trainer, size = self._sources.prepare(source, trainer, since, until)
        deployment = next((item.name for item in self._deployed(case.name)), case.name)
        measure = judging.measure or ("roc_auc" if past.kind == "classifier" else "rmse")
        judging = msgspec.structs.replace(judging, measure=measure)
        given, notes = self._filled(case, policies, past, judging)
        pipeline = definition.name if definition else EXPERIMENT
        wanted = rules.placed(given, judging)
        for item in wanted:
            notes += rules.unheard(rules.check_policy(item.policy, deployment, pipeline)[1])
        whole = rules.windows(past, judging)
        new = draft(
            Simulation, use_case=case.name, datasets=source.names, deployment=deployment, time=source.time,
            label=source.label, labels_delay=source.labels_delay, judging=judging, seed=seed,
        )  # fmt: skip
        return self._enter(new, wanted, past, trainer, (size, whole, list(dict.fromkeys(notes)), reason, pipeline))

    def _enter(
        self, new: Simulation, wanted: Sequence[rules.Placed], past: Past, trainer: Trainer,
        facts: tuple[int, int, list[str], str, str],
    ) -> Simulation:  # fmt: skip
        """Stores a simulation with its policies and the run that carries it out."""
        size, whole, notes, reason, pipeline = facts
        params = {"policies": [item.policy.name for item in wanted], "seed": new.seed, "trains": pipeline}
        run_draft = draft(
            Run, experiment=EXPERIMENT, use_case=new.use_case, params=params, reason=reason,
            environment=describe_environment(), datasets=[name for name in new.datasets if "@" in name],
        )  # fmt: skip
        now = self._store.clock.now()
        with self._store.transaction() as tx:
            run = self._runs.start(run_draft)
            simulation = born(
                Simulation, new, id=new_id(), created=now, run=run.name, past=past, trainer=trainer, notes=notes
            )
            tx.insert(simulation)
            tx.own(past.digest, f"run:{run.name}", size)
            for place, item in enumerate(wanted):
                tx.insert(
                    SimulatedPolicy(
                        id=new_id(), created=now, run=run.name, name=item.policy.name, position=place,
                        role=item.role, base=item.base, policy=item.policy, whole=whole,
                    )
                )  # fmt: skip
            tx.emit("automation.simulation.started", run.name, use_case=new.use_case, policies=params["policies"])
        return simulation

    def _definition(self, use_case: str, train: str) -> PipelineDefinition | None:
        found = [item for item in self._pipelines.find() if item.use_case == use_case]
        if not found and not train:
            raise InvalidInput(
                f"use case `{use_case}` has no pipeline", hint="--train module:fit --score module:predict"
            )
        return found[0] if found else None

    def _deployed(self, use_case: str) -> list[Deployment]:
        return [item for item in self._deployments.find(limit=10_000) if item.use_case == use_case]

    def _filled(
        self, case: UseCase, policies: list[Policy] | None, past: Past, judging: Judging
    ) -> tuple[list[Policy], list[str]]:
        """The policies with the use case's own monitors, rules and values where they say none; what is left out."""
        deployed = self._deployed(case.name)
        watched = [item for one in deployed for item in self._store.find(Monitor, deployment=one.name, order="name")]
        monitors = [_plain(item) for item in watched if item.kind in rules.KINDS]
        own = [_plain(item) for item in self._store.find(Rule, use_case=case.name, order="name", limit=1000)]
        valued = next((item for item in case.kpis if item.value), None)
        given = policies or [Policy(name="as it is" if monitors else "default")]
        notes, filled = list[str](), []
        for policy in given:
            told: dict[str, Any] = {}
            mine = [] if policy.preset == "default" else monitors
            if not policy.monitors:
                told["monitors"] = mine or rules.default_monitors(past, judging.measure)
                notes += [
                    f"monitor `{item.name}` ({item.kind}) needs more than rows and labels: left out"
                    for item in watched if mine and item.kind not in rules.KINDS
                ]  # fmt: skip
            if mine and not policy.monitors and policy.strategy is None:
                told["strategy"], left = simulated(deployed[0].strategy)
                notes += [left] if left else []
            if policy.rules is None:
                told["rules"] = own if mine and not policy.monitors else DEFAULT_RULES
            full = msgspec.structs.replace(policy, **told)
            filled.append(rules.with_value(full, valued.value, valued.unit) if valued else full)
        return filled, notes

    @operation("GET", "/simulations", command="list")
    def find(self, use_case: str = "", limit: int = 100) -> list[Simulation]:
        """Lists simulations, newest first."""
        equals: dict[str, Any] = {"use_case": use_case} if use_case else {}
        return self._store.find(Simulation, order="-created", limit=limit, **equals)

    def resting_on(self, runs: Sequence[str]) -> dict[str, str]:
        """Runs that are simulations -> that they are (not an operation)."""
        found = self._store.find(Simulation, self._store.columns(Simulation).run.in_(runs), limit=10_000)
        return {item.run: "it is a simulation" for item in found}

    @operation("GET", "/simulations/{run}")
    def show(self, run: str) -> Simulation:
        """Shows a simulation: what is replayed, and what it recommends."""
        return self._store.get(Simulation, run=run, listing=LISTING)

    def progress(self, run: str) -> Progress:
        """How far a simulation is, read without its courses (not an operation: pages list many)."""
        columns = self._store.columns(SimulatedPolicy)
        query = sa.select(columns.name, columns.role, columns.windows, columns.whole, columns.recommended)
        found: list[Any] = self._store.rows(query.where(columns.run == run))
        return Progress(
            sum(item.role not in ("never", "newest") for item in found), sum(item.windows for item in found),
            sum(item.whole for item in found), next((item.name for item in found if item.recommended), ""),
        )  # fmt: skip

    @operation("GET", "/simulations/{run}/policies")
    def policies(self, run: str) -> list[SimulatedPolicy]:
        """Lists the policies of a simulation with what each came to."""
        found = self._store.find(SimulatedPolicy, order="position", limit=1000, run=self.show(run).run)
        return [msgspec.structs.replace(item, state=b"") for item in found]

    @operation("GET", "/simulations/{run}/policies/{policy}/course", command="course")
    def course(self, run: str, policy: str) -> Course:
        """Shows what happened under a policy: windows, incidents, trainings, and when rules did not act."""
        course = decoded(self._policy(self.show(run).run, policy).state)
        course.fed, course.signals = [], {}
        return course

    @operation("GET", "/simulations/{run}/policies/{policy}/adoption", command="adopt")
    def adoption(self, run: str, policy: str) -> list[str]:
        """Lists the commands that make a policy's monitors the deployment's own; nothing is changed."""
        simulation = self.show(run)
        deployed = next((item.name for item in self._deployed(simulation.use_case)), "")
        if not deployed:
            return []
        present = self._store.find(Monitor, deployment=deployed)
        return commands(self._policy(simulation.run, policy).policy, present, deployed)

    @operation("GET", "/simulations/{run}/models")
    def models(self, run: str) -> list[SimulatedModel]:
        """Lists the models that answered in a simulation, in the order of their last row."""
        keys = sorted({key for item in self._conductor.policies(run) for key in decoded(item.state).versions})
        columns = self._store.columns(SimulatedModel)
        return self._store.find(SimulatedModel, columns.key.in_(keys), order="end", limit=1000)

    @operation("GET", "/simulation-comparison", command="compare")
    def compare(self, runs: str, part: str = "all") -> list[Compared]:
        """Puts the policies of simulations side by side, the largest net first.

        Args:
            runs: Names of their runs, with commas.
            part: ``seen``, ``held_out`` or ``all`` of the history.
        """
        if part not in ("seen", "held_out", "all"):
            raise InvalidInput(f"`{part}` is no part of a history", hint="seen, held_out or all")
        names = [name.strip() for name in runs.split(",") if name.strip()]
        found = [
            Compared(run=name, policy=item.name, role=item.role, figures=getattr(item, part))
            for name in names for item in self.policies(name)
        ]  # fmt: skip
        return sorted(found, key=lambda item: (-item.figures.net, item.figures.cost, item.run, item.policy))

    def _policy(self, run: str, name: str) -> SimulatedPolicy:
        found = self._store.first(SimulatedPolicy, run=run, name=name)
        if found is None:
            raise NotFound(f"simulation {run} has no policy `{name}`", hint=f"mainspring simulations policies {run}")
        return found

    def drops(self, run: str, policy: str) -> list[Drop]:
        """True losses of quality under a policy (not an operation: pages draw them)."""
        simulation = self.show(run)
        judging = simulation.judging
        found = self.course(run, policy).windows
        return rules.drops(found, simulation.floor, judging.measure, judging.drop_windows)

    @operation("POST", "/simulations/{run}/execute", command="resume")
    def execute(self, run: str) -> Simulation:
        """Carries a simulation out to its end; windows that are done, also before a crash, are not replayed again.

        Raises:
            Conflict: Another living process is at it.
            StepFailed: A policy cannot be carried on; the run tells why.
        """
        return self.carry_on(run, None)

    def carry_on(self, run: str, seconds: float | None) -> Simulation:
        """Carries a simulation on for about so many seconds, to its end when None (for the controller)."""
        simulation = self.show(run)
        if self._runs.show(run).status != "running":
            return simulation
        until = None if seconds is None else clock.monotonic() + seconds
        with self._runs.claimed(run):
            try:
                done = self._conductor.work(run, self._setting(simulation), until)
            except (InvalidInput, StepFailed) as error:
                self._runs.finish(run, "failed", error.message)
                raise
            return self._concluded(simulation) if done else simulation

    def abandoned(self) -> list[Simulation]:
        """Simulations that wait for somebody to carry them out: new ones, and those whose process has died."""
        waiting = self._runs.find(experiment=EXPERIMENT, status="running", limit=1000)
        return [self.show(run.name) for run in reversed(waiting) if self._runs.is_free(run)]

    def _setting(self, simulation: Simulation) -> Setting:
        definition = self._runs.show(simulation.run).params["trains"]
        return Setting(
            past=simulation.past, trainer=simulation.trainer, judging=simulation.judging,
            measure=simulation.judging.measure, deployment=simulation.deployment, pipeline=str(definition),
            dataset=simulation.datasets[0].partition("@")[0], seed=simulation.seed,
        )  # fmt: skip

    def _concluded(self, simulation: Simulation) -> Simulation:
        """Judges every policy by the same floor and recommends one of those that could be chosen."""
        judging, past, run = simulation.judging, simulation.past, simulation.run
        policies = self._conductor.policies(run)
        courses = {item.name: decoded(item.state) for item in policies}
        floor = rules.floor_of(courses[rules.NEVER].windows, judging)
        courses[rules.NEWEST].skipped = []  # its cool-down is how it is made, not a policy
        cut, end = rules.parting(past, judging), past.last + timedelta(days=judging.window_days)
        judged = []
        for item in policies:
            course = courses[item.name]

            def of(since: datetime, until: datetime, item: Any = item, course: Any = course) -> Any:
                return rules.figures(
                    course, item.policy, judging, past, floor, judging.measure, (since, until)
                )  # fmt: skip

            judged.append(
                msgspec.structs.replace(item, seen=of(past.first, cut), held_out=of(cut, end), all=of(past.first, end))
            )
        open_to = [item for item in judged if item.role in ("policy", "variant")]
        standing = [rules.Standing(item.name, item.seen, item.held_out) for item in open_to]
        edge = rules.frontier(standing, judging.measure)
        name, why = rules.chosen(standing, judging.measure, judging.tolerance) if len(standing) > 1 else ("", "")
        with self._store.transaction() as tx:
            for item in judged:
                edged = item.name in edge
                tx.update(msgspec.structs.replace(item, frontier=edged, recommended=item.name == name))
            after = tx.update(msgspec.structs.replace(simulation, floor=floor, recommendation=why))
            tx.emit("automation.simulation.finished", run, recommended=name, reason=why)
            self._runs.finish(run)
        return after


def _trainer(definition: PipelineDefinition | None, train: str, score: str) -> Trainer:
    if bool(train) != bool(score):
        raise InvalidInput("what trains and what scores go together", hint="--train module:fit --score module:predict")
    if train:
        return Trainer(entry=train, score=score, path=definition.path if definition else "")
    assert definition is not None
    if len(definition.inputs) != 1:
        raise InvalidInput(
            f"pipeline `{definition.name}` reads {len(definition.inputs)} datasets, a simulation replays one",
            hint="--train module:fit --score module:predict",
        )
    (name,) = definition.inputs
    return Trainer(entry=definition.entry, path=definition.path, input=name, params=definition.params)


_SET_HERE = ("id", "created", "deployment", "muted", "widened", "baseline", "armed", "use_case", "pipeline")


def _plain(entity: Any) -> dict[str, Any]:
    """A monitor or rule as a policy says it."""
    told: dict[str, Any] = msgspec.to_builtins(entity)
    return {name: value for name, value in told.items() if name not in _SET_HERE}
