"""Data: did the last load pass, what is in it, who reads it?"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mainspring.core.address import parse_address
from mainspring.data.model import DatasetVersion
from mainspring.errors import MainspringError
from mainspring.measures.profile import ColumnSummary
from mainspring.measures.schema import SchemaDifference, schema_difference
from mainspring.pipelines.model import PipelineDefinition
from mainspring.registry.model import ModelVersion
from mainspring.tracking.model import Run
from mainspring.ui.page import Page, Query
from mainspring.ui.views import rows_of
from mainspring.workspace import Workspace

_READERS = 50


def index(workspace: Workspace, query: Query) -> Page:
    """All datasets with their newest versions."""
    store = workspace.store
    column = store.columns(DatasetVersion)
    newest = sa.select(column.dataset, sa.func.max(column.number).label("number")).group_by(column.dataset).subquery()
    last = {
        row["dataset"]: row
        for row in rows_of(
            store,
            sa.select(
                column.dataset,
                column.address,
                column.number,
                column.status,
                column.rows,
                column.size,
                column.created,
                column.end,
            ).join(newest, sa.and_(column.dataset == newest.c.dataset, column.number == newest.c.number)),
        )
    }
    readers: dict[str, list[str]] = {}
    for item in store.find(PipelineDefinition, order="name"):
        for source in item.inputs.values():
            readers.setdefault(source.dataset, []).append(item.name)
    datasets: list[dict[str, Any]] = [
        {"dataset": item, "last": last.get(item.name), "readers": readers.get(item.name, [])}
        for item in workspace.datasets.find(limit=1000)
    ]
    refused = [item["dataset"].name for item in datasets if (item["last"] or {}).get("status") == "refused"]
    title = "No data yet"
    if datasets:
        title = (
            f"The newest version of {', '.join(refused[:3])} was refused"
            if refused
            else f"All {len(datasets)} datasets passed their checks"
        )
        title = title.replace("All 1 datasets passed their", "The dataset passed its")
    return Page(title=title, template="data/index.html", context={"datasets": datasets}, section="data")


def page(workspace: Workspace, query: Query, address: str) -> Page:
    """A dataset, or one of its versions where the address has a number."""
    parsed = parse_address(address)
    return (
        dataset(workspace, parsed.name)
        if parsed.number is None
        else version(workspace, workspace.datasets.version(address))
    )


def dataset(workspace: Workspace, name: str) -> Page:
    """A dataset: what is expected of it, and its versions."""
    found = workspace.datasets.show(name)
    versions = workspace.datasets.versions(name, limit=100)
    pipelines = [
        item.name
        for item in workspace.pipelines.find()
        if any(source.dataset == name for source in item.inputs.values())
    ]
    title = f"{name}: no version yet"
    if versions:
        refused = sum(item.status == "refused" for item in versions)
        title = f"{versions[0].address} {versions[0].status}, {refused} of {len(versions)} versions refused"
    context = {"dataset": found, "versions": [_line(item) for item in versions], "pipelines": pipelines}
    crumbs = (("Data", "/data"), (name, ""))
    return Page(title=title, template="data/dataset.html", context=context, section="data", crumbs=crumbs)


def version(workspace: Workspace, found: DatasetVersion) -> Page:
    """A version: checks, profile, schema, who read it."""
    failed = [check for check in found.checks if not check.passed]
    passed = f"all {len(found.checks)} checks passed" if found.checks else "nothing is checked"
    title = f"{found.address} {found.status}: " + (failed[0].sentence.replace("`", "") if failed else passed)
    if len(failed) > 1:
        title += f", and {len(failed) - 1} more"
    before = workspace.store.first(
        DatasetVersion,
        workspace.store.columns(DatasetVersion).number < found.number,
        dataset=found.dataset,
        status="accepted",
        order="-number",
    )
    difference = schema_difference(before.schema, found.schema) if before else SchemaDifference()
    context = {
        "version": found,
        "checks": sorted(found.checks, key=lambda check: check.passed),
        "profile": _profile(workspace, found.address),
        "before": before.address if before else "",
        "difference": difference,
        "runs": _readers(workspace, found.address),
        "models": _models(workspace, found.address),
    }
    crumbs = (("Data", "/data"), (found.dataset, f"/data/{found.dataset}"), (f"@{found.number}", ""))
    return Page(title=title, template="data/version.html", context=context, section="data", crumbs=crumbs)


def _line(item: DatasetVersion) -> dict[str, Any]:
    failed = [check.sentence for check in item.checks if not check.passed]
    return {
        "address": item.address,
        "status": item.status,
        "rows": item.rows,
        "size": item.size,
        "start": item.start,
        "end": item.end,
        "created": item.created,
        "actor": item.actor,
        "source": item.source,
        "failed": failed,
        "checks": len(item.checks),
    }


def _profile(workspace: Workspace, address: str) -> list[ColumnSummary]:
    try:
        return workspace.datasets.profile(address)
    except MainspringError:  # swept or damaged: the page still tells everything else
        return []


def _readers(workspace: Workspace, address: str) -> list[dict[str, Any]]:
    """Runs that read the version, newest first; the list of addresses is stored as JSON text."""
    column = workspace.store.columns(Run)
    mentions = sa.type_coerce(column.datasets, sa.Text).contains(f'"{address}"', autoescape=True)
    query = sa.select(column.name, column.pipeline, column.status, column.created, column.trigger)
    return rows_of(workspace.store, query.where(mentions).order_by(column.created.desc()).limit(_READERS))


def _models(workspace: Workspace, address: str) -> list[str]:
    column = workspace.store.columns(ModelVersion)
    mentions = sa.type_coerce(column.datasets, sa.Text).contains(f'"{address}"', autoescape=True)
    query = sa.select(column.address).where(mentions).order_by(column.created.desc()).limit(_READERS)
    return [str(row[0]) for row in workspace.store.rows(query)]
