"""The workspace's signing key: made when it is first needed, and never leaving its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mainspring.errors import InvalidInput, MissingExtra


class Signer:
    """Signs with Ed25519.

    Args:
        path: The key's file (PEM, readable by its owner only); made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes."""
        return bytes(self._key().sign(message))

    def public(self) -> str:
        """The public key, hexadecimal: what devices are given."""
        return bytes(self._key().public_key().public_bytes_raw()).hex()

    def _key(self) -> Any:
        try:
            from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - optional
            from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
        except ModuleNotFoundError:
            raise MissingExtra.named("signing a bundle", "edge") from None
        if not self._path.exists():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = ed25519.Ed25519PrivateKey.generate()
            text = fresh.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
            written = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(text)
            try:
                os.link(written, self._path)  # of two that make one at the same time, the first stays
            except FileExistsError:
                pass
            finally:
                written.unlink()
        key = form.load_pem_private_key(self._path.read_bytes(), password=None)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise InvalidInput(f"{self._path} holds no Ed25519 key", hint="move it away: a new one is made")
        return key
