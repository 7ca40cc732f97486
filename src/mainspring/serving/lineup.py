"""The models of one revision: who answers a row, who only watches. A change of the deployment is a new lineup."""

from __future__ import annotations

import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from mainspring.core.ids import new_id
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, unknown_name
from mainspring.ports.target import Role, Route
from mainspring.registry.runtime import OnnxModel
from mainspring.serving.log import Frame
from mainspring.serving.request import Batch, Form
from mainspring.serving.route import Router, point, sampled

_WIDER = {"float": ("float", "int", "bool"), "int": ("int", "bool"), "string": ("string",), "bool": ("bool",)}
HEADER = "header:"
"""What a key begins with that is a header of the request, not a column."""
_serial = count()
_process = new_id()[:10] + secrets.token_hex(4)


class Answer(NamedTuple):
    """What was predicted; one entry per row."""

    ids: list[str]
    versions: list[str]
    roles: list[str]
    scores: list[float]
    labels: list[bool | None]


class Lineup:
    """Loaded models and the rule that divides rows between them.

    Args:
        revision: The revision it realises.
        routes: The model versions.
        before: The lineup in force; a version that it has from the same folder is not loaded again, because a version
            never changes.
        key: What rows stick to an arm by: a column, ``header:NAME``, or empty for the prediction id.
        on_failure: Hears of the rows that a version failed to score, as a frame of the role ``error``.

    Attributes:
        form: What a request must look like: the live version's columns, and optionally those of the others.

    Raises:
        InvalidInput: A model cannot be loaded, or could not answer every request that the live version answers.
    """

    def __init__(
        self,
        revision: int,
        routes: Sequence[Route],
        before: Lineup | None = None,
        *,
        key: str = "",
        on_failure: Callable[[Frame], None] = lambda frame: None,
    ) -> None:
        self.revision = revision
        self._key = key
        self._on_failure = on_failure
        self.routes = tuple(routes)
        self._router = Router(routes)
        self.models: dict[str, OnnxModel] = {}
        for route in routes:
            known = before and before.models.get(route.version)
            keep = known if known and known.folder == Path(route.path) else None
            self.models[route.version] = keep or OnnxModel(Path(route.path))
        self._roles: dict[str, Role] = {route.version: route.role for route in routes}
        self.live = self._router.live
        self.signature = self.models[self.live].signature
        extra: dict[str, Field] = {}
        for version, model in self.models.items():
            extra |= _extra_columns(self.signature, self.live, model.signature, version, extra)
        known_columns = {field.name for field in self.signature.inputs} | set(extra)
        if key and not key.startswith(HEADER) and key not in known_columns:
            extra[key] = Field(name=key, type="string", nullable=True)
        self.form = Form(self.signature.inputs, tuple(extra.values()))

    def keyed(self, batch: Batch, headers: Mapping[bytes, bytes]) -> Batch:
        """The batch with the keys that its rows stick to an arm by; a header's value is only kept as a hash."""
        if not self._key or not self._router.sticky:
            return batch
        if not self._key.startswith(HEADER):
            values = batch.columns.get(self._key) or [None] * batch.rows
            return batch._replace(keys=[None if value is None else str(value) for value in values])
        sent = headers.get(self._key.removeprefix(HEADER).lower().encode())
        key = f"{point(sent.decode('latin-1')):016x}" if sent else None
        return batch._replace(keys=[key] * batch.rows, columns={**batch.columns, self._key: [key] * batch.rows})

    def score(self, batch: Batch, version: str = "") -> Answer:
        """Scores each row with the version that its id or key falls to, or all with ``version``.

        Where another version than the live one fails, the live one answers its rows.
        """
        rows = batch.rows
        ids = batch.ids if batch.ids is not None else [f"{_process}-{next(_serial):x}" for _ in range(rows)]
        stuck = ids if batch.keys is None else [key or id for key, id in zip(batch.keys, ids, strict=True)]
        parts = {version: list(range(rows))} if version else self._router.split(stuck)
        if len(parts) == 1:
            (only,) = parts
            only, scores, labels = self._scored(only, batch, ids, instead="" if version else self.live)
            return Answer(ids, [only] * rows, [self._roles[only]] * rows, scores, labels)
        answer = Answer(ids, [""] * rows, [""] * rows, [0.0] * rows, [None] * rows)
        for name, places in parts.items():
            part, part_ids = _part(batch, ids, places)
            by, scores, labels = self._scored(name, part, part_ids, instead=self.live)
            for place, score, label in zip(places, scores, labels, strict=True):
                answer.versions[place], answer.roles[place] = by, self._roles[by]
                answer.scores[place], answer.labels[place] = score, label
        return answer

    def shadows(self, batch: Batch, ids: list[str]) -> Iterator[Frame]:
        """What each shadow says about its share of the same rows; not a number where it fails."""
        for route in self.routes:
            if route.role != "shadow" or not (places := sampled(route, ids)):
                continue
            part, part_ids = (batch, ids) if len(places) == batch.rows else _part(batch, ids, places)
            start = time.perf_counter()
            scores, labels = self._tried(route.version, part)
            latency_us = int((time.perf_counter() - start) * 1e6)
            answer = Answer(part_ids, [route.version] * part.rows, [route.role] * part.rows, scores, labels)
            yield to_log(part, answer, latency_us)

    @property
    def watched(self) -> bool:
        """Whether there are shadows."""
        return "shadow" in self._roles.values()

    def version(self, name: str) -> str:
        """The version meant by an address such as ``flights@3`` or by its number alone.

        Raises:
            NotFound: It is not part of this deployment.
        """
        for version in self.models:
            if name in (version, version.rpartition("@")[2]):
                return version
        raise unknown_name("version", name, self.models, listing="GET /-/status")

    def _scored(
        self, version: str, batch: Batch, ids: list[str], *, instead: str
    ) -> tuple[str, list[float], list[bool | None]]:
        """Who answered, the scores and the labels; ``instead`` answers where the version fails."""
        start = time.perf_counter()
        try:
            return version, *self._direct(version, batch)
        except Exception:
            rows, latency_us = batch.rows, int((time.perf_counter() - start) * 1e6)
            failed = Answer(ids, [version] * rows, ["error"] * rows, [nan] * rows, [None] * rows)
            self._on_failure(to_log(batch, failed, latency_us))
            if instead in ("", version):
                raise
            traceback.print_exc(file=sys.stderr)
        return self._scored(instead, batch, ids, instead="")

    def _tried(self, version: str, batch: Batch) -> tuple[list[float], list[bool | None]]:
        try:
            return self._direct(version, batch)
        except Exception:  # noqa: BLE001 - whatever a shadow does, the caller has the live answer
            traceback.print_exc(file=sys.stderr)
            return [nan] * batch.rows, [None] * batch.rows

    def _direct(self, version: str, batch: Batch) -> tuple[list[float], list[bool | None]]:
        model = self.models[version]
        scores = model.score(batch.columns, batch.rows)
        return scores, model.labels(scores)


