"""The models of one revision: who answers a row, who only watches. A change of the deployment is a new lineup."""

from __future__ import annotations

import secrets
import sys
import time
import traceback
from asyncio import Future
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import count, islice
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from mainspring.core.humility import Humility, HumilityRule
from mainspring.core.ids import new_id, point
from mainspring.core.judgement import settle
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, unknown_name
from mainspring.ports.target import Role, Route
from mainspring.registry.load import Model, load_model, pays_to_batch
from mainspring.serving.batching import NextTurn
from mainspring.serving.beside import Aside, BesideTurn
from mainspring.serving.log import Frame, Mark
from mainspring.serving.request import Answer, Batch, Form
from mainspring.serving.route import Router, sampled
from mainspring.serving.tensor_form import TensorForm

_WIDER = {"float": ("float", "int", "bool"), "int": ("int", "bool"), "string": ("string",), "bool": ("bool",)}
OUTPUTS = {"score": "FP64", "label": "BOOL", "version": "BYTES", "id": "BYTES"}
"""Output -> datatype in the inference protocol."""
_OF_CLASSES = {"score": "FP64", "label": "BYTES", "probabilities": "FP64", "version": "BYTES", "id": "BYTES"}
"""The same of a model that tells several classes apart; ``probabilities`` is [rows, classes]."""
HEADER = "header:"
"""What a key begins with that is a header of the request, not a column."""


class _Scored(NamedTuple):
    """Rows scored by one version; the probabilities of models with `Signature.classes`: one list per row."""

    scores: list[float]
    labels: list[bool | None]
    shares: list[list[float]] | None = None


_serial = count()
_ends: list[str] = []
_process = new_id()[:10] + secrets.token_hex(4)


