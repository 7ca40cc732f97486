"""Explanations: contributions that add up, known answers where there are some, and the loop that goes on meanwhile."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.core.entity import change
from mainspring.core.ids import point
from mainspring.core.signature import Field, Signature
from mainspring.deploy.model import Deployment
from mainspring.deploy.serving import ServingPlan
from mainspring.registry.runtime import OnnxModel
from mainspring.serving.explaining import BACKGROUND
from mainspring.serving.explanation import shapley
from mainspring.testing.models import RECORD, write_model, write_product
from mainspring.testing.targets import ask

NUMBERS = st.floats(-100, 100, allow_nan=False)
SERIES = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=6)


class Formula:
    """A model that is a function of three columns."""

    signature = Signature(inputs=tuple(Field(name=name, type="float") for name in "abc"), kind="regressor")

    def __init__(self, formula: Callable[[float, float, float], float]) -> None:
        self._formula = formula

    def score(self, columns: Mapping[str, Sequence[Any]], rows: int) -> list[float]:
        return [self._formula(*(columns[name][row] for name in "abc")) for row in range(rows)]


@given(st.lists(NUMBERS, min_size=3, max_size=3), SERIES)
@settings(deadline=None)
def test_contributions_and_base_are_the_score(row: list[float], background: list[list[float]]) -> None:
    model: Any = Formula(lambda a, b, c: a * b - abs(c) + (a if c > b else b * b))
    columns = {name: [other[place] for other in background] for place, name in enumerate("abc")}
    found = shapley(model, dict(zip("abc", row, strict=True)), columns, pairs=4)
    assert found is not None
    assert found.score == model._formula(*row)
    assert found.base + sum(found.contributions.values()) == pytest.approx(found.score, abs=1e-6)


@given(st.lists(NUMBERS, min_size=3, max_size=3), st.lists(NUMBERS, min_size=3, max_size=3))
@settings(deadline=None)
def test_known_shapley_values(row: list[float], other: list[float]) -> None:
    """Against one row: of a sum each its difference, of a product half of what both change; nothing for the unread."""
    a, b, _ = row
    a0, b0, _ = other
    columns = {name: [other[place]] for place, name in enumerate("abc")}
    own = dict(zip("abc", row, strict=True))
    sums, products = Formula(lambda a, b, c: 2 * a - 3 * b), Formula(lambda a, b, c: a * b)
    found = shapley(sums, own, columns)  # type: ignore[arg-type]
    assert found is not None
    assert list(found.contributions.values()) == pytest.approx([2 * (a - a0), -3 * (b - b0), 0], abs=1e-6)
    found = shapley(products, own, columns)  # type: ignore[arg-type]
    assert found is not None
    expected = [(a - a0) * (b + b0) / 2, (b - b0) * (a + a0) / 2, 0]  # exact: an order and its reverse are a pair
    assert list(found.contributions.values()) == pytest.approx(expected, abs=1e-6)


def test_no_score_has_no_reason() -> None:
    model: Any = Formula(lambda a, b, c: float("nan"))
    assert shapley(model, {"a": 1.0, "b": 1.0, "c": 1.0}, {name: [0.0] for name in "abc"}) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flights model with rows to compare with."""
    folder = tmp_path_factory.mktemp("explained") / "live"
    write_model(folder)
    rows = {"dep_delay": [-5.0, None, 10.0], "distance": [200.0, 900.0, 500.0], "month": [1, 6, 12]}
    (folder / BACKGROUND).write_text(json.dumps({**rows, "carrier": ["AA", "B6", "UA"]}))
    return folder


def test_the_late_flight_is_late_because_it_left_late(serve: Callable[..., Any], folder: Path) -> None:
    server = serve(routes=[{"version": "flights@1", "path": str(folder)}]).ready()
    status, answer = server.ask("/predict?explain=true", {"records": [RECORD, {**RECORD, "dep_delay": 0.0}]})
    assert status == 200
    for row in answer["predictions"]:
        why = row["explanation"]
        assert why["method"] == "permutation"
        assert why["score"] == pytest.approx(row["score"], abs=1e-6)
        assert why["base"] + sum(why["contributions"].values()) == pytest.approx(row["score"], abs=1e-5)
    contributions = answer["predictions"][0]["explanation"]["contributions"]
    assert max(contributions, key=lambda name: abs(contributions[name])) == "dep_delay"
    assert "explanation" not in server.ask("/predict?explain=false", {"records": [RECORD]})[1]["predictions"][0]
    assert server.ask("/predict?explain=maybe", {"records": [RECORD]})[0] == 422
    status, answer = server.ask("/predict?explain=true", {"records": [RECORD] * 101})
    assert (status, "too many to explain" in answer["error"]["message"]) == (422, True)


@pytest.mark.parametrize("usual", [True, False])
def test_the_inference_protocol_explains_as_a_parameter(serve: Callable[..., Any], folder: Path, usual: bool) -> None:
    server = serve(routes=[{"version": "flights@1", "path": str(folder)}]).ready()
    kinds = {"dep_delay": "FP64", "distance": "FP64", "month": "INT64", "carrier": "BYTES"}
    data = {name: [RECORD[name]] if usual else [[RECORD[name]]] for name in kinds}
    shape = [1] if usual else [1, 1]
    inputs = [{"name": name, "shape": shape, "datatype": kind, "data": data[name]} for name, kind in kinds.items()]
    status, answer = server.ask("/v2/models/flights/infer", {"inputs": inputs, "parameters": {"explain": True}})
    assert status == 200
    (why,) = json.loads(answer["parameters"]["explanations"])
    score = next(item["data"][0] for item in answer["outputs"] if item["name"] == "score")
    assert why["base"] + sum(why["contributions"].values()) == pytest.approx(score, abs=1e-5)


