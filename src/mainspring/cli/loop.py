"""Commands of the loop: register data, run, look, approve, deploy, roll back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note, show
from mainspring.core.actor import acting_as, current_actor
from mainspring.core.address import parse_model_address
from mainspring.errors import Conflict, InvalidInput, Refused, StepFailed

if TYPE_CHECKING:
    from mainspring.client.client import Client

POLL_SECONDS = 0.5


@click.command(cls=Command)
@click.argument("dataset")
@click.argument("file", type=click.Path(path_type=Path))
@pass_context
def register(context: Context, dataset: str, file: Path) -> int:
    """Register FILE (CSV, Parquet, JSON lines, Arrow) as a new version of DATASET, checked against its expectations."""
    with context.connect() as client:
        version = client.register(dataset, file)
        show(context, version if context.json else [_version_row(version)])
        for check in version.checks:
            if not check.passed:
                note(context, f"  {click.style('✗', fg='red')} {check.sentence}")
    if version.status == "accepted":
        return 0
    if context.json:  # the version that was printed says it all
        return Refused.exit_code
    raise Refused(f"{version.address} breaks what is expected", hint=f"mainspring datasets version {version.address}")


def _version_row(version: Any) -> dict[str, Any]:
    return {name: getattr(version, name) for name in ("address", "status", "rows", "size")}


@click.command(cls=Command)
@click.argument("pipeline", required=False)
@click.option("--param", "-p", multiple=True, metavar="NAME=VALUE", help="Parameter that differs from the definition.")
@click.option("--reason", default="", help="Why, for the record.")
@pass_context
def run(context: Context, pipeline: str | None, param: tuple[str, ...], reason: str) -> int:
    """Run a pipeline to its end, showing each step."""
    params = dict(_parameter(item) for item in param)
    with context.connect() as client:
        name = pipeline or _only("pipeline", [item.name for item in client.pipelines.find()])
        started = client.pipelines.start(name, params, reason=reason)
        note(context, f"run {started.name}")
        ended = _follow(context, client, started.name)
        show(context, ended if context.json else _run_row(ended))
    if ended.status == "ok" or context.json:
        return 0 if ended.status == "ok" else StepFailed.exit_code
    raise StepFailed(ended.error or f"run {ended.name} was {ended.status}", hint=f"mainspring runs show {ended.name}")


def _run_row(run: Any) -> dict[str, Any]:
    shown = ("name", "status", "pipeline", "datasets", "params", "metrics", "error")
    return {name: getattr(run, name) for name in shown if getattr(run, name)}


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"`{text}` is not NAME=VALUE", hint="for instance: -p rounds=50")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def _follow(context: Context, client: Client, name: str) -> Any:
    """Carries the run out here, or watches the server do it; prints a line per finished step."""
    told: set[str] = set()
    if client.embedded:
        ended = client.pipelines.execute(name)
        _tell_steps(context, client, name, told)
        return ended
    while True:
        found = client.runs.show(name)
        _tell_steps(context, client, name, told)
        if found.status != "running":
            return found
        time.sleep(POLL_SECONDS)


def _tell_steps(context: Context, client: Client, name: str, told: set[str]) -> None:
    for step in client.pipelines.steps(name):
        if step.status in ("ok", "cached", "failed") and step.step not in told:
            told.add(step.step)
            sign = {"ok": "✓", "cached": "=", "failed": "✗"}[step.status]
            metrics = "  ".join(f"{key} {value:.5g}" for key, value in step.metrics.items())
            note(context, f"  {sign} {step.step} {step.status} {metrics}".rstrip())


@click.command(cls=Command)
@pass_context
def status(context: Context) -> None:
    """Show how everything is: use cases, deployments, open incidents, pending approvals, the latest runs."""
    with context.connect() as client:
        found = {
            "deployments": [_deployment(client, item) for item in client.deployments.find()],
            "incidents": client.incidents.find(status="open") + client.incidents.find(status="acknowledged"),
            "approvals": client.approvals.find(status="pending"),
            "runs": client.runs.find(limit=5),
        }
        if context.json:
            show(context, found)
            return
        columns = {
            "deployments": ["name", "live", "canary", "weight", "state", "url"],
            "incidents": ["name", "status", "severity", "summary", "since"],
            "approvals": ["version", "status", "reason"],
            "runs": ["name", "status", "pipeline", "trigger", "created", "reason"],
        }
        for title, rows in found.items():
            if not context.quiet:
                click.secho(title if rows else f"{title}: none", bold=True)
            if rows:
                show(context, rows, columns[title])


def _deployment(client: Client, item: Any) -> dict[str, Any]:
    target = client.deployments.status(item.name) if item.live else None
    shown = {name: getattr(item, name) for name in ("name", "live", "canary", "weight")}
    return shown | {"state": target.state if target else "waiting", "url": target.url if target else ""}


@click.command(cls=Command)
@click.argument("version", required=False)
@click.option("--as", "person", default="", help="Who signs; the setting `actor` or the system's user by default.")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--refuse", is_flag=True, help="Refuse instead; needs a reason.")
@pass_context
def approve(context: Context, version: str | None, person: str, reason: str, refuse: bool) -> None:
    """Sign the model VERSION that waits for a person, or refuse it."""
    with context.connect() as client, acting_as(person or current_actor().name):
        chosen = version or _only(
            "pending approval", [item.version for item in client.approvals.find(status="pending")]
        )
        decide = client.approvals.refuse if refuse else client.approvals.approve
        approval = decide(chosen, reason)
        show(context, approval if context.json else [approval], ["version", "status", "decided_by", "reason"])


@click.command(cls=Command)
@click.argument("version")
@click.option("--deployment", default="", help="Which; the one that serves the model by default.")
@click.option("--arm", "arms", multiple=True, metavar="VERSION", help="Further version of an A/B test.")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--skip-checks", metavar="REASON", help="Leave out the checks this once; the reason goes on record.")
@click.option("--at-once", is_flag=True, help="Let it answer everything now, whatever the strategy.")
@pass_context
def deploy(
    context: Context,
    version: str,
    deployment: str,
    arms: tuple[str, ...],
    reason: str,
    skip_checks: str | None,
    at_once: bool,
) -> None:
    """Release the approved model VERSION, such as churn@3, by the deployment's strategy."""
    if skip_checks is not None and not skip_checks.strip():
        raise InvalidInput("leaving out the checks needs a reason", hint="--skip-checks 'why this once'")
    with context.connect() as client:
        model = parse_model_address(version).name
        serving = [item.name for item in client.deployments.find() if item.model == model]
        if not serving:
            client.models.show(model)  # whoever mistyped is offered the nearest name
        name = deployment or _only(f"deployment of {model}", serving)
        before = client.deployments.show(name)
        done = client.deployments.release(name, version, reason, list(arms) or None, skip_checks or "", at_once)
        if client.embedded:
            client.deployments.reconcile(name)
            done = client.deployments.show(name)
        newest = client.deployments.releases(name, limit=1)
        if newest and newest[0].version == version and newest[0].status == "rolled_back":
            raise Refused(
                f"{version} was taken back: {newest[0].reason}", hint=f"mainspring deployments history {name}"
            )
        if done.revision == before.revision:
            note(context, f"{version} {'is live' if done.live == version else 'is being rolled out'} already")
        for check in newest[0].checks if newest and newest[0].version == version else ():
            note(context, f"  {click.style('✓', fg='green')} {check.name}: {check.detail}")
        show(context, done if context.json else [done], ["name", "live", "canary", "weight", "revision"])


@click.command(cls=Command)
@click.argument("deployment", required=False)
@click.option("--reason", default="", help="Why, for the record.")
@pass_context
def rollback(context: Context, deployment: str | None, reason: str) -> None:
    """Take a rollout back, or return to the version that was live before."""
    with context.connect() as client:
        name = deployment or _only("deployment", [item.name for item in client.deployments.find()])
        done = client.deployments.rollback(name, reason)
        if client.embedded:
            client.deployments.reconcile(name)
        show(context, done if context.json else [done], ["name", "live", "canary", "weight", "revision"])


def _only(what: str, names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise Conflict(f"there is no {what}", hint="mainspring status")
    raise InvalidInput(f"which {what}?", hint="one of: " + " ".join(names))
