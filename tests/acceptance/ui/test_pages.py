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
        ("/rules", "2 rules armed"),
        ("/rules/worse?since=365d", "worse: "),
        ("/channels", "Nobody is told yet"),
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
        "/rules",
        "/channels",
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
        best = client.get("/runs.json?sort=-metrics.roc_auc").json()["runs"]
        assert [run["name"] for run in best[:3]] == ["merry-fox-5", "brave-ibis-4", "calm-otter-3"]
        worst = client.get("/runs.json?sort=metrics.roc_auc&status=ok").json()["runs"]
        assert worst[0]["name"] == "calm-otter-1"

    @pytest.mark.parametrize(
        "query", ["sort=-nonsense", "page=999999", "page=-1", "page=x", "sort=metrics.%22%27%3B--", "status=<script>"]
    )
    def test_nonsense_in_the_address_does_no_harm(self, client: Any, query: str) -> None:
        answer = client.get(f"/runs?{query}")
        assert answer.status == 200
        assert "<script>" not in answer.text.replace('<script src="/static', "")

    def test_a_filter_that_cannot_be_read_says_so_and_stays_in_the_form(self, client: Any) -> None:
        answer = client.get("/runs?q=metrics.roc_auc%20%3E&group=params.learning_rate")
        assert answer.status == 422
        assert 'value="metrics.roc_auc &gt;"' in answer.text
        assert "Invalid comparison clause" in answer.text
        assert client.get("/runs?group=nonsense").status == 422
        assert client.get("/runs?experiment=nowhere").status == 404

    def test_groups_are_counted_over_all_runs_and_lead_to_their_runs(self, client: Any) -> None:
        group = client.get("/runs.json?group=status&columns=metrics.roc_auc").json()["groups"]
        told = {item["value"]: item for item in group}
        assert told["ok"]["runs"] == 5
        assert told["ok"]["metrics"]["roc_auc"]["greatest"] == 0.861
        assert [run["name"] for run in client.get(told["failed"]["href"].replace("?", ".json?")).json()["runs"]] == [
            "shy-crane-5"
        ]

    def test_comparing_shows_what_differs_and_how_far_from_the_baseline(self, client: Any) -> None:
        found = client.get("/runs/compare.json?run=calm-otter-1,calm-otter-3&base=calm-otter-1").json()
        lines = {line["field"]: line for line in found["lines"]}
        assert "params.leaves" not in lines
        auc, loss = lines["metrics.roc_auc"]["cells"][1], lines["metrics.log_loss"]["cells"][1]
        assert (round(auc["delta"], 6), auc["better"]) == (0.024, True)
        assert (round(loss["delta"], 6), loss["better"]) == (-0.012, True)
        assert [chart["key"] for chart in found["curves"]] == ["loss"]
        both = client.get("/runs/compare.json?run=calm-otter-1&run=calm-otter-3&all=1").json()
        assert "params.leaves" in [line["field"] for line in both["lines"]]
        assert client.get("/runs/compare").status == 422
        assert client.get("/runs/compare?run=nobody").status == 404

    def test_ten_thousand_runs_take_few_queries_and_little_time(self, many_runs: Any) -> None:
        for address in (
            "/",
            "/u/churn",
            "/runs",
            "/runs?sort=-metrics.roc_auc",
            "/runs?status=failed&page=3",
            "/runs?q=metrics.rows%20%3E%200.5&group=status",
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


class TestFiles:
    def test_a_table_is_shown_by_its_rows(self, client: Any) -> None:
        told = client.get("/runs/calm-otter-2/files.json?path=tables/rows.parquet").json()["table"]
        assert (told["total"], told["rows"][0][0], told["rows"][1][1]) == (2, 1, None)

    def test_pictures_are_sealed_and_nothing_else_is_served_as_one(self, client: Any) -> None:
        for path, kind in (("plots/dot.png", "image/png"), ("plots/dot.svg", "image/svg+xml")):
            answer = client.get(f"/media/calm-otter-2?path={path}")
            assert answer.headers["content-type"] == kind
            assert "sandbox" in answer.headers["content-security-policy"]
            assert "script" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("notes/evil.html", "notes/not.png", "tables/rows.parquet", "nowhere", "../../etc/passwd"):
            assert client.get(f"/media/calm-otter-2?path={path}").status == 404
        assert client.get("/media/nobody?path=plots/dot.png").status == 404

    def test_what_is_no_text_is_offered_for_download(self, client: Any) -> None:
        assert "not text" in client.get("/runs/calm-otter-2/files?path=raw.bin").text
        assert client.get("/runs/calm-otter-2/files?path=gone").status == 404

    def test_a_logged_model_leads_to_its_run_and_back(self, client: Any) -> None:
        (line,) = client.get("/logged.json").json()["lines"]
        assert line["run"] == "calm-otter-2"
        page = client.get(f"/logged/{line['id']}")
        assert "/runs/calm-otter-2" in page.text
        assert f"/logged/{line['id']}" in client.get("/runs/calm-otter-2").text

    def test_traces_are_found_by_their_run(self, client: Any) -> None:
        run = client.get("/runs/calm-otter-2.json").json()["hex"]
        assert len(client.get(f"/traces.json?q=run_id%20%3D%20%27{run}%27").json()["traces"]) == 1
        assert client.get("/traces.json?q=run_id%20%3D%20%27no%27").json()["traces"] == []
        assert client.get("/traces?q=nonsense").status == 422
        assert "calm-otter-2" in client.get("/traces/tr-sample").text


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

    def test_what_is_said_of_models_and_versions_is_edited(self, client: Any, workspace: Any) -> None:
        sign = {"actor": "maria"}
        assert (
            client.post("/models/churn/describe", sign | {"description": "who leaves"}).headers["location"]
            == "/models/churn"
        )
        client.post("/models/churn/describe", sign | {"key": "team", "value": "blue"})
        client.post("/models/churn/alias", sign | {"alias": "best", "number": "3"})
        client.post("/models/churn@3/describe", sign | {"key": "note", "value": "kept", "description": "the third"})
        assert (
            client.post("/models/churn@3/stage", sign | {"stage": "Staging"}).headers["location"] == "/models/churn@3"
        )
        page = client.get("/models/churn").text
        for said in ("who leaves", "team", "blue", "best", "Staging"):
            assert said in page
        page = client.get("/models/churn@3").text
        assert "the third" in page
        assert "kept" in page
        assert workspace.store.events(prefix="registry.model.changed")[-1].actor == "maria"
        client.post("/models/churn/describe", sign | {"key": "team", "value": ""})
        client.post("/models/churn/alias", sign | {"alias": "best", "number": ""})
        assert workspace.models.show("churn").tags == {}
        assert "best" not in workspace.models.aliases("churn")
        for form, address in (
            ({"stage": "Moon"}, "/models/churn@3/stage"),
            ({"alias": "x", "number": "y"}, "/models/churn/alias"),
        ):
            assert client.post(address, sign | form).status == 422
        assert client.post("/models/churn/describe", {"description": "x"}).status == 422

    def test_a_form_of_nonsense_is_refused(self, client: Any) -> None:
        assert client.post("/approvals/churn@5/approve", {f"f{index}": "" for index in range(99)}).status == 422
        assert client.post("/approvals/churn@5/approve", {"actor": "m" * 70_000}).status == 422
