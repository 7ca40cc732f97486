"""The rules of the house that no linter knows; `make lint` runs this file.

Modules of at most 500 lines, functions of at most 60, no bins without a noun of their own, import budgets as ratios to
the bare interpreter, and nothing in the repository that belongs to one machine.
"""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_MODULE = 500
MAX_FUNCTION = 60
BINS = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_IMPORT_MS = 100.0
MAX_HELP_MS = 150.0
_PRIVATE = re.compile(r"index-url|extra-index|(^|[^A-Za-z0-9_.-])/(root|home|work)/")


def long_modules() -> Iterator[str]:
    """Modules over the limit, and functions over theirs."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text()
        name = path.relative_to(ROOT)
        lines = text.count("\n")
        if lines > MAX_MODULE:
            yield f"{name}: {lines} lines, at most {MAX_MODULE}"
        if path.stem in BINS:
            yield f"{name}: a bin without a noun of its own"
        if path.parent.name == "versions":
            continue  # a migration is a list of tables, and history is not tidied
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION:
                    yield f"{name}:{node.lineno}: function {node.name} has {length} lines, at most {MAX_FUNCTION}"


def undocumented_operations() -> Iterator[str]:
    """Operations without a docstring: it is the command's help and the route's summary."""
    for path in sorted((ROOT / "src").rglob("service.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node):
                continue
            if any("operation" in ast.unparse(item) for item in node.decorator_list):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: operation {node.name} has no docstring"


def private_lines() -> Iterator[str]:
    """Paths of one machine and settings of one package index."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.is_file() or path.suffix in {".png", ".lock", ".parquet"} or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if _PRIVATE.search(line):
                yield f"{name}:{number}: names an index or a path of one machine"


def cpu_seconds(*command: str) -> float:
    """CPU time of a command, the least of five: what noise disturbs least."""
    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def import_budgets() -> Iterator[str]:
    """What importing costs beyond the bare interpreter.

    The budgets are milliseconds on a machine whose bare interpreter takes 10; elsewhere they scale with it.
    """
    bare = cpu_seconds("-c", "pass")
    unit = bare / 0.010
    budgets = {MAX_IMPORT_MS: ("-c", "import mainspring"), MAX_HELP_MS: ("-m", "mainspring.cli.main", "--help")}
    for limit, command in budgets.items():
        spent = (cpu_seconds(*command) - bare) * 1000
        if spent > limit * max(unit, 1.0):
            yield f"`python {' '.join(command)}`: {spent:.0f} ms beyond the interpreter, at most {limit * unit:.0f}"


def main() -> int:
    """Prints what breaks a rule; 1 when anything does."""
    found = [*long_modules(), *undocumented_operations(), *private_lines(), *import_budgets()]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
