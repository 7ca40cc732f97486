"""Deployments on devices: nothing is pushed; devices ask, when they have a network, what they are to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mainspring.errors import NotFound, Unreachable
from mainspring.ports.target import TargetSpec, TargetStatus


class EdgeTarget:
    """Notes the wanted revision, which is in force at once: the server hands it to every device that asks.

    Args:
        root: The folder with one file per deployment.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute() / "edge"

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> EdgeTarget:
        """``edge``, with the option ``root``: the folder of its memory."""
        del url
        return cls(Path(options["root"]))

    def apply(self, spec: TargetSpec) -> TargetStatus:
        """See `Target.apply`."""
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = self._file(spec.name).with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode({"revision": spec.revision}))
        fresh.replace(self._file(spec.name))
        return self.status(spec.name)

    def status(self, name: str) -> TargetStatus:
        """See `Target.status`."""
        try:
            known = msgspec.json.decode(self._file(name).read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            raise NotFound(f"nothing named `{name}` runs on devices", hint="mainspring deployments list") from None
        return TargetStatus(name=name, state="running", revision=known["revision"], detail="on devices")

    def endpoint(self, name: str) -> str:
        """See `Target.endpoint`; devices answer where they are, not here."""
        self.status(name)
        raise Unreachable(f"{name} answers on its devices, not at one address", hint=f"mainspring edge devices {name}")

    def logs(self, name: str, lines: int = 100) -> list[str]:
        """See `Target.logs`; devices report health, not logs."""
        self.status(name)
        return []

    def remove(self, name: str) -> None:
        """See `Target.remove`; devices keep what they have."""
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._root / f"{name}.json"
