"""A model's signature: the columns it reads, what it answers, and from which score on it says yes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Literal

import msgspec

from mainspring.core.entity import Value
from mainspring.errors import InvalidInput

FieldType = Literal["float", "int", "string", "bool"]
OnMissing = Literal["error", "null", "default"]
OnUnknown = Literal["accept", "error", "null", "default"]
OnRange = Literal["accept", "error", "null", "clamp", "default"]
_PLAIN: dict[FieldType, tuple[type, ...]] = {"float": (float, int), "int": (int,), "string": (str,), "bool": (bool,)}


class Field(Value, frozen=True, kw_only=True):
    """One column.

    Attributes:
        name: The column's name in records and data sets; the name of the model's input too.
        type: What its values are.
        nullable: Whether a value may be null.
        categories: The values seen in training, for columns with few of them.
        min: The smallest value seen in training.
        max: The largest value seen in training.
        strict: Short for `on_unknown` and `on_range` ``error``. Otherwise categories and limits only describe: the
            world moves on, and a drift that is refused at the door is never measured.
        on_missing: What becomes of a column that a request leaves out, and of null or NaN where `nullable` is false:
            refused, read as null, or replaced by `default` (then null and NaN are replaced in nullable columns too).
        on_unknown: What becomes of a text that is not among `categories`.
        on_range: What becomes of a number outside `min` and `max`; ``clamp`` moves it to the nearer one. An infinite
            number is outside of any range, and refused where all others are accepted.
        default: The value that stands in.
    """

    name: str
    type: FieldType
    nullable: bool = False
    categories: tuple[str, ...] | None = None
    min: float | None = None
    max: float | None = None
    strict: bool = False
    on_missing: OnMissing = "error"
    on_unknown: OnUnknown = "accept"
    on_range: OnRange = "accept"
    default: bool | int | float | str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a field needs a name")
        if self.categories is not None and self.type != "string":
            raise ValueError(f"field `{self.name}` is a {self.type}: only strings have categories")
        if self.type not in ("float", "int") and (self.min is not None or self.max is not None):
            raise ValueError(f"field `{self.name}` is a {self.type}: only numbers have a min and a max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"field `{self.name}` has min {self.min:g} above max {self.max:g}")
        self._check_behaviour()

    def _check_behaviour(self) -> None:
        behaviours = (self.on_missing, self.on_unknown, self.on_range)
        plain = _PLAIN[self.type]
        if self.default is not None and not (
            isinstance(self.default, plain) and (self.type == "bool") == isinstance(self.default, bool)
        ):
            raise ValueError(f"field `{self.name}` is a {self.type}: its default cannot be {self.default!r}")
        if "default" in behaviours and self.default is None:
            raise ValueError(f"field `{self.name}` falls back on a default and has none")
        if "null" in behaviours and not self.nullable:
            raise ValueError(f"field `{self.name}` falls back on null and is not nullable")
        if self.on_unknown != "accept" and self.categories is None:
            raise ValueError(f"field `{self.name}` has no categories that a value could be unknown to")
        if self.on_range != "accept" and self.min is None and self.max is None:
            raise ValueError(f"field `{self.name}` has no range that a value could be outside of")

    def example(self) -> bool | int | float | str:
        """A value that the column accepts: the middle of what training saw."""
        if self.type == "string":
            return self.categories[0] if self.categories else "text"
        if self.type == "bool":
            return True
        value = (self.min + self.max) / 2 if self.min is not None and self.max is not None else 1.0
        return int(value) if self.type == "int" else round(value, 3)

    @property
    def unknown(self) -> OnUnknown:
        """`on_unknown`, with `strict` taken into account."""
        return "error" if self.strict and self.categories and self.on_unknown == "accept" else self.on_unknown

    @property
    def outside(self) -> OnRange:
        """`on_range`, with `strict` taken into account."""
        return "error" if self.strict and self.on_range == "accept" else self.on_range


class Signature(Value, frozen=True, kw_only=True):
    """What goes in and what comes out.

    Attributes:
        inputs: The columns of one row, in the model's order; none when nobody has said what the model reads.
        outputs: What the model answers; the first one is the score.
        kind: ``classifier`` (the score is the probability of yes) or ``regressor``.
        threshold: A classifier says yes when ``score >= threshold``.
        classes: What a classifier tells apart where it is not yes and no, in the model's order. It then answers one of
            them, the score is that one's probability, and what monitoring calls yes is that the answer is right.
        on_extra: What becomes of columns that are not among the inputs.
    """

    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = (Field(name="score", type="float"),)
    kind: Literal["classifier", "regressor"] = "classifier"
    threshold: float = 0.5
    classes: tuple[str, ...] = ()
    on_extra: Literal["error", "ignore"] = "error"

    def __post_init__(self) -> None:
        for side, fields in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [field.name for field in fields]
            if not names and side == "outputs":
                raise ValueError("a signature needs outputs")
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"`{name}` appears twice among the {side}")
        if self.classes and (self.kind == "regressor" or len(set(self.classes)) < max(len(self.classes), 2)):
            raise ValueError("`classes` are what a classifier tells apart: two or more, each once")

    @property
    def numeric(self) -> bool:
        """Whether all inputs are numbers, so that rows may come as one tensor."""
        return all(field.type in ("float", "int") for field in self.inputs)

    def labels(self, scores: Sequence[float]) -> list[bool | None]:
        """Yes or no for each score; None where there is no score, and for what says neither yes nor no."""
        if self.kind == "regressor" or self.classes:
            return [None] * len(scores)
        threshold = self.threshold
        if isnan(sum(scores)):  # then one may be none; to look at each costs more than to decide each
            return [None if isnan(score) else score >= threshold for score in scores]
        return [score >= threshold for score in scores]

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
            signature = msgspec.json.decode(document, type=cls)
            if not signature.inputs:
                raise ValueError("it needs inputs")
            return signature
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"this is not a model signature: {error}",
                hint='the form is {"inputs": [{"name": "age", "type": "float"}], "kind": "classifier"}',
            ) from None
