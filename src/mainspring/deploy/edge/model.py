"""Bundles, and the devices of a deployment whose environment is ``edge``."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from mainspring.core.entity import Entity, Value


class Quantisation(Value):
    """What a smaller model costs, measured on reference rows.

    Attributes:
        rows: Rows compared.
        max_difference: Largest difference of a score.
        mean_difference: Mean difference of a score.
        changed_labels: Share of rows whose label is another.
        before: Bytes of the original.
        after: Bytes of the quantised model.
    """

    rows: int
    max_difference: float
    mean_difference: float
    changed_labels: float
    before: int
    after: int


class EdgeBundle(Entity):
    """A model version as one signed file for devices.

    Attributes:
        tag: Its name among devices and its ETag: a digest over everything in it.
        version: Address of the model version.
        digest: Content address of the file.
        size: Bytes.
        quantisation: What quantisation cost; None when it is the original model.
    """

    __table__: ClassVar[str] = "edge_bundle"
    __unique__ = (("tag",),)
    __index__ = (("version", "created"),)
    tag: str
    version: str
    digest: str
    size: int
    quantisation: Quantisation | None = None


class Device(Entity):
    """A device that runs a deployment's model.

    Attributes:
        deployment: Name of the deployment.
        name: The device's name.
        seen: When it last reported.
        version: Address of the version it runs, or last tried.
        tag: Tag of that bundle.
        healthy: Whether the bundle passed the device's own check.
        error: Why not.
        predictions: How many predictions it has sent.
        dropped: How many it gave up for want of space.
    """

    __table__: ClassVar[str] = "edge_device"
    __unique__ = (("deployment", "name"),)
    deployment: str
    name: str
    seen: datetime
    version: str = ""
    tag: str = ""
    healthy: bool = True
    error: str = ""
    predictions: int = 0
    dropped: int = 0


class DeviceKey(Entity):
    """What lets the devices of a deployment in; the token itself is not kept.

    Attributes:
        deployment: Name of the deployment.
        digest: SHA-256 of the token.
    """

    __table__: ClassVar[str] = "edge_key"
    __unique__ = (("digest",),)
    __index__ = (("deployment",),)
    deployment: str
    digest: str


class Enrolment(Value):
    """What a device must know: its ``device.json``, but for ``url`` and ``device``.

    Attributes:
        deployment: Name of the deployment.
        token: What it sends; shown once.
        key: The public key that bundles must be signed with, hexadecimal.
    """

    deployment: str
    token: str
    key: str


class DeviceReport(Value):
    """What a device tells.

    Attributes:
        tag: The bundle it runs or tried.
        healthy: Whether the bundle passed its check.
        error: Why not.
        dropped: Predictions given up for want of space.
    """

    tag: str
    healthy: bool
    error: str = ""
    dropped: int = 0
