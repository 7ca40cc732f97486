"""What scripts log beside numbers, as bytes that pages can show: tables and figures."""

from __future__ import annotations

import io
from typing import Any

from mainspring.errors import InvalidInput


def table_bytes(table: Any) -> bytes:
    """A table as Parquet.

    Args:
        table: A Polars or pandas frame, an Arrow table, or columns: name -> values.

    Raises:
        InvalidInput: This is no table.
    """
    import polars as pl  # noqa: PLC0415 - start-up time

    try:
        if isinstance(table, pl.LazyFrame):
            table = table.collect()
        if not isinstance(table, pl.DataFrame):
            # pandas, Arrow and DuckDB all offer their columns through Arrow's own interface.
            table = pl.DataFrame(table)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InvalidInput(
            f"a {type(table).__name__} is no table: {error}", hint="log a frame of Polars or pandas, or {name: values}"
        ) from None
    content = io.BytesIO()
    table.write_parquet(content, compression="zstd")
    return content.getvalue()


def figure_bytes(figure: Any, ending: str = "") -> tuple[bytes, str]:
    """A picture as bytes, and the ending its file gets where none was chosen.

    Args:
        figure: Of matplotlib, Plotly or PIL, or text of an SVG.
        ending: The ending that was chosen, such as ``.svg``.

    Raises:
        InvalidInput: This is no picture.
    """
    if hasattr(figure, "figure") and not hasattr(figure, "savefig"):  # axes of matplotlib
        figure = figure.figure
    content = io.BytesIO()
    if hasattr(figure, "savefig"):
        figure.savefig(content, format=(ending or ".png").removeprefix("."), bbox_inches="tight")
        return content.getvalue(), ".png"
    if hasattr(figure, "to_json") and hasattr(figure, "data"):
        return figure.to_json().encode(), ".json"
    if hasattr(figure, "save") and hasattr(figure, "mode"):
        kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF"}.get(ending, "PNG")
        figure.save(content, format=kind)
        return content.getvalue(), ".png"
    if isinstance(figure, str) and "<svg" in figure[:1000]:
        return figure.encode(), ".svg"
    raise InvalidInput(
        f"a {type(figure).__name__} is no picture", hint="log a figure of matplotlib, Plotly or PIL, or SVG as text"
    )
