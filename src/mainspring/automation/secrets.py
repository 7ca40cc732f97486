"""Secrets of rules: each in a file of its own that only its owner may read, or in the environment."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

PREFIX = "MAINSPRING_HOOK_"


class Secrets:
    """What deliveries are verified with, and what webhooks are signed with.

    Args:
        folder: Where the files are.
        environment: Where ``MAINSPRING_HOOK_<RULE>`` is looked for first (upper case, every other character ``_``), so
            that all replicas of a server know the same secret.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = os.environ if environment is None else environment

    def read(self, rule: str) -> str:
        """The secret of a rule; empty when it has none."""
        if found := self._environment.get(variable(rule)):
            return found
        try:
            return (self._folder / f"{rule}.secret").read_text()
        except FileNotFoundError:
            return ""

    def make(self, rule: str) -> str:
        """Gives a rule a new secret; the one before is worthless at once."""
        secret = secrets.token_urlsafe(32)
        self.keep(rule, secret)
        return secret

    def keep(self, rule: str, secret: str) -> None:
        """Keeps a secret that somebody else has made."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = self._folder / f"{rule}.secret"
        fresh = place.with_suffix(f".{secrets.token_hex(4)}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret)
        fresh.replace(place)

    def forget(self, rule: str) -> None:
        """Removes a secret."""
        (self._folder / f"{rule}.secret").unlink(missing_ok=True)


def variable(rule: str) -> str:
    """The environment variable that may hold a rule's secret."""
    return PREFIX + "".join(letter if letter.isalnum() else "_" for letter in rule).upper()
