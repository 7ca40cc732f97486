"""Which column moved a score, and by how much: Shapley values."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mainspring.registry.load import Model

_PAIRS = 32

Columns = Mapping[str, Sequence[Any]]


class Explanation(msgspec.Struct, frozen=True):
    """Why a row has its score.

    Attributes:
        method: ``tree`` or ``linear``, which are exact, or ``permutation``, which is sampled.
        base: Mean of the background rows that the row was compared with.
        score: What the model says of the row.
        contributions: Column -> what it added; together with `base` they are the score, on its scale.
        scale: ``score``; ``log-odds`` where a linear or boosted classifier is explained before its logistic function.
    """

    method: str
    base: float
    score: float
    contributions: dict[str, float]
    scale: str = "score"


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
