"""The models of one revision: who answers a row, who only watches. A change of the deployment is a new lineup."""

from __future__ import annotations

import secrets
import time
from asyncio import Future
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from pathlib import Path

from mainspring.core.ids import new_id
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, unknown_name
from mainspring.ports.target import Role, Route
from mainspring.registry.load import Model, load_model, pays_to_batch
from mainspring.serving.batching import NextTurn
from mainspring.serving.log import Frame
from mainspring.serving.request import Answer, Batch, Form
from mainspring.serving.route import Router
from mainspring.serving.tensor_form import TensorForm

_WIDER = {"float": ("float", "int", "bool"), "int": ("int", "bool"), "string": ("string",), "bool": ("bool",)}
OUTPUTS = {"score": "FP64", "label": "BOOL", "version": "BYTES", "id": "BYTES"}
"""Output -> datatype in the inference protocol."""

_serial = count()
_process = new_id()[:10] + secrets.token_hex(4)


class Lineup:
    """Loaded models and the rule that divides rows between them.

    Args:
        revision: The revision it realises.
        routes: The model versions.
        before: The lineup in force; a version that it has from the same folder is not loaded again, because a version
            never changes.
        trusted: Types that original models may be made of beyond scikit-learn's own.

    Attributes:
        batches: Whether rows of several requests are scored together, because calls are dear and rows are cheap.
        form: What a request must look like: the live version's columns, and optionally those of the others.
        tensors: What an inference request usually looks like.
        outputs: What an inference request may ask for; a regressor says neither yes nor no.

    Raises:
        InvalidInput: A model cannot be loaded, or could not answer every request that the live version answers.
    """

    def __init__(
        self,
        revision: int,
        routes: Sequence[Route],
        before: Lineup | None = None,
        *,
        trusted: Collection[str] = (),
    ) -> None:
        self.revision = revision
        self.routes = tuple(routes)
        self._router = Router(routes)
        self.models: dict[str, Model] = {}
        for route in routes:
            known = before and before.models.get(route.version)
            keep = known if known and known.folder == Path(route.path) else None
            self.models[route.version] = keep or load_model(Path(route.path), trusted=trusted)
        self._roles: dict[str, Role] = {route.version: route.role for route in routes}
        self.live = self._router.live
        self.signature = self.models[self.live].signature
        extra: dict[str, Field] = {}
        for version, model in self.models.items():
            extra |= _extra_columns(self.signature, self.live, model.signature, version, extra)
        self.form = Form(self.signature.inputs, tuple(extra.values()), extra=self.signature.on_extra)
        self.tensors = TensorForm(self.form.fields, self.form.required)
        self.outputs = outputs_of(self.signature)
        names = [field.name for field in self.signature.inputs]
        self._packable = {
            version
            for version, model in self.models.items()
            if model.signature.numeric and [field.name for field in model.signature.inputs] == names
        }
        # A model in use is not measured again: it may not be asked from two threads.
        self._dear: dict[str, bool] = {
            version: before._dear[version] if before and before.models.get(version) is model else pays_to_batch(model)
            for version, model in self.models.items()
        }
        self.batches = any(self._dear.values())
        self._turns = {version: NextTurn(self, version) for version in ("", *self.models)}

    def ask(self, batch: Batch, version: str = "") -> Answer | Future[Answer]:
        """As `score`; a future where it pays to score the rows together with those of other requests."""
        return self._turns[version].put(batch) if self.batches else self.score(batch, version)

    def score(self, batch: Batch, version: str = "") -> Answer:
        """Scores each row with the version that its id falls to, or all with ``version``."""
        rows = batch.rows
        ids = batch.ids if batch.ids is not None else self.make_ids(rows)
        only = version or self._router.only
        if not only:
            parts = self._router.split(ids)
            only = next(iter(parts)) if len(parts) == 1 else ""
        if only:
            scores, labels = self._scored(only, batch)
            return Answer(ids, [only] * rows, [self._roles[only]] * rows, scores, labels)
        answer = Answer(ids, [""] * rows, [""] * rows, [0.0] * rows, [None] * rows)
        for name, places in parts.items():
            scores, labels = self._scored(name, batch.pick(places))
            for place, score, label in zip(places, scores, labels, strict=True):
                answer.versions[place], answer.roles[place] = name, self._roles[name]
                answer.scores[place], answer.labels[place] = score, label
        return answer

    @staticmethod
    def make_ids(rows: int) -> list[str]:
        """Prediction ids for rows that came without."""
        return [f"{_process}-{next(_serial):x}" for _ in range(rows)]

    def shadows(self, batch: Batch, ids: list[str]) -> Iterator[Answer]:
        """What each shadow says about the same rows."""
        for version, role in self._roles.items():
            if role == "shadow":
                scores, labels = self._scored(version, batch)
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

    def _scored(self, version: str, batch: Batch) -> tuple[list[float], list[bool | None]]:
        model = self.models[version]
        if batch.packed is not None and version in self._packable:
            scores = model.score_packed(batch.packed)
        else:
            scores = model.score(batch.columns, batch.rows)
        return scores, model.signature.labels(scores)


def outputs_of(signature: Signature) -> list[str]:
    """What a model answers; a regressor says neither yes nor no."""
    return [name for name in OUTPUTS if name != "label" or signature.kind == "classifier"]


def to_log(batch: Batch, answer: Answer, latency_us: int, caller: str = "") -> Frame:
    """The frame that puts an answer on record."""
    times = batch.times or [time.time_ns() // 1000] * batch.rows
    ids, versions, roles, scores, labels = answer
    return Frame(times, ids, versions, roles, scores, labels, batch.sent or batch.columns, latency_us, caller)


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
