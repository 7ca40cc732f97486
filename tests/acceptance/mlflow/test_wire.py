"""The protocol as it stands on the wire: what no well-behaved client sends, and what an attacker does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest

from .conftest import Server

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


def create(server: Server) -> str:
    return str(server.call("runs/create", experiment_id="0").json["run"]["info"]["run_id"])


def test_numbers_may_come_as_text_and_nan_in_three_ways(server: Server) -> None:
    run = create(server)
    assert server.call("runs/log-metric", run_id=run, key="a", value="1.5", timestamp="123", step="4").body == b"{}"
    raw = f'{{"run_uuid": "{run}", "key": "n", "value": NaN, "timestamp": 1}}'.encode()
    assert server.ask("POST", "/api/2.0/mlflow/runs/log-metric", raw).status == 200
    assert server.call("runs/log-metric", run_id=run, key="i", value="Infinity", timestamp=1).status == 200
    told = server.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run}").json["run"]
    metrics = {item["key"]: item for item in told["data"]["metrics"]}
    assert metrics["a"] == {"key": "a", "value": 1.5, "timestamp": 123, "step": 4}
    assert (metrics["n"]["value"], metrics["i"]["value"]) == ("NaN", 1.7976931348623157e308)
    assert told["info"]["run_id"] == told["info"]["run_uuid"] == run
    assert told["info"]["experiment_id"] == "0"
    assert "end_time" not in told["info"]
    assert "params" not in told["data"]


@pytest.mark.parametrize(
    ("path", "fields", "match"),
    [
        ("runs/log-metric", {"key": "a", "value": 1, "timestamp": 1}, "Missing value for required parameter 'run_id'."),
        ("runs/log-metric", {"run_id": "R", "value": 1, "timestamp": 1}, "Missing value for required parameter 'key'."),
        (
            "runs/log-metric",
            {"run_id": "R", "key": "a", "timestamp": 1},
            "Missing value for required parameter 'value'.",
        ),
        (
            "runs/log-metric",
            {"run_id": "R", "key": "a", "value": "x", "timestamp": 1},
            "Invalid value \"x\" for parameter 'value'",
        ),
        ("runs/log-metric", {"run_id": 7, "key": "a"}, "Invalid value 7 for parameter 'run_id' supplied"),
        (
            "runs/log-metric",
            {"run_id": "R", "key": "../a", "value": 1, "timestamp": 1},
            "Invalid value \"../a\" for parameter 'name'",
        ),
        (
            "runs/log-metric",
            {"run_id": "R", "key": "a", "value": 1, "timestamp": -1},
            "for parameter 'timestamp' supplied",
        ),
        (
            "runs/log-metric",
            {"run_id": "R", "key": "k" * 251, "value": 1, "timestamp": 1},
            "'name' exceeds the maximum length of 250",
        ),
        (
            "runs/log-batch",
            {"run_id": "R", "metrics": [{"key": "*", "value": 1, "timestamp": 1}]},
            "'metrics[0].name' supplied",
        ),
        (
            "runs/log-batch",
            {"run_id": "R", "params": [{"value": "1"}]},
            "Missing value for required parameter 'params[0].key'",
        ),
        ("experiments/create", {}, "Missing value for required parameter 'name'."),
        ("experiments/search", {}, "Missing value for required parameter 'max_results'."),
        ("experiments/create", {"name": "x", "artifact_location": "s3://b/../c"}, "artifact_location"),
    ],
)
def test_what_is_missing_or_wrong_is_named(server: Server, path: str, fields: dict[str, object], match: str) -> None:
    if fields.get("run_id") == "R":
        fields = {**fields, "run_id": create(server)}
    answer = server.call(path, **fields)
    assert answer.status == 400
    assert answer.json["error_code"] == "INVALID_PARAMETER_VALUE"
    assert match in answer.json["message"]


def test_a_batch_has_limits(server: Server) -> None:
    run = create(server)
    points = [{"key": f"m{n}", "value": n, "timestamp": 1} for n in range(1001)]
    for fields, what in (
        ({"metrics": points}, "at most 1000 metrics. Got 1001 metrics."),
        (
            {"metrics": points[:950], "tags": [{"key": f"t{n}", "value": ""} for n in range(60)]},
            "1000 metrics, params, and tags",
        ),
        ({"params": [{"key": f"p{n}", "value": ""} for n in range(101)]}, "at most 100 params"),
    ):
        answer = server.call("runs/log-batch", run_id=run, **fields)
        assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert what in answer.json["message"]


def test_bodies_that_are_none(server: Server) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"run_id": ' * 5000):
        answer = server.ask("POST", "/api/2.0/mlflow/runs/log-metric", body)
        assert answer.status == 400, body[:20]
        assert "Missing value for required parameter 'run_id'" in answer.json["message"]
    assert server.ask("POST", "/api/2.0/mlflow/runs/create", b"{}", content_type="text/plain").status == 400
    assert server.ask("POST", "/api/2.0/mlflow/runs/create", b" " * (17 * 1024 * 1024)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/2.0/mlflow/registered-models/create", 400),
        ("GET", "/api/3.0/mlflow/traces/abc", 404),
        ("POST", "/api/2.0/mlflow/webhooks", 400),
        ("POST", "/graphql", 501),
        ("GET", "/v1/traces", 405),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", 400),
        ("GET", "/ajax-api/2.0/mlflow/upload-artifact", 405),
        ("POST", "/ajax-api/2.0/mlflow/runs/create-promptlab-run", 501),
        ("POST", "/api/2.0/mlflow-artifacts/mpu/create/0/x", 400),
        ("GET", "/api/2.0/mlflow-artifacts/mpu/create/0/x", 405),
        ("POST", "/api/2.0/mlflow-artifacts/mpu/abort/0/x", 400),
        ("PUT", "/api/2.0/mlflow-artifacts/mpu/part/../../x", 404),
        ("GET", "/api/2.0/mlflow-artifacts/presigned/0/x", 404),
        ("GET", "//model-versions/get-artifact?name=m&version=1&path=../path", 400),
        ("GET", "/api/2.0/mlflow/nothing", 404),
        ("GET", "/api/2.0/mlflow/runs/create", 405),
        ("GET", "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", 200),
        ("GET", "/api/3.0/mlflow/server-info", 200),
        ("GET", "/version", 200),
        ("GET", "/health", 200),
        ("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0x1", 400),
        ("GET", "/get-artifact?path=/etc/passwd", 400),
        ("GET", "/api/2.0/mlflow/runs/get?run_id=%27", 404),
        ("GET", "/api/2.0/mlflow/runs/get?run_id=%ff", 404),
    ],
)
def test_addresses(server: Server, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path, b"{}" if method == "POST" else None)
    assert answer.status == status, answer.body
    if status >= 400:
        assert set(answer.json) == {"error_code", "message"}


CLIMBS = [
    "../x",
    "a/../../x",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "%252e%252e%252fx",
    "%25252e%25252e/x",
    "..%5cx",
    "%5c..%5cx",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "a//b",
    "./a",
    "C:/x",
    "C%3a%5cx",
    "a%00b",
    "a%0ab",
    "a%23b",
    "file:%2f%2f%2fetc%2fpasswd",
    "..",
    "%2e%2e",
    "a/%2e%2e/%2e%2e/x",
    "%c0%ae%c0%ae/x",
    "%ff",
]


@pytest.mark.parametrize("climb", CLIMBS)
def test_no_path_leads_out(server: Server, climb: str) -> None:
    run = create(server)
    for root in (f"{ARTIFACTS}/0/{run}/artifacts", ARTIFACTS):
        for method in ("PUT", "GET", "DELETE"):
            answer = server.ask(method, f"{root}/{climb}", b"x" if method == "PUT" else None)
            assert answer.status in (400, 404), (method, climb, answer)
            assert b"root:" not in answer.body
    for name in ("path", "path=a&path"):
        assert server.ask("GET", f"{ARTIFACTS}?{name}={quote(climb)}").status in (200, 400)
        listed = server.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run}&{name}={climb}")
        assert listed.status in (200, 400)
        assert "files" not in listed.json


def test_artifacts_over_the_wire(server: Server) -> None:
    run = create(server)
    place = f"{ARTIFACTS}/0/{run}/artifacts"
    page = b"<script>alert(1)</script>"
    assert server.ask("PUT", f"{place}/page.html", page).status == 200
    found = server.ask("GET", f"{place}/page.html")
    assert (found.status, found.body) == (200, page)
    headers = {name.lower(): value for name, value in found.headers.items()}
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert "html" not in headers["content-type"]
    assert server.ask("GET", f"{ARTIFACTS}?path=0/{run}/artifacts").json == {
        "files": [{"path": "page.html", "is_dir": False, "file_size": len(page)}]
    }
    assert server.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run}").json["root_uri"].endswith("/artifacts")
    assert server.ask("DELETE", f"{place}/page.html").status == 200
    assert server.ask("GET", f"{place}/page.html").json["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert server.ask("DELETE", f"{place}/page.html").status == 404


def test_other_web_pages_cannot_reach_the_server(server: Server) -> None:
    assert server.ask("POST", "/api/2.0/mlflow/runs/create", {}, origin="https://evil.example").status == 403
    assert server.ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", host="evil.example").status == 403
    assert server.ask("PUT", f"{ARTIFACTS}/x", b"x", origin="null").status == 403


def test_sampled_histories_keep_extremes(server: Server) -> None:
    run = create(server)
    values = [float(step % 10) for step in range(1000)]
    values[337], values[761] = 99.0, -99.0
    points = [{"key": "m", "value": value, "timestamp": step, "step": step} for step, value in enumerate(values)]
    server.call("runs/log-batch", run_id=run, metrics=points)
    path = f"/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?run_ids={run}&metric_key=m&max_results=20"
    found = server.ask("GET", path).json["metrics"]
    assert 20 <= len(found) <= 24
    assert {found[0]["step"], found[-1]["step"]} == {0, 999}
    assert {99.0, -99.0} <= {item["value"] for item in found}
    part = server.ask("GET", path + "&start_step=10&end_step=12").json["metrics"]
    assert [item["step"] for item in part] == [10, 11, 12]
    bulk = server.ask("GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id={run}&metric_key=m").json
    assert len(bulk["metrics"]) == 1000


def kept(server: Server, run: str) -> tuple[set[str], set[tuple[int, int]]]:
    """The parameters of a run, and writer and step of its points."""
    data = server.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run}").json["run"]["data"]
    steps = {
        (writer, item["step"])
        for writer in range(6)
        for item in server.ask(
            "GET", f"/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=w{writer}"
        ).json.get("metrics", [])
    }
    return {item["key"] for item in data["params"]}, steps


def test_what_was_answered_survives_a_kill(lone_server: Callable[[], Server]) -> None:
    server = lone_server()
    run = create(server)
    acknowledged: list[tuple[int, int]] = []
    stop = threading.Event()

    def write(writer: int) -> None:
        for step in range(100_000):
            if stop.is_set():
                return
            try:
                point = {"key": f"w{writer}", "value": step, "timestamp": step, "step": step}
                params = [{"key": f"{writer}-{step}", "value": "x"}]
                answer = server.call("runs/log-batch", run_id=run, metrics=[point], params=params)
            except OSError:
                return
            if answer.status == 200:
                acknowledged.append((writer, step))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    while len(acknowledged) < 100:
        assert any(writer.is_alive() for writer in writers)
        time.sleep(0.01)
    server.kill()
    stop.set()
    server.start()  # before the writers are waited for: what lies at the listening socket is answered by the new server
    for writer in writers:
        writer.join()
    params, steps = kept(server, run)
    assert set(acknowledged) <= steps
    assert {f"{writer}-{step}" for writer, step in steps} == params, "a batch is there as a whole or not at all"
    assert json.loads(server.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run}").body)


def test_a_part_of_an_artifact_can_be_fetched(server: Server) -> None:
    run = create(server)
    place = f"{ARTIFACTS}/0/{run}/artifacts/a/b.txt"
    assert server.ask("PUT", place, b"0123456789").status == 200

    def part(asked: str, **headers: str) -> tuple[int, bytes]:
        answer = server.ask("GET", place, None, Range=asked, **headers)
        return answer.status, answer.body

    assert part("bytes=2-4") == (206, b"234")
    assert part("bytes=7-") == (206, b"789")
    assert part("bytes=-3") == (206, b"789")
    assert part("bytes=5-500") == (206, b"56789")
    assert part("bytes=10-") == (416, b"")
    assert part("bytes=4-2") == (416, b"")
    assert part("bytes=-") == part("lines=1-2") == part("bytes=0-1,3-4") == (200, b"0123456789")
    assert part("bytes=2-4", If_Range='"other"') == (200, b"0123456789")
    whole = server.ask("GET", place)
    assert whole.headers["accept-ranges"] == "bytes"
    assert server.ask("GET", place, None, If_None_Match=whole.headers["etag"]).status == 304
    older = server.ask("GET", f"/get-artifact?run_uuid={run}&path=a/b.txt")
    assert (older.status, older.body) == (200, b"0123456789")
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=..%2Fb.txt").status == 400
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=c").status == 404


def test_a_file_is_attached_as_a_page_does_it(server: Server) -> None:
    run = create(server)
    address = "/ajax-api/2.0/mlflow/upload-artifact"
    assert server.ask("POST", f"{address}?run_uuid={run}&path=notes/a.txt", b"words").status == 200
    assert server.ask("GET", f"/get-artifact?run_uuid={run}&path=notes/a.txt").body == b"words"
    for query, match in (
        ("path=a", "Request must specify run_uuid."),
        (f"run_uuid={run}&path=", "Request must specify path."),
        (f"run_uuid={run}&path=..%2Fa", "Invalid path"),
        (f"run_uuid={run}&path=b", "Request must specify data."),
    ):
        answer = server.ask("POST", f"{address}?{query}", b"" if "data" in match else b"x")
        assert (answer.status, answer.json["message"]) == (400, match)
    assert server.ask("POST", f"{address}?run_uuid={'0' * 32}&path=a", b"x").status == 404


MPU = "/api/2.0/mlflow-artifacts/mpu"


def test_parts_are_joined_only_as_they_were_sent(server: Server) -> None:
    run = create(server)
    folder = f"0/{run}/artifacts/big"
    told = server.ask(
        "POST", f"{MPU}/create/{folder}", {"path": "/data/here/x.bin", "num_parts": 3}, authorization="Bearer a"
    )
    upload, credentials = told.json["upload_id"], told.json["credentials"]
    assert [item["part_number"] for item in credentials] == [1, 2, 3]
    assert credentials[0]["headers"] == {"Authorization": "Bearer a"}, "a part is sent as who asked for it"
    paths = [item["url"].removeprefix(server.url) for item in credentials]
    sent = zip(paths, (b"old", b"bb", b"c" * 70_000), strict=True)
    tags = [server.ask("PUT", path, text).headers["etag"] for path, text in sent]
    tags[0] = server.ask("PUT", paths[0], b"aaa").headers["etag"]  # sent again

    def complete(parts: list[tuple[int, str]], name: str = "x.bin") -> tuple[int, str]:
        listed = [{"part_number": number, "etag": tag} for number, tag in parts]
        answer = server.ask("POST", f"{MPU}/complete/{folder}", {"path": name, "upload_id": upload, "parts": listed})
        return answer.status, answer.json.get("message", "")

    assert complete([(1, tags[1])]) == (400, "part 1 is another one than was sent")
    assert complete([(4, tags[1])]) == (400, "part 4 was not sent")
    assert complete([])[0] == 400
    assert complete(list(enumerate(tags, 1)), "..")[0] == 400
    place = f"{ARTIFACTS}/{folder}/x.bin"
    assert server.ask("GET", place).status == 404, "nothing is there before all is"
    assert complete([(3, tags[2]), (1, tags[0]), (2, tags[1])]) == (200, "")
    assert server.ask("GET", place).body == b"aaabb" + b"c" * 70_000
    assert complete(list(enumerate(tags, 1)))[0] == 400, "the parts are gone"
    fetch = server.ask("GET", f"/api/2.0/mlflow-artifacts/presigned/{folder}/x.bin", authorization="Bearer a").json
    assert (fetch["file_size"], fetch["headers"]) == (70_005, {"Authorization": "Bearer a"})
    assert server.ask("GET", fetch["url"].removeprefix(server.url), Range="bytes=0-4").body == b"aaabb"


def test_an_upload_given_up_leaves_nothing(server: Server) -> None:
    told = server.ask("POST", f"{MPU}/create/x", {"path": "y", "num_parts": 1}).json
    path = told["credentials"][0]["url"].removeprefix(server.url)
    tag = server.ask("PUT", path, b"part").headers["etag"]
    ended = {"path": "y", "upload_id": told["upload_id"], "parts": [{"part_number": 1, "etag": tag}]}
    assert server.ask("POST", f"{MPU}/abort/x", ended).status == 200
    assert server.ask("POST", f"{MPU}/complete/x", ended).status == 400
    for wrong in ({"path": "y", "num_parts": 0}, {"path": "y", "num_parts": 10_001}, {"num_parts": 1}, {"path": ".."}):
        assert server.ask("POST", f"{MPU}/create/x", wrong).status == 400
    assert server.ask("POST", f"{MPU}/complete/x", ended | {"upload_id": "../../x"}).status == 404
    assert server.ask("PUT", f"{MPU}/part/{told['upload_id']}/10001", b"x").status == 404
