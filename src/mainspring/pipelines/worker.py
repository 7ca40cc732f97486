"""What runs in a worker process: planning a pipeline, and executing one step."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import traceback
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import msgspec

from mainspring.data.local import local_copy
from mainspring.errors import InvalidInput, MainspringError
from mainspring.pipelines.model import Argument, DataRef, Part, Plan
from mainspring.pipelines.steps import Pipeline
from mainspring.pipelines.values import read_parts, read_value, scan_versions, split_parts, write_value
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.plugins import resolve
from mainspring.tracking.active import logging_to
from mainspring.tracking.environment import source_digest

MAX_LOG = 1_000_000
_OURS = str(Path(__file__).resolve().parents[1]) + os.sep


class PlanTask(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline to plan: where it is and its arguments."""

    entry: str
    path: str
    values: dict[str, Any]
    data: dict[str, DataRef]


class StepTask(msgspec.Struct, frozen=True, kw_only=True):
    """A step to execute: its function, arguments, and the stored parts that its references point at."""

    step: str
    function: str
    path: str
    arguments: dict[str, Argument]
    parts: dict[str, list[Part]]
    artifacts: str


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it; ``error`` is the user's traceback when the function raised."""

    parts: list[Part] = []
    metrics: list[tuple[str, int, float]] = []
    error: str = ""
    log: str = ""
    log_size: int = 0


class PlanResult(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, or why there is none."""

    plan: Plan | None = None
    error: str = ""
    hint: str = ""


def plan(payload: bytes) -> bytes:
    """Plans a pipeline (entry of a worker's task)."""
    task = msgspec.msgpack.decode(payload, type=PlanTask)
    try:
        found = load_function(task.entry, task.path)
        if not isinstance(found, Pipeline):
            raise InvalidInput(f"`{task.entry}` is not a pipeline", hint="put @pipeline above the function")
        result = PlanResult(plan=found.plan(task.path, **task.values, **task.data))
    except MainspringError as error:
        result = PlanResult(error=error.message, hint=error.hint)
    except (Exception, SystemExit) as raised:  # noqa: BLE001 - the user's module may raise anything
        result = PlanResult(error=_readable(raised), hint=f"`python -c 'import {task.entry.partition(':')[0]}'`")
    return msgspec.msgpack.encode(result)


def execute(payload: bytes) -> bytes:
    """Executes a step and stores its result (entry of a worker's task)."""
    task = msgspec.msgpack.decode(payload, type=StepTask)
    artifacts: ArtifactStore = resolve("artifacts", task.artifacts)
    sink, printed = _Metrics(), io.StringIO()
    error, parts = "", []
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), logging_to(sink):
        try:
            function = load_function(task.function, task.path)
            arguments = {name: _value(item, task.parts, artifacts) for name, item in task.arguments.items()}
            returned = getattr(function, "function", function)(**arguments)
            parts = _store(task.step, returned, artifacts)
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - user code may raise anything: the step's error
            error = _readable(raised)
            traceback.print_exc(file=printed)
    log, log_size = "", 0
    if printed.tell():
        blob = artifacts.put(printed.getvalue()[-MAX_LOG:].encode())
        log, log_size = blob.digest, blob.size
    result = StepResult(parts=parts, metrics=sink.points, error=error, log=log, log_size=log_size)
    return msgspec.msgpack.encode(result)


class _Metrics:
    def __init__(self) -> None:
        self.points: list[tuple[str, int, float]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.points += [(name, step, value) for name, value in metrics.items()]


_loaded = ("", "")
"""Folder whose modules are imported, and the digest of its files."""


def load_function(address: str, path: str) -> Any:
    """Imports ``module:name``; when the project's files changed since the last time, its modules are imported anew.

    Raises:
        InvalidInput: The module or the name does not exist, or importing it failed.
    """
    module, _, name = address.partition(":")
    if path:
        _refresh(path)
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise InvalidInput(
            f"cannot load `{address}`: {error}", hint=f"it is looked for in {path or 'the Python path'}"
        ) from error
    return found


def _refresh(path: str) -> None:
    global _loaded
    present = (path, source_digest(Path(path)))
    if _loaded == present:
        return
    # Another project's modules may have the same names: only one project is importable at a time.
    real = functools.cache(os.path.realpath)  # thousands of modules lie in hundreds of folders
    for folder in {_loaded[0], path} - {""}:
        root = os.path.join(os.path.realpath(folder), "")
        for name, module in list(sys.modules.items()):
            source = getattr(module, "__file__", None) or ""
            place = os.path.dirname(source)
            if source and "site-packages" not in source and os.path.join(real(place), "").startswith(root):
                del sys.modules[name]
        sys.path[:] = [place for place in sys.path if place != folder]
    sys.path.insert(0, path)
    invalidate_caches()
    _loaded = present


def _value(argument: Argument, parts: dict[str, list[Part]], artifacts: ArtifactStore) -> Any:
    if argument.data is not None:
        return scan_versions([local_copy(artifacts, digest) for digest in argument.data.digests])
    if argument.ref is None:
        return argument.value
    stored = parts[argument.ref.step]
    return read_parts(stored, argument.ref.part, lambda part: read_value(part.format, artifacts.read(part.digest)))


def _store(step: str, returned: Any, artifacts: ArtifactStore) -> list[Part]:
    parts = []
    for name, value in split_parts(returned).items():
        kind, content = write_value(value, f"step `{step}`" + (f" (`{name}`)" if name else ""))
        blob = artifacts.put(content)
        parts.append(Part(name=name, digest=blob.digest, size=blob.size, format=kind))
    return parts


def _readable(error: BaseException) -> str:
    if isinstance(error, MainspringError):
        return f"{error.message}\nhint: {error.hint}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OURS)]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
