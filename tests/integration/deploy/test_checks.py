"""What a version must pass before anything is routed to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from mainspring.core.entity import change
from mainspring.core.signature import Field, Signature
from mainspring.deploy.checks import failure, try_out
from mainspring.deploy.model import Checks, Deployment, Strategy
from mainspring.errors import Conflict, InvalidInput, Refused
from mainspring.registry.packaging import package
from mainspring.testing.targets import ask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed scikit-learn model with its recorded rows."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(1)
    rows = pl.DataFrame({"a": draw.normal(size=200), "b": draw.normal(size=200)})
    scaled = ColumnTransformer([("all", StandardScaler(), ["a", "b"])])
    model = make_pipeline(scaled, LogisticRegression()).fit(rows, draw.random(200) < 0.5)
    folder = tmp_path_factory.mktemp("model")
    for path, content in package(model, rows, nullable=()).files.items():
        (folder / path).write_bytes(content)
    return folder


def tried(folder: Path, live: Signature | None = None, **limits: Any) -> dict[str, Any]:
    return {check.name: check for check in try_out(folder, Checks(**limits), live)}


def test_a_sound_model_passes_every_check(folder: Path) -> None:
    live = Signature.from_json((folder / "signature.json").read_bytes())
    found = tried(folder, live, memory_limit_mb=500, latency_p99_ms=1000, batch=16)
    assert list(found) == ["loads", "memory", "latency", "predictions", "signature"]
    assert all(check.ok for check in found.values())
    assert found["predictions"].figure < 1e-3
    assert "20 recorded rows" in found["predictions"].detail
    assert found["latency"].limit == 1000


@pytest.mark.parametrize(
    ("limits", "name", "told"),
    [
        ({"memory_limit_mb": 1e-9}, "memory", "MB, allowed are 1e-09"),
        ({"latency_p99_ms": 1e-9}, "latency", "p99 of 200 calls of 1 row is"),
        ({"seconds": 0.01}, "loads", "not done within 0.01 seconds"),
    ],
)
def test_limits(folder: Path, limits: dict[str, float], name: str, told: str) -> None:
    check = tried(folder, **limits)[name]
    assert not check.ok
    assert told in check.detail


def test_the_memory_is_not_that_of_whoever_asks(folder: Path) -> None:
    ours = bytearray(300_000_000)
    ours[::4096] = b"x" * len(ours[::4096])
    assert tried(folder)["memory"].figure < 200
    assert ours[0]


def copied(folder: Path, tmp_path: Path, **files: bytes) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(files.get(path.stem, path.read_bytes()))
    return tmp_path


def test_other_scores_than_those_recorded(folder: Path, tmp_path: Path) -> None:
    example = msgspec.json.decode((folder / "example.json").read_bytes())
    example["scores"][3] += 0.01
    check = tried(copied(folder, tmp_path, example=msgspec.json.encode(example)))["predictions"]
    assert (check.ok, round(check.figure, 3)) == (False, 0.01)


def test_a_model_that_does_not_load(folder: Path, tmp_path: Path) -> None:
    found = tried(copied(folder, tmp_path, model=b"nonsense"))
    assert list(found) == ["loads"]
    assert "not loadable" in found["loads"].detail


def test_a_model_that_kills_its_process(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nkill -9 $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    assert "ended by signal 9" in failure(try_out(folder, Checks(), None))


def test_callers_that_would_break(folder: Path) -> None:
    live = Signature(inputs=(Field(name="a", type="float"), Field(name="c", type="float")))
    check = tried(folder, live)["signature"]
    assert not check.ok
    assert (
        check.detail == "callers do not send `b`, which it cannot do without; callers send `c`, which it does not know"
    )


def test_a_failed_check_refuses_the_release_and_is_on_record(mill: Any) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved().address)
    deployments.update("mill", change(Deployment, checks=Checks(latency_p99_ms=1e-9)))
    version = mill.approved(weight=2.0).address
    with pytest.raises(Refused, match="fails a check: latency: p99 of 200 calls") as refused:
        deployments.release("mill", version)
    assert "--skip-checks REASON" in refused.value.hint
    release = deployments.releases("mill")[0]
    assert (release.status, release.version, [item.name for item in release.checks if not item.ok]) == (
        "refused", version, ["latency"],
    )  # fmt: skip
    assert deployments.show("mill").canary == ""
    assert deployments.check("mill", version)[0].name == "loads"

    with pytest.raises(InvalidInput, match="needs a reason"):
        deployments.release("mill", version, skip_checks=" ")
    deployments.release("mill", version, "urgent", skip_checks="the limit is a typing mistake")
    release = deployments.releases("mill")[0]
    assert [(item.name, item.detail) for item in release.checks] == [("skipped", "the limit is a typing mistake")]
    told = [item.reason for item in deployments.history("mill") if item.what == "started"]
    assert told[-1] == "urgent; checks skipped: the limit is a typing mistake"


def test_the_controller_tries_a_version_once_and_goes_on(mill: Any) -> None:
    mill.register()
    mill.workspace.deployments.update("mill", change(Deployment, checks=Checks(latency_p99_ms=1e-9)))
    for _ in range(2):
        mill.workspace.controller.tick()
    assert [item.status for item in mill.workspace.deployments.releases("mill")] == ["refused"]
    assert mill.events("automation.action") == ["automation.action.failed"]


def test_the_way_out_of_a_live_version_that_declares_nulls_it_cannot_read(mill: Any) -> None:
    """Its successors, which say what is true, are narrower: none can be beside it."""
    deployments, controller = mill.workspace.deployments, mill.workspace.controller
    mill.register()
    controller.tick()
    assert deployments.show("mill").live == "mill@1"
    mill.edit("parts.py", "nullable=True", "nullable=False")
    mill.register(mill.readings(seed=5))
    for _ in range(3):
        controller.tick()
    refused = deployments.releases("mill")
    assert [(item.version, item.status) for item in refused] == [("mill@2", "refused"), ("mill@1", "live")]
    assert "callers may send null in `x`" in refused[0].reason
    hints = [event.data["hint"] for event in mill.workspace.store.events(prefix="automation.action.failed")]
    assert [hint.partition(": ")[2] for hint in hints] == [
        "mainspring deploy mill@2 --deployment mill --at-once --skip-checks REASON"
    ]

    deployments.release("mill", "mill@2", skip_checks="nobody sends null")  # beside the live one it cannot be
    deployments.reconcile("mill")
    back = deployments.releases("mill")[0]
    assert (back.status, deployments.show("mill").canary) == ("rolled_back", "")
    assert "cannot read null in `x`" in back.reason
    deployments.release("mill", "mill@2", skip_checks="nobody sends null", at_once=True)
    url = deployments.reconcile("mill").url
    assert ask(url, "/predict", {"records": [{"x": 1.0}]})[1]["predictions"][0]["version"] == "mill@2"
    assert ask(url, "/predict", {"records": [{"x": None}]})[0] == 422

    mill.register(mill.readings(seed=6))
    controller.tick()
    assert (deployments.show("mill").live, deployments.show("mill").canary) == ("mill@2", "mill@3")


def test_a_version_may_be_let_in_at_once_whatever_the_strategy(mill: Any) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved().address)
    second, third = mill.approved(weight=2.0).address, mill.approved(weight=3.0).address
    assert deployments.release("mill", second).canary == second
    with pytest.raises(Conflict, match="mill@2 is being rolled out"):
        deployments.release("mill", third, at_once=True)
    done = deployments.release("mill", second, at_once=True)
    assert (done.live, done.canary) == (second, "")
    deployments.update("mill", change(Deployment, strategy=Strategy(kind="ab", shares=(30.0, 30.0))))
    assert deployments.release("mill", third, at_once=True).live == third
    deployments.update("mill", change(Deployment, strategy=Strategy(kind="blue-green", keep_minutes=60)))
    done = deployments.release("mill", second, at_once=True)
    assert (done.live, done.canary, done.kept) == (second, "", "")
    assert deployments.rollback("mill").live == third
