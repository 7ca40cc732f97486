"""The inference server beside MLServer, KServe, LitServe, BentoML and `mlflow models serve`: same model, load and run.

Every peer gets an environment of its own under ``build/peers`` (made on the first run), one worker, and the fastest
setting that its documentation names for a cheap model. They serve the very ONNX file that we serve.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.report import Row
from benchmarks.serving.load import Face, Load, script, side_by_side, tree
from benchmarks.serving.model import numbers, request_packed

HOME = Path(__file__).parents[1] / "build" / "peers"
APPS = Path(__file__).parent / "serving" / "peers"
_START_SECONDS = 60.0
_KINDS: dict[str, tuple[str, Literal["more", "less"]]] = {"rate": ("req/s", "more"), "cpu_us": ("us", "less")}
"""Figure -> its unit, and whether more of it is better."""


@dataclass(frozen=True)
class Peer:
    """Another system's server.

    Attributes:
        name: Its name; of its environment too.
        packages: What is installed.
        path: Where it predicts.
        body: The request's body for rows.
        command: Its arguments, given the environment's ``bin``, the model's file, the port and an empty folder.
    """

    name: str
    packages: tuple[str, ...]
    path: str
    body: Callable[[int], Any]
    command: Callable[[Path, Path, int, Path], list[str]]


def _rows(count: int) -> list[list[float]]:
    return [[1.5 + place / 8 for place in range(20)] for _ in range(count)]


def _mlserver(binaries: Path, model: Path, port: int, folder: Path) -> list[str]:
    # In the server's own process: a worker process makes every request cross a queue, and costs threefold.
    settings = {"parallel_workers": 0, "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings | {"metrics_port": port + 2}))
    served = {"name": "bench", "implementation": "mlserver_app.OnnxRuntime", "parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(served))
    return [str(binaries / "mlserver"), "start", str(folder)]


def _mlflow(binaries: Path, model: Path, port: int, folder: Path) -> list[str]:
    saved = folder / "saved"
    subprocess.run(
        [binaries / "python", "mlflow_app.py", model, saved], cwd=APPS, check=True, capture_output=True, timeout=120
    )
    command = [str(binaries / "mlflow"), "models", "serve", "-m", str(saved), "--env-manager", "local"]
    return [*command, "-p", str(port), "-h", "127.0.0.1"]


def _script(name: str) -> Callable[[Path, Path, int, Path], list[str]]:
    return lambda binaries, model, port, _: [str(binaries / "python"), name, str(model), str(port)]


def _bentoml(binaries: Path, model: Path, port: int, folder: Path) -> list[str]:
    command = [str(binaries / "bentoml"), "serve", "bentoml_app:Served", "--host", "127.0.0.1", "--port", str(port)]
    return ["env", f"BENCH_MODEL={model}", *command]


_V2 = "/v2/models/bench/infer"
PEERS = (
    Peer("MLServer", ("mlserver>=1.7", "uvloop<0.22", "onnxruntime"), _V2, request_packed, _mlserver),
    Peer("KServe", ("kserve>=0.21", "onnxruntime"), _V2, request_packed, _script("kserve_app.py")),
    Peer("LitServe", ("litserve", "onnxruntime"), "/predict", lambda n: {"x": _rows(n)}, _script("litserve_app.py")),
    Peer("BentoML", ("bentoml", "onnxruntime"), "/predict", lambda n: {"x": _rows(n)}, _bentoml),
    Peer("MLflow", ("mlflow>=3.17", "onnxruntime"), "/invocations", lambda n: {"inputs": _rows(n)}, _mlflow),
)


def rows() -> list[Row]:
    """Single rows at 64 connections and 100 rows at 16, each peer and ours in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers(folder / "numbers", strings=0)
        single: dict[str, tuple[Load, Load]] = {}
        many: dict[str, tuple[Load, Load]] = {}
        with Face.serving(folder / "numbers") as face:
            one, hundred = (script(folder, f"ours-{count}", _V2, request_packed(count)) for count in (1, 100))
            for peer in PEERS:
                with _serving(peer, folder / "numbers" / "model.onnx") as other:
                    theirs = script(folder, "one", peer.path, peer.body(1))
                    single[peer.name] = _pair(side_by_side([(other, theirs), (face, one)], 64))
                    theirs = script(folder, "many", peer.path, peer.body(100))
                    many[peer.name] = _pair(side_by_side([(other, theirs), (face, hundred)], 16))
    best, best_many = (max(found, key=lambda name: found[name][0].rate) for found in (single, many))
    cheapest, cheapest_many = (min(found, key=lambda name: found[name][0].cpu_us) for found in (single, many))
    return [
        _row("1 row, 64 connections", single, best, "rate", 10),
        _row("the same, CPU per request", single, cheapest, "cpu_us", 0.12),
        Row("the same, p99", single[best][1].p99_ms, "ms", 10, note=_told(single, "p99_ms")),
        _row("100 rows, 16 connections", many, best_many, "rate", 3),
        _row("the same, CPU per request", many, cheapest_many, "cpu_us", 0.34),
    ]


def _pair(loads: Sequence[Load]) -> tuple[Load, Load]:
    theirs, ours = loads
    return theirs, ours


def _row(
    name: str, found: dict[str, tuple[Load, Load]], peer: str, figure: Literal["rate", "cpu_us"], goal: float
) -> Row:
    """A figure of ours beside the peer's that was measured in turns with it."""
    theirs, ours = (float(getattr(load, figure)) for load in found[peer])
    unit, better = _KINDS[figure]
    return Row(name, ours, unit, goal, peer, theirs, better, _told(found, figure))


def _told(found: dict[str, tuple[Load, Load]], figure: str) -> str:
    return ", ".join(f"{name} {getattr(theirs, figure):,.0f}" for name, (theirs, _) in found.items())


@contextlib.contextmanager
def _serving(peer: Peer, model: Path) -> Iterator[Face]:
    binaries = _environment(peer)
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        command = peer.command(binaries, model, port, Path(name))
        environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(APPS)}
        environment |= {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True", "PYTHONDONTWRITEBYTECODE": "1"}
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=APPS, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        family = [process.pid]
        try:
            face = Face(f"http://127.0.0.1:{port}", process.pid)
            while not _answers(face, peer):
                if process.poll() is not None or time.perf_counter() - begun > _START_SECONDS:
                    raise SystemExit(f"error: {peer.name} does not answer\n\nhint: remove {HOME} and run again")
                time.sleep(0.1)
            face.seconds_to_answer = time.perf_counter() - begun
            family = tree(process.pid)
            yield face
        finally:
            for pid in family:  # some of them leave processes behind
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _answers(face: Face, peer: Peer) -> bool:
    try:
        return face.answers(peer.path, peer.body(1))
    except (OSError, http.client.HTTPException):
        return False


def _environment(peer: Peer) -> Path:
    place = HOME / peer.name.lower()
    if not (place / "ready").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", str(place)], check=True)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(place / "bin" / "python")]
        subprocess.run([*install, *peer.packages], check=True)
        (place / "ready").touch()
    return place / "bin"


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
