"""Scoring of streams: every form of a message, at least once through kills and restarts, bad ones out of the way."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mainspring.ports.plugins import resolve
from mainspring.ports.stream import Message, Stream
from mainspring.serving.log import log_files, read_frames, to_frame
from mainspring.testing.models import RECORD
from mainspring.testing.streams import collect, joined, published

ODD = {**RECORD, "month": 13}
RULES = [{"name": "month", "when": "outlying_input", "column": "month", "low": 1, "high": 12, "then": "error"}]


@pytest.fixture
def scorer(serve: Callable[..., Any], models: dict[str, str]) -> Callable[..., Any]:
    """A process that answers ``source`` to ``target``."""

    def start(source: str, target: str, *, batch: int = 20, **facts: Any) -> Any:
        plan = {"source": source, "target": target, "batch": batch}
        routes = [{"version": "flights@1", "path": models["live"]}]
        return serve(**{"routes": routes, "streams": [plan], **facts}).ready()

    return start


def questions(count: int, start: int = 0) -> list[Message]:
    """Bare records, each with an id of its sender's."""
    return [
        Message(id=f"q{number}", data=json.dumps({**RECORD, "distance": float(number)}).encode())
        for number in range(start, start + count)
    ]


def logged(server: Any) -> pl.DataFrame:
    """The prediction log of a process."""
    return to_frame(frame for path in log_files(Path(server.folder) / "log") for frame in read_frames(path)[0])


def told(url: str, count: int, group: str = "test") -> list[Message]:
    """So many messages of a subject."""

    async def work() -> list[Message]:
        stream = await joined(url, group)
        try:
            return await collect(stream, count)
        finally:
            await stream.close()

    return asyncio.run(work())


async def until_all(url: str, wanted: set[str], meanwhile: Callable[[int], None] = lambda count: None) -> list[Message]:
    """Reads a subject until every id has come; ``meanwhile`` hears how many have."""
    stream: Stream = await joined(url, "test")
    found: list[Message] = []
    deadline = time.monotonic() + 120
    while not wanted <= {item.id for item in found}:
        missing = wanted - {item.id for item in found}
        assert time.monotonic() < deadline, f"{len(missing)} of {len(wanted)} never came, such as {min(missing)}"
        try:
            some = await stream.receive(1000, 0.2)
            await stream.ack(some)
        except Exception:  # the broker is being restarted
            some = []
            await asyncio.sleep(0.1)
        found += some
        meanwhile(len({item.id for item in found}))
    await stream.close()
    return found


def check_doubles(answers: list[Message]) -> None:
    """Every answer to one question has the same prediction id."""
    ids: dict[str, set[str]] = {}
    for answer in answers:
        ids.setdefault(answer.id, set()).update(row["id"] for row in json.loads(answer.data)["predictions"])
    assert all(len(names) == 1 for names in ids.values())
    assert len({name for names in ids.values() for name in names}) == len(ids)


def test_every_form_of_a_message_is_answered(scorer: Any, tmp_path: Path) -> None:
    source, target = (tmp_path / "in").as_uri(), (tmp_path / "out").as_uri()
    event = {"specversion": "1.0", "id": "7", "source": "/gate", "type": "flight"}
    encoded = base64.b64encode(json.dumps(RECORD).encode()).decode()
    bodies: list[tuple[Any, dict[str, str]]] = [
        (RECORD, {"traceparent": "00-abc"}),
        ([RECORD, RECORD], {}),
        ({"records": [RECORD, RECORD]}, {}),
        ({"columns": {name: [value] for name, value in RECORD.items()}, "ids": ["own"]}, {}),
        ({**event, "data": RECORD}, {}),
        ({**event, "id": "8", "data": {"records": [RECORD]}}, {}),
        ({**event, "id": "9", "data_base64": encoded}, {}),
        (RECORD, {"ce-id": "10", "ce-source": "/gate"}),
    ]
    sent = [Message(id=f"m{n}", data=json.dumps(body).encode(), headers=more) for n, (body, more) in enumerate(bodies)]
    asyncio.run(published(source, sent))
    server = scorer(source, target)
    answers = told(target, len(sent))
    assert [answer.id for answer in answers] == [message.id for message in sent]
    ids = [[row["id"] for row in json.loads(answer.data).get("predictions", [])] for answer in answers]
    ids[3] = json.loads(answers[3].data)["ids"]
    wanted = [["m0"], ["m1-0", "m1-1"], ["m2-0", "m2-1"], ["own"], ["/gate/7"], ["/gate/8"], ["/gate/9"], ["/gate/10"]]
    assert ids == wanted
    assert answers[0].headers["traceparent"] == "00-abc"
    log = logged(server)
    assert set(log["id"]) == {name for names in wanted for name in names}
    assert set(log["route"]) == {"stream"}
    assert set(log["caller"]) == {"mainspring"}
    _, answer = server.ask("/predict", {"records": [RECORD]})
    assert answer["predictions"][0]["score"] == json.loads(answers[0].data)["predictions"][0]["score"]


