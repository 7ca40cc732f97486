"""`log` from anywhere inside a step or a ``with run()`` block, without passing the run along."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mainspring.errors import InvalidInput

V = TypeVar("V")


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


def log(metrics: Mapping[str, float] | None = None, /, step: int = 0, **named: float) -> None:
    """Logs metrics of the current run; outside of any run it does nothing, so that steps also work alone.

        ms.log(loss=0.5, step=3)
        ms.log({"val/loss": 0.5}, step=3)

    Args:
        metrics: Name -> value.
        step: Position on the curve.
        **named: More of them.

    Raises:
        InvalidInput: A value is not a number.
    """
    every = merged(metrics, named)
    for name, value in every.items():
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise InvalidInput(f"metric `{name}` is {value!r}", hint="log numbers; put text into tags or artifacts")
    sink = _sink.get()
    if sink is not None:
        sink.log({name: float(value) for name, value in every.items()}, step)


def merged(given: Mapping[str, V] | None, named: dict[str, V]) -> dict[str, V]:
    """What was given in a dictionary and by keyword, together.

    Raises:
        InvalidInput: The first is no dictionary.
    """
    if given is None:
        return named
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{given!r} has no names", hint='log {"loss": 0.5}, or loss=0.5')
    return {str(name): value for name, value in given.items()} | named


def log_params(params: Mapping[str, Any] | None = None, /, **named: Any) -> None:
    """Adds parameters to the current run; one that has a value keeps it."""
    _tell("log_params", merged(params, named))


def set_tags(tags: Mapping[str, str] | None = None, /, **named: str) -> None:
    """Sets tags of the current run."""
    _tell("set_tags", merged(tags, named))


def log_artifact(file: str | Path | bytes, path: str = "") -> None:
    """Attaches a file, or bytes, to the current run (see `mainspring.client.tracked.TrackedRun.log_artifact`)."""
    _tell("log_artifact", file, path)


def log_table(table: Any, path: str) -> None:
    """Attaches a table to the current run (see `mainspring.client.tracked.TrackedRun.log_table`)."""
    _tell("log_table", table, path)


def log_figure(figure: Any, path: str) -> None:
    """Attaches a picture to the current run (see `mainspring.client.tracked.TrackedRun.log_figure`)."""
    _tell("log_figure", figure, path)


def log_model(model: Any, name: str = "model", register: str = "", *, example: Any = None) -> None:
    """Logs a model of the current run (see `mainspring.client.tracked.TrackedRun.log_model`)."""
    _tell("log_model", model, name, register, example=example)


def _tell(what: str, *values: Any, **named: Any) -> None:
    sink = _sink.get()
    if sink is None:
        return
    if not hasattr(sink, what):
        raise InvalidInput(f"`{what}` works inside `mainspring.run`", hint="return it from the step: outputs are kept")
    getattr(sink, what)(*values, **named)
