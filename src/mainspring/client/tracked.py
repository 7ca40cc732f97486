"""`run`: tracks a script or a notebook cell in two lines, and never stands in its way."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.client.content import figure_bytes, table_bytes
from mainspring.client.spool import Header, Line, Spool, now
from mainspring.core.ids import ALPHABET, ID_LENGTH, new_id, spoken_name, to_hex
from mainspring.core.shown import Shown
from mainspring.errors import InvalidInput, Unreachable
from mainspring.settings import load_settings
from mainspring.tracking.active import current, logging_to, merged
from mainspring.tracking.environment import this_process
from mainspring.tracking.model import DEFAULT_EXPERIMENT

if TYPE_CHECKING:
    from mainspring.client.client import Client
    from mainspring.core.package import ModelPackage
    from mainspring.settings import Settings

FLUSH_SECONDS = 10.0
NAME_SECONDS = 3.0
SYSTEM_SECONDS = 15.0
PARENT_TAG = "mlflow.parentRunId"
_log = logging.getLogger("mainspring")
_unsent: list[TrackedRun] = []


class TrackedRun:
    """A run under way; made by `run`.

    Attributes:
        id: Its id; other processes join by it.
    """

    def __init__(self, header: Header, settings: Settings, client: Client | None = None, offline: bool = False) -> None:
        self.id = header.run
        self._header = header
        self._folder = settings.home / "spool"
        self._root = settings.root
        self._client = client
        self._offline = offline
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._ending, self._until = threading.Event(), math.inf
        self._name = ""
        self._spool = Spool(self._folder, header)
        self._deliver()

    @property
    def name(self) -> str:
        """Its name, such as ``calm-otter-12``; while nobody has answered yet, the one that it will most likely get."""
        marker = self._spool.path.with_suffix(".name")
        until = self._begun + (0 if self._offline else NAME_SECONDS)
        while not self._name:
            with contextlib.suppress(OSError):
                self._name = marker.read_text()
            if self._name or time.monotonic() > until or not self._spool.path.exists():
                break
            time.sleep(0.02)
        return self._name or spoken_name(f"{self.id}0")

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs metrics at one step of their curves."""
        moment = now()
        points: list[tuple[str, float | None, int, int]] = []
        for key, value in metrics.items():
            number = float(value)
            points.append((key, None if math.isnan(number) else max(-1e308, min(1e308, number)), step, moment))
        self._append(Line(points=points))

    def log_params(self, params: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        """Adds parameters; one that has a value keeps it."""
        every = merged(params, named)
        self._append(Line(params={key: item if isinstance(item, str) else repr(item) for key, item in every.items()}))

    def set_tags(self, tags: Mapping[str, str] | None = None, /, **named: str) -> None:
        """Sets tags."""
        self._append(Line(tags={key: str(value) for key, value in merged(tags, named).items()}))

    def log_artifact(self, file: str | Path | bytes, path: str = "") -> None:
        """Attaches a file, or bytes, to the run, as they are now.

        Args:
            file: The file's path, or its content.
            path: Path within the run; the file's name by default (needed for bytes).
        """
        content = file if isinstance(file, bytes) else Path(file)
        name = path or (content.name if isinstance(content, Path) else "artifact")
        with self._lock:
            self._here().keep(content, name)

    def log_table(self, table: Any, path: str) -> None:
        """Attaches a table as Parquet, which pages show as one.

        Args:
            table: A Polars or pandas frame, an Arrow table, or columns: name -> values.
            path: Path within the run; ``.parquet`` is added when it has no ending.

        Raises:
            InvalidInput: This is no table.
        """
        self.log_artifact(table_bytes(table), path if "." in Path(path).name else f"{path}.parquet")

    def log_figure(self, figure: Any, path: str) -> None:
        """Attaches a picture.

        Args:
            figure: Of matplotlib, Plotly or PIL, or text of an SVG.
            path: Path within the run; ``.png`` (``.svg``, ``.json`` for Plotly's) is added when it has no ending.

        Raises:
            InvalidInput: This is no picture.
        """
        content, ending = figure_bytes(figure, Path(path).suffix)
        self.log_artifact(content, path if Path(path).suffix else f"{path}{ending}")

    def _append(self, line: Line) -> None:
        with self._lock:
            self._here().append(line)

    def _here(self) -> Spool:
        """The spool of this process: one that was forked off writes into its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            header = Header(self.id, self._header.server, this_process(), self._header.folder, None, now())
            self._spool = Spool(self._folder, header)
        return self._spool

    def _deliver(self) -> None:
        if self._offline:
            return
        if self._client is not None:
            threading.Thread(target=self._carry, name="mainspring", daemon=True).start()
            return
        command = [sys.executable, "-m", "mainspring.client.sender", str(self._root)]
        null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        try:
            try:  # a session of its own: the keys that stop the script do not stop it
                os.posix_spawn(sys.executable, command, os.environ, file_actions=null, setsid=True)
            except NotImplementedError:
                os.posix_spawn(sys.executable, command, os.environ, file_actions=null, setpgroup=0)
        except OSError as error:
            _log.warning("this run is kept, not sent (%s): send it with `mainspring runs sync`", error)

    def _carry(self) -> None:
        """Delivers over the given client, in a thread of this process."""
        from mainspring.client.delivery import Delivery  # noqa: PLC0415 - start-up time
        from mainspring.errors import MainspringError  # noqa: PLC0415

        assert self._client is not None
        try:
            delivery = Delivery(self._spool.path)
        except OSError:
            return
        wait = 0.05
        while not delivery.done:
            try:
                wait = 0.05 if delivery.step(self._client) else min(2 * wait, 0.4)
            except MainspringError:
                wait = min(4 * wait, 10.0)
            if not delivery.done:
                self._ending.wait(wait)
                if self._ending.is_set():
                    time.sleep(min(wait, 0.1))
                if time.monotonic() > self._until:
                    break
        delivery.close()

    def finish(self, status: str, error: str = "") -> None:
        """Ends it; waits for a server's word, at most some seconds.

        Args:
            status: ``ok``, ``failed`` or ``cancelled``.
            error: Why it failed.
        """
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = used.ru_utime + used.ru_stime
        rank, at = self._header.rank, now()
        name = f"system/rank{rank}/cpu_seconds" if rank else "system/cpu_seconds"
        line = Line(points=[(name, seconds, 0, at), *self._header.costs(at)])
        # Only the first of several processes ends their run.
        self._append(line if rank else msgspec.structs.replace(line, status=status, error=error, at=at))
        self._spool.close()
        self._until = time.monotonic() + FLUSH_SECONDS
        self._ending.set()

    def log_model(self, model: Any, name: str = "model", register: str = "", *, example: Any = None) -> None:
        """Logs a model; waits until it is stored, for at most some seconds.

        Args:
            model: What `mainspring.package` gives, or what it takes, together with an example.
            name: What it is called among the models of the experiment.
            register: Name of the registered model whose next version it becomes; made where there is none.
            example: Rows that the model reads, from which its signature is learnt.

        Raises:
            InvalidInput: It is not packed and there is no example, or it cannot be packed.
        """
        from mainspring.core.package import ModelPackage  # noqa: PLC0415 - start-up time
        from mainspring.errors import MainspringError  # noqa: PLC0415

        if not isinstance(model, ModelPackage):
            if example is None:
                raise InvalidInput(
                    f"a {type(model).__name__} alone does not tell what it reads",
                    hint="pass some rows, too: log_model(model, example=rows)",
                )
            from mainspring.registry.packaging import package  # noqa: PLC0415

            model = package(model, example, twin="preferred")
        for path, content in model.files.items():
            self.log_artifact(content, f"{name}/{path}")
        source = f"runs:/{to_hex(self.id)}/{name}"
        try:
            if self._offline or not self._begins(FLUSH_SECONDS):
                raise Unreachable("nobody answers")
            self._store_model(model, name, register)
        except MainspringError as error:
            later = (
                f", register it later: `mainspring models register {register} --source {source}`" if register else ""
            )
            _log.warning("the files of model %s are kept with the run (%s)%s", name, error.message, later)

    def _store_model(self, model: ModelPackage, name: str, register: str) -> None:
        from mainspring.client.client import connect  # noqa: PLC0415 - start-up time
        from mainspring.core.entity import draft  # noqa: PLC0415
        from mainspring.errors import NotFound  # noqa: PLC0415
        from mainspring.registry.model import Model  # noqa: PLC0415
        from mainspring.tracking.model import LoggedModel  # noqa: PLC0415

        client = self._client or connect(project=self._root)
        try:
            experiment = client.runs.show(self.name).experiment_number
            made = client.logged.create(
                draft(LoggedModel, name=name, experiment=experiment, run=self.id, kind=model.flavor)
            )
            logged = f"m-{to_hex(made.id)}"
            for path, content in model.files.items():
                client.logged.attach(logged, path, *client.put_artifact(content))
            client.logged.finish(logged)
            if register:
                try:
                    client.models.show(register)
                except NotFound:
                    client.models.create(draft(Model, name=register))
                client.models.register(register, f"models:/{logged}", run=self.name)
        finally:
            if client is not self._client:
                client.close()

    def _begins(self, seconds: float) -> bool:
        """Waits until the run has begun where it belongs; whether it has."""
        until = time.monotonic() + seconds
        marker = self._spool.path.with_suffix(".name")
        while not self._name and not marker.exists() and time.monotonic() < until:
            time.sleep(0.02)
        return bool(self._name) or marker.exists()

    def wait(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until everything is delivered; whether it was."""
        until = time.monotonic() + seconds
        while self._spool.path.exists() and time.monotonic() < until:
            time.sleep(0.02)
        return not self._spool.path.exists()

    def __repr__(self) -> str:
        return f"<run {self.name}>"

    def _repr_html_(self) -> str:
        where = f"{self._header.server}/runs/{self.name}" if self._header.server else ""
        experiment = str((self._header.new or {}).get("experiment", ""))
        return Shown("run", self.name, {"experiment": experiment}, href=where).html()


@contextlib.contextmanager
def run(
    experiment: str = DEFAULT_EXPERIMENT,
    params: dict[str, Any] | None = None,
    *,
    name: str = "",
    tags: dict[str, str] | None = None,
    use_case: str = "",
    reason: str = "",
    key: str = "",
    system: float = SYSTEM_SECONDS,
    offline: bool = False,
    client: Client | None = None,
) -> Iterator[TrackedRun]:
    """Tracks what happens in the block: `mainspring.log` inside it goes to this run.

        with ms.run("baseline", {"depth": 3}) as run:
            ms.log(auc=0.91)

    What is logged is written to the workspace's folder at once and delivered by another process: neither a slow
    server nor a dead one, nor a full disk, stops or breaks the block. A run inside another one is nested in it.

    Args:
        experiment: Group of runs that are compared with each other.
        params: Parameters.
        name: A title of your own; it need not be unique.
        tags: Free labels.
        use_case: The use case it works for.
        reason: Why, in words.
        key: Processes that give the same key, such as a job's id or another run's ``id``, log to one run; the variable
            MAINSPRING_RUN by default. Only the process whose RANK is 0 or not set ends it.
        system: Seconds between two looks at the load of machine, process and GPUs; 0 for none.
        offline: Nothing is sent until `mainspring runs sync`; the variable MAINSPRING_OFFLINE by default.
        client: Where to track; the workspace or server of the settings by default.

    Yields:
        The run. It ends as ``ok`` with the block, or as ``failed`` when the block raises.
    """
    new = {
        "experiment": experiment, "params": params or {}, "tags": dict(tags or {}), "use_case": use_case,
        "reason": reason, "source": sys.argv[0], "environment": _host(), **({"title": name} if name else {}),
    }  # fmt: skip
    tracked, settings = _begun(new, key, system, offline, client)
    try:
        with logging_to(tracked):
            yield tracked
    except KeyboardInterrupt:
        tracked.finish("cancelled", "interrupted")
        raise
    except SystemExit as error:
        tracked.finish("failed" if error.code else "ok", f"exit {error.code}" if error.code else "")
        raise
    except BaseException as error:
        tracked.finish("failed", f"{type(error).__name__}: {error}")
        raise
    else:
        tracked.finish("ok")
    finally:
        _settle(tracked, settings)


def _begun(
    new: dict[str, Any], key: str, system: float, offline: bool, client: Client | None
) -> tuple[TrackedRun, Settings]:
    settings = load_settings() if client is None else client.settings
    key = key or os.environ.get("MAINSPRING_RUN", "")
    rank = os.environ.get("RANK", "").strip() if key else ""
    outer = current()
    if isinstance(outer, TrackedRun):
        new["tags"].setdefault(PARENT_TAG, to_hex(outer.id))
    header = Header(
        run=_id_of(key) if key else new_id(),
        server=str(settings["server"]),
        writer=this_process(),
        folder=str(Path.cwd()),
        new=new,
        at=now(),
        system=system,
        rank="" if rank == "0" else rank,
        python=sys.prefix,
        hourly=float(settings["cost_per_hour"]),
    )
    offline = offline or os.environ.get("MAINSPRING_OFFLINE", "") not in ("", "0")
    tracked = TrackedRun(header, settings, client, offline)
    _unsent.append(tracked)
    return tracked, settings


def _settle(tracked: TrackedRun, settings: Settings) -> None:
    """Waits for what is delivered elsewhere; a local workspace gets it from the other process in a moment."""
    if tracked._offline or (tracked._client is None and not tracked._header.server and _is_local(settings)):
        return
    if not tracked._begins(NAME_SECONDS) or not tracked.wait():
        where = tracked._header.server or "the database"
        _log.warning(
            "%s does not answer: run %s is kept in %s, send it with `mainspring runs sync`",
            where, tracked.id, tracked._spool.path,
        )  # fmt: skip


def _is_local(settings: Settings) -> bool:
    return settings.database_url.startswith("sqlite")


def flush() -> None:
    """Waits until the runs of this process are delivered, so that what is read next knows of them."""
    while _unsent:
        tracked = _unsent.pop()
        if not tracked._offline and tracked._spool.path.exists():
            tracked.wait(2.0) if tracked._until < math.inf else tracked._begins(2.0)


def _id_of(key: str) -> str:
    """The id of the run that a key stands for; an id stands for itself."""
    if len(key) == ID_LENGTH and set(key) <= ALPHABET and key[0] < "8":
        return key
    letters, number = sorted(ALPHABET), int.from_bytes(hashlib.sha256(key.encode()).digest()[:16])
    return "".join(letters[(number >> shift) & 31] for shift in range(125, -1, -5))


def _host() -> dict[str, str]:
    facts = os.uname()
    return {"host": facts.nodename, "cpus": str(os.cpu_count() or 1)}
