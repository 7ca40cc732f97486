"""The pages in a real browser: light and dark, wide and narrow, live, and without JavaScript."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from mainspring.core.actor import acting_as
from mainspring.core.entity import draft
from mainspring.core.ids import to_hex
from mainspring.server.app import create_app
from mainspring.tracking.model import Point, Run
from mainspring.ui.app import routes

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}

# Contrast of every text with the nearest background behind it (WCAG 2.2); pictures put text on their page's own sheet.
CONTRAST = """() => {
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const parse = (text) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = text; pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const linear = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > .99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), node = walker.currentNode.parentElement;
    const apart = '[aria-hidden], title, desc, script, .chart-on, .on-canary';
    if (!text || !node.checkVisibility({ visibilityProperty: true }) || node.closest(apart)) continue;
    const style = getComputedStyle(node), svg = node.namespaceURI.endsWith('svg');
    let box = null;
    const near = svg && node.closest('g.box')?.querySelector('rect');
    if (near) box = parse(getComputedStyle(near).fill);
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(box ?? behind(node))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${node.outerHTML.slice(0, 90)}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def url(workspace: Any) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(workspace, pages=routes(workspace))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def opened(chromium: Any, **options: Any) -> tuple[Any, list[str]]:
    """A page, and the list that its console errors and requests to other hosts go to."""
    context = chromium.new_context(reduced_motion="reduce", **options)
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda sent: trouble.append(sent.url) if urlsplit(sent.url).hostname != "127.0.0.1" else None)
    return page, trouble


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(WIDE, "light", id="1280-light"),
        pytest.param(NARROW, "dark", id="390-dark"),
        pytest.param(WIDE, "dark", id="1280-dark", marks=pytest.mark.storm),
        pytest.param(NARROW, "light", id="390-light", marks=pytest.mark.storm),
    ],
)
def test_every_page_is_readable(
    chromium: Any, url: str, addresses: tuple[str, ...], scheme: str, size: dict[str, int]
) -> None:
    page, trouble = opened(chromium, color_scheme=scheme, viewport=size)
    for address in addresses:
        page.goto(url + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], f"{address} overflows"
        assert page.evaluate(CONTRAST) == [], address
        unnamed = "document.querySelectorAll('main svg[role=img]:not([aria-label])').length"
        assert page.evaluate(unnamed) == 0, address
    assert trouble == []
    page.context.close()


def test_a_change_arrives_by_itself(chromium: Any, url: str, workspace: Any) -> None:
    page, trouble = opened(chromium, viewport=WIDE)
    page.goto(url + "/models/churn")
    page.wait_for_selector("#stream[data-state=live]")
    page.evaluate("window.kept = 1")
    for number in (1, 2):  # a burst: the last change must not be lost
        with acting_as("maria"):
            workspace.models.set_alias("churn", "fallback", number)
    page.wait_for_selector("tr:has-text('churn@2'):has-text('fallback')", timeout=8000)
    assert page.evaluate("window.kept") == 1  # swapped, not loaded anew
    assert trouble == []
    page.context.close()


def test_a_form_is_not_swapped_away_under_the_hand(chromium: Any, url: str, workspace: Any) -> None:
    page, _ = opened(chromium, viewport=WIDE)
    page.goto(url + "/approvals/churn@5")
    page.wait_for_selector("#stream[data-state=live]")
    page.fill("input[name=reason]", "half a sen")
    with acting_as("maria"):
        workspace.models.set_alias("churn", "other", 1)
    page.wait_for_timeout(2500)
    assert page.input_value("input[name=reason]") == "half a sen"
    page.context.close()


def test_a_lost_stream_says_so(chromium: Any, url: str) -> None:
    page, _ = opened(chromium, viewport=WIDE)
    page.route("**/api/events/stream", lambda route: route.abort())
    page.goto(url + "/")
    page.wait_for_selector("#stream[data-state=lost]")
    assert "connection lost" in page.inner_text("#stream")
    page.context.close()


def test_keys_and_the_theme(chromium: Any, url: str) -> None:
    page, trouble = opened(chromium, color_scheme="light", viewport=WIDE)
    page.goto(url + "/")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("calm")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=calm")
    page.locator("h1").click()
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url("**/runs")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.click("#theme")
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: dark"
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark
    assert trouble == []
    page.context.close()


def test_addresses_that_mlflows_client_prints_lead_to_their_things(chromium: Any, url: str, workspace: Any) -> None:
    run = workspace.runs.find(limit=1)[0]
    version = workspace.models.versions("churn")[0]
    page, trouble = opened(chromium, color_scheme="light", viewport=WIDE)
    page.goto(f"{url}/#/experiments/{run.experiment_number}/runs/{to_hex(run.id)}")
    page.wait_for_url(f"**/runs/{to_hex(run.id)}")
    assert run.name in page.inner_text("h1")
    page.goto(f"{url}/#/experiments/{run.experiment_number}")
    page.wait_for_url("**/experiments")
    page.goto(f"{url}/#/models/churn/versions/{version.number}")
    page.wait_for_url(f"**/models/{version.address}")
    page.goto(f"{url}/#/nothing/at/all")
    assert page.url.endswith("/#/nothing/at/all")
    assert trouble == []
    page.context.close()


