"""Try it: ask a deployment with values of one's own, see what it answers, and take the call along as code."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import polars as pl

from mainspring.core.signature import Field, Signature
from mainspring.data.local import local_copy
from mainspring.errors import InvalidInput, MainspringError
from mainspring.registry.model import ModelVersion
from mainspring.ui.charts.contributions import contributions
from mainspring.ui.formats import decision
from mainspring.ui.page import Page, Query, whole
from mainspring.workspace import Workspace

_EXAMPLES = 50
_MOST_CLASSES = 5
_VALUE = "v:"
"""What the name of a form's field begins with: a column may have any name, ``actor`` too."""


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """The form, filled with a row that the live version was measured against."""
    version = _live(workspace, name)
    place = whole(query, "row", 0, 0, _EXAMPLES - 1)
    record = _example(workspace, version, place) if version else {}
    return _page(workspace, name, version, record, place=place)


def ask(workspace: Workspace, form: Mapping[str, str], name: str) -> Page:
    """The same form with what the deployment answered to its values."""
    version = _live(workspace, name)
    if version is None:
        return _page(workspace, name, None, {})
    record: dict[str, Any] = {field.name: form.get(_VALUE + field.name, "") for field in version.signature.inputs}
    try:
        record = {field.name: _read(field, str(record[field.name])) for field in version.signature.inputs}
        start = time.perf_counter()
        told = workspace.predictions.ask(name, {"records": [record]}, explain=bool(form.get("explain")))
        milliseconds = (time.perf_counter() - start) * 1000
    except MainspringError as error:
        return _page(workspace, name, version, record, error=error)
    return _page(
        workspace, name, version, record, answer={"rules": [], **told["predictions"][0]}, milliseconds=milliseconds
    )


def _live(workspace: Workspace, name: str) -> ModelVersion | None:
    deployment = workspace.deployments.show(name)
    return workspace.models.version(deployment.live) if deployment.live else None


def _page(
    workspace: Workspace,
    name: str,
    version: ModelVersion | None,
    record: Mapping[str, Any],
    *,
    place: int = 0,
    answer: dict[str, Any] | None = None,
    milliseconds: float | None = None,
    error: MainspringError | None = None,
) -> Page:
    url = ""
    with contextlib.suppress(MainspringError):
        url = workspace.deployments.status(name).url
    title = f"Try {name}"
    if answer is not None:
        title = f"{answer['version']} answers {_said(answer)}"
    elif error is not None:
        title = f"{name} refuses this row"
    context = {
        "name": name,
        "version": version.address if version else "",
        "fields": [_shown(field, record.get(field.name)) for field in version.signature.inputs] if version else [],
        "kind": version.signature.kind if version else "",
        "threshold": version.signature.threshold if version else None,
        "running": bool(url),
        "answer": answer,
        "shares": _shares(answer) if answer else "",
        "milliseconds": milliseconds,
        "error": {"message": error.message, "hint": error.hint} if error else None,
        "explanation": _explanation(answer, record) if answer else None,
        "next": (place + 1) % _EXAMPLES,
        "calls": calls(version.signature, url, record) if version and not error else {},
    }
    crumbs = (("Deployments", "/deployments"), (name, f"/deployments/{name}"), ("Try it", ""))
    return Page(
        title=title, template="deployments/try.html", context=context, section="deployments", crumbs=crumbs,
        status=error.status if error else 200,
    )  # fmt: skip


def _explanation(answer: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Why the answer is what it is, where that was asked for and there is a score."""
    why = answer.get("explanation")
    if not why:
        return None
    added = why["contributions"]
    exact = {"linear": "exact, from the weights of the linear model", "tree": "exact, from its trees"}
    return {
        "picture": contributions(added, record, title="What each column added to the score"),
        "base": why["base"],
        "total": why["base"] + sum(added.values()),
        "scale": why["scale"],
        "method": exact.get(why["method"], "sampled orders of the columns"),
    }


def _said(answer: Mapping[str, Any]) -> str:
    if answer["score"] is None:
        return "nothing"
    score = f"{answer['score']:.4g}"
    return score if answer["label"] is None else f"{decision(answer['label'])} ({score})"


def _shares(answer: Mapping[str, Any]) -> str:
    """The probabilities of the likeliest classes, where the model tells several apart."""
    likeliest = sorted(answer.get("probabilities", {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.4g}" for name, share in likeliest[:_MOST_CLASSES])


def _shown(field: Field, value: Any) -> dict[str, Any]:
    """A field of the form."""
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    odd = text and field.categories is not None and text not in field.categories
    return {
        "name": field.name,
        "key": _VALUE + field.name,
        "type": field.type,
        "nullable": field.nullable,
        "value": text,
        "choices": [*field.categories, *([text] if odd else [])] if field.categories else None,
        "range": f"{field.min:g} to {field.max:g}" if field.min is not None and field.max is not None else "",
    }


def _read(field: Field, text: str) -> Any:
    """A value of the form.

    Raises:
        InvalidInput: It is not what the column holds.
    """
    if not text and (field.nullable or field.type != "string"):
        return None
    try:
        if field.type == "float":
            return float(text)
        if field.type == "int":
            return int(text)
    except ValueError:
        raise InvalidInput(f"`{field.name}`: `{text}` is not a number", hint=f"the column is a {field.type}") from None
    return text == "true" if field.type == "bool" else text


def _example(workspace: Workspace, version: ModelVersion, place: int) -> dict[str, Any]:
    """A row of the version's reference; the middle of what training saw where there is none."""
    names = [field.name for field in version.signature.inputs]
    digest = version.reference or version.holdout
    if digest:
        with contextlib.suppress(MainspringError, pl.exceptions.PolarsError):
            rows = pl.scan_parquet(local_copy(workspace.artifacts, digest)).select(names).head(_EXAMPLES).collect()
            if rows.height:
                return {
                    key: float(f"{value:.7g}") if isinstance(value, float) else value  # as many as a float32 has
                    for key, value in rows.row(place % rows.height, named=True).items()
                }
    return {field.name: field.example() for field in version.signature.inputs}


def calls(signature: Signature | None, url: str, record: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The request in curl, Python and JavaScript, with a row that the signature accepts."""
    if signature is None:
        return {}
    url = (url or "http://127.0.0.1:PORT") + "/predict"
    row = record or {field.name: field.example() for field in signature.inputs}
    body = json.dumps({"records": [row]})
    quoted = body.replace("'", "'\\''")
    curl = f"curl {url} \\\n  -H 'content-type: application/json' \\\n  -d '{quoted}'"
    python = (
        "import json\nfrom urllib.request import Request, urlopen\n\n"
        f"record = {_literal(row)}\n"
        'body = json.dumps({"records": [record]}).encode()\n'
        f'request = Request("{url}", body, {{"content-type": "application/json"}})\n'
        "print(json.load(urlopen(request)))"
    )
    script = (
        f"const record = {json.dumps(row, indent=2)};\n"
        f'const answer = await fetch("{url}", {{\n  method: "POST",\n'
        '  headers: { "content-type": "application/json" },\n'
        "  body: JSON.stringify({ records: [record] }),\n});\nconsole.log(await answer.json());"
    )
    return {"curl": curl, "python": python, "javascript": script}


def _literal(record: Mapping[str, Any]) -> str:
    """The record as Python, one line per input."""
    lines = "".join(f"    {name!r}: {value!r},\n" for name, value in record.items())
    return "{\n" + lines + "}"
