"""Packages without an ONNX twin: the original is served, fed arrays, and asked for many rows at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

import mainspring as ms
from mainspring.errors import InvalidInput, Refused
from mainspring.ports.target import Route
from mainspring.registry.load import batching_pays, load_model
from mainspring.registry.original import OriginalModel
from mainspring.serving.lineup import Lineup
from mainspring.serving.request import Answer, Batch

DRAW = np.random.default_rng(3)
ROWS = 300
NUMBERS = pl.DataFrame({name: DRAW.normal(size=ROWS).astype(np.float32) for name in "abc"})
MIXED = NUMBERS.with_columns(pl.Series("d", DRAW.choice(["x", "y"], ROWS)))
LABEL = (NUMBERS["a"] > 0).to_numpy()


def shift(table: Any) -> Any:
    return table


def write(folder: Path, estimator: Any, rows: pl.DataFrame) -> Path:
    package = ms.package(estimator, rows, twin="preferred")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in package.files.items():
        if name != "model.onnx":
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", ["forest", "mixed", "regressor"])
def test_scores_are_the_models(tmp_path: Path, kind: str) -> None:
    rows = MIXED if kind == "mixed" else NUMBERS
    if kind == "forest":
        fitted = RandomForestClassifier(5, random_state=1).fit(rows, LABEL)
    elif kind == "mixed":
        encode = ColumnTransformer([("d", OneHotEncoder(), ["d"])], remainder="passthrough")
        fitted = make_pipeline(encode, LogisticRegression()).fit(rows, LABEL)
    else:
        fitted = LinearRegression().fit(rows, LABEL.astype(float))
    model = load_model(write(tmp_path, fitted, rows))
    assert isinstance(model, OriginalModel)
    expected = fitted.predict(rows) if kind == "regressor" else fitted.predict_proba(rows)[:, 1]
    assert np.allclose(model.score(rows.to_dict(as_series=False), ROWS), expected)
    assert model.score({name: [] for name in rows.columns}, 0) == []
    if kind != "mixed":
        assert np.allclose(model.score_packed(rows.to_numpy()), expected, atol=1e-6)


def test_types_that_nobody_trusts(tmp_path: Path) -> None:
    fitted = make_pipeline(FunctionTransformer(shift), LogisticRegression()).fit(NUMBERS, LABEL)
    folder = write(tmp_path, fitted, NUMBERS)
    with pytest.raises(Refused, match="nobody trusts") as caught:
        load_model(folder)
    named = caught.value.message.rpartition(": ")[2].split(", ")
    assert len(load_model(folder, trusted=named).score(NUMBERS.to_dict(as_series=False), ROWS)) == ROWS
    (folder / "model.skops").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InvalidInput, match="not loadable"):
        load_model(folder)


def test_requests_of_one_turn_are_scored_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = RandomForestClassifier(20, random_state=1).fit(NUMBERS, LABEL)
    lineup = Lineup(1, [Route(version="f@1", path=str(write(tmp_path, fitted, NUMBERS)))])
    assert lineup.batches
    calls: list[int] = []
    score = lineup.score

    def counted(batch: Batch, version: str = "") -> Answer:
        calls.append(batch.rows)
        return score(batch, version)

    monkeypatch.setattr(lineup, "score", counted)
    table = NUMBERS.to_dict(as_series=False)

    async def work() -> list[Answer]:
        batches = [
            Batch({name: values[row : row + 2] for name, values in table.items()}, 2, [f"{row}-0", f"{row}-1"])
            for row in range(0, 40, 2)
        ]
        packed = Batch({name: values[:1] for name, values in table.items()}, 1, packed=NUMBERS.to_numpy()[:1])
        broken = Batch({"a": [1.0], "b": [1.0], "c": ["no number"]}, 1)
        coming = [lineup.ask(batch) for batch in (*batches, packed, broken)]
        answers = await asyncio.gather(*coming, return_exceptions=True)  # type: ignore[arg-type]
        assert isinstance(answers.pop(), ValueError)
        alone = lineup.ask(batches[0])
        assert (await alone).ids == ["0-0", "0-1"]  # type: ignore[misc]
        return answers  # type: ignore[return-value]

    answers = asyncio.run(work())
    expected = fitted.predict_proba(NUMBERS)[:, 1]
    for row, answer in zip(range(0, 40, 2), answers, strict=False):
        assert answer.ids == [f"{row}-0", f"{row}-1"]
        assert np.allclose(answer.scores, expected[row : row + 2])
    assert np.allclose(answers[-1].scores, expected[:1])
    assert max(calls) == 41  # with the broken one, after whose failure each is scored alone


def test_batching_pays_where_calls_are_dear() -> None:
    assert batching_pays(1e-3, 1.1e-3)
    assert not batching_pays(5e-6, 2e-5)
    assert not batching_pays(1e-3, 16e-3)
