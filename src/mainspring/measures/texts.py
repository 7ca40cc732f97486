"""Text and embeddings as a few numbers each, which the same bins and distances then watch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mainspring.errors import InvalidInput

Floats = NDArray[np.float64]
_WORD = re.compile(r"\w+")
_VOCABULARY = 10_000


def vocabulary(texts: Sequence[str | None], size: int = _VOCABULARY) -> frozenset[str]:
    """The most frequent words of a reference, in lower case."""
    found = Counter(word for text in texts if text for word in _WORD.findall(text.lower()))
    return frozenset(word for word, _ in found.most_common(size))


def text_measures(texts: Sequence[str | None], known: frozenset[str] = frozenset()) -> dict[str, Floats]:
    """Simple measures of each text, NaN where there is none.

    Args:
        texts: One for each row.
        known: `vocabulary` of the reference.

    Returns:
        ``length`` (characters), ``words``, and shares 0 to 1: ``out_of_vocabulary`` (of words), ``non_ascii``,
        ``digits``, ``upper`` (of characters).
    """
    names = ("length", "words", "out_of_vocabulary", "non_ascii", "digits", "upper")
    rows = np.array([_measures(text, known) for text in texts], dtype=np.float64).reshape(-1, len(names))
    return dict(zip(names, rows.T, strict=True))


def _measures(text: str | None, known: frozenset[str]) -> tuple[float, ...]:
    if text is None:
        return (np.nan,) * 6
    words, size = _WORD.findall(text.lower()), max(len(text), 1)
    strange = sum(word not in known for word in words)
    return (
        float(len(text)),
        float(len(words)),
        strange / len(words) if words else 0.0,
        sum(not letter.isascii() for letter in text) / size,
        sum(letter.isdigit() for letter in text) / size,
        sum(letter.isupper() for letter in text) / size,
    )


def projections(embeddings: Floats, count: int = 16, seed: int = 0) -> dict[str, Floats]:
    """Random directions through embeddings: columns that any drift measure can watch (Johnson and Lindenstrauss, 1984).

    Args:
        embeddings: ``[rows, dimensions]``.
        count: How many directions.
        seed: The same seed gives the same directions for every window.
    """
    if embeddings.ndim != 2:
        raise InvalidInput(f"embeddings have the shape [rows, dimensions], not {embeddings.shape}")
    directions = np.random.default_rng(seed).normal(size=(embeddings.shape[1], count))
    directions /= np.linalg.norm(directions, axis=0)
    return {f"projection_{place}": column for place, column in enumerate((embeddings @ directions).T)}


def mean_distance(reference: Floats, current: Floats) -> float:
    """Distance of the mean embeddings, in standard deviations of the reference (root of the mean variance)."""
    spread = float(np.sqrt(reference.var(axis=0).sum()))
    gap = float(np.linalg.norm(current.mean(axis=0) - reference.mean(axis=0)))
    return gap / spread if spread else (0.0 if gap == 0 else float("inf"))
