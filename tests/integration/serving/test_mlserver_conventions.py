"""What MLServer's clients send: the requests as `mlserver.codecs` 1.7.1 encodes them, and content types it has."""

from __future__ import annotations

from typing import Any

import pytest

from mainspring.testing.models import RECORD, write_product

COLUMNS = {"dep_delay": ("FP64", [45.0, 3.0]), "distance": ("FP64", [1400.0, 200.0]), "month": ("INT64", [7, 8])}
ROWS = [RECORD, {"dep_delay": 3.0, "distance": 200.0, "month": 8, "carrier": "AA"}]


def tensor(name: str, kind: str, data: list[Any], content_type: str = "") -> dict[str, Any]:
    facts = {"parameters": {"content_type": content_type}} if content_type else {}
    return {"name": name, "shape": [len(data), 1], "datatype": kind, **facts, "data": data}


def request(numbers: str, carriers: list[str], texts: str) -> dict[str, Any]:
    inputs = [tensor(name, kind, data, numbers) for name, (kind, data) in COLUMNS.items()]
    return {"inputs": [*inputs, tensor("carrier", "BYTES", carriers, texts)]}


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"content_type": "pd"}, **request("", ["UA", "AA"], "str")},
        request("np", ["UA", "AA"], "str"),
        request("np", ["VUE=", "QUE="], "base64"),
    ],
    ids=["PandasCodec", "NumpyCodec and StringCodec", "Base64Codec"],
)
def test_rows_are_read_as_they_were_encoded(server: Any, asked: dict[str, Any]) -> None:
    expected = [row["score"] for row in server.ask("/predict", {"records": ROWS})[1]["predictions"]]
    status, answer = server.ask("/v2/models/flights/infer", asked)
    assert (status, answer["outputs"][0]["name"]) == (200, "score")
    assert answer["outputs"][0]["data"] == expected


def test_an_array_of_numpy_request_codec(serve: Any, tmp_path: Any) -> None:
    write_product(tmp_path / "sum")
    server = serve(routes=[{"version": "sum@1", "path": str(tmp_path / "sum")}]).ready()
    facts = {"content_type": "np"}
    given = {"name": "input-1", "shape": [1, 3], "datatype": "FP64", "parameters": facts, "data": [1.5, 2.0, 3.0]}
    status, answer = server.ask("/v2/models/flights/infer", {"parameters": facts, "inputs": [given]})
    assert (status, answer["outputs"][0]["data"]) == (200, [6.5])


@pytest.mark.parametrize(
    ("carriers", "content_type", "told"),
    [
        (['"UA"', '"AA"'], "hg_json", "not offered"),
        (["UA", "AA"], "base64", "base64"),
        (["UA", "AA"], "pil_image", "not offered"),
    ],
)
def test_what_is_not_a_column_is_refused(server: Any, carriers: list[str], content_type: str, told: str) -> None:
    status, answer = server.ask("/v2/models/flights/infer", request("np", carriers, content_type))
    assert status == 400
    assert told in answer["error"]
