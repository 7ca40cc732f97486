"""`log` from anywhere inside a step or a ``with run()`` block, without passing the run along."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from mainspring.errors import InvalidInput


class Sink(Protocol):
    """Takes what is logged."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Takes the metrics of one step of a curve."""
        ...


_sink: ContextVar[Sink | None] = ContextVar("mainspring_sink", default=None)


@contextlib.contextmanager
def logging_to(sink: Sink) -> Iterator[None]:
    """Within the block `log` goes to ``sink``."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def current() -> Sink | None:
    """Where `log` goes to; None outside of any run."""
    return _sink.get()


def log(step: int = 0, **metrics: float) -> None:
    """Logs metrics of the current run; outside of any run it does nothing, so that steps also work alone.

    Args:
        step: Position on the curve.
        **metrics: Name -> value.

    Raises:
        InvalidInput: A value is not a number.
    """
    for name, value in metrics.items():
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise InvalidInput(f"metric `{name}` is {value!r}", hint="log numbers; put text into tags or artifacts")
    sink = _sink.get()
    if sink is not None:
        sink.log({name: float(value) for name, value in metrics.items()}, step)


def log_params(**params: Any) -> None:
    """Adds parameters to the current run; one that has a value keeps it."""
    _tell("log_params", **params)


def set_tags(**tags: str) -> None:
    """Sets tags of the current run."""
    _tell("set_tags", **tags)


def log_artifact(file: str | Path | bytes, path: str = "") -> None:
    """Attaches a file, or bytes, to the current run (see `mainspring.client.tracked.TrackedRun.log_artifact`)."""
    _tell("log_artifact", file, path)


def log_table(table: Any, path: str) -> None:
    """Attaches a table to the current run (see `mainspring.client.tracked.TrackedRun.log_table`)."""
    _tell("log_table", table, path)


def log_figure(figure: Any, path: str) -> None:
    """Attaches a picture to the current run (see `mainspring.client.tracked.TrackedRun.log_figure`)."""
    _tell("log_figure", figure, path)


def log_model(model: Any, name: str = "model", register: str = "") -> None:
    """Logs a packed model of the current run (see `mainspring.client.tracked.TrackedRun.log_model`)."""
    _tell("log_model", model, name, register)


def _tell(what: str, *values: Any, **named: Any) -> None:
    sink = _sink.get()
    if sink is None:
        return
    if not hasattr(sink, what):
        raise InvalidInput(f"`{what}` works inside `mainspring.run`", hint="return it from the step: outputs are kept")
    getattr(sink, what)(*values, **named)
