"""Operations on devices, of deployments whose environment has the target ``edge``; rollouts are those of `deploy`."""

from __future__ import annotations

import functools
import hashlib
import hmac
import io
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mainspring.core.actor import acting_as
from mainspring.core.humility import HumilityRule
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.deploy.edge import rules
from mainspring.deploy.edge.bundle import build
from mainspring.deploy.edge.model import Device, DeviceKey, DeviceReport, EdgeBundle, Enrolment, Quantisation
from mainspring.deploy.edge.quantise import quantise as quantised
from mainspring.deploy.edge.signing import Signer
from mainspring.deploy.model import Deployment, Environment
from mainspring.deploy.service import Deployments
from mainspring.errors import Conflict, InvalidInput, NotFound, Unauthorized
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.model import ModelVersion
from mainspring.registry.runtime import OnnxModel
from mainspring.registry.service import Models
from mainspring.store import Store

TARGET = "edge"
_MOST_DEVICES = 10_000


class Edge:
    """Bundles and devices.

    Args:
        store: The database.
        models: The room `registry`.
        deployments: Deployments.
        artifacts: Where bundles are stored.
        folder: Where models are unpacked.
        key: File of the signing key.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        deployments: Deployments,
        artifacts: ArtifactStore,
        folder: Path,
        key: Path,
    ) -> None:
        self._store = store
        self._models = models
        self._deployments = deployments
        self._artifacts = artifacts
        self._folder = folder
        self._signer = Signer(key)
        self._tag_of = functools.lru_cache(maxsize=256)(self._made)

    @operation("POST", "/edge/bundles", command="bundle")
    def export(
        self,
        version: str,
        deployment: str = "",
        quantise: bool = False,
        max_difference: float = 0.01,
    ) -> EdgeBundle:
        """Makes the signed bundle of a model version; made again from the same things, it is the same one.

        Args:
            version: The model version.
            deployment: Whose humility rules the bundle carries; none when left out.
            quantise: Whether its weights are made 8 bits wide; devices of the deployment then run that bundle.
            max_difference: Largest difference of a score that quantisation may cost.

        Raises:
            InvalidInput: The model cannot be quantised, or it would cost too much.
        """
        chosen = self._models.version(version)
        humility = self._deployments.show(deployment).humility if deployment else ()
        return self._bundle(chosen, humility, max_difference if quantise else None)

    @operation("GET", "/edge/bundles")
    def bundles(self, limit: int = 100) -> list[EdgeBundle]:
        """Lists bundles, newest first."""
        return self._store.find(EdgeBundle, order="-created", limit=limit)

    @operation("POST", "/edge/{deployment}/enrol")
    def enrol(self, deployment: str) -> Enrolment:
        """Makes a token for the devices of a deployment, told once, with the key that they check bundles with.

        Raises:
            Conflict: The deployment does not run on devices.
        """
        fleet = self._fleet(deployment)
        token = secrets.token_urlsafe(24)
        with self._store.transaction() as tx:
            tx.insert(
                DeviceKey(
                    id=new_id(), created=self._store.clock.now(), deployment=fleet.name,
                    digest=hashlib.sha256(token.encode()).hexdigest(),
                )
            )  # fmt: skip
            tx.emit("deploy.edge.enrolled", fleet.name)
        return Enrolment(deployment=fleet.name, token=token, key=self._signer.public())

    @operation("DELETE", "/edge/{deployment}/keys", command="lock")
    def lock(self, deployment: str) -> int:
        """Makes every token of a deployment's devices worthless; returns how many there were."""
        with self._store.transaction() as tx:
            keys = self._store.find(DeviceKey, deployment=self._fleet(deployment).name)
            for key in keys:
                tx.delete(key)
            tx.emit("deploy.edge.locked", deployment, keys=len(keys))
        return len(keys)

    @operation("GET", "/edge/{deployment}/devices")
    def devices(self, deployment: str) -> list[Device]:
        """Lists the devices of a deployment by name, with what they run and how they are."""
        return self._store.find(Device, order="name", limit=_MOST_DEVICES, deployment=self._fleet(deployment).name)

    def admit(self, deployment: str, token: str) -> None:
        """Lets a device in (not an operation).

        Raises:
            Unauthorized: The token is not one of the deployment's.
        """
        given = hashlib.sha256(token.encode()).hexdigest()
        known = self._store.find(DeviceKey, deployment=deployment)
        if not any(hmac.compare_digest(given, key.digest) for key in known):
            raise Unauthorized("the device's token is missing or wrong", hint=f"mainspring edge enrol {deployment}")

    def wanted(self, deployment: str, device: str) -> EdgeBundle:
        """The bundle that a device is to run (not an operation: devices ask by their own route).

        Raises:
            NotFound: Nothing is released to the deployment yet.
        """
        fleet = self._fleet(deployment)
        version = rules.wanted(fleet, device)
        if not version:
            raise NotFound(f"nothing is released to {deployment} yet", hint="mainspring deploy VERSION")
        tag = self._tag_of(version, tuple(fleet.humility))
        return self._store.get(EdgeBundle, tag=tag, listing="mainspring edge bundles")

    def report(self, deployment: str, device: str, told: DeviceReport) -> Device:
        """Notes what a device tells (not an operation); devices that refuse a version take its rollout back."""
        fleet = self._fleet(deployment)
        bundle = self._store.first(EdgeBundle, tag=told.tag)
        version = bundle.version if bundle else ""
        now = self._store.clock.now()
        with self._store.transaction() as tx:
            before = self._store.first(Device, deployment=fleet.name, name=device)
            facts: dict[str, Any] = {
                "version": version, "tag": told.tag, "healthy": told.healthy,
                "error": told.error[:500], "dropped": told.dropped, "seen": now,
            }  # fmt: skip
            if before is None:
                found = tx.insert(Device(id=new_id(), created=now, deployment=fleet.name, name=device, **facts))
            else:
                found = tx.update(msgspec.structs.replace(before, **facts))
            if before is None or (before.tag, before.healthy) != (found.tag, found.healthy):
                kind = "updated" if told.healthy else "refused"
                tx.emit(f"deploy.device.{kind}", f"{fleet.name}/{device}", version=version, error=found.error)
            if not told.healthy and (reason := rules.objection(fleet, self.devices(fleet.name))):
                with acting_as("devices", "service"):
                    self._deployments.rollback(fleet.name, reason)
        return found

    def received(self, deployment: str, device: str, count: int) -> None:
        """Counts predictions that a device has sent (not an operation)."""
        with self._store.transaction() as tx:
            if known := self._store.first(Device, deployment=deployment, name=device):
                tx.update(msgspec.structs.replace(known, predictions=known.predictions + count))

    def _fleet(self, name: str) -> Deployment:
        deployment = self._deployments.show(name)
        environment = self._store.get(Environment, name=deployment.environment, listing="mainspring deployments list")
        if environment.target != TARGET:
            raise Conflict(
                f"{name} runs on `{environment.target}`, not on devices",
                hint='declare an environment whose target is "edge"',
            )
        return deployment

    def _made(self, version: str, humility: tuple[HumilityRule, ...]) -> str:
        """The tag of the version's bundle with these rules; a quantised one is taken where somebody made one."""
        made = self._store.find(EdgeBundle, version=version, order="-created")
        chosen = next((item.quantisation for item in made if item.quantisation), None)
        limit = chosen.max_difference if chosen else None
        return self._bundle(self._models.version(version), humility, limit).tag

    def _bundle(
        self, version: ModelVersion, humility: Sequence[HumilityRule], max_difference: float | None
    ) -> EdgeBundle:
        model = OnnxModel(self._models.unpack(version.address, self._folder))
        rows = self._rows(version)
        cost: Quantisation | None = None
        with tempfile.TemporaryDirectory() as folder:
            if max_difference is not None:
                if rows is None:
                    raise InvalidInput(
                        f"{version.address} has no reference rows to measure quantisation on",
                        hint="let the pipeline return `reference`",
                    )
                content, cost = quantised(model, rows, max_difference)
                (Path(folder) / "model.onnx").write_bytes(content)
                (Path(folder) / "signature.json").write_bytes(model.signature.to_json())
                model = OnnxModel(Path(folder))
            tag, packed = build(model, version.address, humility, rows, self._signer.sign)
        blob = self._artifacts.put(packed)
        with self._store.transaction() as tx:
            if before := self._store.first(EdgeBundle, tag=tag):
                return before
            bundle = EdgeBundle(
                id=new_id(), created=self._store.clock.now(), tag=tag, version=version.address,
                digest=blob.digest, size=blob.size, quantisation=cost,
            )  # fmt: skip
            tx.insert(bundle)
            tx.own(blob.digest, f"model:{version.address}", blob.size)
            tx.emit("deploy.edge.bundled", version.address, tag=tag, size=blob.size, quantised=cost is not None)
        self._tag_of.cache_clear()
        return bundle

    def _rows(self, version: ModelVersion) -> pl.DataFrame | None:
        digest = version.reference or version.holdout
        if not digest:
            return None
        rows = pl.read_parquet(io.BytesIO(self._artifacts.read(digest)))
        names = [field.name for field in version.signature.inputs]
        return rows.select(names).head(5000) if set(names) <= set(rows.columns) else None
