"""Searching runs: clauses and an order become one statement that reads little more than what it returns.

Three ways to begin, none of which needs the planner to guess:

1. by a clause that few runs match (a bounded count tells): its index gives them, the rest is looked up and sorted;
2. by the order, where that is a metric: its index gives the runs in order, each is looked up and kept if the other
   clauses hold, until the page is full. What has no number of that metric comes after all that have, in a second
   statement;
3. by the start, newest first, in the same way.

`CROSS JOIN` makes SQLite keep the order of the tables as it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from mainspring.core.ids import from_hex
from mainspring.errors import InvalidInput
from mainspring.store.driver import Driver
from mainspring.tracking.search import Clause, Order
from mainspring.tracking.store import moment, split

FEW = 1000
"""A clause that fewer runs match than this is begun with."""
_TABLES = {"metric": "run_metric", "param": "run_param", "tag": "run_tag"}
_COLUMNS = {
    "run_name": "r.title", "status": "r.status", "user_id": "r.actor", "run_id": "r.id", "name": "r.name",
    "experiment": "r.experiment", "pipeline": "r.pipeline", "use_case": "r.use_case", "trigger": 'r."trigger"',
    "reason": "r.reason", "source": "r.source",
}  # fmt: skip
_STATUS_RANK = (
    "CASE r.status WHEN 'failed' THEN 0 WHEN 'ok' THEN 1 WHEN 'cancelled' THEN 2 WHEN 'running' THEN 3 ELSE 4 END"
)
"""As the names that MLflow has for the states are sorted: FAILED, FINISHED, KILLED, RUNNING, SCHEDULED."""
_TIMES = {"start_time": "r.created", "end_time": "r.ended"}


class Part(NamedTuple):
    """A piece of SQL with its values."""

    text: str
    values: tuple[Any, ...] = ()


class Search:
    """One search.

    Args:
        driver: Where to read.
        experiments: Numbers of the experiments; none gives nothing.
        clauses: All of them must hold.
        orders: What decides, first to last; then the newest start, then the id.
        lifecycles: Which of ``active`` and ``deleted`` are wanted.
        upto: The highest number of a run that counts; None for all.
    """

    def __init__(
        self,
        driver: Driver,
        experiments: Sequence[int],
        clauses: Sequence[Clause] = (),
        orders: Sequence[Order] = (),
        lifecycles: Sequence[str] = ("active",),
        upto: int | None = None,
    ) -> None:
        self._driver = driver
        self._sqlite = driver.dialect == "sqlite"
        self._experiments = list(dict.fromkeys(experiments))
        self._clauses = list(clauses)
        self._orders = list(orders)
        self._lifecycles = tuple(lifecycles)
        self._upto = upto
        self._lead = "r.number"

    def page(self, limit: int, offset: int = 0) -> tuple[list[int], bool]:
        """Numbers of the runs of one page, in order, and whether there are more."""
        if not self._experiments or not self._lifecycles:
            return [], False
        wanted = limit + 1
        chosen = self._selective()
        if chosen is None and self._orders and self._orders[0].kind == "metric" and len(self._experiments) == 1:
            found = self._run(self._by_metric(), wanted, offset)
            if len(found) < wanted:
                passed = offset if found or not offset else self._count(self._by_metric())
                found += self._run(self._without_metric(), wanted - len(found), max(offset - passed, 0))
        else:
            found = self._run(self._by_clause(chosen) if chosen else self._by_start(), wanted, offset)
        return found[:limit], len(found) > limit

    def matching(self) -> Part:
        """The statement that gives the numbers of all runs that match, in no order."""
        chosen, orders, self._orders = self._selective(), self._orders, []
        try:
            found = self._by_clause(chosen) if chosen else self._by_start()
        finally:
            self._orders = orders
        return found._replace(text=found.text.rpartition(" ORDER BY ")[0])

    def count(self, most: int) -> int:
        """How many runs match; it stops counting at ``most``."""
        if not self._experiments or not self._lifecycles:
            return 0
        part = self.matching()
        return self._count(part._replace(text=f"{part.text} LIMIT {most}"))

    def statement(self) -> Part:
        """The statement that a search begins with, without its limit (tests look at its plan)."""
        chosen = self._selective()
        if chosen is None and self._orders and self._orders[0].kind == "metric" and len(self._experiments) == 1:
            return self._by_metric()
        return self._by_clause(chosen) if chosen else self._by_start()

    def _run(self, part: Part, limit: int, offset: int) -> list[int]:
        rows = self._driver.rows(f"{part.text} LIMIT {limit} OFFSET {offset}", part.values)
        return [row[0] for row in rows]

    def _count(self, part: Part) -> int:
        row = self._driver.row(f"SELECT count(*) FROM ({part.text}) AS counted", part.values)
        return int(row[0]) if row else 0

    def _selective(self) -> Clause | None:
        """The clause that the fewest runs match, where those are few."""
        best, fewest = None, FEW
        for clause in self._clauses:
            inside = self._index_range(clause)
            if inside is None:
                continue
            table = _TABLES[clause.kind]
            counted = f"SELECT count(*) FROM (SELECT 1 FROM {table} m WHERE {inside.text} LIMIT {fewest}) AS counted"
            row = self._driver.row(counted, inside.values)
            if row is not None and row[0] < fewest:
                best, fewest = clause, max(int(row[0]), 1)
        return best

    def _index_range(self, clause: Clause) -> Part | None:
        """The condition on a clause's own table that its index answers; None where it cannot."""
        home = self._home("m.experiment")
        if clause.kind == "metric" and clause.operator != "!=":
            return Part(
                f"{home.text} AND m.key = ? AND m.value {clause.operator} ?", (*home.values, clause.key, clause.value)
            )
        if clause.kind in ("param", "tag") and clause.operator == "=":
            equal = self._label(clause)
            return Part(f"{home.text} AND m.key = ? AND {equal.text}", (*home.values, clause.key, *equal.values))
        return None

    def _by_clause(self, clause: Clause) -> Part:
        inside = self._index_range(clause)
        assert inside is not None
        rest = [item for item in self._clauses if item is not clause]
        source = f"(SELECT m.run FROM {_TABLES[clause.kind]} m WHERE {inside.text}) c CROSS JOIN run r"
        return self._select(Part(source, inside.values), Part("r.number = c.run"), rest)

    def _by_start(self) -> Part:
        return self._select(Part("run r"), self._home("r.experiment_number"), self._clauses)

    def _by_metric(self) -> Part:
        first = self._orders[0]
        own = [item for item in self._clauses if item.kind == "metric" and item.key == first.key]
        rest = [item for item in self._clauses if item not in own]
        within = "".join(f" AND o0.value {item.operator} ?" for item in own)
        begin = Part(
            f"r.number = o0.run AND o0.experiment = ? AND o0.key = ? AND o0.value IS NOT NULL{within}",
            (self._experiments[0], first.key, *(item.value for item in own)),
        )
        return self._select(Part("run_metric o0 CROSS JOIN run r"), begin, rest, led=True)

    def _without_metric(self) -> Part:
        home, first = self._home("r.experiment_number"), self._orders[0]
        absent = "NOT EXISTS (SELECT 1 FROM run_metric m WHERE m.run = r.number AND m.key = ? AND m.value IS NOT NULL)"
        return self._select(Part("run r"), Part(f"{home.text} AND {absent}", (*home.values, first.key)), self._clauses)

    def _select(self, source: Part, begin: Part, clauses: list[Clause], *, led: bool = False) -> Part:
        joins, order, joined = "", [], []
        for place, item in enumerate(self._orders):
            way = "ASC" if item.ascending else "DESC"
            if place == 0 and led:
                order.append(f"o0.value {way}")
                continue
            if item.kind in _TABLES:
                joins += f" LEFT JOIN {_TABLES[item.kind]} o{place} ON o{place}.run = r.number AND o{place}.key = ?"
                joined.append(item.key)
                order += self._level(item, place, way)
            else:
                order += self._attribute_level(item, way)
        if led and len(self._orders) == 1:
            order.append("o0.started DESC")  # as the index has it; the same moment as the run's own
        # Conditions on other tables name the leading table's run, so that SQLite tests them before it fetches the run.
        self._lead = "o0.run" if led else "c.run" if " c CROSS JOIN" in source.text else "r.number"
        parts = [begin, *(self._condition(item) for item in clauses), self._lifecycle()]
        where = " AND ".join(part.text for part in parts)
        order += ["r.created DESC", "r.id"]
        return Part(
            f"SELECT r.number FROM {source.text}{joins} WHERE {where} ORDER BY {', '.join(order)}",
            (*source.values, *joined, *(value for part in parts for value in part.values)),
        )

    def _level(self, item: Order, place: int, way: str) -> list[str]:
        if item.kind == "metric":
            rank = f"CASE WHEN o{place}.value IS NOT NULL THEN 0 WHEN o{place}.run IS NOT NULL THEN 1 ELSE 2 END"
            return [rank, f"o{place}.value {way}"]
        value = f"o{place}.value || coalesce(o{place}.rest, '')"
        return [f"CASE WHEN o{place}.run IS NULL THEN 1 ELSE 0 END", f"{self._plain(value)} {way}"]

    def _attribute_level(self, item: Order, way: str) -> list[str]:
        if item.key in _TIMES:
            column = _TIMES[item.key]
            return [f"{column} {way}"] if column == "r.created" else [f"{column} {way} NULLS LAST"]
        if item.key == "artifact_uri":
            return [f"r.experiment_number {way}", f"r.id {way}"]
        if item.key == "status":
            return [f"{_STATUS_RANK} {way}"]
        return [f"{self._plain(_COLUMNS[item.key])} {way}"]

    def _plain(self, text: str) -> str:
        """A text whose order is that of its code points, on both databases."""
        return text if self._sqlite else f'({text}) COLLATE "C"'

    def _home(self, column: str) -> Part:
        if len(self._experiments) == 1:
            return Part(f"{column} = ?", (self._experiments[0],))
        return Part(f"{column} IN ({', '.join('?' * len(self._experiments))})", tuple(self._experiments))

    def _lifecycle(self) -> Part:
        among = Part(f"r.lifecycle IN ({', '.join('?' * len(self._lifecycles))})", self._lifecycles)
        if self._upto is None:
            return among
        # The sign keeps the planner from beginning with the index of numbers: nearly all runs are below.
        return Part(f"{among.text} AND +{self._lead} <= ?", (*among.values, self._upto))

    def _condition(self, clause: Clause) -> Part:
        if clause.kind == "attribute":
            return self._attribute(clause)
        if clause.kind == "dataset":
            compared = self._compare(f"d.{clause.key}", clause)
            return Part(
                f"EXISTS (SELECT 1 FROM dataset_input d WHERE d.run = {self._lead} AND {compared.text})",
                compared.values,
            )
        found = f"EXISTS (SELECT 1 FROM {_TABLES[clause.kind]} m WHERE m.run = {self._lead} AND m.key = ?"
        if clause.operator == "IS NULL":
            return Part(f"NOT {found})", (clause.key,))
        if clause.operator == "IS NOT NULL":
            return Part(f"{found})", (clause.key,))
        if clause.kind == "metric":
            return Part(f"{found} AND m.value {clause.operator} ?)", (clause.key, clause.value))
        compared = self._label(clause)
        return Part(f"{found} AND {compared.text})", (clause.key, *compared.values))

    def _label(self, clause: Clause) -> Part:
        if clause.operator in ("=", "!="):
            assert isinstance(clause.value, str)
            head, rest = split(clause.value)
            equal = Part("m.value = ? AND m.rest IS NULL", (head,))
            if rest is not None:
                equal = Part("m.value = ? AND m.rest = ?", (head, rest))
            same = equal.text.replace("m.rest = ?", "coalesce(m.rest, '') = ?")
            return equal if clause.operator == "=" else Part(f"NOT ({same})", equal.values)
        return self._compare("(m.value || coalesce(m.rest, ''))", clause)

    def _compare(self, column: str, clause: Clause) -> Part:
        return comparison(column, clause, sqlite=self._sqlite)

    def _attribute(self, clause: Clause) -> Part:
        if clause.key in _TIMES:
            assert isinstance(clause.value, (int, float))
            return self._time(_TIMES[clause.key], clause.operator, clause.value)
        if clause.key == "artifact_uri" or (clause.key == "run_id" and clause.operator in ("LIKE", "ILIKE")):
            raise InvalidInput(
                f"runs cannot be searched by {clause.key} with {clause.operator}",
                hint="search by run_id with = or IN, or by experiment",
            )
        if clause.key == "run_id":
            given = clause.value if isinstance(clause.value, tuple) else (str(clause.value),)
            ids = tuple(from_hex(item) for item in given)
            clause = clause._replace(value=ids if isinstance(clause.value, tuple) else ids[0])
        return self._compare(_COLUMNS[clause.key], clause)

    def _time(self, column: str, operator: str, value: float) -> Part:
        """Times are told in whole milliseconds and kept in microseconds: a millisecond is a thousand of them."""
        try:
            start = self._moment(int(value // 1) * 1000)
            end = self._moment(int(value // 1) * 1000 + 1000)
        except (OverflowError, ValueError):
            raise InvalidInput(f"{value} is not a time", hint="milliseconds since 1970") from None
        whole = value == value // 1
        match operator:
            case "<":
                return Part(f"{column} < ?", (start if whole else end,))
            case "<=":
                return Part(f"{column} < ?", (end,))
            case ">":
                return Part(f"{column} >= ?", (end,))
            case ">=":
                return Part(f"{column} >= ?", (start if whole else end,))
            case "=":
                return Part(f"({column} >= ? AND {column} < ?)" if whole else "(? = ? AND 1 = 0)", (start, end))
            case _:
                missed = f"({column} < ? OR {column} >= ?)" if whole else f"({column} IS NOT NULL OR ? = ?)"
                return Part(missed, (start, end))

    def _moment(self, microseconds: int) -> str | datetime:
        found = moment(microseconds)
        return found.strftime("%Y-%m-%d %H:%M:%S.%f") if self._sqlite else found


def json_text(column: str, key: str, *, sqlite: bool) -> Part:
    """The text under a key of a column of JSON; null where there is none.

    Raises:
        InvalidInput: SQLite cannot look for such a key.
    """
    if not sqlite:
        return Part(f"(CAST({column} AS jsonb) ->> ?)", (key,))
    if '"' in key:
        raise InvalidInput(f"a key with quotes cannot be searched: {key}", hint="search by another one")
    return Part(f"json_extract({column}, ?)", (f'$."{key}"',))


def comparison(column: str, clause: Clause, *, sqlite: bool) -> Part:
    """The comparison of a column with a clause's value."""
    value = clause.value
    if isinstance(value, tuple):
        return Part(f"{column} {clause.operator} ({', '.join('?' * len(value))})" if value else "1 = 0", value)
    if clause.operator == "LIKE":
        if sqlite:  # whose LIKE ignores case; its GLOB does not
            return Part(f"{column} GLOB ?", (_glob(str(value)),))
        return Part(f"{column} LIKE ? ESCAPE ''", (value,))
    if clause.operator == "ILIKE":
        return Part(f"{column} LIKE ?" if sqlite else f"{column} ILIKE ? ESCAPE ''", (value,))
    return Part(f"{column} {clause.operator} ?", (value,))


def _glob(pattern: str) -> str:
    """A pattern of LIKE as one of GLOB."""
    spelled = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(spelled.get(letter, letter) for letter in pattern)
