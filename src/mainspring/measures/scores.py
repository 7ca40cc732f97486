"""Performance from counts over bins of the score: mergeable, without the rows, and estimated before outcomes are known.

200 equal bins of the probability hold, for each, how many rows there were, how many turned out positive, and the sum of
the scores. From these follow ranking, calibration and loss, within the width of a bin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.measures.metrics import Confusion, complete

Floats = NDArray[np.float64]
BINS = 200
_ECE_BINS = 10
_CLIP = 1e-15


class ScoreCounts(NamedTuple):
    """Rows by score; addition merges windows, replicas and groups.

    Attributes:
        rows: Rows in each of 200 bins of the score, float64.
        positives: Those whose outcome is 1; an estimate where outcomes are not known.
        scores: Sum of the scores in each bin.
        squares: Sum of the squared scores in each bin.
        positive_scores: Sum of the scores of the positives in each bin.
    """

    rows: Floats
    positives: Floats
    scores: Floats
    squares: Floats
    positive_scores: Floats

    def merged(self, other: ScoreCounts) -> ScoreCounts:
        """The counts of both."""
        return ScoreCounts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def means(self) -> Floats:
        """Mean score of each bin; its middle where it is empty."""
        middle = (np.arange(BINS) + 0.5) / BINS
        return np.asarray(np.divide(self.scores, self.rows, out=middle, where=self.rows > 0))


def score_counts(y: ArrayLike, score: ArrayLike) -> ScoreCounts:
    """Counts a batch.

    Args:
        y: Outcomes 0 or 1, or calibrated probabilities of 1 where outcomes are not known (`estimated`).
        score: Probabilities, 0 to 1; rows where either is missing are left out.
    """
    outcomes, scores = complete(y, score)
    place = np.clip((scores * BINS).astype(np.intp), 0, BINS - 1)
    weights = (None, outcomes, scores, scores * scores, outcomes * scores)
    return ScoreCounts(*(np.bincount(place, weights=item, minlength=BINS).astype(np.float64) for item in weights))


def estimated(score: ArrayLike, calibrated: ArrayLike | None = None) -> ScoreCounts:
    """What the counts will be on average once outcomes are known: confidence-based performance estimation (CBPE).

    Holds while the relation of score to outcome does (no concept drift); then every measure below, taken of these
    counts, is its estimate. After the NannyML documentation of CBPE.

    Args:
        score: Scores of the rows.
        calibrated: Probability that each is positive (`Calibration`); the score itself by default.
    """
    return score_counts(score if calibrated is None else calibrated, score)


def roc_auc(counts: ScoreCounts) -> float | None:
    """Chance that a positive scores above a negative; within a bin as often as not."""
    negatives = counts.rows - counts.positives
    total = counts.positives.sum() * negatives.sum()
    if not total > 0:
        return None
    below = negatives.cumsum() - negatives / 2
    return float((counts.positives * below).sum() / total)


def average_precision(counts: ScoreCounts) -> float | None:
    """Sum of precision over the steps of recall, from the highest bin down; None without positives."""
    positives, rows = counts.positives[::-1], counts.rows[::-1]
    if not positives.sum() > 0:
        return None
    seen = rows.cumsum()
    precision = np.divide(positives.cumsum(), seen, out=np.zeros(BINS), where=seen > 0)
    return float((precision * positives).sum() / positives.sum())


def brier(counts: ScoreCounts) -> float | None:
    """Mean squared difference of score and outcome: exact for outcomes 0 and 1."""
    total = counts.rows.sum()
    loss = counts.squares.sum() - 2 * counts.positive_scores.sum() + counts.positives.sum()
    return float(loss / total) if total else None


def log_loss(counts: ScoreCounts) -> float | None:
    """Mean negative log likelihood at the mean score of each bin."""
    total = counts.rows.sum()
    p = np.clip(counts.means, _CLIP, 1 - _CLIP)
    loss = counts.positives * np.log(p) + (counts.rows - counts.positives) * np.log1p(-p)
    return float(-loss.sum() / total) if total else None


def ece(counts: ScoreCounts) -> float | None:
    """Expected calibration error over ten equal-width bins (Naeini et al., 2015): exact."""
    total = counts.rows.sum()
    gaps = (counts.positives - counts.scores).reshape(_ECE_BINS, -1).sum(axis=1)
    return float(np.abs(gaps).sum() / total) if total else None


def confusion(counts: ScoreCounts, threshold: float = 0.5) -> dict[str, float]:
    """Rows on each side of a threshold by outcome: exact where the threshold is a multiple of 0.005."""
    above = np.arange(BINS) / BINS >= threshold - 1e-9
    tp, fp = counts.positives[above].sum(), (counts.rows - counts.positives)[above].sum()
    fn, tn = counts.positives[~above].sum(), (counts.rows - counts.positives)[~above].sum()
    return dict(zip(Confusion.__struct_fields__, map(float, (tp, fp, fn, tn)), strict=True))


def accuracy(counts: ScoreCounts, threshold: float = 0.5) -> float | None:
    """Share of rows on the right side of the threshold."""
    cells, total = confusion(counts, threshold), counts.rows.sum()
    return float((cells["tp"] + cells["tn"]) / total) if total else None


def f1(counts: ScoreCounts, threshold: float = 0.5) -> float | None:
    """Harmonic mean of precision and recall at the threshold."""
    cells = confusion(counts, threshold)
    whole = 2 * cells["tp"] + cells["fp"] + cells["fn"]
    return 2 * cells["tp"] / whole if whole else None


def calibration_curve(counts: ScoreCounts, bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean score, share of positives and rows of each equal-width bin that has rows; ``bins`` divides 200."""
    rows, positives, scores = (
        item.reshape(bins, -1).sum(axis=1) for item in (counts.rows, counts.positives, counts.scores)
    )
    return [
        (float(scores[place] / rows[place]), float(positives[place] / rows[place]), int(rows[place]))
        for place in np.flatnonzero(rows).tolist()
    ]


class Calibration(NamedTuple):
    """A rising step function from score to probability, learnt from rows with outcomes.

    Attributes:
        scores: Ascending.
        probabilities: Of class 1, at these scores; straight lines between them.
    """

    scores: Floats
    probabilities: Floats

    def __call__(self, score: ArrayLike) -> Floats:
        """Calibrated probabilities of scores."""
        return np.interp(np.asarray(score, dtype=np.float64), self.scores, self.probabilities)


def calibration(counts: ScoreCounts) -> Calibration:
    """Isotonic regression of outcome on score over the bins, by pooling adjacent violators (Ayer et al., 1955)."""
    pools: list[list[float]] = []  # positives, rows, sum of scores
    for place in np.flatnonzero(counts.rows).tolist():
        pools.append([float(counts.positives[place]), float(counts.rows[place]), float(counts.scores[place])])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [mine + theirs for mine, theirs in zip(pools[-1], last, strict=True)]
    if not pools:
        return Calibration(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    positives, rows, scores = np.array(pools).T
    return Calibration(scores / rows, positives / rows)
