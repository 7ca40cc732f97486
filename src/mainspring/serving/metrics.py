"""Counters of one serving process, added up over its siblings, told in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

import msgspec

from mainspring.serving.log import Mark

BOUNDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Ends of the buckets of answer times, seconds."""


class Snapshot(msgspec.Struct, array_like=True):
    """What one process has counted.

    Attributes:
        requests: Face, status, count.
        rows: Version, role, count.
        errors: Code -> count.
        buckets: Requests by time taken.
        seconds: Time taken by all of them.
        lost: Frames that the prediction log could not write.
        connections: Open now.
        waiting: Requests that wait for their answer now.
        humility: Rule, action taken on the row, count of rows.
        delay: Age of the message that was answered last, seconds.
        cpu_seconds: Seconds of processor time taken.
        processors: How many processors it can keep busy.
    """

    requests: list[tuple[str, int, int]]
    rows: list[tuple[str, str, int]]
    errors: dict[str, int]
    buckets: list[int]
    seconds: float
    lost: int = 0
    connections: int = 0
    waiting: int = 0
    humility: list[tuple[str, str, int]] = []
    delay: float = 0.0
    cpu_seconds: float = 0.0
    processors: float = 0.0


class Metrics:
    """What is counted since the start.

    Attributes:
        requests: Face (``predict``, ``infer``, ``stream``, ``admin``) and HTTP status -> requests.
        rows: Version and role -> scored rows.
        errors: Code -> refused or failed requests.
        lost: Frames that the prediction log could not write.
        connections: Open now.
        waiting: Requests that wait for their answer now.
        humility: Rule and action taken on the row -> rows.
        delay: Age of the message of a stream that was answered last, seconds; the greatest of all processes.
        cpu_seconds: Seconds of processor time taken.
        processors: How many processors can be kept busy.
    """

    def __init__(self, told: Iterable[Snapshot] = ()) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.rows: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self.humility: Counter[tuple[str, str]] = Counter()
        self.lost = self.connections = self.waiting = 0
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = self.delay = self.cpu_seconds = self.processors = 0.0
        for snapshot in told:
            self._add(snapshot)

    def observe(self, seconds: float) -> None:
        """Counts the time that one answered prediction request took."""
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def observe_each(self, starts: Iterable[float], now: float) -> list[int]:
        """Counts requests that were answered together; the time that each took, microseconds.

        Args:
            starts: When each was there, seconds.
            now: When all were answered.
        """
        took = [now - start for start in starts]
        buckets = self._buckets
        for seconds in took:
            buckets[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += sum(took)
        return [int(seconds * 1e6) for seconds in took]

    def count_rules(self, marks: Iterable[Mark | None]) -> None:
        """Counts the humility rules that fired on rows."""
        for mark in marks:
            if mark:
                self.humility.update((rule, mark.action) for rule in mark.rules)

    def snapshot(self) -> Snapshot:
        """All counters as one value."""
        return Snapshot(
            [(face, status, count) for (face, status), count in self.requests.items()],
            [(version, role, count) for (version, role), count in self.rows.items()],
            dict(self.errors),
            self._buckets.copy(),
            self._seconds,
            self.lost,
            self.connections,
            self.waiting,
            [(rule, action, count) for (rule, action), count in self.humility.items()],
            self.delay,
            self.cpu_seconds,
            self.processors,
        )

    def _add(self, told: Snapshot) -> None:
        for face, status, count in told.requests:
            self.requests[face, status] += count
        for version, role, count in told.rows:
            self.rows[version, role] += count
        for rule, action, count in told.humility:
            self.humility[rule, action] += count
        self.errors.update(told.errors)
        self._buckets = [ours + theirs for ours, theirs in zip(self._buckets, told.buckets, strict=True)]
        self._seconds += told.seconds
        self.lost += told.lost
        self.connections += told.connections
        self.waiting += told.waiting
        self.delay = max(self.delay, told.delay)
        self.cpu_seconds += told.cpu_seconds
        self.processors += told.processors

    @property
    def buckets(self) -> list[int]:
        """How many answers took up to each of `BOUNDS`, and more than the last."""
        return list(self._buckets)

    def render(self, deployment: str, revision: int, workers: int = 1) -> str:
        """All of them as text."""
        name = f'deployment="{deployment}"'
        lines = ["# TYPE mainspring_requests_total counter"]
        for (face, status), count in sorted(self.requests.items()):
            lines.append(f'mainspring_requests_total{{{name},face="{face}",status="{status}"}} {count}')
        lines.append("# TYPE mainspring_rows_total counter")
        for (version, role), count in sorted(self.rows.items()):
            lines.append(f'mainspring_rows_total{{{name},version="{_escaped(version)}",role="{role}"}} {count}')
        if self.humility:
            lines.append("# TYPE mainspring_humility_rows_total counter")
        for (rule, action), count in sorted(self.humility.items()):
            lines.append(f'mainspring_humility_rows_total{{{name},rule="{rule}",action="{action}"}} {count}')
        lines.append("# TYPE mainspring_errors_total counter")
        for code, count in sorted(self.errors.items()):
            lines.append(f'mainspring_errors_total{{{name},code="{code}"}} {count}')
        lines.append("# TYPE mainspring_latency_seconds histogram")
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'mainspring_latency_seconds_bucket{{{name},le="{bound}"}} {total}')
        lines.append(f"mainspring_latency_seconds_sum{{{name}}} {self._seconds:.6f}")
        lines.append(f"mainspring_latency_seconds_count{{{name}}} {total}")
        for metric, kind, value in (
            ("log_lost_frames_total", "counter", self.lost),
            ("connections", "gauge", self.connections),
            ("waiting_requests", "gauge", self.waiting),
            ("workers", "gauge", workers),
            ("revision", "gauge", revision),
            ("stream_delay_seconds", "gauge", round(self.delay, 3)),
            ("cpu_seconds_total", "counter", round(self.cpu_seconds, 3)),
            ("processors", "gauge", round(self.processors, 3)),
        ):
            lines += [f"# TYPE mainspring_{metric} {kind}", f"mainspring_{metric}{{{name}}} {value}"]
        return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
