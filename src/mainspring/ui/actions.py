"""What the forms of the pages do: operations of the services, in the name of whoever signs the form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from mainspring.automation.model import Rule
from mainspring.core.actor import acting_as
from mainspring.core.address import parse_model_address
from mainspring.core.entity import change
from mainspring.errors import InvalidInput
from mainspring.monitoring.model import Expected
from mainspring.registry.model import Model, ModelVersion, Stage
from mainspring.ui.address import path as place
from mainspring.workspace import Workspace

Form = Mapping[str, str]


def approve(workspace: Workspace, form: Form, version: str) -> str:
    """Signs a candidate; leads back to its page."""
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        return place("approvals", workspace.approvals.approve(version, reason).version)


def refuse(workspace: Workspace, form: Form, version: str) -> str:
    """Refuses a candidate; leads back to its page."""
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        return place("approvals", workspace.approvals.refuse(version, reason).version)


def rollback(workspace: Workspace, form: Form, name: str) -> str:
    """Takes a release back, once its effect was confirmed; leads to the deployment."""
    if form.get("confirm") != name:
        raise InvalidInput(
            "the rollback was not confirmed", hint=f"tick the box that names {name}, then press Roll back"
        )
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        return place("deployments", workspace.deployments.rollback(name, reason).name)


def promote(workspace: Workspace, form: Form, name: str) -> str:
    """Lets a new version take over, once its effect was confirmed; leads to the deployment."""
    if form.get("confirm") != name:
        raise InvalidInput(
            "the promotion was not confirmed", hint=f"tick the box that names {name}, then press Promote"
        )
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        promoted = workspace.deployments.promote(name, form.get("version", ""), reason)
    return place("deployments", promoted.name)


def acknowledge(workspace: Workspace, form: Form, name: str) -> str:
    """Takes charge of an incident; leads back to it."""
    with acting_as(_actor(form)):
        return place("incidents", workspace.incidents.acknowledge(name).name)


def assign(workspace: Workspace, form: Form, name: str) -> str:
    """Gives an incident to somebody; leads back to it."""
    with acting_as(_actor(form)):
        return place("incidents", workspace.incidents.assign(name, form.get("owner", "")).name)


def snooze(workspace: Workspace, form: Form, name: str) -> str:
    """Keeps an incident quiet for some hours; leads back to it."""
    try:
        until = workspace.clock.now() + timedelta(hours=float(form.get("hours", "")))
    except (ValueError, OverflowError):
        raise InvalidInput("the hours are not a number", hint="for instance 24") from None
    with acting_as(_actor(form)):
        return place("incidents", workspace.incidents.snooze(name, until).name)


def explain(workspace: Workspace, form: Form, name: str) -> str:
    """Writes down what caused an incident; leads back to it."""
    with acting_as(_actor(form)):
        return place("incidents", workspace.incidents.explain(name, form.get("cause", "")).name)


def resolve(workspace: Workspace, form: Form, name: str) -> str:
    """Ends an incident by hand; leads back to it."""
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        return place("incidents", workspace.incidents.resolve(name, reason).name)


def dismiss(workspace: Workspace, form: Form, name: str) -> str:
    """Ends an incident as expected and changes the rule; leads back to it."""
    try:
        rule = msgspec.convert(form.get("rule", ""), Expected)
    except msgspec.ValidationError:
        raise InvalidInput("an expected incident changes a rule", hint="baseline, widen or mute") from None
    columns = [form["column"]] if form.get("column") else []
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        return place("incidents", workspace.incidents.dismiss(name, rule, columns, reason).name)


def undo(workspace: Workspace, form: Form, id: str) -> str:
    """Takes a change of a rule back; leads to the incident it was made for."""
    with acting_as(_actor(form)):
        return place("incidents", workspace.incidents.undo(id).incident)


def press(workspace: Workspace, form: Form, name: str) -> str:
    """Does what a message's button says; leads back to the incident."""
    with acting_as(_actor(form)):
        return place("incidents", workspace.buttons.press(form.get("ticket", ""), name).incident)


def fire(workspace: Workspace, form: Form, name: str) -> str:
    """Fires a rule by hand; leads back to it."""
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        workspace.rules.fire(name, reason)
    return place("rules", name)


def enable(workspace: Workspace, form: Form, name: str) -> str:
    """Switches a rule on; leads back to it."""
    with acting_as(_actor(form)):
        return place("rules", workspace.rules.update(name, change(Rule, enabled=True)).name)


def disable(workspace: Workspace, form: Form, name: str) -> str:
    """Switches a rule off; leads back to it."""
    with acting_as(_actor(form)):
        return place("rules", workspace.rules.update(name, change(Rule, enabled=False)).name)


def decide(workspace: Workspace, form: Form, id: str) -> str:
    """Decides a row of the people's queue; leads back to the queue."""
    reason = form.get("reason", "")
    with acting_as(_actor(form), reason=reason):
        workspace.reviews.decide(id, form.get("value", ""), reason, outcome=form.get("outcome") == "yes")
    return "/reviews"


def describe(workspace: Workspace, form: Form, address: str) -> str:
    """Says what a model or a version is, and tags it; leads back to it.

    The tag named ``key`` gets the value ``value``, or is removed where that is empty.
    """
    version = parse_model_address(address).number is not None
    with acting_as(_actor(form)):
        before = workspace.models.version(address) if version else workspace.models.show(address)
        said: dict[str, Any] = {"description": form["description"]} if "description" in form else {}
        if key := form.get("key", "").strip():
            tags = {name: value for name, value in before.tags.items() if name != key}
            said["tags"] = tags | ({key: form["value"]} if form.get("value") else {})
        if version:
            workspace.models.edit(address, change(ModelVersion, **said))
        else:
            workspace.models.update(address, change(Model, **said))
    return place("models", address)


def alias(workspace: Workspace, form: Form, address: str) -> str:
    """Points an alias at a version, or removes it where no number is given; leads back to the model."""
    name, number = form.get("alias", "").strip(), form.get("number", "").strip()
    with acting_as(_actor(form)):
        if not number:
            workspace.models.delete_alias(address, name)
        elif number.isdecimal():
            workspace.models.set_alias(address, name, int(number))
        else:
            raise InvalidInput("the version is not a number", hint="for instance 3; nothing removes the alias")
    return place("models", address)


def stage(workspace: Workspace, form: Form, address: str) -> str:
    """Moves a version to a stage; leads back to it."""
    try:
        wanted = msgspec.convert(form.get("stage", ""), Stage)
    except msgspec.ValidationError:
        raise InvalidInput("there is no such stage", hint="None, Staging, Production or Archived") from None
    with acting_as(_actor(form)):
        return place("models", workspace.models.set_stage(address, wanted).address)


def _actor(form: Form) -> str:
    """Who signs.

    Raises:
        InvalidInput: Nobody does.
    """
    actor = form.get("actor", "")
    if not actor or len(actor) > 200:
        raise InvalidInput("a decision needs a name", hint="fill in who you are; it is kept in the audit trail")
    return actor
