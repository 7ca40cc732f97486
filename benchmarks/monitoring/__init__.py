"""Monitoring: drift of large tables, stored profiles, a fleet, capture; beside a bare Polars pass and other tools.

Evidently, NannyML and whylogs run at 100,000 rows a side, each in an environment of its own under ``build/peers`` (made
on first use, with versions that still import); they are left out where they cannot be installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import flights
from benchmarks.monitoring import capture, quiet
from benchmarks.report import Row

PEERS = Path(__file__).resolve().parents[2] / "build" / "peers"
PINS = {
    "evidently": ["evidently==0.7.23", "pandas<3", "pyarrow"],
    "nannyml": ["nannyml==0.13.1", "pandas<3", "statsmodels", "setuptools<81"],
    "whylogs": ["whylogs==1.6.4", "pandas<3", "pyarrow"],
}
_TIMED = """
import sys, time
def timed(work):
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    # Not getrusage: its peak is at least that of the process that started this one.
    print(best, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
folder = sys.argv[1]
"""
_BARE = """
import polars as pl
frame = pl.scan_parquet(f"{folder}/ROWS.parquet")
numbers = [name for name, kind in frame.collect_schema().items() if kind.is_numeric()]
said = [getattr(pl.col(numbers), what)().name.suffix(f"_{what}") for what in ("min", "max", "mean", "std")]
timed(lambda: frame.select(*said, pl.all().count()).collect(engine="streaming"))
"""
_OURS = """
import polars as pl
from mainspring.measures.profile import count
from mainspring.measures.reference import from_bytes
reference = from_bytes(open(f"{folder}/reference", "rb").read())
reference.layout.grids
timed(lambda: reference.distances(count(pl.scan_parquet(f"{folder}/ROWS.parquet"), reference.layout)))
"""
_STORED = """
import time
from mainspring.measures.reference import from_bytes
from mainspring.measures.window import decode, merged
reference = from_bytes(open(f"{folder}/reference", "rb").read())
blob = open(f"{folder}/window", "rb").read()
def many():
    for _ in range(100):
        reference.distances(merged(decode([blob], reference.key)))
timed(many)
"""
_COUNTER = """
import polars as pl
from mainspring.measures.counter import Counter
from mainspring.measures.reference import from_bytes
reference = from_bytes(open(f"{folder}/reference", "rb").read())
counter = Counter(reference.layout)
rows = pl.read_parquet(f"{folder}/small.parquet", n_rows=1_000).to_dict(as_series=False)
counter.count(rows)
def many():
    for _ in range(20):
        counter.count(rows)
timed(many)
"""
_LOG = """
from datetime import timedelta
import polars as pl
from benchmarks.monitoring import DAY
from mainspring.adapters.artifacts.local import LocalArtifacts
from mainspring.measures.reference import from_bytes
from mainspring.monitoring import measure
from mainspring.monitoring.counted import Counts
from mainspring.serving.service import Predictions
from mainspring.store import Store
from pathlib import Path
reference = from_bytes(open(f"{folder}/reference", "rb").read())
store = Store(f"sqlite:///{folder}/log.db")
store.prepare()
predictions = Predictions(store, None, LocalArtifacts(Path(folder) / "log"), None)
rows = pl.read_parquet(f"{folder}/small.parquet").rename(lambda name: f"in_{name}")
times = pl.datetime_range(DAY, interval="6s", end=DAY + timedelta(seconds=6 * rows.height - 1), eager=True)
facts = {"version": "m@1", "role": "live", "score": 0.5, "label": True, "latency_us": 100, "weight": 1.0}
rows = rows.with_columns(id=pl.int_range(pl.len()).cast(pl.String), time=times.dt.cast_time_unit("us"),
                         **{name: pl.lit(value) for name, value in facts.items()})
for part in rows.iter_slices(100):
    predictions._add("d", "predictions", part, "time")
counts, week = Counts(store, predictions, lambda *_: reference), (DAY, DAY + timedelta(days=7))
start = time.process_time()
counts.read("d", *week)
print(time.process_time() - start, 0)
"""
_OF_COUNTS = (
    _LOG
    + """
timed(lambda: counts.read("d", *week))
"""
)
_OF_ROWS = (
    _LOG
    + """
timed(lambda: measure.daily_windows(predictions.joined("d", *week), "m@1", reference.layout))
"""
)
_FLEET = """
from benchmarks.monitoring import DAY
from datetime import timedelta
from mainspring.monitoring import fleet
from mainspring.store import Store
store = Store(f"sqlite:///{folder}/fleet.db")
timed(lambda: sum(1 for _ in fleet.evaluate(store, DAY, DAY + timedelta(days=1))))
"""
_READ = """
import sqlite3
connection = sqlite3.connect(f"{folder}/fleet.db")
timed(lambda: sum(len(blob) for blob, in connection.execute("select blob from window_profile")))
"""
_PEERS = {
    "evidently": """
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
before, now = (pd.read_parquet(f"{folder}/{name}.parquet")[COLUMNS] for name in ("before", "small"))
timed(lambda: Report([DataDriftPreset()]).run(now, before))
""",
    "nannyml": """
import pandas as pd, nannyml
nannyml.disable_usage_logging()
before, now = (pd.read_parquet(f"{folder}/{name}.parquet")[COLUMNS] for name in ("before", "small"))
def drift():
    found = nannyml.UnivariateDriftCalculator(column_names=COLUMNS, chunk_number=1)
    found.fit(before).calculate(now)
timed(drift)
""",
    "whylogs": """
import pandas as pd, whylogs
now = pd.read_parquet(f"{folder}/small.parquet")[COLUMNS]
timed(lambda: whylogs.log(now).profile().view().serialize())
""",
}
DAY = datetime(2026, 1, 5, tzinfo=UTC)
MODELS = 10_000
_STARTS = 5


def rows() -> list[Row]:
    """Every figure; the fleet takes 1.5 GB of disk for a while."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        found: list[Row] = []
        for size, goal, memory in (("1M", 3, 0.6), ("10M", 4, 0.8)):
            ours, peak = _run(_OURS.replace("ROWS", size), folder)
            bare, _ = _run(_BARE.replace("ROWS", size), folder)
            found += [Row(f"drift of 17 columns, {size} rows", ours, "s of CPU", goal, "bare min/max/mean/std", bare),
                      Row("the same, peak memory", peak, "GB", memory)]  # fmt: skip
        stored, _ = _run(_STORED, folder)
        plain, _ = _run(_COUNTER, folder)
        counted, _ = _run(_LOG, folder)
        of_rows, _ = _run(_OF_ROWS, folder)
        of_counts, _ = _run(_OF_COUNTS, folder)
        _make_fleet(folder)
        fleet, peak = _run(_FLEET, folder)
        read, _ = _run(_READ, folder)
        found += [
            Row("all distances of a model from stored profiles", stored * 10, "ms", 1),
            Row("the same, bytes of a window of 100,000 rows", (folder / "window").stat().st_size / 1000, "KB", 5),
            *quiet.rows(),
            *capture.rows(folder),
            Row("counting plain columns, 1,000 rows at once", plain * 1e6 / 20_000, "us/row", 5),
            Row("counting a log's segments of 100 rows, once", counted * 1e6 / 100_000, "us/row", 100),
            Row("a week of 1,000 segments, from counts", of_counts, "s of CPU", 0.1, "its rows", of_rows),
            Row("10,000 models x 20 columns x 24 windows", fleet, "s of CPU", 5, note=f"reading alone {read:.2f} s"),
            Row("the same, peak memory", peak, "GB", 0.5),
            *_peers(folder),
            *_imports(),
        ]
    return found


def _run(code: str, folder: Path, python: str = sys.executable) -> tuple[float, float]:
    told = subprocess.run([python, "-c", _TIMED + code, str(folder)], check=True, capture_output=True, text=True)
    seconds, memory = told.stdout.split()[-2:]
    return float(seconds), float(memory) / 1e6


def _imports() -> list[Row]:
    """What it takes to decide on counts, and on frames; its least of some starts, without bare Python's own."""
    counts = "Counter, column_findings, decode, from_bytes, make_reference, merge, numeric_bins"
    code = "import time; s = time.process_time(); {}; print(time.process_time() - s)"

    def least(what: str) -> float:
        command = [sys.executable, "-c", code.format(what)]
        return min(
            float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(_STARTS)
        )

    numpy, polars = least("import numpy"), least("import numpy, polars")
    room = "import of the monitoring room"
    of_counts = least(f"from mainspring.monitoring import {counts}")
    of_frames = least(f"from mainspring.monitoring import {counts}, count, reference_bins, summary")
    return [
        Row(f"{room}: drift of counts", of_counts, "s of CPU", 0.3, note=f"NumPy alone {numpy:.2f} s"),
        Row(f"{room}: the same and frames", of_frames, "s of CPU", 1.25, "NumPy and Polars", polars),
    ]


def _peers(folder: Path) -> list[Row]:
    ours, _ = _run(_OURS.replace("ROWS", "small"), folder)
    found = []
    for name, code in _PEERS.items():
        try:
            theirs, _ = _run(f"COLUMNS = {list(flights.COLUMNS)}\n" + code, folder, _environment(name))
        except subprocess.CalledProcessError as error:
            print(f"{name} does not run here: {(error.stderr or str(error)).strip()[-200:]}", file=sys.stderr)
            continue
        found.append(Row("drift of 17 columns, 100,000 rows", ours, "s of CPU", 1, name, theirs))
    return found


def _environment(name: str) -> str:
    python = PEERS / name / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(PEERS / name)], check=True)
        install = [*uv, "pip", "install", "--quiet", "--python", str(python), *PINS[name]]
        subprocess.run(install, check=True, capture_output=True, text=True)
    return str(python)


