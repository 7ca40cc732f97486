"""The models of one revision: who answers a row, who only watches. A change of the deployment is a new lineup."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from mainspring.core.ids import new_id
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, unknown_name
from mainspring.ports.target import Role, Route
from mainspring.registry.runtime import Columns, OnnxModel
from mainspring.serving.log import Frame
from mainspring.serving.request import Batch, Form
from mainspring.serving.route import Router
from mainspring.serving.tensor_form import TensorForm

_WIDER = {"float": ("float", "int", "bool"), "int": ("int", "bool"), "string": ("string",), "bool": ("bool",)}
OUTPUTS = {"score": "FP64", "label": "BOOL", "version": "BYTES", "id": "BYTES"}
"""Output -> datatype in the inference protocol."""

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

    Attributes:
        form: What a request must look like: the live version's columns, and optionally those of the others.
        tensors: What an inference request usually looks like.
        outputs: What an inference request may ask for; a regressor says neither yes nor no.

    Raises:
        InvalidInput: A model cannot be loaded, or could not answer every request that the live version answers.
    """

    def __init__(self, revision: int, routes: Sequence[Route], before: Lineup | None = None) -> None:
        self.revision = revision
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
        self.form = Form(self.signature.inputs, tuple(extra.values()))
        self.tensors = TensorForm(self.form.fields, self.form.required)
        self.outputs = [name for name in OUTPUTS if name != "label" or self.signature.kind == "classifier"]

    def score(self, batch: Batch, version: str = "") -> Answer:
        """Scores each row with the version that its id falls to, or all with ``version``."""
        rows = batch.rows
        ids = batch.ids if batch.ids is not None else [f"{_process}-{next(_serial):x}" for _ in range(rows)]
        only = version or self._router.only
        if not only:
            parts = self._router.split(ids)
            only = next(iter(parts)) if len(parts) == 1 else ""
        if only:
            scores, labels = self._scored(only, batch.columns, rows)
            return Answer(ids, [only] * rows, [self._roles[only]] * rows, scores, labels)
        answer = Answer(ids, [""] * rows, [""] * rows, [0.0] * rows, [None] * rows)
        for name, places in parts.items():
            part = {column: [values[place] for place in places] for column, values in batch.columns.items()}
            scores, labels = self._scored(name, part, len(places))
            for place, score, label in zip(places, scores, labels, strict=True):
                answer.versions[place], answer.roles[place] = name, self._roles[name]
                answer.scores[place], answer.labels[place] = score, label
        return answer

    def shadows(self, batch: Batch, ids: list[str]) -> Iterator[Answer]:
        """What each shadow says about the same rows."""
        for version, role in self._roles.items():
            if role == "shadow":
                scores, labels = self._scored(version, batch.columns, batch.rows)
                yield Answer(ids, [version] * batch.rows, [role] * batch.rows, scores, labels)

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

    def _scored(self, version: str, columns: Columns, rows: int) -> tuple[list[float], list[bool | None]]:
        model = self.models[version]
        scores = model.score(columns, rows)
        return scores, model.labels(scores)


def to_log(batch: Batch, answer: Answer, latency_us: int, caller: str = "") -> Frame:
    """The frame that puts an answer on record."""
    times = batch.times or [time.time_ns() // 1000] * batch.rows
    ids, versions, roles, scores, labels = answer
    return Frame(times, ids, versions, roles, scores, labels, batch.columns, latency_us, caller)


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
