"""The streams of deployments: for each a process that answers its messages, started and kept running as declared."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from mainspring.core.operation import operation
from mainspring.deploy.service import Deployments
from mainspring.deploy.serving import StreamTable
from mainspring.errors import InvalidInput, NotFound
from mainspring.monitoring.notify.rules import filled
from mainspring.ports.stream import shown
from mainspring.ports.target import StreamPlan, Target, TargetStatus
from mainspring.store import Store

_HERE = "process"
_HINT = "an environment whose `target` is process, or `mainspring stream` where the broker is"


class Streams:
    """Processes that answer streams, one for each.

    They are processes of their own so that a broker that is away takes no request with it.

    Args:
        store: The database.
        deployments: The room `deploy`.
        target: Gives the target for an environment's address.
    """

    def __init__(self, store: Store, deployments: Deployments, target: Callable[[str], Target]) -> None:
        self._store = store
        self._deployments = deployments
        self._target = target

    @operation("GET", "/deployments/{deployment}/streams", command="list")
    def find(self, deployment: str) -> list[TargetStatus]:
        """Shows what runs for each stream that a deployment declares."""
        declared = self._deployments.show(deployment)
        target = self._target(self._place(declared.environment))
        return [_status(target, name) for name in declared.serving.scorers(deployment)]

    def reconcile(self, deployment: str) -> list[TargetStatus]:
        """Starts what died or is new, changes what differs, ends what is no longer declared (for the controller).

        Raises:
            Unreachable: A broker does not answer; the next look tries again.
            InvalidInput: A secret is not set, or an address cannot be used.
        """
        declared = self._deployments.show(deployment)
        wanted, place = declared.serving.scorers(deployment), self._place(declared.environment)
        if not place.startswith(_HERE):
            if wanted:
                raise InvalidInput(f"streams are answered by processes, {deployment} is at {place}", hint=_HINT)
            return []
        target, number = self._target(place), len(wanted) + 1
        while _status(target, surplus := f"{deployment}.stream-{number}").revision:
            target.remove(surplus)
            number += 1
        if not wanted or not declared.live:
            return []
        spec = self._deployments.spec(deployment)
        alone = {"host": "127.0.0.1", "port": 0, "workers": 1, "token": None, "tls_cert": "", "tls_key": "",
                 "grpc_port": None, "models": (), "models_dir": "", "access_log": ""}  # fmt: skip
        found = []
        for name, table in wanted.items():
            before = _status(target, name)
            mine = msgspec.structs.replace(spec, name=name, streams=(_plan(table, deployment),), **alone)
            after = target.apply(mine)
            if after.pid != before.pid:
                with self._store.transaction() as tx:
                    tx.emit("deploy.stream.started", deployment, source=shown(table.source), target=shown(table.target))
            found.append(after)
        return found

    def _place(self, environment: str) -> str:
        return next(item.target for item in self._deployments.environments() if item.name == environment)


def _status(target: Target, name: str) -> TargetStatus:
    try:
        return target.status(name)
    except NotFound:  # never started, or ended in order
        return TargetStatus(name=name, state="stopped", revision=0)


def _plan(table: StreamTable, deployment: str) -> StreamPlan:
    source, target, dead = (filled(text, os.environ) for text in (table.source, table.target, table.dead))
    return StreamPlan(source=source, target=target, dead=dead, group=table.group or deployment, batch=table.batch)
