"""``metrics/*``: curves."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import msgspec

from mainspring.core.ids import from_hex
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.messages import Histories, History, Message
from mainspring.interop.mlflow.rooms import Rooms, run_id

PAGE = 25_000
BULK = 25_000
MAX_SAMPLES = 2500
"""Most steps that are told of a sampled curve."""
MAX_RUNS = 100
_encode = msgspec.json.encode
_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Row = tuple[_Whole, _Whole, float, _Whole]


def _history(rooms: Rooms, request: History) -> bytes:
    run = run_id(request)
    key = request.metric_key
    if not key:
        raise missing("metric_key")
    limit = request.max_results
    if limit is None and not request.page_token:
        limit = -1  # older clients know no pages
    elif limit is None or limit > PAGE:
        limit = PAGE
    elif limit < 1:
        raise invalid("max_results", limit, "It must be a positive integer")
    after = _read_token(request.page_token)
    rows = rooms.runs.journal.curve(run, key, limit + 1 if limit > 0 else -1, after)
    more = 0 < limit < len(rows)
    if more:
        rows = rows[:limit]
    told = _points(key, rows)
    if more:
        return b'{"metrics":' + told + b',"next_page_token":' + _encode(_write_token(rows[-1])) + b"}"
    return b'{"metrics":' + told + b"}" if rows else b"{}"


def _points(key: str, rows: list[tuple[int, int, float, int]]) -> bytes:
    return _encode(
        [
            {"key": key, "value": "NaN" if nan else value, "timestamp": time // 1000, "step": step}
            for time, step, value, nan in rows
        ]
    )


def _write_token(row: tuple[int, int, float, int]) -> str:
    """The point after which the next page begins: it holds its place when points are added meanwhile."""
    return base64.urlsafe_b64encode(_encode(row)).decode()


def _read_token(token: str | None) -> tuple[int, int, float, int] | None:
    if not token:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=_Row)  # type: ignore[no-any-return]
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise MlflowError(INVALID, "Invalid page token") from None


def _bulk(rooms: Rooms, request: Histories) -> bytes:
    key, runs = _asked(request.metric_key, request.run_id)
    limit = min(request.max_results or BULK, BULK)
    parts: list[dict[str, Any]] = []
    for name in runs:
        rows = rooms.runs.journal.curve(_id(name), key, limit)
        parts += [
            {"key": key, "value": "NaN" if nan else value, "timestamp": time // 1000, "step": step, "run_id": name}
            for time, step, value, nan in rows[: limit - len(parts)]
        ]
    return _encode({"metrics": parts})


def _bulk_interval(rooms: Rooms, request: Histories) -> bytes:
    """Of each curve some steps, evenly spread, with the first and the last, and those of its extremes."""
    if not request.run_ids:
        raise missing("run_ids")
    if not request.metric_key:
        raise missing("metric_key")
    if len(request.run_ids) > MAX_RUNS:
        raise MlflowError(INVALID, f"GetMetricHistoryBulkInterval request must specify at most {MAX_RUNS} run_ids.")
    key, runs = request.metric_key, request.run_ids
    limit, start, end = request.max_results, request.start_step, request.end_step
    limit = MAX_SAMPLES if limit is None else limit
    if not 1 <= limit <= MAX_SAMPLES:
        raise MlflowError(INVALID, f"max_results must be between 1 and {MAX_SAMPLES}.")
    if (start is None) != (end is None):
        raise MlflowError(INVALID, "If either start step or end step are specified, both must be specified.")
    if start is not None and end is not None and start > end:
        raise MlflowError(
            INVALID, f"end_step must be greater than start_step. Found start_step={start} and end_step={end}."
        )
    found: list[dict[str, Any]] = []
    for name in runs:
        rows = rooms.runs.journal.curve(_id(name), key)
        if start is not None and end is not None:
            rows = [row for row in rows if start <= row[1] <= end]
        kept = _sampled(rows, limit)
        found += [
            {"key": key, "value": "NaN" if nan else value, "timestamp": time // 1000, "step": step, "run_id": name}
            for time, step, value, nan in sorted(kept, key=lambda row: (row[1], row[0]))
        ]
    return _encode({"metrics": found} if found else {})


def _sampled(rows: list[tuple[int, int, float, int]], limit: int) -> list[tuple[int, int, float, int]]:
    """All points at evenly spread steps, at the first and the last one, and where the curve is highest and lowest."""
    steps = sorted({row[1] for row in rows})
    if len(steps) <= limit:
        return rows
    chosen = {steps[round(place * (len(steps) - 1) / max(limit - 1, 1))] for place in range(limit)}
    numbers = [row for row in rows if not row[3]]
    if numbers:
        chosen |= {min(numbers, key=lambda row: row[2])[1], max(numbers, key=lambda row: row[2])[1]}
    return [row for row in rows if row[1] in chosen]


def _asked(key: str | None, runs: list[str] | None) -> tuple[str, list[str]]:
    if not runs:
        raise MlflowError(INVALID, "GetMetricHistoryBulk request must specify at least one run_id.")
    if len(runs) > MAX_RUNS:
        raise MlflowError(
            INVALID,
            f"GetMetricHistoryBulk request cannot specify more than {MAX_RUNS} run_ids. Received {len(runs)} run_ids.",
        )
    if not key:
        raise MlflowError(INVALID, "GetMetricHistoryBulk request must specify a metric_key.")
    return key, runs


def _id(name: str) -> str:
    found = from_hex(name)
    if not found:
        raise MlflowError(MISSING, f"Run with id={name} not found")
    return found


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("GET", "metrics/get-history"): (History, _history),
    ("GET", "metrics/get-history-bulk"): (Histories, _bulk),
    ("GET", "metrics/get-history-bulk-interval"): (Histories, _bulk_interval),
}
