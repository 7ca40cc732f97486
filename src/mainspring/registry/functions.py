"""Packs a Python function as a model: stored as the source file that holds it, or, if told to, as a pickle."""

from __future__ import annotations

import inspect
import platform
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from mainspring.core.package import EXAMPLE, ModelPackage
from mainspring.errors import InvalidInput, MainspringError, MissingExtra
from mainspring.registry import mlmodel
from mainspring.registry.foreign import ForeignModel
from mainspring.registry.mlmodel import FUNCTION_LOADER
from mainspring.registry.model import PICKLE, SOURCE
from mainspring.registry.packaging import TWIN_ROWS, example_of, learn_signature

_CODE, _PICKLED = "code", "function.pkl"
_MAX_CODE = 4 << 20
_TOLERANCE = 1e-9
_LOADER = '''"""Loads the function of this model; written by Mainspring."""

import polars as pl


def _found(folder):
    {find}


class Model:
    """Answers a frame of pandas or Polars with one number per row."""

    def __init__(self, function):
        self.function = function

    def predict(self, rows, params=None):
        frame = pl.DataFrame({{str(name): list(rows[name]) for name in rows.columns}})
        return [float(value) for value in self.function(frame)]


def _load_pyfunc(folder):
    return Model(_found(folder))
'''
_IMPORTED = "from {module} import {name}\n\n    return {name}"
_UNPICKLED = f"""import pathlib
    import pickle

    return pickle.loads((pathlib.Path(folder) / "{_PICKLED}").read_bytes())"""


def package_function(
    function: Callable[[pl.DataFrame], Any],
    example: pl.DataFrame,
    *,
    kind: Literal["classifier", "regressor"] = "regressor",
    threshold: float = 0.5,
    nullable: Collection[str] | None = None,
    code: Sequence[str | Path] = (),
    pickle: bool = False,
) -> ModelPackage:
    """Packs a function that gives one number for each row of a Polars frame.

    What is packed is loaded in a process of its own and tried, so that a file which is missing is missed now.

    Args:
        function: Of a module that is a file of yours. Its file travels with the model.
        example: Rows the signature is learnt from, and that the packed function is compared on (at least one).
        kind: What its numbers are: probabilities of yes, or values.
        threshold: A classifier says yes when its number is at least this.
        nullable: Columns that may be null; see `mainspring.package`.
        code: More files and folders of Python that the function's file imports.
        pickle: Whether the function itself is pickled, by value: for lambdas, closures and notebooks. Only workspaces
            whose setting ``model_code`` is ``pickle`` load it.

    Raises:
        InvalidInput: The function is in no file of its own, gives no numbers, or other ones once it is packed.
        MissingExtra: cloudpickle is not installed.
    """
    signature = learn_signature(example, threshold=threshold, kind=kind, nullable=nullable)
    rows = example.select([field.name for field in signature.inputs])
    rows = rows.gather_every(max(1, rows.height // TWIN_ROWS))
    ours = _numbers(function(rows))
    if ours.shape != (rows.height,):
        raise InvalidInput(f"the function gives {ours.size} numbers for {rows.height} rows", hint="give one per row")
    files = _pickled(function) if pickle else _source_of(function)
    files |= _beside(code)
    versions = {name: metadata.version(name) for name in ("numpy", "polars")}
    files |= {
        "signature.json": signature.to_json(),
        EXAMPLE: example_of(rows, ours),
        **mlmodel.describe(_flavor(pickled=pickle), signature, versions),
    }
    difference = _compared(files, rows, ours, PICKLE if pickle else SOURCE)
    if not difference <= _TOLERANCE:
        raise InvalidInput(
            f"once packed, the function gives other numbers (by {difference:.3g})",
            hint="does it read what is not in its file, or draw at random?",
        )
    return ModelPackage(flavor="python_function", files=files, signature=signature)


def _numbers(answered: Any) -> np.ndarray:
    """What a function gave, as numbers.

    Raises:
        InvalidInput: It is something else.
    """
    try:
        return np.asarray([float(value) for value in answered])
    except (TypeError, ValueError):
        told = repr(answered).partition("\n")[0][:80]
        hint = "give a number for each row, such as a probability of yes; names of classes need an estimator"
        raise InvalidInput(f"the function gives {told}, not a number for each row", hint=hint) from None


def _flavor(*, pickled: bool) -> dict[str, dict[str, Any]]:
    facts = {"loader_module": FUNCTION_LOADER, "code": _CODE, "python_version": platform.python_version()}
    return {"python_function": facts | ({"data": "data"} if pickled else {})}


def _source_of(function: Callable[..., Any]) -> dict[str, bytes]:
    hint = "put it into a module of your own, or pass pickle=True: then only workspaces that load pickles serve it"
    module, name = getattr(function, "__module__", None) or "", getattr(function, "__qualname__", "")
    found = sys.modules.get(module)
    if module == "__main__" or not name.isidentifier() or getattr(found, name, None) is not function:
        raise InvalidInput(f"{name or function!r} is no function of a module that can be imported", hint=hint)
    try:
        path = Path(inspect.getsourcefile(function) or "")
        content = path.read_bytes()
    except (OSError, TypeError):
        raise InvalidInput(f"the source of {name} cannot be read", hint=hint) from None
    stem = module.rpartition(".")[2]
    find = _IMPORTED.format(module=stem, name=name)
    return {f"{_CODE}/{stem}.py": content, f"{_CODE}/{FUNCTION_LOADER}.py": _LOADER.format(find=find).encode()}


def _pickled(function: Callable[..., Any]) -> dict[str, bytes]:
    try:
        import cloudpickle  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        raise MissingExtra("pickling a function needs cloudpickle", hint="pip install cloudpickle") from None
    loader = _LOADER.format(find=_UNPICKLED).encode()
    return {f"data/{_PICKLED}": cloudpickle.dumps(function), f"{_CODE}/{FUNCTION_LOADER}.py": loader}


def _beside(code: Iterable[str | Path]) -> dict[str, bytes]:
    """The Python files below what was named, under the names by which they are imported."""
    files: dict[str, bytes] = {}
    for item in map(Path, code):
        if not item.exists():
            raise InvalidInput(f"there is no {item}", hint="name files and folders of Python")
        for path in sorted(item.rglob("*.py")) if item.is_dir() else [item]:
            name = path.relative_to(item.parent).as_posix()
            files[f"{_CODE}/{name}"] = path.read_bytes()
    if sum(map(len, files.values())) > _MAX_CODE:
        raise InvalidInput(f"the code is larger than {_MAX_CODE >> 20} MiB", hint="name only what the function imports")
    return files


def _compared(files: dict[str, bytes], rows: pl.DataFrame, ours: Any, word: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        try:
            model = ForeignModel(folder, trusted=(word,))
            theirs = np.array(model.score(rows.to_dict(as_series=False), rows.height))
            model.close()
        except MainspringError as error:
            raise InvalidInput(
                f"once packed, the function fails: {error.message}", hint="name the files that it imports: code=[…]"
            ) from None
    return float(np.max(np.abs(ours - theirs)))
