"""Drafts the migration from the newest version to the entities as they are.

    python tests/migration/draft.py "what changes"

With ``--first`` it drafts the whole schema as version 0001 anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config

import mainspring.workspace  # noqa: F401 - the entities of every room
from mainspring.store import schema, tables

FIRST = "versions/0001_all_tables.py"


def plain_type(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """Migrations name SQL's own types: what a column means to Python may change after them."""
    return f"sa.{item.impl_instance!r}" if kind == "type" and isinstance(item, sa.types.TypeDecorator) else False


def main(message: str) -> None:
    """Writes the next file of the chain."""
    first = message == "--first"
    with tempfile.TemporaryDirectory() as folder:
        # Drafted in a copy, because a half-written chain would stop every program that uses this checkout.
        chain = Path(shutil.copytree(schema.MIGRATIONS, Path(folder) / "migrations"))
        if first:
            (chain / FIRST).unlink(missing_ok=True)
        number = len(list((chain / "versions").glob("[0-9]*.py"))) + 1
        config = Config()
        config.set_main_option("script_location", str(chain).replace("%", "%%"))
        config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
        config.attributes["url"] = sa.make_url(f"sqlite:///{Path(folder) / 'draft.db'}")
        config.attributes["options"] = {
            "target_metadata": tables.describe_all(),
            "render_item": plain_type,
            "render_as_batch": not first,
        }
        if number > 1:
            command.upgrade(config, "head")
        command.revision(config, "All tables" if first else message, autogenerate=True, rev_id=f"{number:04d}")
        (written,) = (chain / "versions").glob(f"{number:04d}_*.py")
        lines = [line for line in written.read_text().splitlines() if "# ###" not in line]
        written.write_text("\n".join(lines) + "\n")
        subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--quiet", "--line-length=120", str(written)], check=True
        )
        shutil.copy(written, schema.MIGRATIONS / "versions" / written.name)


if __name__ == "__main__":
    main(sys.argv[1])
