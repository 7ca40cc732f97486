"""What a deployment's log keeps: sampled, masked before it is written, for so long; and outcomes under a key."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.entity import change, draft
from mainspring.core.mask import Mask
from mainspring.deploy.model import Deployment, LogPlan
from mainspring.errors import InvalidInput, InvalidProject
from mainspring.monitoring.model import Monitor
from mainspring.serving.log import log_files, read_frames
from mainspring.serving.model import Outcome, Review, Segment

PERSON = """[deployment]
name = "mill"
[[deployment.humility]]
name = "far"
when = "outlying_input"
high = 2.0
then = "person"
"""


@pytest.fixture
def planned(mill: Any) -> Callable[..., Any]:
    """A live deployment with a plan of its log."""

    def start(old: str = "", new: str = "", **facts: Any) -> Any:
        mill.apply(old, new)
        mill.workspace.deployments.update("mill", change(Deployment, log=LogPlan(**facts)))
        mill.register()
        mill.workspace.controller.tick()
        return mill

    return start


def ask(mill: Any, rows: list[dict[str, Any]], ids: list[str]) -> None:
    mill.workspace.predictions.ask("mill", {"records": rows, "ids": ids, "time": mill.clock.now().isoformat()})
    mill.workspace.predictions.ingest("mill")


def outcomes(mill: Any) -> dict[str, float | None]:
    return {item.id: item.outcome for item in mill.workspace.predictions.find("mill")}


def test_outcomes_come_under_a_key_even_before_their_predictions(planned: Callable[..., Any]) -> None:
    mill = planned(outcome_key=("flight", "day"), mask={"flight": "hash"})
    record = mill.workspace.predictions.record_outcomes
    key = {"flight": "UA 17", "day": "2026-01-05"}
    record("mill", [Outcome(key=key, value=0.0)])
    mill.clock.advance(timedelta(days=2))
    ask(mill, [{"x": 1.0, **key}, {"x": 2.0, **key}, {"x": 1.0, **key, "flight": "UA 18"}, {"x": 1.0}], list("abcd"))
    assert outcomes(mill) == {"a": 0.0, "b": 0.0, "c": None, "d": None}
    record("mill", [Outcome(key=key, value=1.0), Outcome(id="d", value=1.0)])
    assert outcomes(mill) == {"a": 1.0, "b": 1.0, "c": None, "d": 1.0}
    with pytest.raises(InvalidInput, match="those of mill are flight, day"):
        record("mill", [Outcome(key={"flight": "UA 17"}, value=1.0)])
    folder = mill.workspace.deployments.log_folder("mill")
    assert not any(b"UA 17" in path.read_bytes() for path in log_files(folder))


def test_hashed_columns_are_watched_for_drift_as_categories(planned: Callable[..., Any]) -> None:
    mill = planned(mask={"x": "hash"})
    made = {"deployment": "mill", "window_days": 1.0, "min_rows": 1}
    mill.workspace.monitors.create(draft(Monitor, name="moved", kind="drift", measure="js", **made))
    known = mill.readings()["x"].to_list()
    ask(mill, [{"x": value} for value in known], [f"a{place}" for place in range(len(known))])
    mill.clock.advance(timedelta(days=1))
    ask(mill, [{"x": value + 100} for value in known], [f"b{place}" for place in range(len(known))])
    mill.clock.advance(timedelta(days=1))
    before, after = (signal.value for signal in mill.workspace.monitors.evaluate_due("moved"))
    assert before < 0.5
    assert after > 0.8


def test_what_is_too_old_is_removed_and_released(planned: Callable[..., Any]) -> None:
    mill = planned('[deployment]\nname = "mill"\n', PERSON, retention_days=3)
    store = mill.workspace.store
    for day in range(3):
        ask(mill, [{"x": 3.0}, {"x": 0.5}], [f"p{day}", f"m{day}"])
        mill.workspace.predictions.record_outcomes("mill", [Outcome(id=f"m{day}", value=1.0)])
        mill.clock.advance(timedelta(days=1))
    digests = {segment.digest for segment in store.find(Segment)}
    mill.workspace.controller.tick()
    assert {segment.digest for segment in store.find(Segment)} == digests
    mill.clock.advance(timedelta(days=2))
    mill.workspace.controller.tick()
    assert outcomes(mill).keys() == {"p2", "m2"}
    left = {segment.digest for segment in store.find(Segment)}
    assert left < digests
    assert (digests - left).isdisjoint(store.artifact_owners())
    assert set(mill.events("serving.predictions.expired")) == {"serving.predictions.expired"}
    reviews = {item.prediction: item.inputs for item in store.find(Review)}
    assert reviews == {"p0": {}, "p1": {}, "p2": {"x": 3.0}}
    count = len(mill.events("serving"))
    mill.workspace.controller.tick()
    assert len(mill.events("serving")) == count


def test_old_rows_of_a_segment_go_and_the_others_stay(planned: Callable[..., Any]) -> None:
    mill = planned(retention_days=2)
    now = mill.clock.now()
    times = [(now + timedelta(days=day)).isoformat() for day in range(4)]
    body = {"records": [{"x": 1.0}] * 4, "ids": ["a", "b", "c", "d"], "times": times}
    mill.workspace.predictions.ask("mill", body)
    mill.workspace.predictions.ingest("mill")
    mill.clock.advance(timedelta(days=4, minutes=1))
    mill.workspace.controller.tick()
    assert outcomes(mill).keys() == {"c", "d"}


def test_log_files_that_are_read_and_finished_are_removed(planned: Callable[..., Any]) -> None:
    mill = planned()
    folder: Path = mill.workspace.deployments.log_folder("mill")
    ask(mill, [{"x": 1.0}], ["a"])
    (path,) = log_files(folder)
    old = time.time() - 7200
    os.utime(path, (old, old))
    mill.workspace.predictions.ingest("mill")
    assert path.exists()  # the server still has it open
    mill.workspace.deployments.stop("mill")
    mill.workspace.predictions.ingest("mill")  # its last words: what it used
    os.utime(path, (old, old))
    mill.workspace.predictions.ingest("mill")
    assert not path.exists()
    assert outcomes(mill).keys() == {"a"}
    mill.workspace.predictions.ingest("mill")
    mill.workspace.controller.tick()
    ask(mill, [{"x": 1.0}], ["b"])
    assert outcomes(mill).keys() == {"a", "b"}


def test_a_sampled_log_counts_what_was_asked(planned: Callable[..., Any]) -> None:
    mill = planned(sample=0.25)
    mill.workspace.monitors.create(
        draft(Monitor, name="asked", kind="volume", deployment="mill", window_days=1.0, min_rows=1)
    )
    ask(mill, [{"x": 1.0}] * 2000, [f"a{row}" for row in range(2000)])
    frames = [one for path in log_files(mill.workspace.deployments.log_folder("mill")) for one in read_frames(path)[0]]
    assert 400 < sum(len(one.ids) for one in frames) < 600
    mill.clock.advance(timedelta(days=1))
    (signal,) = mill.workspace.monitors.evaluate_due("asked")
    assert signal.value == pytest.approx(2000, rel=0.15)
    assert 400 < signal.rows < 600


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("sample = 1.5", "`sample` is a share"),
        ("retention_days = -1", "`retention_days` is at least 0"),
        ('mask = { x = "blur" }', "blur"),
        ('mask = { day = "drop" }\noutcome_key = ["day"]', "which `mask` drops"),
    ],
)
def test_plans_that_make_no_sense_are_refused(mill: Any, log: str, told: str) -> None:
    with pytest.raises(InvalidProject, match="line") as caught:
        mill.apply('[deployment]\nname = "mill"\n', f'[deployment]\nname = "mill"\n[deployment.log]\n{log}\n')
    assert told in caught.value.message


def test_the_mask_key_is_made_once_and_private(planned: Callable[..., Any]) -> None:
    mill = planned(mask={"x": "hash"})
    key = mill.workspace.deployments.mask_key()
    assert mill.workspace.deployments.mask_key() == key
    path = mill.workspace.home / "keys" / "mask.key"
    assert path.stat().st_mode & 0o777 == 0o600
    ask(mill, [{"x": 1.5}], ["a"])
    (found,) = log_files(mill.workspace.deployments.log_folder("mill"))
    assert read_frames(found)[0][0].columns["x"] == [Mask({"x": "hash"}, key).text(1.5)]
