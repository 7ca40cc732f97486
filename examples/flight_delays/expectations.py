"""What every month's file must fulfil before anything learns from it."""

from __future__ import annotations

import flights

from mainspring.measures.quality import Expectation, Severity


def _expect(rule: str, column: str | None = None, severity: Severity = "error", **params: object) -> Expectation:
    return Expectation(rule=rule, column=column, params=params, severity=severity)


COLUMNS = (flights.ID, flights.DEPARTED, *flights.FEATURES, flights.LABEL)
EXPECTATIONS = [
    _expect("columns_exist", columns=list(COLUMNS)),
    _expect("row_count", min=20_000, max=40_000),
    _expect("unique", flights.ID),
    *(_expect("not_null", name) for name in COLUMNS if name not in flights.WEATHER),
    *(_expect("null_share", name, max=0.05) for name in flights.WEATHER),
    _expect("in_set", "origin", values=["EWR", "JFK", "LGA"]),
    _expect("regex", "carrier", pattern="^[0-9A-Z]{2}$"),
    _expect("regex", "dest", pattern="^[A-Z]{3}$"),
    _expect("between", "dep_delay", min=-120, max=1_440),  # minutes: a day late is another flight
    _expect("mean_between", "dep_delay", min=-5, max=45),
    _expect("between", "distance", min=50, max=6_000),
    _expect("between", "scheduled_minute", min=0, max=1_439),
    _expect("between", "weekday", min=1, max=7),
    _expect("between", "temperature", min=-30, max=120),  # degrees Fahrenheit
    _expect("between", "wind_speed", min=0, max=100),  # miles per hour
    _expect("between", "visibility", min=0, max=10),
    _expect("between", "precipitation", min=0, max=5, severity="warning"),
    _expect("mean_between", flights.LABEL, min=0.05, max=0.5, severity="warning"),
]
