"""The inference server without its prediction log: ``python -m benchmarks.monitoring.unlogged --config …``."""

from __future__ import annotations

from typing import Any
from unittest import mock

from mainspring.serving import app, process
from mainspring.serving.log import Frame

_ONE = Frame([0], [""], [""], [""], [0.0], [None], {}, 0)


def _nothing(*_: Any) -> None:
    """In place of what is kept of a frame: none is encoded or written."""


if __name__ == "__main__":
    with (
        mock.patch.object(app, "to_log", return_value=_ONE),  # nor is one made
        mock.patch.object(app, "Table", _nothing),
        mock.patch.object(app.App, "_append", _nothing),
    ):
        process.main()
