"""A workspace with half a year behind it, made through the services and, where training would be needed, as rows."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
import polars as pl
import pytest

from mainspring.automation.model import Firing, Rule, Trigger
from mainspring.automation.simulation.course import Course
from mainspring.automation.simulation.model import (
    Figures,
    Judging,
    Past,
    Policy,
    Renewal,
    SimulatedPolicy,
    Simulation,
    Trainer,
    Window,
)
from mainspring.core.actor import acting_as
from mainspring.core.clock import ManualClock
from mainspring.core.entity import draft
from mainspring.core.ids import new_id, to_hex
from mainspring.core.signature import Field, Signature
from mainspring.data.model import Dataset
from mainspring.data.service import parquet_bytes
from mainspring.deploy.model import Deployment, Environment, Release, Strategy, Verdict, VersionEvidence
from mainspring.governance import model as governance
from mainspring.governance.model import Approval, ApprovalRule, Gate, GateResult
from mainspring.measures.quality import Expectation
from mainspring.monitoring.model import Incident, Monitor, Signal
from mainspring.pipelines.model import (
    Argument,
    DataInput,
    DataRef,
    Part,
    PipelineDefinition,
    Plan,
    PlannedStep,
    Ref,
    RunPlan,
    StepRun,
)
from mainspring.ports.target import TargetStatus
from mainspring.registry.model import Model, ModelVersion
from mainspring.server.app import create_app
from mainspring.settings import load_settings
from mainspring.tracking.model import CodeVersion, LoggedModel, Point, Run, Trace
from mainspring.tracking.spans import Span, SpanEvent
from mainspring.ui.app import routes
from mainspring.usecases.model import Kpi, KpiValue, UseCase
from mainspring.workspace import Workspace

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
WEEKS = 26
PROJECTS = Path(__file__).parents[2] / "projects"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert(1)</script>\"'&"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """Asks an ASGI application without a network."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(self, address: str, **headers: str) -> Answer:
        return asyncio.run(self._ask("GET", address, b"", headers))

    def post(self, address: str, form: dict[str, str], **headers: str) -> Answer:
        return asyncio.run(self._ask("POST", address, urlencode(form).encode(), headers))

    async def _ask(self, method: str, address: str, body: bytes, headers: dict[str, str]) -> Answer:
        url = urlsplit(address)
        sent = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        told: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            told.append(message)

        await self._app(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in told[0]["headers"]}
        return Answer(told[0]["status"], found, b"".join(message.get("body", b"") for message in told[1:]))


class Target:
    """A place where everything runs well."""

    def status(self, name: str) -> TargetStatus:
        return TargetStatus(name=name, state="running", revision=7, url="http://127.0.0.1:8461", pid=4711)


