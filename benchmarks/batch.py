"""Batch scoring, Parquet to Parquet, against bare ONNX Runtime over such rows: CPU and memory, a fresh process each."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.report import Row

ROWS = 10_000_000
_OURS = """
import sys
from pathlib import Path
from benchmarks.batch import measured
from mainspring.registry.runtime import OnnxModel
from mainspring.serving.batch import scan, score_file
folder = Path(sys.argv[1])
model, table = OnnxModel(folder), scan([folder / "rows.parquet"])
measured(lambda: score_file(model, table, folder / "scored.parquet"))
"""
_BARE = """
import sys
from pathlib import Path
import numpy as np, onnxruntime as ort, polars as pl
from benchmarks.batch import measured
folder = Path(sys.argv[1])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(str(folder / "model.onnx"), options)
frame = pl.read_parquet(folder / "rows.parquet", n_rows=1_000_000)
texts = {name: frame[name].to_numpy().astype(object) for name, kind in frame.schema.items() if kind == pl.String}
feed = {name: (texts[name] if name in texts else frame[name].to_numpy()).reshape(-1, 1) for name in frame.columns}
def score():
    for start in range(0, frame.height, 65_536):
        session.run(None, {name: array[start : start + 65_536] for name, array in feed.items()})
measured(score)
"""


def rows() -> list[Row]:
    """10 M rows x 20 columns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        ours, memory = _run(_OURS, folder)
        bare, _ = _run(_BARE, folder)
        bare *= ROWS / 1_000_000  # its arrays stand in memory, already read and converted: a tenth is enough
    return [
        Row("10 M rows x 20 columns, Parquet to Parquet", ROWS / ours, "rows/s of CPU", 0.7, "bare ONNX Runtime",
            ROWS / bare, "more", note="feeding ready arrays of 65,536 rows"),
        Row("the same, peak memory", memory / 1e6, "GB", 1.5),
    ]  # fmt: skip


def measured(work: object) -> None:
    """Prints the CPU seconds of a call and the process's peak memory in KB."""
    import resource
    import time

    start = time.process_time()
    work()  # type: ignore[operator]
    print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _run(code: str, folder: Path) -> tuple[float, float]:
    told = subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True).stdout
    seconds, memory = told.split()
    return float(seconds), float(memory)


def _prepare(folder: Path) -> None:
    """17 numbers and 3 texts; boosted trees behind an encoder, as in the figures of other systems."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    from mainspring import package

    draw = np.random.default_rng(7)

    def block(count: int) -> pl.DataFrame:
        numbers = {f"x{index}": draw.normal(size=count).astype(np.float32) for index in range(17)}
        levels = {"carrier": 16, "origin": 3, "dest": 100}
        texts = {
            name: np.array([f"{name}{index}" for index in range(size)])[draw.integers(0, size, count)]
            for name, size in levels.items()
        }
        return pl.DataFrame(numbers | texts)

    train = block(50_000)
    label = (train["x0"] + train["x1"] * train["x2"] > 0).to_numpy()
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    estimator = make_pipeline(
        make_column_transformer((encoder, ["carrier", "origin", "dest"]), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=100),
    ).fit(train, label)
    for path, content in package(estimator, train).files.items():
        (folder / path).write_bytes(content)
    parts = [folder / f"part{index}.parquet" for index in range(10)]
    for part in parts:
        block(ROWS // 10).write_parquet(part)
    pl.scan_parquet(parts).sink_parquet(folder / "rows.parquet")
