"""What ``import mainspring`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mainspring

HEAVY = ("sqlalchemy", "polars", "numpy", "starlette", "jinja2", "rich", "click", "onnxruntime", "sklearn", "alembic")


def test_every_name_of_the_front_door_loads() -> None:
    for name in mainspring.__all__:
        assert getattr(mainspring, name) is not None
    assert sorted(mainspring.__all__) == dir(mainspring)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mainspring.trian  # noqa: B018


@pytest.mark.parametrize(
    ("code", "allowed"),
    [("import mainspring", ()), ("from mainspring.cli.main import run; run(['--help'])", ("click",))],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, allowed: tuple[str, ...]) -> None:
    told = f"{code}\nimport sys\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert set(loaded) <= set(allowed)
