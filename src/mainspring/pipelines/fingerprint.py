"""What the code of a step is: the function and everything of the project that it uses, by meaning rather than by text.

The fingerprint covers the syntax tree (so comments, blank lines and docstrings do not matter) of the function, of every
function and class of the project that it refers to, directly or not, also in other modules, and the values of the
module constants it reads. Installed packages count by name and version. So a changed helper is never missed, which is
what silently stale caches come from.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import hashlib
import inspect
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

_INSTALLED = tuple(
    {str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def code_fingerprint(function: Callable[..., Any]) -> str:
    """Hex digest over the function and what it uses; the same for the same behaviour, as far as source tells."""
    survey = _Survey()
    survey.visit(function)
    return hashlib.sha256("\0".join(sorted(survey.facts)).encode()).hexdigest()


class _Survey:
    """Collects facts about a function and, one after the other, about everything that it uses."""

    def __init__(self) -> None:
        self.facts: set[str] = set()
        self._seen: list[Any] = []  # the things themselves: an id alone may be given away again

    def visit(self, thing: Any) -> None:
        """Notes a function's or class's syntax tree, and visits the names in it."""
        if not inspect.isclass(thing):
            thing = inspect.unwrap(getattr(thing, "function", thing))
        if any(thing is other for other in self._seen):
            return
        self._seen.append(thing)
        name = f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', '?')}"
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
        except (OSError, TypeError, SyntaxError):
            code = getattr(thing, "__code__", None)
            self.facts.add(f"{name} {(code.co_code, repr(code.co_consts)) if code else repr(thing)}")
            return
        self.facts.add(f"{name} {ast.dump(_without_docstrings(tree))}")
        module = sys.modules.get(getattr(thing, "__module__", ""), None)
        scope = {**(vars(module) if module else {}), **_closure(thing), **_imported_inside(tree, module)}
        for used in sorted(set(_names(tree))):
            self._visit_name(used, scope, owner=name)

    def _visit_name(self, dotted: str, scope: dict[str, Any], owner: str) -> None:
        first, *rest = dotted.split(".")
        if first not in scope:
            if not hasattr(builtins, first):
                self.facts.add(f"{owner}>{first} unbound")
            return
        value = scope[first]
        while isinstance(value, types.ModuleType) and rest and _of_project(value):
            value = getattr(value, rest.pop(0), None)
        self._visit_value(value, f"{owner}>{dotted}")

    def _visit_value(self, value: Any, where: str) -> None:
        if isinstance(value, types.ModuleType):
            self.facts.add(f"module {value.__name__} {'project' if _of_project(value) else _version(value.__name__)}")
        elif isinstance(value, functools.partial):
            self._visit_value((value.func, value.args, value.keywords), where)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._visit_value(item, f"{where}[{key!r}]")
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self._visit_value(item, f"{where}[{index}]")
        elif isinstance(value, (set, frozenset)):
            self.facts.add(f"{where} {sorted(map(repr, value))}")  # their own order changes from process to process
        elif inspect.isclass(value) or callable(value):
            self._visit_callable(value, where)
        elif _of_project(sys.modules.get(type(value).__module__)):
            self.visit(type(value))
            self._visit_value(getattr(value, "__dict__", {}), where)
        else:
            self.facts.add(f"{where} {_content(value)}")

    def _visit_callable(self, value: Any, where: str) -> None:
        target = getattr(value, "function", value)
        module = getattr(target, "__module__", "") or ""
        if not _of_project(sys.modules.get(module)):
            self.facts.add(f"{where} {module} {_version(module)}")
            return
        if not inspect.isclass(value) and not hasattr(target, "__qualname__"):  # an object with `__call__`
            self.visit(type(value))
            self._visit_value(vars(value), where)
            return
        self.facts.add(f"{where} is {module}:{getattr(target, '__qualname__', '')}")  # a name may come to mean another
        self.visit(value)


def _content(value: Any) -> str:
    """A constant in full: the `repr` of large arrays and frames leaves out their middle."""
    if hasattr(value, "tobytes"):
        return (
            f"{getattr(value, 'dtype', '')}{getattr(value, 'shape', '')}{hashlib.sha256(value.tobytes()).hexdigest()}"
        )
    if hasattr(value, "write_ndjson"):
        return f"{value.schema}{hashlib.sha256(value.write_ndjson().encode()).hexdigest()}"
    return repr(value)


def _closure(thing: Any) -> dict[str, Any]:
    if not isinstance(thing, types.FunctionType) or thing.__closure__ is None:
        return {}
    found = {}
    for name, cell in zip(thing.__code__.co_freevars, thing.__closure__, strict=True):
        with contextlib.suppress(ValueError):  # not bound yet
            found[name] = cell.cell_contents
    return found


def _imported_inside(tree: ast.AST, module: types.ModuleType | None) -> dict[str, Any]:
    """Names that imports inside the function bind, of the project's own modules and others."""
    found: dict[str, Any] = {}
    package = getattr(module, "__package__", None) or None
    for node in ast.walk(tree):
        with contextlib.suppress(ImportError, ValueError):  # it may be meant to fail, as in `try: import …`
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = import_module(alias.name)
                    bound = alias.asname or alias.name.partition(".")[0]
                    found[bound] = whole if alias.asname else sys.modules[bound]
            elif isinstance(node, ast.ImportFrom):
                source = import_module("." * node.level + (node.module or ""), package)
                for alias in node.names:
                    found[alias.asname or alias.name] = _member(source, alias.name)
    return found


def _member(source: types.ModuleType, name: str) -> Any:
    return getattr(source, name) if hasattr(source, name) else import_module(f"{source.__name__}.{name}")


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
