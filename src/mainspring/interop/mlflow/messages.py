"""Requests of the protocol: every field may be missing, numbers may come as text, what is not known is passed over."""

from __future__ import annotations

import json
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from mainspring.interop.mlflow.errors import INVALID, MlflowError

M = TypeVar("M", bound="Message")


class Message(msgspec.Struct):
    """Base of requests; a field that is not sent is None or empty."""


class Pair(Message):
    """A tag or a parameter."""

    key: str | None = None
    value: str | None = None


class Metric(Message):
    """A point of a metric."""

    key: str | None = None
    value: float | None = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class CreateExperiment(Message):
    """``experiments/create``."""

    name: str | None = None
    artifact_location: str | None = None
    tags: list[Pair] | None = None


class ExperimentRef(Message):
    """An experiment by number or name, with what is to be changed."""

    experiment_id: str | None = None
    experiment_name: str | None = None
    new_name: str | None = None
    key: str | None = None
    value: str | None = None


class SearchExperiments(Message):
    """``experiments/search``."""

    max_results: int | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] | None = None
    view_type: str | int | None = None


class CreateRun(Message):
    """``runs/create``."""

    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: int | None = None
    tags: list[Pair] | None = None


class RunRef(Message):
    """A run, by its id or by the id's older name."""

    run_id: str | None = None
    run_uuid: str | None = None


class UpdateRun(RunRef):
    """``runs/update``."""

    status: str | int | None = None
    end_time: int | None = None
    run_name: str | None = None


class LogMetric(RunRef):
    """``runs/log-metric``."""

    key: str | None = None
    value: float | None = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogPair(RunRef):
    """``runs/log-parameter``, ``runs/set-tag``, ``runs/delete-tag``."""

    key: str | None = None
    value: str | None = None


class LogBatch(RunRef):
    """``runs/log-batch``."""

    metrics: list[Metric] | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None


class Dataset(Message):
    """A dataset as a run has read it."""

    name: str | None = None
    digest: str | None = None
    source_type: str | None = None
    source: str | None = None
    schema: str | None = None
    profile: str | None = None


class DatasetInput(Message):
    """A dataset with tags that say what it was for."""

    tags: list[Pair] | None = None
    dataset: Dataset | None = None


class ModelRef(Message):
    """A model that a run has read or made."""

    model_id: str | None = None
    step: int | None = None


class LogInputs(RunRef):
    """``runs/log-inputs`` and ``runs/outputs``."""

    datasets: list[DatasetInput] | None = None
    models: list[ModelRef] | None = None


class LogModel(RunRef):
    """``runs/log-model`` of older clients."""

    model_json: str | None = None


class SearchRuns(Message):
    """``runs/search``."""

    experiment_ids: list[str] | None = None
    filter: str | None = None
    run_view_type: str | int | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class SearchDatasets(Message):
    """``experiments/search-datasets``."""

    experiment_ids: list[str] | None = None


class History(RunRef):
    """``metrics/get-history``."""

    metric_key: str | None = None
    page_token: str | None = None
    max_results: int | None = None


class Histories(Message):
    """``metrics/get-history-bulk`` and ``metrics/get-history-bulk-interval``."""

    run_id: list[str] | None = None
    run_ids: list[str] | None = None
    metric_key: str | None = None
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


class ListArtifacts(RunRef):
    """``artifacts/list``."""

    path: str | None = None
    page_token: str | None = None


class GetArtifact(RunRef):
    """``/get-artifact`` and ``/model-versions/get-artifact``."""

    path: str | None = None
    name: str | None = None
    version: str | None = None


class UploadedPart(Message):
    """A part of a file as its sender knows it."""

    part_number: int | None = None
    etag: str | None = None
    url: str | None = None


class Multipart(Message):
    """``mlflow-artifacts/mpu``."""

    path: str | None = None
    num_parts: int | None = None
    upload_id: str | None = None
    parts: list[UploadedPart] | None = None


class ModelName(Message):
    """A registered model, with what is to be changed."""

    name: str | None = None
    new_name: str | None = None
    description: str | None = None
    tags: list[Pair] | None = None
    stages: list[str] | None = None
    key: str | None = None
    value: str | None = None
    alias: str | None = None
    version: str | None = None


class VersionRef(Message):
    """A version of a registered model, with what is to be changed."""

    name: str | None = None
    version: str | None = None
    description: str | None = None
    key: str | None = None
    value: str | None = None
    stage: str | None = None
    archive_existing_versions: bool | None = None


class CreateVersion(Message):
    """``model-versions/create``."""

    name: str | None = None
    source: str | None = None
    run_id: str | None = None
    tags: list[Pair] | None = None
    run_link: str | None = None
    description: str | None = None
    model_id: str | None = None


class SearchRegistry(Message):
    """``registered-models/search`` and ``model-versions/search``."""

    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class CreateLogged(Message):
    """``logged-models``."""

    experiment_id: str | None = None
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None


