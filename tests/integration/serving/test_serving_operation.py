"""What whoever operates a server sets: certificate, callers, access log, traces, limits."""

from __future__ import annotations

import http.client
import http.server
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from tritonclient.utils import InferenceServerException

from mainspring.adapters.targets.process import ProcessTarget
from mainspring.errors import InvalidInput
from mainspring.ports.target import Route, TargetSpec
from mainspring.serving.config import load_config
from mainspring.serving.log import log_files, read_frames, to_frame
from mainspring.testing.models import RECORD

Serve = Callable[..., Any]
BODY = json.dumps({"records": [RECORD]})
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def live(models: dict[str, str]) -> list[dict[str, Any]]:
    return [{"version": "flights@1", "path": models["live"]}]


def secure(url: str, cert: str, asks: int = 1) -> list[tuple[int, Any]]:
    place = urlsplit(url)
    assert place.scheme == "https"
    context = ssl.create_default_context(cafile=cert)
    connection = http.client.HTTPSConnection("localhost", place.port, context=context, timeout=10)
    found = []
    for _ in range(asks):
        connection.request("POST", "/predict", BODY)
        response = connection.getresponse()
        found.append((response.status, json.loads(response.read())))
    connection.close()
    return found


def test_tls(serve: Serve, models: dict[str, str], certificate: tuple[str, str]) -> None:
    cert, key = certificate
    server = serve(routes=live(models), tls_cert=cert, tls_key=key).ready()
    assert [status for status, _ in secure(server.url, cert, asks=3)] == [200] * 3
    place = urlsplit(server.url)
    plain = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    plain.request("GET", "/v2")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()
    assert server.end() == 0


def test_grpc_speaks_tls_with_the_same_certificate(
    serve: Serve, models: dict[str, str], certificate: tuple[str, str]
) -> None:
    client = pytest.importorskip("tritonclient.grpc")
    cert, key = certificate
    server = serve(routes=live(models), tls_cert=cert, tls_key=key, grpc_port=0).ready()
    while "answers gRPC at port" not in server.said():
        time.sleep(0.01)
    place = "localhost:" + server.said().partition("answers gRPC at port ")[2].split()[0]
    with client.InferenceServerClient(place, ssl=True, root_certificates=cert) as connection:
        assert connection.is_model_ready("flights")
    with client.InferenceServerClient(place) as connection, pytest.raises(InferenceServerException):
        connection.is_model_ready("flights", client_timeout=5)
    assert server.end() == 0


def test_deployment_with_certificate_is_controlled(
    tmp_path: Path, models: dict[str, str], certificate: tuple[str, str]
) -> None:
    target = ProcessTarget(tmp_path)
    route = Route(version="flights@1", path=models["live"])
    spec = TargetSpec(name="flights", revision=1, routes=(route,), tls_cert=certificate[0], tls_key=certificate[1])
    try:
        assert target.apply(spec).state == "running"
        changed = target.apply(msgspec.structs.replace(spec, revision=2))
        assert (changed.state, changed.revision) == ("running", 2)
        assert secure(changed.url, certificate[0])[0][0] == 200
    finally:
        target.remove("flights")


@pytest.mark.parametrize(
    "facts",
    [
        {"tls_cert": "/nowhere"},
        {"tls_key": "/nowhere"},
        {"workers": 65},
        {"body_limit": 0},
        {"read_seconds": -1},
        {"tokens": {"ann": ""}},
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, facts: dict[str, Any]) -> None:
    path = tmp_path / "config.json"
    route = {"version": "f@1", "path": "x"}
    path.write_text(
        json.dumps({"name": "f", "revision": 1, "state_dir": "s", "log_dir": "l", "routes": [route], **facts})
    )
    with pytest.raises(InvalidInput) as caught:
        load_config(path)
    assert caught.value.hint


def test_callers_have_names(serve: Serve, models: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    tokens = {"billing": "b-secret", "crm": "c-secret"}
    server = serve(routes=live(models), tokens=tokens, host="0.0.0.0", access_log=str(log)).ready()
    for token, status in (("b-secret", 200), ("c-secret", 200), ("other", 401)):
        headers = {"Authorization": f"Bearer {token}", "traceparent": TRACE}
        assert server.ask("/predict?x=1", {"records": [RECORD]}, headers)[0] == status
    assert server.ask("/v2/health/live")[0] == 200
    assert server.end() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["caller"], line["path"], line["status"]) for line in lines] == [
        ("billing", "/predict", 200), ("crm", "/predict", 200), ("", "/predict", 401), ("", "/v2/health/live", 200),
    ]  # fmt: skip
    assert {line["trace"] for line in lines[:3]} == {TRACE.split("-")[1]}
    assert all(line["us"] > 0 and line["bytes"] > 0 and abs(line["time"] - time.time()) < 60 for line in lines)
    (path,) = log_files(server.folder / "log")
    assert to_frame(read_frames(path)[0])["caller"].to_list() == ["billing", "crm"]
    assert "secret" not in log.read_text() + server.said()


def test_spans_are_exported(serve: Serve, models: dict[str, str], collector: tuple[str, list[bytes]]) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    endpoint, got = collector
    server = serve(routes=live(models), otlp_endpoint=endpoint).ready()
    assert server.ask("/predict", {"records": [RECORD]}, {"traceparent": TRACE})[0] == 200
    assert server.ask("/nothing")[0] == 404
    assert server.end() == 0
    spans = [
        span
        for body in got
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert [span.name for span in spans] == ["POST /predict", "GET /nothing"]
    assert spans[0].trace_id.hex() == TRACE.split("-")[1]
    assert spans[0].parent_span_id.hex() == TRACE.split("-")[2]
    assert 0 < spans[0].end_time_unix_nano - spans[0].start_time_unix_nano < 60e9


def test_parent_of_several_workers_stays_small() -> None:
    code = "import sys, mainspring.serving.process; sys.exit('numpy' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
