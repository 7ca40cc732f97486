"""Counters of one serving process, told in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

_BOUNDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class Metrics:
    """What is counted since the start.

    Attributes:
        requests: Face (``predict``, ``infer``, ``admin``) and HTTP status -> requests.
        rows: Version and role -> scored rows.
        errors: Code -> refused or failed requests.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.rows: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Counts the time that one answered prediction request took."""
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def render(self, deployment: str, revision: int, lost: int) -> str:
        """All of them as text."""
        name = f'deployment="{deployment}"'
        lines = ["# TYPE mainspring_requests_total counter"]
        for (face, status), count in sorted(self.requests.items()):
            lines.append(f'mainspring_requests_total{{{name},face="{face}",status="{status}"}} {count}')
        lines.append("# TYPE mainspring_rows_total counter")
        for (version, role), count in sorted(self.rows.items()):
            lines.append(f'mainspring_rows_total{{{name},version="{_escaped(version)}",role="{role}"}} {count}')
        lines.append("# TYPE mainspring_errors_total counter")
        for code, count in sorted(self.errors.items()):
            lines.append(f'mainspring_errors_total{{{name},code="{code}"}} {count}')
        lines.append("# TYPE mainspring_latency_seconds histogram")
        total = 0
        for bound, count in zip((*_BOUNDS, "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'mainspring_latency_seconds_bucket{{{name},le="{bound}"}} {total}')
        lines += [
            f"mainspring_latency_seconds_sum{{{name}}} {self._seconds:.6f}",
            f"mainspring_latency_seconds_count{{{name}}} {total}",
            "# TYPE mainspring_log_lost_frames_total counter",
            f"mainspring_log_lost_frames_total{{{name}}} {lost}",
            "# TYPE mainspring_revision gauge",
            f"mainspring_revision{{{name}}} {revision}",
        ]
        return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
