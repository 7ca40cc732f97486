"""What the protocol is spoken over, and how ids, times and states are told in it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from mainspring.automation.registry_hooks import RegistryHooks
from mainspring.core.ids import from_hex, to_hex
from mainspring.errors import InvalidInput
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.messages import RunRef
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.service import Models
from mainspring.store import Store
from mainspring.tracking import rules
from mainspring.tracking.evaluations import Evaluations
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.logged import LoggedModels
from mainspring.tracking.model import RunStatus
from mainspring.tracking.service import Runs
from mainspring.tracking.traces import Traces

STATES: dict[str, RunStatus] = {
    "RUNNING": "running", "SCHEDULED": "scheduled", "FINISHED": "ok", "FAILED": "failed", "KILLED": "cancelled",
}  # fmt: skip
TOLD: dict[str, str] = {ours: theirs for theirs, ours in STATES.items()}
NUMBERED: dict[int, str] = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_VIEWS: dict[Any, tuple[str, ...]] = {
    "ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted"),
    1: ("active",), 2: ("deleted",), 3: ("active", "deleted"),
}  # fmt: skip
SCHEME = "mlflow-artifacts:/"
_BAD_LETTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) "
    "and slashes (/)."
)


_BAD_PATH = "Names may be treated as files in certain cases, and must not resolve to other names when treated as such."


class Rooms(NamedTuple):
    """The services that the protocol is spoken over."""

    store: Store
    experiments: Experiments
    runs: Runs
    artifacts: ArtifactStore
    logged: LoggedModels
    models: Models
    traces: Traces
    hooks: RegistryHooks
    evaluations: Evaluations


def run_id(request: RunRef) -> str:
    """Our id of the run that a request names.

    Raises:
        MlflowError: It names none, or one that cannot be.
    """
    given = request.run_id or request.run_uuid
    if not given:
        raise missing("run_id")
    found = from_hex(given)
    if not found:
        raise MlflowError(MISSING, f"Run with id={given} not found")
    return found


def experiment_number(given: str | None) -> int:
    """An experiment's number out of its id; the default one's when it is empty.

    Raises:
        MlflowError: It is no number.
    """
    if not given:
        return 0
    if not (given.isascii() and given.isdecimal() and len(given) <= 18):
        raise MlflowError(INVALID, f"Invalid experiment ID '{given}'. Experiment ID must be a valid integer.")
    return int(given)


def lifecycles(view: str | int | None) -> tuple[str, ...]:
    """The lifecycles that a view shows."""
    return _VIEWS.get(int(view) if isinstance(view, str) and view.isdecimal() else view, ("active",))


def artifact_root(location: str, experiment: int) -> str:
    """Where an experiment's artifacts are kept, as the client is told."""
    return location or f"{SCHEME}{experiment}"


def artifact_uri(location: str, experiment: int, run: str) -> str:
    """Where a run's artifacts are kept, as the client is told."""
    root, mark, query = artifact_root(location, experiment).partition("?")
    return f"{root.rstrip('/')}/{to_hex(run)}/artifacts{mark}{query}"


def number(value: float | None) -> float | str:
    """A metric's value as the protocol tells it."""
    return "NaN" if value is None or math.isnan(value) else value


def check_key(kind: str, key: str | None, path: str, field: str) -> str:
    """The key of a metric, parameter or tag.

    Raises:
        MlflowError: It is missing or cannot be one.
    """
    if key is not None and rules.is_key(key):
        return key
    where = f"{path}.{field}" if path else field
    if key is None:
        raise missing(f"{path}.key" if path else "key")
    try:
        rules.check_key(kind, key)
    except InvalidInput as error:
        if "limit" in error.facts:
            raise MlflowError(INVALID, f"'{where}' exceeds the maximum length of {rules.MAX_KEY} characters") from None
        if error.facts.get("path"):
            raise invalid(where, key, _BAD_PATH) from None
        raise invalid(where, key, _BAD_LETTERS) from None
    return key
