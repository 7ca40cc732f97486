"""Scoring a stream on NATS JetStream against the shortest loop that does the same, a fresh process each.

The other loop is what one writes by hand: the bare client fetches a hundred messages, each is read as JSON, scored by
the same ONNX session, answered by a publication, acknowledged. What it leaves out is what the limit pays for: checking
each value against the signature, dead letters, ids that make a repetition harmless, an answer acknowledged by the
broker before its question is, the prediction log written before the answer, routing, humility rules, metrics. Each of
these costs a fraction of what the client takes for two messages, so all of them together may cost as much as the loop
once more and a half: 2.5 times its CPU, and 0.4 of its rate. Both are warm: the first `WARM` messages of each do not
count.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row

MESSAGES = 20_000
WARM = 1_000
_FILL = """
import asyncio, json, sys
from mainspring.ports.plugins import resolve
from mainspring.ports.stream import Message
from mainspring.testing.models import RECORD
async def fill():
    stream = resolve("streams", sys.argv[1])
    await stream.connect()
    for start in range(0, int(sys.argv[2]), 500):
        body = json.dumps(RECORD).encode()
        await stream.publish([Message(id=f"m{n}", data=body) for n in range(start, start + 500)])
    await stream.close()
asyncio.run(fill())
"""
_OURS = """
import sys
from mainspring.serving.process import main  # sets what numerical libraries read when they load
import asyncio, time, uvloop
from pathlib import Path
from mainspring.serving.app import App
from mainspring.serving.streaming import StreamScorer
async def score():
    app = App(Path(sys.argv[1]))
    scorer = StreamScorer(app, app.config.streams[0])
    await scorer.start()
    counts = app.metrics.requests
    while counts["stream", 200] < int(sys.argv[3]):
        await asyncio.sleep(0.001)
    before, wall, cpu = counts["stream", 200], time.perf_counter(), time.process_time()
    while counts["stream", 200] < int(sys.argv[2]):
        await asyncio.sleep(0.01)
    done = counts["stream", 200] - before
    print((time.process_time() - cpu) / done, (time.perf_counter() - wall) / done)
    await scorer.stop(5)
    app.close()
uvloop.run(score())
"""
_BARE = """
import asyncio, json, sys, time, uvloop, nats
import numpy as np, onnxruntime as ort
from nats.js.api import StreamConfig
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(f"{sys.argv[4]}/model.onnx", options)
kinds = {item.name: object if "string" in item.type else np.float32 for item in session.get_inputs()}
output = session.get_outputs()[-1].name
def score(record):
    feed = {name: np.array([[record[name]]], dtype=kind) for name, kind in kinds.items()}
    return float(session.run([output], feed)[0][0, -1])
async def answer():
    connection = await nats.connect(f"nats://{sys.argv[1]}")
    jetstream = connection.jetstream()
    await jetstream.add_stream(StreamConfig(name="bare", subjects=["bare"]))
    messages = await jetstream.pull_subscribe("flights", durable="bare")
    left, warm = int(sys.argv[2]), int(sys.argv[3])
    count = left - warm
    while left:
        if left == count:
            wall, cpu = time.perf_counter(), time.process_time()
        found = await messages.fetch(100, timeout=1)
        coming = []
        for item in found:
            told = json.dumps({"score": score(json.loads(item.data))}).encode()
            name = item.headers["Nats-Msg-Id"]
            coming.append(await jetstream.publish_async("bare", told, headers={"Nats-Msg-Id": name}))
        await asyncio.gather(*coming)
        for item in found:
            await item.ack()
        left -= len(found)
    print((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)
    await connection.close()
uvloop.run(answer())
"""


def rows() -> list[Row]:
    """CPU per message, and how many a second, of a process that scores and logs each."""
    from mainspring.testing.models import write_model

    with tempfile.TemporaryDirectory() as name, _broker(Path(name) / "nats") as broker:
        folder, place = Path(name), broker.args[4]  # type: ignore[index]
        address = f"127.0.0.1:{place}"
        write_model(folder / "model")
        plan = {"source": f"nats://{address}/flights", "target": f"nats://{address}/answers"}
        config = {
            "name": "flights", "revision": 1, "routes": [{"version": "flights@1", "path": str(folder / "model")}],
            "state_dir": name, "log_dir": str(folder / "log"), "streams": [plan],
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        _run(_FILL, plan["source"])
        cpu, wall = _run(_OURS, str(folder / "config.json"))
        bare_cpu, bare_wall = _run(_BARE, address, after=[str(folder / "model")])
        broker.kill()
    note = "checked, scored, logged, answered, acknowledged; the loop: scored, answered, acknowledged"
    return [
        Row("a message of a stream", cpu * 1e6, "µs CPU", 2.5, "bare loop", bare_cpu * 1e6,
            note=note),
        Row("messages a second, one process", 1 / wall, "1/s", 0.4, "bare loop", 1 / bare_wall, "more"),
    ]  # fmt: skip


def _broker(folder: Path) -> subprocess.Popen[bytes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
    command = [binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)]
    broker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return broker
        time.sleep(0.01)
    broker.kill()
    raise RuntimeError("the broker does not start")


def _run(code: str, *arguments: str, after: Sequence[str] = ()) -> tuple[float, float]:
    command = [sys.executable, "-c", code, *arguments, str(MESSAGES), str(WARM), *after]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return (float(told[0]), float(told[1])) if told else (0.0, 0.0)
