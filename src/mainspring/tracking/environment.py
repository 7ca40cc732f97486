"""What must be known to make a run again: Python, libraries, and the state of the code."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from mainspring.tracking.model import CodeVersion

_WORTH_NAMING = (
    "mainspring",
    "numpy",
    "polars",
    "scikit-learn",
    "onnxruntime",
    "skl2onnx",
    "xgboost",
    "lightgbm",
    "torch",
)
MAX_DIFF = 1_000_000
_FOREIGN = frozenset({"__pycache__", "site-packages", "node_modules"})


@functools.cache
def installed() -> tuple[str, ...]:
    """Every installed distribution with its version, as lines of a requirements file."""
    return tuple(sorted({f"{item.name}=={item.version}" for item in distributions() if item.name}))


@functools.cache
def describe_environment() -> dict[str, str]:
    """Python, platform, the main libraries, and a digest over every installed distribution and its version."""
    versions = dict(item.split("==", 1) for item in installed())
    named = {name: versions[name] for name in _WORTH_NAMING if name in versions}
    lock = hashlib.sha256("\n".join(installed()).encode()).hexdigest()
    return {"python": platform.python_version(), "platform": platform.platform(terse=True), **named, "lock": lock}


def describe_code(folder: Path) -> CodeVersion:
    """Git commit, whether files differ from it, and a digest over the folder's Python files."""
    commit = _git(folder, "rev-parse", "HEAD")
    dirty = bool(commit) and bool(_git(folder, "status", "--porcelain", "--", "."))
    return CodeVersion(commit=commit, dirty=dirty, digest=source_digest(folder))


def uncommitted(folder: Path) -> bytes:
    """What differs from the commit, as a patch of at most `MAX_DIFF` bytes, without files that git does not know."""
    try:
        command = ["git", "-C", str(folder), "diff", "HEAD", "--", "."]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            found = process.stdout.read(MAX_DIFF + 1)
            process.kill()
    except OSError:
        return b""
    return found if len(found) <= MAX_DIFF else found[:MAX_DIFF] + b"\n# the rest is left out\n"


def source_digest(folder: Path) -> str:
    """Digest over names and contents of a folder's Python files (hidden folders and environments left out)."""
    digest = hashlib.sha256()
    for path in sorted(_python_files(folder)):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        # Not even looked into: an environment beside the project holds tens of thousands of files.
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _FOREIGN]
        yield from (Path(place, name) for name in names if name.endswith(".py") and not name.startswith("."))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def this_process() -> str:
    """``host/pid/start`` of this process: enough to tell later whether it still lives."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"


def is_alive(holder: str) -> bool:
    """Whether the process named by `this_process` still runs; a process on another host counts as alive."""
    host, _, rest = holder.partition("/")
    pid, _, started = rest.partition("/")
    if host != socket.gethostname():
        return bool(holder)
    return pid.isdecimal() and _started(int(pid)) == started


def _started(pid: int) -> str:
    """The kernel's start time of a process (so that a reused pid is not taken for the old one); empty when gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc").is_dir() else _signalled(pid)
    return "" if fields[0] == "Z" else fields[19]


def _signalled(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
