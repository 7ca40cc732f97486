"""Importing: everything that a store of MLflow's keeps comes here, under the ids that it had.

It may be interrupted anywhere and begun again: of each run the log tells when all of it was here, and what it looked
like where it came from; what looks the same is passed over. Nothing that was read is executed or unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
from blake3 import blake3

from mainspring.core.ids import from_hex, new_id
from mainspring.errors import MainspringError, NotFound
from mainspring.interop.mlflow.errors import MlflowError
from mainspring.interop.mlflow.moving.records import PLACE_TAGS, OldExperiment, OldLogged, OldRun, OldTrace, Source
from mainspring.interop.mlflow.moving.registering import Registering
from mainspring.interop.mlflow.moving.report import Report
from mainspring.interop.mlflow.rooms import STATES, Rooms
from mainspring.interop.mlflow.traces import read_info
from mainspring.ports.artifacts import Blob
from mainspring.registry.sources import is_remote
from mainspring.tracking.carried import Carried
from mainspring.tracking.files import check_path
from mainspring.tracking.model import Experiment, LoggedModel, LoggedModelMetric, Run
from mainspring.tracking.store import Logged, moment

BATCH = 20_000
"""So many points go into one transaction: others can write in between."""
_MODEL_STATES = {"LOGGED_MODEL_READY": "ready", "LOGGED_MODEL_UPLOAD_FAILED": "failed"}
_encode = msgspec.json.Encoder(order="deterministic").encode
Files = list[tuple[str, int]]


class Importing:
    """One import.

    Args:
        rooms: Where things come to.
        source: Where they are read.
        report: Where it is told what became of them.
        tell: Takes a line on how far it is.
    """

    def __init__(self, rooms: Rooms, source: Source, report: Report, tell: Callable[[str], None]) -> None:
        self._rooms = rooms
        self._source = source
        self._report = report
        self._tell = tell
        self._carried = Carried(rooms.store, rooms.experiments, rooms.logged)

    def all(self, experiments: Sequence[str] = ()) -> Report:
        """Imports everything, or some experiments by name, with the versions that their runs have made."""
        known = [item for item in self._source.experiments() if not experiments or item.name in experiments]
        for name in sorted(set(experiments) - {item.name for item in known}):
            raise NotFound(f"there is no experiment {name} at {self._source.name}", hint="see them with --dry-run")
        for item in known:
            self._experiment(item)
        Registering(self._rooms, self._source, self._report, self.blob, only=bool(experiments)).all()
        return self._report

    def _experiment(self, old: OldExperiment) -> None:
        location = old.location if is_remote(old.location) else ""
        number = int(old.id) if old.id.isdecimal() else -1
        times = moment(old.created * 1000), moment(old.changed * 1000)
        home, new = self._carried.experiment(old.name, number, *times, location, old.tags)
        self._report.count("experiments", "carried" if new else "same")
        if new and home.number != number:
            self._report.note("experiments", old.name, f"its id {old.id} is taken here: it is {home.number} now")
        if location:
            self._report.note("files", old.name, f"files stay at {location}")
        for place, run in enumerate(self._source.runs(old.id), 1):
            self._guarded("runs", run.id, lambda run=run: self._run(home, run))  # type: ignore[misc]
            if place % 100 == 0:
                self._tell(f"{old.name}: {place} runs")
        for logged in self._source.logged(old.id):
            self._guarded("logged models", logged.id, lambda logged=logged: self._logged(home, logged))  # type: ignore[misc]
        if new and old.lifecycle == "deleted":
            self._carried.turn(home, "deleted")
        for trace in self._source.traces(old.id):
            name = str(trace.info.get("trace_id"))
            self._guarded("traces", name, lambda trace=trace: self._trace(home, trace))  # type: ignore[misc]
        self._tell(f"{old.name}: done")

    def _guarded(self, kind: str, name: str, action: Callable[[], Any]) -> None:
        """What is wrong with one thing does not keep the others back."""
        try:
            action()
        except MainspringError as error:
            if error.status >= 500:  # the source, or what is here, is not at hand
                raise
            self._report.leave(kind, name, error.message)

    def _run(self, home: Experiment, old: OldRun) -> None:
        run_id = from_hex(old.id)
        if not run_id:
            self._report.leave("runs", old.id, "its id is not 32 hexadecimal digits")
            return
        files = self._listed("runs", old.place, old.id) if not is_remote(home.location) else []
        state = blake3(_encode([old._replace(place=""), files])).hexdigest()
        before = self._carried.facts(run_id)
        if before is not None and before["state"] == state:
            self._report.count("runs", "same")
            self._report.count("points", "same", before["points"])
            self._report.count("files", "same", before["files"])
            return
        batches, read = _batches(self._source.points(old)), blake3()
        curves: dict[str, tuple[int, str]] = {}
        with self._rooms.store.transaction():
            run = self._carried.begin(_run(run_id, home, old), old.inputs, old.models_read, old.models_made)
            self._points(run_id, next(batches, []), curves)
        for batch in batches:
            self._points(run_id, batch, curves)
        blobs = {path: blob for path, size in files if (blob := self.blob("runs", old.place, path, size, old.id))}
        wrong = self._wrong(run_id, curves)
        for key, (_, digest) in sorted(curves.items()):
            read.update(f"{key}\n{digest}\n".encode())
        with self._rooms.store.transaction():
            for path, blob in blobs.items():
                self._rooms.runs.files.put(run.name, path, blob.digest, blob.size)
            whole = not wrong and len(blobs) == len(files)
            points = sum(count for count, _ in curves.values())
            told = {
                "source": self._source.name, "state": state if whole else "", "files": len(blobs),
                "points": points, "digest": f"blake3:{read.hexdigest()}",
            }  # fmt: skip
            self._carried.end(run, "deleted" if old.lifecycle == "deleted" else "active", told)
        self._report.count("points", "carried", points)
        self._report.count("files", "carried", len(blobs))
        if wrong:
            self._report.leave("runs", old.id, f"other points are here than were told, of {', '.join(wrong)}")
        else:
            self._report.count("runs", "carried")

    def _trace(self, home: Experiment, old: OldTrace) -> None:
        try:
            trace = read_info(old.info, home.number)
        except MlflowError as error:
            self._report.leave("traces", str(old.info.get("trace_id")), error.message)
            return
        tags = {key: value for key, value in trace.tags.items() if key not in PLACE_TAGS}
        new = self._rooms.traces.carry(msgspec.structs.replace(trace, tags=tags), old.spans)
        self._report.count("traces", "carried" if new else "same")

    def _points(self, run: str, batch: list[list[Logged]], curves: dict[str, tuple[int, str]]) -> None:
        """Enters some curves, and notes of each how many points it has, and their digest."""
        self._carried.points(run, [point for curve in batch for point in curve])
        for curve in batch:
            rows = sorted({_row(point) for point in curve})
            curves[curve[0].key] = (len(rows), _digest(rows))

    def _wrong(self, run: str, curves: dict[str, tuple[int, str]]) -> list[str]:
        """Metrics whose points here, read again, are others than those that were told."""
        return [
            key
            for key, (_, digest) in curves.items()
            if _digest(sorted(self._rooms.runs.journal.curve(run, key))) != digest
        ]

    def _listed(self, kind: str, place: str, owner: str) -> Files:
        try:
            return sorted(self._source.files(place, owner))
        except MainspringError as error:
            if error.status >= 500:
                raise
            if not isinstance(error, NotFound):  # what has no files has often no folder either
                self._report.note(kind, owner, error.message)
            return []

    def blob(self, kind: str, place: str, path: str, size: int, owner: str = "") -> Blob | None:
        """A file's content, kept here; None when it cannot be had, which is told."""
        try:
            with self._source.open(place, check_path(path), owner) as content:
                found = self._rooms.artifacts.put(content)
        except MainspringError as error:
            if error.status >= 500:
                raise
            self._report.leave("files", f"{owner or place}/{path}", f"{error.message} ({kind})")
            return None
        if size not in (-1, found.size):
            self._report.leave("files", f"{owner or place}/{path}", f"{found.size} bytes came of {size}")
            return None
        return found

    def _logged(self, home: Experiment, old: OldLogged) -> None:
        model_id = from_hex(old.id.removeprefix("m-"))
        if not model_id:
            self._report.leave("logged models", old.id, "its id is not m- and 32 hexadecimal digits")
            return
        model = LoggedModel(
            id=model_id, created=moment(old.created * 1000), changed=moment(old.changed * 1000), name=old.name,
            experiment=home.number, run=from_hex(old.run), kind=old.kind, params=old.params, tags=old.tags,
            status=_MODEL_STATES.get(old.status, "pending"),  # type: ignore[arg-type]
            lifecycle="deleted" if old.lifecycle == "deleted" else "active",
        )  # fmt: skip
        points = [
            LoggedModelMetric(
                id=new_id(), created=moment(item.time * 1000), model=model_id, key=item.key,
                value=None if item.value != item.value else item.value, time=moment(item.time * 1000), step=item.step,
                run=from_hex(item.run), dataset=item.dataset, digest=item.digest,
            )
            for item in old.metrics
        ]  # fmt: skip
        files = self._listed("logged models", old.place, old.id) if not is_remote(old.place) else []
        known = {item.path: item.size for item in self._rooms.runs.files.under("", model.folder)}
        missing = [(path, size) for path, size in files if known.get(path) != size]
        blobs = {
            path: blob for path, size in missing if (blob := self.blob("logged models", old.place, path, size, old.id))
        }
        with self._rooms.store.transaction():
            for path, blob in blobs.items():
                self._rooms.runs.files.put("", f"{model.folder}/{path}", blob.digest, blob.size)
            new = self._carried.logged(model, points)
        self._report.count("files", "carried", len(blobs))
        self._report.count("files", "same", len(files) - len(missing))
        self._report.count("logged models", "carried" if new or blobs else "same")


