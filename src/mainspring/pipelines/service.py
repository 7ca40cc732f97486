"""Operations on pipelines: start a run, execute it, resume it after a crash."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.address import parse_address
from mainspring.core.entity import Create, Patch, born, draft
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.data.service import Datasets
from mainspring.errors import Conflict, InvalidInput, NotFound, StepFailed, unknown_name
from mainspring.pipelines import rules
from mainspring.pipelines.desk import Desk
from mainspring.pipelines.model import DataRef, Part, PipelineDefinition, Plan, PlannedStep, Ref, RunPlan, StepRun
from mainspring.pipelines.values import read_parts, read_value
from mainspring.pipelines.worker import PlanResult, PlanTask, StepResult, StepTask
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.executor import Result, Task
from mainspring.store import Store
from mainspring.tracking.environment import describe_code, describe_environment
from mainspring.tracking.model import DEFAULT_EXPERIMENT, Cause, Point, Run
from mainspring.tracking.service import Runs

WORKER = "mainspring.pipelines.worker"
_PLAN_TRIES = 3


class Pipelines:
    """Pipelines and their runs.

    Args:
        store: The database.
        runs: The room `tracking`.
        datasets: The room `data`.
        artifacts: Where results are stored, with the address that workers open it by.
        desk: Where tasks for the executor are handed in.
    """

    def __init__(
        self,
        store: Store,
        runs: Runs,
        datasets: Datasets,
        artifacts: tuple[ArtifactStore, str],
        desk: Desk,
    ) -> None:
        self._store = store
        self._runs = runs
        self._datasets = datasets
        self._artifacts, self._artifacts_url = artifacts
        self._desk = desk

    @operation("POST", "/pipelines", command="")
    def create(self, new: Create[PipelineDefinition]) -> PipelineDefinition:
        """Makes a pipeline known by name."""
        definition = born(PipelineDefinition, new, id=new_id(), created=self._store.clock.now())
        with self._store.transaction() as tx:
            tx.insert(definition)
            tx.emit("pipelines.pipeline.created", definition.name, entry=definition.entry)
        return definition

    @operation("PATCH", "/pipelines/{name}", command="")
    def update(self, name: str, change: Patch[PipelineDefinition]) -> PipelineDefinition:
        """Changes a pipeline's definition; runs that exist keep their plan."""
        with self._store.transaction() as tx:
            return tx.patch(self.show(name), change, "pipelines.pipeline.changed", name)

    @operation("GET", "/pipelines", command="list")
    def find(self) -> list[PipelineDefinition]:
        """Lists pipelines by name."""
        return self._store.find(PipelineDefinition, order="name")

    @operation("GET", "/pipelines/{name}")
    def show(self, name: str) -> PipelineDefinition:
        """Shows a pipeline."""
        return self._store.get(PipelineDefinition, name=name, listing="mainspring pipelines list")

    @operation("GET", "/runs/{run}/steps")
    def steps(self, run: str) -> list[StepRun]:
        """Lists the steps of a run, in the order of the plan."""
        return self._store.find(StepRun, order="position", run=run)

    @operation("GET", "/runs/{run}/plan", command="")
    def plan_of(self, run: str) -> RunPlan:
        """The plan that a run follows."""
        return self._store.get(RunPlan, run=run, listing="mainspring runs list")

    @operation("POST", "/pipelines/{name}/runs")
    def start(
        self,
        name: str,
        params: dict[str, Any] | None = None,
        trigger: Cause = "manual",
        cause: str = "",
        reason: str = "",
    ) -> Run:
        """Plans a run and records it; whoever executes pipelines (the controller) carries it out.

        Args:
            name: The pipeline.
            params: Parameters that differ from its definition.
            trigger: What kind of cause this is.
            cause: Id of the causing event; the same cause starts only one run.
            reason: Why, in words.
        """
        definition = self.show(name)
        if cause and (before := self._store.first(Run, pipeline=name, cause=cause)):
            return before
        values = definition.params | (params or {})
        inputs = {key: self._resolve(item.dataset, item.last) for key, item in definition.inputs.items()}
        overridden = {key: self._given(str(values.pop(key))) for key in definition.inputs if key in values}
        inputs |= overridden
        plan = self._plan(definition, values, inputs)
        new = draft(
            Run,
            experiment=definition.use_case or DEFAULT_EXPERIMENT,
            use_case=definition.use_case,
            pipeline=name,
            params=values,
            datasets=_each_once(inputs.values()),
            trigger=trigger,
            cause=cause,
            reason=reason,
            environment=describe_environment(),
            code=describe_code(Path(definition.path or ".")),
        )
        with self._store.transaction() as tx:
            run = self._runs.start(new)
            if self._store.first(RunPlan, run=run.name) is None:
                now = self._store.clock.now()
                tx.insert(RunPlan(id=new_id(), created=now, run=run.name, plan=plan))
                for position, step in enumerate(plan.steps):
                    tx.insert(StepRun(id=new_id(), created=now, run=run.name, step=step.name, position=position))
        return run

    def has_seen_newest(self, name: str, params: dict[str, Any]) -> bool:
        """Whether a run with these parameters has succeeded on the dataset versions that a run of today would read."""
        definition = self.show(name)
        if not definition.inputs:
            return False
        today = _each_once(self._resolve(item.dataset, item.last) for item in definition.inputs.values())
        earlier = self._runs.find(pipeline=name, status="ok", limit=100)
        return any((run.datasets, run.params) == (today, definition.params | params) for run in earlier)

    def refused_inputs(self, name: str) -> list[str]:
        """The newest versions of the pipeline's datasets that were refused: what would be trained on is older."""
        newest = [self._datasets.versions(item.dataset, limit=1) for item in self.show(name).inputs.values()]
        return [version.address for found in newest for version in found if version.status == "refused"]

    def _resolve(self, dataset: str, last: int) -> DataRef:
        versions = self._datasets.accepted(dataset)
        chosen = versions[-last:] if last else versions
        if not chosen:
            raise Conflict(f"dataset `{dataset}` has no accepted version", hint=f"mainspring register {dataset} FILE")
        return DataRef(versions=[item.address for item in chosen], digests=[item.digest for item in chosen])

    def _given(self, text: str) -> DataRef:
        """Versions named in a parameter: ``flights@3`` or several with commas."""
        chosen = [self._datasets.version(str(parse_address(part.strip()))) for part in text.split(",")]
        return DataRef(versions=[item.address for item in chosen], digests=[item.digest for item in chosen])

    def _plan(self, definition: PipelineDefinition, values: dict[str, Any], data: dict[str, DataRef]) -> Plan:
        task = PlanTask(entry=definition.entry, path=definition.path, values=values, data=data)
        done = self._ask(Task(id=new_id(), entry=f"{WORKER}:plan", payload=msgspec.msgpack.encode(task)))
        result = msgspec.msgpack.decode(done.payload, type=PlanResult)
        if result.plan is None:
            raise InvalidInput(result.error, hint=result.hint)
        return result.plan

    def _ask(self, task: Task) -> Result:
        for _ in range(_PLAN_TRIES):
            self._desk.submit(task)
            while not (results := self._desk.wait([task.id])):
                pass
            if results[0].status == "done":
                return results[0]
        raise StepFailed(
            f"the pipeline could not be planned: {results[0].error}", hint="import the module by hand to see why"
        )

    @operation("POST", "/runs/{run}/execute", command="resume")
    def execute(self, run: str) -> Run:
        """Carries a run out to its end; steps that are done already, also before a crash, are not repeated.

        Raises:
            Conflict: Another living process is at it.
        """
        if (found := self._runs.show(run)).status != "running":
            return found
        with self._runs.claimed(run):
            plan = self.plan_of(run).plan
            for step in self.steps(run):
                if step.status == "running":  # it was under way when its process died
                    self._save(step, status="waiting")
            running: dict[str, str] = {}
            try:
                while self._advance(run, plan, running):
                    pass
            finally:
                self._desk.cancel(running)  # when interrupted: nobody will take the results
            return self._conclude(run)

    def _advance(self, run: str, plan: Plan, running: dict[str, str]) -> bool:
        """Starts what can start and records what came in; whether the run goes on."""
        steps = steps_by_name(self.steps(run))
        ready = rules.ready_steps(plan, steps)
        for planned in ready:
            if len(running) < self._desk.capacity():
                self._begin(run, plan, planned, steps, running)
        goes_on = bool(running or ready)
        for result in self._desk.wait(running) if running else ():
            self._record(plan, steps_by_name(self.steps(run))[running.pop(result.id)], result)
        return goes_on

    def _begin(
        self,
        run: str,
        plan: Plan,
        planned: PlannedStep,
        steps: dict[str, StepRun],
        running: dict[str, str],
    ) -> None:
        parts = {name: step.parts for name, step in steps.items()}
        key = rules.cache_key(planned, parts)
        earlier = self._cached(key) if planned.cache else None
        step = steps[planned.name]
        if earlier is not None:
            self._finish(
                step,
                key=key,
                status="cached",
                parts=earlier.parts,
                metrics=earlier.metrics,
                source=earlier.run,
                log=earlier.log,
            )
            return
        self._save(step, status="running", key=key, attempts=step.attempts + 1, started=self._store.clock.now())
        needed = {argument.ref.step for argument in planned.arguments.values() if argument.ref}
        task = StepTask(
            step=planned.name,
            function=planned.function,
            path=plan.path,
            arguments=planned.arguments,
            parts={name: parts[name] for name in needed},
            artifacts=self._artifacts_url,
        )
        task_id = new_id()
        running[task_id] = planned.name
        self._desk.submit(Task(id=task_id, entry=f"{WORKER}:execute", payload=msgspec.msgpack.encode(task)))

    def _cached(self, key: str) -> StepRun | None:
        for earlier in self._store.find(StepRun, key=key, status="ok", order="-ended", limit=3):
            if all(self._artifacts.stat(part.digest) for part in earlier.parts):
                return earlier
        return None

    def _record(self, plan: Plan, step: StepRun, result: Result) -> None:
        planned = next(item for item in plan.steps if item.name == step.step)
        if result.status == "lost":
            status = rules.next_status(step, planned.retries)
            self._save(step, status=status, error=result.error if status == "failed" else "")
            return
        if result.status == "broken":
            self._finish(step, status="failed", error=result.error)
            return
        done = msgspec.msgpack.decode(result.payload, type=StepResult)
        metrics = {name: value for name, _, value in done.metrics}
        with self._store.transaction() as tx:
            if done.log:
                tx.own(done.log, f"run:{step.run}", done.log_size)
            self._runs.log(step.run, [Point(key=name, value=value, step=at) for name, at, value in done.metrics])
            status = "failed" if done.error else "ok"
            self._finish(step, status=status, parts=done.parts, metrics=metrics, error=done.error, log=done.log)

    def _finish(self, step: StepRun, **changes: Any) -> None:
        with self._store.transaction() as tx:
            for part in changes.get("parts", []):
                tx.own(part.digest, f"run:{step.run}", part.size)
            if changes["status"] == "cached":
                self._runs.log(step.run, [Point(key=name, value=value) for name, value in changes["metrics"].items()])
            self._save(step, ended=self._store.clock.now(), **changes)
            facts = {"step": step.step, "status": changes["status"], "error": changes.get("error", "")}
            tx.emit("pipelines.step.finished", step.run, **facts)

    def _save(self, step: StepRun, **changes: Any) -> None:
        with self._store.transaction() as tx:
            tx.update(msgspec.structs.replace(step, **changes))

    def _conclude(self, run: str) -> Run:
        steps = self.steps(run)
        failed = next((step for step in steps if step.status == "failed"), None)
        if failed is not None:
            return self._runs.finish(run, "failed", f"step `{failed.step}`: {failed.error}")
        return self._runs.finish(run, "ok")

    def _output(self, run: str, name: str) -> tuple[Ref, list[Part]]:
        outputs = self.plan_of(run).plan.outputs
        if name not in outputs:
            raise unknown_name("output", name, outputs, listing=f"mainspring runs show {run}")
        ref = outputs[name]
        return ref, steps_by_name(self.steps(run))[ref.step].parts

    def output(self, run: str, name: str) -> list[Part]:
        """The stored parts of one of a run's outputs (not an operation: used by rooms to the right).

        Raises:
            NotFound: The pipeline returns nothing of that name, or has not come that far.
        """
        ref, parts = self._output(run, name)
        return [part for part in parts if not ref.part or part.name == ref.part]

    def value(self, run: str, name: str) -> Any:
        """The value of one of a run's outputs (not an operation: values do not travel as JSON).

        Raises:
            NotFound: The pipeline returns nothing of that name, or has not come that far.
        """
        ref, parts = self._output(run, name)
        if not parts:
            raise NotFound(f"step `{ref.step}` of run {run} gave nothing", hint=f"mainspring runs show {run}")
        return read_parts(parts, ref.part, lambda part: read_value(part.format, self._artifacts.read(part.digest)))

    def abandoned(self) -> list[Run]:
        """Runs of pipelines that wait for an executor: new ones, and those whose process has died."""
        waiting = [run for run in self._runs.find(status="running", limit=1000) if run.pipeline]
        return [run for run in reversed(waiting) if self._runs.is_free(run)]


def steps_by_name(steps: list[StepRun]) -> dict[str, StepRun]:
    """Step -> its execution."""
    return {step.step: step for step in steps}


def _each_once(references: Iterable[DataRef]) -> list[str]:
    """The versions of all references, in order, each once."""
    return list(dict.fromkeys(version for reference in references for version in reference.versions))
