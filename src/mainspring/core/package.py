"""A model as it leaves training: its files and what is known about them, before it is registered."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.signature import Signature

EXAMPLE = "example.json"
"""The file of a package that holds an `Example`."""


class Example(msgspec.Struct, frozen=True):
    """Rows and the scores that the original model gave them, recorded when it was packed.

    Attributes:
        columns: Column -> one value per row.
        scores: One per row.
    """

    columns: dict[str, list[Any]]
    scores: list[float]

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.scores)


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
