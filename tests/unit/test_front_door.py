"""What ``import mainspring`` and ``import mainspring.monitoring`` offer, and what they cost."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import mainspring
from mainspring import monitoring

COUNTS = "from mainspring.monitoring import Counter, column_findings, decode, from_bytes, make_reference, numeric_bins"
HEAVY = ("sqlalchemy", "polars", "numpy", "starlette", "jinja2", "rich", "click", "onnxruntime", "sklearn", "alembic")


@pytest.mark.parametrize("door", [mainspring, monitoring])
def test_every_name_of_a_front_door_loads(door: ModuleType) -> None:
    for name in door.__all__:
        assert getattr(door, name) is not None
    assert sorted(door.__all__) == dir(door)


@pytest.mark.parametrize("door", [mainspring, monitoring])
def test_an_unknown_name_is_an_attribute_error(door: ModuleType) -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        door.trian  # noqa: B018


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import mainspring", ()),
        ("from mainspring.cli.main import run; run(['--help'])", ("click",)),
        ("import mainspring.monitoring", ()),
        (COUNTS, ("numpy",)),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, allowed: tuple[str, ...]) -> None:
    told = f"{code}\nimport sys\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert set(loaded) <= set(allowed)
