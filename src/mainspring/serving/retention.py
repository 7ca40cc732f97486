"""How long predictions and outcomes are kept: old segments are removed, and the old rows of those between."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl

from mainspring.core.ids import new_id
from mainspring.deploy.service import Deployments
from mainspring.ports.artifacts import ArtifactStore
from mainspring.serving.model import Review, Segment
from mainspring.store import Store

_AT_ONCE = 1000
_DAY = timedelta(days=1)
_START = datetime(1970, 1, 1, tzinfo=UTC)


class Retention:
    """Removes what a deployment keeps no longer.

    Args:
        store: The database.
        deployments: The room `deploy`.
        artifacts: Where segments are; what nobody owns any more is swept from there.
    """

    def __init__(self, store: Store, deployments: Deployments, artifacts: ArtifactStore) -> None:
        self._store = store
        self._deployments = deployments
        self._artifacts = artifacts

    def run_due(self, deployment: str) -> int:
        """Removes what is too old (for the controller); by whole days, so that a segment is not rewritten all the time.

        Returns:
            How many rows of the log are gone.
        """
        days = self._deployments.show(deployment).log.retention_days
        if not days:
            return 0
        cutoff = self._store.clock.now() - timedelta(days=days)
        step = min(_DAY, timedelta(days=days / 10))
        cutoff = _START + (cutoff - _START) // step * step
        columns = self._store.columns(Segment)
        gone = 0
        for segment in self._store.find(Segment, columns.start < cutoff, deployment=deployment, limit=_AT_ONCE):
            gone += self._shorten(segment, cutoff)
        self._empty_reviews(deployment, cutoff)
        return gone

    def _shorten(self, segment: Segment, cutoff: datetime) -> int:
        """Removes the old rows of a segment, in one transaction; it is gone when no row is left."""
        time = "known" if segment.kind == "outcomes" else "time"
        left = pl.DataFrame()
        if segment.end >= cutoff:
            left = pl.read_parquet(io.BytesIO(self._artifacts.read(segment.digest))).filter(pl.col(time) >= cutoff)
        buffer = io.BytesIO()
        left.write_parquet(buffer, compression="zstd")
        blob = self._artifacts.put(buffer.getvalue()) if left.height else None
        owner = f"{segment.kind}:{segment.deployment}"
        with self._store.transaction() as tx:
            tx.delete(segment)
            tx.disown(segment.digest, owner)
            if blob:
                facts = {"digest": blob.digest, "rows": left.height, "start": left[time].min()}
                tx.insert(msgspec.structs.replace(segment, id=new_id(), **facts))
                tx.own(blob.digest, owner, blob.size)
            rows = segment.rows - left.height
            tx.emit(f"serving.{segment.kind}.expired", segment.deployment, rows=rows, before=cutoff)
        return rows

    def _empty_reviews(self, deployment: str, cutoff: datetime) -> None:
        """Takes the inputs out of the people's queue; who decided what, and why, stays."""
        columns = self._store.columns(Review)
        old = self._store.find(Review, columns.time < cutoff, columns.inputs != {}, deployment=deployment)
        with self._store.transaction() as tx:
            for review in old:
                tx.update(msgspec.structs.replace(review, inputs={}))
