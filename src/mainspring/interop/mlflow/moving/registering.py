"""Importing registered models: numbers, aliases, stages and tags are kept; files are those of their runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mainspring.core.address import is_model_name
from mainspring.core.ids import from_hex, new_id
from mainspring.errors import MainspringError
from mainspring.interop.mlflow.moving.records import OldModel, OldVersion, Source
from mainspring.interop.mlflow.moving.report import Report
from mainspring.interop.mlflow.rooms import Rooms
from mainspring.interop.mlflow.versions import STAGES
from mainspring.ports.artifacts import Blob
from mainspring.registry import sources
from mainspring.registry.model import PROMPT_TAG, Model, ModelVersion
from mainspring.tracking.model import Run
from mainspring.tracking.store import moment

_IN_RUN = re.compile(r"([0-9a-f]{32})/artifacts(?:/(.*))?$", re.DOTALL)
_IN_LOGGED = re.compile(r"(m-[0-9a-f]{32})/artifacts/?$")
_READ = re.compile(r"(?:models|runs|mlflow-artifacts):", re.IGNORECASE)
Take = Callable[[str, str, str, int], Blob | None]


class Registering:
    """The part of an import that fills the registry.

    Args:
        rooms: Where things come to.
        source: Where they are read.
        report: Where it is told what became of them.
        take: Keeps a file's content here: of what kind of thing, its place, path and size.
        only: Only versions whose runs are here.
    """

    def __init__(self, rooms: Rooms, source: Source, report: Report, take: Take, *, only: bool) -> None:
        self._rooms = rooms
        self._source = source
        self._report = report
        self._take = take
        self._only = only

    def all(self) -> None:
        """Imports every model."""
        for model in self._source.models():
            versions = [item for item in self._source.versions(model.name) if not self._only or self._run(item.run)]
            if versions or not self._only:
                self._model(model, versions)

    def _run(self, digits: str) -> Run | None:
        run = from_hex(digits)
        return self._rooms.store.first(Run, id=run) if run else None

    def _model(self, old: OldModel, versions: list[OldVersion]) -> None:
        if not is_model_name(old.name):
            self._report.leave("models", old.name, "its name cannot be one here: without `/`, `:` and `@`")
            self._report.count("versions", "left", len(versions))
            return
        made = Model(
            id=new_id(), created=moment(old.created * 1000), changed=moment(old.changed * 1000), name=old.name,
            description=old.description, tags=old.tags,
        )  # fmt: skip
        new = self._rooms.models.carry_model(made)
        self._report.count("models", "carried" if new else "same")
        for version in versions:
            try:
                self._version(version)
            except MainspringError as error:
                if error.status >= 500:
                    raise
                self._report.leave("versions", f"{old.name}@{version.number}", error.message)
        for alias in self._rooms.models.carry_aliases(old.name, old.aliases):
            self._report.note("models", f"{old.name}@{alias}", f"the alias points at {old.aliases[alias]}, not here")

    def _version(self, old: OldVersion) -> None:
        address = f"{old.model}@{old.number}"
        created = moment(old.created * 1000)
        before = self._rooms.store.first(ModelVersion, model=old.model, number=old.number)
        if before is not None:
            if before.created == created:
                self._report.count("versions", "same")
            else:
                self._report.leave("versions", address, "a version of this number is here, of another origin")
            return
        run = self._run(old.run)
        source, found = self._files(old)
        if found.files is None and old.tags.get(PROMPT_TAG) != "true" and not sources.is_remote(source):
            self._report.note("versions", address, f"its files are not at {old.place or old.source}")
        said = {
            "run": found.run or (run.name if run else ""), "run_link": old.run_link, "description": old.description,
            "tags": old.tags,
        }  # fmt: skip
        as_was = {
            "number": old.number, "created": created, "changed": moment(old.changed * 1000), "actor": old.user,
            "stage": STAGES.get(old.stage.lower(), "None"),
        }  # fmt: skip
        self._rooms.models.carry_version(old.model, source, found, said, as_was)
        self._report.count("versions", "carried")

    def _files(self, old: OldVersion) -> tuple[str, sources.Source]:
        """What a version was registered from, as it is called here, and its files, if anybody has them."""
        if old.tags.get(PROMPT_TAG) == "true":
            return old.source, sources.Source(None)
        for address in self._addresses(old):
            try:
                return address, self._rooms.models.sources.read(address)
            except MainspringError:
                continue
        place = old.place or old.source
        if sources.is_remote(place):
            return place, sources.Source(None)
        try:
            files = sorted(self._source.files(place, ""))
        except MainspringError:
            files = []
        blobs = {path: blob for path, size in files if (blob := self._take("versions", place, path, size))}
        return old.source, sources.Source(blobs or None)

    @staticmethod
    def _addresses(old: OldVersion) -> Iterator[str]:
        """Where the files may be here already."""
        if _READ.match(old.source):
            yield old.source
        for place in (old.place, old.source):
            if (logged := _IN_LOGGED.search(place)) is not None:
                yield f"models:/{logged[1]}"
            elif (run := _IN_RUN.search(place)) is not None:
                yield f"runs:/{run[1]}/{run[2] or ''}"
