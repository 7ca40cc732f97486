"""Every page as text: what it answers, what it escapes, what its forms do."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
import sqlalchemy as sa

VOID = {"meta", "link", "input", "br", "hr", "img", "option"}


class Checker(HTMLParser):
    """Finds tags that do not match, and what a page must not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.trouble: list[str] = []
        self.headings: list[str] = []
        self.links: list[str] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        found = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script" and not found.get("src", "").startswith("/static/"):
            self.trouble.append("a script in the page")
        self.trouble += [f"{name} on {tag}" for name in found if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "formaction"):
            if (found.get(name) or "/").startswith(("http:", "https:", "//", "javascript:")):
                self.foreign.append(str(found[name]))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.trouble.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h1":
            self.headings.append(data)


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker


def test_every_page_is_whole_escaped_and_of_this_host(client: Any, address: str) -> None:
    answer = client.get(address)
    assert answer.status == 200
    page = checked(answer.text)
    assert page.trouble == []
    assert page.open == []
    assert page.foreign == []
    assert len(page.headings) == 1
    assert "<script>alert" not in answer.text
    assert len(answer.body) < 130_000


def test_every_page_forbids_scripts_from_elsewhere(client: Any, address: str) -> None:
    headers = client.get(address).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert (
        headers["referrer-policy"] == "same-origin"
    )  # `no-referrer` would make browsers send `Origin: null` with forms


def test_every_page_has_a_twin_in_json(client: Any, address: str) -> None:
    page = client.get(address)
    link = re.search(r'rel="alternate" type="application/json" href="([^"]+)"', page.text)
    assert link
    twin = client.get(link[1].replace("&amp;", "&"))
    assert twin.status == 200
    assert twin.headers["content-type"] == "application/json"
    assert twin.json()["title"] == "".join(checked(page.text).headings)


def test_links_of_the_pages_lead_somewhere(client: Any, addresses: tuple[str, ...]) -> None:
    links = {link.partition("#")[0] for address in addresses for link in checked(client.get(address).text).links}
    pages = sorted(link for link in links if link.startswith("/") and not link.startswith("/api/"))
    assert len(pages) > 40
    broken = [link for link in pages if client.get(link.replace("&amp;", "&")).status != 200]
    assert broken == []


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("/", "3 things wait for you, 1 of 1 use case live"),
        ("/u/churn", "live: churn@3, churn@4 takes over (10 %), saved per call below target, 1 incident open"),
        ("/data/customers@7", "customers@7 accepted: all 4 checks passed"),
        ("/runs/shy-crane-5", "shy-crane-5 failed"),
        ("/runs/calm-otter-2", "calm-otter-2 succeeded and became churn@2"),
        ("/models/churn@3", "churn@3 is live on churn-eu"),
        ("/models/churn@live", "churn@3 is live on churn-eu"),
        ("/approvals", "1 candidate waits for a signature"),
        ("/approvals/churn@5", "churn@5: all 2 gates passed, it waits for a signature"),
        ("/deployments/churn-eu", "live: churn@3, churn@4 answers 10 %, 1 incident open"),
        ("/simulations/calm-otter-2", "careful would have served churn best"),
        ("/monitoring/churn-eu", "churn@3: 1 incident open, inputs beyond the limit in the last window"),
        ("/incidents", "1 incident open"),
        ("/incidents/churn-eu-2", "churn-eu, drift: psi 0.2993 (4200 rows), at most 0.25"),
        ("/events?verify=1", "the chain is unbroken"),
    ],
)
def test_the_title_answers_the_question(client: Any, address: str, answer: str) -> None:
    assert answer in "".join(checked(client.get(address).text).headings)


def test_a_refused_version_says_why(client: Any) -> None:
    text = client.get("/data/customers@3").text
    assert "customers@3 refused" in text
    assert "not passed" in text
    assert "refused versions are never read" in text


def test_an_empty_workspace_teaches_the_next_command(empty: Any) -> None:
    for address in (
        "/",
        "/u",
        "/data",
        "/runs",
        "/models",
        "/approvals",
        "/deployments",
        "/monitoring",
        "/simulations",
        "/events",
    ):
        answer = empty.get(address)
        assert answer.status == 200
        assert '<pre class="command"><code>mainspring ' in answer.text


def test_what_does_not_exist_is_told_with_the_nearest_name(client: Any) -> None:
    answer = client.get("/models/churm")
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "did you mean `churn`?" in answer.text
    assert client.get("/models/churm.json").json()["error"]["code"] == "not_found"
    assert client.get("/no/such/page").status == 404
    assert client.get("/api/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/static/../app.py").status == 404


