"""The model that is served: boosted trees on 20 columns, exported to ONNX, and requests for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

COLUMNS = 20
_NAMES = ("AA", "B6", "UA", "DL", "WN")


def numbers(folder: Path, *, strings: int, twin: bool = True) -> None:
    """Fits and packs the model; its last columns are strings. Without its twin, scikit-learn serves it."""
    import numpy as np
    import polars as pl
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    from mainspring.registry.packaging import package

    draw = np.random.default_rng(7)
    count = 4000
    floats = [f"x{place}" for place in range(COLUMNS - strings)]
    texts = [f"s{place}" for place in range(strings)]
    table: dict[str, Any] = {name: draw.normal(0, 10, count).round(2).astype("float32") for name in floats}
    table |= {name: draw.choice(_NAMES, count) for name in texts}
    frame = pl.DataFrame(table)
    late = table["x0"] + table["x1"] / 2 + draw.normal(0, 5, count) > 5
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    parts = [("floats", "passthrough", floats), *([("texts", encoder, texts)] if texts else [])]
    model = Pipeline([("columns", ColumnTransformer(parts)), ("trees", HistGradientBoostingClassifier(max_iter=100))])
    model.fit(frame, late)
    folder.mkdir()
    for name, content in package(model, frame).files.items():
        if twin or name != "model.onnx":
            (folder / name).write_bytes(content)


def bare_call(folder: Path, calls: int = 3000) -> float:
    """Microseconds of CPU for the model alone on one row, inputs ready."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "model.onnx"), options)
    feed = {item.name: np.full((1, item.shape[1]), 1.5, np.float32) for item in session.get_inputs()}
    outputs = [session.get_outputs()[-1].name]
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(calls):
            session.run(outputs, feed)
        best = min(best, (time.process_time() - start) / calls)
    return best * 1e6


def request_packed(rows: int) -> dict[str, Any]:
    """One tensor for all columns."""
    data = [1.5 + place / 8 for place in range(COLUMNS)] * rows
    return {"inputs": [{"name": "input", "shape": [rows, COLUMNS], "datatype": "FP32", "data": data}]}


def request_by_name() -> dict[str, Any]:
    """One record with three strings."""
    floats = {f"x{place}": 1.5 + place / 8 for place in range(COLUMNS - 3)}
    return {"records": [floats | {f"s{place}": "UA" for place in range(3)}]}
