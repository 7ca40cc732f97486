"""Mainspring: the whole machine-learning loop in one system.

The names below load on first use, so that ``import mainspring`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY: dict[str, str] = {
    "Client": "mainspring.client.client",
    "MainspringError": "mainspring.errors",
    "Workspace": "mainspring.workspace",
    "connect": "mainspring.client.client",
    "load_settings": "mainspring.settings",
    "log": "mainspring.tracking.active",
    "log_artifact": "mainspring.tracking.active",
    "log_figure": "mainspring.tracking.active",
    "log_model": "mainspring.tracking.active",
    "log_params": "mainspring.tracking.active",
    "log_table": "mainspring.tracking.active",
    "package": "mainspring.registry.packaging",
    "pipeline": "mainspring.pipelines.steps",
    "run": "mainspring.client.tracked",
    "set_tags": "mainspring.tracking.active",
    "step": "mainspring.pipelines.steps",
}

__all__ = [
    "Client",
    "MainspringError",
    "Workspace",
    "__version__",
    "connect",
    "load_settings",
    "log",
    "log_artifact",
    "log_figure",
    "log_model",
    "log_params",
    "log_table",
    "package",
    "pipeline",
    "run",
    "set_tags",
    "step",
]

if TYPE_CHECKING:
    from mainspring.client.client import Client, connect
    from mainspring.client.tracked import run
    from mainspring.errors import MainspringError
    from mainspring.pipelines.steps import pipeline, step
    from mainspring.registry.packaging import package
    from mainspring.settings import load_settings
    from mainspring.tracking.active import log, log_artifact, log_figure, log_model, log_params, log_table, set_tags
    from mainspring.workspace import Workspace


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mainspring' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
