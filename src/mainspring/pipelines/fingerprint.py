"""What the code of a step is: the function and everything of the project that it uses, by meaning rather than by text.

The fingerprint covers the syntax tree (so comments, blank lines and docstrings do not matter) of the function, of every
function and class of the project that it refers to, directly or not, also in other modules, and the values of the
module constants it reads. Installed packages count by name and version. So a changed helper is never missed, which is
what silently stale caches come from.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import inspect
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

_INSTALLED = tuple(
    {str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def code_fingerprint(function: Callable[..., Any]) -> str:
    """Hex digest over the function and what it uses; the same for the same behaviour, as far as source tells."""
    seen: dict[str, str] = {}
    _visit(function, seen)
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{seen[name]}\0".encode())
    return digest.hexdigest()


def _visit(thing: Any, seen: dict[str, str]) -> None:
    thing = inspect.unwrap(getattr(thing, "function", thing) if not inspect.isclass(thing) else thing)
    name = f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', '?')}"
    if name in seen:
        return
    seen[name] = ""  # before descending: functions may call each other
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        seen[name] = repr(thing)
        return
    seen[name] = ast.dump(_without_docstrings(tree))
    module = sys.modules.get(getattr(thing, "__module__", ""), None)
    scope = {**(vars(module) if module else {}), **_closure(thing)}
    for used in sorted(_names(tree)):
        _visit_name(used, scope, seen, owner=name)


def _closure(thing: Any) -> dict[str, Any]:
    if not isinstance(thing, types.FunctionType) or thing.__closure__ is None:
        return {}
    cells = zip(thing.__code__.co_freevars, thing.__closure__, strict=True)
    return {name: cell.cell_contents for name, cell in cells}


def _visit_name(dotted: str, scope: dict[str, Any], seen: dict[str, str], owner: str) -> None:
    first, *rest = dotted.split(".")
    if first not in scope:
        if not hasattr(builtins, first):
            seen.setdefault(f"{owner}>{first}", "unbound")
        return
    value = scope[first]
    while isinstance(value, types.ModuleType) and rest and _of_project(value):
        value = getattr(value, rest.pop(0), None)
    if isinstance(value, types.ModuleType):
        seen[f"module {value.__name__}"] = "project" if _of_project(value) else _version(value.__name__)
    elif inspect.isclass(value) or callable(value):
        target = getattr(value, "function", value)
        if _of_project(sys.modules.get(getattr(target, "__module__", "") or "")):
            _visit(value, seen)
        else:
            seen[f"{owner}>{first}"] = (
                f"{getattr(target, '__module__', '')} {_version(getattr(target, '__module__', ''))}"
            )
    else:
        seen[f"{owner}>{dotted}"] = repr(value)


def _of_project(module: types.ModuleType | None) -> bool:
    """Whether a module is the user's own: neither installed, nor of Python, nor of Mainspring."""
    source = getattr(module, "__file__", None)
    if module is None or source is None or module.__name__.split(".")[0] == "mainspring":
        return False
    return not str(Path(source).resolve()).startswith(_INSTALLED)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = _dotted(node)
            if dotted:
                yield dotted
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id


def _dotted(node: ast.Attribute) -> str:
    parts: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    return ".".join([inner.id, *reversed(parts)]) if isinstance(inner, ast.Name) else ""


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and isinstance(body, list):
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:] or [ast.Pass()]
    return tree


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


@functools.cache
def _version(module: str) -> str:
    top = module.split(".", maxsplit=1)[0]
    for name in _distributions().get(top, []):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return f"python {sys.version_info.major}.{sys.version_info.minor}"
