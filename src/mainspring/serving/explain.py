"""Which column moved a score, and by how much: Shapley values by permutation, for any model, beside the event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isnan
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import InvalidInput
from mainspring.registry.load import Model, load_model
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Overloaded
from mainspring.serving.request import Answer, Batch

BACKGROUND = "background.json"
"""File of a package with rows that the version was trained on: column -> values."""
_PAIRS = 32
_MOST_ROWS = 100
_MOST_WAITING = 32
_MOST_MODELS = 4

Columns = Mapping[str, Sequence[Any]]


class Explanation(msgspec.Struct, frozen=True):
    """Why a row has its score.

    Attributes:
        method: ``permutation``.
        base: Mean score of the background rows that the row was compared with.
        score: What the model says of the row.
        contributions: Column -> what it added; together with `base` they are the score.
    """

    method: str
    base: float
    score: float
    contributions: dict[str, float]


def shapley(model: Model, row: Mapping[str, Any], background: Columns, pairs: int = _PAIRS) -> Explanation | None:
    """Explains a row by sampled Shapley values; None where the model has no score for it.

    The columns of a background row are replaced by the row's own, one after the other in a random order; each is given
    what the score changes by, and again in the reverse order (Castro, Gomez and Tejada 2009, "Polynomial calculation of
    the Shapley value based on sampling"; antithetic as in Mitchell, Cooper, Frank and Holmes 2022). The contributions
    of each pass add up to the difference of its two ends, so their means are additive, however few passes there are.

    Args:
        model: Scores rows.
        row: Column -> value, as the model sees it.
        background: Column -> values of the rows to compare with.
        pairs: How many orders, each taken forwards and backwards.
    """
    names = [field.name for field in model.signature.inputs]
    own = [row.get(name) for name in names]
    draw = random.Random(0)  # noqa: S311 - the same question has the same answer
    others = list(zip(*(background[name] for name in names), strict=True))
    states: list[list[Any]] = []
    orders: list[list[int]] = []
    for _ in range(pairs):
        other, order = draw.choice(others), draw.sample(range(len(names)), len(names))
        for way in (order, order[::-1]):
            state = list(other)
            states.append(state.copy())
            for place in way:
                state[place] = own[place]
                states.append(state.copy())
            orders.append(way)
    scores = model.score(dict(zip(names, zip(*states, strict=True), strict=True)), len(states))
    if any(map(isnan, scores)):
        return None
    steps = len(names) + 1
    added = dict.fromkeys(names, 0.0)
    for number, way in enumerate(orders):
        path = scores[number * steps : (number + 1) * steps]
        for step, place in enumerate(way):
            added[names[place]] += (path[step + 1] - path[step]) / len(orders)
    base = sum(scores[::steps]) / len(orders)
    return Explanation("permutation", base, scores[-1], added)


class Explainer:
    """Explains answers in a thread of its own, with models of its own: one in use may not be asked from two threads.

    Args:
        trusted: Types that original models may be made of beyond scikit-learn's own.
    """

    def __init__(self, trusted: Collection[str] = ()) -> None:
        self._trusted = trusted
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._loaded: dict[Path, tuple[Model, Columns]] = {}
        self._waiting = 0

    async def explain(self, lineup: Lineup, batch: Batch, answer: Answer) -> list[Explanation | None]:
        """Explains the scores of rows, each by the version that gave it; None where there is no score.

        Raises:
            InvalidInput: There are too many rows, or the version has no background rows.
            Overloaded: Too many explanations wait.
        """
        self.check(batch)
        columns = lineup.seen(batch)
        rows = [{name: values[row] for name, values in columns.items()} for row in range(batch.rows)]
        folders = [lineup.models[version].folder for version in answer.versions]
        self._waiting += 1
        try:
            asked = list(zip(folders, rows, strict=True))
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._explain, asked)
        finally:
            self._waiting -= 1

    def check(self, batch: Batch) -> None:
        """Refuses what would not be explained, before anything is scored; see `explain`."""
        if batch.rows > _MOST_ROWS:
            raise InvalidInput(f"{batch.rows} rows are too many to explain", hint=f"at most {_MOST_ROWS} at a time")
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("too many explanations wait", hint="ask again in a second")

    def close(self) -> None:
        """Ends the thread once it has answered."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _explain(self, asked: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[Explanation | None]:
        return [shapley(model, row, background) for folder, row in asked for model, background in [self._load(folder)]]

    def _load(self, folder: Path) -> tuple[Model, Columns]:
        found = self._loaded.get(folder)
        if found is None:
            try:
                background = msgspec.json.decode((folder / BACKGROUND).read_bytes(), type=dict[str, list[Any]])
            except OSError:
                raise InvalidInput(
                    f"{folder.name} cannot be explained: it has no rows to compare with",
                    hint=f"register the version with `reference=`, or put {BACKGROUND} beside its signature",
                ) from None
            while len(self._loaded) >= _MOST_MODELS:
                self._loaded.pop(next(iter(self._loaded)))
            found = self._loaded[folder] = load_model(folder, trusted=self._trusted), background
        return found


def asks(query: str) -> bool:
    """Whether a query asks for explanations: ``explain=true``.

    Raises:
        InvalidInput: It asks neither for them nor for none.
    """
    told = [part.partition("=")[2] for part in query.split("&") if part.partition("=")[0] == "explain"]
    if any(value not in ("true", "false") for value in told):
        raise InvalidInput("`explain` is true or false", hint="POST /predict?explain=true")
    return "true" in told
