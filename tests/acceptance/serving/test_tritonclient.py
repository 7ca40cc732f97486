"""The unmodified tritonclient, over HTTP and gRPC, against the serving process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from mainspring.testing.models import RECORD, write_identity, write_model, write_product

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    **{
        f"INT{bits}": np.array([[-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]], f"i{bits // 8}") for bits in (8, 16, 32, 64)
    },
    **{f"UINT{bits}": np.array([[0, 2**bits - 1]], f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    "FP16": np.array([[1.5, np.inf]], np.float16),
    "FP32": np.array([[0.1, np.nan]], np.float32),
    "FP64": np.array([[0.1, -np.inf]], np.float64),
    "BYTES": np.array([["a", "é"]], dtype=object),
}


class Place(NamedTuple):
    http: str
    grpc: str
    folder: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("triton")
    write_model(folder / "flights")
    write_identity(folder / "models" / "identity")
    for version in (1, 2):
        write_product(folder / "models" / "sum" / str(version), factor=version)
    config = {
        "name": "flights",
        "revision": 1,
        "routes": [{"version": "flights@1", "path": str(folder / "flights")}],
        "models_dir": str(folder / "models"),
        "state_dir": str(folder),
        "log_dir": str(folder / "log"),
        "token": "sesame",
        "admin_token": "admin",
        "body_limit": 1 << 20,
        "grpc_port": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "mainspring.serving.process", "--config", str(folder / "config.json")]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    while not (folder / "address.json").exists():
        assert process.poll() is None, (folder / "stderr").read_text()
        time.sleep(0.01)
    url = json.loads((folder / "address.json").read_text())["url"].removeprefix("http://")
    found = re.search(r"gRPC at port (\d+)", (folder / "stderr").read_text())
    assert found
    yield Place(url, f"127.0.0.1:{found[1]}", folder)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, (folder / "stderr").read_text()


class Face:
    """One of tritonclient's two clients, with the differences between them put away."""

    def __init__(self, name: str, place: Place) -> None:
        self.module: Any = over_http if name == "http" else over_grpc
        self.client = self.module.InferenceServerClient(place.http if name == "http" else place.grpc)
        self.http = name == "http"
        self.user = {"Authorization" if self.http else "authorization": "Bearer sesame"}
        self.admin = {"Authorization" if self.http else "authorization": "Bearer admin"}

    def input(self, name: str, values: Any, **how: Any) -> Any:
        tensor = self.module.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values, **how)
        return tensor

    def infer(self, model: str, inputs: list[Any], **facts: Any) -> Any:
        return self.client.infer(model, inputs, headers=self.user, **facts)

    def metadata(self, got: Any) -> dict[str, Any]:
        if self.http:
            return dict(got)
        return {"name": got.name, "versions": list(got.versions), "inputs": [{"name": one.name} for one in got.inputs]}


@pytest.fixture(params=["http", "grpc"])
def face(request: pytest.FixtureRequest, place: Place) -> Iterator[Face]:
    face = Face(request.param, place)
    yield face
    face.client.close()


def rows(*values: list[float]) -> Any:
    return np.array(values, dtype=np.float32)


def test_health_and_metadata(face: Face) -> None:
    assert face.client.is_server_live()
    assert face.client.is_server_ready()
    for model, ready in (("flights", True), ("sum", True), ("nobody", False)):
        assert face.client.is_model_ready(model, headers=face.user) is ready
    server = face.client.get_server_metadata(headers=face.user)
    assert (server["name"] if face.http else server.name) == "mainspring"
    model = face.metadata(face.client.get_model_metadata("flights", headers=face.user))
    assert (model["name"], model["versions"]) == ("flights", ["flights@1"])
    assert [one["name"] for one in model["inputs"]] == list(RECORD)


@pytest.mark.parametrize("name", VALUES)
def test_every_datatype(face: Face, name: str) -> None:
    inputs = [face.input(other, VALUES[other] if other == name else VALUES[other][:0]) for other in VALUES]
    answer = face.infer("identity", inputs, outputs=[face.module.InferRequestedOutput(f"{name}_OUT")], request_id="q")
    got = answer.as_numpy(f"{name}_OUT")
    if name == "BYTES":
        got = np.array([[value.decode() for value in row] for row in got], dtype=object)
    assert got.dtype == VALUES[name].dtype
    np.testing.assert_array_equal(got, VALUES[name])
    told = answer.get_response()
    assert (told["id"] if face.http else told.id) == "q"


def test_columns_and_versions(face: Face) -> None:
    columns = [
        face.input("dep_delay", np.array([45.0, np.nan], np.float32)),
        face.input("distance", np.array([[1400.0], [200.0]], np.float64)),
        face.input("month", np.array([7, 1], np.int32)),
        face.input("carrier", np.array(["UA", "AA"], dtype=object)),
    ]
    answer = face.infer("flights", columns)
    assert answer.as_numpy("label").dtype == np.bool_
    assert answer.as_numpy("version").tolist() == [b"flights@1"] * 2
    assert answer.as_numpy("score").shape == (2,)
    whole = [face.input("rows", rows([1, 2, 3]))]
    assert face.infer("sum", whole).as_numpy("score").tolist() == [12]
    assert face.infer("sum", whole, model_version="1").as_numpy("score").tolist() == [6]


def test_async_infer(face: Face) -> None:
    whole = [face.input("rows", rows([1, 2, 3]))]
    if face.http:
        pending = [face.client.async_infer("sum", whole, headers=face.user) for _ in range(10)]
        answers = [one.get_result() for one in pending]
    else:
        answers, failures = [], []

        def done(result: Any, error: Any) -> None:
            (failures if error else answers).append(error or result)

        for _ in range(10):
            face.client.async_infer("sum", whole, done, headers=face.user)
        while len(answers) + len(failures) < 10:
            time.sleep(0.005)
        assert failures == []
    assert [one.as_numpy("score").tolist() for one in answers] == [[12]] * 10


