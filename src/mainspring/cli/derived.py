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
from mainspring.core.docstring import told
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
        from mainspring.cli.download import of_run  # noqa: PLC0415 - start-up time
        from mainspring.cli.sync import sync  # noqa: PLC0415

        found.add_command(of_run, "download")
        found.add_command(sync)
    if noun == "models":
        from mainspring.cli.download import of_version  # noqa: PLC0415 - start-up time

        found.add_command(of_version, "download")
    if noun == "deployments":
        from mainspring.cli.recommended import recommended_rules  # noqa: PLC0415 - start-up time

        found.add_command(recommended_rules, "recommended-rules")
    if noun == "predictions":
        from mainspring.cli.outcomes import outcomes  # noqa: PLC0415 - start-up time

        found.add_command(outcomes)
    return found


def _command(noun: str, item: Operation) -> click.Command:
    parameters: list[click.Parameter] = []
    named = {parameter.name for parameter in item.parameters if parameter.place == "path"}
    for parameter in item.parameters:
        own = item.meanings
        parameters += [_word(parameter)] if parameter.name in item.words else _options(parameter, named, own)

    def call(**given: Any) -> None:
        context = click.get_current_context().find_object(Context) or Context()
        with context.connect() as client:
            operation = getattr(client.services()[noun], item.name)
            show(context, operation(**_arguments(item, given)))

    words = [(name, item.meanings[name]) for name in (*item.words, *sorted(named)) if name in item.meanings]
    parts = [item.summary, item.description, *(f"{name.upper()}: {meaning}" for name, meaning in words)]
    return Command(item.command, params=parameters, callback=call, help=_plain("\n\n".join(filter(None, parts))))


def _plain(text: str) -> str:
    """What is written for a reader of the code, for a terminal."""
    return text.replace("``", "`")


def _word(parameter: Parameter) -> click.Parameter:
    many = _is_texts(parameter.type)
    default = None if many or parameter.required else parameter.default
    return click.Argument([parameter.name], nargs=-1 if many else 1, required=parameter.required, default=default)


def _options(parameter: Parameter, named: set[str], meanings: dict[str, str]) -> list[click.Parameter]:
    if parameter.place == "path":
        return [click.Argument([parameter.name])]
    if not parameter.struct:
        meaning = _plain(meanings.get(parameter.name, ""))
        if _is_texts(parameter.type):
            more = f"{meaning} Can be given several times.".strip()
            names = [_flag(parameter.name), parameter.name]
            return [click.Option(names, multiple=True, required=parameter.required, help=more)]
        shown = None if parameter.required else parameter.default
        return [_option(parameter.name, parameter.type, parameter.required, meaning, shown)]
    options: list[click.Parameter] = []
    fields = told(parameter.type.__doc__).items
    for field in msgspec.structs.fields(parameter.type):
        name = f"new_{field.name}" if field.name in named else field.name  # a change of what the thing is found by
        options.append(_option(name, field.type, field.required, _plain(fields.get(field.name, ""))))
    return options


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option(name: str, kind: Any, required: bool, meaning: str, default: Any = None) -> click.Option:
    typed, flag = _click_type(kind), _flag(name)
    if typed is click.BOOL:  # said or not; what is on by default, or was once, is turned off by the other word
        both = f"{flag}/--no-{flag.removeprefix('--')}" if default is not False else flag
        return click.Option([both, name], is_flag=True, required=required, default=default, help=meaning)
    shape = "JSON" if typed is click.STRING and not _is_text(kind) else None
    return click.Option(
        [flag, name], type=typed, required=required, default=default, show_default=bool(default), help=meaning,
        metavar=shape,
    )  # fmt: skip


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