def _prepare(folder: Path) -> None:
    import polars as pl

    from mainspring.measures.profile import count, reference_bins
    from mainspring.measures.reference import make_reference, to_bytes
    from mainspring.measures.window import Layout, encode

    first, second = range(1, 7), range(7, 13)
    for name, size, months, seed in (
        ("before", 100_000, first, 1), ("small", 100_000, second, 2), ("1M", 1_000_000, second, 3),
        ("10M", 10_000_000, second, 4),
    ):  # fmt: skip
        flights.write(folder / f"{name}.parquet", size, months, seed)
    before = pl.read_parquet(folder / "before.parquet", columns=list(flights.COLUMNS))
    layout = Layout(reference_bins(before))
    (folder / "reference").write_bytes(to_bytes(make_reference(layout, count(before, layout))))
    window = count(pl.scan_parquet(folder / "small.parquet"), layout)
    (folder / "window").write_bytes(encode(window, layout.key))


def _make_fleet(folder: Path) -> None:
    """Models with references of their own (equal, but each read and decoded), 24 windows of 1,000 rows each."""
    import numpy as np
    import sqlalchemy as sa

    from mainspring.measures.bins import numeric_bins
    from mainspring.measures.reference import make_reference, to_bytes
    from mainspring.measures.window import FINITE, M2, MAX, MIN, Layout, N, Window, encode
    from mainspring.monitoring.model import ReferenceProfile, WindowProfile
    from mainspring.store import Store
    from mainspring.store.tables import table_of

    draw = np.random.default_rng(0)
    layout = Layout({f"x{place}": numeric_bins(draw.normal(size=20_000)) for place in range(20)})

    def window(rows: int) -> Window:
        made = Window.empty(layout)
        made.counts[:] = np.concatenate([draw.multinomial(rows, np.full(s, 1 / s)) for s in np.diff(layout.starts)])
        made.stats[[N, FINITE, M2]], made.stats[MIN], made.stats[MAX] = rows, -4, 4
        return made

    reference = to_bytes(make_reference(layout, window(20_000)))
    hours = [encode(window(1_000), layout.key) for _ in range(240)]
    store = Store(f"sqlite:///{folder / 'fleet.db'}")
    store.prepare()
    names = [f"m{number:05}" for number in range(MODELS)]
    kept = [{"id": name, "created": DAY, "version": f"{name}@1", "blob": reference} for name in names]
    with store.transaction() as tx:
        tx.execute(sa.insert(table_of(ReferenceProfile)), kept)
    for hour in range(24):
        facts = {"created": DAY, "segment": "", "source": "", "rows": 1_000,
                 "start": DAY + timedelta(hours=hour), "end": DAY + timedelta(hours=hour + 1)}  # fmt: skip
        made = [
            {"id": f"{hour}-{name}", "deployment": name, "version": f"{name}@1", "blob": hours[(hour + place) % 240]}
            | facts
            for place, name in enumerate(names)
        ]
        with store.transaction() as tx:
            tx.execute(sa.insert(table_of(WindowProfile)), made)
    store.close()
