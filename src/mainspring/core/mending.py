"""What a signature lets in, and what it puts in the place of the rest. The file travels to devices as it is.

Nothing here needs more than Python. The arguments are the attributes of a `mainspring.core.signature.Field`, as its
JSON has them; see there for what they mean. Whole tables are mended by the same facts, as expressions (in
`mainspring.serving.batch`).
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil, floor, inf, isfinite
from typing import Any, NamedTuple

SINGLE = 3.4028234e38
"""Beyond this a float is infinite in the single precision that models compute with."""
EXACT = 2**53
"""Beyond this a float does not tell one whole number from the next."""
_WHOLE = 2**63


def whole(value: Any) -> Any:
    """A float without fraction as the whole number that it stands for, anything else as it is.

    JavaScript, R and pandas write the whole numbers of a column that may be null as floats.
    """
    exact = isinstance(value, float) and -EXACT <= value <= EXACT and value.is_integer()
    return int(value) if exact else value


class Mending(NamedTuple):
    """What stands in for values of a column.

    Attributes:
        missing: For null.
        ranged: Whether something stands in for numbers beyond `low` and `high`.
        low: The least number that stays.
        high: The greatest.
        clamps: Whether numbers beyond are moved to the nearer of the two.
        beyond: What stands in for them otherwise.
        known: The only texts that stay; None where all do.
        unknown: What stands in for others.
    """

    missing: Any
    ranged: bool
    low: float
    high: float
    clamps: bool
    beyond: Any
    known: frozenset[str] | None
    unknown: Any

    def of(self, value: Any) -> Any:
        """The value, or what stands in for it; NaN has become None before."""
        if value is None:
            return self.missing
        if self.ranged and not self.low <= value <= self.high:
            if self.clamps:
                return self.low if value < self.low else self.high
            return self.beyond
        if self.known is not None and value not in self.known:
            return self.unknown
        return value


class Accepted(NamedTuple):
    """What is let in, once it is mended.

    Attributes:
        low: The least number.
        high: The greatest.
        known: The only texts; None for all.
    """

    low: float
    high: float
    known: frozenset[str] | None

    def refuses(self, value: Any) -> bool:
        """Whether a value, of the column's type, is not let in."""
        if isinstance(value, str):
            return self.known is not None and value not in self.known
        return not self.low <= value <= self.high


def mending(
    type: str,
    *,
    min: float | None = None,
    max: float | None = None,
    categories: Collection[str] | None = None,
    on_missing: str = "error",
    on_unknown: str = "accept",
    on_range: str = "accept",
    default: Any = None,
    **_others: Any,
) -> Mending | None:
    """What stands in for values of a column; None where nothing does."""
    ranged = type in ("float", "int") and on_range in ("clamp", "null", "default")
    named = type == "string" and on_unknown in ("null", "default")
    if on_missing == "error" and not (ranged or named):
        return None
    low, high = _range(type, min, max)
    return Mending(
        missing=default if on_missing == "default" else None,
        ranged=ranged,
        low=low,
        high=high,
        clamps=on_range == "clamp",
        beyond=default if on_range == "default" else None,
        known=frozenset(categories or ()) if named else None,
        unknown=default if on_unknown == "default" else None,
    )


def accepted(
    type: str,
    *,
    min: float | None = None,
    max: float | None = None,
    categories: Collection[str] | None = None,
    strict: bool = False,
    on_unknown: str = "accept",
    on_range: str = "accept",
    **_others: Any,
) -> Accepted:
    """What a column lets in."""
    bounded = on_range == "error" or (strict and on_range == "accept")
    named = on_unknown == "error" or (strict and on_unknown == "accept")
    low, high = _range(type, min if bounded else None, max if bounded else None)
    return Accepted(low, high, frozenset(categories) if named and categories else None)


def _range(type: str, low: float | None, high: float | None) -> tuple[float, float]:
    """Bounds within what the type can hold; whole numbers for whole numbers."""
    low, high = -inf if low is None else low, inf if high is None else high
    if type != "int":
        return max(low, -SINGLE), min(high, SINGLE)
    return (
        max(ceil(low), -_WHOLE) if isfinite(low) else -_WHOLE,
        min(floor(high), _WHOLE - 1) if isfinite(high) else _WHOLE - 1,
    )