def survey(source: Source, report: Report, experiments: Sequence[str] = ()) -> Report:
    """Counts what there is, and changes nothing."""
    for item in source.experiments():
        if experiments and item.name not in experiments:
            continue
        report.count("experiments", "left")
        report.count("runs", "left", sum(1 for _ in source.runs(item.id)))
        report.count("logged models", "left", sum(1 for _ in source.logged(item.id)))
        report.count("traces", "left", sum(1 for _ in source.traces(item.id)))
    for model in [] if experiments else source.models():
        report.count("models", "left")
        report.count("versions", "left", sum(1 for _ in source.versions(model.name)))
    return report


def _run(run_id: str, home: Experiment, old: OldRun) -> Run:
    return Run(
        id=run_id, created=moment(old.started * 1000), name="", number=0, title=old.title, experiment=home.name,
        experiment_number=home.number, params=dict(old.params), tags=old.tags,
        source=old.tags.get("mlflow.source.name", ""), status=STATES.get(old.status, "failed"), actor=old.user,
        actor_kind="person" if old.user else "", ended=moment(old.ended * 1000) if old.ended else None,
    )  # fmt: skip


def _batches(points: Iterable[Logged]) -> Iterator[list[list[Logged]]]:
    """Whole curves, as many as fit into a transaction; a longer one alone."""
    batch: list[list[Logged]] = []
    size = 0
    for _, curve in groupby(points, key=lambda point: point.key):
        batch.append(list(curve))
        size += len(batch[-1])
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _row(point: Logged) -> tuple[int, int, float, int]:
    """A point as `curve` gives it."""
    nan = point.value != point.value
    return (point.time, point.step, 0.0 if nan else point.value, int(nan))


def _digest(rows: Sequence[Sequence[Any]]) -> str:
    return blake3(_encode(rows)).hexdigest()
