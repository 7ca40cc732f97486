"""What is tried before a version is routed, in a process of its own: ``python -m mainspring.deploy.checks < TRIAL``.

A model that crashes, hangs or eats the memory does so there, where nobody waits for an answer.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.entity import Value
from mainspring.core.package import EXAMPLE, Example
from mainspring.core.signature import Signature
from mainspring.deploy.model import Check, Checks, Deployment
from mainspring.registry.compatibility import added_columns, breaking_changes
from mainspring.registry.model import ModelVersion

Examiner = Callable[[Deployment, ModelVersion], Check | None]
"""Says whether a version may be released to a deployment; None where there is nothing to say."""
_WARM = 10
_UNIT = 1 if sys.platform == "darwin" else 1024  # of the peak memory that the system tells


class _Trial(Value):
    """What the process is told."""

    folder: str
    checks: Checks
    trusted: tuple[str, ...] = ()


def try_out(folder: Path, checks: Checks, live: Signature | None, trusted: tuple[str, ...] = ()) -> list[Check]:
    """Tries a version's folder; every check in the order in which it was made, the first failure of loading ends it.

    Args:
        folder: The unpacked version.
        checks: Limits.
        live: Signature of the version that answers now; None when nothing is live.
        trusted: Types beyond scikit-learn's own that an original model may be made of.
    """
    trial = msgspec.json.encode(_Trial(folder=str(folder), checks=checks, trusted=trusted))
    command = [sys.executable, "-m", "mainspring.deploy.checks"]
    try:
        tried = subprocess.run(command, input=trial, capture_output=True, timeout=checks.seconds, check=False)
    except subprocess.TimeoutExpired:
        detail = f"it was not done within {checks.seconds:g} seconds"
        return [Check(name="loads", ok=False, limit=checks.seconds, detail=detail)]
    try:
        found = msgspec.json.decode(tried.stdout, type=list[Check])
    except msgspec.DecodeError:
        said = tried.stderr.decode(errors="replace").strip().splitlines()[-1:]
        how = f"was ended by signal {-tried.returncode}" if tried.returncode < 0 else f"ended with {tried.returncode}"
        return [Check(name="loads", ok=False, detail=": ".join([f"the process that tried it {how}", *said]))]
    if found[0].ok:
        found.append(_signature(folder, live))
    return found


def _signature(folder: Path, live: Signature | None) -> Check:
    if live is None:
        return Check(name="signature", ok=True, detail="nothing is live that callers could be used to")
    new = Signature.from_json((folder / "signature.json").read_bytes())
    broken = breaking_changes(live, new)
    detail = "; ".join(broken) or "every present caller can go on"
    if added := added_columns(live, new):
        columns = ", ".join(f"`{name}`" for name in added)
        detail += f"; {columns} may be left out while it takes over, and must be sent (or null) once it is live"
    return Check(name="signature", ok=not broken, detail=detail)


def failure(checks: list[Check]) -> str:
    """What failed, in words; empty when nothing did."""
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.ok]
    return "; ".join(failed)


def way_out(checks: list[Check], version: str, deployment: str) -> str:
    """What to do about a version that fails a check."""
    ask = f"mainspring deploy {version} --deployment {deployment}"
    if any(check.name == "signature" and not check.ok for check in checks):
        # Beside the live version it would be asked what it cannot answer.
        return f"mend it, or, if no caller minds: {ask} --at-once --skip-checks REASON"
    return f"mend it, or: {ask} --skip-checks REASON"


def main() -> int:
    """Tries a model and prints what was found as JSON."""
    from mainspring.errors import MainspringError  # noqa: PLC0415
    from mainspring.registry.load import load_model  # noqa: PLC0415 - only the process that tries pays for it

    trial = msgspec.json.decode(sys.stdin.buffer.read(), type=_Trial)
    folder, checks = Path(trial.folder), trial.checks
    try:
        model = load_model(folder, trusted=trial.trusted)
    except MainspringError as error:
        found = [Check(name="loads", ok=False, detail=error.message)]
    else:
        found = [Check(name="loads", ok=True, detail="it is loaded and has scored a row")]
        found += [_latency(model, folder, checks), _predictions(model, folder, checks)]
        found.insert(1, _memory(_peak_mb(), checks))
    sys.stdout.write(msgspec.json.encode(found).decode())
    return 0


def _peak_mb() -> float:
    """The most memory this program ever had. Linux's ``ru_maxrss`` may be that of the process which started it."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "")
        if peak:
            return int(peak.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 1e6


def _memory(peak: float, checks: Checks) -> Check:
    limit = checks.memory_limit_mb
    detail = f"a process that loads and scores takes {peak:.0f} MB"
    detail += f", allowed are {limit:g}" if limit is not None else ""
    return Check(name="memory", ok=limit is None or peak <= limit, figure=peak, limit=limit, detail=detail)


def _latency(model: Any, folder: Path, checks: Checks) -> Check:
    """The p99 over calls of ``batch`` rows, after some that do not count."""
    from mainspring.registry.runtime import probe_rows  # noqa: PLC0415 - see `main`

    rows = checks.batch
    columns = probe_rows(folder, model.signature, rows)
    times = []
    for _ in range(_WARM + checks.calls):
        start = time.perf_counter()
        model.signature.labels(model.score(columns, rows))
        times.append((time.perf_counter() - start) * 1000)
    ordered = sorted(times[_WARM:])
    p99 = ordered[min(math.ceil(0.99 * len(ordered)), len(ordered)) - 1]
    limit = checks.latency_p99_ms
    detail = f"p99 of {checks.calls} calls of {rows} {'row' if rows == 1 else 'rows'} is {p99:.3g} ms"
    detail += f", allowed are {limit:g}" if limit is not None else ""
    return Check(name="latency", ok=limit is None or p99 <= limit, figure=p99, limit=limit, detail=detail)


def _predictions(model: Any, folder: Path, checks: Checks) -> Check:
    """Whether the recorded rows get the recorded scores."""
    example = _example(folder)
    if example is None:
        return Check(name="predictions", ok=True, detail="none were recorded at registration, nothing was compared")
    scores = model.score(example.columns, example.rows)
    pairs = zip(scores, example.scores, strict=True)
    worst = max((math.inf if math.isnan(new) else abs(new - old) for new, old in pairs), default=0.0)
    far = checks.difference
    detail = f"{example.rows} recorded rows get their scores within {worst:.2g}, allowed is {far:g}"
    figure = worst if math.isfinite(worst) else None
    return Check(name="predictions", ok=worst <= far, figure=figure, limit=far, detail=detail)


def _example(folder: Path) -> Example | None:
    path = folder / EXAMPLE
    return msgspec.json.decode(path.read_bytes(), type=Example) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
