"""Models that are code: Python functions, pickles, models of libraries that are not known here.

Their code runs in a process of its own, which sees no secret of the environment and ends with the one that asks; and
only where the workspace's setting ``model_code`` allows it.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput, MainspringError, MissingExtra, Refused, Unreachable
from mainspring.registry import mlmodel
from mainspring.registry.mlmodel import Manifest
from mainspring.registry.model import PICKLE, SOURCE
from mainspring.registry.runtime import Columns, probe_rows, scores_in

ANSWER_SECONDS = 60.0
LOAD_SECONDS = 300.0
_ATTEMPTS = 2
_PICKLES = (".pkl", ".pickle", ".joblib", ".pth", ".pt", ".ckpt", ".bin", ".dill")
_SEEN = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


class Question(msgspec.Struct, array_like=True):
    """What the process is asked.

    Attributes:
        ask: ``open`` a folder, ``score`` rows, or ``adopt`` a logged model's folder.
        folder: The folder.
        columns: Column -> values, of rows to score.
        rows: How many.
    """

    ask: Literal["open", "score", "adopt"]
    folder: str = ""
    columns: dict[str, list[Any]] = {}
    rows: int = 0


class Told(msgspec.Struct, array_like=True):
    """What it answers.

    Attributes:
        answer: Scores, one per row, or the probabilities of its classes.
        signature: Of an adopted model, JSON.
        files: Path -> content, added to an adopted model.
        twin_difference: How far its ONNX twin is off, None without one.
        error: What went wrong, or empty.
        hint: What can be done about it.
    """

    answer: list[Any] = []
    signature: bytes = b""
    files: dict[str, bytes] = {}
    twin_difference: float | None = None
    error: str = ""
    hint: str = ""


class Process:
    """A process that runs models' code; started when it is first asked, ended when this object is gone."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._end: Any = None

    def ask(self, question: Question, *, first: Question | None = None, seconds: float = ANSWER_SECONDS) -> Told:
        """Asks, and starts the process anew where it has died.

        Args:
            question: The question.
            first: What a new process is asked before.
            seconds: How long to wait for each answer.

        Raises:
            InvalidInput: It cannot be answered; the message is the model's.
            Unreachable: The process dies of it, or takes too long.
        """
        with self._turn:
            for _ in range(_ATTEMPTS):
                try:
                    if self._child is None or self._child.poll() is not None:
                        self.close()
                        self._start()
                        if first is not None:
                            _checked(self._exchange(first, LOAD_SECONDS))
                    return _checked(self._exchange(question, seconds))
                except (OSError, EOFError):
                    self.close()
        raise Unreachable("the process of the model's own code dies of this", hint="the server's log tells more")

    def close(self) -> None:
        """Ends the process."""
        if self._end is not None:
            self._end()
        self._child = self._end = None

    def _start(self) -> None:
        command = [sys.executable, "-m", "mainspring.registry.foreign_process"]
        seen = {name: os.environ[name] for name in _SEEN if name in os.environ}
        self._child = subprocess.Popen(  # not among the project's files
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=seen, cwd="/", bufsize=0
        )
        self._end = weakref.finalize(self, _ended, self._child)

    def _exchange(self, question: Question, seconds: float) -> Told:
        assert self._child is not None
        assert self._child.stdin is not None
        message = msgspec.msgpack.encode(question)
        whole = memoryview(len(message).to_bytes(4) + message)
        while whole:
            whole = whole[self._child.stdin.write(whole) or 0 :]
        until = time.monotonic() + seconds
        return msgspec.msgpack.decode(self._read(int.from_bytes(self._read(4, until)), until), type=Told)

    def _read(self, size: int, until: float) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        content = bytearray()
        while len(content) < size:
            if not select.select([self._child.stdout], [], [], max(until - time.monotonic(), 0.0))[0]:
                self.close()
                raise Unreachable("the model's own code takes too long", hint="ask for fewer rows at a time")
            part = self._child.stdout.read(size - len(content))
            if not part:
                raise EOFError
            content += part
        return bytes(content)


def _checked(told: Told) -> Told:
    if told.error:
        raise InvalidInput(told.error, hint=told.hint)
    return told


