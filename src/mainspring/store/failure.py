"""What a database driver says went wrong, in the house's form."""

from __future__ import annotations

import sqlalchemy as sa

from mainspring.errors import Conflict, InvalidInput, MainspringError, StorageFull, StoreError, Unreachable

_SAYINGS: tuple[tuple[tuple[str, ...], type[MainspringError], str, str], ...] = (
    (("disk is full", "no space left", "could not extend file"), StorageFull, "the database's disk is full", ""),
    (
        ("database is locked", "database table is locked", "lock timeout"),
        StoreError,
        "the database is locked by another program",
        "close what holds it, then repeat",
    ),
    (
        ("malformed", "not a database", "invalid page", "could not read block"),
        StoreError,
        "the database is damaged",
        "restore it from a backup",
    ),
    (
        ("readonly database", "read-only transaction", "permission denied"),
        StoreError,
        "the database may not be written",
        "check the rights of the file and its folder, or of the database's user",
    ),
    (
        ("unable to open database",),
        StoreError,
        "the database file cannot be opened",
        "check that its folder exists and may be written, or correct the setting `database`",
    ),
    (("unique constraint", "duplicate key"), Conflict, "this exists already", ""),
    (("foreign key",), Conflict, "this refers to something that does not exist, or is still referred to", ""),
    (
        ("no such table", "undefinedtable", "no such column", "undefinedcolumn"),
        StoreError,
        "the database lacks a table or column",
        "run `mainspring doctor --fix`",
    ),
)


def listen(engine: sa.Engine) -> None:
    """Makes everything that the engine's connections raise an error of the house."""

    @sa.event.listens_for(engine, "handle_error")
    def tell(context: sa.engine.ExceptionContext) -> None:
        error = context.sqlalchemy_exception or context.original_exception
        if context.connection is None or context.is_disconnect:
            raise _unreachable(error, engine.url) or translated(error)
        raise translated(error)


def _unreachable(error: BaseException, url: sa.URL) -> MainspringError | None:
    if url.get_backend_name() != "postgresql" or not isinstance(error, sa.exc.OperationalError):
        return None
    first, *_ = [*str(error.orig).splitlines(), ""]
    shown = url.render_as_string(hide_password=True)
    return Unreachable(f"no PostgreSQL at {shown}: {first}", hint="start it, or correct the setting `database`")


def translated(error: BaseException) -> BaseException:
    """A driver's error in the house's form; errors of other origin as they are."""
    if isinstance(error, MainspringError):
        return error
    cause = getattr(error, "orig", None) or error
    text = f"{type(cause).__name__}: {cause}".lower()
    for words, kind, message, hint in _SAYINGS:
        if any(word in text for word in words):
            return kind(message, hint=hint)
    # A number over 64 bits, a time without a zone, a text with a NUL or half a surrogate pair.
    named = any(kind.__name__ == "DataError" for kind in type(cause).__mro__)  # psycopg's own, which may be absent
    if named or isinstance(error, sa.exc.DataError) or isinstance(cause, (OverflowError, ValueError)):
        return InvalidInput(f"the database cannot hold this value: {cause}", hint="check numbers, times and texts")
    if isinstance(error, sa.exc.SQLAlchemyError):
        return StoreError(f"the database refused: {cause}")
    return error
