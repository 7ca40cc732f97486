"""Runs the benchmarks, one after the other: ``python -m benchmarks [NAME …]``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.report import Row, show

HERE = Path(__file__).parent
TOOLS = ("__init__", "__main__", "report", "flights", "servers")
NAMES = sorted(
    [path.stem for path in HERE.glob("*.py") if path.stem not in TOOLS]
    + [path.parent.name for path in HERE.glob("*/__init__.py")]
)


def main() -> int:
    """Prints every row; 1 when a goal is missed."""
    unknown = [name for name in sys.argv[1:] if name not in NAMES]
    if unknown:
        print(f"error: no benchmark {unknown[0]}\n\nhint: one of {' '.join(NAMES)}", file=sys.stderr)
        return 2
    met = True
    for name in sys.argv[1:] or NAMES:
        print(f"\n{name}")
        rows: list[Row] = import_module(f"benchmarks.{name}").rows()
        met &= show(rows)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
