"""The language in which runs, experiments and their relatives are searched: clauses joined by AND.

    metrics.accuracy > 0.9 AND params."learning rate" = '0.1' AND attributes.status IN ('ok') AND tags.team LIKE 'a%'

A key with other characters than letters, digits, ``_`` and ``.`` stands in backticks or double quotes, a text in single
or double quotes. What may be compared how is a `Grammar`; the messages are those that users of the language know.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from mainspring.errors import InvalidInput

Kind = Literal["metric", "param", "tag", "attribute", "dataset", "metadata", "span", "feedback", "expectation", "issue"]
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"]
Operand: TypeAlias = float | int | str | tuple[str, ...] | None

_KINDS: dict[str, Kind] = {
    "metric": "metric", "metrics": "metric", "param": "param", "params": "param", "parameter": "param",
    "parameters": "param", "tag": "tag", "tags": "tag", "attribute": "attribute", "attributes": "attribute",
    "attr": "attribute", "run": "attribute", "dataset": "dataset", "datasets": "dataset", "trace": "attribute",
    "metadata": "metadata", "request_metadata": "metadata", "span": "span", "feedback": "feedback",
    "expectation": "expectation", "issue": "issue",
}  # fmt: skip
_NUMERIC = (">", ">=", "!=", "=", "<", "<=")
_ORDERING = (">", ">=", "<", "<=")
_TEXTUAL = ("=", "!=", "LIKE", "ILIKE")
_NULL = ("IS NULL", "IS NOT NULL")
_LISTS = ("IN", "NOT IN")
_SPEAKING = {
    "metric": "metric", "param": "parameter", "tag": "tag", "attribute": "attribute", "dataset": "dataset",
    "metadata": "metadata", "span": "span attribute", "feedback": "feedback", "expectation": "expectation",
    "issue": "issue",
}  # fmt: skip
JUDGED = ("feedback", "expectation")
"""What people and programs think of a trace: compared as a text, or as a number by <, <=, > and >=."""
SPAN_ATTRIBUTES = "attributes."
"""Begins the key of what was noted with a span."""
_OF_SPAN = ("name", "type", "status", "content")

_NAME = r"`[^`]*`|\"[^\"]*\"|\w+"
_IDENTIFIER = re.compile(rf"\s*((?:{_NAME})(?:\.(?:{_NAME}))*)")
_OPERATOR = re.compile(
    r"\s*(>=|<=|!=|=|<|>|not\s+in\b|in\b|like\b|ilike\b|is\s+not\s+null\b|is\s+null\b|[^\s\w'\"`(]+|\w+)", re.IGNORECASE
)
_STRING = r"'(?:[^'\\]|\\.|'')*'|\"[^\"]*\""
_VALUE = re.compile(rf"\s*({_STRING}|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|\([^()]*\)|\S+)")
_LIST = re.compile(rf"\(\s*(?:{_STRING})(?:\s*,\s*(?:{_STRING}))*\s*,?\s*\)")
_AND = re.compile(r"\s*\band\b", re.IGNORECASE)
_ORDER = re.compile(rf"\s*((?:{_NAME})(?:\.(?:{_NAME}))*)(?:\s+(asc|desc))?\s*", re.IGNORECASE)
MAX_FILTER = 100_000


class Clause(NamedTuple):
    """One comparison.

    Attributes:
        kind: What sort of thing is compared.
        key: Which one.
        operator: How.
        value: With what: a number, a text, several texts for ``IN``, None for ``IS NULL``.
    """

    kind: Kind
    key: str
    operator: Operator
    value: Operand


class Order(NamedTuple):
    """One level of the order; what has no value, or NaN, comes last either way.

    Attributes:
        kind: What sort of thing decides.
        key: Which one.
        ascending: Whether small values come first.
    """

    kind: Kind
    key: str
    ascending: bool


class Grammar:
    """What may be compared with what.

    Args:
        kinds: The sorts of things there are.
        texts: Attributes that are texts, by every name they go by -> their one name.
        numbers: Attributes that are numbers, likewise.
        listed: Attributes that may be compared with a list.
        sortable: Attributes that may only be sorted by.
    """

    def __init__(
        self,
        kinds: frozenset[Kind],
        texts: dict[str, str],
        numbers: dict[str, str],
        listed: frozenset[str] = frozenset(),
        sortable: dict[str, str] | None = None,
    ) -> None:
        self._kinds = kinds
        self._texts = texts
        self._numbers = numbers
        self._listed = listed
        self._sortable = {**texts, **numbers, **(sortable or {})}

    def filter(self, text: str) -> list[Clause]:
        """Reads a filter.

        Raises:
            InvalidInput: It cannot be read; the message names the part.
        """
        if not text or not text.strip():
            return []
        if len(text) > MAX_FILTER:
            raise _wrong(f"the filter has {len(text)} characters, at most {MAX_FILTER}")
        clauses, place = [], 0
        while True:
            clause, place = self._clause(text, place)
            clauses.append(clause)
            if not (rest := text[place:].strip()):
                return clauses
            joined = _AND.match(text, place)
            if joined is None:
                if rest.startswith(";"):
                    raise _wrong(
                        f"Search filter contained multiple expression {text!r}. Provide AND-ed expression list."
                    )
                raise _invalid(rest.split(maxsplit=1)[0])
            place = joined.end()

    def order(self, texts: list[str]) -> list[Order]:
        """Reads an order: ``metrics.accuracy DESC``, one text per level.

        Raises:
            InvalidInput: It cannot be read.
        """
        orders = []
        for text in texts:
            found = _ORDER.fullmatch(text)
            if found is None:
                raise _wrong(f"Invalid order_by clause '{text}'. Could not be parsed.")
            kind, key = self._identifier(found[1], self._sortable)
            if kind == "dataset":
                raise _wrong(f"Invalid order_by entity `{found[1]}`")
            orders.append(Order(kind, key, (found[2] or "asc").lower() == "asc"))
        return orders

    def _clause(self, text: str, place: int) -> tuple[Clause, int]:
        named = _IDENTIFIER.match(text, place)
        if named is None:
            raise _invalid(text[place:].strip())
        compared = _OPERATOR.match(text, named.end())
        if compared is None:
            raise _invalid(text[place:].strip())
        known = {**self._texts, **self._numbers}
        operator = " ".join(compared[1].upper().split())
        if operator in ("OR", "AND"):
            raise _invalid(named[1].strip(), compared[1])
        if operator not in (*_NUMERIC, *_TEXTUAL, *_NULL, *_LISTS):
            raise _wrong(f"Invalid comparator '{compared[1]}' not one of '{_offer([*_NUMERIC, *_TEXTUAL, *_LISTS])}'")
        kind, key = self._identifier(named[1], known)
        if operator in _NULL:
            if kind not in ("tag", "param", "metadata", *JUDGED):
                raise _wrong(
                    f"IS NULL / IS NOT NULL is only supported for tags and params, not for '{_SPEAKING[kind]}' '{key}'"
                )
            return Clause(kind, key, operator, None), compared.end()  # type: ignore[arg-type]
        given = _VALUE.match(text, compared.end())
        if given is None:
            raise _wrong("Invalid comparison clause. Expected 3 tokens found 2")
        return self._compared(kind, key, operator, given[1]), given.end()

    def _compared(self, kind: Kind, key: str, operator: str, given: str) -> Clause:
        numeric = kind == "metric" or (kind == "attribute" and key in self._numbers.values())
        if kind in JUDGED and operator in _ORDERING:
            return Clause(kind, key, operator, _number(kind, key, given.strip("'\"")))  # type: ignore[arg-type]
        allowed = _NUMERIC if numeric else _allowed(kind, key)
        if operator not in allowed:
            raise _wrong(f"Invalid comparator '{operator}' not one of '{_offer(list(allowed))}'")
        value: Operand
        if numeric:
            value = _number(kind, key, given)
        elif given.startswith("("):
            if kind == "attribute" and key not in self._listed:
                raise _wrong(
                    f"Only {sorted(self._listed)} attributes support comparison with a list of quoted string values."
                )
            value = _list(given)
        else:
            value = _text(kind, given)
        if (operator in _LISTS) != isinstance(value, tuple):
            raise _wrong(f"Invalid comparison clause. `{operator}` cannot be used with {given}")
        return Clause(kind, key, operator, value)  # type: ignore[arg-type]

    def _identifier(self, text: str, attributes: dict[str, str]) -> tuple[Kind, str]:
        first = re.match(_NAME, text)
        assert first is not None
        rest = text[first.end() + 1 :]
        if not rest:
            key = _bare(first[0])
            kind: Kind = "attribute"
        else:
            entity = first[0].strip("`")
            found = _KINDS.get(entity)
            if found is None or found not in self._kinds:
                raise _wrong(f"Invalid entity type '{entity}'. Valid values are {sorted(set(self._kinds))}")
            kind, key = found, _bare(rest)
        if kind == "attribute":
            if key not in attributes:
                raise _wrong(f"Invalid attribute key '{key}' specified. Valid keys are '{_offer(list(attributes))}'")
            key = attributes[key]
        elif kind == "span":
            key = _of_span(key)
        elif kind == "issue" and key != "id":
            raise _wrong(f"Invalid issue attribute '{key}'. Supported attributes: id")
        elif kind == "dataset" and key not in ("name", "digest", "context"):
            raise _wrong(
                f"Invalid dataset key '{key}' specified. Valid keys are '{_offer(['name', 'digest', 'context'])}'"
            )
        return kind, key


def _allowed(kind: Kind, key: str) -> tuple[str, ...]:
    """How a text may be compared."""
    if kind == "span":
        return ("LIKE", "ILIKE") if key == "content" else (*_TEXTUAL, *_LISTS)
    if kind == "issue":
        return ("=",)
    return (*_TEXTUAL, *_LISTS) if kind in ("attribute", "dataset") else _TEXTUAL


def _of_span(key: str) -> str:
    """The key of what a span is searched by."""
    if key.startswith(SPAN_ATTRIBUTES) and len(key) > len(SPAN_ATTRIBUTES):
        return SPAN_ATTRIBUTES + _bare(key.removeprefix(SPAN_ATTRIBUTES))
    if key not in _OF_SPAN:
        told = "Supported attributes: name, status, type, attributes.<attribute_name>."
        raise _wrong(f"Invalid span attribute '{key}'. {told}")
    return key


def _bare(name: str) -> str:
    quoted = len(name) >= 2 and name[0] == name[-1] and name[0] in '`"'
    return name[1:-1] if quoted and name[0] not in name[1:-1] else name


def _number(kind: Kind, key: str, given: str) -> float | int:
    if re.fullmatch(r"[+-]?\d{1,18}", given):
        return int(given)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", given):
        return float(given)
    told = "metric" if kind == "metric" else f"numeric attribute: {key}"
    raise _wrong(f"Expected numeric value type for {told}. Found {given}")


def _text(kind: Kind, given: str) -> str:
    if len(given) >= 2 and given[0] == given[-1] and given[0] in "'\"":
        return given[1:-1]
    if given[0] in "'\"" or given[-1] in "'\"":
        raise _wrong(
            "Parameter value is either not quoted or unidentified quote types used for string value "
            f"{given}. Use either single or double quotes."
        )
    told = {"attribute": "attributes", "dataset": "dataset attributes"}.get(
        kind, f"{_SPEAKING[kind]} (e.g. 'my-value')"
    )
    raise _wrong(f"Expected a quoted string value for {told}. Got value {given}")


def _list(given: str) -> tuple[str, ...]:
    if not _LIST.fullmatch(given):
        raise _wrong(
            "While parsing a list in the query, expected a non-empty list of string values, punctuation, or "
            f"whitespace, but got {given}"
        )
    return tuple(item[1:-1] for item in re.findall(_STRING, given))


def _offer(names: list[str]) -> str:
    return "{" + ", ".join(f"'{name}'" for name in sorted(set(names))) + "}"


def _invalid(*parts: str) -> InvalidInput:
    return _wrong("Invalid clause(s) in filter string: " + ", ".join(f"'{part}'" for part in parts))


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(message, hint="join comparisons such as metrics.accuracy > 0.9 by AND")


RUNS = Grammar(
    frozenset({"metric", "param", "tag", "attribute", "dataset"}),
    texts={
        "run_id": "run_id", "run_name": "run_name", "run name": "run_name", "Run name": "run_name",
        "Run Name": "run_name", "status": "status", "user_id": "user_id", "artifact_uri": "artifact_uri",
    },
    numbers={"start_time": "start_time", "created": "start_time", "Created": "start_time", "end_time": "end_time"},
    listed=frozenset({"run_id", "run_name", "status", "user_id"}),
)  # fmt: skip
TABLE = Grammar(
    frozenset({"metric", "param", "tag", "attribute", "dataset"}),
    texts={
        "name": "name", "title": "run_name", "run_name": "run_name", "run_id": "run_id", "status": "status",
        "user": "user_id", "user_id": "user_id", "actor": "user_id", "experiment": "experiment",
        "pipeline": "pipeline", "use_case": "use_case", "trigger": "trigger", "reason": "reason", "source": "source",
    },
    numbers={"start_time": "start_time", "created": "start_time", "end_time": "end_time", "ended": "end_time"},
    listed=frozenset({
        "run_id", "name", "run_name", "status", "user_id", "experiment", "pipeline", "use_case", "trigger",
    }),
)  # fmt: skip
"""The same language with our own names and states, for the table of runs."""
EXPERIMENTS = Grammar(
    frozenset({"tag", "attribute"}),
    texts={"name": "name"},
    numbers={"creation_time": "creation_time", "last_update_time": "last_update_time"},
    listed=frozenset({"name"}),
    sortable={"experiment_id": "experiment_id"},
)
EVALUATIONS = Grammar(
    frozenset({"tag", "attribute"}),
    texts={"name": "name", "created_by": "created_by", "last_updated_by": "last_updated_by"},
    numbers={"created_time": "created_time", "last_update_time": "last_update_time"},
    listed=frozenset({"name"}),
)
LOGGED = Grammar(
    frozenset({"metric", "param", "tag", "attribute"}),
    texts={
        "name": "name", "model_id": "model_id", "model_name": "name", "model_type": "model_type", "status": "status",
        "source_run_id": "source_run_id",
    },
    numbers={
        "creation_timestamp": "creation_timestamp", "creation_time": "creation_timestamp",
        "last_updated_timestamp": "last_updated_timestamp", "last_updated_time": "last_updated_timestamp",
    },
    listed=frozenset({"name", "model_id", "model_type", "status", "source_run_id"}),
    sortable={"experiment_id": "experiment_id"},
)  # fmt: skip
TRACES = Grammar(
    frozenset({"tag", "attribute", "metadata", "span", "feedback", "expectation", "issue"}),
    texts={
        "trace_id": "trace_id", "request_id": "trace_id", "name": "name", "trace_name": "name", "status": "status",
        "state": "status", "run_id": "run_id", "client_request_id": "client", "text": "text",
    },
    numbers={
        "timestamp": "timestamp", "timestamp_ms": "timestamp", "request_time": "timestamp",
        "execution_time": "duration", "execution_time_ms": "duration", "execution_duration": "duration",
        "end_time": "end_time", "end_time_ms": "end_time",
    },
    listed=frozenset({"trace_id", "name", "status", "run_id", "client"}),
    sortable={"experiment_id": "experiment"},
)  # fmt: skip