def test_a_version_without_rows_to_compare_with_says_so(serve: Callable[..., Any], models: dict[str, str]) -> None:
    server = serve(routes=[{"version": "flights@1", "path": models["live"]}]).ready()
    status, answer = server.ask("/predict?explain=true", {"records": [RECORD]})
    assert status == 422
    assert "no rows to compare with" in answer["error"]["message"]
    assert server.ask("/predict", {"records": [RECORD]})[0] == 200


def test_others_are_answered_while_a_row_is_explained(serve: Callable[..., Any], folder: Path) -> None:
    server = serve(routes=[{"version": "flights@1", "path": str(folder)}]).ready()
    answers: list[int] = []
    asked = {"records": [RECORD] * 30}
    slow = threading.Thread(target=lambda: answers.append(server.ask("/predict?explain=true", asked)[0]))
    slow.start()
    meanwhile = 0
    while not answers:
        assert server.ask("/predict", {"records": [RECORD]})[0] == 200
        meanwhile += not answers
    slow.join()
    assert answers == [200]
    assert meanwhile > 3


def test_an_onnx_model_of_one_packed_input_is_explained_exactly(tmp_path: Path) -> None:
    write_product(tmp_path, columns=3, factor=2.0)
    found = shapley(OnnxModel(tmp_path), {"c0": 1.0, "c1": 2.0, "c2": 3.0}, {f"c{place}": [0.5] for place in range(3)})
    assert found is not None
    assert found.contributions == pytest.approx({"c0": 1.0, "c1": 3.0, "c2": 5.0})


def test_a_deployment_brings_rows_of_its_reference(mill: Any) -> None:
    mill.apply()
    mill.register()
    mill.workspace.controller.tick()
    url = mill.workspace.deployments.status("mill").url

    status, answer = ask(url, "/predict?explain=true", {"records": [{"x": 2.0}]})
    assert status == 200
    why = answer["predictions"][0]["explanation"]
    assert why["contributions"]["x"] > 0


def test_sampled_values_are_near_the_exact_ones(folder: Path) -> None:
    """Against every subset of the columns, which four columns allow: 2^4 rows for each row to compare with."""
    model = OnnxModel(folder)
    background = json.loads((folder / BACKGROUND).read_text())
    names = list(RECORD)

    def worth(own: tuple[str, ...]) -> float:
        mixed = {name: [RECORD[name]] * 3 if name in own else background[name] for name in names}
        return sum(model.score(mixed, 3)) / 3

    exact = dict.fromkeys(names, 0.0)
    for name in names:
        others = [other for other in names if other != name]
        for size in range(len(names)):
            weight = math.factorial(size) * math.factorial(len(names) - size - 1) / math.factorial(len(names))
            for own in itertools.combinations(others, size):
                exact[name] += weight * (worth((*own, name)) - worth(own))
    found = shapley(model, RECORD, background, pairs=1000)
    assert found is not None
    assert found.contributions == pytest.approx(exact, abs=0.03)


def test_sampled_answers_are_explained_in_the_log(mill: Any) -> None:
    deployments, predictions = mill.workspace.deployments, mill.workspace.predictions
    mill.register()
    deployments.update("mill", change(Deployment, serving=ServingPlan(explain_sample=0.5)))
    deployments.release("mill", mill.approved().address)
    deployments.reconcile("mill")
    now = mill.clock.now()
    body = {"columns": {"x": [number / 10 for number in range(40)]}, "ids": [f"r{number}" for number in range(40)]}
    predictions.ask("mill", {**body, "times": [now.isoformat()] * 40})
    start, end = now - timedelta(hours=1), now + timedelta(hours=1)
    drawn = {id for id in body["ids"] if point(f"explain\0{id}") < 1 << 63}
    while (told := predictions.attributions("mill", start, end)).height < len(drawn):
        predictions.ingest("mill")
        time.sleep(0.05)
    assert set(told["id"]) == drawn
    assert set(told["version"]) == {"mill@1"}
    rows = predictions.rows("mill", start, end).join(told, on=["id", "version"], suffix="_why")
    assert rows.height == told.height
    assert rows["score"].to_list() == pytest.approx(rows["score_why"].to_list(), abs=1e-5)
    assert rows.sort("in_x")["at_x"].is_sorted()
    assert predictions.attributions("mill", end, end + timedelta(hours=1)).is_empty()


def test_explaining_process_that_is_killed_is_replaced_and_ends_with_the_server(serve: Any, folder: Path) -> None:
    server = serve(routes=[{"version": "flights@1", "path": str(folder)}]).ready()

    def asked() -> tuple[int, list[int]]:
        status, _ = server.ask("/predict?explain=true", {"records": [RECORD]})
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        return status, [int(child) for child in children]

    status, (child,) = asked()
    assert status == 200
    os.kill(child, signal.SIGKILL)
    status, (other,) = asked()
    assert (status, other == child) == (200, False)
    server.end(signal.SIGKILL)
    while Path(f"/proc/{other}/exe").exists():
        time.sleep(0.01)
