"""Models that tell several classes apart answer the class, its probability, and those of all, whoever asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from tests.integration.serving.test_serving_protocol import Door

import mainspring as ms
from mainspring.core.humility import HumilityRule
from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput
from mainspring.ports.target import Route
from mainspring.registry.compatibility import breaking_changes
from mainspring.registry.load import judged, load_model
from mainspring.serving.app import App
from mainspring.serving.batch import score_table
from mainspring.serving.lineup import Lineup
from mainspring.serving.log import log_files, read_frames

DRAW = np.random.default_rng(5)
ROWS = pl.DataFrame({name: DRAW.normal(size=150).astype(np.float32) for name in ("length", "width")})
KINDS = np.array(["setosa", "versicolor", "virginica"])
TRUTH = KINDS[np.digitize(ROWS["length"].to_numpy() + ROWS["width"].to_numpy(), [-0.5, 0.7])]
MODEL = LogisticRegression().fit(ROWS, TRUTH)
RECORD = {"length": -3.0, "width": -2.0}
SHARES = MODEL.predict_proba(pl.DataFrame([RECORD]))[0]


def write(folder: Path, *, twin: bool = True, truth: Any = TRUTH) -> Path:
    packed = ms.package(LogisticRegression().fit(ROWS, truth), ROWS)
    assert packed.twin_difference is not None
    folder.mkdir(parents=True)
    for path, content in packed.files.items():
        if twin or path != "model.onnx":
            (folder / path).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("classes") / "model")


@pytest.fixture
def door(folder: Path, tmp_path: Path) -> Iterator[Door]:
    rule = {"name": "long", "when": "outlying_input", "column": "length", "low": -9, "high": 2.2}
    facts = {
        "name": "iris", "revision": 1, "state_dir": str(tmp_path), "log_dir": str(tmp_path / "log"), "durable": True,
        "routes": [{"version": "iris@1", "path": str(folder)}], "humility": [rule | {"then": "default", "value": 0.25}],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(facts))
    door = Door(App(tmp_path / "config.json"))
    yield door
    door.close()


@pytest.mark.parametrize("twin", [True, False])
def test_twin_and_original_tell_the_probabilities(tmp_path: Path, twin: bool) -> None:
    model = load_model(write(tmp_path / "model", twin=twin))
    assert (model.platform, model.signature.classes) == ("onnx" if twin else "sklearn", tuple(KINDS))
    shares = model.probabilities(ROWS.to_dict(as_series=False), ROWS.height)
    assert np.allclose(shares, MODEL.predict_proba(ROWS), atol=1e-5)
    assert np.allclose(model.score(ROWS.to_dict(as_series=False), ROWS.height), shares.max(axis=1), atol=1e-6)
    assert np.allclose(model.score_arrays({name: ROWS[name].to_numpy() for name in ROWS.columns}), shares.max(axis=1))
    assert np.allclose(model.score_packed(ROWS.to_numpy()), shares.max(axis=1), atol=1e-6)
    scores, right = judged(model, ROWS.with_columns(label=pl.Series(TRUTH)), "label")
    assert right.tolist() == (MODEL.predict(ROWS) == TRUTH).astype(float).tolist()
    assert np.allclose(scores, shares.max(axis=1))


def test_predict_answers_the_class(door: Door, tmp_path: Path) -> None:
    (told,) = door.json("/predict", {"records": [RECORD], "ids": ["a"]})["predictions"]
    assert (told["label"], told["score"]) == ("setosa", pytest.approx(SHARES[0], abs=1e-5))
    assert told["probabilities"] == {
        kind: pytest.approx(share, abs=1e-5) for kind, share in zip(KINDS, SHARES, strict=True)
    }
    columns = {name: [value, value] for name, value in RECORD.items()}
    several = door.json("/predict", {"columns": columns})
    assert several["labels"] == ["setosa", "setosa"]
    assert [len(values) for values in several["probabilities"].values()] == [2, 2, 2]
    frame, _ = read_frames(log_files(tmp_path / "log")[0])[0]
    assert (frame.ids, frame.labels, frame.classes) == (["a"], [None], ["setosa"])
    assert frame.scores == [pytest.approx(SHARES[0], abs=1e-5)]


def test_a_rule_that_decides_leaves_no_class(door: Door) -> None:
    (told,) = door.json("/predict", {"records": [{**RECORD, "length": 2.5}]})["predictions"]
    assert (told["label"], told["score"], told["rules"]) == (None, 0.25, ["long"])


def test_the_inference_protocol_has_a_tensor_of_classes(door: Door) -> None:
    outputs = {item["name"]: item for item in door.json("/v2/models/iris")["outputs"]}
    assert (outputs["label"]["datatype"], outputs["probabilities"]["shape"]) == ("BYTES", [-1, 3])
    inputs = [{"name": "all", "shape": [2, 2], "datatype": "FP32", "data": [*RECORD.values(), 1.0, 1.5]}]
    told = door.json("/v2/models/iris/infer", {"inputs": inputs})
    found = {item["name"]: item for item in told["outputs"]}
    assert json.loads(told["parameters"]["classes"]) == list(KINDS)
    assert found["label"]["data"] == ["setosa", "virginica"]
    assert found["probabilities"]["shape"] == [2, 3]
    assert found["probabilities"]["data"][:3] == pytest.approx(SHARES.tolist(), abs=1e-5)
    asked = {"inputs": inputs, "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
    reply = door.ask("/v2/models/iris/infer", asked)
    raw = np.frombuffer(reply.body[-48:], "<f8").reshape(2, 3)
    assert np.allclose(raw.sum(axis=1), 1.0)
    schema = door.json("/v2/models/iris/openapi.json")["components"]["schemas"]["Predictions"]
    assert schema["properties"]["labels"]["items"]["enum"] == [*KINDS, None]


def test_versions_share_a_lineup_only_with_the_same_classes(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", truth=np.char.upper(TRUTH))
    routes = [Route(version="iris@1", path=str(folder)), Route(version="iris@2", path=str(other), role="shadow")]
    with pytest.raises(InvalidInput, match="other classes"):
        Lineup(1, routes)
    one, two = load_model(folder).signature, load_model(other).signature
    assert breaking_changes(one, one) == []
    assert "setosa, versicolor, virginica, it answers one of SETOSA" in breaking_changes(one, two)[0]
    assert "yes or no" in breaking_changes(one, Signature(inputs=one.inputs))[0]


def test_tables_get_the_class(folder: Path) -> None:
    rule = HumilityRule(name="x", when="outlying_input", column="length", low=-9.0, high=1.0, then="abstain")
    scored = score_table(load_model(folder), ROWS.lazy(), [rule])
    answers = zip(ROWS["length"], MODEL.predict(ROWS), strict=True)
    expected = [None if length > 1 else str(kind) for length, kind in answers]
    assert scored.scores["predicted_label"].to_list() == expected


def test_boosters_of_several_classes(tmp_path: Path) -> None:
    import lightgbm
    import xgboost

    from mainspring.core.package import EXAMPLE
    from mainspring.registry import boosters, mlmodel

    codes = np.searchsorted(KINDS, TRUTH)
    table = ROWS.to_numpy()
    facts, data = {"num_class": 3, "seed": 1}, xgboost.DMatrix(table, codes)
    sure = xgboost.train({"objective": "multi:softprob", **facts}, data, 3).inplace_predict(table)
    xgboost.train({"objective": "multi:softmax", **facts}, data, 3).save_model(tmp_path / "model.ubj")
    wanted = {"objective": "multiclass", "num_class": 3, "verbose": -1}
    light = lightgbm.train(wanted, lightgbm.Dataset(table, codes), 3)
    light.save_model(tmp_path / "model.lgb")
    cases = (("xgboost", "model.ubj", sure), ("lightgbm", "model.lgb", light.predict(table)))
    for flavor, file, expected in cases:
        (tmp_path / "MLmodel").write_text(json.dumps({"flavors": {flavor: {"data": file}}}))
        signature = boosters.learn(tmp_path, mlmodel.read((tmp_path / "MLmodel").read_bytes()))
        assert signature.classes == ("0", "1", "2")
        (tmp_path / "signature.json").write_bytes(signature.to_json())
        assert not (tmp_path / EXAMPLE).exists()
        columns = dict(zip([field.name for field in signature.inputs], table.T.tolist(), strict=True))
        assert np.allclose(load_model(tmp_path).probabilities(columns, len(table)), expected, atol=1e-6), flavor