class Sample:
    """Fills a workspace; every method is one kind of thing."""

    def __init__(self, workspace: Workspace, clock: ManualClock) -> None:
        self.workspace, self.clock, self.random = workspace, clock, random.Random(7)
        self.store = workspace.store

    def insert(self, kind: Any, **fields: Any) -> Any:
        with self.store.transaction() as tx:
            return tx.insert(kind(id=new_id(), created=self.clock.now(), **fields))

    def emit(self, kind: str, subject: str, **data: Any) -> None:
        with self.store.transaction() as tx:
            tx.emit(kind, subject, **data)

    def declare(self) -> None:
        """What a project file would declare."""
        space = self.workspace
        kpi = Kpi(name="saved_per_call", target=12.0, unit="EUR", value={"tp": 60.0, "fp": -6.0})
        space.usecases.create(
            draft(
                UseCase,
                name="churn",
                problem="Customers leave before anybody calls them.",
                owner="maria",
                stakeholders=["service desk"],
                risk_class="limited",
                intended_use="Choose whom to call, never whom to drop.",
                kpis=[kpi],
            )
        )
        rules = [
            Expectation("row_count", params={"min": 500}),
            Expectation("not_null", "customer"),
            Expectation("between", "age", {"min": 16, "max": 110}),
            Expectation("null_share", "plan", {"max": 0.05}),
        ]
        space.datasets.create(
            draft(Dataset, name="customers", description=f"One row per customer. {HOSTILE}", expectations=rules)
        )
        space.models.create(
            draft(Model, name="churn", use_case="churn", description="Chance that a customer leaves within 30 days.")
        )
        space.pipelines.create(
            draft(
                PipelineDefinition,
                name="train",
                entry="pipeline:train",
                use_case="churn",
                model="churn",
                inputs={"table": DataInput(dataset="customers", last=0)},
            )
        )
        space.deployments.set_environment(draft(Environment, name="production"))
        strategy = Strategy(steps=(10.0, 50.0), bake_hours=72)
        space.deployments.create(
            draft(
                Deployment,
                name="churn-eu",
                model="churn",
                use_case="churn",
                environment="production",
                strategy=strategy,
            )
        )
        common = {"deployment": "churn-eu", "min_rows": 100}
        for monitor in (
            {"name": "saved", "kind": "kpi", "measure": "saved_per_call", "severity": "ticket"},
            {
                "name": "auc",
                "kind": "performance",
                "measure": "roc_auc",
                "min": 0.78,
                "delay_days": 7,
                "severity": "page",
            },
            {"name": "inputs", "kind": "drift", "measure": "psi", "max": 0.25},
            {"name": "volume", "kind": "volume", "measure": "", "min": 1000},
        ):
            space.monitors.create(draft(Monitor, **common, **monitor))
        gates = [
            Gate(
                name="useful", require="candidate.roc_auc >= 0.8", why="Below, the service desk calls the wrong people."
            ),
            Gate(
                name="not-worse",
                require="champion == null || candidate.log_loss <= champion.log_loss * 1.02",
                why="A newer model that promises less precisely is no progress.",
            ),
        ]
        space.approvals.set_policy(
            draft(governance.Policy, model="churn", gates=gates, approval=ApprovalRule(by="person", persons=["maria"]))
        )
        for name, on, source in (("new-data", "data", "customers"), ("worse", "incident", "auc")):
            when = [Trigger(on=on, source=source)]
            space.rules.create(draft(Rule, name=name, when=when, pipeline="train", use_case="churn"))

    def data(self, number: int, rows: int = 900) -> None:
        """Registers a version; the third one breaks an expectation."""
        ages = [self.random.gauss(44, 15) for _ in range(rows)]
        frame = pl.DataFrame(
            {
                "customer": [f"c{number}-{index}" for index in range(rows)],
                "age": [min(max(age, 16), 110) if number != 3 else age - 60 for age in ages],
                "plan": [self.random.choice(["basic", "plus", "family", HOSTILE]) for _ in range(rows)],
                "calls": [self.random.randint(0, 9) for _ in range(rows)],
                HOSTILE: [self.random.random() for _ in range(rows)],
            }
        )
        blob = self.workspace.artifacts.put(parquet_bytes(frame))
        with acting_as("nightly-load", "service", reason="nightly delivery"):
            self.workspace.datasets.register("customers", blob.digest, f"customers-{number:02}.parquet")

    def run(
        self, name: str, auc: float, datasets: list[str], status: str = "ok", trigger: str = "data", **more: Any
    ) -> Run:
        """A finished run of the pipeline with five steps, curves and a log."""
        metrics = {} if status == "failed" else {"roc_auc": auc, "log_loss": 0.9 - auc / 2, "seconds": 41.0}
        ended = None if status == "running" else self.clock.now() + timedelta(minutes=4, seconds=11)
        run = self.insert(
            Run,
            name=name,
            number=self.workspace.store.count(Run) + 1,
            experiment="churn",
            experiment_number=self.workspace.experiments.ensure("churn").number,
            use_case="churn",
            pipeline="train",
            datasets=datasets,
            trigger=trigger,
            params={"learning_rate": 0.1, "leaves": 31},
            cause=f"none:{name}",
            status=status,
            metrics=metrics,
            actor="controller",
            actor_kind="controller",
            ended=ended,
            tags={"team": HOSTILE},
            environment={"python": "3.12.4", "numpy": "2.4.1"},
            code=CodeVersion(commit="8f2c1e0" * 5, dirty=True),
            **more,
        )
        self.workspace.runs.log(name, [Point(key=key, value=value) for key, value in metrics.items()])
        needs = {"prepare": [], "split": ["prepare"], "fit": ["split"], "evaluate": ["fit", "split"], "pack": ["fit"]}
        steps = [
            PlannedStep(
                name=step,
                function=f"pipeline:{step}",
                arguments={
                    **{need: Argument(ref=Ref(step=need)) for need in needed},
                    **({"table": Argument(data=DataRef(versions=datasets, digests=[]))} if step == "prepare" else {}),
                },
            )
            for step, needed in needs.items()
        ]
        self.insert(RunPlan, run=name, plan=Plan(pipeline="train", steps=steps, outputs={"model": Ref(step="pack")}))
        log = self.workspace.artifacts.put(f"reading {datasets}\n{HOSTILE}\n".encode())
        for position, step in enumerate(needs):
            word = "cached" if step == "prepare" and name != "calm-otter-1" else "ok"
            if status == "failed" and position >= 2:
                word = "failed" if step == "fit" else "waiting"
            if status == "running" and position >= 2:
                word = "running" if step == "fit" else "waiting"
            self.insert(
                StepRun,
                run=name,
                step=step,
                position=position,
                status=word,
                key=f"{name}-{step}",
                log=log.digest,
                parts=[Part(name="", digest=log.digest, size=48_213, format="parquet")]
                if word in ("ok", "cached")
                else [],
                started=self.clock.now(),
                ended=self.clock.now() + timedelta(seconds=37),
                attempts=1,
                source="calm-otter-1" if word == "cached" else "",
                error="ValueError: no rows left" if word == "failed" else "",
            )
        if status == "ok":
            curve = [Point(key="loss", step=step, value=0.2 + 0.6 * math.exp(-step / 12)) for step in range(60)]
            self.workspace.runs.log(name, curve)
        self.emit(f"tracking.run.{'succeeded' if status == 'ok' else status}", name, pipeline="train", error=run.error)
        return run

    def version(self, number: int, run: Run, status: str) -> ModelVersion:
        """A version of the model and its approval."""
        auc = run.metrics["roc_auc"]
        fields = (
            Field(name="age", type="float", min=16, max=110),
            Field(name="plan", type="string", categories=("basic", "plus", HOSTILE)),
            Field(name="calls", type="int", min=0, max=9, nullable=True),
        )
        address = f"churn@{number}"
        model = self.workspace.artifacts.put(f"a model {number}".encode() * 4000)
        made = self.insert(
            ModelVersion,
            changed=self.clock.now(),
            address=address,
            model="churn",
            number=number,
            run=run.name,
            flavor="sklearn",
            files={"model.onnx": model.digest, "signature.json": model.digest},
            signature=Signature(inputs=fields),
            metrics=run.metrics,
            datasets=run.datasets,
            status=status,
            twin_difference=2.4e-7,
            actor="controller",
        )

        def measured(auc: float) -> dict[str, float]:
            return {
                "rows": 4200,
                "n": 4200,
                "roc_auc": auc,
                "log_loss": 0.9 - auc / 2,
                "brier": 0.31 - auc / 5,
                "f1": auc - 0.13,
                "precision": auc - 0.09,
                "recall": auc - 0.17,
                "bias": 0.012,
                "saved_per_call": 60 * auc - 37,
                "threshold": 0.4,
            }

        candidate, champion = measured(auc), measured(auc - 0.014) if number > 1 else None
        passed = auc >= 0.8
        gates = [
            GateResult(
                name="useful",
                require="candidate.roc_auc >= 0.8",
                passed=passed,
                measured={"candidate.roc_auc": auc},
                sentence=f"candidate.roc_auc >= 0.8 {'holds' if passed else 'does not hold'}: {auc:.4g}",
            ),
            GateResult(
                name="not-worse",
                require="champion == null || candidate.log_loss <= champion.log_loss * 1.02",
                passed=True,
                measured={
                    "candidate.log_loss": candidate["log_loss"],
                    "champion": champion,
                    "champion.log_loss": champion["log_loss"] if champion else None,
                },
                sentence="holds",
            ),
        ]
        word = {"candidate": "pending", "refused": "refused"}.get(status, "approved")
        by = {"pending": "", "refused": "policy", "approved": "maria"}[word]
        reason = {
            "pending": "waits for maria",
            "refused": "gate `useful` does not hold",
            "approved": "Looks right to me.",
        }[word]
        self.insert(
            Approval,
            version=address,
            model="churn",
            gates=gates,
            policy=1,
            use_case="churn",
            status=word,
            decided_by=by,
            champion=f"churn@{number - 1}" if number > 1 else "",
            reason=reason,
            evidence={"candidate": candidate, "champion": champion},
            decided=self.clock.now() if by else None,
        )
        self.emit(
            f"governance.approval.{'requested' if word == 'pending' else word}", address, model="churn", reason=reason
        )
        return made

    def go_live(self, number: int) -> None:
        """Releases a version all the way, with the verdicts of its rollout."""
        before = self.store.first(Release, deployment="churn-eu", status="live")
        if before:
            with self.store.transaction() as tx:
                tx.update(
                    msgspec.structs.replace(
                        before, status="retired", ended=self.clock.now(), reason=f"replaced by churn@{number}"
                    )
                )
        verdicts = (
            [self.verdict(number, weight, action) for weight, action in ((10, "advance"), (50, "promote"))]
            if before
            else []
        )
        self.insert(
            Release,
            deployment="churn-eu",
            number=number,
            version=f"churn@{number}",
            status="live",
            live_since=self.clock.now(),
            previous=before.version if before else "",
            verdicts=verdicts,
            reason="all 2 gates passed",
            actor="controller",
        )
        self.workspace.models.set_alias("churn", "live", number)
        self.emit(
            "deploy.release.live", "churn-eu", version=f"churn@{number}", previous=before.version if before else ""
        )
        self.change(live=f"churn@{number}", revision=2 * number)

    def verdict(self, number: int, weight: float, action: Any) -> Verdict:
        live = VersionEvidence(version=f"churn@{number - 1}", rows=5100, outcomes=4900, loss=0.4612, loss_error=0.0081)
        canary = VersionEvidence(version=f"churn@{number}", rows=560, outcomes=540, loss=0.4527, loss_error=0.0212)
        reason = "log_loss 0.4527 on 540 outcomes against 0.4612 on 4900 (-1.8%)"
        return Verdict(time=self.clock.now(), action=action, reason=reason, weight=weight, live=live, canary=canary)

    def change(self, **fields: Any) -> None:
        deployment = self.workspace.deployments.show("churn-eu")
        with self.store.transaction() as tx:
            tx.update(msgspec.structs.replace(deployment, **fields))

    def week(self, index: int, version: str) -> None:
        """One window of every monitor."""
        start, end = START + timedelta(days=7 * index), START + timedelta(days=7 * index + 7)
        noise = self.random.uniform(-0.012, 0.012)
        auc = 0.835 + noise - 0.0035 * (index % 9) - (0.05 if index == 12 else 0)
        psi = 0.05 + abs(noise) * 3 + (0.24 if index >= WEEKS - 2 else 0)
        columns = {"age": psi, "plan": psi * 0.4, "calls": psi * 0.15, HOSTILE: psi * 0.05}
        saved = 12.4 + 60 * (auc - 0.82)
        for monitor, value, limit, low, high, details in (
            ("saved", saved, "no limit", None, None, {"tp": 301, "fp": 120, "fn": 77, "tn": 3702}),
            ("auc", auc, "at least 0.78", 0.78, None, {}),
            ("inputs", psi, "at most 0.25", None, 0.25, {"columns": columns}),
            ("volume", 4200 + 40_000 * noise, "at least 1000", 1000, None, {}),
        ):
            breach = (low is not None and value < low) or (high is not None and value > high)
            self.insert(
                Signal,
                monitor=monitor,
                deployment="churn-eu",
                start=start,
                end=end,
                status="breach" if breach else "ok",
                value=value,
                limit=limit,
                rows=4200,
                version=version,
                sentence=f"{monitor} {value:.4g}, {limit}",
                details=details,
            )
        self.workspace.usecases.record_kpi(
            draft(KpiValue, use_case="churn", kpi="saved_per_call", start=start, end=end, value=saved, rows=4200)
        )


