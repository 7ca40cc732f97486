"""One tree of errors: what happened, a hint with the exact next step, and how each is told over HTTP and in a shell.

MainspringError                 code              HTTP   exit
├── InvalidInput                invalid_input      422    2
│   └── InvalidProject          invalid_project    422    2
├── NotFound                    not_found          404    3
├── Conflict                    conflict           409    1
├── Refused                     refused            403    4
├── Unauthorized                unauthorized       401    1
├── Unreachable                 unreachable        503    5
├── MissingExtra                missing_extra      501    1
├── StoreError                  store_error        500    1
│   ├── SchemaMismatch          schema_mismatch    500    1
│   ├── CorruptArtifact         corrupt_artifact   500    1
│   └── StorageFull             storage_full       507    1
└── StepFailed                  step_failed        500    1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class MainspringError(Exception):
    """Something went wrong that the user can understand and act on.

    Args:
        message: What happened, one sentence, no stack trace.
        hint: The next step, best an exact command.
        **facts: Values a program may want (names, limits); they travel in the JSON body.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "run `mainspring doctor` to check the installation"

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.facts = facts

    def body(self) -> dict[str, Any]:
        """The one JSON shape of an error, over HTTP and with ``--json``."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.facts:
            error["facts"] = self.facts
        return {"error": error}

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (steps run in workers); the default reduce loses keyword arguments.
        return _rebuild, (type(self), self.message, self.hint, self.facts)


def _rebuild(kind: type[MainspringError], message: str, hint: str, facts: dict[str, Any]) -> MainspringError:
    return kind(message, hint=hint, **facts)


class InvalidInput(MainspringError):
    """A value, file or request does not have the form that is asked for."""

    code = "invalid_input"
    status = 422
    exit_code = 2
    default_hint = "see the command's `--help` for what is accepted"


class InvalidProject(InvalidInput):
    """The project file cannot be read as one: unknown key, wrong type, missing value."""

    code = "invalid_project"
    default_hint = "`mainspring init` writes a commented project file to compare with"


class NotFound(MainspringError):
    """A name or id that does not exist here."""

    code = "not_found"
    status = 404
    exit_code = 3
    default_hint = "list what exists, for instance with `mainspring models list`"


class Conflict(MainspringError):
    """The request contradicts the present state: name taken, already decided, changed in between."""

    code = "conflict"
    status = 409
    default_hint = "look at the present state with `mainspring status`"


class Refused(MainspringError):
    """A rule, gate or permission says no."""

    code = "refused"
    status = 403
    exit_code = 4
    default_hint = "the reason is recorded with the decision: `mainspring approvals list`"


class Unauthorized(MainspringError):
    """The caller is not known."""

    code = "unauthorized"
    status = 401
    default_hint = "send a token: `Authorization: Bearer …`, or set MAINSPRING_TOKEN"


class Unreachable(MainspringError):
    """A server, process or store does not answer."""

    code = "unreachable"
    status = 503
    exit_code = 5
    default_hint = "is it running? start it with `mainspring up`"


class MissingExtra(MainspringError):
    """An optional package is needed for this and not installed."""

    code = "missing_extra"
    status = 501
    default_hint = "install the extra that the message names"

    @classmethod
    def named(cls, what: str, extra: str) -> MissingExtra:
        """The usual form: ``what`` needs ``pip install 'mainspring[extra]'``."""
        return cls(f"{what} needs an optional package", hint=f"pip install 'mainspring[{extra}]'", extra=extra)


class StoreError(MainspringError):
    """The database or the artifact store cannot do what was asked."""

    code = "store_error"


class SchemaMismatch(StoreError):
    """The database was written by another version of Mainspring."""

    code = "schema_mismatch"


class CorruptArtifact(StoreError):
    """Stored bytes no longer have the digest they were stored under."""

    code = "corrupt_artifact"
    default_hint = "restore the blob from a backup, or register the data again"


class StorageFull(StoreError):
    """No space left where the database or the artifacts live."""

    code = "storage_full"
    status = 507
    default_hint = "free some space and repeat the command: nothing was half-written"


class StepFailed(MainspringError):
    """The user's own code in a pipeline step raised."""

    code = "step_failed"
    default_hint = "read the step's log on the run's page"


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like ``name``, best first, at most ``count``."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.4)


def unknown_name(kind: str, name: str, known: Iterable[str], *, listing: str) -> NotFound:
    """A `NotFound` for ``name`` that offers the three nearest names, or the command ``listing`` them."""
    close = nearest(name, known)
    offer = "did you mean " + " or ".join(f"`{item}`" for item in close) + "?" if close else ""
    return NotFound(
        f"no {kind} named `{name}`",
        hint=" ".join(filter(None, [offer, f"list them: `{listing}`"])),
        kind=kind,
        name=name,
    )
