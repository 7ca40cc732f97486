"""The Open Inference Protocol over gRPC, in the event loop of the server."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np

from mainspring.errors import InvalidInput, MainspringError, MissingExtra, Unreachable
from mainspring.serving.codecs import decoded
from mainspring.serving.inference import Inference, Inferred, refuse_extras
from mainspring.serving.message import GRPC, Call
from mainspring.serving.scoring import Scoring
from mainspring.serving.tensors import DATATYPES, Tensor, datatype, from_bytes, from_values, to_bytes, to_json

try:
    import grpc

    from mainspring.serving.grpc_messages import MESSAGES, PACKAGE, SERVICE
except ModuleNotFoundError:
    raise MissingExtra.named("the gRPC face", "grpc") from None

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
}
_ADDRESSES = {
    "ModelInfer": GRPC,
    "ServerLive": "/v2/health/live",
    "ServerReady": "/v2/health/ready",
    "RepositoryModelLoad": "/v2/repository/models/load",
    "RepositoryModelUnload": "/v2/repository/models/unload",
}
"""Method -> the address over HTTP that asks for the same rights; others ask for those of `/v2`."""

Admit = Callable[[Call], None]
Count = Callable[[str, int, str], None]


class GrpcFace:
    """The service.

    Args:
        scoring: What answers.
        admit: Raises when a call may not be made, else notes the caller's name in it.
        draining: Whether the process is about to end.
        count: Told of each call: ``grpc``, the HTTP status that it would have had, and the code of the error, if any.
    """

    def __init__(self, scoring: Scoring, admit: Admit, draining: Callable[[], bool], count: Count) -> None:
        self._scoring = scoring
        self._admit = admit
        self._draining = draining
        self._count = count
        self._server: Any = None

    async def start(self, host: str, port: int, limit: int, tls: tuple[bytes, bytes] | None = None) -> int:
        """Begins to listen.

        Args:
            host: The address.
            port: The port, 0 for any free one.
            limit: The largest request, bytes.
            tls: Key and certificate chain (PEM), or None for no TLS.

        Returns:
            The port.

        Raises:
            InvalidInput: It cannot listen there.
        """
        options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", -1)]
        self._server = grpc.aio.server(options=options)
        handlers = {name: self._handler(name, work) for name, work in self._methods().items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", handlers),))
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls:
                bound = self._server.add_secure_port(place, grpc.ssl_server_credentials([tls]))
            else:
                bound = self._server.add_insecure_port(place)
        except RuntimeError as error:
            raise InvalidInput(f"cannot listen on {place} for gRPC: {error}", hint="set another `grpc_port`") from None
        await self._server.start()
        return int(bound)

    async def stop(self, seconds: float) -> None:
        """Takes no new call, and ends those in progress after a while."""
        if self._server is not None:
            await self._server.stop(seconds)

    def _methods(self) -> dict[str, Callable[[Any, Call], Awaitable[Any]]]:
        return {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    def _handler(self, name: str, work: Callable[[Any, Call], Awaitable[Any]]) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            status, code = 200, ""
            try:
                call = _call(name, context)
                self._admit(call)
                return await work(request, call)
            except MainspringError as error:
                status, code, told = error.status, error.code, f"{error.message} (hint: {error.hint})"
            except Exception:  # noqa: BLE001 - one bad request must not end the process
                traceback.print_exc(file=sys.stderr)
                status, code, told = 500, "error", "the server failed (hint: its log tells where)"
            finally:
                self._count("grpc", status, code)
            return await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), told)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=MESSAGES[f"{name}Request"].FromString,
            response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
        )

    async def _live(self, request: Any, call: Call) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _ready(self, request: Any, call: Call) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=not self._draining())

    async def _model_ready(self, request: Any, call: Call) -> Any:
        ready = not self._draining() and self._scoring.host.answers(request.name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=ready)

    async def _server_metadata(self, request: Any, call: Call) -> Any:
        return MESSAGES["ServerMetadataResponse"](**self._scoring.server())

    async def _model_metadata(self, request: Any, call: Call) -> Any:
        return MESSAGES["ModelMetadataResponse"](**await self._scoring.metadata(request.name, request.version))

    async def _infer(self, request: Any, call: Call) -> Any:
        raw = bool(request.raw_input_contents)
        got = self._scoring.infer(request.model_name, request.model_version, _asked(request), call)
        answer, after = got if isinstance(got, tuple) else await got
        told = _told(answer, raw=raw)
        if after:
            asyncio.get_running_loop().call_soon(after)
        return told

    async def _index(self, request: Any, call: Call) -> Any:
        entries = [
            MESSAGES["ModelIndex"](name=one.name, version=one.version, state=one.state, reason=one.reason)
            for one in self._scoring.host.index()
            if not request.ready or one.state == "READY"
        ]
        return MESSAGES["RepositoryIndexResponse"](models=entries)

    async def _load(self, request: Any, call: Call) -> Any:
        try:
            await self._scoring.host.load(request.model_name)
        except InvalidInput as error:
            raise Unreachable(error.message, hint=error.hint) from None  # the repository's fault, not the request's
        return MESSAGES["RepositoryModelLoadResponse"]()

    async def _unload(self, request: Any, call: Call) -> Any:
        self._scoring.host.unload(request.model_name)
        return MESSAGES["RepositoryModelUnloadResponse"]()


def _call(name: str, context: Any) -> Call:
    """The call as the guard knows it."""
    headers = {
        str(key).encode(): value.encode() if isinstance(value, str) else value
        for key, value in context.invocation_metadata() or ()
    }
    # As gRPC writes it: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`.
    peer = unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
    return Call("POST", _ADDRESSES.get(name, "/v2"), headers, b"", peer)


def _asked(request: Any) -> Inference:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            f"there are {len(raw)} raw contents for {len(request.inputs)} inputs", hint="send one per input, in order"
        )
    inputs = [_tensor(item, raw[place] if raw else None) for place, item in enumerate(request.inputs)]
    for place, item in enumerate(request.inputs):
        if "content_type" in item.parameters:
            told = item.parameters["content_type"].string_param
            inputs[place] = inputs[place]._replace(values=decoded(item.name, inputs[place].values, told))
    outputs = []
    for item in request.outputs:
        refuse_extras(item.name, item.parameters)
        outputs.append((item.name, True))
    if len(request.id) > 200:
        raise InvalidInput("an id is a text of at most 200 characters", hint="send a shorter one")
    return Inference(inputs, request.id, outputs, True, request.parameters["explain"].bool_param)


def _tensor(item: Any, raw: bytes | None) -> Tensor:
    kind = datatype(item.datatype, item.name)
    refuse_extras(item.name, item.parameters)
    shape = list(item.shape)
    filled = [field.name for field, _ in item.contents.ListFields()]
    if raw is not None:
        if filled:
            raise InvalidInput(f"tensor `{item.name}` has contents beside the raw ones", hint="send one of them")
        return Tensor(item.name, item.datatype, from_bytes(item.name, kind, shape, raw))
    if not kind.contents:
        raise InvalidInput(f"tensor `{item.name}`: {kind.name} travels as raw contents", hint="send raw_input_contents")
    if filled not in ([], [kind.contents]):
        raise InvalidInput(
            f"tensor `{item.name}` of {kind.name} has {', '.join(filled)}", hint=f"send its values as {kind.contents}"
        )
    return Tensor(item.name, item.datatype, from_values(item.name, kind, shape, getattr(item.contents, kind.contents)))


def _told(answer: Inferred, *, raw: bool) -> Any:
    """The response, raw if the request was, or if a tensor can be nothing else."""
    arrays = [item.array() for item in answer.outputs]
    raw = raw or any(not DATATYPES[item.datatype].contents for item in answer.outputs)
    response = MESSAGES["ModelInferResponse"](model_name=answer.model, model_version=answer.version, id=answer.id)
    for name, value in (answer.parameters or {}).items():
        response.parameters[name].string_param = value
    for item, values in zip(answer.outputs, arrays, strict=True):
        tensor = response.outputs.add(name=item.name, datatype=item.datatype, shape=item.shape)
        if raw:
            response.raw_output_contents.append(to_bytes(values))
        else:
            field = getattr(tensor.contents, DATATYPES[item.datatype].contents)
            field.extend(_plain(values))
    return response


def _plain(values: np.ndarray[Any, Any]) -> Sequence[Any]:
    return [value.encode() for value in to_json(values)] if values.dtype == object else to_json(values)
