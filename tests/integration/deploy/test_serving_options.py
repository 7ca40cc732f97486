"""Certificate, token, traces, trusted types and durability of a deployment, set by ``[deployment.serving]`` alone."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mainspring.ports.target import TargetStatus
from mainspring.testing.targets import SESAME

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ORIGINAL = """    import operator

    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    turned = FunctionTransformer(operator.neg, validate=True)
    fitted = make_pipeline(turned, LogisticRegression()).fit(rows.select("x"), rows["label"])
    packed = sign(weight)
    files = {"model.skops": skops.io.dumps(fitted), "signature.json": packed.files["signature.json"]}
    return type(packed)(flavor="sklearn", files=files, signature=packed.signature, twin_difference=None)"""


@pytest.fixture(scope="module")
def secured(
    shared_mill: Any, certificate: tuple[str, str], collector: tuple[str, list[bytes]], tmp_path_factory: Any
) -> Iterator[Any]:
    """The project, served as its file declares."""
    mill, (cert, key) = shared_mill, certificate
    mill.register()
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(SESAME + "\n")
    serving = {
        "tls_cert": cert, "tls_key": key, "token_file": str(token), "otlp_endpoint": collector[0],
        "trusted_types": ["_operator.neg"],
    }  # fmt: skip
    told = "".join(f"{name} = {json.dumps(value)}\n" for name, value in serving.items())
    head = '[deployment]\nname = "mill"\n[deployment.strategy]\n'
    mill.apply(
        head, f'[deployment]\nname = "mill"\ndurable = true\n[deployment.serving]\n{told}[deployment.strategy]\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        mill.workspace.controller.tick()  # trains, approves, releases, and starts the process
        yield mill


def status(mill: Any) -> TargetStatus:
    found: TargetStatus = mill.workspace.deployments.status("mill")
    return found


def ask(mill: Any, cert: str, id: str, token: str = SESAME) -> int:
    place = urlsplit(status(mill).url)
    assert place.scheme == "https"
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    connection = http.client.HTTPSConnection(place.hostname or "", place.port, timeout=10, context=context)
    headers = {"traceparent": TRACE} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection.request("POST", "/predict", json.dumps({"records": [{"x": 5.0}], "ids": [id]}), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_only_who_has_the_token_is_answered_and_only_encrypted(secured: Any, certificate: tuple[str, str]) -> None:
    assert ask(secured, certificate[0], "open", token="") == 401
    assert ask(secured, certificate[0], "guessed", token="guess") == 401
    assert ask(secured, certificate[0], "known") == 200
    place = urlsplit(status(secured).url)
    plain = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    plain.request("GET", "/v2")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()
    predictions = secured.workspace.predictions
    (own,) = predictions.predict("mill", [{"x": 5.0}])["predictions"]
    assert (own["version"], own["label"]) == ("mill@1", True)
    assert predictions.traffic("mill").requests >= 3


def test_spans_reach_the_collector(
    secured: Any, certificate: tuple[str, str], collector: tuple[str, list[bytes]]
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    assert ask(secured, certificate[0], "traced") == 200
    deadline, spans = time.monotonic() + 20, []
    while not spans:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        requests = [ExportTraceServiceRequest.FromString(body) for body in collector[1].copy()]
        resources = [resource for request in requests for resource in request.resource_spans]
        spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in spans} >= {TRACE.split("-")[1]}
    assert {"POST /predict"} <= {span.name for span in spans}
    names = [item.value.string_value for item in resources[0].resource.attributes if item.key == "service.name"]
    assert names == ["mill"]


def test_what_was_answered_is_on_record_however_the_process_ends(secured: Any, certificate: tuple[str, str]) -> None:
    before = status(secured)
    assert ask(secured, certificate[0], "last words") == 200
    folder = Path(secured.workspace.deployments.log_folder("mill"))
    (pid,) = {int(path.name.split("-")[1]) for path in folder.glob("*.frames")}
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while status(secured).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    secured.workspace.controller.tick()
    after = status(secured)
    assert (after.state, after.url) == ("running", before.url)
    assert ask(secured, certificate[0], "again") == 200
    secured.workspace.controller.tick()
    year = timedelta(days=365 * 50)
    kept = secured.workspace.predictions.rows("mill", secured.clock.now() - year, secured.clock.now() + year)
    assert {"last words", "again"} <= set(kept["id"])


def test_an_original_of_trusted_types_takes_over(secured: Any) -> None:
    deployments = secured.workspace.deployments
    secured.edit("pipeline.py", "    return sign(weight)", ORIGINAL)
    version = secured.candidate(weight=2.0)
    secured.workspace.models.set_status(version.address, "approved")
    deployments.release("mill", version.address, skip_checks="they have tests of their own")
    deployments.promote("mill", version.address)
    deployments.reconcile("mill")
    found = status(secured)
    assert (found.state, [route.version for route in found.routes]) == ("running", [version.address])
    (told,) = secured.workspace.predictions.predict("mill", [{"x": 5.0}])["predictions"]
    assert (told["version"], told["label"]) == (version.address, True)
    scorings, models = secured.workspace.scorings, secured.workspace.models
    job = scorings.execute(scorings.start(version.address, "readings", "scored").run)
    assert job.result == "scored@1", "whoever scores elsewhere trusts what the deployment trusts"
    (score,) = models.load(version.address, secured.folder / "unpacked").score({"x": [5.0]}, 1)
    assert score == told["score"]
