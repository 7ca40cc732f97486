"""A model's signature: the columns it reads, what it answers, and from which score on it says yes."""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.core.entity import Value
from mainspring.errors import InvalidInput

FieldType = Literal["float", "int", "string", "bool"]


class Field(Value, frozen=True, kw_only=True):
    """One column.

    Attributes:
        name: The column's name in records and data sets; the name of the model's input too.
        type: What its values are.
        nullable: Whether a value may be null.
        categories: The values seen in training, for columns with few of them.
        min: The smallest value seen in training.
        max: The largest value seen in training.
        strict: Whether a value outside ``categories``, ``min`` and ``max`` is refused. Otherwise they only describe:
            the world moves on, and a drift that is refused at the door is never measured.
    """

    name: str
    type: FieldType
    nullable: bool = False
    categories: tuple[str, ...] | None = None
    min: float | None = None
    max: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a field needs a name")
        if self.categories is not None and self.type != "string":
            raise ValueError(f"field `{self.name}` is a {self.type}: only strings have categories")
        if self.type not in ("float", "int") and (self.min is not None or self.max is not None):
            raise ValueError(f"field `{self.name}` is a {self.type}: only numbers have a min and a max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"field `{self.name}` has min {self.min:g} above max {self.max:g}")


class Signature(Value, frozen=True, kw_only=True):
    """What goes in and what comes out.

    Attributes:
        inputs: The columns of one row, in the model's order.
        outputs: What the model answers; the first one is the score.
        kind: ``classifier`` (the score is the probability of yes) or ``regressor``.
        threshold: A classifier says yes when ``score >= threshold``.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...] = (Field(name="score", type="float"),)
    kind: Literal["classifier", "regressor"] = "classifier"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for side, fields in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [field.name for field in fields]
            if not names:
                raise ValueError(f"a signature needs {side}")
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"`{name}` appears twice among the {side}")

    def to_json(self) -> bytes:
        """The signature as a JSON document, equal for equal signatures."""
        return msgspec.json.encode(self, order="deterministic")

    @classmethod
    def from_json(cls, document: bytes | str) -> Signature:
        """The signature in a JSON document.

        Raises:
            InvalidInput: The document is not a signature.
        """
        try:
            return msgspec.json.decode(document, type=cls)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"this is not a model signature: {error}",
                hint='the form is {"inputs": [{"name": "age", "type": "float"}], "kind": "classifier"}',
            ) from None
