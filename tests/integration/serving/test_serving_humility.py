"""Humility rules in the serving process: what is answered over each face, what is refused, counted and logged."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pytest

from mainspring.core.humility import HumilityRule
from mainspring.ports.stream import Message
from mainspring.ports.target import Route
from mainspring.registry.load import load_model
from mainspring.serving.batch import score_table
from mainspring.serving.lineup import Lineup
from mainspring.serving.log import log_files, read_frames, to_frame
from mainspring.serving.request import Batch
from mainspring.testing.models import RECORD
from mainspring.testing.streams import collect, joined, published

RULES: list[dict[str, Any]] = [
    {"name": "far", "when": "outlying_input", "column": "distance", "high": 5000, "then": "clamp"},
    {"name": "late", "when": "outlying_input", "column": "dep_delay", "then": "person"},
    {"name": "stranger", "when": "unseen_category", "column": "carrier", "then": "default", "value": 0.25},
    {"name": "blind", "when": "missing_feature", "column": "dep_delay", "then": "abstain"},
    {"name": "month", "when": "outlying_input", "column": "month", "low": 1, "high": 12, "then": "error"},
    {"name": "torn", "when": "uncertain_score", "low": 0.0, "high": 1.0},
]
FAR = {**RECORD, "distance": 9000.0}
EDGE = {**RECORD, "distance": 5000.0}
LATE = {**RECORD, "dep_delay": 700.0}
STRANGER = {**RECORD, "carrier": "ZZ"}
BLIND = {**RECORD, "dep_delay": None}
MONTH = {**RECORD, "month": 13}


@pytest.fixture
def humble(serve: Callable[..., Any], models: dict[str, str]) -> Callable[..., Any]:
    routes = [{"version": "flights@1", "path": models["live"]}]
    return lambda **facts: serve(**{"routes": routes, "humility": RULES[:5], **facts}).ready()


def logged(server: Any) -> pl.DataFrame:
    frames = [frame for path in log_files(Path(server.folder) / "log") for frame in read_frames(path)[0]]
    return to_frame(frames)


def infer(record: dict[str, Any], **more: Any) -> dict[str, Any]:
    kinds = {"dep_delay": "FP64", "distance": "FP64", "month": "INT64", "carrier": "BYTES"}
    inputs = [{"name": name, "shape": [1], "datatype": kinds[name], "data": [record[name]]} for name in kinds]
    return {"inputs": inputs, **more}


def test_each_action_is_answered_per_row(humble: Callable[..., Any]) -> None:
    server = humble(durable=True)
    rows = [RECORD, FAR, EDGE, LATE, STRANGER, BLIND]
    status, answer = server.ask("/predict", {"records": rows})
    assert status == 200
    plain, far, edge, late, stranger, blind = answer["predictions"]
    assert "rules" not in plain
    assert "rules" not in edge
    assert (far["score"], far["rules"]) == (edge["score"], ["far"])
    assert (late["score"], late["label"], late["rules"]) == (None, None, ["late"])
    assert (stranger["score"], stranger["label"], stranger["rules"]) == (0.25, False, ["stranger"])
    assert (blind["score"], blind["label"], blind["rules"]) == (None, None, ["blind"])
    table = logged(server)
    assert table["rules"].to_list() == [None, ["far"], None, ["late"], ["stranger"], ["blind"]]
    assert table["action"].to_list() == [None, "clamp", None, "person", "default", "abstain"]
    assert table["in_distance"][1] == 9000.0  # as it was sent
    assert table["model_score"][3] > 0.5


def test_columns_tell_the_rules_only_where_one_fired(humble: Callable[..., Any]) -> None:
    server = humble()
    columns = {name: [RECORD[name], STRANGER[name]] for name in RECORD}
    assert server.ask("/predict", {"columns": columns})[1]["rules"] == [[], ["stranger"]]
    plain = {name: [value] for name, value in RECORD.items()}
    assert "rules" not in server.ask("/predict", {"columns": plain})[1]


def test_a_refused_row_refuses_the_request_and_is_on_record(humble: Callable[..., Any]) -> None:
    server = humble(durable=True)
    status, answer = server.ask("/predict", {"records": [RECORD, MONTH], "ids": ["a", "b"]})
    assert status == 422
    assert answer["error"]["code"] == "row_refused"
    assert answer["error"]["facts"] == {"row": 1, "rule": "month"}
    assert server.ask("/v2/models/flights/infer", infer(MONTH))[0] == 400
    assert logged(server)["role"].to_list() == ["refused"] * 3


def test_the_inference_protocol_tells_the_rules_as_a_parameter(humble: Callable[..., Any]) -> None:
    server = humble()
    assert "parameters" not in server.ask("/v2/models/flights/infer", infer(RECORD))[1]
    status, answer = server.ask("/v2/models/flights/infer", infer(LATE))
    assert status == 200
    assert json.loads(answer["parameters"]["rules"]) == [["late"]]
    outputs = {item["name"]: item["data"] for item in answer["outputs"]}
    assert (outputs["score"], outputs["label"]) == ([None], [None])
    raw = infer(LATE, outputs=[{"name": "score", "parameters": {"binary_data": True}}])
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    connection.request("POST", "/v2/models/flights/infer", json.dumps(raw))
    response = connection.getresponse()
    assert response.status == 200  # not a number, which raw tensors can say
    connection.close()


def test_grpc_tells_the_rules(humble: Callable[..., Any]) -> None:
    client = pytest.importorskip("tritonclient.grpc")
    server = humble(grpc_port=0, durable=True)
    while "answers gRPC at port" not in server.said():
        time.sleep(0.01)
    port = server.said().partition("answers gRPC at port ")[2].split()[0]
    inputs = []
    for name, kind, dtype in (("dep_delay", "FP64", float), ("distance", "FP64", float), ("month", "INT64", np.int64)):
        inputs.append(client.InferInput(name, [1], kind))
        inputs[-1].set_data_from_numpy(np.array([LATE[name]], dtype=dtype))
    inputs.append(client.InferInput("carrier", [1], "BYTES"))
    inputs[-1].set_data_from_numpy(np.array([b"UA"], dtype=object))
    with client.InferenceServerClient(f"127.0.0.1:{port}") as connection:
        told = connection.infer("flights", inputs)
    assert json.loads(told.get_response().parameters["rules"].string_param) == [["late"]]
    assert np.isnan(told.as_numpy("score")[0])
    assert told.as_numpy("label") is None  # raw tensors cannot say that there is none
    assert logged(server)["route"].to_list() == ["grpc"]


def test_rules_are_counted_by_rule_and_action(humble: Callable[..., Any]) -> None:
    server = humble(humility=RULES)
    server.ask("/predict", {"records": [LATE, FAR, RECORD]})
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    line = 'mainspring_humility_rows_total{{deployment="flights",rule="{}",action="{}"}} {}'
    for rule, action, count in (("late", "person", 1), ("far", "clamp", 1), ("torn", "log", 1), ("torn", "clamp", 1)):
        assert line.format(rule, action, count) in text


def test_changed_rules_are_in_force_without_a_restart(humble: Callable[..., Any]) -> None:
    server = humble(humility=[])
    assert server.ask("/predict", {"records": [LATE]})[1]["predictions"][0]["score"] is not None
    server.configure(humility=RULES[:5], revision=2)
    assert server.reload() == (200, {"revision": 2})
    assert server.ask("/predict", {"records": [LATE]})[1]["predictions"][0]["score"] is None
    server.configure(humility=[{**RULES[0], "column": "nowhere"}], revision=3)
    status, answer = server.reload()
    assert status == 422
    assert "no column `nowhere`" in answer["error"]["message"]
    assert server.ask("/predict", {"records": [LATE]})[1]["predictions"][0]["rules"] == ["late"]


def test_rows_of_several_requests_that_are_scored_together_keep_their_own_marks(models: dict[str, str]) -> None:
    rules = [HumilityRule(name="month", when="outlying_input", column="month", low=1, high=12, then="error")]
    lineup = Lineup(1, [Route(version="flights@1", path=models["live"])], humility=rules)
    columns = {name: [RECORD[name], MONTH[name]] for name in RECORD}
    answer = lineup.score(Batch(columns, 2, ["a", "b"]))
    first, second = answer.part(slice(0, 1)), answer.part(slice(1, 2))
    assert first.marks is None
    assert second.rules == [["month"]]


def test_server_batch_and_stream_answer_the_same_rows_the_same_way(
    humble: Callable[..., Any], models: dict[str, str], tmp_path: Path
) -> None:
    draw = random.Random(5)
    choices: dict[str, list[Any]] = {
        "dep_delay": [None, -31.0, -30.0, 0.0, 45.0, 600.0, 700.0],
        "distance": [0.0, 1400.0, 5000.0, 5000.5, 9000.0],
        "month": [0, 1, 7, 12, 13],
        "carrier": ["AA", "UA", "ZZ", ""],
    }
    rows = [{name: draw.choice(values) for name, values in choices.items()} for _ in range(200)]
    source, target = (tmp_path / "in").as_uri(), (tmp_path / "out").as_uri()
    server = humble(humility=RULES, streams=[{"source": source, "target": target}])
    asked: list[Any] = []
    for row in rows:
        status, answer = server.ask("/predict", {"records": [row]})
        asked.append(answer["predictions"][0] if status == 200 else answer["error"]["code"])
    assert set(map(type, asked)) == {dict, str}

    sent = [Message(id=str(number), data=json.dumps(row).encode()) for number, row in enumerate(rows)]
    asyncio.run(published(source, sent))
    refused = [number for number, answer in enumerate(asked) if answer == "row_refused"]
    streamed: dict[int, Any] = {}
    for url, count in ((target, len(rows) - len(refused)), (f"{target}.dead", len(refused))):
        for message in asyncio.run(read(url, count)):
            dead = message.headers.get("error-code")
            streamed[int(message.id)] = dead or json.loads(message.data)["predictions"][0]

    rules = tuple(HumilityRule(**rule) for rule in RULES)
    scored = score_table(load_model(Path(models["live"])), pl.DataFrame(rows).lazy(), rules)
    assert scored.refused == len(refused)
    for number, (answer, row) in enumerate(zip(asked, scored.scores.to_dicts(), strict=True)):
        if isinstance(answer, str):
            assert streamed[number] == answer
            assert (row["predicted_score"], row["predicted_label"]) == (None, None)
            assert row["predicted_rules"][0] == "month"
            continue
        for name in ("version", "score", "label", "rules"):
            assert streamed[number].get(name) == answer.get(name)
        assert row["predicted_score"] == (None if answer["score"] is None else pytest.approx(answer["score"], abs=1e-6))
        assert (row["predicted_label"], row["predicted_rules"]) == (answer["label"], answer.get("rules"))


async def read(url: str, count: int) -> list[Message]:
    stream = await joined(url)
    try:
        return await collect(stream, count)
    finally:
        await stream.close()
