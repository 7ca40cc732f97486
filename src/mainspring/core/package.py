"""A model as it leaves training: its files and what is known about them, before it is registered."""

from __future__ import annotations

import msgspec

from mainspring.core.signature import Signature


class ModelPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted model, packed.

    Attributes:
        flavor: What made it, such as ``sklearn``.
        files: Path -> content; ``model.onnx`` is what serving runs, ``signature.json`` what it accepts.
        signature: Inputs, outputs and decision threshold.
        twin_difference: Largest difference between the original's scores and its ONNX twin's on the example rows,
            None when there is no twin.
        twin_rows: How many rows were compared.
    """

    flavor: str
    files: dict[str, bytes]
    signature: Signature
    twin_difference: float | None = None
    twin_rows: int = 0
