from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mainspring.tracking.environment import describe_code, is_alive, source_digest, this_process


def test_source_digest_covers_own_python_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    before = source_digest(tmp_path)
    for foreign in ("notes.txt", ".venv/b.py", "lib/site-packages/c.py", "__pycache__/d.py"):
        path = tmp_path / foreign
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("y = 2")
    assert source_digest(tmp_path) == before
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "e.py").write_text("z = 3")
    assert source_digest(tmp_path) != before


def test_code_outside_a_repository_has_no_commit(tmp_path: Path) -> None:
    code = describe_code(tmp_path)
    assert (code.commit, code.dirty) == ("", False)


def test_code_in_a_repository(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = describe_code(tmp_path)
    assert len(clean.commit) == 40
    assert not clean.dirty
    (tmp_path / "a.py").write_text("x = 2")
    assert describe_code(tmp_path).dirty


def test_processes_live_until_they_end() -> None:
    assert is_alive(this_process())
    host, _, rest = this_process().partition("/")
    assert not is_alive(f"{host}/{os.getpid()}/1")  # the id was given to another process
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_alive(f"{host}/{ended.pid}/{rest.partition('/')[2]}")
    assert is_alive("elsewhere/1/1")
    assert not is_alive("")
