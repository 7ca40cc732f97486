"""Models that are code run in a process beside, where the workspace allows it; others are kept and say why."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.integration.registry.test_adopt import ROWS, classifier, registered, saved

import mainspring as ms
from mainspring.errors import InvalidInput, MainspringError, Refused
from mainspring.registry.foreign import ForeignModel
from mainspring.registry.load import load_model
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow
    import mlflow.pyfunc
    from mlflow.models import infer_signature

TABLE = pl.DataFrame({"a": ROWS.a.tolist(), "b": ROWS.b.tolist()})
SOURCE = '''
"""A rule of thumb."""
from weights import HEAVY

def rule(rows):
    return rows["a"] * HEAVY + rows["b"].fill_null(0.0)
'''


class Space:
    """What `registered` needs."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace


@pytest.fixture
def opened(project: Path, sqlite_url: str) -> Any:
    spaces: list[Workspace] = []

    def open_with(code: str) -> Space:
        settings = load_settings(project, {}, database=sqlite_url, executor="inline", model_code=code)
        spaces.append(Workspace(settings))
        return Space(spaces[-1])

    yield open_with
    for space in spaces:
        space.close()


@pytest.fixture
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function of a module that imports another."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "thumb.py").write_text(SOURCE)
    (folder / "weights.py").write_text("HEAVY = 3.0\n")
    monkeypatch.syspath_prepend(str(folder))
    import thumb  # type: ignore[import-not-found]

    yield thumb.rule
    for name in ("thumb", "weights"):
        sys.modules.pop(name, None)


def write(folder: Path, package: Any) -> Path:
    for path, content in package.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_a_function_is_packed_as_its_source(tmp_path: Path, rule: Any, opened: Any) -> None:
    weights = tmp_path / "theirs" / "weights.py"
    with pytest.raises(InvalidInput, match="weights"):
        ms.package(rule, TABLE)
    packed = ms.package(rule, TABLE, code=[weights])
    assert packed.files["code/thumb.py"].decode() == SOURCE
    assert not any(path.endswith(".pkl") for path in packed.files)
    folder = write(tmp_path / "packed", packed)
    with pytest.raises(Refused, match="does not load") as refused:
        load_model(folder)
    assert 'model_code = "source"' in refused.value.hint
    model = load_model(folder, trusted=("source",))
    assert (model.platform, isinstance(model, ForeignModel)) == ("python", True)
    expected = (ROWS.a * 3 + ROWS.b).tolist()
    assert model.score(TABLE.to_dict(as_series=False), 60) == pytest.approx(expected)
    assert model.score_packed(TABLE.to_numpy()) == pytest.approx(expected)
    arrays = {name: TABLE[name].to_numpy() for name in TABLE.columns}
    assert model.score_arrays(arrays).tolist() == pytest.approx(expected)
    assert model.score({"a": [1.0]}, 1) == [3.0]
    assert model.score({}, 0) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = mlflow.pyfunc.load_model(str(folder))
    assert theirs.predict(ROWS[["a", "b"]]) == pytest.approx(expected)
    version = registered(opened("source"), folder)
    assert (version.flavor, version.signature) == ("python_function", packed.signature)


