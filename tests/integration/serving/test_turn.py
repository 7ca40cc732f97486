from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.serving.app import App
from mainspring.serving.log import log_files, read_frames, to_frame
from mainspring.serving.message import Call, Coming, Reply
from mainspring.testing.models import write_product

INFER = "/v2/models/sum/infer"


class Door:
    """Asks an `App` many things in one turn of its event loop."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.loop = asyncio.Runner()

    def ask(self, *bodies: Any, headers: list[dict[bytes, bytes]] | None = None) -> list[tuple[int, Any]]:
        async def asked() -> list[Reply]:
            coming: list[asyncio.Future[Reply]] = []
            for place, body in enumerate(bodies):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                path = "/predict" if b'"records"' in data or b'"columns"' in data else INFER
                call = Call("POST", path, headers[place] if headers else {}, data, "127.0.0.1", "127.0.0.1")
                got, future = self.app.answer(call), asyncio.get_running_loop().create_future()
                if isinstance(got, Reply):
                    future.set_result(got)
                else:
                    assert isinstance(got, Coming)
                    got.tell = future.set_result
                coming.append(future)
            return [await future for future in coming]

        return [(reply.status, json.loads(reply.body)) for reply in self.loop.run(asked())]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("turn")
    write_product(folder / "sum")
    write_product(folder / "half", factor=0.5)
    config = {
        "name": "sum", "revision": 1, "state_dir": str(folder), "log_dir": str(folder / "log"), "durable": True,
        "routes": [
            {"version": "sum@1", "path": str(folder / "sum")},
            {"version": "sum@2", "path": str(folder / "half"), "role": "canary", "weight": 40},
        ],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    door = Door(App(folder / "config.json"))
    door.ask(row(1.0, 2.0, 3.0))  # whoever asks goes on asking in the same form
    yield door
    door.loop.close()
    door.app.close()


def row(*numbers: Any, name: str = "input", **facts: Any) -> dict[str, Any]:
    shape = [1, len(numbers)]
    return {"inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": list(numbers)}], **facts}


def by_column(*numbers: float) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": f"c{place}", "shape": [1], "datatype": "FP32", "data": [value]}
            for place, value in enumerate(numbers)
        ]
    }


def record(*numbers: Any, **facts: Any) -> dict[str, Any]:
    return {"records": [{f"c{place}": value for place, value in enumerate(numbers)}], **facts}


def outputs(told: Any) -> dict[str, Any]:
    if "predictions" in told:
        return {name: [row[name] for row in told["predictions"]] for name in ("score", "version", "id")}
    assert told.get("model_version") == told["outputs"][1]["data"][0]
    return {output["name"]: output["data"] for output in told["outputs"]}


NUMBERS = st.tuples(*[st.integers(-1000, 1000).map(lambda number: number / 8)] * 3)
ASKED = st.one_of(
    NUMBERS.map(lambda numbers: (200, row(*numbers), sum(numbers))),
    NUMBERS.map(lambda numbers: (200, by_column(*numbers), sum(numbers))),
    NUMBERS.map(lambda numbers: (200, row(*numbers, id="mine"), sum(numbers))),
    NUMBERS.map(lambda numbers: (200, record(*numbers), sum(numbers))),
    NUMBERS.map(lambda numbers: (200, record(*numbers), sum(numbers))),
    NUMBERS.map(lambda numbers: (200, record(*numbers, ids=["mine"]), sum(numbers))),
    NUMBERS.map(lambda numbers: (200, record(*numbers, time="2026-01-05T09:00:00Z"), sum(numbers))),
    st.just((422, record(1.0, 2.0), None)),
    st.just((422, record(1.0, 2.0, "x"), None)),
    st.just((400, b'{"records":', None)),
    st.just((400, b"{", None)),
    st.just((400, row(1.0, 2.0), None)),
    st.just((400, row(1e39, 2.0, 3.0), None)),
    st.just((400, row("x", 2.0, 3.0), None)),
    st.just((400, row(1.0, 2.0, 3.0, outputs=[{"name": "nobody"}]), None)),
)


@given(asked=st.lists(ASKED, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_request_of_a_turn_gets_its_own_answer(door: Door, asked: list[tuple[int, Any, float | None]]) -> None:
    told = door.ask(*(body for _, body, _ in asked))
    for (status, _, total), (found, answer) in zip(asked, told, strict=True):
        assert found == status, answer
        if total is not None:
            values = outputs(answer)
            factor = {"sum@1": 1.0, "sum@2": 0.5}[values["version"][0]]
            assert values["score"] == [pytest.approx(total * factor, rel=1e-6, abs=1e-6)]


@pytest.mark.parametrize("way", ["infer", "predict"])
def test_a_turn_is_answered_and_logged_as_its_requests_were(door: Door, way: str) -> None:
    door.ask(row(0.0, 0.0, 0.0))
    before = door.app.metrics.requests[way, 200]
    sent = [(float(place), 0.1, -1.5) for place in range(40)]
    headers = [{b"x-request-id": f"r{place}".encode()} if place % 2 else {} for place in range(40)]
    form = row if way == "infer" else record
    told = [outputs(answer) for status, answer in door.ask(*(form(*one) for one in sent), headers=headers)]
    assert {one["version"][0] for one in told} == {"sum@1", "sum@2"}
    assert len({one["id"][0] for one in told}) == 40
    assert door.app.metrics.requests[way, 200] == before + 40

    folder = Path(door.app.config.log_dir)
    logged = to_frame(frame for path in log_files(folder) for frame in read_frames(path)[0])
    rows = {line["id"]: line for line in logged.iter_rows(named=True)}
    for place, (one, numbers) in enumerate(zip(told, sent, strict=True)):
        line = rows[one["id"][0]]
        assert (line["version"], line["score"]) == (one["version"][0], one["score"][0])
        assert [line["in_c0"], line["in_c1"], line["in_c2"]] == list(numbers)
        assert line["request"] == (f"r{place}" if place % 2 else "")
        assert (line["route"], line["weight"]) == (way, 1.0)
        assert line["latency_us"] >= 0


def test_a_revision_that_comes_into_force_does_not_change_what_was_asked_before(door: Door) -> None:
    async def asked() -> tuple[Reply, int]:
        future = asyncio.get_running_loop().create_future()
        got = door.app.answer(Call("POST", INFER, {}, json.dumps(row(1.0, 1.0, 1.0)).encode(), "", ""))
        assert isinstance(got, Coming)
        got.tell = future.set_result
        return await asyncio.gather(future, door.app.reload())  # type: ignore[return-value]

    reply, revision = door.loop.run(asked())
    assert (reply.status, revision) == (200, 1)


def test_a_shadow_sees_what_a_turn_brought(tmp_path: Path) -> None:
    write_product(tmp_path / "sum")
    write_product(tmp_path / "half", factor=0.5)
    config = {
        "name": "sum", "revision": 1, "state_dir": str(tmp_path), "log_dir": str(tmp_path / "log"), "durable": True,
        "tokens": {"ann": "a", "bob": "b"},
        "routes": [
            {"version": "sum@1", "path": str(tmp_path / "sum")},
            {"version": "sum@2", "path": str(tmp_path / "half"), "role": "shadow", "weight": 50},
        ],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    door = Door(App(tmp_path / "config.json"))
    headers = [{b"authorization": b"Bearer a" if place % 2 else b"Bearer b"} for place in range(30)]
    door.ask(row(1.0, 2.0, 3.0), headers=headers)
    told = door.ask(*(row(float(place), 1.0, 1.0) for place in range(30)), headers=headers)
    assert [status for status, _ in told] == [200] * 30
    door.loop.run(asyncio.sleep(0))
    door.loop.close()
    door.app.close()
    logged = to_frame(frame for path in log_files(tmp_path / "log") for frame in read_frames(path)[0])
    live = {line["id"]: line for line in logged.iter_rows(named=True) if line["role"] == "live"}
    seen = [line for line in logged.iter_rows(named=True) if line["role"] == "shadow"]
    assert len(live) == 31
    assert 3 < len(seen) < 28
    for line in seen:
        asked = live[line["id"]]
        assert (line["score"], line["caller"]) == (asked["score"] / 2, asked["caller"])


def test_a_model_that_fails_on_one_row_answers_the_others(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    model = next(iter(door.app.host.ready("sum")[0].models.values()))  # type: ignore[index,union-attr]
    whole, single = model.score_packed, []

    def score(values: Any) -> list[float]:
        if len(values) > 1 or values[0][0] == 7:
            raise RuntimeError("seven")
        single.append(values)
        return whole(values)

    monkeypatch.setattr(model, "score_packed", score)
    told = door.ask(*(row(float(place), 0.0, 0.0, id=f"low{place}") for place in range(12)))
    failed = [place for place, (status, _) in enumerate(told) if status != 200]
    assert failed in ([], [7])  # the canary's rows are answered by another model
    told = door.ask(*(row(7.0 if place == 5 else 1.0, 0.0, 0.0) for place in range(20)))
    assert [status for status, _ in told].count(200) >= 19
    assert single


def test_a_connection_that_fails_keeps_nobody_waiting(door: Door) -> None:
    async def asked() -> list[Reply]:
        coming = []
        for place in range(6):
            got = door.app.answer(Call("POST", INFER, {}, json.dumps(row(1.0, 1.0, 1.0)).encode(), "", ""))
            assert isinstance(got, Coming)
            future = asyncio.get_running_loop().create_future()
            got.tell = future.set_result if place % 2 else lambda reply: 1 // 0
            coming.append(future)
        return await asyncio.gather(*coming[1::2])

    door.ask(row(1.0, 1.0, 1.0))
    assert [reply.status for reply in door.loop.run(asked())] == [200] * 3
