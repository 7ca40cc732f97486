"""One loaded model: ONNX Runtime with one thread, called inline; for models of the usual size a thread costs more."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput

Columns = Mapping[str, Sequence[Any]]

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_PROBE: dict[str, Any] = {"float": 0.0, "int": 0, "string": "", "bool": False}


class _Input(NamedTuple):
    name: str
    shape: tuple[int, ...]


class OnnxModel:
    """A model folder (``model.onnx``, ``signature.json``) ready to score.

    The model has one input per column, of shape [n, 1] or [n], and an output of probabilities [n, 2] or scores [n, 1]
    or [n]. Integers and booleans may be fed to float inputs; only those can carry null (as NaN). One thread at a time
    may use it.

    Args:
        folder: The folder.

    Raises:
        InvalidInput: The folder is not such a model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.signature = Signature.from_json((folder / "signature.json").read_bytes())
            self._session = ort.InferenceSession(
                str(folder / "model.onnx"), _options(), providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise InvalidInput(f"no model in {folder}: {error.strerror}", hint="deploy the version again") from None
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises a dozen unrelated classes
            raise InvalidInput(f"{folder}/model.onnx is not loadable: {error}", hint="export the model again") from None
        self._numbers: dict[Any, list[_Input]] = {}
        self._strings: list[_Input] = []
        self._bind()
        self._output = self._find_output()
        self._one: _OneRow | None = None
        self._probe()
        self._one = _OneRow(self._session, self._output, self._numbers, self._strings)

    @classmethod
    def from_bytes(cls, onnx: bytes, signature: Signature) -> OnnxModel:
        """A model that has no folder yet."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.onnx").write_bytes(onnx)
            (Path(folder) / "signature.json").write_bytes(signature.to_json())
            return cls(Path(folder))  # the session has read the file when this returns

    def score(self, columns: Columns, rows: int) -> list[float]:
        """The score of each row: the probability of yes, or the regressor's value.

        Args:
            columns: Column -> ``rows`` values that the signature allows; other columns are ignored, missing ones null.
            rows: How many.
        """
        if rows == 1 and self._one:
            return self._one.score(columns)
        if rows == 0:
            return []
        feed: dict[str, Any] = {}
        nulls = (None,) * rows
        for dtype, inputs in self._numbers.items():
            # One array for all columns of a type: the conversion costs more per call than per value.
            block = np.array([columns.get(item.name, nulls) for item in inputs], dtype=dtype)
            for item, line in zip(inputs, block, strict=True):
                feed[item.name] = line.reshape(item.shape)
        for item in self._strings:
            texts = ["" if text is None else text for text in columns.get(item.name, nulls)]
            feed[item.name] = np.array(texts, dtype=object).reshape(item.shape)
        answer = self._session.run([self._output], feed)[0]
        if answer.ndim == 2:
            answer = answer[:, -1]
        scores: list[float] = answer.tolist()
        return scores

    def score_arrays(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score of each row, for callers that have arrays: batch jobs and comparisons.

        Args:
            columns: Every input's column -> a 1-D array of n values; null is NaN in numbers and "" in texts.

        Returns:
            A float64 array of shape [n].
        """
        feed = {
            item.name: np.ascontiguousarray(columns[item.name], dtype=dtype).reshape(item.shape)
            for dtype, inputs in [*self._numbers.items(), (np.object_, self._strings)]
            for item in inputs
        }
        answer = self._session.run([self._output], feed)[0]
        return np.asarray(answer[:, -1] if answer.ndim == 2 else answer, dtype=np.float64)

    @property
    def output(self) -> str:
        """Name of the ONNX output that holds the scores."""
        return self._output

    def labels(self, scores: Sequence[float]) -> list[bool | None]:
        """Yes or no for each score of a classifier; None where there is no score, and for regressors."""
        if self.signature.kind == "regressor":
            return [None] * len(scores)
        threshold = self.signature.threshold
        return [None if isnan(score) else score >= threshold for score in scores]

    def _bind(self) -> None:
        fields = {field.name: field for field in self.signature.inputs}
        inputs = {item.name: item for item in self._session.get_inputs()}
        if fields.keys() != inputs.keys():
            odd = ", ".join(sorted(fields.keys() ^ inputs.keys()))
            raise InvalidInput(
                f"the inputs of {self.folder}/model.onnx are not the columns of its signature: {odd}",
                hint="export the model with one input per column",
            )
        for name, field in fields.items():
            kind = inputs[name].type
            shape = (-1, 1) if len(inputs[name].shape) == 2 else (-1,)
            if not _fits(field, kind):
                null = "nullable " if field.nullable else ""
                raise InvalidInput(
                    f"column `{name}` is a {null}{field.type}, the model reads a {kind}",
                    hint="export the model with float inputs for numbers and string inputs for strings",
                )
            if kind == "tensor(string)":
                self._strings.append(_Input(name, shape))
            else:
                self._numbers.setdefault(_DTYPES[kind], []).append(_Input(name, shape))

    def _find_output(self) -> str:
        floats = [item.name for item in self._session.get_outputs() if item.type in ("tensor(float)", "tensor(double)")]
        named = [name for name in floats if name == self.signature.outputs[0].name]
        if not floats:
            raise InvalidInput(
                f"{self.folder}/model.onnx answers no tensor of floats", hint="export it with `zipmap` switched off"
            )
        return str((named or floats)[-1])

    def _probe(self) -> None:
        """Scores one made-up row: a model that cannot do that must not come into force."""
        try:
            columns = {field.name: [_PROBE[field.type]] for field in self.signature.inputs}
            answer = self.score(columns, 1)
            shape = next(item.shape for item in self._session.get_outputs() if item.name == self._output)
        except Exception as error:  # noqa: BLE001 - see above
            raise InvalidInput(f"{self.folder}/model.onnx cannot score a row: {error}", hint="export anew") from None
        if len(answer) != 1 or (len(shape) == 2 and shape[1] not in (1, 2)):
            raise InvalidInput(
                f"{self.folder}/model.onnx answers a tensor of shape {shape}",
                hint="the output must be [n, 2] probabilities, or [n, 1] or [n] scores",
            )


class _OneRow:
    """A single row's way into the model: arrays made once and filled anew, for making them costs more than scoring.

    Without strings the runtime reads and writes them in place, which saves half of the call; it cannot bind strings.
    """

    def __init__(
        self, session: ort.InferenceSession, output: str, numbers: Mapping[Any, list[_Input]], strings: list[_Input]
    ) -> None:
        self._session, self._wanted = session, [output]
        self._feed: dict[str, Any] = {}
        self._numbers: list[tuple[list[str], Any]] = []
        for dtype, inputs in numbers.items():
            flat = np.zeros(len(inputs), dtype)
            self._numbers.append(([item.name for item in inputs], flat))
            for place, item in enumerate(inputs):
                self._feed[item.name] = flat[place : place + 1].reshape(item.shape)
        self._texts = [(item.name, np.full(1, "", dtype=object)) for item in strings]
        for item, (name, text) in zip(strings, self._texts, strict=True):
            self._feed[name] = text.reshape(item.shape)
        self._answer: Any = session.run(self._wanted, self._feed)[0]
        self._binding: Any = None
        if not strings:
            self._binding = session.io_binding()
            self._kept = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self._feed.items()}
            for name, value in self._kept.items():
                self._binding.bind_ortvalue_input(name, value)
            self._written = ort.OrtValue.ortvalue_from_numpy(self._answer)
            self._binding.bind_ortvalue_output(output, self._written)

    def score(self, columns: Columns) -> list[float]:
        """The score of the only row."""
        for names, flat in self._numbers:
            flat[:] = [columns[name][0] if name in columns else None for name in names]
        for name, text in self._texts:
            value = columns[name][0] if name in columns else None
            text[0] = "" if value is None else value
        if self._binding is not None:
            self._session.run_with_iobinding(self._binding)
        else:
            self._answer = self._session.run(self._wanted, self._feed)[0]
        return [self._answer.item(-1)]


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it grows with the largest request and never shrinks
    return options


def _fits(field: Field, kind: str) -> bool:
    if field.type == "string":
        return kind == "tensor(string)"
    if kind in ("tensor(float)", "tensor(double)"):
        return True
    if field.type == "float" or field.nullable:
        return False
    return kind == "tensor(int64)" or (field.type == "bool" and kind == "tensor(bool)")
