"""Searching models and versions: clauses and an order become one statement.

A tag is read out of the row's JSON: a workspace has thousands of models where it has millions of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from mainspring.core.entity import Entity
from mainspring.registry.model import PROMPT_TAG, Alias, Model, ModelVersion
from mainspring.store import Store
from mainspring.store.rows import shape_of
from mainspring.tracking.query import Part, comparison, json_text
from mainspring.tracking.search import Clause, Grammar, Order

E = TypeVar("E", bound=Entity)

MODELS = Grammar(
    frozenset({"tag", "attribute"}),
    texts={"name": "name"},
    numbers={},
    sortable={"creation_timestamp": "created", "last_updated_timestamp": "changed", "timestamp": "changed"},
)
VERSIONS = Grammar(
    frozenset({"tag", "attribute"}),
    texts={"name": "model", "run_id": "run", "source_path": "source"},
    numbers={"version_number": "number"},
    listed=frozenset({"run"}),
    sortable={"creation_timestamp": "created", "last_updated_timestamp": "changed"},
)


def find_models(
    store: Store, clauses: Sequence[Clause], orders: Sequence[Order], limit: int, offset: int = 0
) -> list[Model]:
    """Models for which all clauses hold; prompts are left out unless a clause asks for them."""
    return _find(store, Model, clauses, [*orders, Order("attribute", "name", True)], limit, offset)


def find_versions(
    store: Store, clauses: Sequence[Clause], orders: Sequence[Order], limit: int, offset: int = 0
) -> list[ModelVersion]:
    """Versions for which all clauses hold, newest change first; prompts are left out unless a clause asks for them."""
    last = [
        Order("attribute", "changed", False),
        Order("attribute", "model", True),
        Order("attribute", "number", False),
    ]
    return _find(store, ModelVersion, clauses, [*orders, *last], limit, offset)


class Listed(NamedTuple):
    """What a list tells of a version: the fields of `ModelVersion` with these names."""

    model: str
    number: int
    created: datetime
    changed: datetime
    stage: str
    source: str
    files: dict[str, str]
    run: str
    run_link: str
    actor: str
    description: str
    logged_model: str
    tags: dict[str, str]


def newest_versions(store: Store, models: Sequence[str]) -> dict[str, list[Listed]]:
    """Model -> its newest version at each stage, by number."""
    if not models:
        return {}
    read, marks = shape_of(ModelVersion, store.engine.dialect.name).reader(Listed._fields), ", ".join("?" * len(models))
    names = ", ".join(f'v."{name}"' for name in Listed._fields)
    with store.driver() as driver:
        rows = driver.rows(
            f"SELECT {names} FROM model_version v JOIN (SELECT model, stage, max(number) AS number FROM model_version "
            f"WHERE model IN ({marks}) AND lifecycle = 'active' GROUP BY model, stage) n "
            "ON v.model = n.model AND v.number = n.number ORDER BY v.model, v.number",
            tuple(models),
        )
    found: dict[str, list[Listed]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(Listed(*read(row)))
    return found


def aliases_of(store: Store, models: Sequence[str]) -> dict[str, list[Alias]]:
    """Model -> its aliases, by name."""
    if not models:
        return {}
    shape, marks = shape_of(Alias, store.engine.dialect.name), ", ".join("?" * len(models))
    with store.driver() as driver:
        rows = driver.rows(
            f"SELECT {shape.names} FROM alias WHERE model IN ({marks}) ORDER BY model, alias", tuple(models)
        )
    found: dict[str, list[Alias]] = {}
    for row in rows:
        alias = shape.entity(row)
        found.setdefault(alias.model, []).append(alias)
    return found


def _find(
    store: Store, kind: type[E], clauses: Sequence[Clause], orders: Sequence[Order], limit: int, offset: int
) -> list[E]:
    sqlite = store.engine.dialect.name == "sqlite"
    shape = shape_of(kind, store.engine.dialect.name)
    parts = [_clause(item, sqlite=sqlite) for item in clauses]
    if not any(item.kind == "tag" and item.key == PROMPT_TAG for item in clauses):
        parts.append(_clause(Clause("tag", PROMPT_TAG, "!=", "true"), sqlite=sqlite))
    if kind is ModelVersion:
        parts.append(Part("lifecycle = 'active'"))
    order = ", ".join(_order(item, sqlite=sqlite).text for item in orders)
    values: list[Any] = [value for part in parts for value in part.values]
    values += [value for item in orders for value in _order(item, sqlite=sqlite).values]
    with store.driver() as driver:
        rows = driver.rows(
            f'SELECT {shape.names} FROM "{kind.__table__}" WHERE {" AND ".join(part.text for part in parts)} '
            f"ORDER BY {order} LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
    return [shape.entity(row) for row in rows]


def _clause(clause: Clause, *, sqlite: bool) -> Part:
    if clause.kind == "tag":
        tag = json_text("tags", clause.key, sqlite=sqlite)
        if clause.operator in ("IS NULL", "IS NOT NULL"):
            return Part(f"{tag.text} {clause.operator}", tag.values)
        compared = comparison(tag.text, clause, sqlite=sqlite)
        if clause.key == PROMPT_TAG and clause.operator == "!=":  # what has no such tag is no prompt
            return Part(f"coalesce({tag.text}, '') != ?", (*tag.values, *compared.values))
        return Part(compared.text, (*tag.values, *compared.values))
    return comparison(f'"{clause.key}"', clause, sqlite=sqlite)


def _order(order: Order, *, sqlite: bool) -> Part:
    way = "ASC" if order.ascending else "DESC"
    if order.kind == "tag":
        tag = json_text("tags", order.key, sqlite=sqlite)
        return Part(f"{tag.text} {way} NULLS LAST", tag.values)
    # Texts are compared letter by letter, as in Python, whatever the database's language.
    collated = f'"{order.key}" COLLATE "C"' if not sqlite and order.key in ("name", "model") else f'"{order.key}"'
    return Part(f"{collated} {way}")
