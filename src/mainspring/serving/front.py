"""``/`` and ``/docs``: what a deployment answers and how it is asked, for whoever opens its address in a browser."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from mainspring.core.signature import Field
from mainspring.serving.host import Served
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Reply

_HTML = b"text/html; charset=utf-8"
_SAFE = b"content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
_SHOWN = 12
_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{overflow-x:auto;padding:.75rem 1rem;border:1px solid #8884;border-radius:6px}.scroll{overflow-x:auto}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}"
)


def page(name: str, served: Served | None, others: Sequence[str], url: str, *, guarded: bool) -> Reply:
    """The page.

    Args:
        name: Of the deployment's own model.
        served: That model, None where there is none.
        others: Names of further models.
        url: Where the caller reaches this server.
        guarded: Whether callers need a token.
    """
    parts = [f"<h1>{html.escape(name)}</h1>"]
    if isinstance(served, Lineup):
        parts += _columns(served, f"{url}/predict", guarded)
    links = [("/openapi.json", "OpenAPI"), ("/v2", "Open Inference Protocol"), ("/metrics", "metrics")]
    links += [(f"/v2/models/{other}/openapi.json", f"OpenAPI of {other}") for other in others[:_SHOWN]]
    parts.append("<p>" + " · ".join(f'<a href="{html.escape(href)}">{html.escape(word)}</a>' for href, word in links))
    head = (
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(name)}</title><style>{_STYLE}</style>'
    )
    text = f'<!doctype html><html lang="en"><meta charset="utf-8">{head}{"".join(parts)}'
    return Reply(200, text.encode(), _HTML, headers=_SAFE)


def _columns(lineup: Lineup, url: str, guarded: bool) -> list[str]:
    fields = lineup.signature.inputs
    body = json.dumps({"records": [{field.name: field.example() for field in fields}]}, ensure_ascii=False)
    lines = [f"curl {url}", *(["-H 'authorization: Bearer TOKEN'"] if guarded else [])]
    call = " \\\n  ".join([*lines, "-d '" + body.replace("'", "'\\''") + "'"])
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in (field.name, field.type, _taken(field))) + "</tr>"
        for field in fields
    )
    answered = {"regressor": "a score", "classifier": "a score and a label, yes from "}[lineup.signature.kind]
    if classes := lineup.signature.classes:
        answered = f"one of {', '.join(classes)} as label, and its probability as score"
    elif lineup.signature.kind == "classifier":
        answered += f"{lineup.signature.threshold:g} on"
    return [
        f"<p>Version {html.escape(lineup.live)} answers each row with {html.escape(answered)}.</p>",
        f"<pre>{html.escape(call)}</pre>",
        f'<div class="scroll"><table><tr><th>Column<th>Type<th>What it takes</tr>{rows}</table></div>',
    ]


def _taken(field: Field) -> str:
    """The values of a column in words."""
    told = []
    if field.min is not None or field.max is not None:
        low, high = (f"{edge:g}" if edge is not None else "any" for edge in (field.min, field.max))
        words = {
            "accept": " in training",
            "error": ", nothing else",
            "clamp": ", others are moved there",
            "null": ", others are null",
        }
        told.append(f"{low} to {high}" + words.get(field.outside, f", others are {field.default}"))
    if field.categories:
        more = ", …" if len(field.categories) > _SHOWN else ""
        words = {"accept": " in training", "error": ", nothing else", "null": ", others are null"}
        listed = ", ".join(field.categories[:_SHOWN]) + more
        told.append(listed + words.get(field.unknown, f", others are {field.default}"))
    if field.on_missing != "error":
        told.append("may be left out")
    if field.nullable:
        told.append("may be null")
    return "; ".join(told)
