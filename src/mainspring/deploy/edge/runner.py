"""Runs a model bundle on a device. Needs Python 3.10 or later, numpy and onnxruntime; nothing else, and no network.

    python run.py check                      is the bundle whole, and does it answer as it did when it was packed?
    python run.py predict < rows.jsonl       one JSON object per line in, one per line out
    python run.py serve --port 8080          POST /predict on this machine
    python run.py agent --home DIR           keep a device up to date: fetch, check, switch, report

The agent's folder holds ``device.json`` (url, deployment, device, token, key), bundles by tag, the tag in force, and a
spool of predictions that are sent when there is a network. A bundle comes into force only when its signature is that of
``key``, every file has its digest and its own examples give their scores in a process of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mainspring.core.judgement import Check, Verdict, look, settle
from mainspring.core.mending import accepted, mending, whole
from mainspring.deploy.edge.ed25519 import is_signed

FORMAT = 1
SPOOL_LIMIT = 64 << 20
_PART = 256 << 10
_BODY_LIMIT = 4 << 20
_KINDS: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "bool": (bool,), "string": (str,)}


class Refused(Exception):
    """A request or a bundle that cannot be used; the message says why."""


class Door:
    """What is let in of records, and what is put in the place of the rest.

    Args:
        fields: The columns, as the signature's JSON has them.
    """

    def __init__(self, fields: list[dict[str, Any]]) -> None:
        self.fields = {field["name"]: field for field in fields}
        self._mends = {field["name"]: mending(**field) for field in fields}
        self._doors = {field["name"]: accepted(**field) for field in fields}

    def value(self, name: str, record: dict[str, Any], row: int) -> Any:
        """The value of a column, or what stands in for it.

        Raises:
            Refused: It is missing, of another type, or not let in.
        """
        field, mend = self.fields[name], self._mends[name]
        value = record.get(name)
        if isinstance(value, float) and math.isnan(value):
            value = None
        if field["type"] == "int":
            value = whole(value)
        if value is not None and (
            not isinstance(value, _KINDS[field["type"]]) or isinstance(value, bool) != (field["type"] == "bool")
        ):
            raise Refused(f"row {row}: column `{name}` is not a {field['type']}")
        value = mend.of(value) if mend else value
        if value is None:
            if not field.get("nullable") or (name not in record and field.get("on_missing", "error") == "error"):
                raise Refused(f"row {row}: column `{name}` is missing")
        elif self._doors[name].refuses(value):
            raise Refused(f"row {row}: column `{name}` has a value that the signature refuses")
        return value


class Bundle:
    """An unpacked bundle, verified.

    Args:
        folder: Where it is.
        key: The public key that must have signed it, hexadecimal; empty: the signature is not looked at.

    Raises:
        Refused: It is damaged, forged or of another format.
    """

    def __init__(self, folder: Path, key: str = "") -> None:
        import numpy  # noqa: PLC0415 - `agent` needs neither
        import onnxruntime  # noqa: PLC0415

        self._numpy = numpy
        manifest = (folder / "manifest.json").read_bytes()
        if key and not is_signed(bytes.fromhex(key), manifest, (folder / "manifest.sig").read_bytes()):
            raise Refused("the bundle's signature is not that of the key")
        self.manifest = json.loads(manifest)
        if self.manifest["format"] != FORMAT:
            raise Refused(f"the bundle has format {self.manifest['format']}, this runner reads {FORMAT}")
        for name, digest in self.manifest["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise Refused(f"{name} is damaged")
        signature = json.loads((folder / "signature.json").read_bytes())
        self._door = Door(signature["inputs"])
        self.fields = self._door.fields
        self.kind, self.threshold = signature.get("kind", "classifier"), signature.get("threshold", 0.5)
        self.classes = signature.get("classes", [])
        self.version = self.manifest["version"]
        self._examples = json.loads((folder / "examples.json").read_bytes())
        checks = [_check(item) for item in self.manifest["checks"]]
        self._inputs = [check for check in checks if check.column]
        self._scores = [check for check in checks if not check.column]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, ["CPUExecutionProvider"])
        self._slots = {slot.name: slot for slot in self._session.get_inputs()}
        self._output = self.manifest["output"]

    def predict(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Score, label and the rules that fired, the deciding one first, what was done and what the model said then.

        Raises:
            Refused: A record does not fit the signature, or a rule refuses it.
        """
        columns = {
            name: [self._door.value(name, record, row) for row, record in enumerate(records)] for name in self.fields
        }
        for row, record in enumerate(records):
            if extra := sorted(record.keys() - self.fields.keys()):
                raise Refused(f"row {row}: column `{extra[0]}` is unknown; the model's are {', '.join(self.fields)}")
        seen, fired = look(self._inputs, columns, len(records))
        said = self._said(seen, len(records))
        verdict = settle(self._scores, [max(shares) for shares in said], fired)
        if verdict.refused:
            raise Refused(f"row {verdict.refused[0]} is refused by the rule `{verdict.refused[1]}`")
        return [self._answer(row, said[row], verdict) for row in range(len(records))]

    def examine(self) -> None:
        """Scores the bundle's own examples.

        Raises:
            Refused: A score differs from the one it had when the bundle was packed.
        """
        rows, wanted = self._examples["rows"], self._examples["scores"]
        columns = {name: [row.get(name) for row in rows] for name in self.fields}
        scores = [max(shares) for shares in self._said(columns, len(rows))]
        for row, (found, expected) in enumerate(zip(scores, wanted, strict=True)):
            if not math.isclose(found, expected, rel_tol=0, abs_tol=self.manifest["tolerance"]):
                raise Refused(f"example {row} scores {found:.6g} here, {expected:.6g} when it was packed")

    def _said(self, columns: Any, rows: int) -> list[list[float]]:
        """The score of each row; of models that tell several classes apart the probability of each."""
        numpy, feed = self._numpy, {}
        if not rows:
            return []
        if self._slots.keys().isdisjoint(columns):  # one tensor for all columns, which are numbers
            (slot,) = self._slots.values()
            kind = "float64" if slot.type == "tensor(double)" else "float32"
            feed[slot.name] = numpy.array([columns[name] for name in self.fields], dtype=kind).T
            return self._run(feed)
        for name, slot in self._slots.items():
            values = columns[name]
            if slot.type == "tensor(string)":
                array = numpy.array(["" if value is None else value for value in values], dtype=object)
            else:
                kinds = {"tensor(double)": "float64", "tensor(int64)": "int64", "tensor(bool)": "bool"}
                array = numpy.array(values, dtype=kinds.get(slot.type, "float32"))
            feed[name] = array.reshape((-1, 1) if len(slot.shape) == 2 else (-1,))
        return self._run(feed)

    def _run(self, feed: dict[str, Any]) -> list[list[float]]:
        answer = self._session.run([self._output], feed)[0]
        said: list[list[float]] = answer.reshape(len(answer), -1).tolist()
        return said if self.classes else [shares[-1:] for shares in said]

    def _answer(self, row: int, shares: list[float], verdict: Verdict) -> dict[str, Any]:
        score, said = verdict.scores[row], max(shares)
        known = not math.isnan(score)
        answer: dict[str, Any] = {"score": score if known else None, "label": None, "version": self.version}
        if self.classes:
            answer["label"] = self.classes[shares.index(said)] if score == said else None
            answer["probabilities"] = dict(zip(self.classes, shares, strict=True))
        elif known and self.kind == "classifier":
            answer["label"] = score >= self.threshold
        if row not in verdict.fired:
            return {**answer, "rules": []}
        first = verdict.decided[row]
        rules = [first.rule, *(rule for rule in verdict.fired[row] if rule != first.rule)]
        return {**answer, "rules": rules, "action": first.then, "model_score": None if math.isnan(said) else said}