class LoggedRef(Message):
    """A logged model, with what is to be changed."""

    model_id: str | None = None
    status: str | int | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None
    tag_key: str | None = None
    artifact_directory_path: str | None = None


class DatasetRef(Message):
    """A dataset that a metric was measured on."""

    dataset_name: str | None = None
    dataset_digest: str | None = None


class LoggedOrder(DatasetRef):
    """One level of the order of logged models."""

    field_name: str | None = None
    ascending: bool | None = None


class SearchLogged(Message):
    """``logged-models/search``."""

    experiment_ids: list[str] | None = None
    filter: str | None = None
    datasets: list[DatasetRef] | None = None
    max_results: int | None = None
    order_by: list[LoggedOrder] | None = None
    page_token: str | None = None


class OlderTrace(Message):
    """A trace as clients of the line 2.x tell it."""

    request_id: str | None = None
    experiment_id: str | None = None
    timestamp_ms: int | None = None
    status: str | None = None
    request_metadata: list[Pair] | None = None
    tags: list[Pair] | None = None


class TraceRef(OlderTrace):
    """A trace, with what is to be changed."""

    trace_id: str | None = None
    allow_partial: bool | None = None
    trace: dict[str, Any] | None = None
    key: str | None = None
    value: str | None = None
    assessment_id: str | None = None
    assessment: dict[str, Any] | None = None
    update_mask: str | None = None
    trace_ids: list[str] | None = None
    run_id: str | None = None


class Location(Message):
    """Where traces are kept."""

    type: str | None = None
    mlflow_experiment: dict[str, Any] | None = None


class SearchTraces(Message):
    """``traces/search``."""

    locations: list[Location] | None = None
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class SearchOlderTraces(Message):
    """``traces``, asked by clients of the line 2.x."""

    experiment_ids: list[str] | None = None
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class DeleteTraces(Message):
    """``traces/delete-traces``."""

    experiment_id: str | None = None
    max_timestamp_millis: int | None = None
    max_traces: int | None = None
    request_ids: list[str] | None = None


class WebhookEvent(Message):
    """What a webhook hears of."""

    entity: str | None = None
    action: str | None = None


class WebhookRef(Message):
    """A webhook, with what is to be changed."""

    webhook_id: str | None = None
    name: str | None = None
    description: str | None = None
    url: str | None = None
    events: list[WebhookEvent] | None = None
    secret: str | None = None
    status: str | None = None
    event: WebhookEvent | None = None
    max_results: int | None = None
    page_token: str | None = None


class Empty(Message):
    """A request without parameters."""


_lists: dict[type[Message], frozenset[str]] = {}
_decoders: dict[type[Message], msgspec.json.Decoder[Any]] = {}


def read_json(kind: type[M], body: bytes) -> M:
    """A request's body; what is no JSON counts as empty.

    Raises:
        MlflowError: A parameter has a value of the wrong type.
    """
    if not body:
        return kind()
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, strict=False)
    try:
        return decoder.decode(body)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_slowly(kind, body)


def _read_slowly(kind: type[M], body: bytes) -> M:
    """What msgspec does not take: bare NaN, a body encoded twice; and what is wrong, to say which parameter it is."""
    try:
        value = json.loads(body)
        if isinstance(value, str):
            value = json.loads(value)
    except (ValueError, RecursionError):
        return kind()
    return _converted(kind, value if isinstance(value, dict) else {})


def read_query(kind: type[M], query: bytes) -> M:
    """A request's parameters in its address; a repeated one is a list.

    Raises:
        MlflowError: A parameter has a value of the wrong type.
    """
    if not query:
        return kind()
    lists = _lists.get(kind)
    if lists is None:
        lists = frozenset(
            item.name for item in msgspec.structs.fields(kind) if getattr(item.type, "__args__", (0,))[0] == list[str]
        )
        _lists[kind] = lists
    try:
        found = parse_qs(query.decode(), keep_blank_values=True, max_num_fields=10_000)
    except ValueError:
        raise MlflowError(INVALID, "the address cannot be read") from None
    return _converted(kind, {name: given if name in lists else given[-1] for name, given in found.items()})


def _converted(kind: type[M], value: dict[str, Any]) -> M:
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        path = str(error).partition("`$.")[2].rstrip("`")
        name = path.partition(".")[0].partition("[")[0]
        shown = json.dumps(value.get(name), separators=(",", ":"))[:200]
        hint = f" Hint: Value was of type '{type(value.get(name)).__name__}'."
        where = path.replace("[...]", f"[{_first_wrong(kind, name, value)}]", 1) if "[...]" in path else path or name
        raise MlflowError(
            INVALID,
            f"Invalid value {shown} for parameter '{where}' supplied: {hint}"
            " See the API docs for more information about request parameters.",
        ) from None


def _first_wrong(kind: type[M], name: str, value: dict[str, Any]) -> int:
    """Index of the first item of a list that is wrong."""
    for place, item in enumerate(value.get(name) or ()):
        try:
            msgspec.convert({name: [item]}, kind, strict=False)
        except msgspec.ValidationError:
            return place
    return 0
