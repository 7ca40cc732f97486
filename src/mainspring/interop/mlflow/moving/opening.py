"""Which source an address means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from mainspring.interop.mlflow.moving.database import DatabaseSource
from mainspring.interop.mlflow.moving.folder import FolderSource
from mainspring.interop.mlflow.moving.records import Source
from mainspring.interop.mlflow.moving.server import ServerSource


def open_source(address: str, artifacts: Path | None = None) -> Source:
    """A server (``http://…``), a database (``sqlite:///…``, ``postgresql://…``) or a folder ``mlruns``.

    Args:
        address: Where it is.
        artifacts: Folder below which files of a database or folder are read.

    Raises:
        InvalidInput: There is no store of MLflow's.
        NotFound: There is nothing.
    """
    scheme = urlsplit(address).scheme.partition("+")[0]
    if scheme in ("http", "https"):
        return ServerSource(address)
    if scheme == "file":
        return FolderSource(Path(unquote(urlsplit(address).path)), artifacts)
    if "://" in address:
        return DatabaseSource(address, artifacts)
    return FolderSource(Path(address), artifacts)