def simulated(sample: Sample) -> None:
    """A simulation that has ended: two policies and the bounds over 120 days, a true loss that one of them found."""
    day, first = timedelta(days=1), START
    past = Past(
        digest="x", rows=40_000, first=first - 30 * day, last=first + 120 * day, kind="classifier", columns=["age"],
        delay_days=2.0,
    )  # fmt: skip
    sample.insert(
        Simulation, run="calm-otter-2", use_case="churn", datasets=["customers@3"], deployment="churn-eu", time="at",
        label="churned", past=past, trainer=Trainer(entry="pipeline:train"), floor=0.8,
        judging=Judging(measure="roc_auc"), notes=["monitor `errors` (service) needs more than rows and labels"],
        recommendation="Take `careful`: its net of 900 is the largest of 2 policies.",
    )  # fmt: skip
    for place, (name, role, dip) in enumerate(
        [("careful", "policy", 0.0), ("calendar", "policy", 0.06), ("never retrained", "never", 0.12),
         ("always newest", "newest", -0.01)]
    ):  # fmt: skip
        windows = [
            Window(first + index * day, first + (index + 1) * day, 300,
                   0.86 + 0.02 * math.sin(index / 5) - (dip if index > 60 else 0.0), 3.0 - 10 * dip, 1)
            for index in range(120)
        ]  # fmt: skip
        renewals = [Renewal(first, "", "the first model", "a", 1)]
        if dip == 0.0:
            renewals.append(Renewal(first + 66 * day, "worse", HOSTILE, "b", 2, "better"))
        opened = Incident(
            id="1", created=first + 64 * day, name="churn-eu-1", deployment="churn-eu", cause_group="performance",
            monitor="auc", since=first + 60 * day, until=first + 70 * day, summary=HOSTILE, status="resolved",
            resolved=first + 72 * day,
        )  # fmt: skip
        course = Course(step=120, keys=["a"], since=[first], windows=windows, renewals=renewals,
                        incidents=[opened] if dip == 0.0 else [])  # fmt: skip
        figures = Figures(windows=120, quality=0.86 - dip, value=360.0, net=300.0, drops=1, found=int(dip == 0.0))
        sample.insert(
            SimulatedPolicy, run="calm-otter-2", name=name, position=place, role=role, policy=Policy(name=name),
            windows=120, whole=120, done=True, state=course.encoded(), all=figures, seen=figures, held_out=figures,
            frontier=place < 2, recommended=place == 0,
        )  # fmt: skip


