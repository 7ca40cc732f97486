"""`run`: tracks a script or a notebook cell in two lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mainspring.client.client import Client, connect
from mainspring.core.entity import draft
from mainspring.tracking.active import logging_to
from mainspring.tracking.environment import describe_code, describe_environment
from mainspring.tracking.model import DEFAULT_EXPERIMENT, Point, Run


class TrackedRun:
    """A run under way; made by `run`.

    Attributes:
        name: Its name, such as ``calm-otter-12``.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def log(self, metrics: dict[str, float], step: int = 0) -> None:
        """Logs metrics at one step of their curves."""
        self._client.runs.log(self.name, [Point(key=key, value=value, step=step) for key, value in metrics.items()])

    def log_artifact(self, file: str | Path | bytes, path: str = "") -> None:
        """Attaches a file, or bytes, to the run.

        Args:
            file: The file's path, or its content.
            path: Path within the run; the file's name by default (needed for bytes).
        """
        content = file if isinstance(file, bytes) else Path(file)
        digest, size = self._client.put_artifact(content)
        name = path or (content.name if isinstance(content, Path) else "artifact")
        self._client.runs.add_artifact(self.name, name, digest, size)

    def __repr__(self) -> str:
        return f"<run {self.name}>"


@contextlib.contextmanager
def run(
    experiment: str = DEFAULT_EXPERIMENT,
    params: dict[str, Any] | None = None,
    *,
    tags: dict[str, str] | None = None,
    use_case: str = "",
    reason: str = "",
    client: Client | None = None,
) -> Iterator[TrackedRun]:
    """Tracks what happens in the block: `mainspring.log` inside it goes to this run.

        with ms.run("baseline", {"depth": 3}) as run:
            ms.log(auc=0.91)

    Args:
        experiment: Group of runs that are compared with each other.
        params: Parameters.
        tags: Free labels.
        use_case: The use case it works for.
        reason: Why, in words.
        client: Where to track; the workspace or server of the settings by default.

    Yields:
        The run. It ends as ``ok`` with the block, or as ``failed`` when the block raises.
    """
    owned = client is None
    client = client or connect()
    try:
        new = draft(
            Run,
            experiment=experiment,
            params=params or {},
            tags=tags or {},
            use_case=use_case,
            reason=reason,
            environment=describe_environment(),
            code=describe_code(Path.cwd()),
        )
        tracked = TrackedRun(client, client.runs.start(new).name)
        try:
            with logging_to(tracked):
                yield tracked
        except BaseException as error:
            client.runs.finish(tracked.name, "failed", f"{type(error).__name__}: {error}")
            raise
        client.runs.finish(tracked.name, "ok")
    finally:
        if owned:
            client.close()