def _ended(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


class ForeignModel:
    """A folder with ``MLmodel``, ``signature.json`` and a model that is code, ready to score in a process beside.

    Args:
        folder: The folder.
        trusted: Has the word ``source`` or ``pickle`` where such models may be loaded.

    Raises:
        InvalidInput: The folder is not such a model, or it cannot score a row.
        Refused: Nobody allows it to be loaded.
    """

    platform: ClassVar[str] = "python"

    def __init__(self, folder: Path, *, trusted: Collection[str] = ()) -> None:
        self.folder = folder
        try:
            self.signature = Signature.from_json((folder / "signature.json").read_bytes())
            manifest = mlmodel.read((folder / mlmodel.NAME).read_bytes())
        except OSError as error:
            raise InvalidInput(f"no model in {folder}: {error.strerror}", hint="deploy the version again") from None
        files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        check_code(manifest, files, trusted)
        self._opening = Question("open", str(folder.resolve()))
        self._process = Process()
        try:
            self.score(probe_rows(folder, self.signature, 1), 1)
        except MainspringError as error:
            self._process.close()
            raise InvalidInput(f"{folder.name} cannot score a row: {error.message}", hint=error.hint) from None

    def close(self) -> None:
        """Ends its process; it is started again by the next question."""
        self._process.close()

    def score(self, columns: Columns, rows: int) -> list[float]:
        """The score of each row; see `Model.score`."""
        scores: list[float] = scores_in(self._answer(columns, rows), self.signature).tolist() if rows else []
        return scores

    def probabilities(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """The probability of each class; see `Model.probabilities`."""
        return self._answer(columns, rows) if rows else np.empty((0, len(self.signature.classes)))

    def score_packed(self, values: Any) -> list[float]:
        """The score of each row of an array of numbers; see `Model.score_packed`."""
        columns = {
            field.name: [None if value != value else value for value in line]  # noqa: PLR0124 - NaN differs from itself
            for field, line in zip(self.signature.inputs, np.asarray(values).T.tolist(), strict=True)
        }
        return self.score(columns, len(values))

    def score_arrays(self, columns: Mapping[str, Any]) -> Any:
        """The score of each row; see `Model.score_arrays`."""
        rows = len(next(iter(columns.values())))
        lists = {
            name: [text or None for text in array] if array.dtype == object else array.tolist()
            for name, array in columns.items()
        }
        return np.array(self.score(lists, rows))

    def _answer(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        nulls = [None] * rows
        given = {field.name: list(columns.get(field.name, nulls)) for field in self.signature.inputs}
        told = self._process.ask(Question("score", columns=given, rows=rows), first=self._opening)
        answer = np.array(told.answer, dtype=np.float64)
        classes = len(self.signature.classes)
        if answer.shape != ((rows, classes) if classes else (rows,)):
            raise InvalidInput(
                f"the model answers {list(answer.shape)} for {rows} rows", hint="one number per row can be served"
            )
        return answer


def check_code(manifest: Manifest, files: Iterable[str], trusted: Collection[str]) -> None:
    """Refuses a model that is code where nobody allows it.

    Args:
        manifest: What its ``MLmodel`` says.
        files: Paths of its files.
        trusted: Has the word ``source`` or ``pickle`` where such models may be loaded.

    Raises:
        Refused: Nobody does.
    """
    pickles = [path for path in files if path.lower().endswith(_PICKLES)]
    facts = manifest.facts
    readable = manifest.flavor == "python_function" and bool(facts.get("model_code_path") or facts.get("code"))
    needed = SOURCE if readable and not pickles else PICKLE
    if needed in trusted:
        return
    what = "is Python code" if needed == SOURCE else "is a pickle" if pickles else "brings its own code"
    raise Refused(
        f"the model {what}, which this workspace does not load",
        hint=f'model_code = "{needed}" under [settings] allows it, in a process of its own',
    )


def adopt_beside(folder: Path) -> tuple[Signature, dict[str, bytes], float | None]:
    """Looks at a logged model that is code, in a process of its own; see `mainspring.registry.adopt.adopt`.

    Returns:
        Its signature, files to add, and how far the ONNX twin among them is off.

    Raises:
        InvalidInput: It cannot be served.
        Unreachable: The process dies of it, or takes too long.
    """
    process = Process()
    try:
        told = process.ask(Question("adopt", str(folder.resolve())), seconds=LOAD_SECONDS)
    finally:
        process.close()
    return Signature.from_json(told.signature), told.files, told.twin_difference


def missing(error: ModuleNotFoundError) -> MissingExtra:
    """What to say of a library that a model needs."""
    return MissingExtra(
        f"the model needs {error.name}, which is not installed", hint=f"pip install {str(error.name).partition('.')[0]}"
    )
