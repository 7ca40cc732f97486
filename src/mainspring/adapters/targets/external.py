"""Deployments that another system serves: it reports what it was asked, and nothing is started here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mainspring.adapters.targets.edge import EdgeTarget
from mainspring.errors import Unreachable
from mainspring.ports.target import TargetStatus


class ExternalTarget(EdgeTarget):
    """Notes which version is said to be in force; who serves it is told by people or by their own tools."""

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> ExternalTarget:
        """``external``, with the option ``root``: the folder of its memory."""
        del url
        return cls(Path(options["root"]))

    def status(self, name: str) -> TargetStatus:
        """See `Target.status`."""
        return msgspec.structs.replace(super().status(name), detail="served elsewhere")

    def endpoint(self, name: str) -> str:
        """See `Target.endpoint`; where it answers is not known here."""
        self.status(name)
        raise Unreachable(f"{name} is served by another system", hint="ask it there, and report what it was asked")
