"""What the steps are made of."""

from __future__ import annotations

import polars as pl

from mainspring.core.package import ModelPackage
from mainspring.core.signature import Field, Signature

EVERY = 4


def cut(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows to learn from and rows to judge on."""
    numbered = rows.with_row_index("row")
    held = pl.col("row") % EVERY == 0
    return numbered.filter(~held).drop("row"), numbered.filter(held).drop("row")


def sign(weight: float) -> ModelPackage:
    """A logistic model of one column, written as ONNX by hand."""
    from onnx import TensorProto, helper

    column = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])
    factor = helper.make_tensor("weight", TensorProto.FLOAT, [1], [weight])
    nodes = [helper.make_node("Mul", ["x", "weight"], ["z"]), helper.make_node("Sigmoid", ["z"], ["score"])]
    graph = helper.make_graph(nodes, "sign", [column], [score], [factor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    signature = Signature(inputs=(Field(name="x", type="float", nullable=True),))
    files = {"model.onnx": model.SerializeToString(), "signature.json": signature.to_json()}
    return ModelPackage(flavor="sign", files=files, signature=signature, twin_difference=0.0)