def test_what_has_no_file_is_pickled_on_demand_only(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    twice = 2
    closure = lambda rows: rows["a"] * twice  # noqa: E731
    with pytest.raises(InvalidInput, match="no function of a module") as refused:
        ms.package(closure, TABLE)
    assert "pickle=True" in refused.value.hint
    folder = write(tmp_path, ms.package(closure, TABLE, pickle=True))
    with pytest.raises(Refused, match="is a pickle"):
        load_model(folder, trusted=("source",))
    assert load_model(folder, trusted=("pickle",)).score({"a": [2.0], "b": [0.0]}, 1) == [4.0]


@pytest.mark.parametrize("answer", [["late", "on time"], None, [[0.5, 0.5]]])
def test_a_function_that_gives_no_numbers_is_told_so(answer: Any) -> None:
    with pytest.raises(InvalidInput, match="not a number for each row") as refused:
        ms.package(lambda rows: answer, TABLE.head(2), pickle=True)
    assert "a number for each row" in refused.value.hint


def test_its_code_sees_no_secret_and_its_death_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSPRING_TOKEN", "secret")

    def spy(rows: Any) -> Any:
        import os

        print("noise on standard output")
        if rows["a"][0] == 13.0:
            os._exit(3)
        if rows["a"][0] == 14.0:
            raise ValueError("unlucky")
        told = float(os.getpid()) if rows["a"][0] == 1.0 else float(os.getenv("MAINSPRING_TOKEN") == "secret")
        return [told if value > 0.5 else 0.0 for value in rows["a"]]

    pytest.importorskip("cloudpickle")
    model = load_model(write(tmp_path, ms.package(spy, TABLE.head(10), pickle=True)), trusted=("pickle",))

    def ask(value: float) -> float:
        return model.score({"a": [value], "b": [0.0]}, 1)[0]

    assert ask(2.0) == 0.0
    with pytest.raises(InvalidInput, match="unlucky"):
        ask(14.0)
    first = int(ask(1.0))
    assert first != os.getpid()
    os.kill(first, signal.SIGKILL)
    assert int(ask(1.0)) not in (first, os.getpid())
    with pytest.raises(MainspringError, match="dies of this"):
        ask(13.0)
    assert ask(2.0) == 0.0


def test_a_pickled_estimator_is_read_beside_and_served_without_its_pickle(opened: Any, tmp_path: Path) -> None:
    columns = ["a", "b", "c"]
    model, rows = classifier(columns), ROWS[columns]
    folder = saved(
        tmp_path / "logged", mlflow.sklearn.save_model, sk_model=model, input_example=rows.head(5),
        signature=infer_signature(rows, model.predict(rows)), serialization_format="cloudpickle",
    )  # fmt: skip
    kept = registered(opened("none"), folder)
    assert kept.signature.inputs == ()
    space = opened("pickle")
    version = registered(space, folder)
    assert [field.name for field in version.signature.inputs] == columns
    assert version.twin_difference is not None
    loaded = load_model(space.workspace.models.unpack(version.address, tmp_path / "unpacked"))  # nobody is asked
    assert loaded.platform == "onnx"
    scores = loaded.score({name: rows[name].tolist() for name in columns}, len(rows))
    assert scores == pytest.approx(model.predict_proba(rows)[:, 1].tolist(), abs=1e-4)


def test_a_pickle_without_twin_becomes_a_file_of_skops(opened: Any, tmp_path: Path) -> None:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(out_of_bounds="clip").fit(ROWS.a.to_numpy(), ROWS.a.to_numpy() ** 3)
    signature = infer_signature(ROWS[["a"]], ROWS.a.to_numpy())
    folder = saved(
        tmp_path / "logged", mlflow.sklearn.save_model, sk_model=model, signature=signature,
        serialization_format="pickle",
    )  # fmt: skip
    space = opened("pickle")
    version = registered(space, folder)
    assert "model.onnx" not in version.files
    loaded = load_model(space.workspace.models.unpack(version.address, tmp_path / "unpacked"))
    assert loaded.platform == "sklearn"
    assert loaded.score({"a": [0.5]}, 1) == pytest.approx(model.predict([0.5]).tolist())


def test_python_models_of_mlflow(opened: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about hints of types

        class Doubling(mlflow.pyfunc.PythonModel):
            def predict(self, context, model_input, params=None):
                return model_input["a"] * 2

    signature = infer_signature(ROWS[["a", "b"]], ROWS.a * 2)
    pickled = saved(tmp_path / "one", mlflow.pyfunc.save_model, python_model=Doubling(), signature=signature)
    written = tmp_path / "model.py"
    written.write_text(
        "import mlflow\n\nclass M(mlflow.pyfunc.PythonModel):\n    def predict(self, _, model_input, params=None):"
        "\n        return model_input['a'] * 2\n\nmlflow.models.set_model(M())\n"
    )
    coded = saved(tmp_path / "two", mlflow.pyfunc.save_model, python_model=str(written), signature=signature)
    space = opened("source")
    assert registered(space, pickled).signature.inputs == ()
    version = registered(space, coded)
    assert (version.flavor, [field.name for field in version.signature.inputs]) == ("python_function", ["a", "b"])
    with pytest.raises(Refused, match="does not load"):
        load_model(space.workspace.models.unpack(version.address, tmp_path / "unpacked"))
    loaded = space.workspace.models.load(version.address, tmp_path / "unpacked")
    assert loaded.score({"a": [1.5], "b": [0.0]}, 1) == [3.0]


def test_the_setting_is_one_of_three(project: Path, sqlite_url: str) -> None:
    settings = load_settings(project, {}, database=sqlite_url, model_code="sure")
    with pytest.raises(InvalidInput, match="none, source, pickle"):
        Workspace(settings)
