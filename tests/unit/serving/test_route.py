from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.ports.target import Role, Route
from mainspring.serving.route import Router

WEIGHTS = st.floats(0, 50)
IDS = [f"flight-{number}" for number in range(4000)]


def route(version: str, role: Role = "live", weight: float = 0.0) -> Route:
    return Route(version=version, path="", role=role, weight=weight)


def router(first: float, second: float | None = None) -> Router:
    others = [] if second is None else [route("m@3", "canary", second)]
    return Router([route("m@1"), route("m@2", "canary", first), *others, route("m@4", "shadow")])


@given(WEIGHTS, WEIGHTS)
def test_shares_are_near_the_weights(first: float, second: float) -> None:
    parts = router(first, second).split(IDS)
    for version, weight in (("m@2", first), ("m@3", second), ("m@1", 100 - first - second)):
        # Five standard deviations of a binomial share of 4,000 rows.
        assert abs(len(parts.get(version, [])) / len(IDS) - weight / 100) < 5 * (0.25 / len(IDS)) ** 0.5


@given(WEIGHTS, WEIGHTS, WEIGHTS)
def test_growing_a_canary_only_takes_rows_from_the_live_version(small: float, large: float, other: float) -> None:
    small, large = sorted((small, large))
    before, after = router(small, other), router(large, other)
    for id in IDS[:500]:
        was, now = before.pick(id), after.pick(id)
        assert now == was or (was, now) == ("m@1", "m@2")
    before, after = router(other, small), router(other, large)
    for id in IDS[:500]:
        was, now = before.pick(id), after.pick(id)
        assert now == was or (was, now) == ("m@1", "m@3")


@given(st.lists(st.text(), max_size=50), WEIGHTS)
def test_every_row_has_one_version_that_depends_on_its_id_alone(ids: list[str], weight: float) -> None:
    parts = router(weight).split(ids)
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(ids)))
    for version, rows in parts.items():
        assert all(router(weight).pick(ids[row]) == version for row in rows)


@pytest.mark.parametrize(("weight", "version"), [(0, "m@1"), (100, "m@2")])
def test_none_and_all(weight: float, version: str) -> None:
    assert set(router(weight).split(IDS)) == {version}


@pytest.mark.parametrize(
    "routes",
    [
        [],
        [route("m@1", "canary", 10)],
        [route("m@1"), route("m@2")],
        [route("m@1"), route("m@1", "shadow")],
        [route("m@1"), route("m@2", "canary", 101)],
        [route("m@1"), route("m@2", "canary", -1)],
        [route("m@1"), route("m@2", "canary", 60), route("m@3", "canary", 60)],
        [route("m@1"), *(route(f"m@{number}", "canary", 1) for number in range(2, 5))],
    ],
)
def test_impossible_routes(routes: list[Route]) -> None:
    with pytest.raises(InvalidInput):
        Router(routes)
