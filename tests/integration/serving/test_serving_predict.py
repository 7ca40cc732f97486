from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.ports.target import Role, Route
from mainspring.registry.runtime import OnnxModel
from mainspring.serving.lineup import Lineup
from mainspring.serving.log import log_files, read_frames, to_frame
from mainspring.serving.request import Batch
from mainspring.testing.models import RECORD, write_model

Serve = Callable[..., Any]


def live(models: dict[str, str]) -> dict[str, Any]:
    return {"version": "flights@1", "path": models["live"]}


def test_score_equals_the_fitted_model(tmp_path: Path) -> None:
    fitted = write_model(tmp_path)
    model = OnnxModel(tmp_path)
    rows = [[45.0, 1400.0, 7, "UA"], [None, 200.0, 1, "AA"], [14.0, 900.0, 12, "never seen"]]
    columns = {field.name: [row[place] for row in rows] for place, field in enumerate(model.signature.inputs)}
    table = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=object)
    assert np.allclose(model.score(columns, 3), fitted.predict_proba(table)[:, 1], atol=1e-5)
    assert model.signature.labels([0.4, 0.5, float("nan")]) == [False, True, None]


def test_records_and_columns(server: Any) -> None:
    status, by_record = server.ask("/predict", {"records": [RECORD, RECORD], "ids": ["a", "b"]})
    assert status == 200
    assert [set(row) for row in by_record["predictions"]] == [{"id", "version", "score", "label"}] * 2
    assert by_record["predictions"][0]["label"] is True
    columns = {name: [value, value] for name, value in RECORD.items()}
    status, by_column = server.ask("/predict", {"columns": columns})
    assert status == 200
    assert by_column["versions"] == ["flights@1"] * 2
    assert by_column["scores"] == [row["score"] for row in by_record["predictions"]]
    assert len(set(by_column["ids"])) == 2


def test_errors_have_one_shape(server: Any) -> None:
    for path, body, status in (
        ("/predict", {"records": [{**RECORD, "distance": None}]}, 422),
        ("/predict", b"{", 400),
        ("/predict", b" " * 100_001, 413),
        ("/predict", None, 405),
        ("/nothing", None, 404),
        ("/-/reload", b"", 401),
    ):
        answered, answer = server.ask(path, body)
        assert answered == status
        assert set(answer["error"]) >= {"code", "message", "hint"}


def test_health_status_and_metrics(server: Any) -> None:
    assert server.ask("/v2/health/live") == (200, {"live": True})
    assert server.ask("/v2/health/ready")[1]["ready"] is True
    before = server.ask("/-/status")[1]["routes"][0]["rows"]
    server.ask("/predict", {"records": [RECORD] * 3})
    status = server.ask("/-/status")[1]
    assert (status["revision"], status["routes"][0]["rows"]) == (1, before + 3)
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert f'mainspring_rows_total{{deployment="flights",version="flights@1",role="live"}} {before + 3}' in text
    assert 'mainspring_revision{deployment="flights"} 1' in text


TENSORS = [
    {"name": name, "shape": [1], "datatype": kind, "data": [value]}
    for (name, value), kind in zip(RECORD.items(), ("FP32", "FP64", "INT32", "BYTES"), strict=True)
]


def test_open_inference_protocol(server: Any) -> None:
    for path in ("/v2", "/v2/"):
        assert set(server.ask(path)[1]) == {"name", "version", "extensions"}
    status, model = server.ask("/v2/models/flights")
    assert status == 200
    assert [item["name"] for item in model["inputs"]] == list(RECORD)
    assert server.ask("/v2/models/flights/versions/1/ready")[0] == 200
    expected = server.ask("/predict", {"records": [RECORD]})[1]["predictions"][0]["score"]
    nested = [{**item, "shape": [1, 1], "data": [item["data"]]} for item in TENSORS]
    for inputs in (TENSORS, nested):
        status, answer = server.ask("/v2/models/flights/infer", {"id": "q", "inputs": inputs})
        assert status == 200
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("q", "flights", "flights@1")
        outputs = {item["name"]: item["data"] for item in answer["outputs"]}
        assert outputs == {"score": [expected], "label": [True], "version": ["flights@1"], "id": ["q"]}
    wanted = {"inputs": TENSORS, "outputs": [{"name": "label"}]}
    assert [item["name"] for item in server.ask("/v2/models/flights/infer", wanted)[1]["outputs"]] == ["label"]


