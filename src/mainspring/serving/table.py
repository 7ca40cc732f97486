"""Columns of numbers that came as one tensor: as requests have them, and as the prediction log does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Unpacked(Mapping[str, Sequence[float]]):
    """The columns of rows that came as one array; they become lists only if somebody looks at them.

    Args:
        names: The columns.
        values: The rows, ``[rows, columns]``.
    """

    def __init__(self, names: Sequence[str], values: NDArray[Any]) -> None:
        self._names, self._values = names, values

    @cached_property
    def _lists(self) -> dict[str, list[float]]:
        return dict(zip(self._names, self._values.T.tolist(), strict=True))

    def __getitem__(self, name: str) -> Sequence[float]:
        return self._lists[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Table(msgspec.Struct, array_like=True, gc=False):
    """Rows that came as a tensor FP32: half as long as lists of the numbers, and made at once.

    Attributes:
        names: The columns.
        values: Row by row, little-endian; there is a value everywhere.
    """

    names: list[str]
    values: bytes

    def columns(self) -> dict[str, Sequence[Any]]:
        """Column -> its values."""
        import numpy as np  # noqa: PLC0415 - the parent of several workers imports this module and must stay without

        values = np.frombuffer(self.values, "<f4").reshape(-1, len(self.names))
        return dict(zip(self.names, decimals(values).T.tolist(), strict=True))


def decimals(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each number in single precision the decimal of fewest digits that is this number, in double precision.

    It is what was sent as text, if that had at most six digits. Widened as it is, 0.1 would become 0.10000000149: on
    the other side of a bin that ends at 0.1.
    """
    import numpy as np  # noqa: PLC0415 - as above

    wide = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = np.floor(np.log10(np.abs(wide)))
        found = wide.copy()
        for digits in (9, 8, 7, 6):  # the fewest last, because that is what stays
            # Powers of ten up to the 22nd are exact, so a quotient or product with one is the decimal itself.
            shift = digits - 1 - places
            power = 10.0 ** np.abs(shift)
            rounded = np.where(shift >= 0, np.rint(wide * power) / power, np.rint(wide / power) * power)
            same = (rounded.astype(np.float32) == values) & (np.abs(shift) <= 22)
            found = np.where(same, rounded, found)
    return found
