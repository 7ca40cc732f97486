"""The table of runs: filtered, sorted, counted and grouped in the database, over all runs there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mainspring.errors import InvalidInput
from mainspring.store import Store
from mainspring.tracking import search
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.journal import as_moment
from mainspring.tracking.model import Experiment, Run
from mainspring.tracking.query import Part, Search
from mainspring.tracking.search import Clause, Order
from mainspring.tracking.store import among

COUNTED = 10_000
"""Runs are counted up to so many; nobody pages further."""
GROUPS = 200
NAMES = 300
"""So many keys are offered for completion."""
_NEWEST = 40
_TABLES = {"metrics": "run_metric", "params": "run_param", "tags": "run_tag"}
_GROUPED = {
    "status": "r.status", "experiment": "r.experiment", "pipeline": "r.pipeline", "use_case": "r.use_case",
    "user": "r.actor", "trigger": 'r."trigger"',
}  # fmt: skip


class Asked(NamedTuple):
    """A filter and an order, read.

    Attributes:
        experiments: Numbers of the experiments.
        clauses: All must hold.
        orders: What decides, first to last.
    """

    experiments: list[int]
    clauses: list[Clause]
    orders: list[Order]


class Group(NamedTuple):
    """Runs that have a value in common.

    Attributes:
        value: The value; None where they have none.
        runs: How many.
        metrics: Metric -> how many have it, least, mean and greatest last value.
    """

    value: str | None
    runs: int
    metrics: dict[str, tuple[int, float, float, float]]


class Table:
    """Reads the table.

    Args:
        store: The database.
        experiments: Which experiments there are.
    """

    def __init__(self, store: Store, experiments: Experiments) -> None:
        self._store = store
        self._experiments = experiments

    def asked(
        self, filter: str = "", order: Sequence[str] = (), experiment: str = "", also: Sequence[Clause] = ()
    ) -> Asked:
        """Reads what is asked for.

        Args:
            filter: Comparisons joined by AND, such as ``metrics.auc > 0.9 AND params.depth = '3'``.
            order: Such as ``metrics.auc DESC``, first to last.
            experiment: Name of the experiment; all that are not deleted by default.
            also: Further clauses.

        Raises:
            InvalidInput: The filter or the order cannot be read.
            NotFound: There is no such experiment.
        """
        clauses, orders = search.TABLE.filter(filter), search.TABLE.order(list(order))
        return Asked(self._numbers(experiment), [*clauses, *also], orders)

    def _numbers(self, experiment: str) -> list[int]:
        if experiment:
            return [self._experiments.show(experiment).number]
        with self._store.driver() as driver:
            # Where all runs are in one experiment, as often, one range of the index has them in order.
            return [
                row[0]
                for row in driver.rows(
                    "SELECT e.number FROM experiment e WHERE e.lifecycle = 'active' "
                    "AND EXISTS (SELECT 1 FROM run r WHERE r.experiment_number = e.number)"
                )
            ]

    def page(self, asked: Asked, limit: int, offset: int = 0) -> tuple[list[Run], bool]:
        """Runs of one page, and whether there are more."""
        if not 1 <= limit <= COUNTED or offset < 0:
            raise InvalidInput(f"limit must be 1 to {COUNTED} and offset not negative, not {limit} and {offset}")
        with self._store.driver() as driver:
            numbers, more = Search(driver, *asked).page(limit, offset)
        return self.runs(numbers), more

    def runs(self, numbers: Sequence[int]) -> list[Run]:
        """Runs by number, in the order given."""
        column = self._store.columns(Run)
        found = {
            run.number: run for run in self._store.find(Run, column.number.in_(numbers), limit=max(len(numbers), 1))
        }
        return [found[number] for number in numbers if number in found]

    def count(self, asked: Asked) -> int:
        """How many runs match, at most `COUNTED` + 1."""
        with self._store.driver() as driver:
            return Search(driver, asked.experiments, asked.clauses).count(COUNTED + 1)

    def names(self, experiment: str = "") -> dict[str, list[str]]:
        """The keys there are: ``metrics``, ``params`` and ``tags`` -> names, those of the newest experiments first."""
        numbers = sorted(self._numbers(experiment), reverse=True)[:_NEWEST]
        found: dict[str, list[str]] = {}
        with self._store.driver() as driver:
            for kind, table in _TABLES.items():
                keys: dict[str, None] = {}
                for number in numbers:
                    if len(keys) < NAMES:
                        keys |= dict.fromkeys(row[0] for row in driver.rows(_KEYS.format(table), (number, number)))
                found[kind] = list(keys)[:NAMES]
        return found

    def groups(self, asked: Asked, by: str, metrics: Sequence[str]) -> list[Group]:
        """Runs by what they have in common, those with most runs first.

        Args:
            asked: Which runs.
            by: ``params.depth``, ``tags.team``, ``status``, ``experiment``, ``pipeline``, ``use_case``, ``user``,
                ``trigger``; empty takes all together.
            metrics: Metrics that are summed up.

        Raises:
            InvalidInput: Runs cannot be grouped by this.
        """
        if not asked.experiments:
            return []
        value, joined = self._grouped(by)
        with self._store.driver() as driver:
            part = Search(driver, asked.experiments, asked.clauses).matching()
            matching = part.text.replace("SELECT r.number FROM", "SELECT r.number AS number FROM", 1)
            source, chosen = f"FROM ({matching}) s CROSS JOIN run r{joined.text}", "WHERE r.number = s.number"
            values = (*part.values, *joined.values)
            counted = driver.rows(
                f"SELECT {value}, count(*) {source} {chosen} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {GROUPS}", values
            )
            found = {row[0]: Group(row[0], row[1], {}) for row in counted}
            if metrics:
                named, keys = among(driver, "m.key", "text", list(metrics))
                rows = driver.rows(
                    f"SELECT {value}, m.key, count(m.value), min(m.value), avg(m.value), max(m.value) {source} "
                    f"CROSS JOIN run_metric m {chosen} AND m.run = s.number AND {named} AND m.value IS NOT NULL "
                    "GROUP BY 1, 2",
                    (*values, keys),
                )
                for label, key, *figures in rows:
                    if label in found:
                        found[label].metrics[key] = (figures[0], figures[1], figures[2], figures[3])
        return list(found.values())

    def _grouped(self, by: str) -> tuple[str, Part]:
        kind, _, key = by.partition(".")
        if not by:
            return "''", Part("")
        if by in _GROUPED:
            return _GROUPED[by], Part("")
        if kind in ("params", "tags") and key:
            return "g.value", Part(f" LEFT JOIN {_TABLES[kind]} g ON g.run = r.number AND g.key = ?", (key,))
        raise InvalidInput(f"runs cannot be grouped by `{by}`", hint="params.NAME, tags.NAME or " + ", ".join(_GROUPED))

    def experiments(self, limit: int = 200, offset: int = 0) -> list[dict[str, Any]]:
        """Experiments that are not deleted, those with the newest runs first: each with its number of runs."""
        found = self._store.find(Experiment, order="-created", limit=limit, offset=offset, lifecycle="active")
        with self._store.driver() as driver:
            told = {
                item.number: driver.row(
                    "SELECT count(*), max(created) FROM run WHERE experiment_number = ? AND lifecycle = 'active'",
                    (item.number,),
                )
                for item in found
            }
        lines = [
            {"experiment": item, "runs": count, "last": as_moment(last) if last else None}
            for item in found
            for count, last in [told[item.number] or (0, None)]
        ]
        return sorted(lines, key=lambda line: str(line["last"] or ""), reverse=True)


# From key to next key by the index, instead of reading the keys of all runs.
_KEYS = (
    "WITH RECURSIVE k(key, place) AS (SELECT min(key), 1 FROM {0} WHERE experiment = ? UNION ALL SELECT (SELECT "
    "min(m.key) FROM {0} m WHERE m.experiment = ? AND m.key > k.key), k.place + 1 FROM k WHERE k.key IS NOT NULL "
    f"AND k.place < {NAMES}) SELECT key FROM k WHERE key IS NOT NULL"
)
