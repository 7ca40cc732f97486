"""Modules of PyTorch are served by their ONNX twin, without PyTorch. Run where PyTorch is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.integration.registry.test_adopt import mlflow, registered, saved
from tests.integration.registry.test_foreign import opened, write  # noqa: F401 - a fixture

import mainspring as ms
from mainspring.errors import InvalidInput
from mainspring.registry.load import load_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

ROWS = pl.DataFrame({name: np.random.default_rng(number).normal(size=200) for number, name in enumerate("ab")})
COLUMNS = ROWS.to_dict(as_series=False)


def network(*last: Any) -> Any:
    torch.manual_seed(4)
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), *last)


def answers(module: Any) -> Any:
    with torch.no_grad():
        return module(torch.tensor(ROWS.cast(pl.Float32).to_numpy())).numpy()


def test_a_module_travels_as_safetensors_and_twin(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    module = network(torch.nn.Linear(8, 1), torch.nn.Sigmoid())
    packed = ms.package(module, ROWS, kind="classifier")
    assert (packed.flavor, packed.signature.kind) == ("pytorch", "classifier")
    assert packed.twin_difference is not None
    assert packed.twin_difference < 1e-5
    folder = write(tmp_path, packed)
    assert not [path for path in packed.files if path.endswith((".pth", ".pkl"))]
    model = load_model(folder)
    assert model.platform == "onnx"
    assert np.allclose(model.score(COLUMNS, 200), answers(module)[:, 0], atol=1e-5)
    other = network(torch.nn.Linear(8, 1), torch.nn.Sigmoid())
    other.load_state_dict(load_file(folder / "model.safetensors"))
    assert mlflow.pyfunc.load_model(str(folder)).predict(ROWS.to_pandas())["score"].shape == (200,)


def test_several_classes_and_what_cannot_be_packed(tmp_path: Path) -> None:
    module = network(torch.nn.Linear(8, 3), torch.nn.Softmax(dim=1))
    model = load_model(write(tmp_path, ms.package(module, ROWS, classes=["x", "y", "z"])))
    assert np.allclose(model.probabilities(COLUMNS, 200), answers(module), atol=1e-5)
    with pytest.raises(InvalidInput, match="tensor of numbers"):
        ms.package(module, ROWS.with_columns(c=pl.lit("text")))


@pytest.mark.parametrize("form", ["pickle", "pt2"])
def test_what_mlflow_wrote(opened: Any, tmp_path: Path, form: str) -> None:  # noqa: F811
    import mlflow.pytorch
    from mlflow.models import infer_signature

    module = network(torch.nn.Linear(8, 1))
    table = ROWS.cast(pl.Float32).to_pandas() if form == "pickle" else ROWS.cast(pl.Float32).to_numpy()
    folder = saved(
        tmp_path / "logged", mlflow.pytorch.save_model, pytorch_model=module, serialization_format=form,
        signature=infer_signature(table, answers(module)), input_example=np.asarray(table)[:4],
    )  # fmt: skip
    assert registered(opened("source"), folder).signature.inputs == ()
    space = opened("pickle")
    version = registered(space, folder)
    told = space.workspace.store.events(subject=version.address, prefix="registry.version")[-1].data
    assert (version.flavor, version.signature.kind) == ("pytorch", "regressor"), told
    assert version.twin_difference is not None
    model = load_model(space.workspace.models.unpack(version.address, tmp_path / "unpacked"))
    assert model.platform == "onnx"
    columns = dict(zip([field.name for field in version.signature.inputs], COLUMNS.values(), strict=True))
    assert np.allclose(model.score(columns, 200), answers(module)[:, 0], atol=1e-5)
