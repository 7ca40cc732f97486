from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainspring.core.ids import new_id
from mainspring.errors import InvalidInput
from mainspring.measures.profile import count, reference_bins
from mainspring.measures.reference import Reference, make_reference, to_bytes
from mainspring.measures.window import Layout, encode, merge
from mainspring.monitoring import fleet
from mainspring.monitoring.model import ReferenceProfile, WindowProfile
from mainspring.store import Store

DAY = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store(database_url: str) -> Any:
    store = Store(database_url)
    store.prepare()
    yield store
    store.close()


def drawn(seed: int, shift: float = 0.0) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    return pl.DataFrame({"x": draw.normal(shift, 1, 800), "s": draw.choice(["a", "b", "c"], 800)})


def filled(store: Store, models: int = 5) -> dict[str, Reference]:
    """Models with references of their own, each asked for three hours; the last one's inputs moved."""
    references = {}
    for number in range(models):
        name, frame = f"m{number}", drawn(number)
        layout = Layout(reference_bins(frame))
        references[name] = make_reference(layout, count(frame, layout))
        kept = ReferenceProfile(id=new_id(), created=DAY, version=f"{name}@1", blob=to_bytes(references[name]))
        with store.transaction() as tx:
            tx.insert(kept)
        for hour in range(3):
            window = count(drawn(100 + number * 10 + hour, 1.0 if number == models - 1 else 0.0), layout)
            start = DAY + hour * HOUR
            fleet.keep_window(store, name, f"{name}@1", start, start + HOUR, encode(window, layout.key), rows=800)
    return references


def test_a_fleet_is_compared_as_each_model_alone(store: Store) -> None:
    references = filled(store)
    found = list(fleet.evaluate(store, DAY, DAY + timedelta(days=1), block=2))
    assert [(item.deployment, item.rows) for item in found] == [(name, 2_400) for name in references]
    for item in found:
        window = fleet.stored_window(store, item.deployment, item.version, DAY, DAY + 3 * HOUR)
        assert window is not None
        assert item.distances is not None
        alone = references[item.deployment].distances(window)
        for left, right in zip(item.distances, alone, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-9)
    assert [item.deployment for item in found if item.distances and item.distances.ks[0] > 0.2] == ["m4"]


def test_the_furthest_of_a_fleet_come_first(store: Store) -> None:
    filled(store)
    span = (DAY, DAY + timedelta(days=1))
    found = fleet.furthest(store, *span, limit=2, min_rows=200)
    assert [item.deployment for item in found][:1] == ["m4"]
    assert (found[0].column, found[0].rows, found[0].beyond) == ("x", 2_400, 1)
    assert found[0].value > found[0].limit  # type: ignore[operator]
    assert len(found) == 2
    assert fleet.furthest(store, *span, limit=2, min_rows=5_000) == []
    fleet.keep_window(store, "m1", "m1@1", DAY, DAY + HOUR, b"damaged", rows=1)
    worst = fleet.furthest(store, *span, limit=1, min_rows=200)[0]
    assert (worst.deployment, "damaged" in worst.problem) == ("m1", True)


def test_damage_of_one_model_leaves_the_others(store: Store) -> None:
    filled(store, 3)
    fleet.keep_window(store, "m1", "m1@1", DAY, DAY + HOUR, b"damaged", rows=1)
    found = {item.deployment: item for item in fleet.evaluate(store, DAY, DAY + timedelta(days=1))}
    assert found["m0"].distances is not None
    assert found["m1"].distances is None
    assert "damaged" in found["m1"].problem


def test_hours_roll_up_to_a_day_once(store: Store) -> None:
    filled(store, 2)
    before = fleet.stored_window(store, "m0", "m0@1", DAY, DAY + timedelta(days=1))
    assert fleet.roll_up(store, DAY + timedelta(hours=12)) == 0  # the day has not ended
    assert fleet.roll_up(store, DAY + timedelta(days=1)) == 6
    assert fleet.roll_up(store, DAY + timedelta(days=1)) == 0
    after = fleet.stored_window(store, "m0", "m0@1", DAY, DAY + timedelta(days=1))
    assert before is not None
    assert after is not None
    assert after.counts.tolist() == before.counts.tolist()
    np.testing.assert_allclose(after.stats, before.stats)
    late = before._replace(counts=before.counts)
    key = store.first(WindowProfile, deployment="m0")
    assert key is not None
    fleet.keep_window(store, "m0", "m0@1", DAY, DAY + HOUR, encode(late, key.blob[12:20]), rows=2_400)
    assert fleet.roll_up(store, DAY + timedelta(days=1)) == 1
    both = fleet.stored_window(store, "m0", "m0@1", DAY, DAY + timedelta(days=1))
    assert both is not None
    assert both.counts.tolist() == merge([before, late]).counts.tolist()


def test_a_part_sent_again_replaces_what_it_was(store: Store) -> None:
    filled(store, 1)
    again = store.find(WindowProfile, deployment="m0")[0]
    fleet.keep_window(store, "m0", "m0@1", again.start, again.end, again.blob, rows=again.rows)
    assert store.count(WindowProfile, deployment="m0") == 3
    fleet.keep_window(store, "m0", "m0@1", again.start, again.end, again.blob, rows=again.rows, source="replica-2")
    window = fleet.stored_window(store, "m0", "m0@1", DAY, DAY + 3 * HOUR)
    assert window is not None
    assert window.rows == 3_200


def test_windows_of_other_bins_are_refused(store: Store) -> None:
    filled(store, 2)
    blobs = [item.blob for item in store.find(WindowProfile)]
    from mainspring.measures.window import decode

    with pytest.raises(InvalidInput, match="different bins"):
        decode(blobs)
