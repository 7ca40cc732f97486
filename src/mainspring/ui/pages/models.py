"""Models: which version is live, where does it come from, where does it go?"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.address import parse_model_address
from mainspring.core.ids import to_hex
from mainspring.deploy.model import Deployment, Release
from mainspring.errors import NotFound
from mainspring.governance.model import Approval
from mainspring.registry.model import Alias, ModelVersion
from mainspring.tracking.model import Run
from mainspring.ui.page import Page, Query
from mainspring.ui.views import rows_of, tuples_of
from mainspring.workspace import Workspace


def index(workspace: Workspace, query: Query) -> Page:
    """All models with their newest and live versions."""
    store = workspace.store
    column, alias = store.columns(ModelVersion), store.columns(Alias)
    counted = sa.select(column.model, sa.func.max(column.number), sa.func.count()).group_by(column.model)
    newest = {model: (number, count) for model, number, count in tuples_of(store, counted)}
    live = {
        row.model: row.number for row in store.rows(sa.select(alias.model, alias.number).where(alias.alias == "live"))
    }
    models = [
        {"model": item, "newest": newest.get(item.name, (0, 0))[0], "count": newest.get(item.name, (0, 0))[1],
         "live": live.get(item.name)}
        for item in workspace.models.find(limit=1000)
    ]  # fmt: skip
    title = (
        f"{len(live)} of {len(models)} {'model' if len(models) == 1 else 'models'} live" if models else "No model yet"
    )
    return Page(title=title, template="models/index.html", context={"models": models}, section="models")


def page(workspace: Workspace, query: Query, address: str) -> Page:
    """A model, or one of its versions where the address names one."""
    parsed = parse_model_address(address)
    if parsed.number is None and parsed.alias is None:
        return model(workspace, parsed.name)
    return version(workspace, workspace.models.version(address))


def model(workspace: Workspace, name: str) -> Page:
    """A model: its versions and aliases."""
    found = workspace.models.show(name)
    column = workspace.store.columns(ModelVersion)
    wanted = ("address", "number", "run", "flavor", "metrics", "datasets", "status", "actor", "created", "stage")
    select = sa.select(*(column[item] for item in wanted)).where(column.model == name, column.lifecycle == "active")
    versions = rows_of(workspace.store, select.order_by(column.number.desc()).limit(100))
    aliases = workspace.models.aliases(name)
    names: dict[int, list[str]] = {}
    for alias, number in aliases.items():
        names.setdefault(number, []).append(alias)
    metrics = list(dict.fromkeys(key for item in versions for key in item["metrics"]))[:5]
    title = f"live: {name}@{aliases['live']}" if "live" in aliases else f"{name}: nothing is live"
    title += f", {len(versions)} {'version' if len(versions) == 1 else 'versions'}"
    staged = any(item["stage"] != "None" for item in versions)
    context = {"model": found, "versions": versions, "aliases": names, "metrics": metrics, "staged": staged}
    crumbs = (("Models", "/models"), (name, ""))
    return Page(title=title, template="models/model.html", context=context, section="models", crumbs=crumbs)


def version(workspace: Workspace, found: ModelVersion) -> Page:
    """A version: lineage both ways, signature, metrics, files."""
    store = workspace.store
    approval = store.first(Approval, version=found.address)
    releases = store.find(Release, version=found.address, order="created", limit=100)
    aliases = [alias for alias, number in workspace.models.aliases(found.model).items() if number == found.number]
    context: dict[str, Any] = {
        "version": found,
        "run": store.first(Run, name=found.run),
        "approval": approval,
        "releases": releases,
        "aliases": aliases,
        "logged": _logged(workspace, found),
        "obstacle": _obstacle(found),
        "compatible": workspace.models.compare(found.address),
        "inputs": [msgspec.to_builtins(field) for field in found.signature.inputs],
        "sizes": _sizes(workspace, found),
    }
    where = [
        item.name for item in store.find(Deployment, model=found.model, order="name") if item.live == found.address
    ]
    if where:
        title = f"{found.address} is live on {', '.join(where)}"
    elif approval and approval.status == "refused":
        title = f"{found.address} was refused: " + (
            ", ".join(g.name for g in approval.gates if not g.passed) or approval.reason
        )
    else:
        title = f"{found.address}: {found.status}, not live"
    crumbs = (("Models", "/models"), (found.model, f"/models/{found.model}"), (f"@{found.number}", ""))
    return Page(title=title, template="models/version.html", context=context, section="models", crumbs=crumbs)


def _logged(workspace: Workspace, found: ModelVersion) -> dict[str, str] | None:
    """The logged model it was registered from, where that is still there."""
    if not found.logged_model:
        return None
    id = found.logged_model if found.logged_model.startswith("m-") else f"m-{to_hex(found.logged_model)}"
    try:
        return {"id": id, "name": workspace.logged.show(id).name}
    except NotFound:
        return None


def _obstacle(found: ModelVersion) -> str:
    """Why nothing here can serve it; empty where something can."""
    if not found.files:
        return f"its files are elsewhere, at `{found.source}`, and nobody fetches them from there."
    if not {"model.onnx", "model.skops", "MLmodel"} & {path.rpartition("/")[2] for path in found.files}:
        return "none of its files is a model that serving runs: `model.onnx`, `model.skops` or `MLmodel`."
    if not found.signature.inputs:
        return "nobody knows what it reads, or it is code that this workspace does not load; its history says why."
    return ""


def _sizes(workspace: Workspace, found: ModelVersion) -> dict[str, int | None]:
    """Path -> bytes; None where the blob is gone."""
    blobs = {path: workspace.artifacts.stat(digest) for path, digest in list(found.files.items())[:50]}
    return {path: blob.size if blob else None for path, blob in blobs.items()}
