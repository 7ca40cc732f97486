"""The process that runs models' own code: ``python -m mainspring.registry.foreign_process``.

Questions on one pipe, answers on the other; `mainspring.registry.foreign` decides whether that may be. A message is
its length (four bytes, big-endian) and MessagePack. It ends when the process that asks has ended.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import msgspec  # noqa: E402
import polars as pl  # noqa: E402

from mainspring.core.package import EXAMPLE  # noqa: E402
from mainspring.core.signature import Signature  # noqa: E402
from mainspring.errors import InvalidInput, MainspringError  # noqa: E402
from mainspring.registry import mlmodel  # noqa: E402
from mainspring.registry.foreign import Question, Told, missing  # noqa: E402
from mainspring.registry.mlmodel import Manifest  # noqa: E402

Answerer = Callable[[pl.DataFrame, Signature], Any]
"""Gives an array [rows], or [rows, classes], for rows."""


def open_model(folder: Path, manifest: Manifest) -> Answerer:
    """Loads a model, which may run any code.

    Raises:
        InvalidInput: It cannot be loaded.
        MissingExtra: A library that it needs is not installed.
    """
    try:
        if manifest.flavor == "sklearn":
            from mainspring.registry.packaging import answers_of  # noqa: PLC0415 - optional

            estimator = load_pickle(folder / str(manifest.facts["pickled_model"]), manifest)
            named = getattr(estimator, "feature_names_in_", None) is not None
            return lambda rows, signature: answers_of(estimator, rows if named else rows.to_numpy(), signature)
        if manifest.flavor == "pytorch":
            from mainspring.registry import pytorch  # noqa: PLC0415 - optional

            module = pytorch.load(folder, manifest)
            return lambda rows, signature: pytorch.answers_of(module, rows)
        return _function(folder, manifest)
    except ModuleNotFoundError as error:
        raise missing(error) from error
    except MainspringError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"the model cannot be loaded: {type(error).__name__}: {error}", hint="log it again"
        ) from error


def load_pickle(path: Path, manifest: Manifest) -> Any:
    """What a pickle holds."""
    import pickle  # noqa: PLC0415 - this process is made for it

    if manifest.facts.get("serialization_format") == "joblib":
        import joblib  # noqa: PLC0415 - optional

        return joblib.load(path)
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - see above


def _function(folder: Path, manifest: Manifest) -> Answerer:
    """A model of the flavor ``python_function``: whatever its loader gives has a method ``predict``."""
    facts = manifest.facts
    loader = str(facts.get("loader_module", ""))
    if loader.partition(".")[0] == "mlflow":
        import mlflow.pyfunc  # noqa: PLC0415 - optional

        model = mlflow.pyfunc.load_model(str(folder))
    else:
        import importlib  # noqa: PLC0415

        sys.path.insert(0, str(folder / str(facts.get("code", "code"))))
        model = importlib.import_module(loader)._load_pyfunc(str(folder / str(facts.get("data", ""))))
    plain = loader == mlmodel.FUNCTION_LOADER

    def answer(rows: pl.DataFrame, signature: Signature) -> Any:
        return _one_each(model.predict(rows if plain else _pandas(rows, signature)))

    return answer


def _pandas(rows: pl.DataFrame, signature: Signature) -> Any:
    import pandas as pd  # noqa: PLC0415 - optional

    kinds = {"float": "float64", "int": "int64", "string": "object", "bool": "bool"}
    columns = {}
    for field in signature.inputs:
        values, gaps = rows[field.name], bool(rows[field.name].null_count())
        kind = "float64" if gaps and field.type == "int" else "object" if gaps and field.type == "bool" else None
        columns[field.name] = pd.Series(values.to_list(), dtype=kind or kinds[field.type])
    return pd.DataFrame(columns)


def _one_each(answer: Any) -> Any:
    """One number per row in whatever ``predict`` gives: a list, an array, a series, a frame with one column."""
    import numpy as np  # noqa: PLC0415

    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"the model answers a {type(answer).__name__} of no numbers", hint="answer numbers"
        ) from None
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def main() -> int:
    """Answers until nobody asks any more."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever models print is no answer
    model: tuple[Answerer, Signature] | None = None
    while head := source.read(4):
        question = msgspec.msgpack.decode(source.read(int.from_bytes(head)), type=Question)
        try:
            if question.ask == "open":
                folder = Path(question.folder)
                manifest = mlmodel.read((folder / mlmodel.NAME).read_bytes())
                model = open_model(folder, manifest), Signature.from_json((folder / "signature.json").read_bytes())
                told = Told()
            elif question.ask == "score":
                assert model is not None
                told = Told(answer=_scored(*model, question))
            else:
                told = _adopted(Path(question.folder))
        except MainspringError as error:
            told = Told(error=error.message, hint=error.hint)
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            told = Told(error=f"{type(error).__name__}: {error}"[:1000], hint="try it on this row where it was trained")
        answer = msgspec.msgpack.encode(told)
        sink.write(len(answer).to_bytes(4) + answer)
        sink.flush()
    return 0


def _adopted(folder: Path) -> Told:
    """What makes a logged model one that is served: without its pickle, where that is possible.

    Raises:
        InvalidInput: It cannot be served.
    """
    from mainspring.registry import adopt  # noqa: PLC0415 - reads much
    from mainspring.registry.packaging import example_of  # noqa: PLC0415

    manifest = mlmodel.read((folder / mlmodel.NAME).read_bytes())
    if manifest.flavor == "sklearn":
        try:
            estimator = load_pickle(folder / str(manifest.facts["pickled_model"]), manifest)
        except ModuleNotFoundError as error:
            raise missing(error) from error
        signature, files, difference = adopt.of_estimator(estimator, folder, manifest)
        from mainspring.registry.original import as_skops  # noqa: PLC0415

        if difference is None and (safe := as_skops(estimator)):
            files["model.skops"] = safe
        return Told(signature=signature.to_json(), files=files, twin_difference=difference)
    if manifest.inputs is None:
        raise InvalidInput("nobody has said what the model reads", hint="log it with a signature of columns")
    signature = Signature(inputs=manifest.inputs, kind="regressor")
    rows = adopt.rows_for(folder, manifest, signature)
    answers = open_model(folder, manifest)(rows, signature)
    if answers.shape != (rows.height,):
        raise InvalidInput(f"the model answers {list(answers.shape)} for {rows.height} rows", hint="one number per row")
    told = Told(signature=signature.to_json(), files={EXAMPLE: example_of(rows, answers)})
    return _with_twin(told, folder, manifest, rows, answers) if manifest.flavor == "pytorch" else told


def _with_twin(told: Told, folder: Path, manifest: Manifest, rows: pl.DataFrame, answers: Any) -> Told:
    """A module with the ONNX file that serving runs, where it has one."""
    from mainspring.registry import pytorch  # noqa: PLC0415 - optional

    signature = Signature.from_json(told.signature)
    try:
        onnx, difference = pytorch.twin(pytorch.load(folder, manifest), rows, answers, signature)
    except MainspringError:
        return told
    return msgspec.structs.replace(told, files={**told.files, "model.onnx": onnx}, twin_difference=difference)


def _scored(answer: Answerer, signature: Signature, question: Question) -> list[Any]:
    from mainspring.registry.packaging import frame_of  # noqa: PLC0415

    found: list[Any] = answer(frame_of(question.columns, signature), signature).tolist()
    return found


if __name__ == "__main__":
    sys.exit(main())
