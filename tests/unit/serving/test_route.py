from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.ports.target import Role, Route
from mainspring.serving.route import Router, sampled

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


def arms(*weights: float) -> Router:
    return Router([route("m@1"), *(route(f"m@{place}", "arm", weight) for place, weight in enumerate(weights, 2))])


SHARES = st.lists(st.floats(1, 30), min_size=1, max_size=3)


@given(SHARES)
@settings(max_examples=30)
def test_arms_get_their_share_of_keys(weights: list[float]) -> None:
    parts = arms(*weights).split(IDS)
    shares = {"m@1": 100 - sum(weights)} | {f"m@{place}": weight for place, weight in enumerate(weights, 2)}
    for version, weight in shares.items():
        assert abs(len(parts.get(version, [])) / len(IDS) - weight / 100) < 5 * (0.25 / len(IDS)) ** 0.5


@given(SHARES, st.floats(1, 9))
@settings(max_examples=30)
def test_changed_weights_move_few_keys(weights: list[float], more: float) -> None:
    before, after = arms(*weights), arms(weights[0] + more, *weights[1:])
    moved = 0
    for key in IDS[:1000]:
        was, now = before.pick(key), after.pick(key)
        moved += was != now
        assert was == now or was != "m@2", "an arm that grows loses no key"
        assert was == now or now != "m@1", "an arm that shrinks takes no key"
    # Correlated sampling moves at most 2 d / (1 + d) of the keys for a change of d; five standard deviations on top.
    change = more / 100
    assert moved / 1000 <= 2 * change / (1 + change) + 5 * (0.25 / 1000) ** 0.5


def test_an_arm_of_no_weight_gets_no_key() -> None:
    assert set(arms(0.0, 40.0).split(IDS)) == {"m@1", "m@3"}


def test_arms_and_canaries_exclude_each_other() -> None:
    with pytest.raises(InvalidInput, match="exclude"):
        Router([route("m@1"), route("m@2", "canary", 10), route("m@3", "arm", 10)])


@pytest.mark.parametrize(("weight", "share"), [(0.0, 1.0), (100.0, 1.0), (25.0, 0.25)])
def test_a_shadow_scores_its_share(weight: float, share: float) -> None:
    rows = sampled(route("m@2", "shadow", weight), IDS)
    assert rows == sampled(route("m@3", "shadow", weight), IDS)
    assert abs(len(rows) / len(IDS) - share) < 5 * (0.25 / len(IDS)) ** 0.5
