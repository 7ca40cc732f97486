"""Expectations on data: all of them checked in one streaming pass, each answered with a sentence.

Missing values: NaN counts as null. Only `not_null` and `null_share` judge nulls; every other rule looks at the values
that are there.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import polars as pl

from mainspring.errors import InvalidInput, nearest
from mainspring.measures.schema import kind_of

Scalar = float | int | str | bool | None
Severity = Literal["error", "warning"]
_EXAMPLES = 5
_LOOKED_AT = 1_000  # bad rows among which different examples are looked for
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_OPERATORS: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


class Expectation(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One rule about a data set; `RULES` lists the rules and their parameters.

    Attributes:
        rule: ``columns_exist``, ``not_null``, ``null_share``, ``between``, ``in_set``, ``unique``, ``row_count``,
            ``regex``, ``freshness``, ``compare`` or ``mean_between``.
        column: The column the rule is about; None for ``columns_exist`` and ``row_count``.
        params: The rule's parameters.
        severity: ``error`` blocks, ``warning`` only tells.
    """

    rule: str
    column: str | None = None
    params: dict[str, Any] = {}
    severity: Severity = "error"


class ExpectationResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdict on one expectation.

    Attributes:
        observed: What the data say; its meaning is in ``sentence``.
        limit: What was allowed, as text.
        bad_rows: Rows that break the rule; 0 for rules about the whole.
        examples: Up to 5 values that break the rule, as text.
        sentence: The verdict for people.
    """

    expectation: Expectation
    passed: bool
    sentence: str
    observed: Scalar = None
    limit: str = ""
    bad_rows: int = 0
    examples: tuple[str, ...] = ()


class _UnfitError(Exception):
    """The column's type does not fit the rule: a failed result, because data are at fault and not the caller."""


class _Column(NamedTuple):
    name: str
    kind: str
    dtype: pl.DataType
    value: pl.Expr
    schema: Mapping[str, pl.DataType]
    now: datetime


class _Verdict(NamedTuple):
    passed: bool
    observed: Scalar
    limit: str
    sentence: str
    bad_rows: int = 0


class _Probe(NamedTuple):
    """What to compute in the pass, and how to judge it: ``judge(answer, rows)``."""

    answer: pl.Expr
    judge: Callable[[Any, int], _Verdict]
    bad: pl.Expr | None = None


Params = Mapping[str, Any]


