"""Models that other systems serve: their counts and predictions are watched as everything else is."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest

from mainspring.core.entity import change, draft
from mainspring.deploy.model import Environment
from mainspring.errors import InvalidInput
from mainspring.measures.bins import Profile
from mainspring.measures.profile import count
from mainspring.measures.window import Layout
from mainspring.monitoring.captured import read
from mainspring.monitoring.model import Monitor
from mainspring.server.app import create_app


@pytest.fixture
def external(mill: Any) -> Any:
    """A deployment whose model another system serves, with a version released to it and a monitor of its inputs."""
    space = mill.workspace
    space.deployments.set_environment(draft(Environment, name="local", target="external"))
    mill.register()
    space.controller.tick()
    given = {"name": "inputs", "deployment": "mill", "kind": "drift", "measure": "psi", "max": 0.25, "min_rows": 30}
    space.monitors.create(draft(Monitor, **given))
    for name in ("auc", "gain"):
        space.monitors.update(name, change(Monitor, silent=0))
    return mill


def counted(mill: Any, shift: float) -> dict[str, Profile]:
    bins = mill.workspace.reports.bins("mill", "mill@1")
    frame = mill.readings(600, 3).select(x=pl.col("x") + shift)
    layout = Layout({"x": bins["x"]})
    return count(frame, layout).profiles(layout)


def test_nothing_is_started_for_an_external_deployment(external: Any) -> None:
    status = external.workspace.deployments.status("mill")
    assert (status.state, status.url, status.detail) == ("running", "", "served elsewhere")
    assert external.workspace.deployments.show("mill").live == "mill@1"


def test_counts_alone_raise_an_incident(external: Any) -> None:
    space, start = external.workspace, external.clock.now()
    for shift, hours in ((0.0, 1), (3.0, 24 * 7 + 1)):
        for source in ("a", "b"):
            begin = start + timedelta(hours=hours)
            rows = space.reports.counts(
                "mill", "mill@1", begin, begin + timedelta(hours=1), counted(external, shift), source
            )
            assert rows == 600
    again = start + timedelta(hours=1)
    space.reports.counts("mill", "mill@1", again, again + timedelta(hours=1), counted(external, 0.0), "a")
    external.clock.advance(timedelta(days=14))
    space.controller.tick()
    last, first = space.monitors.signals("inputs")
    assert (first.status, first.rows, first.version) == ("ok", 1200, "mill@1")
    assert (last.status, last.rows) == ("breach", 1200)
    (worst, *_) = space.monitors.furthest(start=first.start, end=last.end)
    assert (worst.deployment, worst.column, worst.rows) == ("mill", "x", 2400)
    assert space.monitors.furthest() == []  # nothing was asked yesterday
    (incident,) = [item for item in space.incidents.find() if item.cause_group == "drift"]
    assert incident.firing == ["inputs"]
    assert space.incidents.columns(incident.name)[0].column == "x"
    external.clock.advance(timedelta(days=8))
    space.controller.tick()  # hours become days
    assert [item.value for item in space.monitors.signals("inputs")][-2:] == [last.value, first.value]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"version": "other@1"}, "no version of `mill`"),
        ({"columns": {"y": Profile(1, 0, (1,))}}, "no column `y`"),
        ({"columns": {"x": Profile(1, 0, (1,))}}, "bins, not 1"),
        ({"hours": 0}, "begins before it ends"),
    ],
)
def test_counts_that_cannot_be(external: Any, facts: dict[str, Any], message: str) -> None:
    start = external.clock.now()
    columns = facts.get("columns") or counted(external, 0.0)
    version = facts.get("version", "mill@1")
    end = start + timedelta(hours=facts.get("hours", 1))
    with pytest.raises(InvalidInput, match=message):
        external.workspace.reports.counts("mill", version, start, end, columns)
    wrong = {"x": Profile(9, 0, (0,) * len(counted(external, 0.0)["x"].counts))}
    with pytest.raises(InvalidInput, match="do not sum"):
        external.workspace.reports.counts("mill", "mill@1", start, start + timedelta(hours=1), wrong)


def test_cloudevents_report_predictions_and_counts(external: Any, serve: Callable[..., str]) -> None:
    url = serve(create_app(external.workspace))

    def post(content: Any, kind: str) -> tuple[int, Any]:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port)
        connection.request("POST", "/api/reports", body, {"content-type": kind})
        answer = connection.getresponse()
        told = answer.status, json.loads(answer.read())
        connection.close()
        return told

    moment = external.clock.now().isoformat()
    rows = [{"id": f"p{n}", "time": moment, "version": "mill@1", "score": 0.5, "inputs": {"x": 0.1}} for n in range(3)]
    event = {
        "specversion": "1.0", "id": "1", "source": "/elsewhere", "type": "io.mainspring.report.predictions",
        "subject": "mill", "data": {"predictions": rows}, "extension": "is fine",
    }  # fmt: skip
    for _ in range(2):  # sent again, it changes nothing
        assert post(event, "application/cloudevents+json") == (200, {"rows": [3]})
    assert len(external.workspace.predictions.find("mill")) == 3
    batch = [event, {**event, "id": "2", "type": "io.mainspring.report.nonsense"}]
    status, refused = post(batch, "application/cloudevents-batch+json")
    assert (status, refused["error"]["code"]) == (422, "invalid_input")
    assert post(b"{", "application/cloudevents+json")[0] == 422


TIME = "2026-01-05T12:00:00Z"


def kserve(id: str, side: str, data: Any) -> bytes:
    event = {
        "specversion": "1.0",
        "id": id,
        "type": f"org.kubeflow.serving.inference.{side}",
        "time": TIME,
        "data": data,
    }
    return json.dumps(event).encode()


def capture(id: str, asked: Any, answered: Any, form: str) -> bytes:
    def side(data: Any) -> dict[str, Any]:
        kind = {"CSV": "text/csv", "JSON": "application/json", "BASE64": "application/json"}[form]
        text = data if form == "CSV" else json.dumps(data)
        text = base64.b64encode(text.encode()).decode() if form == "BASE64" else text
        return {"observedContentType": kind, "encoding": form, "data": text}

    data = {"endpointInput": side(asked), "endpointOutput": side(answered)}
    return json.dumps({"captureData": data, "eventMetadata": {"eventId": id, "inferenceTime": TIME}}).encode()


V2 = {
    "inputs": [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]},
        {"name": "s", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
    ]
}
ROWS = [{"x": 1.0, "s": "a"}, {"x": 2.0, "s": "b"}]


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("kserve", [kserve("e", "response", {"predictions": [0.1, 0.9]}), kserve("e", "request", {"instances": ROWS})]),
        ("kserve", [kserve("e", "request", {"instances": [[1.0, "a"], [2.0, "b"]]}),
                    kserve("e", "response", {"predictions": [[0.9, 0.1], [0.1, 0.9]]})]),
        ("kserve", [kserve("e", "request", V2),
                    kserve("e", "response", {"outputs": [{"name": "p", "shape": [2], "data": [0.1, 0.9]}]})]),
        ("sagemaker", [capture("e", "1.0,a\n2.0,b\n", "0.1\n0.9\n", "CSV")]),
        ("sagemaker", [capture("e", {"instances": ROWS}, {"predictions": [{"score": 0.1}, {"score": 0.9}]}, "JSON")]),
        ("sagemaker", [capture("e", {"instances": ROWS}, {"predictions": [0.1, 0.9]}, "BASE64")]),
    ],
)  # fmt: skip
def test_logs_of_other_servers_are_read(form: Any, lines: list[bytes]) -> None:
    found = list(read(lines, form, "mill@1", ["x", "s"]))
    assert [item.inputs for item in found] == ROWS
    assert [item.score for item in found] == [0.1, 0.9]
    assert len({item.id for item in found}) == 2
    assert found == list(read(lines, form, "mill@1", ["x", "s"]))


@pytest.mark.parametrize("form", ["kserve", pytest.param("sagemaker", marks=pytest.mark.storm)])
def test_files_of_other_servers_are_watched_and_count_once(external: Any, tmp_path: Path, form: Any) -> None:
    """What the command reads raises an incident as if we had answered it ourselves."""
    space, day = external.workspace, timedelta(hours=12)
    time = (external.clock.now() + day).isoformat()
    lines: list[bytes] = []
    for number, row in enumerate(external.readings(400, 3).iter_rows(named=True)):
        x, score = row["x"] + 3, 0.5
        if form == "sagemaker":
            lines.append(capture(f"e{number}", f"{x}\n", f"{score}\n", "CSV"))
        else:
            lines.append(kserve(f"e{number}", "request", {"instances": [{"x": x}]}))
            lines.append(kserve(f"e{number}", "response", {"predictions": [score]}))
    path = tmp_path / "capture.jsonl"
    path.write_bytes(b"\n".join(lines).replace(TIME.encode(), time.encode()))
    command = [
        sys.executable, "-m", "mainspring.cli.main", "report", str(path), "--format", form, "--deployment", "mill",
        "--version", "mill@1", "--project", str(external.folder), "--json",
    ]  # fmt: skip
    for _ in range(2):
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert json.loads(told) == {"files": 1, "rows": 400}
    external.clock.advance(timedelta(days=7))
    space.controller.tick()
    (signal,) = space.monitors.signals("inputs")
    assert (signal.rows, signal.status, signal.version) == (400, "breach", "mill@1")
    assert [item.cause_group for item in space.incidents.find()] == ["drift"]


@pytest.mark.parametrize(
    ("form", "line", "message"),
    [
        ("kserve", b"nonsense", "line 1 is no JSON object"),
        ("kserve", b"{}", "no event of KServe"),
        ("sagemaker", b"{}", "lacks 'captureData'"),
        ("sagemaker", capture("e", "1.0\n", "0.1\n0.2\n", "CSV"), "rows cannot be read"),
        ("sagemaker", capture("e", "1.0,a\n", "0.1\n0.2\n", "CSV"), "1 rows were asked for and 2 answered"),
    ],
)
def test_lines_that_are_none(form: Any, line: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        list(read([line], form, "mill@1", ["x", "s"]))
