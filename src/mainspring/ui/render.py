"""From a page to HTML: the Jinja environment and what templates may call."""

from __future__ import annotations

from datetime import datetime
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from mainspring.core.clock import Clock
from mainspring.governance.model import Approval
from mainspring.monitoring.model import Incident
from mainspring.ui import address, charts, formats, status
from mainspring.ui.page import Page
from mainspring.workspace import Workspace

NAVIGATION = (
    ("home", "Home", "/"),
    ("usecases", "Use cases", "/u"),
    ("data", "Data", "/data"),
    ("runs", "Runs", "/runs"),
    ("models", "Models", "/models"),
    ("approvals", "Approvals", "/approvals"),
    ("deployments", "Deployments", "/deployments"),
    ("monitoring", "Monitoring", "/monitoring"),
    ("simulations", "Simulations", "/simulations"),
    ("audit", "Audit", "/events"),
)


class Renderer:
    """Draws pages of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        folder = str(resources.files("mainspring.ui") / "templates")
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        clock = workspace.clock
        self._environment.globals |= {
            "charts": charts, "icon": charts.icon, "logo": charts.logo, "path": address.path, "navigation": NAVIGATION,
            "state_of": status.state_of, "when": lambda moment: when(moment, clock), "meanings": status.MEANINGS,
        }  # fmt: skip
        self._environment.filters |= {
            "number": formats.number, "signed": formats.signed, "percent": formats.percent, "size": formats.size,
            "decision": formats.decision, "duration": formats.duration, "exact": formats.exact, "short": formats.short,
            "spoken": status.spoken,
            "day": formats.day, "plain": formats.plain, "extreme": formats.extreme, "natural": formats.natural,
            "ticked": formats.ticked,
        }  # fmt: skip

    def html(self, page: Page, here: str) -> str:
        """The page as a document; ``here`` is its own address."""
        store = self._workspace.store
        incident = store.columns(Incident)
        badges = {
            "approvals": store.count(Approval, status="pending"),
            "monitoring": store.count(Incident, incident.status.in_(["open", "acknowledged"])),
        }
        shell: dict[str, Any] = {
            "title": page.title, "section": page.section, "crumbs": page.crumbs, "badges": badges, "here": here,
            "twin": twin(here), "live": page.live,
        }  # fmt: skip
        return self._environment.get_template(page.template).render({**page.context, **shell})

    def stranger(self, page: Page) -> str:
        """A page for somebody who has not signed in: no navigation, no counts."""
        return self._environment.get_template(page.template).render({**page.context, "title": page.title})


def twin(here: str) -> str:
    """The address of a page's JSON."""
    path, mark, query = here.partition("?")
    return (path if path != "/" else "/index").rstrip("/") + ".json" + mark + query


def when(moment: datetime | None, clock: Clock) -> Markup:
    """A moment as people say it, exact when the mouse rests on it."""
    if moment is None:
        return escape(formats.NONE)
    said = Markup('<time datetime="{}" title="{}">{}</time>')
    return said.format(moment.isoformat(), formats.exact(moment), formats.ago(moment, clock.now()))
