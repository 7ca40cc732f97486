from __future__ import annotations

import asyncio
import html
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from mainspring.serving.app import App
from mainspring.serving.log import log_files, read_frames
from mainspring.serving.message import Call, Reply
from mainspring.serving.tensors import DATATYPES, to_bytes
from mainspring.testing.models import RECORD, write_identity, write_model, write_product

INFER = "/v2/models/sum/infer"


class Door:
    """Asks an `App` as its HTTP face does."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._loop = asyncio.Runner()

    def ask(self, path: str, body: Any = None, *, raw: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
        if raw:
            lines[b"inference-header-content-length"] = str(len(data)).encode()

        async def asked() -> Reply:
            call = Call("GET" if body is None else "POST", path, lines, data + raw, "127.0.0.1", "127.0.0.1")
            got = self.app.answer(call)
            return got if isinstance(got, Reply) else await got

        return self._loop.run(asked())

    def json(self, path: str, body: Any = None, **facts: Any) -> Any:
        reply = self.ask(path, body, **facts)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    def refused(self, path: str, body: Any = None, **facts: Any) -> tuple[int, str]:
        reply = self.ask(path, body, **facts)
        return reply.status, json.loads(reply.body)["error"]

    def close(self) -> None:
        self._loop.close()
        self.app.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    write_model(folder / "flights")
    write_product(folder / "models" / "sum")
    write_identity(folder / "models" / "identity")
    (folder / "models" / "broken").mkdir()
    (folder / "models" / "broken" / "model.onnx").write_bytes(b"?")
    return folder


@pytest.fixture(scope="module")
def door(folder: Path) -> Iterator[Door]:
    config = {
        "name": "flights",
        "revision": 1,
        "routes": [{"version": "flights@1", "path": str(folder / "flights")}],
        "models_dir": str(folder / "models"),
        "state_dir": str(folder),
        "log_dir": str(folder / "log"),
        "admin_token": "admin",
        "durable": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    door = Door(App(folder / "config.json"))
    yield door
    door.close()


def packed(rows: list[list[Any]], datatype: str = "FP32", **facts: Any) -> dict[str, Any]:
    tensor = {"name": "rows", "shape": [len(rows), 3], "datatype": datatype, "data": rows}
    return {"inputs": [{**tensor, **facts}]}


def data(answer: dict[str, Any], name: str) -> Any:
    return {item["name"]: item for item in answer["outputs"]}[name]["data"]


def test_all_columns_in_one_tensor(door: Door) -> None:
    answer = door.json(INFER, packed([[1, 2, 3], [4, 5, 6]]))
    assert data(answer, "score") == [6, 15]
    assert answer["model_version"] == "sum@1"
    flat = packed([])["inputs"][0] | {"shape": [2, 3], "data": [1, 2, 3, 4, 5, 6], "datatype": "INT8"}
    assert data(door.json(INFER, {"inputs": [flat]}), "score") == [6, 15]
    columns = [{"name": f"c{place}", "shape": [2], "datatype": "FP32", "data": [1, 2]} for place in range(3)]
    assert data(door.json(INFER, {"inputs": columns}), "score") == [3, 6]
    assert data(door.json(INFER, packed([])), "score") == []


def test_binary_tensors(door: Door) -> None:
    rows = np.array([[1, 2, 3], [4, 5, math.nan]], dtype=np.float32)
    tensor = {"name": "rows", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}}
    asked = {"inputs": [tensor], "outputs": [{"name": "score", "parameters": {"binary_data": True}}, {"name": "id"}]}
    reply = door.ask(INFER, asked | {"id": "q"}, raw=rows.tobytes())
    assert (reply.status, reply.kind) == (200, b"application/octet-stream")
    length = int(reply.headers.split(b":")[1])
    told = json.loads(reply.body[:length])
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 16}
    scores = np.frombuffer(reply.body[length:], "<f8")
    assert scores[0] == 6
    assert math.isnan(scores[1])
    assert told["outputs"][1]["data"] == ["q-0", "q-1"]


def test_mixed_json_and_binary_columns(door: Door) -> None:
    inputs = [
        {"name": "c0", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
        {"name": "c1", "shape": [1], "datatype": "FP32", "data": [2]},
        {"name": "c2", "shape": [1, 1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}},
    ]
    raw = np.array([1], "<f8").tobytes() + b"\x03"
    assert data(door.json(INFER, {"inputs": inputs}, raw=raw), "score") == [6]


def test_rows_are_logged_as_they_were_sent(door: Door, folder: Path) -> None:
    door.json(INFER, packed([[7, 8, 9]]) | {"id": "logged"})
    frames = [frame for path in log_files(folder / "log" / "sum") for frame in read_frames(path)[0]]
    (frame,) = [frame for frame in frames if frame.ids == ["logged"]]
    assert frame.columns == {"c0": [7.0], "c1": [8.0], "c2": [9.0]}
    assert (frame.versions, frame.scores) == (["sum@1"], [24.0])


@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_every_datatype_goes_through_a_bare_model(door: Door, name: str) -> None:
    kind = DATATYPES[name]
    values = {"BYTES": ["a", "é\0"], "BOOL": [True, False]}.get(name, [1, 100])
    inputs, raw = [], b""
    for other, told in DATATYPES.items():
        item: dict[str, Any] = {"name": other, "shape": [0, 1], "datatype": other, "data": []}
        if other == name:
            array = np.array(values, dtype=told.dtype).reshape(1, 2)
            raw = to_bytes(array)
            item |= {"shape": [1, 2], "parameters": {"binary_data_size": len(raw)}}
            del item["data"]
        inputs.append(item)
    outputs = [{"name": f"{name}_OUT"}]
    (output,) = door.json("/v2/models/identity/infer", {"inputs": inputs, "outputs": outputs}, raw=raw)["outputs"]
    assert output == {"name": f"{name}_OUT", "datatype": name, "shape": [1, 2], "data": values}
    assert kind.name == name


@pytest.mark.parametrize(
    ("change", "raw"),
    [
        ({"shape": [1, 2]}, b""),
        ({"shape": [3]}, b""),
        ({"shape": [1, 3, 1]}, b""),
        ({"shape": [-1, 3]}, b""),
        ({"shape": [2**62, 2**62]}, b""),
        ({"datatype": "BYTES", "data": ["a", "b", "c"]}, b""),
        ({"datatype": "BF16"}, b""),
        ({"data": [[1, 2, None]]}, b""),
        ({"data": None}, b""),
        ({"data": [[1, 2, "3"]]}, b""),
        ({"data": [[1, 2, 1e39]]}, b""),
        ({"parameters": {"binary_data_size": 12}}, bytes(12)),
        ({"data": [[1, 2, 3]]}, b"x"),
        ({"parameters": {"shared_memory_region": "x"}}, b""),
    ],
)
def test_bad_packed_tensor(door: Door, change: dict[str, Any], raw: bytes) -> None:
    status, said = door.refused(INFER, packed([[1, 2, 3]], **change), raw=raw)
    assert status == 400
    assert "hint" in said


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        ({"inputs": []}, b""),
        ({}, b""),
        ([], b""),
        ({**packed([[1, 2, 3]]), "outputs": [{"name": "colour"}]}, b""),
        ({**packed([[1, 2, 3]]), "outputs": [{"name": "score"}, {"name": "score"}]}, b""),
        ({**packed([[1, 2, 3]]), "outputs": [{"name": "score", "parameters": {"classification": 2}}]}, b""),
        ({**packed([[1, 2, 3]]), "outputs": [{"name": "label"}]}, b""),
        ({**packed([[1, 2, 3]]), "parameters": {"binary_data_output": 1}}, b""),
        ({"inputs": packed([[1, 2, 3]])["inputs"] * 2}, b""),
        (
            {"inputs": [{"name": "rows", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}]},
            b"",
        ),
        (
            {"inputs": [{"name": "rows", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}]},
            bytes(11),
        ),
        (
            {
                "inputs": [
                    {"name": "rows", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": True}}
                ]
            },
            bytes(12),
        ),
        (
            {"inputs": [{"name": "rows", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}]},
            bytes(13),
        ),
    ],
)
def test_bad_request(door: Door, body: Any, raw: bytes) -> None:
    assert door.refused(INFER, body, raw=raw)[0] == 400


@pytest.mark.parametrize("length", ["-1", "x", "", "999999", "9" * 40])
def test_bad_header_length(door: Door, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    assert door.refused(INFER, packed([[1, 2, 3]]), headers=headers)[0] == 400


def test_metadata(door: Door) -> None:
    for path in ("/v2", "/v2/"):
        assert door.json(path)["extensions"] == ["binary_tensor_data", "model_repository"]
    told = door.json("/v2/models/sum")
    assert (told["platform"], told["versions"]) == ("mainspring_onnx", ["sum@1"])
    assert [item["name"] for item in told["inputs"]] == ["c0", "c1", "c2"]
    assert [item["datatype"] for item in door.json("/v2/models/identity")["inputs"]] == list(DATATYPES)
    assert door.json("/v2/models/sum/ready")["ready"] is True
    assert door.refused("/v2/models/broken")[0] == 503
    assert door.refused("/v2/models/broken/ready")[0] == 503
    assert door.refused("/v2/models/nobody/ready")[0] == 404
    assert door.refused("/v2/models/sum/versions/7")[0] == 404
    assert door.refused("/v2/nothing")[0] == 404
    assert door.refused("/v2/models/sum/infer")[0] == 405


@pytest.mark.parametrize("path", ["flights", "flights/versions/1", "sum", "identity"])
def test_openapi(door: Door, path: str) -> None:
    document = door.json(f"/v2/models/{path}/openapi.json")
    assert set(door.json("/openapi.json")["paths"]) >= {"/v2/models/flights/infer"}
    OpenAPIV31SpecValidator(document).validate()
    assert ("/predict/flights" in document["paths"]) == (path == "flights")
    if path == "flights":
        row = document["components"]["schemas"]["Row"]
        assert list(row["properties"]) == list(RECORD)
        assert row["properties"]["dep_delay"]["type"] == ["number", "null"]


def test_openapi_describes_what_is_asked_and_answered(door: Door) -> None:
    components = door.json("/v2/models/flights/openapi.json")["components"]

    def fits(schema: str, value: Any) -> bool:
        found = Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": components})
        return bool(found.is_valid(value))

    rows = {"records": [RECORD], "ids": ["a"], "time": "2026-01-05T09:00:00Z"}
    columns = {"columns": {name: [value] for name, value in RECORD.items()}}
    for asked in (rows, columns):
        assert fits("Rows", asked)
        assert fits("Predictions", door.json("/predict/flights", asked))
    kinds = {"dep_delay": "FP64", "distance": "FP64", "month": "INT64", "carrier": "BYTES"}
    inputs = [{"name": name, "shape": [1], "datatype": kind, "data": [RECORD[name]]} for name, kind in kinds.items()]
    assert fits("Inference", {"inputs": inputs, "outputs": [{"name": "score"}]})
    assert fits("Inferred", door.json("/v2/models/flights/infer", {"inputs": inputs}))
    less = {name: value for name, value in RECORD.items() if name != "month"}
    for record in (less, RECORD | {"month": "May"}, RECORD | {"distance": None}, RECORD | {"colour": "red"}):
        assert not fits("Rows", {"records": [record]})
        assert door.ask("/predict/flights", {"records": [record]}).status == 422
    assert fits("Error", json.loads(door.ask("/predict/flights", {}).body))
    assert fits("Error", json.loads(door.ask("/v2/models/flights/infer", {}).body))


def test_predict_of_any_model(door: Door) -> None:
    row = {"c0": 1, "c1": 2, "c2": 3}
    assert door.json("/predict/sum", {"records": [row]})["predictions"][0]["score"] == 6
    assert door.json("/predict/flights", {"records": [RECORD]})["predictions"][0]["label"] is True
    for name, status in (("identity", 422), ("nobody", 404), ("broken", 503)):
        assert door.ask(f"/predict/{name}", {"records": [row]}).status == status


def test_repository(door: Door, folder: Path) -> None:
    write_product(folder / "models" / "young", factor=2)
    admin = {"Authorization": "Bearer admin"}
    states = {one["name"]: one["state"] for one in door.json("/v2/repository/index", b"")}
    assert states["young"] == "UNAVAILABLE"
    assert states["flights"] == "READY"
    place = "/v2/repository/models"
    assert door.refused(f"{place}/young/load", b"")[0] == 401
    assert door.ask(f"{place}/young/load", b"", headers=admin) == Reply(200, b"")
    ready = {one["name"] for one in door.json("/v2/repository/index", {"ready": True})}
    assert {"young", "flights"} <= ready
    assert "broken" not in ready
    assert door.ask(f"{place}/young/unload", b"{}", headers=admin).status == 200
    assert door.refused("/v2/models/young/infer", packed([[1, 2, 3]]))[0] == 503
    assert door.refused(f"{place}/nobody/load", b"", headers=admin)[0] == 404
    assert door.refused(f"{place}/broken/load", b"", headers=admin)[0] == 503
    assert door.refused(f"{place}/flights/unload", b"", headers=admin)[0] == 409
    assert door.refused("/v2/repository/index", b"[")[0] == 400
    assert door.refused("/v2/repository/index")[0] == 405


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["rows", "c0", "c1", "FP32", "BYTES"]) | ANY,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | ANY,
        "datatype": st.sampled_from([*DATATYPES, "BF16"]),
    },
    optional={
        "data": st.lists(st.floats(-5, 5), max_size=4) | ANY,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | ANY}) | ANY,
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3)},
    optional={
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["score", "id"])}), max_size=2) | ANY,
        "parameters": st.fixed_dictionaries({"binary_data_output": st.booleans()}) | ANY,
        "id": ANY,
    },
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["sum", "identity", "flights"]), REQUEST, st.binary(max_size=24))
def test_no_request_makes_it_fail(door: Door, model: str, body: Any, raw: bytes) -> None:
    reply = door.ask(f"/v2/models/{model}/infer", body, raw=raw)
    assert reply.status in (200, 400), reply.body


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]], []])
def test_the_usual_answer_is_the_one_that_asking_for_each_output_gives(door: Door, rows: list[list[float]]) -> None:
    flat = {
        "name": "rows",
        "shape": [len(rows), 3],
        "datatype": "FP32",
        "data": [value for row in rows for value in row],
    }
    usual = door.json(INFER, {"inputs": [flat]})
    named = [item["name"] for item in usual["outputs"]]
    asked = door.json(INFER, {"inputs": [flat], "outputs": [{"name": name} for name in named]})
    for answer in (usual, asked):
        answer["outputs"] = [item for item in answer["outputs"] if item["name"] != "id"]
    assert usual == asked


def test_callers_of_other_servers(door: Door) -> None:
    score = door.json("/predict/flights", {"records": [RECORD, RECORD | {"dep_delay": 0.0}]})["predictions"]
    wanted = [int(item["label"]) for item in score]
    assert wanted == [1, 0]
    names, rows = list(RECORD), [list(RECORD.values()), list((RECORD | {"dep_delay": 0.0}).values())]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    for body in (
        {"dataframe_split": {"columns": names, "data": rows}},
        {"dataframe_split": {"columns": names[::-1], "data": [row[::-1] for row in rows]}},
        {"dataframe_records": records},
        {"instances": records, "signature_name": "serving_default"},
        {"instances": rows},
        {"inputs": {name: [row[place] for row in rows] for place, name in enumerate(names)}},
    ):
        assert door.json("/invocations", body) == {"predictions": wanted}, body
        assert door.json("/v1/models/flights:predict", body) == {"predictions": wanted}
    lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
    for text in ("\n".join([",".join(names), *lines]), "\n".join(lines) + "\n"):
        answer = door.ask("/invocations", text.encode(), headers={"content-type": "text/csv; charset=utf-8"})
        assert json.loads(answer.body) == {"predictions": wanted}, text
    assert door.json("/v1/models/sum:predict", {"instances": [[1, 2, 3], [4, 5, 6]]}) == {"predictions": [6.0, 15.0]}
    for kind, lines in (("application/jsonlines", records), ("application/x-ndjson; charset=utf-8", rows)):
        text = "\n".join(json.dumps(line) for line in lines)
        answer = door.ask("/invocations", text.encode(), headers={"content-type": kind})
        assert json.loads(answer.body) == {"predictions": wanted}
    answer = door.ask("/invocations", {"instances": rows}, headers={"accept": "text/csv"})
    assert (answer.body, answer.kind) == (b"1\n0\n", b"text/csv; charset=utf-8")
    answer = door.ask("/v1/models/sum:predict", {"instances": [[1, 2, 3]]}, headers={"accept": "text/csv"})
    assert answer.body == b"6.0\n"
    for probe in ("/ping", "/health", "/healthz", "/livez", "/readyz"):
        assert door.json(probe) == {}
    assert {"flights", "sum", "identity"} <= set(door.json("/v1/models")["models"])
    assert door.json("/v1/models") == door.json("/v2/models")
    assert door.json("/v1/models/sum") == {"name": "sum", "ready": True}


def test_a_browser_is_told_how_to_ask(door: Door) -> None:
    for path in ("/", "/docs"):
        reply = door.ask(path, headers={"host": 'a.example:80"><script>'})
        assert (reply.status, reply.kind) == (200, b"text/html; charset=utf-8")
        text = html.unescape(reply.body.decode())
        for said in ("flights@1", "curl http://a.example:80", "dep_delay", "-30 to 600", "may be null", "AA, B6, UA"):
            assert said in text
        assert b"<script" not in reply.body
        assert b"default-src 'none'" in reply.headers
    call = re.search(r"-d '(.*?)'</pre>", text)
    assert call
    assert door.json("/predict/flights", json.loads(call[1]))["predictions"][0]["version"] == "flights@1"
    assert door.json("/predict/", {"records": [RECORD]})["predictions"][0]["label"] is True


def test_who_asks_at_the_wrong_door_is_shown_the_right_one(door: Door) -> None:
    for body in ({"instances": [[1]]}, {"dataframe_split": {}}, {"inputs": []}):
        reply = door.ask("/predict/flights", body)
        assert reply.status == 422
        assert "/invocations" in json.loads(reply.body)["error"]["hint"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/invocations", b"{", 400),
        ("/invocations", b"[" * 100_000, 400),
        ("/invocations", [], 422),
        ("/invocations", {}, 422),
        ("/invocations", {"instances": [], "inputs": []}, 422),
        ("/invocations", {"instances": 3}, 422),
        ("/invocations", {"instances": [{"no": "such"}]}, 422),
        ("/invocations", {"instances": [[1]]}, 422),
        ("/invocations", {"instances": [{}, []]}, 422),
        ("/invocations", {"dataframe_split": []}, 422),
        ("/invocations", {"dataframe_split": {"columns": ["a", "a"], "data": []}}, 422),
        ("/invocations", {"dataframe_split": {"columns": list(RECORD), "data": [[None]]}}, 422),
        ("/invocations", {"dataframe_split": {"columns": list(RECORD), "data": [["x"] * len(RECORD)]}}, 422),
        ("/v1/models/nobody:predict", {"instances": []}, 404),
        ("/v1/models/nobody", None, 404),
        ("/v1/models/flights:explain", {"instances": []}, 404),
        ("/v1/models/flights:predict", None, 405),
        ("/v1/models/identity:predict", {"instances": [[1]]}, 422),
        ("/invocations", None, 405),
    ],
)
def test_what_other_callers_get_wrong_is_told(door: Door, path: str, body: Any, status: int) -> None:
    reply = door.ask(path, body)
    assert reply.status == status, reply.body
    assert json.loads(reply.body)["error"]["message"]


@pytest.mark.parametrize("text", [b"", b"\xff", b'a,"b\n1', b"a,b\n1", b"dep_delay\nmuch"])
def test_csv_that_cannot_be_read(door: Door, text: bytes) -> None:
    reply = door.ask("/invocations", text, headers={"content-type": "text/csv"})
    assert 400 <= reply.status < 500
    assert json.loads(reply.body)["error"]["hint"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is empty"),
        (b'{"inputs": [{"name": "distance", "datatype": "FP32", "shape": [1], "data": [NaN]}]}', "which has no NaN"),
        (b'{"inputs": [', "cannot be read as JSON"),
        (b'{"inputs": 1}', "is not an inference request"),
    ],
)
def test_a_body_that_cannot_be_read_is_told_apart(door: Door, body: bytes, told: str) -> None:
    reply = door.ask("/v2/models/flights/infer", body)
    assert reply.status == 400
    assert told in json.loads(reply.body)["error"]
