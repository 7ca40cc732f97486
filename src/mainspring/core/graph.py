"""Directed acyclic graphs: the order in which steps can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from mainspring.errors import InvalidInput


def topological_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Orders the keys of ``needs`` so that each comes after everything it needs; ties keep the given order.

    Raises:
        InvalidInput: The graph has a cycle; the message names it.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        raise InvalidInput(
            "the steps form a cycle: " + " -> ".join(error.args[1]), hint="remove one of these dependencies"
        ) from None
    position = {name: index for index, name in enumerate(needs)}
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: position.get(name, len(position)))
        order.extend(ready)
        sorter.done(*ready)
    return order