def _check(item: dict[str, Any]) -> Check:
    """A check as the manifest has it: infinities are left out, because JSON has none."""
    return Check(**{**item, "known": frozenset(item.get("known", ()))})


class Spool:
    """Predictions that wait for a network: files of lines, the oldest dropped when the disk would fill.

    Args:
        folder: Where they are.
        limit: Most bytes in all.
    """

    def __init__(self, folder: Path, limit: int = SPOOL_LIMIT) -> None:
        self._folder, self._limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, lines: list[dict[str, Any]]) -> None:
        """Appends predictions."""
        parts = sorted(self._folder.glob("*.jsonl"))
        name = parts[-1] if parts and parts[-1].stat().st_size < _PART else self._folder / f"{time.time_ns()}.jsonl"
        with name.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        while sum(part.stat().st_size for part in parts) > self._limit:
            oldest = parts.pop(0)
            with oldest.open("rb") as file, (self._folder / "dropped").open("a") as dropped:
                dropped.write("x" * sum(1 for _ in file))  # its size is the count: nothing to read, change and write
            oldest.unlink()

    @property
    def dropped(self) -> int:
        """How many predictions were given up for want of space."""
        count = self._folder / "dropped"
        return count.stat().st_size if count.exists() else 0

    def parts(self) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
        """The files that are complete, and their predictions; the one that is being written waits for the next."""
        for part in sorted(self._folder.glob("*.jsonl")):
            moved = part.with_suffix(".sending")
            part.rename(moved)
        for part in sorted(self._folder.glob("*.sending")):
            lines = part.read_text(encoding="utf-8").splitlines()
            yield part, [found for line in lines if (found := _line(line)) is not None]


