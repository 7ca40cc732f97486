"""What ``[deployment.serving]`` declares is what runs."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.entity import change, draft
from mainspring.deploy.model import Deployment
from mainspring.deploy.serving import ServingPlan
from mainspring.errors import InvalidInput, Refused
from mainspring.testing.models import write_product
from mainspring.testing.targets import SESAME, ask

BODY = {"records": [{"x": 5.0}]}


def test_declared_serving_reaches_the_processes(mill: Any, tmp_path: Path) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    version = mill.approved()
    deployments.release("mill", version.address)
    assert deployments.reconcile("mill").state == "running"
    write_product(tmp_path / "shelf" / "sums")
    (tmp_path / "token").write_text(SESAME + "\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        grpc_port = free.getsockname()[1]
    plan = ServingPlan(
        workers=2,
        token_file=str(tmp_path / "token"),
        grpc_port=grpc_port,
        models_dir=str(tmp_path / "shelf"),
        memory_budget_mb=512,
        access_log=str(tmp_path / "access.log"),
    )
    deployments.update("mill", change(Deployment, serving=plan))
    status = deployments.reconcile("mill")
    assert (status.state, status.revision, deployments.diff("mill")) == ("running", 2, [])

    assert ask(status.url, "/predict", BODY)[0] == 401
    assert len(mill.workspace.predictions.predict("mill", [{"x": 5.0}])["predictions"]) == 1
    admitted = {"Authorization": f"Bearer {SESAME}"}
    assert len(set(ask(status.url, "/-/status", None, admitted)[1]["workers"])) == 2
    sums = {"inputs": [{"name": f"c{place}", "shape": [1], "datatype": "FP64", "data": [2]} for place in range(3)]}
    assert ask(status.url, "/v2/models/sums/infer", sums, admitted)[1]["outputs"][0]["data"] == [6.0]
    with socket.create_connection(("127.0.0.1", grpc_port), timeout=5):
        pass
    deployments.stop("mill")  # what is logged is written by then
    logged = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert {line["path"] for line in logged} >= {"/predict", "/v2/models/sums/infer"}


def test_only_approved_models_answer_beside_the_own(mill: Any) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    candidate = mill.candidate()
    with pytest.raises(InvalidInput, match="own name"):
        deployments.update("mill", change(Deployment, serving=ServingPlan(models=(candidate.address,))))
    second = draft(Deployment, name="second", model="mill", serving=ServingPlan(models=(candidate.address,)))
    with pytest.raises(Refused, match="not approved"):
        deployments.create(second)
    mill.workspace.models.set_status(candidate.address, "approved")
    assert deployments.create(second).serving.models == (candidate.address,)
    deployments.release("second", candidate.address)
    url = deployments.reconcile("second").url
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [5.0]}
    scores = [ask(url, f"/v2/models/{name}/infer", {"inputs": [tensor]}) for name in ("mill", "second")]
    assert [code for code, _ in scores] == [200, 200]
    assert scores[0][1]["outputs"][0]["data"] == scores[1][1]["outputs"][0]["data"]


def test_token_that_cannot_be_read_is_told(mill: Any, tmp_path: Path) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved().address)
    deployments.update("mill", change(Deployment, serving=ServingPlan(token_file=str(tmp_path / "none"))))
    with pytest.raises(InvalidInput, match="token of mill"):
        deployments.reconcile("mill")


@pytest.mark.parametrize(
    "facts",
    [
        {"workers": 0},
        {"grpc_port": 0, "workers": 2},
        {"port": 70_000},
        {"access_log": "here.log"},
        {"tls_key": "/key.pem"},
        {"models": ("fares@1", "fares@2")},
        {"models": ("fares",)},
        {"explain_sample": 1.5},
        {"memory_budget_mb": 0},
    ],
)
def test_impossible_serving_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`"):
        ServingPlan(**facts)