class Rule(NamedTuple):
    """A rule's parameters and how it is probed."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    probe: Callable[[_Column, Params], _Probe] | None


def _rows(column: _Column, bad: pl.Expr, limit: str, wrong: str) -> _Probe:
    """A rule that every row obeys or breaks; ``wrong`` completes "7 of 100 rows of `x` …"."""

    def judge(count: int, rows: int) -> _Verdict:
        said = (
            f"{count:,} of {rows:,} rows of `{column.name}` {wrong}"
            if count
            else f"every row of `{column.name}` is {limit}"
        )
        return _Verdict(not count, count, limit, said, count)

    return _Probe(bad.sum(), judge, bad)


def _not_null(column: _Column, _: Params) -> _Probe:
    return _rows(column, column.value.is_null(), "not null", "are null")


def _null_share(column: _Column, params: Params) -> _Probe:
    most = _number(params["max"])

    def judge(count: int, rows: int) -> _Verdict:
        share = count / rows if rows else 0.0
        said = f"{share:.2%} of `{column.name}` is null, at most {most:.2%} is allowed"
        return _Verdict(share <= most, share, f"at most {most:.2%} null", said, count)

    return _Probe(column.value.is_null().sum(), judge)


def _between(column: _Column, params: Params) -> _Probe:
    low, high = _limits(params)
    limit = _range(low, high)
    outside = pl.lit(False)
    if low is not None:
        outside |= column.value < _literal(low, column)
    if high is not None:
        outside |= column.value > _literal(high, column)
    return _rows(column, outside.fill_null(False), limit, f"are not {limit}")


def _in_set(column: _Column, params: Params) -> _Probe:
    values = params["values"]
    if not isinstance(values, list | tuple | set | frozenset) or not values:
        raise InvalidInput("`values` of in_set is not a list with values", hint='write values = ["a", "b"]')
    allowed = pl.Series([_plain(value, column) for value in values]).implode()
    texts = [str(value) for value in values]
    limit = "one of " + ", ".join(texts[:10]) + (", …" if len(texts) > 10 else "")
    value = column.value.cast(pl.String) if column.kind == "string" else column.value
    return _rows(column, ~value.is_in(allowed).fill_null(True), limit, f"are not {limit}")


def _regex(column: _Column, params: Params) -> _Probe:
    pattern = params["pattern"]
    try:
        # Polars' engine decides what a pattern is (linear time, no look-around): ask it, not Python's.
        pl.select(pl.lit("").str.contains(pattern))
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise InvalidInput(
            f"`{pattern}` is not a regular expression: {error}", hint="look-around is not supported"
        ) from None
    if column.kind != "string":
        raise _UnfitError(f"`{column.name}` is {column.kind}; regex needs text")
    whole = f"^(?:{pattern})$"
    bad = ~column.value.cast(pl.String).str.contains(whole).fill_null(True)
    return _rows(column, bad, f"like {pattern}", f"are not like {pattern}")


def _compare(column: _Column, params: Params) -> _Probe:
    other, sign = params["other"], params.get("op", ">=")
    if sign not in _OPERATORS:
        raise InvalidInput(f"`{sign}` does not compare two columns", hint="use one of " + " ".join(_OPERATORS))
    if other not in column.schema:
        raise _UnfitError(f"column `{other}` is missing")
    right, ordered = kind_of(column.schema[other]), ("int", "float")
    if column.kind != right and not (column.kind in ordered and right in ordered):
        raise _UnfitError(f"`{column.name}` is {column.kind} and `{other}` is {right}: they do not compare")
    value = pl.col(other).fill_nan(None) if column.schema[other].is_float() else pl.col(other)
    bad = ~_OPERATORS[sign](column.value, value).fill_null(True)
    return _rows(column, bad, f"{sign} `{other}`", f"are not {sign} `{other}`")


def _unique(column: _Column, _: Params) -> _Probe:
    present = column.value.drop_nulls()

    def judge(count: int, _: int) -> _Verdict:
        said = f"{count:,} rows of `{column.name}` repeat a value" if count else f"no value of `{column.name}` repeats"
        return _Verdict(not count, count, "no repeated value", said, count)

    return _Probe(present.len() - present.n_unique(), judge)


def _row_count(_: _Column, params: Params) -> _Probe:
    low, high = _numeric_limits(params)
    limit = _range(low, high)

    def judge(count: int, _: int) -> _Verdict:
        return _Verdict(_inside(count, low, high), count, limit, f"{count:,} rows; expected {limit}")

    return _Probe(pl.len(), judge)


def _mean_between(column: _Column, params: Params) -> _Probe:
    low, high = _numeric_limits(params)
    limit = _range(low, high)
    if column.kind not in ("int", "float", "bool"):
        raise _UnfitError(f"`{column.name}` is {column.kind}; a mean needs numbers")

    def judge(mean: float | None, _: int) -> _Verdict:
        if mean is None:
            return _Verdict(False, None, limit, f"`{column.name}` has no values, so no mean")
        return _Verdict(
            _inside(mean, low, high), mean, limit, f"the mean of `{column.name}` is {mean:g}; expected {limit}"
        )

    return _Probe(column.value.mean(), judge)


def _freshness(column: _Column, params: Params) -> _Probe:
    age = _age(params["max_age"])
    limit = f"at most {_span(age)} old"
    if column.kind not in ("datetime", "date"):
        raise _UnfitError(f"`{column.name}` is {column.kind}; freshness needs dates")

    def judge(newest: date | None, _: int) -> _Verdict:
        if newest is None:
            return _Verdict(False, None, limit, f"`{column.name}` has no values, so no newest one")
        moment = _moment(newest)
        passed = column.now - moment <= age
        said = f"the newest `{column.name}` is {_span(column.now - moment)} old; expected {limit}"
        return _Verdict(passed, moment.isoformat(), limit, said)

    return _Probe(column.value.max(), judge)


RULES: dict[str, Rule] = {
    "columns_exist": Rule(("columns",), (), None),
    "not_null": Rule((), (), _not_null),
    "null_share": Rule(("max",), (), _null_share),
    "between": Rule((), ("min", "max"), _between),
    "in_set": Rule(("values",), (), _in_set),
    "unique": Rule((), (), _unique),
    "row_count": Rule((), ("min", "max"), _row_count),
    "regex": Rule(("pattern",), (), _regex),
    "freshness": Rule(("max_age",), (), _freshness),
    "compare": Rule(("other",), ("op",), _compare),
    "mean_between": Rule((), ("min", "max"), _mean_between),
}
"""Every rule. ``columns`` is a list of names or a table name = type; ``min`` and ``max`` are inclusive, one may be left
out; text is matched whole by ``pattern``; ``max_age`` is seconds or text such as ``36h`` (s, m, h, d, w)."""
_WHOLE = ("columns_exist", "row_count")


def check(
    frame: pl.DataFrame | pl.LazyFrame, expectations: Sequence[Expectation], now: datetime
) -> list[ExpectationResult]:
    """Checks all expectations in one streaming pass over the data.

    Args:
        frame: The data; a lazy frame is never held in memory as a whole.
        expectations: What should hold. A missing column, or one of an unfit type, is a failed result.
        now: The moment freshness is measured from; without time zone it is UTC.

    Returns:
        One result for each expectation, in the same order.

    Raises:
        InvalidInput: A rule or parameter that does not exist, is missing, or has a wrong value.
    """
    schema = frame.lazy().collect_schema()
    probes: dict[int, _Probe] = {}
    results: dict[int, ExpectationResult] = {}
    for place, expected in enumerate(expectations):
        _valid(expected)
        try:
            if expected.rule == "columns_exist":
                results[place] = _columns_exist(expected, schema)
            else:
                probe = RULES[expected.rule].probe
                assert probe is not None
                probes[place] = probe(_target(expected, schema, now), expected.params)
        except _UnfitError as error:
            results[place] = ExpectationResult(expected, False, str(error))
    if probes:
        answers = _measure(frame, expectations, probes)
        for place, asked in probes.items():
            verdict = asked.judge(answers[f"answer{place}"], answers["rows"])
            examples = answers.get(f"examples{place}") or []
            results[place] = ExpectationResult(
                expectations[place],
                verdict.passed,
                verdict.sentence,
                verdict.observed,
                verdict.limit,
                verdict.bad_rows,
                tuple("null" if example is None else str(example) for example in examples),
            )
    return [results[place] for place in range(len(expectations))]


def _measure(
    frame: pl.DataFrame | pl.LazyFrame, expectations: Sequence[Expectation], probes: Mapping[int, _Probe]
) -> dict[str, Any]:
    wanted = [pl.len().alias("rows")]
    for place, probe in probes.items():
        wanted.append(probe.answer.alias(f"answer{place}"))
        if probe.bad is not None and (name := expectations[place].column):
            some = pl.col(name).filter(probe.bad).head(_LOOKED_AT).unique(maintain_order=True).head(_EXAMPLES)
            wanted.append(some.implode().alias(f"examples{place}"))
    answers = frame.lazy().select(wanted).collect(engine="streaming").row(0, named=True)
    # Which values repeat costs a second look, so it is taken only when some do.
    repeated = {
        place: pl.col(name).filter(pl.col(name).is_duplicated() & pl.col(name).is_not_null())
        for place in probes
        if expectations[place].rule == "unique" and answers[f"answer{place}"] and (name := expectations[place].column)
    }
    if repeated:
        looks = [
            again.unique(maintain_order=True).head(_EXAMPLES).implode().alias(f"examples{place}")
            for place, again in repeated.items()
        ]
        answers |= frame.lazy().select(looks).collect(engine="streaming").row(0, named=True)
    return answers


def _target(expected: Expectation, schema: Mapping[str, pl.DataType], now: datetime) -> _Column:
    name, now = expected.column or "", _moment(now)
    if expected.rule in _WHOLE:
        return _Column(name, "", pl.Null(), pl.lit(None), schema, now)
    if name not in schema:
        close = nearest(name, schema, 1)
        raise _UnfitError(f"column `{name}` is missing" + (f"; there is `{close[0]}`" if close else ""))
    kind = kind_of(schema[name])
    value = pl.col(name).fill_nan(None) if schema[name].is_float() else pl.col(name)
    return _Column(name, kind, schema[name], value, schema, now)


def _columns_exist(expected: Expectation, schema: Mapping[str, pl.DataType]) -> ExpectationResult:
    columns: Iterable[str] | Mapping[str, str] = expected.params["columns"]
    if isinstance(columns, str):
        raise InvalidInput("`columns` of columns_exist is not a list", hint=f'write columns = ["{columns}"]')
    types = columns if isinstance(columns, Mapping) else {}
    missing = [name for name in columns if name not in schema]
    changed = [
        f"`{name}` is {kind_of(schema[name])}, not {kind}"
        for name, kind in types.items()
        if name in schema and kind_of(schema[name]) != kind
    ]
    problems = [f"column `{name}` is missing" for name in missing] + changed
    said = "; ".join(problems) or "all columns are there"
    limit = ", ".join(columns)
    return ExpectationResult(expected, not problems, said, len(problems), limit, examples=tuple(missing[:_EXAMPLES]))


def _valid(expected: Expectation) -> None:
    if expected.rule not in RULES:
        raise _unknown("rule", expected.rule, RULES)
    rule = RULES[expected.rule]
    known = rule.required + rule.optional
    for name in expected.params:
        if name not in known:
            raise _unknown(f"parameter of {expected.rule}", name, known)
    absent = [name for name in rule.required if name not in expected.params]
    if absent or (rule.optional == ("min", "max") and not expected.params):
        wanted = " and ".join(f"`{name}`" for name in absent) or "`min` or `max`"
        raise InvalidInput(f"{expected.rule} needs {wanted}", hint=f"add it to the params of {expected.rule}")
    if not expected.column and expected.rule not in _WHOLE:
        raise InvalidInput(f"{expected.rule} needs a column", hint="name the column the rule is about")


def _unknown(what: str, name: str, known: Iterable[str]) -> InvalidInput:
    close = nearest(name, known, 1)
    return InvalidInput(
        f"`{name}` is not a {what}", hint=f"did you mean `{close[0]}`?" if close else "use one of " + ", ".join(known)
    )


def _limits(params: Params) -> tuple[Any, Any]:
    return params.get("min"), params.get("max")


def _numeric_limits(params: Params) -> tuple[float | None, float | None]:
    low, high = _limits(params)
    return None if low is None else _number(low), None if high is None else _number(high)


def _range(low: Any, high: Any) -> str:
    if low is None or high is None:
        return f"at most {high}" if low is None else f"at least {low}"
    return f"between {low} and {high}"


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"`{value}` is not a number", hint="write a number without quotes")
    return value


def _literal(value: Any, column: _Column) -> pl.Expr:
    return pl.lit(_plain(value, column))


def _plain(value: Any, column: _Column) -> Any:
    """A parameter as the column's own type: JSON and TOML know no Polars types."""
    fits = {"int": int | float, "float": int | float, "bool": bool, "string": str}.get(column.kind)
    if fits and isinstance(value, fits) and (column.kind == "bool" or not isinstance(value, bool)):
        return value
    if column.kind in ("datetime", "date") and isinstance(value, str | date):
        try:
            moment = _moment(datetime.fromisoformat(value) if isinstance(value, str) else value)
        except ValueError:
            raise _UnfitError(f"`{value}` is not a date, but `{column.name}` is") from None
        if column.kind == "date":
            return moment.date()
        zone = getattr(column.dtype, "time_zone", None)
        return moment.astimezone(ZoneInfo(zone)) if zone else moment.replace(tzinfo=None)
    raise _UnfitError(f"`{column.name}` is {column.kind}, which does not compare with {value!r}")


def _moment(value: date) -> datetime:
    """A date or datetime as UTC; without a time zone it is taken as UTC, a date as its first moment."""
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _age(value: Any) -> timedelta:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", value)):
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    if isinstance(value, str):
        raise InvalidInput(f"`{value}` is not a duration", hint="write seconds, or text such as `36h`, `7d`")
    return timedelta(seconds=_number(value))


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"