def fill(workspace: Workspace, clock: ManualClock) -> None:
    """Half a year: three versions, one on its way, one that waits, a failed and a running run, two incidents."""
    sample = Sample(workspace, clock)
    with acting_as("maria", reason="first set-up"):
        sample.declare()
    with acting_as("controller", "controller"):
        number, live = 0, "churn@1"
        for index in range(WEEKS):
            clock.set(START + timedelta(days=7 * index + 7))
            if index % 4 == 0:
                sample.data(index // 4 + 1)
            if index in (0, 8, 16):
                number += 1
                datasets = [f"customers@{item}" for item in (1, 2, 4, 5)[: number + 1]]
                run = sample.run(
                    f"calm-otter-{number}", 0.81 + 0.012 * number, datasets, reason="customers@1 was registered"
                )
                sample.version(number, run, "approved")
                sample.go_live(number)
                live = f"churn@{number}"
            if index == 12:
                sample.insert(
                    Incident,
                    name="churn-eu-1",
                    cause_group="performance",
                    monitor="auc",
                    monitors=["auc"],
                    until=START + timedelta(days=91),
                    deployment="churn-eu",
                    severity="page",
                    status="resolved",
                    summary="roc_auc 0.7723 (4200 rows), at least 0.78",
                    since=START + timedelta(days=84),
                    resolved=clock.now(),
                )
                sample.emit(
                    "monitoring.incident.opened",
                    "churn-eu-1",
                    monitor="auc",
                    deployment="churn-eu",
                    summary="roc_auc 0.7723, at least 0.78",
                )
            sample.week(index, live)
        _present(sample, clock)
    simulated(sample)


def _present(sample: Sample, clock: ManualClock) -> None:
    """Where things stand now: a canary, a signature that is missing, an open incident."""
    datasets = ["customers@5", "customers@6", "customers@7"]
    run = sample.run(
        "brave-ibis-4", 0.853, datasets, trigger="incident", reason="incident churn-eu-1: roc_auc 0.7723, at least 0.78"
    )
    sample.version(4, run, "approved")
    clock.advance(timedelta(hours=9))
    sample.insert(
        Release,
        deployment="churn-eu",
        number=4,
        version="churn@4",
        status="rolling",
        previous="churn@3",
        actor="controller",
        reason="Looks right to me.",
        verdicts=[],
    )
    sample.change(canary="churn@4", weight=10.0, step=0, step_since=clock.now(), revision=7)
    sample.emit("deploy.release.started", "churn-eu", version="churn@4", previous="churn@3", number=4)
    sample.run("shy-crane-5", 0.7, datasets, status="failed", error=f"step `fit`: ValueError: no rows left {HOSTILE}")
    clock.advance(timedelta(hours=20))
    sample.version(5, sample.run("merry-fox-5", 0.861, datasets, reason="customers@7 was registered"), "candidate")
    sample.insert(
        Incident,
        name="churn-eu-2",
        cause_group="drift",
        monitor="inputs",
        monitors=["inputs"],
        firing=["inputs"],
        until=START + timedelta(days=7 * WEEKS),
        deployment="churn-eu",
        severity="ticket",
        windows=2,
        summary="psi 0.2993 (4200 rows), at most 0.25",
        since=START + timedelta(days=7 * (WEEKS - 2)),
    )
    sample.emit(
        "monitoring.incident.opened",
        "churn-eu-2",
        monitor="inputs",
        deployment="churn-eu",
        summary="psi 0.2993, at most 0.25",
    )
    sample.insert(
        Firing,
        rule="new-data",
        cause="c1",
        due=clock.now(),
        status="done",
        run="merry-fox-5",
        pipeline="train",
        reason="customers@7 was registered",
        started=clock.now(),
        settled=clock.now(),
    )
    rows = [
        (
            f"c-{index}",
            clock.now() - timedelta(minutes=index),
            "churn@4" if index % 10 == 3 else "churn@3",
            "live",
            0.1 + 0.07 * index,
            index > 4,
            800,
        )
        for index in range(12)
    ]
    columns = {
        "id": pl.String,
        "time": pl.Datetime("us", "UTC"),
        "version": pl.String,
        "role": pl.String,
        "score": pl.Float64,
        "label": pl.Boolean,
        "latency_us": pl.Int64,
    }
    sample.workspace.predictions._add(
        "churn-eu", "predictions", pl.DataFrame(rows, schema=columns, orient="row"), "time"
    )
    clock.advance(timedelta(minutes=25))
    sample.run("quick-wren-6", 0.5, datasets, status="running", trigger="schedule", reason="schedule 0 6 * * 1")
    clock.advance(timedelta(minutes=3))


def attach(workspace: Workspace) -> None:
    """Files of a run, a logged model and a trace, each with something hostile in it."""
    rows = parquet_bytes(pl.DataFrame({"a": [1, 2], HOSTILE: [HOSTILE, None]}))
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script>{HOSTILE}</svg>"
    for path, content in (
        ("tables/rows.parquet", rows), ("plots/dot.png", PNG), ("plots/dot.svg", svg.encode()),
        ("notes/evil.html", HOSTILE.encode()), ("notes/not.png", HOSTILE.encode()), ("raw.bin", b"\0\1"),
    ):  # fmt: skip
        blob = workspace.artifacts.put(content)
        workspace.runs.add_artifact("calm-otter-2", path, blob.digest, blob.size)
    run = workspace.runs.show("calm-otter-2")
    made = workspace.logged.create(draft(LoggedModel, name=HOSTILE, run=run.id, kind="sklearn", params={"a": HOSTILE}))
    workspace.logged.attach(f"m-{to_hex(made.id)}", "model.onnx", blob.digest, blob.size)
    workspace.logged.finish(f"m-{to_hex(made.id)}")
    told = {"mlflow.sourceRun": to_hex(run.id)}
    trace = Trace(
        id="", created=workspace.clock.now(), name="tr-sample", title=HOSTILE, status="ok", duration=12,
        request=HOSTILE,
        response="yes", metadata=told, assessments=[{"name": HOSTILE}],
    )  # fmt: skip
    workspace.traces.put(trace)
    start = int(workspace.clock.now().timestamp() * 1e9)
    ids = ("a" * 16, "b" * 16, "c" * 16)
    failed = {
        "status": "error",
        "message": HOSTILE,
        "events": (SpanEvent(name="exception", attributes={"x": HOSTILE}),),
    }
    spans = [
        Span(trace="7" * 32, id=ids[0], name=HOSTILE, start=start, end=start + 9_000_000, attributes={"a": HOSTILE}),
        Span(trace="7" * 32, id=ids[1], parent=ids[0], name="look up", start=start + 2_000_000, end=start + 5_000_000),
        Span(trace="7" * 32, id=ids[2], parent=ids[1], name="ask", start=start + 3_000_000, **failed),
    ]
    workspace.traces.add_spans(0, spans)


def opened(folder: Path) -> tuple[Workspace, ManualClock]:
    """A new workspace whose clock stands at the beginning of the sample."""
    clock = ManualClock(START)
    settings = load_settings(folder, environment={})
    workspace = Workspace(settings, clock=clock)
    workspace.deployments._target = lambda _: Target()  # type: ignore[method-assign,return-value]
    return workspace, clock


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    space, clock = opened(tmp_path_factory.mktemp("sample"))
    with space:
        fill(space, clock)
        attach(space)
        yield space


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> Client:
    return Client(create_app(workspace, pages=routes(workspace)))


@pytest.fixture
def young(tmp_path: Path) -> Iterator[Client]:
    """A workspace in which things are declared and nothing has happened yet."""
    shutil.copytree(PROJECTS / "tips", tmp_path, dirs_exist_ok=True)
    with Workspace(load_settings(tmp_path)) as space:
        space.projects.apply((tmp_path / "mainspring.toml").read_text(), str(tmp_path))
        space.usecases.create(draft(UseCase, name="without-kpi"))
        yield Client(create_app(space, pages=routes(space)))


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Client]:
    space, _ = opened(tmp_path)
    with space:
        yield Client(create_app(space, pages=routes(space)))


