"""``runs/*``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from mainspring.core.entity import draft
from mainspring.core.ids import to_hex
from mainspring.errors import InvalidInput
from mainspring.interop.mlflow.errors import INVALID, MlflowError, invalid, missing
from mainspring.interop.mlflow.experiments import compare, read_mark, write_token
from mainspring.interop.mlflow.logged import measured
from mainspring.interop.mlflow.messages import (
    CreateRun,
    LogBatch,
    LogInputs,
    LogMetric,
    LogModel,
    LogPair,
    Message,
    Metric,
    Pair,
    RunRef,
    SearchRuns,
    UpdateRun,
)
from mainspring.interop.mlflow.rooms import (
    NUMBERED,
    STATES,
    TOLD,
    Rooms,
    artifact_uri,
    check_key,
    experiment_number,
    lifecycles,
    number,
    run_id,
)
from mainspring.tracking import rules, search
from mainspring.tracking.journal import RunRow, milliseconds, row_of
from mainspring.tracking.model import Run
from mainspring.tracking.query import Search
from mainspring.tracking.search import Clause
from mainspring.tracking.store import Input, Logged, moment

MAX_BATCH = 1000
MAX_LABELS = 100
MAX_RESULTS = 50_000
MAX_INT = 2**63 // 1000
CONTEXT = "mlflow.data.context"
_USER, _SOURCE = "mlflow.user", "mlflow.source.name"
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _told(rooms: Rooms, rows: list[RunRow]) -> list[dict[str, Any]]:
    """Runs as the protocol tells them."""
    journal, numbers = rooms.runs.journal, [row.number for row in rows]
    linked = [row.number for row in rows if row.linked]
    values = journal.last_values(numbers)
    inputs, models = (journal.inputs(linked), journal.models(linked)) if linked else ({}, {})
    return [_one(row, values[row.number], inputs.get(row.number, []), models.get(row.number, [])) for row in rows]


def _one(
    row: RunRow,
    values: list[tuple[int, str, float | None, int, int]],
    inputs: list[Input],
    models: list[tuple[str, str, int]],
) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if values:
        data["metrics"] = [
            {"key": key, "value": number(value), "timestamp": at // 1000, "step": step}
            for _, key, value, step, at in values
        ]
    if row.params != "{}":
        data["params"] = [{"key": key, "value": rules.text_of(value)} for key, value in _decode(row.params).items()]
    tags = _decode(row.tags)
    tags.setdefault(rules.RUN_NAME_TAG, row.title)
    data["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
    read: dict[str, Any] = {}
    if inputs:
        read["dataset_inputs"] = [_input(item) for item in inputs]
    told: dict[str, Any] = {"info": _info(row), "data": data, "inputs": read}
    for role, model, step in models:
        if role == "input":
            read.setdefault("model_inputs", []).append({"model_id": model})
        else:
            told.setdefault("outputs", {}).setdefault("model_outputs", []).append({"model_id": model, "step": step})
    return told


def _info(row: RunRow) -> dict[str, Any]:
    name = to_hex(row.id)
    info: dict[str, Any] = {
        "run_uuid": name,
        "experiment_id": str(row.experiment),
        "run_name": row.title,
        "user_id": row.actor,
        "status": TOLD[row.status],
        "start_time": milliseconds(row.created),
    }
    if row.ended is not None:
        info["end_time"] = milliseconds(row.ended)
    info |= {
        "artifact_uri": artifact_uri(row.location, row.experiment, row.id),
        "lifecycle_stage": row.lifecycle,
        "run_id": name,
    }
    return info


def _input(item: Input) -> dict[str, Any]:
    dataset = {
        "name": item.name, "digest": item.digest, "source_type": item.source_type, "source": item.source,
        "schema": item.schema, "profile": item.profile,
    }  # fmt: skip
    told: dict[str, Any] = {"dataset": {key: value for key, value in dataset.items() if value is not None}}
    if item.tags:
        told["tags"] = [{"key": key, "value": value} for key, value in item.tags.items()]
    return told


def _labels(kind: str, given: Iterable[Pair], path: str, limit: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, item in enumerate(given):
        where = f"{path}[{place}]" if path else ""
        key = check_key(kind, item.key, where, "key")
        value = item.value or ""
        if kind == "param" and key in found:
            raise MlflowError(
                INVALID,
                f"Duplicate parameter keys have been submitted: {[key]}. "
                "Please ensure the request contains only one param value per param key.",
            )
        found[key] = value[:limit]
    return found


def _create(rooms: Rooms, request: CreateRun) -> bytes:
    tags = _labels("tag", request.tags or (), "tags", rules.MAX_TAG)
    name, tagged = request.run_name or "", tags.get(rules.RUN_NAME_TAG, "")
    if name and tagged and name != tagged:
        raise MlflowError(
            INVALID,
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{name}', mlflow.runName='{tagged}').",
        )
    title = name or tagged
    if title:
        tags[rules.RUN_NAME_TAG] = title
    new = draft(Run, title=title, tags=tags, source=tags.get(_SOURCE, ""))
    at = None if not request.start_time else _moment("start_time", request.start_time)
    user = request.user_id or tags.get(_USER, "")
    made, location = rooms.runs.begin(new, experiment_number(request.experiment_id), at, user)
    return _encode({"run": _one(row_of(made, location), [], [], [])})


def _moment(name: str, value: int) -> Any:
    try:
        return moment(value * 1000)
    except OverflowError:
        raise invalid(name, value, "It must be milliseconds since 1970") from None


def _get(rooms: Rooms, request: RunRef) -> bytes:
    with rooms.store.driver():
        return _encode({"run": _told(rooms, [rooms.runs.journal.run(run_id(request))])[0]})


def _update(rooms: Rooms, request: UpdateRun) -> bytes:
    run, given = run_id(request), request.status
    status = NUMBERED.get(int(given), "") if isinstance(given, int) or (given and given.isdecimal()) else given
    ended = None if request.end_time is None else _moment("end_time", request.end_time)
    rooms.runs.mark(run, STATES.get(str(status)), ended, request.run_name or None)
    return _encode({"run_info": _info(rooms.runs.journal.run(run))})


def _delete(rooms: Rooms, request: RunRef) -> bytes:
    rooms.runs.turn(run_id(request), "deleted")
    return b"{}"


def _restore(rooms: Rooms, request: RunRef) -> bytes:
    rooms.runs.turn(run_id(request), "active")
    return b"{}"


def _point(item: Metric | LogMetric, path: str = "") -> Logged:
    key = check_key("metric", item.key, path, "name" if item.key is not None else "key")
    if item.value is None:
        raise missing(f"{path}.value" if path else "value")
    if item.timestamp is None:
        raise missing(f"{path}.timestamp" if path else "timestamp")
    step = item.step or 0
    if not 0 <= item.timestamp < MAX_INT:
        where = f"{path}.timestamp" if path else "timestamp"
        raise invalid(
            where,
            item.timestamp,
            f"metric '{key}' (value={item.value}). Timestamp must be a nonnegative long (64-bit integer) ",
        )
    if not -(2**63) <= step < 2**63:
        raise invalid(f"{path}.step" if path else "step", step, "Step must be a valid long (64-bit integer).")
    return Logged(key, rules.finite(item.value), item.timestamp * 1000, step)


def _points(metrics: Iterable[Metric]) -> list[Logged]:
    """Points of a batch; what is as it should be, mostly all, takes the short way."""
    found, new = [], tuple.__new__  # a third of the cost of the class's own
    for place, item in enumerate(metrics):
        key, value, at, step = item.key, item.value, item.timestamp, item.step or 0
        if (
            key is not None and rules.is_key(key) and value is not None and -rules.LARGEST <= value <= rules.LARGEST
            and at is not None and 0 <= at < MAX_INT and -(2**63) <= step < 2**63
        ):  # fmt: skip
            found.append(new(Logged, (key, value, at * 1000, step)))
        else:
            found.append(_point(item, f"metrics[{place}]"))
    return found


def _log_metric(rooms: Rooms, request: LogMetric) -> bytes:
    run, points = run_id(request), [_point(request)]
    if request.model_id:
        with rooms.store.transaction():
            rooms.runs.journal.log(run, points)
            rooms.logged.measured(measured(run, [request], points))
    else:
        rooms.runs.journal.log(run, points)
    return b"{}"


def _log_param(rooms: Rooms, request: LogPair) -> bytes:
    run = run_id(request)
    _params(rooms, run, (), _labels("param", [Pair(request.key, request.value)], "", rules.MAX_PARAM), {}, batch=False)
    return b"{}"


def _params(
    rooms: Rooms, run: str, points: Iterable[Logged], params: dict[str, str], tags: dict[str, str], *, batch: bool
) -> None:
    try:
        rooms.runs.journal.log(run, list(points), params, tags)
    except InvalidInput as error:
        if "clashes" in error.facts:
            error.facts |= {"run": to_hex(run), "batch": batch}
        raise


def _set_tag(rooms: Rooms, request: LogPair) -> bytes:
    run = run_id(request)
    rooms.runs.journal.log(run, tags=_labels("tag", [Pair(request.key, request.value)], "", rules.MAX_TAG))
    return b"{}"


def _delete_tag(rooms: Rooms, request: LogPair) -> bytes:
    run = run_id(request)
    if not request.key:
        raise missing("key")
    rooms.runs.journal.drop_tag(run, request.key)
    return b"{}"


def _log_batch(rooms: Rooms, request: LogBatch) -> bytes:
    run = run_id(request)
    metrics, params, tags = request.metrics or (), request.params or (), request.tags or ()
    total = len(metrics) + len(params) + len(tags)
    for count, limit, what in (
        (len(metrics), MAX_BATCH, "metrics"),
        (len(params), MAX_LABELS, "params"),
        (len(tags), MAX_LABELS, "tags"),
        (total, MAX_BATCH, "metrics, params, and tags"),
    ):
        if count > limit:
            raise MlflowError(
                INVALID,
                f"A batch logging request can contain at most {limit} {what}. Got {count} {what}. "
                f"Please split up {what} across multiple requests and try again.",
            )
    points = _points(metrics)
    labels = _labels("param", params, "params", rules.MAX_PARAM), _labels("tag", tags, "tags", rules.MAX_TAG)
    if any(item.model_id for item in metrics):
        with rooms.store.transaction():
            _params(rooms, run, points, *labels, batch=True)
            rooms.logged.measured(measured(run, metrics, points))
    else:
        _params(rooms, run, points, *labels, batch=True)
    return b"{}"


def _log_inputs(rooms: Rooms, request: LogInputs) -> bytes:
    run = run_id(request)
    found = []
    for item in request.datasets or ():
        dataset = item.dataset
        if dataset is None:
            raise missing("datasets.dataset")
        for name in ("name", "digest", "source_type", "source"):
            if not getattr(dataset, name):
                raise MlflowError(INVALID, f"Dataset {name} cannot be None")
        tags = {tag.key: tag.value or "" for tag in item.tags or () if tag.key is not None}
        found.append(
            Input(
                dataset.name or "", dataset.digest or "", dataset.source_type or "", dataset.source or "",
                dataset.schema, dataset.profile, tags.get(CONTEXT), tags,
            )
        )  # fmt: skip
    models = [item.model_id for item in request.models or () if item.model_id]
    rooms.runs.journal.add_inputs(run, found, models)
    return b"{}"


def _outputs(rooms: Rooms, request: LogInputs) -> bytes:
    made = [(item.model_id, item.step or 0) for item in request.models or () if item.model_id]
    rooms.runs.journal.add_inputs(run_id(request), (), made=made)
    return b"{}"


def _log_model(rooms: Rooms, request: LogModel) -> bytes:
    """Older clients keep the list of a run's models in a tag."""
    run = run_id(request)
    if not request.model_json:
        raise missing("model_json")
    history = "mlflow.log-model.history"
    try:
        model = msgspec.json.decode(request.model_json, type=dict[str, Any])
    except msgspec.DecodeError:
        raise MlflowError(INVALID, "Malformed model info. \n model_json is not a JSON object") from None
    with rooms.store.transaction():
        before = _decode(rooms.runs.journal.run(run).tags).get(history, "[]")
        known = msgspec.json.decode(before)
        rooms.runs.journal.log(run, tags={history: _encode([*known, model]).decode()})
    return b"{}"


