"""The inference server without its prediction log: ``python -m benchmarks.monitoring.unlogged --config …``."""

from __future__ import annotations

from typing import Any
from unittest import mock

from mainspring.serving import app, process


def _nothing(*_: Any) -> None:
    """In place of `to_log`: no frame is made, so none is encoded, kept or written."""


if __name__ == "__main__":
    with mock.patch.object(app, "to_log", _nothing):
        process.main()