def test_everything_reads_and_acts_without_javascript(chromium: Any, url: str, workspace: Any) -> None:
    page, _ = opened(chromium, java_script_enabled=False, viewport=NARROW)
    page.goto(url + "/")
    page.click("text=churn@5 waits for a signature")
    page.fill("input[name=actor]", "maria")
    page.fill("input[name=reason]", "The calls it saves are worth it.")
    page.click("button:has-text('Approve')")
    page.wait_for_url("**/approvals/churn@5")
    assert "approved by maria" in page.inner_text("h1")
    assert workspace.approvals.show("churn@5").reason == "The calls it saves are worth it."
    page.goto(url + "/deployments/churn-eu")
    page.click("summary:has-text('Roll back')")
    page.fill("details input[name=actor]", "ops")
    page.check("details input[name=confirm]")
    page.click("details button")
    page.wait_for_url("**/deployments/churn-eu")
    assert workspace.deployments.show("churn-eu").canary == ""
    page.context.close()


def test_a_filter_is_completed_word_by_word_and_stays_in_the_address(chromium: Any, url: str) -> None:
    page, trouble = opened(chromium, viewport=WIDE)
    page.goto(url + "/runs")
    offers = "[...document.getElementById('words').options]"
    page.click("form.filters input[name=q]")
    page.keyboard.type("metr")
    assert "metrics.roc_auc" in page.evaluate(f"{offers}.map(o => o.value)")
    page.fill("form.filters input[name=q]", "")
    page.keyboard.type("metrics.roc_auc > 0.85 AND sta")
    first = "metrics.roc_auc > 0.85 AND status"
    assert first in page.evaluate(f"{offers}.map(o => o.value)"), "what stands before is part of every offer"
    page.fill("form.filters input[name=q]", "metrics.roc_auc > 0.85")
    page.select_option("select[name=group]", "status")
    page.click("form.filters button")
    page.wait_for_url("**/runs?**group=status**")
    assert "metrics.roc_auc" in page.url
    assert page.input_value("form.filters input[name=q]") == "metrics.roc_auc > 0.85"
    page.go_back()
    assert page.input_value("select[name=group]") == ""
    assert trouble == []
    page.context.close()


def test_a_comparison_is_drawn_as_its_address_says(chromium: Any, url: str) -> None:
    page, trouble = opened(chromium, viewport=WIDE)
    page.goto(url + "/runs")
    for name in ("calm-otter-1", "calm-otter-3"):
        page.check(f"input[type=checkbox][value='{name}']")
    page.click("button:has-text('Compare')")
    page.wait_for_url("**/runs/compare?**")
    page.select_option("select[name=base]", "calm-otter-3")
    page.select_option("select[name=smooth]", "0.9")
    page.select_option("select[name=y]", "metrics.log_loss")
    page.check("input[name=logy]")
    page.click("form.filters button")
    page.wait_for_url("**logy=1**")
    for part in ("base=calm-otter-3", "smooth=0.9", "y=metrics.log_loss"):
        assert part in page.url
    shared = page.url
    page.goto(url + "/")
    page.goto(shared)
    assert page.is_checked("input[name=logy]")
    headings = page.locator("h2").all_inner_texts()
    assert "Parallel coordinates" in headings
    assert any(text.startswith("metrics.log_loss against") for text in headings)
    chart = "section:has(h2:text-is('loss')) svg"
    assert page.locator(f"{chart} path.series:not(.faint)").count() == 2
    assert page.locator(f"{chart} path.series.faint").count() == 2, "the values behind a smoothed curve stay to be seen"
    assert trouble == []
    page.context.close()


def test_a_curve_grows_while_its_run_logs(chromium: Any, url: str, workspace: Any) -> None:
    run = workspace.runs.start(draft(Run, experiment="live", params={"depth": 3}))
    page, trouble = opened(chromium, viewport=WIDE)
    workspace.runs.log(run.name, [Point(key="auc", value=step / 10, step=step) for step in range(4)])
    workspace.runs.log(run.name, [Point(key="system/cpu_percent", value=50.0 + step, step=step) for step in range(3)])
    page.goto(f"{url}/runs/{run.name}")
    page.wait_for_selector("#stream[data-state=live]")
    assert "cpu_percent" in page.inner_text("main")
    page.evaluate("window.kept = 1")
    workspace.runs.log(run.name, [Point(key="auc", value=0.75, step=9)])
    page.wait_for_selector("main :text('0.75')", timeout=8000)
    workspace.runs.finish(run.name)
    assert page.evaluate("window.kept") == 1  # swapped, not loaded anew
    assert trouble == []
    page.context.close()
