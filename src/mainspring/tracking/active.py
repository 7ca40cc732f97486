"""`log` from anywhere inside a step or a ``with run()`` block, without passing the run along."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

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