ADDRESSES = (
    "/",
    "/u",
    "/u/churn",
    "/data",
    "/data/customers",
    "/data/customers@3",
    "/data/customers@7",
    "/runs",
    "/runs?q=metrics.roc_auc%20%3E%200.8&sort=-metrics.roc_auc&columns=metrics.roc_auc,params.leaves",
    "/runs?group=params.learning_rate",
    "/runs?group=all",
    "/runs/compare?run=calm-otter-1,calm-otter-2,quick-wren-6&smooth=0.9&logy=1&all=1",
    "/runs/compare?q=metrics.roc_auc%20%3E%200.8",
    "/experiments",
    "/logged",
    "/traces",
    "/traces?q=status%20%3D%20%27ok%27",
    "/traces/tr-sample",
    f"/traces/tr-{'7' * 32}",
    "/runs/calm-otter-2/files?path=tables/rows.parquet",
    "/runs/calm-otter-2/files?path=plots/dot.png",
    "/runs/calm-otter-2/files?path=notes/evil.html",
    "/runs/calm-otter-2",
    "/runs/shy-crane-5",
    "/runs/quick-wren-6",
    "/models",
    "/models/churn",
    "/models/churn@3",
    "/models/churn@5",
    "/approvals",
    "/approvals/churn@3",
    "/approvals/churn@5",
    "/deployments",
    "/deployments/churn-eu",
    "/deployments/churn-eu/rollout",
    "/deployments/churn-eu/try",
    "/rules",
    "/rules/new-data",
    "/rules/worse?since=365d",
    "/channels",
    "/monitoring",
    "/monitoring/churn-eu",
    "/simulations",
    "/simulations/calm-otter-2",
    "/simulations/calm-otter-2?days=14&part=held_out&policy=calendar&p0=careful&p1=calendar",
    "/events",
    "/events?verify=1",
    "/search?q=churn",
    "/pattern",
)


