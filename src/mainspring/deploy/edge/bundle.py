"""A bundle: one zip file that holds all a device needs but numpy and onnxruntime. Equal contents give equal bytes."""

from __future__ import annotations

import hashlib
import inspect
import io
import math
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import polars as pl

from mainspring.core import judgement, mending
from mainspring.core.humility import Humility, HumilityRule
from mainspring.core.judgement import Check
from mainspring.deploy.edge import ed25519, runner
from mainspring.registry.runtime import OnnxModel

EXAMPLES = 32
_TOLERANCE = 1e-4
"""Scores on another processor may differ in the last bits of single precision, not more."""
_WHEN = (2020, 1, 1, 0, 0, 0)
_TRAVELLING = {
    "from mainspring.core.judgement import": "from judgement import",
    "from mainspring.core.mending import": "from mending import",
    "from mainspring.deploy.edge.ed25519 import": "from ed25519 import",
}


def build(
    model: OnnxModel,
    version: str,
    rules: Sequence[HumilityRule],
    rows: pl.DataFrame | None,
    sign: Callable[[bytes], bytes],
) -> tuple[str, bytes]:
    """Packs a model.

    Args:
        model: The model as it shall run on the device.
        version: Its address.
        rules: Humility rules that the device obeys.
        rows: Rows to take examples from; made up from the signature when there are none.
        sign: Gives the signature of a message.

    Returns:
        The bundle's tag (hexadecimal, a digest over everything in it), and the zip file.
    """
    humility = Humility(rules, model.signature)
    source = inspect.getsource(runner)
    for here, there in _TRAVELLING.items():
        assert here in source, here
        source = source.replace(here, there)
    files = {
        "model.onnx": (model.folder / "model.onnx").read_bytes(),
        "signature.json": model.signature.to_json(),
        "examples.json": msgspec.json.encode(_examples(model, rows)),
        "run.py": source.encode(),
        "judgement.py": inspect.getsource(judgement).encode(),
        "mending.py": inspect.getsource(mending).encode(),
        "ed25519.py": inspect.getsource(ed25519).encode(),
    }
    manifest = msgspec.json.encode(
        {
            "format": runner.FORMAT,
            "version": version,
            "output": model.output,
            "tolerance": _TOLERANCE,
            "checks": [_plain(check) for check in (*humility.inputs, *humility.scores)],
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        },
        order="deterministic",
    )
    files |= {"manifest.json": manifest, "manifest.sig": sign(manifest)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _WHEN), files[name], zipfile.ZIP_DEFLATED)
    return hashlib.sha256(manifest).hexdigest()[:32], buffer.getvalue()


def _plain(check: Check) -> dict[str, Any]:
    """A check in JSON, which has neither infinities nor sets."""
    found = {name: sorted(value) if name == "known" else value for name, value in check._asdict().items()}
    return {name: value for name, value in found.items() if not (isinstance(value, float) and not math.isfinite(value))}


def _examples(model: OnnxModel, rows: pl.DataFrame | None) -> dict[str, Any]:
    """Rows and the scores that the device must find for them."""
    names = [field.name for field in model.signature.inputs]
    if rows is None or not rows.height:
        records: list[dict[str, Any]] = [{field.name: field.example() for field in model.signature.inputs}]
    else:
        records = rows.select(names).gather_every(max(1, rows.height // EXAMPLES)).head(EXAMPLES).to_dicts()
    records = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in record.items()}
        for record in records
    ]
    scores = model.score({name: [record[name] for record in records] for name in names}, len(records))
    known = [(record, score) for record, score in zip(records, scores, strict=True) if math.isfinite(score)]
    return {"rows": [record for record, _ in known], "scores": [score for _, score in known]}
