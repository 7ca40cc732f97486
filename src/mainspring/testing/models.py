"""A small real model to test servers and targets with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mainspring.core.signature import Field, Signature

SIGNATURE = Signature(
    inputs=(
        Field(name="dep_delay", type="float", nullable=True, min=-30, max=600),
        Field(name="distance", type="float"),
        Field(name="month", type="int"),
        Field(name="carrier", type="string", categories=("AA", "B6", "UA")),
    ),
    threshold=0.5,
)
RECORD: dict[str, Any] = {"dep_delay": 45.0, "distance": 1400.0, "month": 7, "carrier": "UA"}
"""A row that the model accepts."""


def write_model(folder: Path, *, limit: float = 15.0, signature: Signature = SIGNATURE) -> Any:
    """Fits a classifier of "departed more than ``limit`` minutes late" and exports it to ONNX.

    Args:
        folder: Where ``model.onnx`` and ``signature.json`` go.
        limit: Makes models that differ.
        signature: What is written beside it.

    Returns:
        The fitted scikit-learn pipeline, to compare with; it takes arrays of objects in the signature's order.
    """
    # Tests alone need these, and the module must load without them.
    import numpy as np  # noqa: PLC0415
    from skl2onnx import to_onnx  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: PLC0415
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415
    from sklearn.impute import SimpleImputer  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import Pipeline, make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: PLC0415

    draw = np.random.default_rng(7)
    rows = 2000
    delay = draw.normal(10, 30, rows).round()
    table = np.empty((rows, 4), dtype=object)
    table[:, 0] = np.where(draw.random(rows) < 0.1, np.nan, delay)
    table[:, 1] = draw.uniform(100, 2500, rows).round()
    table[:, 2] = draw.integers(1, 13, rows)
    table[:, 3] = draw.choice(["AA", "B6", "UA"], rows)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    names = OneHotEncoder(handle_unknown="ignore")
    pipeline = Pipeline(
        [
            ("columns", ColumnTransformer([("numbers", numbers, [0, 1, 2]), ("names", names, [3])])),
            ("classifier", LogisticRegression()),
        ]
    )
    pipeline.fit(table, delay > limit)
    inputs = [field.name for field in signature.inputs]
    kinds = [FloatTensorType([None, 1])] * 3 + [StringTensorType([None, 1])]
    onnx = to_onnx(
        pipeline, initial_types=list(zip(inputs, kinds, strict=True)), options={"zipmap": False}, target_opset=18
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx.SerializeToString())
    (folder / "signature.json").write_bytes(signature.to_json())
    return pipeline


def write_identity(folder: Path) -> None:
    """Writes a bare ONNX model: an input of shape [any, any] per datatype, and an output ``…_OUT`` that equals it."""
    from onnx import TensorProto, helper  # noqa: PLC0415 - as above

    kinds = {
        **{name: getattr(TensorProto, name) for name in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64")},
        **{name: getattr(TensorProto, name) for name in ("INT8", "INT16", "INT32", "INT64")},
        "FP16": TensorProto.FLOAT16,
        "FP32": TensorProto.FLOAT,
        "FP64": TensorProto.DOUBLE,
        "BYTES": TensorProto.STRING,
    }
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_OUT"]) for name in kinds],
        "identity",
        [helper.make_tensor_value_info(name, kind, [None, None]) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(f"{name}_OUT", kind, [None, None]) for name, kind in kinds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def write_product(folder: Path, *, columns: int = 3, factor: float = 1.0) -> None:
    """Writes a model of columns ``c0``, ``c1`` … in one packed input: the score is ``factor`` times their sum."""
    import numpy as np  # noqa: PLC0415 - as above
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    weights = numpy_helper.from_array(np.full((columns, 1), factor, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["columns", "weights"], ["score"])],
        "product",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    fields = tuple(Field(name=f"c{place}", type="float", nullable=True) for place in range(columns))
    (folder / "signature.json").write_bytes(Signature(inputs=fields, kind="regressor").to_json())