@pytest.fixture(params=ADDRESSES)
def address(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def addresses() -> tuple[str, ...]:
    return ADDRESSES


@pytest.fixture
def many_runs(tmp_path: Path) -> Iterator[Client]:
    """Ten thousand runs."""
    space, clock = opened(tmp_path)
    with space:
        sample = Sample(space, clock)
        sample.declare()
        with space.store.transaction() as tx:
            for index in range(10_000):
                seed = hashlib.sha256(str(index).encode()).hexdigest()[:8]
                moment = START + timedelta(minutes=index)
                tx.insert(
                    Run(
                        id=new_id(),
                        created=moment,
                        name=f"run-{index}-{seed}",
                        number=index + 1,
                        use_case="churn",
                        pipeline="train",
                        cause=f"none:{index}",
                        status="failed" if index % 50 == 0 else "ok",
                        metrics={"roc_auc": int(seed, 16) / 2**32, "rows": float(index)},
                        environment={"python": "3.12.4"},
                        ended=moment + timedelta(seconds=90),
                    )
                )
            numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000) "
            for key in ("roc_auc", "rows"):
                tx.driver.run(
                    "INSERT INTO run_metric (run, key, value, step, time, experiment, started) "
                    f"{numbers} SELECT n, '{key}', (n * 7919 % 10007) / 10007.0, 0, 0, 0, n FROM n"
                )
                tx.driver.run(
                    "INSERT INTO metric (run, key, time, step, value, nan) "
                    f"{numbers} SELECT n, '{key}', 0, 0, (n * 7919 % 10007) / 10007.0, 0 FROM n"
                )
        space.store.analyze()
        yield Client(create_app(space, pages=routes(space)))
