"""Which version a device is to run, and when a rollout over devices is taken back."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.ids import point
from mainspring.deploy.edge.model import Device
from mainspring.deploy.model import Deployment

MIN_FAILED = 1
"""Devices that must have refused a version before a rollout is taken back: a bundle is either whole or not."""


def wanted(deployment: Deployment, device: str) -> str:
    """The version a device is to run: the canary on its share of devices, always the same ones; else the live one."""
    place = point(f"{deployment.name}/{device}") / 2**64 * 100
    return deployment.canary if deployment.canary and place < deployment.weight else deployment.live


def objection(deployment: Deployment, devices: Sequence[Device]) -> str:
    """Why the rollout must be taken back, or empty.

    Args:
        deployment: The deployment.
        devices: Its devices, as they last reported.
    """
    tried = [device for device in devices if device.version == deployment.canary] if deployment.canary else []
    failed = [device for device in tried if not device.healthy]
    if len(failed) < MIN_FAILED or len(failed) <= deployment.strategy.max_error_share * len(tried):
        return ""
    return f"{len(failed)} of {len(tried)} devices refused {deployment.canary}: {failed[0].name}: {failed[0].error}"
