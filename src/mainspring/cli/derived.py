"""Commands derived from operations: ``mainspring <noun> <verb>``."""

from __future__ import annotations

import types
import typing
from datetime import datetime
from typing import Any, get_args, get_origin

import click
import msgspec

from mainspring.cli.main import NOUNS
from mainspring.cli.options import Command, Context
from mainspring.cli.render import show
from mainspring.core.operation import Operation, Parameter, operations
from mainspring.errors import InvalidInput, nearest
from mainspring.workspace import SERVICES


class _Noun(click.Group):
    """The commands of one noun."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            close = nearest(args[0], self.commands)
            offer = "did you mean " + " or ".join(f"`{name}`" for name in close) + "? " if close else ""
            raise InvalidInput(
                f"`{ctx.command_path}` has no `{args[0]}`", hint=f"{offer}verbs: {' '.join(self.commands)}"
            )
        return super().resolve_command(ctx, args)


def group(noun: str) -> click.Group:
    """The group of a noun, one command per operation that has one."""
    found = _Noun(noun, help=NOUNS[noun], context_settings={"help_option_names": ["-h", "--help"]})
    for item in operations(SERVICES[noun]).values():
        if item.command:
            found.add_command(_command(noun, item), item.command.replace("_", "-"))
    if noun == "runs":
        from mainspring.cli.sync import sync  # noqa: PLC0415 - start-up time

        found.add_command(sync)
    return found


def _command(noun: str, item: Operation) -> click.Command:
    parameters: list[click.Parameter] = []
    named = {parameter.name for parameter in item.parameters if parameter.place == "path"}
    for parameter in item.parameters:
        parameters += [_word(parameter)] if parameter.name in item.words else _options(parameter, named)

    def call(**given: Any) -> None:
        context = click.get_current_context().find_object(Context) or Context()
        with context.connect() as client:
            operation = getattr(client.services()[noun], item.name)
            show(context, operation(**_arguments(item, given)))

    return Command(item.command, params=parameters, callback=call, help=f"{item.summary}\n\n{item.description.strip()}")


def _word(parameter: Parameter) -> click.Parameter:
    many = _is_texts(parameter.type)
    default = None if many or parameter.required else parameter.default
    return click.Argument([parameter.name], nargs=-1 if many else 1, required=parameter.required, default=default)


def _options(parameter: Parameter, named: set[str]) -> list[click.Parameter]:
    if parameter.place == "path":
        return [click.Argument([parameter.name])]
    if not parameter.struct:
        flag = f"--{parameter.name.replace('_', '-')}"
        shown = None if parameter.required else parameter.default
        if _is_texts(parameter.type):
            return [click.Option([flag, parameter.name], multiple=True, required=parameter.required)]
        kind = _click_type(parameter.type)
        return [
            click.Option(
                [flag, parameter.name], type=kind, required=parameter.required, default=shown, show_default=bool(shown)
            )
        ]
    options: list[click.Parameter] = []
    for field in msgspec.structs.fields(parameter.type):
        name = f"new_{field.name}" if field.name in named else field.name  # a change of what the thing is found by
        flag = f"--{name.replace('_', '-')}"
        options.append(click.Option([flag, name], type=_click_type(field.type), required=field.required))
    return options


def _is_texts(kind: Any) -> bool:
    return bool(kind == tuple[str, ...])


def _click_type(kind: Any) -> Any:
    """How a value is typed: numbers and text as they are, everything else as JSON text."""
    while get_origin(kind) is typing.Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (typing.Union, types.UnionType):
        members = [member for member in get_args(kind) if member not in (type(None), msgspec.UnsetType)]
        return _click_type(members[0]) if len(members) == 1 else click.STRING
    if get_origin(kind) is typing.Literal:
        return click.Choice([str(value) for value in get_args(kind)])
    return {int: click.INT, float: click.FLOAT, bool: click.BOOL}.get(kind, click.STRING)


def _arguments(item: Operation, given: dict[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    named = {parameter.name for parameter in item.parameters if parameter.place == "path"}
    for parameter in item.parameters:
        if parameter.struct:
            sent = {}
            for field in msgspec.structs.fields(parameter.type):
                value = given.get(f"new_{field.name}" if field.name in named else field.name)
                if value is not None:
                    sent[field.name] = _value(value, field.type)
            try:
                arguments[parameter.name] = msgspec.convert(sent, parameter.type, strict=False)
            except msgspec.ValidationError as error:
                raise InvalidInput(str(error)) from None
        elif given.get(parameter.name) is not None:
            arguments[parameter.name] = msgspec.convert(
                _value(given[parameter.name], parameter.type), parameter.type, strict=False
            )
    return arguments


def _value(text: Any, kind: Any) -> Any:
    """Text that stands for a list or an object is JSON, unless it was given as several words or options."""
    if isinstance(text, tuple):
        return list(text)
    if not isinstance(text, str) or _click_type(kind) is not click.STRING or _is_text(kind):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise InvalidInput(
            f"`{text}` is not JSON", hint="write lists as ['a', 'b'] and objects as {\"key\": 1}"
        ) from None


def _is_text(kind: Any) -> bool:
    while get_origin(kind) is typing.Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (typing.Union, types.UnionType):
        return any(_is_text(member) for member in get_args(kind))
    return kind in (str, datetime)
