"""Operations on batch jobs: a dataset version or a query goes in, a new dataset version with scores comes out."""

from __future__ import annotations

import tempfile
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mainspring.core.entity import born, draft
from mainspring.core.humility import Humility, HumilityRule
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.data.local import local_copy
from mainspring.data.model import Dataset, DatasetVersion
from mainspring.data.query import query as run_query
from mainspring.data.service import Datasets
from mainspring.deploy.service import Deployments
from mainspring.errors import InvalidInput, NotFound, StepFailed
from mainspring.pipelines.desk import Desk
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.executor import Result, Task
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.serving.batch import SLICE_ROWS, SliceResult, SliceTask, assemble, check_table, scan
from mainspring.serving.counting import Ledger, Plan, check_times
from mainspring.serving.model import Scoring, ScoringSlice
from mainspring.serving.reviews import enter
from mainspring.store import Store
from mainspring.tracking.environment import describe_environment
from mainspring.tracking.model import Run
from mainspring.tracking.service import Runs

EXPERIMENT = "batch-scoring"
_ENTRY = "mainspring.serving.batch:score_slice"
_TRIES = 3


class Scorings:
    """Batch jobs.

    Args:
        store: The database.
        runs: The room `tracking`.
        datasets: The room `data`.
        models: The room `registry`.
        artifacts: Where tables are stored, with the address that workers open it by.
        desk: Where tasks for the executor are handed in.
        deployments: The room `deploy`.
        ledger: Where monitors read what was counted.
    """

    def __init__(
        self,
        store: Store,
        runs: Runs,
        datasets: Datasets,
        models: Models,
        artifacts: tuple[ArtifactStore, str],
        desk: Desk,
        deployments: Deployments,
        ledger: Ledger,
    ) -> None:
        self._store = store
        self._runs = runs
        self._datasets = datasets
        self._models = models
        self._artifacts, self._artifacts_url = artifacts
        self._desk = desk
        self._deployments = deployments
        self._ledger = ledger

    @operation("POST", "/scorings")
    def start(
        self,
        version: str,
        dataset: str,
        output: str,
        query: str = "",
        keep: list[str] | None = None,
        reason: str = "",
        deployment: str = "",
        people: bool = False,
        monitored: bool = False,
        time: str = "",
    ) -> Scoring:
        """Records a batch job; whoever carries jobs out (`execute`, the controller) scores the rows.

        Args:
            version: The model version: ``churn@3``, ``churn@live``, ``churn``.
            dataset: What is scored: ``customers@7``, ``customers`` (its newest version), or several with commas.
            output: Name of the dataset that the result becomes a version of; created when there is none.
            query: SQL over the datasets, such as ``SELECT * FROM customers WHERE active``; all rows by default.
            keep: Columns to keep beside ``predicted_score`` and ``predicted_label``; all by default.
            reason: Why, in words.
            deployment: Deployment of the model whose humility rules apply, as in its server; none by default.
            people: Whether rows that a rule puts before a person go into the people's queue.
            monitored: Whether monitors of the deployment see the rows, as counts.
            time: Column of dates or moments that tells monitors when each row was; when it is scored by default.

        Raises:
            InvalidInput: The table is not what the model reads, the query cannot be run, the deployment is another
                model's, or monitors cannot see the rows.
        """
        model = self._models.version(version)
        rules = self._rules(model, deployment, people)
        inputs = [self._datasets.version(part.strip()) for part in dataset.split(",")]
        sources = self._sources(inputs, query)
        table = self._scan(sources)
        kept = check_table(table, model.signature, keep)
        self._check_monitored(model, table, deployment, monitored, time)
        rows = int(table.select(pl.len()).collect().item())
        new = draft(
            Scoring, version=model.address, datasets=[item.address for item in inputs],
            query=query, output=output, keep=kept, deployment=deployment, people=people,
            monitored=monitored, time=time,
        )  # fmt: skip
        params = {"version": model.address, "output": output, "query": query}
        run_draft = draft(
            Run, experiment=EXPERIMENT, params=params, datasets=new.datasets, reason=reason,
            environment=describe_environment(),
        )  # fmt: skip
        with self._store.transaction() as tx:
            run = self._runs.start(run_draft)
            job = born(
                Scoring, new, id=new_id(), created=self._store.clock.now(), run=run.name, source=sources, rows=rows,
                humility=rules,
            )  # fmt: skip
            tx.insert(job)
            if query:
                tx.own(sources[0], f"run:{run.name}", self._size(sources[0]))
            tx.emit("serving.scoring.started", run.name, version=model.address, datasets=new.datasets, rows=rows)
        return job

    @operation("GET", "/scorings", command="list")
    def find(self, limit: int = 100) -> list[Scoring]:
        """Lists batch jobs, newest first."""
        return self._store.find(Scoring, order="-created", limit=limit)

    def resting_on(self, runs: Sequence[str]) -> dict[str, str]:
        """Runs that are batch jobs -> that they are (not an operation)."""
        found = self._store.find(Scoring, self._store.columns(Scoring).run.in_(runs), limit=10_000)
        return {item.run: "it is a batch job" for item in found}

    @operation("GET", "/scorings/{run}")
    def show(self, run: str) -> Scoring:
        """Shows a batch job."""
        return self._store.get(Scoring, run=run, listing="mainspring scorings list")

    @operation("GET", "/scorings/{run}/slices")
    def slices(self, run: str) -> list[ScoringSlice]:
        """Lists the slices of a job that are scored, in order of rows."""
        return self._store.find(ScoringSlice, order="start", limit=10_000, run=self.show(run).run)

    @operation("POST", "/scorings/{run}/execute", command="resume")
    def execute(self, run: str) -> Scoring:
        """Carries a job out to its end; slices that are scored already, also before a crash, are not scored again.

        Raises:
            Conflict: Another living process is at it.
            StepFailed: A slice cannot be scored; the run tells why.
        """
        job = self.show(run)
        if self._runs.show(run).status != "running":
            return job
        with self._runs.claimed(run):
            try:
                self._score(job)
                version = self._assembled(job)
            except (InvalidInput, NotFound, StepFailed) as error:
                self._runs.finish(run, "failed", error.message)
                raise
            found: dict[str, Any] = {"result": version.address, **_totals(self.slices(run))}
            with self._store.transaction() as tx:
                done = tx.update(msgspec.structs.replace(job, **found))
                tx.emit("serving.scoring.finished", run, version=job.version, rows=job.rows, **found)
                self._runs.finish(run)
        return done

    def abandoned(self) -> list[Scoring]:
        """Jobs that wait for somebody to carry them out: new ones, and those whose process has died."""
        waiting = self._runs.find(experiment=EXPERIMENT, status="running", limit=1000)
        return [self.show(run.name) for run in reversed(waiting) if self._runs.is_free(run)]

    def _rules(self, version: ModelVersion, deployment: str, people: bool) -> tuple[HumilityRule, ...]:
        """The humility rules that apply, fit for the version."""
        if people and not deployment:
            raise InvalidInput("only a deployment has a people's queue", hint="--deployment NAME")
        if not deployment:
            return ()
        wanted = self._deployments.show(deployment)
        if wanted.model != version.model:
            raise InvalidInput(f"{deployment} serves {wanted.model}, not {version.model}", hint="mainspring status")
        Humility(wanted.humility, version.signature)
        return wanted.humility

    def _check_monitored(
        self, version: ModelVersion, table: pl.LazyFrame, deployment: str, monitored: bool, time: str
    ) -> None:
        if time and not monitored:
            raise InvalidInput("only monitors ask when rows were", hint=f"--monitor --time {time}")
        if monitored and not deployment:
            raise InvalidInput("only a deployment has monitors", hint="--deployment NAME --monitor")
        if monitored:
            self._ledger.bins(deployment, version.address)  # without a reference it tells so now
        if time:
            check_times(table, time, self._store.clock.now())

    def _sources(self, inputs: list[DatasetVersion], query: str) -> list[str]:
        """Digests of the Parquet files that are to be scored; a query's answer is stored, so that it stays as it is."""
        if not query:
            return [item.digest for item in inputs]
        tables: dict[str, list[str]] = {}
        for item in inputs:
            tables.setdefault(item.dataset, []).append(item.digest)
        files = {name: [local_copy(self._artifacts, item) for item in digests] for name, digests in tables.items()}
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "answer.parquet"
            try:
                run_query(files, query).sink_parquet(answer)
            except pl.exceptions.PolarsError as error:
                told = (str(error).splitlines() or ["empty"])[0]
                raise InvalidInput(
                    f"the query cannot be run: {told}", hint=f"its tables: {', '.join(files)}"
                ) from error
            return [self._artifacts.put(answer).digest]

    def _scan(self, digests: list[str]) -> pl.LazyFrame:
        return scan([local_copy(self._artifacts, digest) for digest in digests])

    def _size(self, digest: str) -> int:
        stat = self._artifacts.stat(digest)
        return stat.size if stat else 0

    def _score(self, job: Scoring) -> None:
        """Has every slice scored that is not yet."""
        done = {item.start for item in self.slices(job.run)}
        waiting = deque(start for start in range(0, job.rows, SLICE_ROWS) if start not in done)
        tries: Counter[int] = Counter()
        running: dict[str, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._desk.capacity():
                    start, task_id = waiting.popleft(), new_id()
                    tries[start] += 1
                    running[task_id] = start
                    self._desk.submit(Task(id=task_id, entry=_ENTRY, payload=self._task(job, start)))
                for result in self._desk.wait(running):
                    start = running.pop(result.id)
                    if result.status == "lost" and tries[start] < _TRIES:
                        waiting.appendleft(start)
                    else:
                        self._keep(job, start, result)
        finally:
            self._desk.cancel(running)

    def _task(self, job: Scoring, start: int) -> bytes:
        model = self._models.version(job.version).files
        rows = min(SLICE_ROWS, job.rows - start)
        task = SliceTask(
            model=model, source=job.source, start=start, rows=rows, artifacts=self._artifacts_url,
            humility=job.humility, people=job.people, name=job.run, version=job.version,
            trusted=self._models.trusted_of(job.version.partition("@")[0]),
            counting=self._counting(job) if job.monitored else None,
        )  # fmt: skip
        return msgspec.msgpack.encode(task)

    def _counting(self, job: Scoring) -> Plan:
        masked = self._deployments.show(job.deployment).log.mask
        return Plan(bins=self._ledger.bins(job.deployment, job.version), hidden=tuple(sorted(masked)), time=job.time)

    def _keep(self, job: Scoring, start: int, result: Result) -> None:
        if result.status != "done":
            raise StepFailed(f"the rows from {start} on cannot be scored: {result.error}", hint="read the server's log")
        scored = msgspec.msgpack.decode(result.payload, type=SliceResult)
        if scored.error:
            raise StepFailed(scored.error, hint=scored.hint)
        part = ScoringSlice(
            id=new_id(), created=self._store.clock.now(), run=job.run, start=start,
            rows=scored.rows, refused=scored.refused, digest=scored.digest, fired=scored.fired,
        )  # fmt: skip
        with self._store.transaction() as tx:
            tx.insert(part)
            tx.own(scored.digest, f"run:{job.run}", scored.size)
            if scored.counts:  # with the slice or not at all: who resumes the job cannot count them twice
                self._ledger.keep(job.deployment, job.version, scored.counts, f"{job.run}/{start}")
            if scored.people:
                mask = self._deployments.mask(self._deployments.show(job.deployment))
                columns = mask.hide(scored.people.columns)
                enter(self._store, job.deployment, [msgspec.structs.replace(scored.people, columns=columns)])

    def _assembled(self, job: Scoring) -> DatasetVersion:
        """The scores of all slices beside the kept columns, registered."""
        scores = [local_copy(self._artifacts, item.digest) for item in self.slices(job.run)]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "scored.parquet"
            assemble(self._scan(job.source), job.keep, scores, target)
            digest = self._artifacts.put(target).digest
        if self._store.first(Dataset, name=job.output) is None:
            described = f"Scores of {job.version.partition('@')[0]}."
            self._datasets.create(draft(Dataset, name=job.output, description=described))
        source = f"{job.version} over {', '.join(job.datasets)} (run {job.run})"
        return self._datasets.register(job.output, digest, source)


def _totals(slices: Sequence[ScoringSlice]) -> dict[str, Any]:
    """What the slices come to together."""
    fired: Counter[str] = Counter()
    for item in slices:
        fired.update(item.fired)
    return {"refused": sum(item.refused for item in slices), "fired": dict(fired)}