def _part(batch: Batch, ids: list[str], places: list[int]) -> tuple[Batch, list[str]]:
    """Some rows of a batch, and their ids."""
    columns: dict[str, Sequence[Any]] = {
        column: [values[place] for place in places] for column, values in batch.columns.items()
    }
    times = [batch.times[place] for place in places] if batch.times else None
    return Batch(columns, len(places), times=times), [ids[place] for place in places]


def to_log(batch: Batch, answer: Answer, latency_us: int) -> Frame:
    """The frame that puts an answer on record."""
    times = batch.times or [time.time_ns() // 1000] * batch.rows
    return Frame(times, *answer, batch.columns, latency_us)


def _extra_columns(
    live: Signature, live_version: str, other: Signature, version: str, known: dict[str, Field]
) -> dict[str, Field]:
    """The columns a version reads beyond the live one's: nullable ones, because clients may not send them."""
    fields = {field.name: field for field in live.inputs}
    extra: dict[str, Field] = {}
    for field in other.inputs:
        there = fields.get(field.name)
        if there is None and not field.nullable:
            raise InvalidInput(
                f"{version} needs the column `{field.name}`, which requests for {live_version} do not have",
                hint="make the column nullable in the signature and train with nulls, or deploy it under another name",
            )
        if there is None:
            extra[field.name] = field
            there = known.get(field.name, field)
        if there.type not in _WIDER[field.type]:
            raise InvalidInput(
                f"{version} reads `{field.name}` as {field.type}, requests have it as {there.type}",
                hint="train the version with the column's present type, or deploy it under another name",
            )
        if there.nullable and not field.nullable:
            raise InvalidInput(
                f"{version} cannot read null in `{field.name}`, which requests for {live_version} may contain",
                hint="make the column nullable in the version's signature",
            )
    return extra