def _search(rooms: Rooms, request: SearchRuns) -> bytes:
    limit = 1000 if request.max_results is None else request.max_results
    if not 1 <= limit <= MAX_RESULTS:
        raise invalid("max_results", limit, f"It must be at most {MAX_RESULTS} and at least 1")
    offset, upto = read_mark(request.page_token)
    clauses = [_ours(item) for item in search.RUNS.filter(request.filter or "")]
    orders = search.RUNS.order(request.order_by or [])
    experiments = [experiment_number(item) for item in request.experiment_ids or () if item]
    with rooms.store.driver() as driver:
        if upto is None and (newest := driver.row("SELECT max(number) FROM run")) is not None:
            upto = newest[0] or 0
        found = Search(driver, experiments, clauses, orders, lifecycles(request.run_view_type), upto)
        numbers, more = found.page(limit, offset)
        runs = _told(rooms, rooms.runs.journal.runs(numbers)) if numbers else []
    answer: dict[str, Any] = {"runs": runs} if runs else {}
    if more:
        answer["next_page_token"] = write_token(offset + limit, upto)
    return _encode(answer)


def _ours(clause: Clause) -> Clause:
    """A clause on the state, which has other names here: as the list of those of our states for which it holds."""
    if clause.kind != "attribute" or clause.key != "status":
        return clause
    held = tuple(ours for theirs, ours in STATES.items() if compare(theirs, clause))
    return Clause("attribute", "status", "IN", held)


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("POST", "runs/create"): (CreateRun, _create),
    ("GET", "runs/get"): (RunRef, _get),
    ("POST", "runs/update"): (UpdateRun, _update),
    ("POST", "runs/delete"): (RunRef, _delete),
    ("POST", "runs/restore"): (RunRef, _restore),
    ("POST", "runs/log-metric"): (LogMetric, _log_metric),
    ("POST", "runs/log-parameter"): (LogPair, _log_param),
    ("POST", "runs/set-tag"): (LogPair, _set_tag),
    ("POST", "runs/delete-tag"): (LogPair, _delete_tag),
    ("POST", "runs/log-batch"): (LogBatch, _log_batch),
    ("POST", "runs/log-inputs"): (LogInputs, _log_inputs),
    ("POST", "runs/outputs"): (LogInputs, _outputs),
    ("POST", "runs/log-model"): (LogModel, _log_model),
    ("POST", "runs/search"): (SearchRuns, _search),
}
