"""Where a model version's files come from: the addresses that can be registered."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from mainspring.core.ids import from_hex, to_hex
from mainspring.errors import InvalidInput, NotFound
from mainspring.ports.artifacts import Blob
from mainspring.registry.model import ModelVersion
from mainspring.store import Store
from mainspring.tracking.files import check_path
from mainspring.tracking.logged import LoggedModels
from mainspring.tracking.model import LoggedModel, Run
from mainspring.tracking.service import Runs

_REMOTE = frozenset(
    {"s3", "s3a", "gs", "abfs", "abfss", "wasbs", "azure", "adls", "r2", "b2", "hdfs", "dbfs"}
    | {"http", "https", "ftp", "sftp"}
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/*(.*)", re.IGNORECASE | re.DOTALL)
_LOGGED = re.compile(r"m-[0-9a-f]{32}")
_DECODINGS = 4


class Source(NamedTuple):
    """What an address stands for.

    Attributes:
        files: Path -> blob; None when they are elsewhere: nobody fetches them from there.
        logged: The logged model it is, if any.
        version: The version it is, if any.
        run: The run that made it, if known.
    """

    files: dict[str, Blob] | None
    logged: LoggedModel | None = None
    version: ModelVersion | None = None
    run: str = ""


class Sources:
    """Reads addresses.

    Args:
        store: The database.
        runs: For ``runs:/…``.
        logged: For ``models:/m-…``.
        version: What a version's address stands for, for ``models:/…``.
    """

    def __init__(self, store: Store, runs: Runs, logged: LoggedModels, version: Callable[[str], ModelVersion]) -> None:
        self._store = store
        self._runs = runs
        self._logged = logged
        self._version = version

    def read(self, source: str) -> Source:
        """What an address stands for.

        Args:
            source: ``runs:/RUN/path``, ``models:/m-ID``, ``models:/name/3``, ``models:/name@alias``,
                ``mlflow-artifacts:/…``, or an address in an object store, which is kept as it is.

        Raises:
            InvalidInput: It is another one, such as a local path, or leads nowhere.
            NotFound: There is no such thing.
        """
        found = _SCHEME.fullmatch(source)
        scheme, rest = (found[1].lower(), found[2]) if found else ("", source)
        _check(source, rest)
        match scheme:
            case "runs":
                return self._of_run(source, *rest.partition("/")[::2])
            case "models" if _LOGGED.fullmatch(rest):
                return self._of_logged(self._logged.show(rest))
            case "models":
                name, slash, number = rest.rpartition("/")
                version = self._version(f"{name}@{number}" if slash else rest)
                return Source(self.files_of(version), version=version, run=version.run)
            case "mlflow-artifacts":
                return self._of_path(source, rest.rstrip("/"))
        if scheme in _REMOTE:
            return Source(None)
        raise _refused(source)

    def _of_run(self, source: str, name: str, path: str) -> Source:
        run = self._store.first(Run, id=from_hex(name)) or self._runs.show(name)
        path = path.rstrip("/")
        files = self._files(run.name, path)
        if not files:  # newer clients keep a run's models beside the run
            found = self._store.first(LoggedModel, run=run.id, name=path, lifecycle="active", order="-created")
            if found is not None:
                return self._of_logged(found)
            raise _empty(source)
        return Source(files, run=run.name)

    def _of_logged(self, model: LoggedModel) -> Source:
        run = self._store.first(Run, id=model.run) if model.run else None
        files = self._files("", model.folder)
        if not files and model.status != "ready":
            raise _empty(f"models:/m-{to_hex(model.id)}")
        return Source(files, logged=model, run=run.name if run else "")

    def _of_path(self, source: str, path: str) -> Source:
        check_path(path)
        run, within = self._runs.files.place(path)
        if not run and (logged := re.search(r"/models/m-([0-9a-f]{32})/artifacts$", f"/{path}")):
            model = self._store.first(LoggedModel, id=from_hex(logged[1]), lifecycle="active")
            if model is not None:
                return self._of_logged(model)
        files = self._files(run, within)
        if not files:
            raise _empty(source)
        return Source(files, run=run)

    def _files(self, run: str, path: str) -> dict[str, Blob]:
        return {item.path: Blob(item.digest, item.size) for item in self._runs.files.under(run, path)}

    def files_of(self, version: ModelVersion) -> dict[str, Blob]:
        """Path -> blob of a version's files."""
        with self._store.driver() as driver:
            rows = driver.rows("SELECT digest, size FROM artifact_owner WHERE owner = ?", (f"model:{version.address}",))
        sizes = dict(rows)
        return {path: Blob(digest, sizes.get(digest, 0)) for path, digest in version.files.items()}


def is_remote(address: str) -> bool:
    """Whether an address is in an object store or on another host: nobody here fetches anything from there."""
    found = _SCHEME.fullmatch(address)
    return found is not None and found[1].lower() in _REMOTE


def _check(source: str, rest: str) -> None:
    """Refuses what climbs out of where it begins, whoever decodes it, however often."""
    seen = rest
    for _ in range(_DECODINGS):
        if ".." in re.split(r"[/\\?#&=]", seen) or "\x00" in seen:
            raise _refused(source)
        if (decoded := unquote(seen)) == seen:
            break
        seen = decoded


def _refused(source: str) -> InvalidInput:
    return InvalidInput(
        f"Invalid model version source: '{source[:200]}'",
        hint="register runs:/RUN/path, models:/m-ID, models:/name/3, or an address in an object store",
        source=source,
    )


def _empty(source: str) -> NotFound:
    return NotFound(f"Unable to find a logged_model with artifact_path or files at {source}", hint="was it logged?")
