"""Each strategy through the controller and the real serving process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.actor import acting_as
from mainspring.core.entity import change
from mainspring.deploy.model import Deployment, Guard, Strategy
from mainspring.errors import Conflict, InvalidInput
from mainspring.serving.model import Outcome
from mainspring.testing.targets import ask

HOUR = timedelta(hours=1)


def released(mill: Any, strategy: Strategy, weight: float = 2.0) -> Any:
    """The first version is live and runs, a second one is released by the strategy and runs beside it."""
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved().address)
    deployments.update("mill", change(Deployment, strategy=strategy))
    deployments.release("mill", mill.approved(weight=weight).address, "the next one")
    return deployments.reconcile("mill")


def roles(mill: Any) -> dict[str, str]:
    """Version -> role, as the process tells."""
    return {route.version: route.role for route in mill.workspace.deployments.status("mill").routes}


def state(mill: Any) -> tuple[str, str, str]:
    deployment = mill.workspace.deployments.show("mill")
    return deployment.live, deployment.canary, deployment.kept


def asked(mill: Any, count: int, first: int = 0, **body: Any) -> list[dict[str, Any]]:
    """Answers to single rows; the ids are numbers."""
    ids = [f"id-{place}" for place in range(first, first + count)]
    frame = mill.readings(count, 50 + first)
    times = [mill.clock.now().isoformat()] * count
    records = [{"x": x, **{name: values[row] for name, values in body.items()}} for row, x in enumerate(frame["x"])]
    answer = mill.workspace.predictions.ask("mill", {"records": records, "ids": ids, "times": times})
    labels = zip(ids, frame["label"], strict=True)
    mill.workspace.predictions.record_outcomes("mill", [Outcome(id=id, value=float(label)) for id, label in labels])
    return list(answer["predictions"])


def test_blue_green_switches_at_once_and_returns_at_once(mill: Any) -> None:
    deployments = mill.workspace.deployments
    status = released(mill, Strategy(kind="blue-green", keep_minutes=30))
    assert state(mill) == ("mill@2", "", "mill@1")
    assert roles(mill) == {"mill@2": "live", "mill@1": "standby"}
    routed = [event.data for event in mill.workspace.store.events(prefix="deploy.deployment.routed")]
    assert [(item["live"], item["canary"]) for item in routed][-2:] == [("mill@1", "mill@2"), ("mill@2", "")]
    assert {item["version"] for item in asked(mill, 3)} == {"mill@2"}

    deployments.rollback("mill", "not yet")
    back = deployments.reconcile("mill")
    assert (state(mill), back.pid, roles(mill)) == (("mill@1", "", ""), status.pid, {"mill@1": "live"})
    assert {item["version"] for item in asked(mill, 3)} == {"mill@1"}


def test_blue_green_lets_the_old_version_go_when_its_time_is_up(mill: Any) -> None:
    released(mill, Strategy(kind="blue-green", keep_minutes=30))
    mill.workspace.controller.tick()
    assert roles(mill) == {"mill@2": "live", "mill@1": "standby"}
    mill.clock.advance(timedelta(minutes=31))
    mill.workspace.controller.tick()
    assert (state(mill), roles(mill)) == (("mill@2", "", ""), {"mill@2": "live"})
    mill.workspace.controller.tick()
    assert mill.events("deploy.release.live") == ["deploy.release.live"] * 2


def test_blue_green_returns_by_itself_when_a_guard_is_broken(mill: Any) -> None:
    guard = Guard(metric="latency_p95", limit=0.000001, min_rows=10)
    released(mill, Strategy(kind="blue-green", keep_minutes=30, guards=(guard,)))
    asked(mill, 9)
    mill.workspace.controller.tick()
    assert state(mill) == ("mill@2", "", "mill@1")
    asked(mill, 9, first=9)
    mill.workspace.controller.tick()
    assert state(mill) == ("mill@1", "", "")
    back, second, _ = mill.workspace.deployments.releases("mill")
    assert (back.version, second.status) == ("mill@1", "rolled_back")
    assert "latency_p95" in second.reason
    mill.workspace.controller.tick()
    assert mill.events("deploy.release.rolled_back") == ["deploy.release.rolled_back"]


def test_a_shadow_never_answers_and_is_promoted_by_what_it_said(mill: Any) -> None:
    guard = Guard(metric="agreement", limit=0.9, min_rows=50)
    released(mill, Strategy(kind="shadow", bake_hours=1, min_outcomes=50, sample=50, guards=(guard,)))
    assert roles(mill) == {"mill@1": "live", "mill@2": "shadow"}
    assert {item["version"] for item in asked(mill, 200)} == {"mill@1"}
    mill.workspace.controller.tick()
    release = mill.workspace.deployments.releases("mill")[0]
    hold = release.holds[-1]
    assert (hold.step, hold.last.reason) == (0, "the shadow lasts at least 1 hour")
    figures = hold.last.canary.figures
    assert figures["agreement"].value == 1.0
    assert 0 < figures["score_distance"].value < 0.5
    assert 60 < figures["agreement"].rows < 140
    assert hold.last.live.rows == hold.last.canary.rows
    assert "latency_p95" in figures
    mill.clock.advance(2 * HOUR)
    mill.workspace.controller.tick()
    assert state(mill) == ("mill@2", "", "")


def test_a_shadow_that_disagrees_is_dropped(mill: Any) -> None:
    guard = Guard(metric="agreement", limit=0.9, min_rows=50)
    released(mill, Strategy(kind="shadow", bake_hours=1, min_outcomes=50, guards=(guard,)), weight=1.0)
    mill.workspace.deployments.rollback("mill")
    version = mill.candidate(weight=-1.0)
    mill.workspace.models.set_status(version.address, "approved")
    mill.workspace.deployments.release("mill", version.address)
    mill.workspace.deployments.reconcile("mill")
    asked(mill, 100)
    mill.workspace.controller.tick()
    assert state(mill)[:2] == ("mill@1", "")
    assert "agreement 0 on 100 rows, allowed is at least 0.9" in mill.workspace.deployments.releases("mill")[0].reason


def test_keys_keep_their_arm_and_the_better_arm_wins(mill: Any) -> None:
    deployments = mill.workspace.deployments
    strategy = Strategy(
        kind="ab", key="customer", shares=(40,), measure="loss", bake_hours=0, min_outcomes=60, promote=False
    )
    status = released(mill, strategy, weight=3.0)
    assert roles(mill) == {"mill@1": "live", "mill@2": "arm"}
    customers = [f"c{place}" for place in range(2000)]
    first = {name: item["version"] for name, item in zip(customers, asked(mill, 2000, customer=customers), strict=True)}
    assert 0.35 < sum(version == "mill@2" for version in first.values()) / 2000 < 0.45
    deployments.stop("mill")
    deployments.update("mill", change(Deployment, durable=False))
    assert deployments.reconcile("mill").pid != status.pid
    again = asked(mill, 2000, first=2000, customer=customers)
    assert [item["version"] for item in again] == list(first.values())
    more = Strategy(**{name: getattr(strategy, name) for name in strategy.__struct_fields__} | {"shares": (45,)})
    deployments.update("mill", change(Deployment, strategy=more))
    deployments.reconcile("mill")
    moved = [item["version"] for item in asked(mill, 2000, first=4000, customer=customers)]
    changes = [(was, now) for was, now in zip(first.values(), moved, strict=True) if was != now]
    assert 0 < len(changes) < 160
    assert set(changes) == {("mill@1", "mill@2")}

    mill.workspace.controller.tick()
    hold = deployments.releases("mill")[0].holds[-1].last
    assert hold.canary.sample.n + hold.live.sample.n <= 2000 + len(changes), "one value per key and arm"
    assert "less log_loss against mill@1" in hold.reason
    with pytest.raises(Conflict, match="cannot become canary"):
        deployments.update("mill", change(Deployment, strategy=Strategy()))
    with pytest.raises(Conflict, match="keeps its key"):
        deployments.update("mill", change(Deployment, strategy=Strategy(kind="ab", measure="loss")))
    deployments.promote("mill", reason="it wins")
    assert state(mill) == ("mill@2", "", "")
    with pytest.raises(Conflict, match="nothing is being rolled out"):
        deployments.promote("mill")


def test_a_header_keeps_an_arm_and_is_logged_as_a_hash_only(mill: Any) -> None:
    status = released(mill, Strategy(kind="ab", key="header:X-User", shares=(50,)))
    picked = {}
    for user in range(40):
        found = set()
        for _ in range(3):
            body = {"records": [{"x": 1.0}, {"x": 2.0}]}
            _, answer = ask(status.url, "/predict", body, {"x-user": f"maria-{user}"})
            found |= {item["version"] for item in answer["predictions"]}
        assert len(found) == 1
        picked[user] = found.pop()
    assert set(picked.values()) == {"mill@1", "mill@2"}
    mill.workspace.predictions.ingest("mill")
    now = mill.clock.now()
    rows = mill.workspace.predictions.rows("mill", now - timedelta(days=4000), now + timedelta(days=4000))
    keys = set(rows["in_header:X-User"])
    assert len(keys) == 40
    assert not any("maria" in key for key in keys)


def test_an_ab_test_of_three_arms_is_won_once(mill: Any) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved(weight=0.2).address)
    strategy = Strategy(kind="ab", shares=(30, 40), measure="loss", bake_hours=0, min_outcomes=60)
    deployments.update("mill", change(Deployment, strategy=strategy))
    second, third = mill.approved(weight=0.3), mill.approved(weight=3.0)
    with pytest.raises(InvalidInput, match="takes 2 new versions"):
        deployments.release("mill", second.address)
    deployments.release("mill", second.address, "a test", [third.address])
    deployments.reconcile("mill")
    for part in range(5):
        asked(mill, 1000, first=part * 1000)
        mill.workspace.controller.tick()
    assert state(mill) == ("mill@3", "", "")
    statuses = {item.version: item.status for item in deployments.releases("mill")}
    assert statuses == {"mill@1": "retired", "mill@2": "retired", "mill@3": "live"}
    assert len(mill.events("deploy.release.live")) == 2


def test_a_new_version_that_the_target_refuses_is_taken_back(mill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deployments = mill.workspace.deployments
    released(mill, Strategy(kind="shadow"))
    deployments.rollback("mill")
    folder = mill.workspace.models.unpack("mill@2", mill.workspace.home / "models")
    (folder / "model.onnx").write_bytes(b"half a file")
    (deployments.reconcile("mill"), deployments.release("mill", "mill@2", skip_checks="to see what happens"))
    status = deployments.reconcile("mill")
    assert (state(mill), status.state, status.detail) == (("mill@1", "", ""), "running", "")
    assert "the target refuses it" in deployments.releases("mill")[0].reason
    assert deployments.diff("mill") == []


def test_a_version_that_the_target_refuses_all_at_once_is_left_again(mill: Any) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved().address)
    deployments.reconcile("mill")
    deployments.update("mill", change(Deployment, strategy=Strategy(kind="all-at-once")))
    version = mill.approved(weight=2.0).address
    folder = mill.workspace.models.unpack(version, mill.workspace.home / "models")
    (folder / "model.onnx").write_bytes(b"half a file")
    deployments.release("mill", version, skip_checks="to see what happens")
    status = deployments.reconcile("mill")
    assert (state(mill), status.state, status.detail) == (("mill@1", "", ""), "running", "")
    assert {item["version"] for item in asked(mill, 3)} == {"mill@1"}
    assert [item.status for item in deployments.releases("mill")] == ["live", "rolled_back", "retired"]


def test_what_differs_is_told_until_it_is_repaired(mill: Any) -> None:
    deployments = mill.workspace.deployments
    released(mill, Strategy())
    assert deployments.diff("mill") == []
    deployments.rollback("mill")
    told = {item.what: (item.wanted, item.actual) for item in deployments.diff("mill")}
    assert told == {"revision": ("3", "2"), "route": ("mill@2 is not routed", "mill@2 is canary with 10 %")}
    deployments.stop("mill")
    assert [(item.what, item.actual) for item in deployments.diff("mill")] == [("state", "stopped")]
    mill.workspace.controller.reconcile()
    assert deployments.diff("mill") == []


def test_the_history_says_who_did_what_and_why(mill: Any) -> None:
    deployments = mill.workspace.deployments
    released(mill, Strategy(kind="shadow", bake_hours=1, min_outcomes=20))
    asked(mill, 30)
    mill.workspace.controller.tick()
    with acting_as("maria"):
        deployments.rollback("mill", "a bad feeling")
    told = [(item.what, item.version, item.actor) for item in deployments.history("mill")]
    for entry in [
        ("checks", "mill@2", told[0][2]),
        ("started", "mill@2", told[0][2]),
        ("verdict: hold", "mill@2", "controller"),
        ("rolled_back", "mill@2", "maria"),
    ]:
        assert entry in told
    reasons = {item.what: item.reason for item in deployments.history("mill")}
    assert reasons["rolled_back"] == "a bad feeling"
    assert "the shadow lasts at least 1 hour (1 look since 2026-01-05 09:00)" in reasons["verdict: hold"]
    assert "live mill@1" in reasons["routed"]
