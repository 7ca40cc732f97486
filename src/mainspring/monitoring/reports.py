"""What models that other systems serve were asked: ready counts, compared as everything else is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mainspring.core.operation import operation
from mainspring.deploy.service import Deployments
from mainspring.errors import InvalidInput, nearest
from mainspring.measures.bins import Bins, Profile
from mainspring.measures.reference import Reference
from mainspring.measures.window import encode, stacked
from mainspring.monitoring import fleet
from mainspring.monitoring.service import Monitors
from mainspring.serving.counting import Part
from mainspring.store import Store


class Reports:
    """Counts that others report; predictions themselves go to `Predictions.record`.

    Args:
        store: The database.
        deployments: The room `deploy`.
        monitors: References of versions.
    """

    def __init__(self, store: Store, deployments: Deployments, monitors: Monitors) -> None:
        self._store = store
        self._deployments = deployments
        self._monitors = monitors

    @operation("GET", "/deployments/{deployment}/bins", command="")
    def bins(self, deployment: str, version: str) -> dict[str, Bins]:
        """Tells over which bins a version's columns are counted: column -> edges or levels.

        Args:
            deployment: Its name.
            version: Address of the model version.
        """
        return dict(self._reference(deployment, version).layout.bins)

    @operation("POST", "/deployments/{deployment}/counts", command="")
    def counts(
        self, deployment: str, version: str, start: datetime, end: datetime, columns: dict[str, Profile],
        source: str = "", segment: str = "",
    ) -> int:  # fmt: skip
        """Stores the counts of a window that were made elsewhere; the same source and window again replaces them.

        Args:
            deployment: Its name.
            version: Address of the version that answered.
            start: Beginning of the window.
            end: End of the window (exclusive).
            columns: Column -> counts over the bins that `bins` tells; ``score`` is what the model said.
            source: Who counted: replica or shard.
            segment: Part of the population, such as ``origin=JFK``; empty for all.

        Returns:
            Rows of the window.

        Raises:
            InvalidInput: The window is empty, a column is unknown, or its counts are not over its bins.
        """
        if start.tzinfo is None or end.tzinfo is None or start >= end:
            raise InvalidInput("a window begins before it ends, both with their time zone")
        reference = self._reference(deployment, version)
        for name, profile in columns.items():
            _check(reference, name, profile)
        window = stacked(reference.layout, columns)
        blob = encode(window, reference.key)
        with self._store.transaction() as tx:
            fleet.keep_window(
                self._store, deployment, version, start, end, blob, rows=window.rows, segment=segment,
                source=source or "report",
            )  # fmt: skip
            tx.emit("monitoring.counts.stored", deployment, version=version, start=start, end=end, rows=window.rows)
        return window.rows

    def keep(self, deployment: str, version: str, parts: Sequence[Part], source: str) -> None:
        """Stores what rows of a batch job were counted for, all of it or nothing (not an operation).

        Args:
            deployment: Its name.
            version: Address of the version that scored them.
            parts: Their counts over the bins that `bins` tells, each of its hour or day.
            source: The job's run and the rows; the same again replaces them.
        """
        present = self._store.clock.now().replace(minute=0, second=0, microsecond=0)
        spans = [(part.start or present, (part.start or present) + part.length) for part in parts]
        with self._store.transaction() as tx:
            for (start, end), part in zip(spans, parts, strict=True):
                fleet.keep_window(
                    self._store, deployment, version, start, end, part.blob, rows=part.rows, source=source
                )
            facts = {"start": spans[0][0], "end": spans[-1][1], "rows": sum(part.rows for part in parts)}
            tx.emit("monitoring.counts.stored", deployment, version=version, **facts)

    def _reference(self, deployment: str, version: str) -> Reference:
        model = self._deployments.show(deployment).model
        if version.partition("@")[0] != model:
            raise InvalidInput(f"`{version}` is no version of `{model}`", hint=f"mainspring models versions {model}")
        reference = self._monitors.reference_of(deployment, version)
        if reference is None:
            raise InvalidInput(f"{version} has no reference rows", hint="register it with `reference=`")
        return reference


def _check(reference: Reference, name: str, profile: Profile) -> None:
    bins = reference.layout.bins
    if name not in bins:
        close = nearest(name, bins)
        hint = f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(bins)
        raise InvalidInput(f"the reference has no column `{name}`", hint=hint)
    slots, found = bins[name].slots, profile.counts
    if len(found) != slots:
        raise InvalidInput(f"column `{name}` has {slots} bins, not {len(found)}", hint="ask for its bins again")
    if min(found, default=0) < 0 or sum(found) != profile.n - profile.nulls or profile.finite > sum(found):
        raise InvalidInput(f"the counts of column `{name}` do not sum to its rows less its nulls")
