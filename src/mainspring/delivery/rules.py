"""How declared and present state differ: pure functions."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.entity import Entity, set_by
from mainspring.delivery.model import Change
from mainspring.errors import Conflict


def compare(kind: str, declared: Any, present: Entity | None) -> Change:
    """The change that makes the present state equal to the declared one.

    Raises:
        Conflict: A field differs that cannot be changed after creation.
    """
    if present is None:
        return Change(kind=kind, name=declared.name, action="create")
    fields = {}
    for name in declared.__struct_fields__:
        wanted, found = getattr(declared, name), getattr(present, name)
        if wanted == found:
            continue
        if set_by(type(present), name) == "creator":
            raise Conflict(
                f"{kind} `{declared.name}`: `{name}` cannot be changed from {found!r} to {wanted!r}",
                hint=f"give the {kind} another name",
            )
        fields[name] = [msgspec.to_builtins(found), msgspec.to_builtins(wanted)]
    return Change(kind=kind, name=declared.name, action="update" if fields else "unchanged", fields=fields)
