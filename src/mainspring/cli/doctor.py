"""``mainspring doctor``: is everything in order, and what to do where it is not."""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import show
from mainspring.errors import MainspringError, SchemaMismatch
from mainspring.settings import Settings, load_settings

_MIN_FREE_BYTES = 1 << 30


class Check(NamedTuple):
    """One line of the report."""

    check: str
    state: str
    found: str
    hint: str = ""


@click.command(cls=Command)
@click.option("--fix", is_flag=True, help="Upgrade the database and sweep what nobody owns.")
@pass_context
def doctor(context: Context, fix: bool) -> int:
    """Check version, Python, database, artifacts, disk, plugins, port and the event chain."""
    settings = load_settings(context.folder)
    rows = [check._asdict() for check in _checks(settings, fix)]
    show(context, rows, ["check", "state", "found", "hint"])
    return 1 if any(row["state"] == "failed" for row in rows) else 0


def _checks(settings: Settings, fix: bool) -> Iterator[Check]:
    import mainspring  # noqa: PLC0415 - start-up time

    yield Check("version", "ok", f"mainspring {mainspring.__version__}, Python {platform.python_version()}")
    yield _try("python", _python)
    yield _try("database", lambda: _database(settings, fix))
    yield _try("artifacts", lambda: _artifacts(settings))
    yield _try("event chain", lambda: _chain(settings))
    if fix:
        yield _try("orphans", lambda: _sweep(settings))
    yield _try("disk", lambda: _disk(settings))
    yield _try("port", lambda: _port(settings))
    yield from _plugins()


def _try(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except MainspringError as error:
        return Check(name, "failed", error.message, error.hint)
    except OSError as error:
        return Check(name, "failed", str(error), "check permissions and paths")
    except Exception as error:  # noqa: BLE001 - whatever is broken, the other checks must still be made
        first = (str(error).splitlines() or [""])[0]
        return Check(
            name, "failed", f"{type(error).__name__}: {first}", "see whether the address and its rights are right"
        )


def _python() -> Check:
    new_enough = sys.version_info >= (3, 11)
    return Check(
        "python", "ok" if new_enough else "failed", sys.executable, "" if new_enough else "Python 3.11 or newer"
    )


def _database(settings: Settings, fix: bool) -> Check:
    from mainspring.store import Store, schema  # noqa: PLC0415 - start-up time

    store = Store(settings.database_url)
    shown = store.url.render_as_string(hide_password=True)
    try:
        if fix and schema.version(store.engine) not in (None, schema.HEAD):
            schema.upgrade(store.url)
        if schema.version(store.engine) is None:
            return Check("database", "ok", f"{shown}: empty, tables come with the first command")
        store.prepare()
        return Check("database", "ok", f"{shown}: schema {schema.HEAD}")
    except SchemaMismatch as error:
        return Check("database", "failed", error.message, error.hint)
    finally:
        store.close()


def _artifacts(settings: Settings) -> Check:
    from mainspring.ports.plugins import resolve  # noqa: PLC0415 - start-up time

    artifacts: Any = resolve("artifacts", settings.artifacts_url)
    content = f"doctor {time.time_ns()}".encode()
    blob = artifacts.put(content)
    try:
        same = artifacts.read(blob.digest) == content
    finally:
        artifacts.delete(blob.digest)
    return Check("artifacts", "ok" if same else "failed", f"{settings.artifacts_url}: written, read back, removed")


def _chain(settings: Settings) -> Check:
    from mainspring.store import Store  # noqa: PLC0415 - start-up time

    with contextlib.closing(Store(settings.database_url)) as store:
        store.prepare()
        return Check("event chain", "ok", f"{store.verify_events()} events, unbroken")


def _sweep(settings: Settings) -> Check:
    from mainspring.workspace import Workspace  # noqa: PLC0415 - start-up time

    with Workspace(settings) as workspace:
        return Check("orphans", "ok", f"{workspace.controller.sweep()} artifacts without an owner removed")


def _disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    enough = free > _MIN_FREE_BYTES
    return Check(
        "disk", "ok" if enough else "attention", f"{free / 1e9:.1f} GB free", "" if enough else "free some space"
    )


def _port(settings: Settings) -> Check:
    from mainspring.cli.up import listen  # noqa: PLC0415 - start-up time

    try:
        listen(settings).close()
    except MainspringError as error:
        return Check("port", "attention", f"{error.message}: perhaps `mainspring up` is running", error.hint)
    return Check("port", "ok", f"{settings['host']}:{settings['port']} is free")


def _plugins() -> Iterator[Check]:
    from mainspring.ports.plugins import installed  # noqa: PLC0415 - start-up time

    for row in installed():
        optional = row["state"] != "ok" and row["origin"] == "mainspring"
        state = "ok" if row["state"] == "ok" else "attention" if optional else "failed"
        yield Check(
            f"plugin {row['port']}",
            state,
            f"{row['name']}:// from {row['origin']}",
            "" if state == "ok" else row["state"],
        )
