"""Operations on use cases."""

from __future__ import annotations

from mainspring.core.entity import Create, Patch, born
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.errors import unknown_name
from mainspring.store import Store
from mainspring.usecases import rules
from mainspring.usecases.model import KpiValue, UseCase


class UseCases:
    """Use cases and the values of their KPIs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("POST", "/usecases")
    def create(self, new: Create[UseCase]) -> UseCase:
        """Creates a use case.

        Raises:
            Conflict: The name is taken.
        """
        use_case = born(UseCase, new, id=new_id(), created=self._store.clock.now())
        with self._store.transaction() as tx:
            tx.insert(use_case)
            tx.emit("usecases.usecase.created", use_case.name, owner=use_case.owner, risk_class=use_case.risk_class)
        return use_case

    @operation("GET", "/usecases", command="list")
    def find(self, limit: int = 100) -> list[UseCase]:
        """Lists use cases by name."""
        return self._store.find(UseCase, order="name", limit=limit)

    @operation("GET", "/usecases/{name}")
    def show(self, name: str) -> UseCase:
        """Shows a use case.

        Raises:
            NotFound: There is none of this name.
        """
        return self._store.get(UseCase, name=name, listing="mainspring usecases list")

    @operation("PATCH", "/usecases/{name}")
    def update(self, name: str, change: Patch[UseCase]) -> UseCase:
        """Changes a use case; fields that are not sent stay as they are."""
        with self._store.transaction() as tx:
            return tx.patch(self.show(name), change, "usecases.usecase.changed", name)

    @operation("POST", "/kpis", command="")
    def record_kpi(self, value: Create[KpiValue]) -> KpiValue:
        """Records the value of a KPI over a window; a window recorded before is replaced.

        Raises:
            NotFound: The use case has no such KPI.
        """
        declared = {item.name: item for item in self.show(value.use_case).kpis}
        if value.kpi not in declared:
            raise unknown_name("KPI", value.kpi, declared, listing=f"mainspring usecases show {value.use_case}")
        met = rules.target_met(declared[value.kpi], value.value)
        measured = born(KpiValue, value, id=new_id(), created=self._store.clock.now(), met=met)
        with self._store.transaction() as tx:
            before = self._store.first(
                KpiValue, use_case=value.use_case, kpi=value.kpi, start=value.start, end=value.end
            )
            if before is not None:
                tx.delete(before)
            tx.insert(measured)
            tx.emit("usecases.kpi.measured", value.use_case, kpi=value.kpi, value=value.value, met=met, rows=value.rows)
        return measured

    @operation("GET", "/usecases/{name}/kpis/{kpi}", command="kpi")
    def kpi_values(self, name: str, kpi: str, limit: int = 1000) -> list[KpiValue]:
        """Lists the values of a KPI, oldest window first."""
        return self._store.find(KpiValue, order="start", limit=limit, use_case=name, kpi=kpi)
