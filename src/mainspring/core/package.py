"""A model as it leaves training: its files and what is known about them, before it is registered."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.shown import Shown
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

    def __repr__(self) -> str:
        return f"<{self.flavor} model of {len(self.signature.inputs)} columns, {len(self.files)} files>"

    def _repr_html_(self) -> str:
        facts = {
            "inputs": [field.name for field in self.signature.inputs], "kind": self.signature.kind,
            "files": {path: f"({len(content)} bytes)" for path, content in self.files.items()},
            "twin_difference": self.twin_difference,
        }  # fmt: skip
        return Shown("model", self.flavor, facts).html()
