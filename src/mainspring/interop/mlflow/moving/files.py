"""Files beside a store without a server: read from one folder, and from nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from mainspring.errors import InvalidInput, NotFound, Refused
from mainspring.tracking.files import check_path

_PROXIED = re.compile(r"mlflow-artifacts:(?://[^/]*)?/*(.*)", re.DOTALL)
_SERVED = "mlartifacts"
"""Where MLflow's server keeps what is sent through it, unless it is told otherwise."""


class LocalFiles:
    """The files below a folder.

    Args:
        root: The folder; what is outside of it is refused, also when a link leads there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def files(self, place: str) -> Iterator[tuple[str, int]]:
        """Path and size of every file at a place, by path; links are told with size -1 and judged when opened.

        Raises:
            Refused: It is outside of the folder.
            NotFound: There is no such folder, or it is at an address that is not read.
        """
        folder = self.folder(place)
        for base, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted([*names, *(name for name in folders if (Path(base) / name).is_symlink())]):
                found = Path(base) / name
                yield found.relative_to(folder).as_posix(), -1 if found.is_symlink() else found.stat().st_size

    def open(self, place: str, path: str) -> BinaryIO:
        """One of those files."""
        try:
            return self._inside(self.folder(place) / check_path(path)).open("rb")
        except OSError as error:
            raise NotFound(f"{path} cannot be read: {error.strerror}", hint="look at the folder") from None

    def folder(self, place: str) -> Path:
        """The folder that a place means."""
        for found in self._meant(place):
            inside = self._inside(found)
            if inside.is_dir():
                return inside
        raise NotFound(f"there is no folder {place}", hint="name the folder of the artifacts: --artifacts DIR")

    def _meant(self, place: str) -> list[Path]:
        if (proxied := _PROXIED.fullmatch(place)) is not None:
            within = check_path(proxied[1].rstrip("/"))
            return [self._root / within, self._root / _SERVED / within]
        parts = urlsplit(place)
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost"):
                raise Refused(
                    f"{place} is on another machine", hint="copy the files, and name the folder: --artifacts DIR"
                )
            return [Path(unquote(parts.path))]
        if parts.scheme and "://" in place:
            raise NotFound(f"files at {parts.scheme}:// are not read", hint="they stay where they are")
        return [self._root / place if not place.startswith("/") else Path(place)]

    def _inside(self, path: Path) -> Path:
        try:
            found = path.resolve()
        except (OSError, ValueError, RuntimeError):
            raise InvalidInput(f"{path} is no path", hint="look at the folder") from None
        if not found.is_relative_to(self._root):
            raise Refused(
                f"{path} is outside of {self._root}", hint="name the folder of the artifacts: --artifacts DIR"
            )
        return found
