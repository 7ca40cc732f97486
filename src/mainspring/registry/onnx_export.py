"""Export of fitted scikit-learn models to ONNX, one input per column."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput, MissingExtra
from mainspring.registry.onnx_trees import regress

_OPSETS = {"": 18, "ai.onnx.ml": 3}
PACKED = "columns"
"""Name of the input that takes all columns at once."""
_INTEGER_LISTS = ("nodes_missing_value_tracks_true",)


def export(estimator: Any, signature: Signature, *, packed: bool = False) -> bytes:
    """The ONNX document of an estimator: strings for text columns, float32 for all others, shapes ``[rows, 1]``.

    Args:
        estimator: Fitted.
        signature: Its inputs.
        packed: Whether one input ``columns`` of shape ``[rows, columns]`` takes them all; they must be numbers.

    Raises:
        MissingExtra: skl2onnx is not installed.
        InvalidInput: The estimator has no exact ONNX form.
    """
    try:
        from skl2onnx import to_onnx  # noqa: PLC0415 - optional
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtra.named("exporting a model to ONNX", "sklearn") from None
    _mend_converters()
    for library in sorted({"xgboost", "lightgbm"} & sys.modules.keys()):  # the estimator may have one of theirs inside
        _add_trees(library)
    kinds = {"string": StringTensorType}
    inputs = [(field.name, kinds.get(field.type, FloatTensorType)([None, 1])) for field in signature.inputs]
    by_name = packed and _selects_by_name(estimator)
    if packed and not by_name:
        inputs = [(PACKED, FloatTensorType([None, len(signature.inputs)]))]
    options = {"zipmap": False} if signature.kind == "classifier" else None
    try:
        graph = to_onnx(_joined(estimator, signature), initial_types=inputs, options=options, target_opset=_OPSETS)
        if by_name:
            _pack(graph.graph)
        _lead_nulls(graph.graph, estimator)
        regress(graph.graph)
        return bytes(graph.SerializeToString())
    except Exception as error:
        name = type(estimator).__name__
        raise InvalidInput(
            f"{name} cannot be exported to ONNX: {error}", hint="use estimators that skl2onnx converts"
        ) from error


def _selects_by_name(estimator: Any) -> bool:
    """Whether the model begins with a step that picks columns by their names, which one array does not have."""
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415 - optional

    steps = getattr(estimator, "steps", None)
    return isinstance(steps[0][1] if steps else estimator, ColumnTransformer)


def _pack(graph: Any) -> None:
    """Lets one input take the place of the node that joins all inputs, in their order, to one array.

    Raises:
        InvalidInput: There is no such node, or an input is used elsewhere, too.
    """
    names = [item.name for item in graph.input]
    joins = [node for node in graph.node if node.op_type == "Concat" and list(node.input) == names]
    others = {name for node in graph.node if node not in joins for name in node.input}
    if len(joins) != 1 or others & {*names, PACKED}:
        raise InvalidInput("the model's columns are not joined in the order of its signature")
    joined = joins[0].output[0]
    graph.node.remove(joins[0])
    for node in graph.node:
        node.input[:] = [PACKED if name == joined else name for name in node.input]
    del graph.input[1:]
    graph.input[0].name = PACKED
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = len(names)


def _lead_nulls(graph: Any, estimator: Any) -> None:
    """Sends missing values the way they go in scikit-learn's trees and forests, which skl2onnx 1.20 leaves out."""
    last = getattr(estimator, "steps", [("", estimator)])[-1][1]
    trees = [item.tree_ for item in getattr(last, "estimators_", [last]) if hasattr(item, "tree_")]
    for node in graph.node:
        told = {item.name: item.ints for item in node.attribute}
        if trees and len(told.get("nodes_treeids", ())) == sum(tree.node_count for tree in trees):
            places = zip(told["nodes_treeids"], told["nodes_nodeids"], strict=True)
            ways = [int(trees[tree].missing_go_to_left[place]) for tree, place in places]
            told["nodes_missing_value_tracks_true"][:] = ways


def _joined(estimator: Any, signature: Signature) -> Any:
    """The estimator behind a step that makes one array of its columns, where its converter cannot do that itself."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: PLC0415 - optional
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    if not isinstance(estimator, (MLPClassifier, MLPRegressor)) or len(signature.inputs) == 1:
        return estimator
    unchanged = StandardScaler(with_mean=False, with_std=False).fit([[0.0] * len(signature.inputs)])
    return make_pipeline(unchanged, estimator)


@functools.cache
def _mend_converters() -> None:
    """Makes the converters of histogram boosting write integers where protobuf takes nothing else.

    skl2onnx 1.20 writes the branch of missing values as booleans, which protobuf refuses from 7.34 on.
    """
    from skl2onnx import update_registered_converter  # noqa: PLC0415 - optional
    from skl2onnx.common.shape_calculator import (  # noqa: PLC0415
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )
    from skl2onnx.operator_converters.random_forest import (  # noqa: PLC0415
        convert_sklearn_random_forest_classifier,
        convert_sklearn_random_forest_regressor_converter,
    )
    from sklearn.ensemble import (  # noqa: PLC0415
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    )

    update_registered_converter(
        HistGradientBoostingClassifier,
        "SklearnHistGradientBoostingClassifier",
        calculate_linear_classifier_output_shapes,
        _with_integers(convert_sklearn_random_forest_classifier),
        options={
            "zipmap": [True, False, "columns"],
            "raw_scores": [True, False],
            "output_class_labels": [False, True],
            "nocl": [True, False],
        },
    )
    update_registered_converter(
        HistGradientBoostingRegressor,
        "SklearnHistGradientBoostingRegressor",
        calculate_linear_regressor_output_shapes,
        _with_integers(convert_sklearn_random_forest_regressor_converter),
    )


@functools.cache
def _add_trees(library: str) -> None:
    """Teaches skl2onnx the estimators of XGBoost or LightGBM, as steps of pipelines, where onnxmltools is installed."""
    from skl2onnx import update_registered_converter  # noqa: PLC0415 - optional
    from skl2onnx.common.shape_calculator import (  # noqa: PLC0415
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if library == "xgboost":
                from onnxmltools.convert.xgboost.operator_converters.XGBoost import (  # noqa: PLC0415
                    convert_xgboost as convert,
                )
                from xgboost import XGBClassifier as Classifier  # noqa: PLC0415
                from xgboost import XGBRegressor as Regressor  # noqa: PLC0415
            else:
                from lightgbm import LGBMClassifier as Classifier  # noqa: PLC0415
                from lightgbm import LGBMRegressor as Regressor  # noqa: PLC0415
                from onnxmltools.convert.lightgbm.operator_converters.LightGbm import (  # noqa: PLC0415
                    convert_lightgbm as convert,
                )
    except ImportError:
        return
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    shapes = calculate_linear_classifier_output_shapes
    update_registered_converter(Classifier, f"{library}Classifier", shapes, convert, options=options)
    shapes, split = calculate_linear_regressor_output_shapes, {"split": None} if library == "lightgbm" else None
    update_registered_converter(Regressor, f"{library}Regressor", shapes, convert, options=split)


def _with_integers(convert: Any) -> Any:
    def converter(scope: Any, operator: Any, container: Any) -> None:
        add_node = container.add_node

        def add(*args: Any, **attributes: Any) -> None:
            for name in _INTEGER_LISTS:
                if name in attributes:
                    attributes[name] = [int(value) for value in attributes[name]]
            add_node(*args, **attributes)

        container.add_node = add
        try:
            convert(scope, operator, container)
        finally:
            container.add_node = add_node

    return converter