class Lineup:
    """Loaded models and the rule that divides rows between them.

    Args:
        revision: The revision it realises.
        routes: The model versions.
        before: The lineup in force; a version that it has from the same folder is not loaded again, because a version
            never changes.
        trusted: Types that original models may be made of beyond scikit-learn's own.
        key: What rows stick to an arm by: a column, ``header:NAME``, or empty for the prediction id.
        humility: Rules for rows where the models are not to be trusted.
        outcome_key: Columns that requests may have because outcomes are sent under them.
        on_failure: Hears of the rows that a version failed to score, as a frame of the role ``error``.

    Attributes:
        batches: Whether rows of several requests are scored together, because calls are dear and rows are cheap.
        form: What a request must look like: the live version's columns, and optionally those of the others.
        tensors: What an inference request usually looks like.
        outputs: What an inference request may ask for; a regressor says neither yes nor no.
        joins: Whether rows may be scored together whoever asks: no request is treated in a way of its own.
        packs: Whether rows of numbers may come as one tensor, as they are.
        table: The columns of rows that may be put on record as an array, in its order; None where there are none.

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
        key: str = "",
        humility: Sequence[HumilityRule] = (),
        outcome_key: Sequence[str] = (),
        on_failure: Callable[[Frame], None] = lambda frame: None,
    ) -> None:
        self.revision = revision
        self._key = key
        self._on_failure = on_failure
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
            if model.signature.classes != self.signature.classes:
                raise InvalidInput(
                    f"{version} tells other classes apart than {self.live}", hint="deploy it under another name"
                )
        known_columns = {field.name for field in self.signature.inputs} | set(extra)
        for name in (key, *outcome_key):
            if name and not name.startswith(HEADER) and name not in known_columns:
                extra[name] = Field(name=name, type="string", nullable=True)
        self.form = Form(self.signature.inputs, tuple(extra.values()), extra=self.signature.on_extra)
        self._humility = Humility(humility, Signature(inputs=self.form.fields)) if humility else None
        self.packs = self.form.packs and not extra
        self.tensors = TensorForm(self.form.fields, self.form.required, packs=self.packs)
        self.outputs = list(outputs_of(self.signature))
        alike = self._humility is None and not self.signature.classes
        self.joins = self.form.same and alike and not (key and self._router.sticky)
        self.table = [field.name for field in self.signature.inputs] if self.packs and not outcome_key else None
        names = [field.name for field in self.signature.inputs]
        self._packable = {version for version, model in self.models.items() if _takes(model.signature, names)}
        # A model in use is not measured again: it may not be asked from two threads.
        self._dear: dict[str, bool] = {
            version: before._dear[version] if before and before.models.get(version) is model else pays_to_batch(model)
            for version, model in self.models.items()
        }
        self.batches = any(self._dear.values())
        self._slow = {version for version, model in self.models.items() if model.platform == "python"}
        slow_roles = {self._roles[version] for version in self._slow}
        self._watching = Aside() if "shadow" in slow_roles else None
        apart = bool(slow_roles - {"shadow"})
        self.joins, self._waits = self.joins and not apart, self.batches or apart
        self._turns = self._beside(on_failure) if apart else {name: NextTurn(self, name) for name in ("", *self.models)}

    def _beside(self, on_failure: Callable[[Frame], None]) -> dict[str, NextTurn]:
        aside = Aside()
        self._on_failure = lambda frame: aside.tell(on_failure, frame)
        return {name: BesideTurn(self, name, aside, joins=self.batches) for name in ("", *self.models)}

    def keyed(self, batch: Batch, headers: Mapping[bytes, bytes]) -> Batch:
        """The batch with the keys that its rows stick to an arm by; a header's value is only kept as a hash."""
        if not self._key or not self._router.sticky:
            return batch
        if not self._key.startswith(HEADER):
            values = batch.columns.get(self._key) or [None] * batch.rows
            return batch._replace(keys=[None if value is None else str(value) for value in values])
        sent = headers.get(self._key.removeprefix(HEADER).lower().encode())
        key = f"{point(sent.decode('latin-1')):016x}" if sent else None
        told = {**(batch.sent or batch.columns), self._key: [key] * batch.rows}
        return batch._replace(keys=[key] * batch.rows, sent=told)

    def ask(self, batch: Batch, version: str = "") -> Answer | Future[Answer]:
        """As `score`; a future where it pays to score the rows together with those of others, or a model is code."""
        return self._turns[version].put(batch) if self._waits else self.score(batch, version)

    def score(self, batch: Batch, version: str = "") -> Answer:
        """Scores each row with the version that its id or key falls to, or all with ``version``.

        Where another version than the live one fails, the live one answers its rows. What humility rules make of a row
        is answered in place of the score; a row that they refuse is marked so, and it is for the caller to refuse it.
        """
        if self._humility is None:
            return self._divided(batch, version)
        seen, fired = self._humility.look(batch.columns, batch.rows)
        if any(seen[name] is not values for name, values in batch.columns.items()):
            answer = self._divided(batch._replace(columns=seen, packed=None, sent=batch.sent or batch.columns), version)
        else:
            answer = self._divided(batch, version)
        verdict = settle(self._humility.scores, answer.scores, fired)
        if not verdict.fired:
            return answer
        marks: list[Mark | None] = [None] * batch.rows
        labels = answer.labels.copy()
        for row, names in verdict.fired.items():
            first = verdict.decided[row]
            others = [name for name in names if name != first.rule]
            marks[row] = Mark([first.rule, *others], first.then, answer.scores[row])
            labels[row] = self.models[answer.versions[row]].signature.labels([verdict.scores[row]])[0]
        return answer._replace(scores=verdict.scores, labels=labels, marks=marks)

    def seen(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        """The columns as the models see them: where a humility rule clamps, clamped."""
        return self._humility.look(batch.columns, batch.rows)[0] if self._humility else batch.columns

    def _divided(self, batch: Batch, version: str) -> Answer:
        rows = batch.rows
        ids = batch.ids if batch.ids is not None else self.make_ids(rows)
        only = version or self._router.only
        if not only:
            stuck = ids if batch.keys is None else [key or id for key, id in zip(batch.keys, ids, strict=True)]
            parts = self._router.split(stuck)
            only = next(iter(parts)) if len(parts) == 1 else ""
        if only:
            only, scored = self._scored(only, batch, ids, instead="" if version else self.live)
            found = self._by_class(scored.shares)
            return Answer(ids, [only] * rows, [self._roles[only]] * rows, scored.scores, scored.labels, None, found)
        shares: list[list[float]] = [[]] * rows
        answer = Answer(ids, [""] * rows, [""] * rows, [0.0] * rows, [None] * rows)
        for name, places in parts.items():
            part_ids = [ids[place] for place in places]
            by, scored = self._scored(name, batch.pick(places), part_ids, instead=self.live)
            for number, place in enumerate(places):
                answer.versions[place], answer.roles[place] = by, self._roles[by]
                answer.scores[place], answer.labels[place] = scored.scores[number], scored.labels[number]
                if scored.shares:
                    shares[place] = scored.shares[number]
        return answer._replace(probabilities=self._by_class(shares)) if self.signature.classes else answer

    def _by_class(self, shares: list[list[float]] | None) -> dict[str, list[float]] | None:
        if shares is None:
            return None
        return {name: [row[place] for row in shares] for place, name in enumerate(self.signature.classes)}

    @staticmethod
    def make_ids(rows: int) -> list[str]:
        """Prediction ids for rows that came without; they differ in their ends, which are made once for all."""
        begin = f"{_process}-{next(_serial)}"
        if rows == 1:
            return [begin]
        if rows > len(_ends):
            _ends.extend(f"-{row}" for row in range(len(_ends), rows))
        return [begin + end for end in islice(_ends, rows)]

    def watch(self, batch: Batch, ids: list[str], caller: str | list[str], keep: Callable[[Frame], None]) -> None:
        """Has the shadows score what was answered: see `shadows`.

        Args:
            batch: The rows.
            ids: Their prediction ids.
            caller: Who asked.
            keep: Takes what they say, in the event loop; of shadows that are code, later.

        Raises:
            Overloaded: Too much waits for shadows that are code.
        """
        for frame in self.shadows(batch, ids, caller):
            keep(frame)
        if self._watching is not None:
            coming = self._watching.run(lambda: list(self.shadows(batch, ids, caller, slow=True)))
            coming.add_done_callback(lambda done: _keep_all(done.result(), keep))

    def shadows(
        self, batch: Batch, ids: list[str], caller: str | list[str] = "", *, slow: bool = False
    ) -> Iterator[Frame]:
        """What each shadow says about its share of the same rows; not a number where it fails.

        Args:
            batch: The rows.
            ids: Their prediction ids.
            caller: Who asked.
            slow: Whether those that are code shall, or the others.
        """
        for route in self.routes:
            if route.role != "shadow" or (route.version in self._slow) != slow or not (places := sampled(route, ids)):
                continue
            part, part_ids, callers = batch, ids, caller
            if len(places) < batch.rows:
                part, part_ids = batch.pick(places), [ids[place] for place in places]
                callers = [caller[place] for place in places] if isinstance(caller, list) else caller
            start = time.perf_counter()
            scored = self._tried(route.version, part)
            latency_us = int((time.perf_counter() - start) * 1e6)
            roles: list[str] = [route.role] * part.rows
            found = self._by_class(scored.shares)
            answer = Answer(part_ids, [route.version] * part.rows, roles, scored.scores, scored.labels, None, found)
            yield to_log(part, answer, latency_us, callers)

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

    def _scored(self, version: str, batch: Batch, ids: list[str], *, instead: str) -> tuple[str, _Scored]:
        """Who answered, and what; ``instead`` answers where the version fails."""
        try:
            return version, self._direct(version, batch)
        except Exception:
            rows = batch.rows
            failed = Answer(ids, [version] * rows, ["error"] * rows, [nan] * rows, [None] * rows)
            self._on_failure(to_log(batch, failed, 0))
            if instead in ("", version):
                raise
            traceback.print_exc(file=sys.stderr)
        return self._scored(instead, batch, ids, instead="")

    def _tried(self, version: str, batch: Batch) -> _Scored:
        try:
            return self._direct(version, batch)
        except Exception:  # noqa: BLE001 - whatever a shadow does, the caller has the live answer
            traceback.print_exc(file=sys.stderr)
            return _Scored([nan] * batch.rows, [None] * batch.rows)

    def _direct(self, version: str, batch: Batch) -> _Scored:
        model = self.models[version]
        if self.signature.classes:
            shares = model.probabilities(batch.columns, batch.rows)
            best: list[float] = shares.max(axis=1).tolist() if batch.rows else []
            return _Scored(best, [None] * batch.rows, shares.tolist())
        if batch.packed is not None and version in self._packable:
            scores = model.score_packed(batch.packed)
        else:
            scores = model.score(batch.columns, batch.rows)
        return _Scored(scores, model.signature.labels(scores))


def _takes(signature: Signature, names: Sequence[str]) -> bool:
    """Whether it can be scored by rows of numbers in one array with these columns."""
    return signature.numeric and not signature.classes and [field.name for field in signature.inputs] == names


def _keep_all(frames: Sequence[Frame], keep: Callable[[Frame], None]) -> None:
    for frame in frames:
        keep(frame)


def outputs_of(signature: Signature) -> dict[str, str]:
    """What a model answers -> its datatype; a regressor says neither yes nor no."""
    if signature.classes:
        return _OF_CLASSES
    return {name: kind for name, kind in OUTPUTS.items() if name != "label" or signature.kind == "classifier"}


def to_log(
    batch: Batch,
    answer: Answer,
    latency_us: int | list[int],
    caller: str | list[str] = "",
    route: str = "",
    request: str | list[str] = "",
) -> Frame:
    """The frame that puts an answer on record; see there."""
    times = batch.times or [time.time_ns() // 1000] * batch.rows
    ids, versions, roles, scores, labels, marks, shares = answer
    told = {row: mark for row, mark in enumerate(marks) if mark} if marks else None
    columns = batch.sent or batch.columns
    frame = Frame(times, ids, versions, roles, scores, labels, columns, latency_us, caller, route, request, told)
    if shares is not None:
        frame.classes = [name if isinstance(name, str) else None for name in answer.told]
    return frame


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