def _line(text: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:  # the power went while it was written
        return None
    return found


class Agent:
    """Keeps the folder of a device as its server wants it.

    Args:
        home: The folder, with ``device.json``.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.facts = json.loads((home / "device.json").read_bytes())
        self.spool = Spool(home / "spool")
        context = ssl.create_default_context(cafile=self.facts.get("ca"))
        self._open = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context)).open

    @property
    def tag(self) -> str:
        """The bundle in force; empty before the first."""
        current = self.home / "current"
        return current.read_text().strip() if current.exists() else ""

    def once(self) -> str:
        """One round: fetch what is wanted, switch, send predictions, report; what happened, in words.

        Without a network nothing changes, and the predictions stay.
        """
        try:
            told = self._update()
            self._send()
        except (urllib.error.URLError, OSError) as error:
            return f"offline: {error}"
        return told

    def _update(self) -> str:
        known = sorted(path.name for path in (self.home / "bundles").glob("*"))
        # Every bundle that is here may be switched to without a download: a rollback costs no network.
        tags = ", ".join(f'"{tag}"' for tag in known)
        status, headers, body = self._ask("bundle", headers={"If-None-Match": tags} if tags else {})
        wanted = headers.get("ETag", "").strip('"')
        if status not in (200, 304) or not wanted:
            return f"the server answers {status}"
        if wanted == self.tag:
            self._report(wanted, healthy=True)
            return "up to date"
        try:
            if status == 200:
                unpack(body, self.home / "bundles" / wanted)
            self._try(self.home / "bundles" / wanted)
        except (Refused, OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            shutil.rmtree(self.home / "bundles" / wanted, ignore_errors=True)
            self._report(wanted, healthy=False, error=str(error))
            return f"{wanted} is refused: {error}"
        replace(self.home / "current", wanted)
        for tag in known[:-4]:
            if tag != wanted:
                shutil.rmtree(self.home / "bundles" / tag, ignore_errors=True)
        self._report(wanted, healthy=True)
        return f"{wanted} is in force"

    def _try(self, folder: Path) -> None:
        """Has the bundle examined in a process of its own: a runtime that dies must not take the agent along."""
        place = str(Path(__file__).resolve())
        command = [sys.executable, place, "check", "--folder", str(folder), "--key", self.facts["key"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Refused((done.stderr.strip() or f"the check ended with {done.returncode}")[-500:])

    def _report(self, tag: str, *, healthy: bool, error: str = "") -> None:
        report = {"tag": tag, "healthy": healthy, "error": error, "dropped": self.spool.dropped}
        self._ask("report", json.dumps(report).encode())

    def _send(self) -> None:
        for part, lines in self.spool.parts():
            status, _, _ = self._ask("predictions", json.dumps(lines).encode())
            if status == 200:
                part.unlink()

    def _ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, bytes]:
        url = (
            f"{self.facts['url'].rstrip('/')}/api/edge/{self.facts['deployment']}/{path}?device={self.facts['device']}"
        )
        sent = {"Authorization": f"Bearer {self.facts['token']}", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(url, body, sent)  # noqa: S310 - the url is the device's own configuration
        try:
            with self._open(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()


def unpack(content: bytes, target: Path) -> None:
    """Writes a bundle to a folder, whole or not at all.

    Raises:
        Refused: It holds a path that leads out of the folder, or is absurdly large.
    """
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(item.file_size for item in archive.infolist()) > 4 << 30:
            raise Refused("the bundle is larger than 4 GB")
        for item in archive.infolist():
            if "/" in item.filename or "\\" in item.filename or item.filename in ("", ".", ".."):
                raise Refused(f"the bundle holds the path {item.filename}")
            (fresh / item.filename).write_bytes(archive.read(item))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def replace(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class Device:
    """Answers predictions with the bundle in force and spools them.

    Args:
        home: The agent's folder, or an unpacked bundle.
    """

    def __init__(self, home: Path) -> None:
        managed = (home / "device.json").exists()
        self._home = home
        self._agent = Agent(home) if managed else None
        self._tag = self._agent.tag if self._agent else ""
        if managed and not self._tag:
            raise Refused("no bundle is in force yet: run the agent")
        self._bundle = self._load()

    def _load(self) -> Bundle:
        return (
            Bundle(self._home / "bundles" / self._tag, self._agent.facts["key"]) if self._agent else Bundle(self._home)
        )

    def predict(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As `Bundle.predict`, with an ``id`` for each; a new bundle is taken up between two calls."""
        if self._agent and (tag := self._agent.tag) != self._tag:
            self._tag, self._bundle = tag, self._load()
        ids = [str(record.pop("id", "") or uuid.uuid4().hex) for record in records]
        answers = [{"id": name, **answer} for name, answer in zip(ids, self._bundle.predict(records), strict=True)]
        if self._agent:
            now = time.time()
            pairs = zip(answers, records, strict=True)
            self._agent.spool.add([{**answer, "time": now, "inputs": record} for answer, record in pairs])
        return answers

    def serve(self, port: int) -> None:
        """POST /predict with {"records": [...]}, on this machine only, until interrupted."""
        predict = self.predict

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                try:
                    if length > _BODY_LIMIT:
                        raise Refused(f"the body is larger than {_BODY_LIMIT} bytes")
                    status, body = 200, {"predictions": predict(json.loads(self.rfile.read(length))["records"])}
                except (Refused, ValueError, KeyError, TypeError, AttributeError) as error:
                    status, body = 422, {"error": str(error) or "the body is not what it must be"}  # type: ignore[dict-item]
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *values: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()


def main() -> int:
    """Runs a command; 0 when all is well."""
    parser = argparse.ArgumentParser(description="Runs a model bundle on this device.")
    parser.add_argument("command", choices=["check", "predict", "serve", "agent"])
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent, help="an unpacked bundle")
    parser.add_argument("--home", type=Path, help="the agent's folder, with device.json")
    parser.add_argument("--key", default="", help="public key that must have signed the bundle")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--every", type=float, default=300, help="seconds between the agent's rounds; 0: one round")
    given = parser.parse_args()
    try:
        if given.command == "check":
            Bundle(given.folder, given.key).examine()
        elif given.command == "agent":
            _agent(Agent(given.home), given.every)
        elif given.command == "serve":
            Device(given.home or given.folder).serve(given.port)
        else:
            device = Device(given.home or given.folder)
            for line in sys.stdin:
                (answer,) = device.predict([json.loads(line)])
                sys.stdout.write(json.dumps(answer) + "\n")
    except (Refused, OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _agent(agent: Agent, every: float) -> None:
    while True:
        sys.stdout.write(agent.once() + "\n")
        sys.stdout.flush()
        if not every:
            return
        time.sleep(every)


if __name__ == "__main__":
    sys.exit(main())
