"""Files of runs: paths and the content they stand for. What belongs to no run stands under the empty name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote

from mainspring.core.ids import from_hex, new_id
from mainspring.errors import InvalidInput, NotFound
from mainspring.store import Store
from mainspring.tracking.model import Run, RunArtifact

MAX_PATH = 2000
UPLOADS = "upload:"
"""Begins the name under which parts of a file stand until all of them are there; no run is called so."""
_DECODINGS = 4


_OF_RUN = re.compile(r"(?:^|/)([0-9a-f]{32})/artifacts(?:/(.*))?", re.DOTALL)


class Place(NamedTuple):
    """Where a path among all artifacts leads.

    Attributes:
        run: Name of the run, empty when it leads to none.
        path: The path within it.
    """

    run: str
    path: str


class Entry(NamedTuple):
    """What a folder holds.

    Attributes:
        name: Its name within the folder.
        size: Bytes; None for a folder.
    """

    name: str
    size: int | None


def entries(files: Iterable[tuple[str, int]], folder: str) -> list[Entry]:
    """What stands directly in a folder, of files by path and size, by name."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, int | None] = {}
    for path, size in files:
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            found[name] = None if slash else size
    return [Entry(name, found[name]) for name in sorted(found)]


def check_path(path: str) -> str:
    """A relative path that stays within its root whoever decodes it, however often.

    Raises:
        InvalidInput: It is absolute, climbs out, or has letters that a file's path cannot have.
    """
    seen = path
    for _ in range(_DECODINGS):
        parts = seen.split("/")
        climbs = ".." in parts or "." in parts or "" in parts or "\\" in seen or seen[1:2] == ":"
        if climbs or not seen.isprintable() or "#" in seen or len(seen) > MAX_PATH:
            raise InvalidInput("Invalid path", hint="use a relative path without `..`, such as plots/roc.png")
        decoded = unquote(seen)
        if decoded == seen:
            break
        seen = decoded
    return path


class Files:
    """Files of runs.

    Args:
        store: Where they are listed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, run: str, path: str, digest: str, size: int) -> RunArtifact:
        """Attaches stored bytes under a path; a file that was there is replaced.

        Raises:
            InvalidInput: The path leads out of the run.
        """
        check_path(path)
        now = self._store.clock.now()
        made = RunArtifact(id=new_id(), created=now, run=run, path=path, digest=digest, size=size)
        with self._store.transaction() as tx:
            if before := self._store.first(RunArtifact, run=run, path=path):
                tx.delete(before)
                self._disown(run, before.digest)
            tx.insert(made)
            tx.own(digest, f"run:{run}", size)
        return made

    def get(self, run: str, path: str) -> RunArtifact:
        """The file at a path.

        Raises:
            NotFound: There is none.
        """
        found = self._store.first(RunArtifact, run=run, path=path)
        if found is None:
            raise NotFound(f"No such artifact: '{path}'", hint="list the run's artifacts")
        return found

    def place(self, path: str) -> Place:
        """The run that a path such as ``0/<run id>/artifacts/plots/roc.png`` leads into, and the path there."""
        found = _OF_RUN.search(path)
        if found is not None and (run := self._store.first(Run, id=from_hex(found[1]))) is not None:
            return Place(run.name, found[2] or "")
        return Place("", path)

    def under(self, run: str, path: str) -> list[RunArtifact]:
        """All files in a folder and below, by path; their paths are those within the folder."""
        prefix = f"{path}/" if path else ""
        with self._store.driver() as driver:
            rows = driver.rows(
                "SELECT path, digest, size FROM run_artifact WHERE run = ? AND substr(path, 1, ?) = ? ORDER BY path",
                (run, len(prefix), prefix),
            )
        now = self._store.clock.now()
        return [
            RunArtifact(id="", created=now, run=run, path=full[len(prefix) :], digest=digest, size=size)
            for full, digest, size in rows
        ]

    def folder(self, run: str, path: str) -> list[Entry]:
        """What stands directly in a folder, by name; empty when there is no such folder."""
        prefix = f"{path}/" if path else ""
        with self._store.driver() as driver:
            rows = driver.rows(
                "SELECT path, size FROM run_artifact WHERE run = ? AND substr(path, 1, ?) = ?",
                (run, len(prefix), prefix),
            )
        return entries(rows, path)

    def remove(self, run: str, path: str) -> int:
        """Removes a file, or a folder with all it holds; how many files there were."""
        with self._store.transaction() as tx:
            where = "run = ? AND (path = ? OR substr(path, 1, ?) = ?)"
            values = (run, path, len(path) + 1, f"{path}/")
            rows = tx.driver.rows(f"SELECT digest FROM run_artifact WHERE {where}", values)  # noqa: S608
            tx.driver.run(f"DELETE FROM run_artifact WHERE {where}", values)  # noqa: S608
            for digest in {row[0] for row in rows}:
                self._disown(run, digest)
        return len(rows)

    def forget(self, run: str) -> None:
        """Removes all files under a name."""
        with self._store.transaction() as tx:
            tx.driver.run("DELETE FROM run_artifact WHERE run = ?", (run,))
            tx.driver.run("DELETE FROM artifact_owner WHERE owner = ?", (f"run:{run}",))

    def forget_uploads(self, before: datetime) -> int:
        """Removes the parts of files whose sending began before a moment and has not been ended; how many there were.

        Args:
            before: By the workspace's clock.
        """
        column = self._store.columns(RunArtifact)
        old = self._store.find(RunArtifact, column.run.startswith(UPLOADS), column.created < before, limit=10_000)
        started = {item.run for item in old}
        for upload in started:
            self.forget(upload)
        return len(started)

    def _disown(self, run: str, digest: str) -> None:
        with self._store.transaction() as tx:
            if tx.driver.row("SELECT 1 FROM run_artifact WHERE run = ? AND digest = ?", (run, digest)) is None:
                tx.driver.run("DELETE FROM artifact_owner WHERE digest = ? AND owner = ?", (digest, f"run:{run}"))