def test_what_cannot_be_answered_is_put_aside_and_holds_nobody_up(scorer: Any, tmp_path: Path) -> None:
    source, target = (tmp_path / "in").as_uri(), (tmp_path / "out").as_uri()
    bad = [b"", b"no json", b"{", b"[1]", b'"text"', b'{"month": 7}', bytes(range(256)), json.dumps(ODD).encode()]
    bad += [b'{"records": [{"dep_delay": "soon"}]}', b'{"specversion": "1.0", "source": 1}', b" " * 2000, b"[" * 5000]
    sent = questions(30)
    for number, data in enumerate(bad):
        sent.insert(2 * number, Message(id=f"bad{number}", data=data, headers={"from": "gate"}))
    asyncio.run(published(source, sent))
    server = scorer(source, target, humility=RULES, body_limit=1500)
    assert [answer.id for answer in told(target, 30)] == [message.id for message in questions(30)]
    letters = {letter.id: letter for letter in told(f"{target}.dead", len(bad))}
    for number, data in enumerate(bad):
        letter = letters[f"bad{number}"]
        assert letter.data == data
        assert letter.headers["error"]
        assert letter.headers["hint"]
        assert letter.headers["from"] == "gate"
    assert letters["bad5"].headers["error"] == "column `dep_delay` is missing in row 0"
    assert letters["bad7"].headers["error-code"] == "row_refused"
    assert letters["bad10"].headers["error-code"] == "too_large"
    time.sleep(0.1)
    metrics = ask_text(server, "/metrics")
    assert 'mainspring_requests_total{deployment="flights",face="stream",status="200"} 30' in metrics
    assert 'mainspring_errors_total{deployment="flights",code="row_refused"} 1' in metrics
    assert "mainspring_stream_delay_seconds" in metrics


def ask_text(server: Any, path: str) -> str:
    from urllib.request import urlopen

    with urlopen(server.url + path) as answer:
        return answer.read().decode()


def test_a_release_is_taken_up_and_an_end_leaves_nothing_half_done(
    scorer: Any, redis_broker: Any, models: dict[str, str]
) -> None:
    source, target = redis_broker.url(ack_wait=30), redis_broker.url()
    server = scorer(source, target)
    asyncio.run(published(source, questions(50)))
    first = told(target, 50)
    server.configure(revision=2, routes=[{"version": "flights@2", "path": models["strict"]}])
    assert server.reload() == (200, {"revision": 2})
    asyncio.run(published(source, questions(2000, 50)))
    time.sleep(0.1)
    assert server.end() == 0  # in the middle
    again = scorer(source, target)
    answers = first + told(target, 2000)
    assert again.end() == 0
    versions = [json.loads(answer.data)["predictions"][0]["version"] for answer in answers]
    assert versions[:51] == ["flights@1"] * 50 + ["flights@2"]
    # Nothing twice: what the first one had in hand it has finished.
    assert sorted(answer.id for answer in answers) == sorted(message.id for message in questions(2050))
    log = pl.concat([logged(server), logged(again)], how="diagonal_relaxed")
    assert sorted(log["id"]) == sorted(answer.id for answer in answers)


def storm(kind: str, scorer: Any, request: pytest.FixtureRequest, tmp_path: Path, *, kills: int, count: int) -> None:
    """Kills the scorer again and again; every question is answered, and doubles can be told."""
    draw = random.Random(kills)
    if kind == "file":
        source, target = (tmp_path / "in").as_uri(), (tmp_path / "out").as_uri()
    else:
        broker = request.getfixturevalue(f"{kind}_broker")
        source, target = broker.url(), broker.url()
    asyncio.run(published(source, questions(count)))
    servers = [scorer(source, target)]
    marks = sorted(draw.sample(range(1, count - 50), kills))

    def meanwhile(answered: int) -> None:
        if marks and answered >= marks[0]:
            del marks[0]
            servers[-1].end(signal.SIGKILL)
            servers.append(scorer(source, target))

    wanted = {message.id for message in questions(count)}
    answers = asyncio.run(until_all(target, wanted, meanwhile))
    check_doubles(answers)
    servers[-1].end()
    log = pl.concat([logged(server) for server in servers], how="diagonal_relaxed")
    assert wanted <= set(log["id"])  # what was acknowledged is on record
    spread = pl.col("score").max() - pl.col("score").min()
    per_id = log.group_by("id").agg(pl.col("time").n_unique(), spread)
    assert per_id["time"].max() == 1
    assert per_id["score"].max() < 1e-6  # type: ignore[operator]  # batches of another size differ in the last bit


