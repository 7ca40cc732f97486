from __future__ import annotations

from typing import Any

import pytest

from mainspring.core.signature import Field, Signature
from mainspring.registry.compatibility import breaking_changes

BASE: dict[str, Any] = {
    "delay": {"type": "float", "nullable": True},
    "month": {"type": "int"},
    "carrier": {"type": "string", "categories": ("AA", "UA")},
}


def signature(change: dict[str, Any] | None = None, drop: str = "", **facts: Any) -> Signature:
    fields = {name: {**kind, **(change or {}).get(name, {})} for name, kind in BASE.items() if name != drop}
    fields |= {name: kind for name, kind in (change or {}).items() if name not in BASE}
    return Signature(inputs=tuple(Field(name=name, **kind) for name, kind in fields.items()), **facts)


@pytest.mark.parametrize(
    ("live", "new", "told"),
    [
        (signature(), signature(), []),
        (signature(), signature(threshold=0.9), []),
        (signature(), signature({"air_time": {"type": "float"}}), ["callers do not send `air_time`"]),
        (signature(), signature({"air_time": {"type": "float", "nullable": True}}), []),
        (signature(), signature(drop="month"), ["callers send `month`, which it does not know"]),
        (signature(), signature({"month": {"type": "float"}}), []),
        (signature(), signature({"delay": {"type": "int"}}), ["`delay` as float, it reads int"]),
        (signature(), signature({"delay": {"nullable": False}}), ["null in `delay`"]),
        (signature(), signature({"month": {"nullable": True}}), []),
        (signature(), signature({"carrier": {"strict": True}}), ["any text in `carrier`"]),
        (
            signature({"carrier": {"strict": True}}),
            signature({"carrier": {"strict": True, "categories": ("AA",)}}),
            ["callers may send UA in `carrier`"],
        ),
        (signature(), signature({"month": {"min": 1, "max": 12}}), []),
        (signature(), signature({"month": {"min": 1, "strict": True}}), ["`month` below 1"]),
        (
            signature({"month": {"min": 1, "max": 12, "strict": True}}),
            signature({"month": {"min": 0, "max": 6, "strict": True}}),
            ["`month` above 6"],
        ),
        (signature(), signature(kind="regressor"), ["it answers a number"]),
    ],
)
def test_which_callers_would_break(live: Signature, new: Signature, told: list[str]) -> None:
    found = breaking_changes(live, new)
    assert len(found) == len(told)
    for sentence, part in zip(found, told, strict=True):
        assert part in sentence
