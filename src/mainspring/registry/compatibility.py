"""Whether callers of the live version can go on calling a new one: pure functions on signatures."""

from __future__ import annotations

import msgspec

from mainspring.core.signature import Field, Signature


class Compatibility(msgspec.Struct, frozen=True):
    """What callers of one version may expect of another.

    Attributes:
        before: The earlier version; empty when there is none.
        breaks: Which of its callers would break, a sentence each; none: all can go on.
    """

    before: str = ""
    breaks: list[str] = []


_READS = {"float": ("float", "int", "bool"), "int": ("int", "bool"), "string": ("string",), "bool": ("bool",)}


def breaking_changes(live: Signature, new: Signature) -> list[str]:
    """Which callers would break once the new signature is in force, one sentence each; empty when none would."""
    if not live.inputs:
        return []
    if not new.inputs:
        return ["nobody knows what it reads"]
    before = {field.name: field for field in live.inputs}
    after = {field.name: field for field in new.inputs}
    added = [name for name in after if name not in before]
    found = [f"callers do not send `{name}`, which it cannot do without" for name in added if not after[name].nullable]
    found += [f"callers send `{name}`, which it does not know" for name in before if name not in after]
    for name, field in before.items():
        if name in after:
            found += _narrower(field, after[name])
    if live.kind != new.kind:
        gone = "yes or no, it answers a number" if new.kind == "regressor" else "a number, it answers yes or no"
        found.append(f"callers expect {gone}")
    elif live.classes != new.classes:
        found.append(f"callers expect {_answers(live)}, it answers {_answers(new)}")
    return found


def _answers(signature: Signature) -> str:
    if not signature.classes:
        return "yes or no"
    shown = ", ".join(signature.classes[:5])
    return f"one of {shown}" + (" …" if len(signature.classes) > 5 else "")


def added_columns(live: Signature, new: Signature) -> list[str]:
    """Columns that the new version reads beyond the live one's and can do without."""
    before = {field.name for field in live.inputs}
    return [field.name for field in new.inputs if field.name not in before and field.nullable]


def _narrower(before: Field, after: Field) -> list[str]:
    """What a caller may send in a column now and could not any more."""
    name, found = f"`{after.name}`", []
    if before.type not in _READS[after.type]:
        found.append(f"callers send {name} as {before.type}, it reads {after.type}")
    if before.nullable and not after.nullable:
        found.append(f"callers may send null in {name}, it refuses that")
    if not after.strict:
        return found
    if after.categories is not None:
        lost = set(before.categories or ()) - set(after.categories)
        if not (before.strict and before.categories is not None):
            found.append(f"callers may send any text in {name}, it allows {len(after.categories)} values")
        elif lost:
            found.append(f"callers may send {', '.join(sorted(lost)[:3])} in {name}, it refuses that")
    for bound, word, sign in (("min", "below", 1), ("max", "above", -1)):
        limit = getattr(after, bound)
        allowed = getattr(before, bound) if before.strict else None
        if limit is not None and (allowed is None or sign * limit > sign * allowed):
            found.append(f"callers may send {name} {word} {limit:g}, it refuses that")
    return found
