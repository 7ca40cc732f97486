"""Tests that may be looked at after every outcome and still keep their false-positive level.

The mixture sequential probability ratio test for the difference of two means: the likelihood ratio of "the difference
is drawn from N(0, tau^2)" against "it is 0", for an estimate d with variance v,

    L = sqrt(v / (v + tau^2)) exp(d^2 tau^2 / (2 v (v + tau^2))).

Without a difference L is a nonnegative martingale in the information 1 / v, so by Ville's inequality it ever reaches
1 / alpha with probability at most alpha, however often one looks (Robbins 1970; Johari, Pekelis and Walsh 2017,
"Peeking at A/B tests"). Turned around it gives a confidence sequence: intervals that all hold at once. Variances are
estimated, which makes the level asymptotic (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central
limit theory and asymptotic confidence sequences"); `MIN_ROWS` is where looking may begin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 50
"""Rows that each side needs before the normal approximation is used."""
_USUAL_EFFECT = 0.1


class Moments(msgspec.Struct, frozen=True):
    """What a test needs of a sample.

    Attributes:
        n: Number of values.
        mean: Their mean.
        variance: Their variance (n - 1 below the line).
    """

    n: int = 0
    mean: float = 0.0
    variance: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """The moments of values, which must be finite."""
        if not values.size:
            return cls()
        return cls(int(values.size), float(values.mean()), float(values.var(ddof=1)) if values.size > 1 else 0.0)


class Comparison(msgspec.Struct, frozen=True):
    """What is known about one difference of means, at whatever moment one looks.

    Attributes:
        difference: Mean of the second sample less that of the first, in units of the values.
        low: Lower end of the confidence sequence; None while there is too little evidence.
        high: Upper end.
        p: Always-valid p-value of this look; the least of all looks is valid too.
    """

    difference: float = 0.0
    low: float | None = None
    high: float | None = None
    p: float = 1.0

    @property
    def proven(self) -> int:
        """1 when the second mean is proven greater, -1 when it is proven less, otherwise 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def compare_means(first: Moments, second: Moments, alpha: float = 0.05, effect: float = 0.0) -> Comparison:
    """One look at the difference of two means.

    Args:
        first: The sample that is compared with.
        second: The other sample.
        alpha: Chance that the sequence of intervals ever misses the true difference.
        effect: The difference that the test is most sensitive to, in units of the values (``tau``); 0 takes a tenth of
            the standard deviation. It changes how soon a difference is found, never the level.
    """
    difference = second.mean - first.mean
    if min(first.n, second.n) < MIN_ROWS:
        return Comparison(difference)
    variances = [_floored(sample) for sample in (first, second)]
    v = sum(variance / sample.n for variance, sample in zip(variances, (first, second), strict=True))
    if not v:
        return Comparison(difference)
    tau2 = effect**2 or _USUAL_EFFECT**2 * sum(variances) / 2
    log_ratio = 0.5 * math.log(v / (v + tau2)) + difference**2 * tau2 / (2 * v * (v + tau2))
    width = math.sqrt(2 * v * (v + tau2) / tau2 * (math.log(1 / alpha) + 0.5 * math.log((v + tau2) / v)))
    return Comparison(difference, difference - width, difference + width, min(1.0, math.exp(-log_ratio)))


def _floored(sample: Moments) -> float:
    """The variance, of which a few rare events that happen not to have come yet must not make a certainty.

    A value that was seen in no row may still have a share of about 1 / n (the rule of succession): the square of the
    mean's scale over n is added.
    """
    return sample.variance + max(sample.mean**2, sample.variance) / sample.n


class Standing(msgspec.Struct, frozen=True):
    """Where a test of several arms stands.

    Attributes:
        best: The arm that is proven better than every other one, or, once the test is over, the best of those that are
            proven better than the first; empty while there is none.
        over: Whether the test has come to its end.
        against: Arm -> its comparison with the first arm.
    """

    best: str
    over: bool
    against: dict[str, Comparison]


def standing(arms: Mapping[str, Moments], alpha: float, most: int, effect: float = 0.0) -> Standing:
    """Compares every pair of arms; more is better. The first arm is the one that stays when there is no difference.

    The level is shared among the pairs (Bonferroni), so that the chance of any false claim ever is at most ``alpha``.

    Args:
        arms: Arm -> its moments; at least two.
        alpha: The level of the whole test.
        most: Values of all arms together at which the test ends, whatever is known by then.
        effect: See `compare_means`.
    """
    names = list(arms)
    pairs = list(combinations(names, 2))
    found = {pair: compare_means(arms[pair[0]], arms[pair[1]], alpha / len(pairs), effect) for pair in pairs}
    best = next((name for name in names if all(_beats(found, name, other) for other in names if other != name)), "")
    over = bool(best) or sum(arm.n for arm in arms.values()) >= most
    against = {name: found[(names[0], name)] for name in names[1:]}
    if over and not best:
        better = [name for name, comparison in against.items() if comparison.proven > 0]
        best = max(better, key=lambda name: arms[name].mean, default="")
    return Standing(best, over, against)


def _beats(found: Mapping[tuple[str, str], Comparison], name: str, other: str) -> bool:
    return found[(name, other)].proven < 0 if (name, other) in found else found[(other, name)].proven > 0


def first_of_each(keys: Sequence[str | None]) -> list[int]:
    """The place of each key's first row: rows of one key are no independent evidence. Rows without a key all count."""
    seen: set[str] = set()
    places = []
    for place, key in enumerate(keys):
        if key is not None and key in seen:
            continue
        if key is not None:
            seen.add(key)
        places.append(place)
    return places


def sample_ratio_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """How likely keys that were divided by these shares are to come out as unevenly as these counts, or more so.

    A small value says that the assignment itself is broken (sample ratio mismatch), and no comparison can be trusted.
    The goodness-of-fit test of Pearson; for few arms its distribution is known in closed form.

    Args:
        counts: Keys of each arm, at most four arms.
        shares: What each arm should have, in any unit.
    """
    total, whole = sum(counts), sum(shares)
    if not total or len(counts) < 2:
        return 1.0
    expected = [total * share / whole for share in shares]
    chi2 = sum((count - wanted) ** 2 / wanted for count, wanted in zip(counts, expected, strict=True))
    if len(counts) == 2:
        return math.erfc(math.sqrt(chi2 / 2))
    if len(counts) == 3:
        return math.exp(-chi2 / 2)
    return math.erfc(math.sqrt(chi2 / 2)) + math.sqrt(2 * chi2 / math.pi) * math.exp(-chi2 / 2)