def test_id_is_the_prefix_of_prediction_ids(server: Any) -> None:
    twice = [{**item, "shape": [2], "data": item["data"] * 2} for item in TENSORS]
    for facts in ({"id": "q"}, {"parameters": {"id": "q", "other": 1}}):
        _, answer = server.ask("/v2/models/flights/infer", {"inputs": twice, **facts})
        assert answer["outputs"][3]["data"] == ["q-0", "q-1"]
    # Repeated for every row, a long one would fill the memory.
    long = {"inputs": TENSORS, "parameters": {"id": "q" * 201}}
    assert server.ask("/v2/models/flights/infer", long)[0] == 400


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2]},
        {"shape": [-1]},
        {"shape": [1, 2]},
        {"shape": []},
        {"shape": [2**62, 1]},
        {"datatype": "BYTES"},
        {"datatype": "FP99"},
        {"data": ["x"]},
        {"data": [[1.0]]},
        {"data": 5},
        {"name": "colour"},
        {"name": "distance"},
    ],
)
def test_bad_tensor(server: Any, change: dict[str, Any]) -> None:
    inputs = [{**TENSORS[0], **change}, *TENSORS[1:]]
    status, answer = server.ask("/v2/models/flights/infer", {"inputs": inputs})
    assert status == 400
    assert isinstance(answer["error"], str)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/other", 404),
        ("/v2/models/flights/versions/9", 404),
        ("/v2/models/flights/nothing", 404),
        ("/v2/models/flights/infer", 405),
    ],
)
def test_protocol_errors(server: Any, path: str, status: int) -> None:
    answered, answer = server.ask(path)
    assert answered == status
    assert isinstance(answer["error"], str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
VALUES = JSON | st.just(RECORD)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            name: VALUES | st.lists(VALUES, max_size=3) for name in ("records", "columns", "ids", "times", "time")
        },
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({name: JSON | st.just(value) for name, value in RECORD.items()}).map(
        lambda record: json.dumps({"records": [record]}).encode()
    ),
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from([*RECORD, "x"]) | JSON,
                "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
                "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL"]) | JSON,
                "data": st.lists(JSON, max_size=3) | JSON,
            }
        )
    ).map(lambda inputs: json.dumps({"inputs": inputs}).encode()),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES, path=st.sampled_from(["/predict", "/v2/models/flights/infer"]))
def test_no_body_makes_the_server_fail(server: Any, body: bytes, path: str) -> None:
    status, answer = server.ask(path, body)
    assert status in (200, 400, 422), answer
    assert status == 200 or "error" in answer


def test_canary_and_shadow_are_logged_with_what_they_saw(serve: Serve, models: dict[str, str]) -> None:
    routes = [
        live(models),
        {"version": "flights@2", "path": models["strict"], "role": "canary", "weight": 25},
        {"version": "flights@3", "path": models["strict"], "role": "shadow"},
    ]
    server = serve(routes=routes).ready()
    ids = [f"flight-{number}" for number in range(400)]
    columns = {name: [value] * 400 for name, value in RECORD.items()}
    body = {"columns": columns, "ids": ids, "time": "2013-03-01T12:00:00Z"}
    _, answer = server.ask("/predict", body)
    assert server.ask("/predict", body)[1]["versions"] == answer["versions"]
    share = answer["versions"].count("flights@2") / 400
    assert 0.1 < share < 0.4
    assert len(set(answer["scores"])) == 2
    assert server.end() == 0
    (path,) = log_files(server.folder / "log")
    table = to_frame(read_frames(path)[0])
    by_role = {role[0]: group for role, group in table.group_by("role")}
    assert by_role["canary"].height == 2 * share * 400
    assert by_role["shadow"].height == 800
    assert set(by_role["shadow"]["version"]) == {"flights@3"}
    assert set(table["in_carrier"]) == {"UA"}
    assert [str(time) for time in table["time"].unique()] == ["2013-03-01 12:00:00+00:00"]
    answered = table.filter(table["role"] != "shadow")[:400]
    assert answered["id"].to_list() == ids
    assert answered["version"].to_list() == answer["versions"]
    assert answered["score"].to_list() == answer["scores"]


def test_version_may_read_a_column_that_requests_lack_only_if_it_can_do_without(models: dict[str, str]) -> None:
    def lineup(path: str, role: Role) -> Lineup:
        routes = [Route(version="f@1", path=models["live"]), Route(version="f@2", path=path, role=role, weight=100)]
        return Lineup(1, routes)

    columns = {name: [value] for name, value in RECORD.items()}
    answer = lineup(models["leaky"], "canary").score(Batch(columns, 1))
    assert answer.versions == ["f@2"]
    with pytest.raises(InvalidInput, match="f@2 needs the column `air_time`"):
        lineup(models["needy"], "shadow")


def test_time_defaults_to_now(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=[live(models)], durable=True).ready()
    before = time.time()
    server.ask("/predict", {"records": [RECORD]})
    (path,) = log_files(server.folder / "log")
    ((moment,),) = (frame.times for frame in read_frames(path)[0])
    assert before <= moment / 1e6 <= time.time()
