"""Which edits change a step's fingerprint: the table that other tools get wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mainspring.pipelines.fingerprint import code_fingerprint

MAIN = '''
import functools
import numpy
import steps_lib
from steps_lib import imported_helper
RATE = 0.5
NAMES = {"b", "a", "c"}
WEIGHTS = numpy.arange(5000)
HANDLERS = {"x": lambda value: value + 1}

def helper(x):
    return deep(x) + 1

def deep(x):
    return x * 2

doubled = functools.partial(deep, 3)

class Scaler:
    factor = 2
    def scale(self, x):
        return x * self.factor

class Config:
    def __init__(self, limit):
        self.limit = limit

CONFIG = Config(10)

def unrelated(x):
    return x - 1

def make(n):
    def inner(x):
        return x + n
    return inner

plus = make(1)

def step(x):
    """Says what it does."""
    from steps_lib import lazily
    # a remark
    total = helper(x) * RATE + steps_lib.module_helper(x) + imported_helper(x) + steps_lib.CONSTANT
    return total + Scaler().scale(x) + len(NAMES) + WEIGHTS[2500] + plus(x) + doubled() + lazily(x) + CONFIG.limit \\
        + HANDLERS["x"](x)
'''
LIB = """
CONSTANT = 3
def module_helper(x):
    return x + 10
def imported_helper(x):
    return x + 20
def lazily(x):
    return x + 30
def unrelated(x):
    return x + 40
"""


@pytest.fixture
def fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def compute(main: str = MAIN, lib: str = LIB) -> str:
        (tmp_path / "steps_main.py").write_text(main)
        (tmp_path / "steps_lib.py").write_text(lib)
        for name in ("steps_main", "steps_lib"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        import linecache

        linecache.clearcache()
        module: Any = importlib.import_module("steps_main")
        return code_fingerprint(module.step)

    yield compute
    for name in ("steps_main", "steps_lib"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    # a remark\n", "    # another remark\n\n"),
        ("Says what it does.", "Says it better."),
        ("return x - 1", "return x - 2"),
        ("RATE = 0.5\n", "\n\n# moved down\nRATE = 0.5\n"),
        ('{"b", "a", "c"}', '{"c", "b", "a"}'),
    ],
)
def test_edits_without_consequence(fingerprint: Callable[..., str], old: str, new: str) -> None:
    assert old in MAIN
    assert fingerprint() == fingerprint(MAIN.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total = helper(x) * RATE", "total = helper(x) * RATE * 2"),
        ("return deep(x) + 1", "return deep(x) + 2"),
        ("return x * 2", "return x * 3"),
        ("RATE = 0.5", "RATE = 0.6"),
        ('{"b", "a", "c"}', '{"b", "a"}'),
        ("numpy.arange(5000)", "numpy.where(numpy.arange(5000) == 2500, 0, numpy.arange(5000))"),
        ("factor = 2", "factor = 3"),
        ("return x * self.factor", "return x * self.factor * 1.0"),
        ("return x + n", "return x - n"),
        ("plus = make(1)", "plus = make(2)"),
        ("partial(deep, 3)", "partial(deep, 4)"),
        ("partial(deep, 3)", "partial(helper, 3)"),
        ("Config(10)", "Config(11)"),
        ("lambda value: value + 1", "lambda value: value + 2"),
    ],
)
def test_edits_in_the_same_module(fingerprint: Callable[..., str], old: str, new: str) -> None:
    assert old in MAIN
    assert fingerprint() != fingerprint(MAIN.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "matters"),
    [
        ("return x + 10", "return x + 11", True),
        ("return x + 20", "return x + 21", True),
        ("return x + 30", "return x + 31", True),
        ("CONSTANT = 3", "CONSTANT = 4", True),
        ("return x + 40", "return x + 41", False),
        ("CONSTANT = 3", "# remark\nCONSTANT = 3", False),
    ],
)
def test_edits_in_another_own_module(fingerprint: Callable[..., str], old: str, new: str, matters: bool) -> None:
    assert (fingerprint() != fingerprint(lib=LIB.replace(old, new))) is matters


def test_functions_that_call_each_other_come_to_an_end(fingerprint: Callable[..., str]) -> None:
    even = "def odd(n):\n    return n and even(n - 1)\ndef even(n):\n    return not n or odd(n - 1)\n"
    assert fingerprint(even + "def step(x):\n    return even(x)\n")


def test_two_functions_of_one_factory_are_told_apart(fingerprint: Callable[..., str]) -> None:
    text = "def make(n):\n    def inner(x):\n        return x + n\n    return inner\none = make(1)\ntwo = make(2)\n"
    both = text + "def step(x):\n    return one(x) + two(x)\n"
    assert fingerprint(both) != fingerprint(both.replace("make(2)", "make(3)"))


def test_decorated_helpers_are_seen_through(fingerprint: Callable[..., str]) -> None:
    text = "import functools\n@functools.lru_cache\ndef help(x):\n    return x + 1\ndef step(x):\n    return help(x)\n"
    assert fingerprint(text) != fingerprint(text.replace("x + 1", "x + 2"))


def test_base_classes_count(fingerprint: Callable[..., str]) -> None:
    text = "class Base:\n    rate = 1\nclass Child(Base):\n    pass\ndef step(x):\n    return Child().rate\n"
    assert fingerprint(text) != fingerprint(text.replace("rate = 1", "rate = 2"))


def test_functions_in_tables_count(fingerprint: Callable[..., str]) -> None:
    text = "def help(x):\n    return x + 1\nTABLE = {'help': [help]}\ndef step(x):\n    return TABLE['help'][0](x)\n"
    assert fingerprint(text) == fingerprint(text)
    assert fingerprint(text) != fingerprint(text.replace("x + 1", "x + 2"))
