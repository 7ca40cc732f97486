"""SQL over dataset versions: one SELECT that reads nothing but them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from mainspring.errors import InvalidInput

_FILE_FUNCTION = re.compile(r"\b(read|scan)_(csv|parquet|ipc|json|ndjson|jsonl|avro|delta|iceberg|database)\b", re.I)
_SCAN = re.compile(r"SCAN \[([^\],]*)")


def query(tables: Mapping[str, Sequence[Path]], sql: str) -> pl.LazyFrame:
    """The answer of a query, lazily.

    Args:
        tables: Name -> Parquet files, one below the other.
        sql: One ``SELECT``, possibly behind ``WITH``.

    Raises:
        InvalidInput: It is something else, names other files, or cannot be run; the message says why.
    """
    listed = f"its tables: {', '.join(tables)}"
    if not re.match(r"\s*(SELECT|WITH)\b", sql, re.I):
        raise InvalidInput("a query is one SELECT", hint=listed)
    if function := _FILE_FUNCTION.search(sql):
        # Whoever may send a query must not read the server's files with it.
        raise InvalidInput(f"a query cannot read files: `{function[0]}`", hint=listed)
    scanned = {
        name: pl.concat([pl.scan_parquet(file) for file in files], how="diagonal_relaxed")
        for name, files in tables.items()
    }
    try:
        answer = pl.SQLContext(scanned).execute(sql, eager=False)
        answer.collect_schema()
        plan = answer.explain(optimized=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        told = (str(error).splitlines() or ["empty"])[0]
        raise InvalidInput(f"the query cannot be run: {told}", hint=listed) from error
    ours = {str(file) for files in tables.values() for file in files}
    if foreign := [path for path in _SCAN.findall(plan) if path not in ours]:
        raise InvalidInput(f"a query cannot read files: {foreign[0]}", hint=listed)
    return answer
