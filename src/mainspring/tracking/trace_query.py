"""What a search of traces compares besides their own columns: their steps, and what is thought of them."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.tracking.query import Part, comparison, json_text
from mainspring.tracking.search import SPAN_ATTRIBUTES, Clause

_COLUMNS = {"name": "s.name", "type": "s.kind", "status": "s.status", "content": "(s.name || ' ' || {})"}


def is_of_span(clause: Clause) -> bool:
    """Whether a clause is about steps; the text of a trace is that of its steps."""
    return clause.kind == "span" or (clause.kind == "attribute" and clause.key == "text")


def of_one_span(clauses: Sequence[Clause], *, sqlite: bool) -> Part:
    """That some step of a trace is all that the clauses ask for."""
    parts = [_of_span(clause, sqlite=sqlite) for clause in clauses]
    held = " AND ".join(part.text for part in parts)
    return Part(
        f"EXISTS (SELECT 1 FROM trace_span s WHERE s.trace = trace.name AND {held})",  # noqa: S608
        tuple(value for part in parts for value in part.values),
    )


def _of_span(clause: Clause, *, sqlite: bool) -> Part:
    if clause.key.startswith(SPAN_ATTRIBUTES):
        text = json_text("s.attributes", clause.key.removeprefix(SPAN_ATTRIBUTES), sqlite=sqlite)
        compared = comparison(text.text, clause, sqlite=sqlite)
        return Part(compared.text, (*text.values, *compared.values))
    whole = "s.attributes" if sqlite else "CAST(s.attributes AS text)"
    column = _COLUMNS["content" if clause.kind == "attribute" else clause.key].format(whole)
    return comparison(column, clause, sqlite=sqlite)


def judged(clause: Clause, *, sqlite: bool) -> Part:
    """That somebody judged a trace so: ``feedback.NAME``, ``expectation.NAME``, or an issue by its id."""
    each = "json_each(trace.assessments)" if sqlite else "jsonb_array_elements(CAST(trace.assessments AS jsonb))"
    named, there, valid = (
        ("json_extract(a.value, '$.assessment_name')", f"json_type(a.value, '$.{clause.kind}') IS NOT NULL",
         "coalesce(json_extract(a.value, '$.valid'), 1) = 1")
        if sqlite
        else ("(a.value ->> 'assessment_name')", f"(a.value -> '{clause.kind}') IS NOT NULL",
              "coalesce(a.value ->> 'valid', 'true') = 'true'")
    )  # fmt: skip
    found = f"EXISTS (SELECT 1 FROM {each} AS a WHERE {named} = ? AND {there} AND {valid}"  # noqa: S608
    if clause.kind == "issue":
        return Part(f"{found})", (clause.value,))
    if clause.operator in ("IS NULL", "IS NOT NULL"):
        return Part(f"{'NOT ' if clause.operator == 'IS NULL' else ''}{found})", (clause.key,))
    numeric = isinstance(clause.value, (int, float))
    value = (_sqlite_value if sqlite else _postgresql_value)(clause.kind, numeric=numeric)
    compared = comparison(value, clause, sqlite=sqlite)
    return Part(f"{found} AND {compared.text})", (clause.key, *compared.values))


def _sqlite_value(kind: str, *, numeric: bool) -> str:
    path = f"'$.{kind}.value'"
    if numeric:
        return f"CASE WHEN json_type(a.value, {path}) IN ('integer', 'real') THEN json_extract(a.value, {path}) END"
    return (
        f"CASE json_type(a.value, {path}) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
        f"ELSE CAST(json_extract(a.value, {path}) AS TEXT) END"
    )


def _postgresql_value(kind: str, *, numeric: bool) -> str:
    value, path = f"(a.value #>> '{{{kind},value}}')", f"(a.value #> '{{{kind},value}}')"
    return f"CASE WHEN jsonb_typeof({path}) = 'number' THEN CAST({value} AS float8) END" if numeric else value
