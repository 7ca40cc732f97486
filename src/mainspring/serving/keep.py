"""What the prediction log keeps of a request: a sample of its rows, and columns masked before anything is written."""

from __future__ import annotations

import msgspec

from mainspring.core.ids import point
from mainspring.core.mask import Mask
from mainspring.serving.config import Config
from mainspring.serving.log import Frame

_SPAN = 1 << 64
_ALWAYS = ("error", "refused")


class Keep:
    """Decides what is logged.

    Args:
        sample: Share of rows, 0 to 1.
        mask: Columns that are hidden, and the key.
    """

    def __init__(self, sample: float, mask: Mask | None) -> None:
        self._below = int(sample * _SPAN) if sample < 1 else _SPAN
        self._weight = 1 / sample if sample else 0.0
        self._mask = mask

    @classmethod
    def of(cls, config: Config) -> Keep | None:
        """What a configuration asks for; None where everything is kept as it is."""
        mask = Mask(config.log_mask, config.mask_key) if config.log_mask else None
        return cls(config.log_sample, mask) if mask or config.log_sample < 1 else None

    def __call__(self, frame: Frame) -> Frame | None:
        """What of a frame is written; None for nothing."""
        if self._below < _SPAN:
            sampled = self._sampled(frame)
            if sampled is None:
                return None
            frame = sampled
        if self._mask is None:
            return frame
        return msgspec.structs.replace(frame, columns=self._mask.hide(frame.columns))

    def _sampled(self, frame: Frame) -> Frame | None:
        """The rows of the sample, and those that are kept always.

        The sample is drawn by another hash of the id than the one that divides rows between versions, and is the same
        for all versions, so that a shadow's rows find the live version's.
        """
        marks = frame.marks or {}
        inside = [point(f"log\0{id}") < self._below for id in frame.ids]
        places = [row for row, chosen in enumerate(inside) if chosen or row in marks or frame.roles[row] in _ALWAYS]
        if not places:
            return None
        pick = [frame.times, frame.ids, frame.versions, frame.roles, frame.scores, frame.labels]
        times, ids, versions, roles, scores, labels = ([values[row] for row in places] for values in pick)  # type: ignore[index]
        return msgspec.structs.replace(
            frame,
            times=times,
            ids=ids,
            versions=versions,
            roles=roles,
            scores=scores,
            labels=labels,
            columns={name: [values[row] for row in places] for name, values in frame.columns.items()},
            **{
                name: [values[row] for row in places]
                for name in ("latency_us", "caller", "request", "classes")
                if isinstance(values := getattr(frame, name), list)
            },
            marks={place: marks[row] for place, row in enumerate(places) if row in marks} or None,
            weights=[self._weight if inside[row] else 0.0 for row in places],
        )