def test_static_files_come_from_here_and_are_not_sent_twice(client: Any) -> None:
    for name in ("app.css", "app.js", "icon.svg", "htmx.js"):
        answer = client.get(f"/static/{name}")
        assert answer.status == 200
        assert "http://" not in answer.text.replace("http://www.w3.org", "") or name == "htmx.js"
        again = client.get(f"/static/{name}", if_none_match=answer.headers["etag"])
        assert (again.status, again.body) == (304, b"")


class TestRuns:
    def test_filters_and_orders_by_the_address(self, client: Any) -> None:
        failed = client.get("/runs.json?status=failed").json()
        assert [run["name"] for run in failed["runs"]] == ["shy-crane-5"]
        best = client.get("/runs.json?sort=-metric.roc_auc").json()["runs"]
        assert [run["name"] for run in best[:3]] == ["merry-fox-5", "brave-ibis-4", "calm-otter-3"]
        worst = client.get("/runs.json?sort=metric.roc_auc&status=ok").json()["runs"]
        assert worst[0]["name"] == "calm-otter-1"

    @pytest.mark.parametrize(
        "query", ["sort=-nonsense", "page=999999", "page=-1", "page=x", "sort=metric.%22%27%3B--", "status=<script>"]
    )
    def test_nonsense_in_the_address_does_no_harm(self, client: Any, query: str) -> None:
        answer = client.get(f"/runs?{query}")
        assert answer.status == 200
        assert "<script>" not in answer.text.replace('<script src="/static', "")

    def test_ten_thousand_runs_take_few_queries_and_little_time(self, many_runs: Any) -> None:
        for address in (
            "/",
            "/u/churn",
            "/runs",
            "/runs?sort=-metric.roc_auc",
            "/runs?status=failed&page=3",
            "/search?q=run-77",
        ):
            seen: list[str] = []

            def listener(_c: Any, _cu: Any, statement: str, *_: Any, seen: list[str] = seen) -> None:
                seen.append(statement)

            sa.event.listen(sa.Engine, "before_cursor_execute", listener)
            try:
                assert many_runs.get(address).status == 200
            finally:
                sa.event.remove(sa.Engine, "before_cursor_execute", listener)
            assert len(seen) <= 40, address
        assert many_runs.get("/runs.json?page=200").json()["pages"] == 200


class TestForms:
    def test_a_signature_approves_and_is_kept(self, client: Any, workspace: Any) -> None:
        text = client.get("/approvals/churn@5").text
        assert 'action="/approvals/churn@5/approve"' in text
        assert client.post("/approvals/churn@5/approve", {"actor": "", "reason": ""}).status == 422
        assert client.post("/approvals/churn@5/refuse", {"actor": "maria", "reason": " "}).status == 422
        assert client.post("/approvals/churn@5/approve", {"actor": "mallory", "reason": ""}).status == 403
        assert workspace.approvals.show("churn@5").status == "pending"
        done = client.post("/approvals/churn@5/approve", {"actor": "maria", "reason": "fine <b>"})
        assert (done.status, done.headers["location"]) == (303, "/approvals/churn@5")
        assert workspace.approvals.show("churn@5").decided_by == "maria"
        after = client.get("/approvals/churn@5").text
        assert "churn@5 approved by maria" in after
        assert "fine &lt;b&gt;" in after
        assert client.post("/approvals/churn@5/refuse", {"actor": "maria", "reason": "too late"}).status == 409

    def test_other_sites_cannot_sign(self, client: Any) -> None:
        for origin in ("https://evil.example", "null"):
            assert client.post("/approvals/churn@5/approve", {"actor": "maria"}, origin=origin).status == 403

    def test_a_rollback_wants_its_effect_confirmed(self, client: Any, workspace: Any) -> None:
        assert "Roll back to churn@3" in client.get("/deployments/churn-eu").text
        assert client.post("/deployments/churn-eu/rollback", {"actor": "ops"}).status == 422
        assert workspace.deployments.show("churn-eu").canary == "churn@4"
        done = client.post(
            "/deployments/churn-eu/rollback", {"actor": "ops", "confirm": "churn-eu", "reason": "odd scores"}
        )
        assert done.status == 303
        assert workspace.deployments.show("churn-eu").canary == ""
        assert "odd scores" in client.get("/deployments/churn-eu").text

    def test_an_incident_can_be_taken_over(self, client: Any) -> None:
        done = client.post("/incidents/churn-eu-2/acknowledge", {"actor": "ops"})
        assert done.headers["location"] == "/incidents/churn-eu-2"
        assert "ops is at it" in client.get("/monitoring/churn-eu").text

    def test_a_form_of_nonsense_is_refused(self, client: Any) -> None:
        assert client.post("/approvals/churn@5/approve", {f"f{index}": "" for index in range(99)}).status == 422
        assert client.post("/approvals/churn@5/approve", {"actor": "m" * 70_000}).status == 422
