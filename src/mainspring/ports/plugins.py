"""The one resolver of adapters: a port and an address such as ``s3://bucket`` -> the adapter registered for the scheme.

Adapters register as entry points of the group ``mainspring.<port>``, named after their URL scheme; ours use the same
door. An adapter is a class with ``from_url(url, options)``.
"""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from mainspring.errors import InvalidInput, MainspringError

PORTS = ("artifacts", "executors", "notifiers", "streams", "targets")


def resolve(port: str, url: str, **options: str) -> Any:
    """The adapter for an address, constructed; what the options mean is the adapter's affair.

    Raises:
        InvalidInput: No adapter is registered for its scheme, or it cannot be loaded.
    """
    scheme = urlsplit(url).scheme or url
    known = _known(port)
    if scheme not in known:
        offered = ", ".join(f"{name}://" for name in sorted(known)) or "none: is Mainspring installed?"
        raise InvalidInput(f"no adapter for `{scheme}://` ({port})", hint=f"known: {offered}")
    module, _, name = known[scheme].partition(":")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(
            f"the adapter for `{scheme}://` cannot be loaded: {error}", hint="reinstall its package"
        ) from error
    return kind.from_url(url, options)


@functools.cache
def _known(port: str) -> dict[str, str]:
    """Scheme -> adapter; to ask every package on the path takes longer than to open a database."""
    return {entry.name: entry.value for entry in entry_points(group=f"mainspring.{port}")}


def installed() -> list[dict[str, str]]:
    """Every registered adapter, with the package it comes from and whether it loads."""
    rows = []
    for port in PORTS:
        for entry in entry_points(group=f"mainspring.{port}"):
            try:
                entry.load()
                state = "ok"
            except (ImportError, AttributeError, MainspringError) as error:
                state = f"failed: {error}"
            origin = entry.dist.name if entry.dist else "?"
            rows.append({"port": port, "name": entry.name, "origin": origin, "adapter": entry.value, "state": state})
    return rows