@pytest.mark.parametrize("kind", ["file", "nats", "redis"])
def test_killed_again_and_again(kind: str, scorer: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    storm(kind, scorer, request, tmp_path, kills=2, count=600)


@pytest.mark.storm
@pytest.mark.parametrize("kind", ["file", "nats", "redis"])
def test_storm_of_kills(kind: str, scorer: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    storm(kind, scorer, request, tmp_path, kills=30, count=20_000)


@pytest.mark.parametrize("kind", ["nats", "redis"])
def test_the_broker_is_killed_in_the_middle(kind: str, scorer: Any, own_broker: Callable[[str], Any]) -> None:
    broker = own_broker(kind)
    source, target = broker.url(), broker.url()
    asyncio.run(published(source, questions(2000)))
    server = scorer(source, target)
    waiting = [700]

    def meanwhile(answered: int) -> None:
        if waiting and answered >= waiting[0]:
            waiting.clear()
            broker.kill()
            time.sleep(0.5)
            broker.start()

    answers = asyncio.run(until_all(target, {message.id for message in questions(2000)}, meanwhile))
    check_doubles(answers)
    assert "stream:" in server.said()
    assert server.end() == 0


def test_who_falls_asleep_is_stood_in_for(scorer: Any, nats_broker: Any) -> None:
    source, target = nats_broker.url(), nats_broker.url()
    asyncio.run(published(source, questions(3000)))
    sleeper = scorer(source, target, batch=100)
    told(target, 100, "first")
    os.kill(sleeper.process.pid, signal.SIGSTOP)
    other = scorer(source, target)
    wanted = {message.id for message in questions(3000)}
    try:
        asyncio.run(until_all(target, wanted))
    finally:
        os.kill(sleeper.process.pid, signal.SIGCONT)
    assert (sleeper.end(), other.end()) == (0, 0)
    log = pl.concat([logged(sleeper), logged(other)], how="diagonal_relaxed")
    assert set(log["id"]) == wanted


def test_kafka_in_and_out(scorer: Any, kafka_broker: Any) -> None:
    source, target = kafka_broker.url(ack_wait=6), kafka_broker.url(ack_wait=6)
    asyncio.run(published(source, [*questions(300), Message(id="bad", data=b"{")]))
    server = scorer(source, target)
    answers = asyncio.run(until_all(target, {message.id for message in questions(300)}))
    check_doubles(answers)
    assert server.end() == 0


def test_a_start_without_a_broker_is_told_and_no_password_with_it(
    serve: Callable[..., Any], models: dict[str, str]
) -> None:
    plan = {"source": "redis://anna:secret@127.0.0.1:9/in", "target": "redis://anna:secret@127.0.0.1:9/out"}
    server = serve(routes=[{"version": "flights@1", "path": models["live"]}], streams=[plan])
    assert server.process.wait(30) == 5
    assert "error: redis://127.0.0.1:9/out" in server.said()
    assert "secret" not in server.said()


@pytest.mark.parametrize(
    ("change", "told"),
    [({"batch": 0}, "batch"), ({"target": "file:///in"}, "apart"), ({"dead": "file:///in"}, "apart"), ({"x": 1}, "x")],
)
def test_plans_that_cannot_be(serve: Any, models: dict[str, str], change: dict[str, Any], told: str) -> None:
    plan = {"source": "file:///in", "target": "file:///out", **change}
    server = serve(routes=[{"version": "flights@1", "path": models["live"]}], streams=[plan])
    assert server.process.wait(30) == 2
    assert told in server.said()


def test_without_the_client_the_extra_is_named() -> None:
    code = "import sys; sys.modules['nats'] = None\nimport mainspring.adapters.streams.nats"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra" in done.stderr
    assert resolve("streams", "nats://host/a")
