"""How a deployment does just now: what it counted within the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mainspring.serving.metrics import BOUNDS, Metrics

EVERY_SECONDS = 5.0
_SPAN_SECONDS = 60.0


class _Count(NamedTuple):
    time: float
    requests: int
    refused: int
    failed: int
    buckets: Sequence[int]


class Recent:
    """Counts of the last minute, as differences of what was counted since the start.

    Args:
        now: The present time, seconds.
    """

    def __init__(self, now: float) -> None:
        self._counts = deque([_Count(now, 0, 0, 0, [0] * (len(BOUNDS) + 1))])

    def note(self, now: float, metrics: Metrics) -> None:
        """Remembers how much there was; to be told every `EVERY_SECONDS`."""
        self._counts.append(_count(now, metrics))
        while len(self._counts) > 2 and self._counts[1].time <= now - _SPAN_SECONDS:
            self._counts.popleft()

    def figures(self, now: float, metrics: Metrics) -> dict[str, float | None]:
        """What came since the oldest moment that is remembered.

        Returns:
            ``seconds`` since then; ``requests``; of these ``refused`` (4xx) and ``failed`` (5xx); ``rate``, requests
            per second; ``p50_ms`` and ``p99_ms``, of the time from a whole request to its scores, None without any.
        """
        first, last = self._counts[0], _count(now, metrics)
        seconds = max(now - first.time, 1e-3)
        buckets = [max(after - before, 0) for before, after in zip(first.buckets, last.buckets, strict=True)]
        requests = max(last.requests - first.requests, 0)
        return {
            "seconds": round(seconds, 3),
            "requests": requests,
            "refused": max(last.refused - first.refused, 0),
            "failed": max(last.failed - first.failed, 0),
            "rate": round(requests / seconds, 3),
            "p50_ms": quantile(buckets, 0.5),
            "p99_ms": quantile(buckets, 0.99),
        }


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """The time in milliseconds that so large a share does not exceed, evenly within a bucket as Prometheus has it."""
    wanted, passed, low = share * sum(buckets), 0, 0.0
    for bound, count in zip(BOUNDS, buckets, strict=False):
        if count and passed + count >= wanted:
            return round((low + (bound - low) * (wanted - passed) / count) * 1000, 4)
        passed, low = passed + count, bound
    return low * 1000 if sum(buckets) else None


def _count(now: float, metrics: Metrics) -> _Count:
    asked = {(face, status): count for (face, status), count in metrics.requests.items() if face != "admin"}
    refused = sum(count for (_, status), count in asked.items() if 400 <= status < 500)
    failed = sum(count for (_, status), count in asked.items() if status >= 500)
    return _Count(now, sum(asked.values()), refused, failed, metrics.buckets)
