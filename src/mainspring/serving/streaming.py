"""Scores the messages of a stream and publishes the answers: at least once each, always under the same prediction ids.

A message is acknowledged when its prediction is in the log and the broker has confirmed its answer. Whatever ends this
process before that, the message comes again, and is answered with the id it had; so whoever reads the answers, and the
join with outcomes, can tell doubles. What cannot be answered goes to the dead letters and holds nobody up.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
import time
import traceback
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mainspring.errors import InvalidInput, MainspringError, Unreachable
from mainspring.ports.plugins import resolve
from mainspring.ports.stream import Message, Stream, shown
from mainspring.ports.target import StreamPlan
from mainspring.serving.app import App
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import STREAM, Call, Reply, too_large
from mainspring.serving.records import told
from mainspring.serving.request import Batch
from mainspring.serving.scoring import then

_POLL_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_MOST_DELIVERIES = 25
_LONGEST_ID = 180
_LONGEST_HEADER = 1000
_PASSED_ON = ("traceparent", "tracestate", "correlation-id")
"""Headers of a message that its answer has, too."""


class _Envelope(msgspec.Struct, gc=False):
    """What tells a body's form: CloudEvents in structured mode, a request as for ``/predict``, or a bare record."""

    specversion: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    source: Raw | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    data_base64: Raw | UnsetType = UNSET
    records: Raw | UnsetType = UNSET
    columns: Raw | UnsetType = UNSET


class Question(NamedTuple):
    """What a message asks.

    Attributes:
        id: What its prediction ids are made of: the same at each delivery.
        body: A request as for ``/predict``.
    """

    id: str
    body: bytes


_decoder = msgspec.json.Decoder(_Envelope)


def read_question(message: Message) -> Question:
    """What a message asks, whichever form it has.

    Raises:
        InvalidInput: A CloudEvent has no data or no id.
    """
    headers = message.headers
    known = headers.get("ce-id") or headers.get("ce_id")  # CloudEvents in binary mode: the body is the data
    source = headers.get("ce-source") or headers.get("ce_source") or ""
    name = f"{source}/{known}" if known else message.id
    envelope = _envelope(message.data)
    if envelope is not None and envelope.specversion is not UNSET and envelope.source is not UNSET:
        name = f"{_text(envelope.source)}/{_text(envelope.id)}"
        body = _data(envelope)
        return Question(name, _request(body, _envelope(body)))
    return Question(name, _request(message.data, envelope))


def _envelope(body: bytes) -> _Envelope | None:
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError):
        return None  # not an object: whoever reads the request says what is wrong


def _data(event: _Envelope) -> bytes:
    if event.data is not UNSET:
        return bytes(event.data)
    try:
        return base64.b64decode(_text(event.data_base64), validate=True)
    except ValueError:
        raise InvalidInput("the CloudEvent's data cannot be read", hint="send `data`, or `data_base64`") from None


def _text(value: Raw | UnsetType) -> str:
    try:
        return msgspec.json.decode(b"" if value is UNSET else value, type=str)
    except ValueError:
        raise InvalidInput("the CloudEvent has no id, source or data", hint="send them as texts") from None


def _request(body: bytes, envelope: _Envelope | None) -> bytes:
    if envelope is not None and envelope.records is UNSET and envelope.columns is UNSET:
        return b'{"records":[%b]}' % body
    return b'{"records":%b}' % body if envelope is None and body.lstrip()[:1] == b"[" else body


def named(batch: Batch, id: str, time: int) -> Batch:
    """The rows with what makes them the same at each delivery, where the sender did not say it: ids and times.

    Args:
        batch: The rows.
        id: See `Question.id`.
        time: When the broker took the message, microseconds since 1970; 0 where that is not known.
    """
    if batch.ids is None:
        base = id if 0 < len(id) <= _LONGEST_ID else hashlib.blake2b(id.encode(), digest_size=16).hexdigest()
        ids = [base] if batch.rows == 1 else [f"{base}-{row}" for row in range(batch.rows)]
        batch = batch._replace(ids=ids)
    return batch._replace(times=[time] * batch.rows) if batch.times is None and time else batch


