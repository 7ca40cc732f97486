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
    from mainspring.measures.schema import as_frame  # noqa: PLC0415 - start-up time

    content = io.BytesIO()
    as_frame(table).write_parquet(content, compression="zstd")
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
    try:
        if hasattr(figure, "savefig"):
            return _of_matplotlib(figure, ending), ".png"
        if hasattr(figure, "to_json") and hasattr(figure, "data"):
            return _of_plotly(figure, ending), ".json"
        if hasattr(figure, "save") and hasattr(figure, "mode"):
            return _of_pil(figure, ending), ".png"
    except (ValueError, KeyError, OSError, ImportError, RuntimeError) as error:
        raise InvalidInput(
            f"this {type(figure).__name__} cannot be written as `{ending}`: {str(error)[:200]}",
            hint="leave the ending out",
        ) from None
    if isinstance(figure, str) and "<svg" in figure[:1000]:
        return figure.encode(), ".svg"
    raise InvalidInput(
        f"a {type(figure).__name__} is no picture", hint="log a figure of matplotlib, Plotly or PIL, or SVG as text"
    )


def _of_matplotlib(figure: Any, ending: str) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=(ending or ".png").removeprefix("."), bbox_inches="tight")
    return content.getvalue()


def _of_plotly(figure: Any, ending: str) -> bytes:
    if ending in ("", ".json"):
        told: str = figure.to_json()
        return told.encode()
    if ending in (".html", ".htm"):
        page: str = figure.to_html()
        return page.encode()
    return bytes(figure.to_image(format=ending.removeprefix(".")))  # by kaleido, where that is installed


def _of_pil(picture: Any, ending: str) -> bytes:
    content = io.BytesIO()
    kind = "JPEG" if ending in (".jpg", ".jpeg") else (ending or ".png").removeprefix(".").upper()
    if kind == "JPEG" and picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")  # it has no transparency
    picture.save(content, format=kind)
    return content.getvalue()
