"""What serving processes used adds up, however it is told; saturation and cost by their definitions."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.serving import meter
from mainspring.serving.log import Use
from mainspring.serving.meter import Meter, processors, wait
from mainspring.serving.model import Usage, UsageHour
from mainspring.serving.usage import HOUR, added, hour_of, within

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
EMPTY = UsageHour(
    id="u", created=NOON, deployment="mill", start=NOON, seconds=0.0, capacity=0.0, cpu_seconds=0.0, peak=0.0
)
uses = st.builds(
    Use, st.just(0), st.sampled_from([0.5, 20.0, 60.0]), st.integers(1, 4), st.floats(0, 60), st.floats(0, 60)
)


def use(minute: float, seconds: float = 60.0, cpu: float = 15.0, workers: int = 1) -> Use:
    return Use(int((NOON + timedelta(minutes=minute)).timestamp() * 1e6), seconds, workers, seconds, cpu)


@given(st.lists(uses, max_size=8), st.integers(0, 8))
def test_pieces_add_up_to_the_whole(told: list[Use], cut: int) -> None:
    whole, pieces = added(EMPTY, told), added(added(EMPTY, told[:cut]), told[cut:])
    for name in ("seconds", "capacity", "cpu_seconds", "peak"):
        assert getattr(pieces, name) == pytest.approx(getattr(whole, name))


def test_saturation_and_cost_of_a_window() -> None:
    hour = added(EMPTY, [use(minute, cpu=45.0 if minute == 3 else 15.0) for minute in range(1, 61)])
    found = within([hour], NOON, NOON + HOUR)
    assert found is not None
    assert (found.hours, found.peak) == (1.0, 0.75)
    assert found.saturation == pytest.approx((59 * 15 + 45) / 3600)
    assert found.cost_per_1000(1.2, 48_000) == pytest.approx(1.2 / 48)
    assert found.cost_per_1000(1.2, 0) is None
    half = within([hour], NOON + HOUR / 2, NOON + 2 * HOUR)
    assert half is not None
    assert (half.hours, half.saturation) == (0.5, pytest.approx(found.saturation))
    assert within([], NOON, NOON + HOUR) is None


def test_workers_are_one_process_and_share_its_capacity() -> None:
    hour = added(EMPTY, [use(minute, workers=2) for minute in range(1, 61) for _ in range(2)])
    found = within([hour], NOON, NOON + HOUR)
    assert found is not None
    assert (found.hours, found.saturation) == (1.0, 0.25)


def test_a_moment_after_the_start_is_no_peak_and_more_than_one_thread_is_full() -> None:
    assert added(EMPTY, [use(1, seconds=0.2, cpu=0.2)]).peak == 0
    assert added(EMPTY, [use(1, cpu=90.0)]).peak == 1
    assert Usage(hours=1.0, capacity=60.0, cpu_seconds=90.0, peak=1.0).saturation == 1


@pytest.mark.parametrize(("minute", "hours"), [(0.0, -1), (0.01, -1), (1.0, 0), (60.01, 0), (61.0, 1)])
def test_a_record_belongs_to_the_hour_of_its_middle(minute: float, hours: int) -> None:
    assert hour_of(use(minute)) == NOON + hours * HOUR


@pytest.mark.parametrize(("now", "seconds"), [(0.0, 60), (45.0, 15), (59.5, 60.5), (3601.0, 59)])
def test_records_end_with_the_minute(now: float, seconds: float) -> None:
    assert wait(now) == seconds


def test_what_a_process_takes_is_told_once() -> None:
    began, spent = time.monotonic(), time.process_time()
    counting = Meter(1)
    told = []
    for _ in range(3):
        sum(range(100_000))
        told.append(counting.take().use)
    assert 0 < sum(item.seconds for item in told if item) <= time.monotonic() - began
    assert 0 < sum(item.cpu_seconds for item in told if item) <= time.process_time() - spent


def test_processors_are_shared_and_bounded_by_the_quota(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = tmp_path_factory.mktemp("group") / "cpu.max"
    monkeypatch.setattr(meter, "_QUOTA", quota)
    free = processors()
    quota.write_text("max 100000\n")
    assert processors() == free >= 1
    quota.write_text("50000 100000\n")
    assert (processors(), Meter(1).share, Meter(2).share) == (0.5, 0.5, 0.25)
