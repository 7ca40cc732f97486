"""What a name may be, what a deleted thing allows, how a value becomes text: decisions without I/O."""

from __future__ import annotations

import functools
import json
import math
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mainspring.core.ids import ALPHABET, ID_LENGTH, from_hex, to_hex
from mainspring.errors import Conflict, InvalidInput
from mainspring.tracking.model import Lifecycle, Run

MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
LARGEST = 1.7976931348623157e308
"""The largest number of 64 bits: infinities are kept as this, since JSON and one of the databases know none."""
SYSTEM = "system/"
"""Metrics of the machine begin with this; they are not what runs are compared by."""
RUN_NAME_TAG = "mlflow.runName"
_YEAR_9999 = 253_370_764_800_000_000
_KEY = re.compile(r"[/\w.\- :]*")


def check_key(kind: str, key: str) -> None:
    """Refuses names that could not be shown, searched or used as a path.

    Raises:
        InvalidInput: It is empty, too long, has other characters than letters, digits and ``_ - . space : /``, or would
            be another name when taken for a path.
    """
    hint = "letters, digits, `_`, `-`, `.`, space, `:` and `/`, at most 250 characters"
    if not key:
        raise InvalidInput(f"{kind} name cannot be empty: a key name must be provided", hint=hint, key=key)
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"invalid {kind} name: {key!r}", hint=hint, key=key)
    if len(key) > MAX_KEY:
        raise InvalidInput(
            f"{kind} name has {len(key)} characters, at most {MAX_KEY}", hint=hint, key=key, limit=MAX_KEY
        )
    if posixpath.normpath(key) != key or key == "." or key.startswith(("..", "/")):
        raise InvalidInput(
            f"invalid {kind} name: {key!r}", hint="a name must stay itself as a path", key=key, path=True
        )


def check_id(run: str) -> None:
    """Refuses what cannot be an id.

    Raises:
        InvalidInput: It has not the letters, or not so many.
    """
    if len(run) != ID_LENGTH or not ALPHABET.issuperset(run) or from_hex(to_hex(run)) != run:
        raise InvalidInput(f"{run[:40]!r} is not an id of a run", hint="`mainspring runs show NAME --json` tells it")


def check_time(microseconds: int) -> int:
    """A moment between 1970 and the year 9999, in microseconds since 1970.

    Raises:
        InvalidInput: It is another one.
    """
    if not 0 <= microseconds < _YEAR_9999:
        raise InvalidInput(f"{microseconds} is not a time", hint="microseconds since 1970")
    return microseconds


def check_step(step: int) -> int:
    """A step that databases can hold.

    Raises:
        InvalidInput: It has more than 63 bits.
    """
    if not -(2**63) <= step < 2**63:
        raise InvalidInput(f"{step} is not a step", hint="a whole number of 63 bits")
    return step


@functools.lru_cache(maxsize=10_000)
def is_key(key: str) -> bool:
    """Whether `check_key` lets a key pass; the same keys come again and again."""
    try:
        check_key("metric", key)
    except InvalidInput:
        return False
    return True


def finite(value: float) -> float:
    """The value, infinities as the largest number; NaN stays."""
    return value if math.isnan(value) else max(-LARGEST, min(LARGEST, value))


def text_of(value: Any) -> str:
    """A parameter's value as text, as searching sees it."""
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def check_unchanged(before: dict[str, Any], params: dict[str, str]) -> None:
    """A parameter has one value for ever.

    Raises:
        InvalidInput: A parameter was logged before with another value.
    """
    clashes = [
        {"key": key, "old_value": text_of(before[key]), "new_value": value}
        for key, value in params.items()
        if key in before and text_of(before[key]) != value
    ]
    if clashes:
        raise InvalidInput(
            f"parameter `{clashes[0]['key']}` was logged before with another value",
            hint="start another run for other parameters",
            clashes=clashes,
        )


def check_lifecycle(kind: str, name: str, found: Lifecycle, wanted: Lifecycle = "active") -> None:
    """Refuses changes of what is deleted.

    Raises:
        Conflict: The thing is in the other state.
    """
    if found != wanted:
        raise Conflict(
            f"the {kind} {name} must be {wanted}, it is {found}",
            hint=f"restore the {kind} first" if wanted == "active" else "only what is deleted can be restored",
            kind=kind,
            name=name,
            lifecycle=found,
            wanted=wanted,
        )


_SMALL_IS_GOOD = re.compile(
    r"(^|[_./ -])(loss|error|err|rmse|mse|mae|mape|nll|perplexity|ppl|wer|cer|fid|brier|ece|latency|time|duration|"
    r"seconds|ms|cost|bias|regret|drift|psi|entropy|distance|violations?)($|[_./ -])|loss|error",
    re.IGNORECASE,
)


def less_is_better(key: str) -> bool:
    """Whether small values of a metric are the good ones, as its name tells."""
    return bool(_SMALL_IS_GOOD.search(key))


def fields_of(run: Run) -> dict[str, Any]:
    """What may tell a run from another, by the names that the filter language knows them by."""
    named = {
        "status": run.status, "experiment": run.experiment, "pipeline": run.pipeline, "use_case": run.use_case,
        "source": run.source, "trigger": run.trigger, "user": run.actor, "code": run.code.commit[:12],
        "datasets": ", ".join(run.datasets),
    }  # fmt: skip
    return {
        **{f"metrics.{key}": value for key, value in run.metrics.items() if not key.startswith(SYSTEM)},
        **{f"params.{key}": value for key, value in run.params.items()},
        **{f"tags.{key}": value for key, value in run.tags.items() if not key.startswith("mlflow.")},
        **named,
        **{f"environment.{key}": value for key, value in run.environment.items()},
    }


def common_metrics(runs: Sequence[Run], most: int = 4) -> list[str]:
    """The metrics that most of these runs have, as columns."""
    counted = Counter(key for run in runs for key in run.metrics if not key.startswith(SYSTEM))
    return [f"metrics.{key}" for key, _ in counted.most_common(most)]


def differing(runs: Sequence[Run], *, everything: bool = False) -> list[dict[str, Any]]:
    """A line per field in which runs differ (or per field at all): ``field``, then every run's name -> its value."""
    told = {run.name: fields_of(run) for run in runs}
    fields = dict.fromkeys(field for found in told.values() for field in found)
    lines = []
    for kind in ("metrics.", "params.", ""):
        for field in fields:
            if not field.startswith(kind) or (not kind and field.startswith(("metrics.", "params."))):
                continue
            values = [found.get(field) for found in told.values()]
            if everything or len({text_of(value) for value in values}) > 1:
                lines.append({"field": field, **{name: found.get(field) for name, found in told.items()}})
    return lines


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """The exponential moving average of a curve, corrected for its beginning at zero (Kingma and Ba, 2015)."""
    last, found = 0.0, []
    for index, value in enumerate(values, 1):
        last = weight * last + (1 - weight) * value
        found.append(last / (1 - weight**index))
    return found
