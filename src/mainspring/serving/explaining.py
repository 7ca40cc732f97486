"""The process that explains: ``python -m mainspring.serving.explaining``, questions on one pipe, answers on the other.

A message is its length (four bytes, big-endian) and MessagePack. It ends when the process that asks has ended.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import msgspec  # noqa: E402

from mainspring.errors import InvalidInput, MainspringError  # noqa: E402
from mainspring.serving.explanation import Columns, Explanation, shapley  # noqa: E402

BACKGROUND = "background.json"
"""File of a package with rows that the version was trained on: column -> values."""
_MOST_MODELS = 4
_NICENESS = 10


class Question(msgspec.Struct, array_like=True):
    """What is asked.

    Attributes:
        rows: Folder of a version, and a row.
        trusted: Types that original models may be made of beyond scikit-learn's own.
    """

    rows: list[tuple[str, dict[str, Any]]]
    trusted: list[str]


class Told(msgspec.Struct, array_like=True):
    """What is answered.

    Attributes:
        explanations: One per row; None where the model has no score.
        error: Why there are none, or empty.
        hint: What can be done about it.
    """

    explanations: list[Explanation | None] = []
    error: str = ""
    hint: str = ""


class Explained:
    """Models, loaded to be explained.

    Args:
        trusted: Types that original models may be made of beyond scikit-learn's own.
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = trusted
        self._loaded: dict[Path, tuple[Any, Any, Columns]] = {}

    def explain(self, folder: Path, row: Mapping[str, Any]) -> Explanation | None:
        """Why a version says of a row what it says: exactly, where the model's form allows it.

        Raises:
            InvalidInput: The version has no rows to compare with.
        """
        exact, model, background = self._load(folder)
        return (exact and exact.explain(row)) or shapley(model, row, background)

    def _load(self, folder: Path) -> tuple[Any, Any, Columns]:
        found = self._loaded.get(folder)
        if found is None:
            from mainspring.registry.load import load_model  # noqa: PLC0415 - who asks imports this module, too
            from mainspring.serving.exact import Exact  # noqa: PLC0415

            background = _background(folder)
            while len(self._loaded) >= _MOST_MODELS:
                self._loaded.pop(next(iter(self._loaded)))
            model = load_model(folder, trusted=self._trusted)
            found = self._loaded[folder] = Exact.of(folder, background, self._trusted), model, background
        return found


def _background(folder: Path) -> Columns:
    """Rows to compare with: of the reference, or else the package's examples."""
    from mainspring.core.package import EXAMPLE, Example  # noqa: PLC0415

    if (folder / BACKGROUND).exists():
        return msgspec.json.decode((folder / BACKGROUND).read_bytes(), type=dict[str, list[Any]])
    if (folder / EXAMPLE).exists():
        return msgspec.json.decode((folder / EXAMPLE).read_bytes(), type=Example).columns
    raise InvalidInput(
        f"{folder.name} cannot be explained: it has no rows to compare with",
        hint=f"register the version with `reference=`, or put {BACKGROUND} beside its signature",
    )


def main() -> int:
    """Answers until nobody asks any more."""
    os.nice(_NICENESS)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print is no answer
    explained: Explained | None = None
    while head := source.read(4):
        question = msgspec.msgpack.decode(source.read(int.from_bytes(head)), type=Question)
        explained = explained or Explained(question.trusted)
        try:
            told = Told([explained.explain(Path(folder), row) for folder, row in question.rows])
        except MainspringError as error:
            told = Told(error=error.message, hint=error.hint)
        answer = msgspec.msgpack.encode(told)
        sink.write(len(answer).to_bytes(4) + answer)
        sink.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