def test_http_json_and_compression(place: Place) -> None:
    face = Face("http", place)
    score = over_http.InferRequestedOutput("score", binary_data=False)
    plain = [face.input("rows", rows([1, 2, 3]), binary_data=False)]
    assert face.infer("sum", plain, outputs=[score]).as_numpy("score").tolist() == [12]
    mixed = [face.input(f"c{number}", rows([number + 1]).reshape(1), binary_data=number > 0) for number in range(3)]
    assert face.infer("sum", mixed).as_numpy("score").tolist() == [12]
    many = [face.input("rows", np.ones((2000, 3), np.float32))]
    for method in ("gzip", "deflate"):
        answer = face.infer("sum", many, request_compression_algorithm=method, response_compression_algorithm=method)
        assert answer.as_numpy("score").tolist() == [6] * 2000
    face.client.close()


def test_repository(face: Face, place: Place) -> None:
    name = f"young-{'http' if face.http else 'grpc'}"
    write_product(place.folder / "models" / name, factor=3)
    whole = [face.input("rows", rows([1, 2, 3]))]
    for headers, code in ((None, "401" if face.http else "UNAUTHENTICATED"), (face.user, "40")):
        with pytest.raises(InferenceServerException) as caught:
            face.client.load_model(name, headers=headers)
        if headers is None:
            assert code in caught.value.status()

    def state() -> str:
        index = face.client.get_model_repository_index(headers=face.user)
        models = index if face.http else [{"name": one.name, "state": one.state} for one in index.models]
        return next(str(one["state"]) for one in models if one["name"] == name)

    assert state() == "UNAVAILABLE"
    face.client.load_model(name, headers=face.admin)
    assert state() == "READY"
    assert face.infer(name, whole).as_numpy("score").tolist() == [18]
    face.client.unload_model(name, headers=face.admin)
    assert state() == "UNAVAILABLE"
    assert not face.client.is_model_ready(name, headers=face.user)
    with pytest.raises(InferenceServerException, match="was unloaded"):
        face.infer(name, whole)


@pytest.mark.parametrize(
    ("model", "name", "values", "said", "code"),
    [
        ("nobody", "rows", rows([1, 2, 3]), "no model named", "NOT_FOUND"),
        ("sum", "rows", rows([1, 2]), r"the model reads \[rows, 3\]", "INVALID_ARGUMENT"),
        ("sum", "rows", np.array([["a"]], dtype=object), "neither a column", "INVALID_ARGUMENT"),
        ("identity", "FP32", rows([1]), "is missing", "INVALID_ARGUMENT"),
        ("flights", "month", rows([1]), "INT64|is missing", "INVALID_ARGUMENT"),
    ],
)
def test_errors(face: Face, model: str, name: str, values: Any, said: str, code: str) -> None:
    with pytest.raises(InferenceServerException, match=said) as caught:
        face.infer(model, [face.input(name, values)])
    expected = {"NOT_FOUND": "404", "INVALID_ARGUMENT": "400"}[code] if face.http else code
    assert expected in caught.value.status()


def test_token_and_size_limit(face: Face) -> None:
    with pytest.raises(InferenceServerException):
        face.client.infer("sum", [face.input("rows", rows([1, 2, 3]))])
    with pytest.raises(InferenceServerException) as caught:
        face.infer("sum", [face.input("rows", np.ones((200_000, 3), np.float32))])
    assert face.http or "RESOURCE_EXHAUSTED" in caught.value.status()
    assert face.infer("sum", [face.input("rows", rows([1, 2, 3]))]).as_numpy("score").tolist() == [12]


def test_typed_grpc_contents(place: Place) -> None:
    import grpc

    from mainspring.serving.grpc_messages import MESSAGES

    def ask(**facts: Any) -> Any:
        with grpc.insecure_channel(place.grpc) as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=MESSAGES["ModelInferRequest"].SerializeToString,
                response_deserializer=MESSAGES["ModelInferResponse"].FromString,
            )
            request = MESSAGES["ModelInferRequest"](model_name="sum", **facts)
            return call(request, metadata=(("authorization", "Bearer sesame"),), timeout=10)

    def tensor(**facts: Any) -> dict[str, Any]:
        told = {"name": "rows", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 2, 3]}}
        return {"inputs": [{**told, **facts}]}

    (score, *_) = ask(**tensor()).outputs
    assert list(score.contents.fp64_contents) == [12]
    for bad in (
        tensor(shape=[1, 4]),
        tensor(shape=[-1, 3]),
        tensor(datatype="FP64"),
        tensor(datatype="FP16"),
        tensor(datatype="UINT8", contents={"uint_contents": [1, 2, 300]}),
        tensor(parameters={"shared_memory_region": {"string_param": "x"}}),
        {**tensor(), "raw_input_contents": [bytes(12)]},
        {**tensor(), "raw_input_contents": [b"", b""]},
        {**tensor(), "outputs": [{"name": "colour"}]},
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask(**bad)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_content_type_over_grpc(place: Place) -> None:
    face = Face("grpc", place)
    columns = {
        name: np.array([value], dtype=object if isinstance(value, str) else None) for name, value in RECORD.items()
    }
    plain = face.infer("flights", [face.input(name, values) for name, values in columns.items()])
    inputs = [face.input(name, values) for name, values in ({**columns, "carrier": np.array(["VUE="], object)}).items()]
    for item in inputs:
        item._get_tensor().parameters["content_type"].string_param = "base64" if item.name() == "carrier" else "np"
    assert face.infer("flights", inputs).as_numpy("score") == plain.as_numpy("score")
    face.client.close()
