"""One table of settings. Their worth: argument > environment > ``[settings]`` of the project file > default."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mainspring.errors import InvalidInput, nearest

PROJECT_FILE = "mainspring.toml"


class Setting(NamedTuple):
    """One row of the table.

    Attributes:
        name: Its name in the project file; the environment variable is ``MAINSPRING_`` + upper case.
        default: Its default, which also gives the type.
        help: What it does, one line.
    """

    name: str
    default: str | int | float | bool
    help: str


SETTINGS: tuple[Setting, ...] = (
    Setting("home", ".mainspring", "folder of the workspace: database, artifacts, logs (relative to the project file)"),
    Setting("database", "", "sqlite:///path.db or postgresql://user@host/name; empty: SQLite in the home folder"),
    Setting("artifacts", "", "file:///path, s3://bucket, gs://bucket or az://container; empty: the home folder"),
    Setting(
        "executor",
        "process",
        "where steps and batch jobs run: process (one worker process), inline, ray or ray://host:10001",
    ),
    Setting("server", "", "address of a Mainspring server to work on; empty: the workspace of this folder"),
    Setting("host", "127.0.0.1", "address the server listens on; another than loopback needs a token"),
    Setting("port", 7460, "port of the server"),
    Setting(
        "page_url", "", "address of the pages in messages, such as https://ml.example.org; empty: the server's own"
    ),
    Setting("token", "", "token that requests must carry (server) or that is sent (client)"),
    Setting("cost_per_hour", 0.0, "what an hour of this machine costs: tracked runs and monitors then know costs"),
    Setting("tick", 2.0, "seconds between two looks of the controller"),
    Setting(
        "model_code",
        "none",
        "models that are code, loaded in a process of their own: none, source (Python files) or pickle (anything)",
    ),
    Setting("webhook_hosts", "", "hosts that webhooks may reach unencrypted and in this network, with commas between"),
    Setting("actor", "", "name under which changes are recorded; empty: the operating system's user"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


class Settings(Mapping[str, Any]):
    """The values in force and where each comes from.

    Args:
        root: The project's folder; relative paths start here.
        values: Setting -> value.
        origins: Setting -> ``default``, ``environment``, ``argument`` or the file.
    """

    def __init__(self, root: Path, values: dict[str, Any], origins: dict[str, str]) -> None:
        self.root = root
        self.origins = origins
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def home(self) -> Path:
        """The workspace's folder, absolute."""
        return (self.root / str(self["home"])).resolve()

    @property
    def database_url(self) -> str:
        """The database's address with its default filled in; a relative path starts at the project's folder."""
        url = str(self["database"]) or f"sqlite:///{self.home / 'mainspring.db'}"
        scheme, separator, path = url.partition(":///")
        return f"{scheme}{separator}{self.root / path}" if scheme == "sqlite" and path else url

    @property
    def local_url(self) -> str:
        """The address of the server's pages on this machine."""
        return f"http://{self['host']}:{self['port']}"

    @property
    def artifacts_url(self) -> str:
        """The artifact store's address with its default filled in."""
        return str(self["artifacts"]) or (self.home / "artifacts").as_uri()


def find_project(start: Path | None = None) -> Path:
    """The nearest folder upward that holds a project file, or ``start`` itself (the current folder by default)."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    return start


def load_settings(root: Path | None = None, environment: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
    """Gathers the settings of the project around ``root``.

    Raises:
        InvalidInput: A name is unknown or a value has the wrong type; the message says where it stands.
    """
    root = find_project(root)
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, "default")

    def put(name: str, value: Any, origin: str) -> None:
        if name not in _BY_NAME:
            close = nearest(name, _BY_NAME)
            hint = f"did you mean `{close[0]}`?" if close else "see `mainspring settings`"
            raise InvalidInput(f"unknown setting `{name}` ({origin})", hint=hint)
        values[name] = _typed(_BY_NAME[name], value, origin)
        origins[name] = origin

    for name, value in _file_settings(root / PROJECT_FILE).items():
        put(name, value, PROJECT_FILE)
    for setting in SETTINGS:
        text = environment.get(f"MAINSPRING_{setting.name.upper()}")
        if text is not None:
            put(setting.name, text, "environment")
    for name, value in arguments.items():
        if value is not None:
            put(name, value, "argument")
    return Settings(root, values, origins)


def _file_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    hint = "`mainspring init` writes one to compare with"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("settings", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name} is not TOML: {error}", hint=hint) from None
    except OSError as error:
        raise InvalidInput(f"{path.name} cannot be read: {error.strerror}", hint="check its rights") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"`settings` in {path.name} must be a table", hint="write `[settings]`, then `name = value`")
    return found


def _typed(setting: Setting, value: Any, origin: str) -> Any:
    kind = type(setting.default)
    try:
        if isinstance(value, str) and kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[value.lower()]
        if isinstance(value, str) and kind in (int, float):
            value = kind(value)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is kind and not (isinstance(value, float) and not math.isfinite(value)):
            return value
    except (KeyError, ValueError, OverflowError):
        pass
    shown = "***" if setting.name == "token" else repr(value)
    spoken = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
    raise InvalidInput(
        f"setting `{setting.name}` must be {spoken}, not {shown} ({origin})", hint=f"`{setting.name}`: {setting.help}"
    )