class StreamScorer:
    """Reads messages, scores them as the server of this process would, publishes answers.

    Args:
        app: The models, the log and the counters of this process.
        plan: What is read and where answers go.

    Raises:
        InvalidInput: An address cannot be used.
    """

    def __init__(self, app: App, plan: StreamPlan) -> None:
        self._app = app
        self._plan = plan
        self._source: Stream = resolve("streams", plan.source)
        self._target: Stream = resolve("streams", plan.target)
        self._dead: Stream = resolve("streams", plan.dead_letters)
        self._ending = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._trouble = ""

    async def start(self) -> None:
        """Connects, and begins.

        Raises:
            Unreachable: A broker does not answer.
        """
        try:
            for stream in (self._target, self._dead, self._source):
                await stream.connect()
            await self._source.subscribe(self._plan.group)
        except MainspringError:
            await self._close()
            raise
        sys.stderr.write(f"{self._app.config.name} answers {shown(self._plan.source)} to {shown(self._plan.target)}\n")
        self._work = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, seconds: float) -> None:
        """Finishes what is in hand, within so many seconds, and leaves."""
        self._ending.set()
        if self._work:
            await asyncio.wait([self._work], timeout=seconds)
            self._work.cancel()
            await asyncio.wait([self._work])
        await self._close()

    async def _close(self) -> None:
        for stream in (self._source, self._target, self._dead):
            await stream.close()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ending.is_set():
            held: list[Message] = []
            try:
                held = await self._source.receive(self._plan.batch, _POLL_SECONDS)
                if held:
                    await self._settle(held)
                pause, self._trouble = _FIRST_PAUSE, ""
            except Exception as error:  # noqa: BLE001 - the stream goes on when the trouble is over
                self._tell(error)
                await self._give_back(held)
                await self._rest(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _settle(self, held: Sequence[Message]) -> None:
        """Answers messages: scores, log, answers, acknowledgement, in this order."""
        replies = await self._replies(held)
        self._app.flush()
        pairs = list(zip(held, replies, strict=True))
        answers = [_answer(message, reply) for message, reply in pairs if isinstance(reply, Reply)]
        dead = [_dead_letter(message, reply) for message, reply in pairs if isinstance(reply, MainspringError)]
        dead += await self._published(self._target, answers, {message.id: message for message in held})
        if dead:
            await self._published(self._dead, dead, {})
        await self._source.ack(held)
        for reply in replies:
            self._app.count(STREAM, reply.status, reply.code if isinstance(reply, MainspringError) else "")
            if isinstance(reply, Reply) and reply.after:
                reply.after()
        if held[-1].time:
            self._app.metrics.delay = max(0.0, time.time() - held[-1].time / 1e6)

    async def _replies(self, held: Sequence[Message]) -> list[Reply | MainspringError]:
        """The answer to each, or why there is none.

        Raises:
            MainspringError: It is not the message's fault.
        """
        found: list[Any] = [self._caught(message) for message in held]
        coming = {place: item for place, item in enumerate(found) if isinstance(item, Awaitable)}
        for place, reply in zip(coming, await asyncio.gather(*coming.values(), return_exceptions=True), strict=True):
            found[place] = reply
        for place, reply in enumerate(found):
            if isinstance(reply, MainspringError) and reply.status >= 500:
                raise reply
            if isinstance(reply, Exception) and not isinstance(reply, MainspringError):
                traceback.print_exception(reply, file=sys.stderr)
                found[place] = InvalidInput(f"the model failed: {reply}", hint="the scorer's log tells where")
        return found

    def _caught(self, message: Message) -> Reply | Awaitable[Reply] | Exception:
        try:
            return self._ask(message)
        except Exception as error:  # noqa: BLE001 - one bad message must not end the others
            return error

    def _ask(self, message: Message) -> Reply | Awaitable[Reply]:
        config, start = self._app.config, time.perf_counter()
        if len(message.data) > config.body_limit:
            raise too_large(config.body_limit)
        if message.deliveries > _MOST_DELIVERIES:
            raise InvalidInput(
                f"handed out {message.deliveries} times and never answered",
                hint="does the process die of it? send it again to try",
            )
        ready = self._app.host.ready(config.name)
        if ready is None or not isinstance(ready[0], Lineup):
            raise Unreachable(f"{config.name} is not loaded", hint="its log tells why")
        lineup = ready[0]
        id, body = read_question(message)
        batch = named(lineup.form.read(body), id, message.time)
        headers = {name.encode(): value.encode() for name, value in message.headers.items()}
        call = Call("POST", STREAM, {**headers, b"x-request-id": message.id.encode()}, body, caller=self._plan.group)
        got = self._app.scoring.score(config.name, lineup, "", batch, start, call)
        return then(got, lambda scored: told(batch, *scored))

    async def _published(self, stream: Stream, messages: Sequence[Message], asked: dict[str, Message]) -> list[Message]:
        """Publishes until it is done; what the broker refuses for good comes back as dead letters.

        Raises:
            Unreachable: It was not to be done before the end.
        """
        pause = _FIRST_PAUSE
        while messages:
            try:
                await stream.publish(messages)
            except InvalidInput as error:
                if len(messages) > 1:
                    parts = [await self._published(stream, [message], asked) for message in messages]
                    return [letter for part in parts for letter in part]
                if (message := asked.get(messages[0].id)) is not None:
                    return [_dead_letter(message, error)]
                if not messages[0].data:
                    raise
                messages = [msgspec.structs.replace(messages[0], data=b"")]  # the letter at least says which, and why
                continue
            except Unreachable as error:
                self._tell(error)
                if self._ending.is_set():
                    raise
                await self._rest(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            break
        return []

    async def _give_back(self, held: Sequence[Message]) -> None:
        try:
            await self._source.nak(held)
        except MainspringError as error:
            self._tell(error)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return

    def _tell(self, error: Exception) -> None:
        """Says once what is wrong, until it is over."""
        if isinstance(error, MainspringError):
            self._app.metrics.errors[error.code] += 1
            if error.message != self._trouble:
                sys.stderr.write(f"stream: {error.message} ({error.hint})\n")
            self._trouble = error.message
        else:
            self._app.metrics.errors["error"] += 1
            traceback.print_exception(error, file=sys.stderr)


def _answer(message: Message, reply: Reply) -> Message:
    passed = {name: message.headers[name] for name in _PASSED_ON if name in message.headers}
    return Message(id=message.id, data=reply.body, headers={"content-type": "application/json", **passed})


def _dead_letter(message: Message, error: MainspringError) -> Message:
    """The message as it came, and in its headers why there is no answer."""
    told = {
        "error-code": error.code,
        "error": error.message,
        "hint": error.hint,
        "input": f"{message.subject} {message.sequence}",
    }
    headers = message.headers | {name: _line(text) for name, text in told.items()}
    return Message(id=message.id, data=message.data, headers=headers)


def _line(text: str) -> str:
    """A text that may stand in a header of any broker."""
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()[:_LONGEST_HEADER]
