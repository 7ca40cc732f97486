"""One loaded model: ONNX Runtime with one thread, called inline; for models of the usual size a thread costs more."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mainspring.core.package import EXAMPLE, Example
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput

Columns = Mapping[str, Sequence[Any]]
FLOATS = ("tensor(float)", "tensor(double)")
"""What a score may be told as."""

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class _Input(NamedTuple):
    name: str
    shape: tuple[int, ...]


class _Packed(NamedTuple):
    name: str
    dtype: Any
    columns: list[str]


class OnnxModel:
    """A model folder (``model.onnx``, ``signature.json``) ready to score.

    The model has one input per column, of shape [n, 1] or [n], or one input [n, columns] of floats for columns that are
    all numbers; and an output of probabilities [n, 2] or [n, classes], or scores [n, 1] or [n]. Integers and booleans
    may be fed to float inputs; only those can carry null (as NaN).

    Args:
        folder: The folder.

    Raises:
        InvalidInput: The folder is not such a model.
    """

    platform: ClassVar[str] = "onnx"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.signature = Signature.from_json((folder / "signature.json").read_bytes())
        except OSError as error:
            raise InvalidInput(f"no model in {folder}: {error.strerror}", hint="deploy the version again") from None
        self._session = open_session(folder)
        self._packed: _Packed | None = None
        self._numbers: dict[Any, list[_Input]] = {}
        self._strings: list[_Input] = []
        self._bind()
        self._output = self._find_output()
        self._one: _OneRow | None = None
        self._probe()
        if not self.signature.classes:
            example = probe_rows(folder, self.signature, 1)
            self._one = _OneRow(self._session, self._output, self._packed, self._numbers, self._strings, example)

    @classmethod
    def from_bytes(cls, onnx: bytes, signature: Signature, example: bytes = b"") -> OnnxModel:
        """A model that has no folder yet; it is tried on the rows of an example (see `mainspring.core.package`)."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.onnx").write_bytes(onnx)
            (Path(folder) / "signature.json").write_bytes(signature.to_json())
            if example:
                (Path(folder) / EXAMPLE).write_bytes(example)
            return cls(Path(folder))  # the session has read the file when this returns

    def score(self, columns: Columns, rows: int) -> list[float]:
        """The score of each row: the probability of yes or of the class answered, or the regressor's value.

        Args:
            columns: Column -> ``rows`` values that the signature allows; other columns are ignored, missing ones null.
            rows: How many.
        """
        if rows == 1 and self._one:
            return self._one.score(columns)
        return self._scores(self._run(self._feed(columns, rows))) if rows else []

    def probabilities(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """The probability of each class; see `Model.probabilities`."""
        if rows == 0:
            return np.empty((0, len(self.signature.classes)))
        return np.asarray(self._run(self._feed(columns, rows)), dtype=np.float64)

    def _feed(self, columns: Columns, rows: int) -> dict[str, Any]:
        nulls = (None,) * rows
        if self._packed:
            table = [columns.get(name, nulls) for name in self._packed.columns]
            return {self._packed.name: np.array(table, dtype=self._packed.dtype).T}
        feed: dict[str, Any] = {}
        for dtype, inputs in self._numbers.items():
            # One array for all columns of a type: the conversion costs more per call than per value.
            block = np.array([columns.get(item.name, nulls) for item in inputs], dtype=dtype)
            for item, line in zip(inputs, block, strict=True):
                feed[item.name] = line.reshape(item.shape)
        for item in self._strings:
            texts = ["" if text is None else text for text in columns.get(item.name, nulls)]
            feed[item.name] = np.array(texts, dtype=object).reshape(item.shape)
        return feed

    def score_packed(self, values: NDArray[Any]) -> list[float]:
        """The score of each row of an array of numbers; see `Model.score_packed`."""
        if not len(values):
            return []
        if (
            self._one and len(values) == 1 and (self._packed or len(self._numbers) == 1)
        ):  # then in the signature's order
            return self._one.score_packed(values[0])
        if self._packed:
            feed = {self._packed.name: np.ascontiguousarray(values, dtype=self._packed.dtype)}
            return self._scores(self._run(feed))
        feed = {}
        places = {field.name: place for place, field in enumerate(self.signature.inputs)}
        for dtype, inputs in self._numbers.items():
            block = np.ascontiguousarray(values.T, dtype=dtype)
            for item in inputs:
                feed[item.name] = block[places[item.name]].reshape(item.shape)
        return self._scores(self._run(feed))

    def _run(self, feed: dict[str, Any]) -> NDArray[Any]:
        answer: NDArray[Any] = self._session.run([self._output], feed)[0]
        return answer

    def _scores(self, answer: NDArray[Any]) -> list[float]:
        scores: list[float] = scores_in(answer, self.signature).tolist()
        return scores

    def score_arrays(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score of each row, for callers that have arrays: batch jobs and comparisons.

        Args:
            columns: Every input's column -> a 1-D array of n values; null is NaN in numbers and "" in texts.

        Returns:
            A float64 array of shape [n].
        """
        if self._packed:
            table = np.stack([columns[name] for name in self._packed.columns], axis=1, dtype=self._packed.dtype)
            return scores_in(self._run({self._packed.name: table}), self.signature).astype(np.float64)
        feed = {
            item.name: np.ascontiguousarray(columns[item.name], dtype=dtype).reshape(item.shape)
            for dtype, inputs in [*self._numbers.items(), (np.object_, self._strings)]
            for item in inputs
        }
        return scores_in(self._run(feed), self.signature).astype(np.float64)

    @property
    def output(self) -> str:
        """Name of the ONNX output that holds the scores."""
        return self._output

    def _bind(self) -> None:
        fields = {field.name: field for field in self.signature.inputs}
        inputs = {item.name: item for item in self._session.get_inputs()}
        if self._bind_packed(list(inputs.values())):
            return
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

    def _bind_packed(self, inputs: list[Any]) -> bool:
        if len(inputs) != 1 or not self.signature.numeric:
            return False
        (item,) = inputs
        names = [field.name for field in self.signature.inputs]
        if item.name in names or len(item.shape) != 2 or item.shape[1] != len(names):
            return False
        if item.type not in FLOATS:
            return False
        self._packed = _Packed(item.name, _DTYPES[item.type], names)
        return True

    def _find_output(self) -> str:
        floats = [item.name for item in self._session.get_outputs() if item.type in FLOATS]
        named = [name for name in floats if name == self.signature.outputs[0].name]
        if not floats:
            raise InvalidInput(
                f"{self.folder}/model.onnx answers no tensor of floats", hint="export it with `zipmap` switched off"
            )
        return str((named or floats)[-1])

    def _probe(self) -> None:
        """Scores one row: a model that cannot do that must not come into force."""
        try:
            shape = self._run(self._feed(probe_rows(self.folder, self.signature, 1), 1)).shape
        except Exception as error:  # noqa: BLE001 - see above
            raise InvalidInput(f"{self.folder}/model.onnx cannot score a row: {error}", hint="export anew") from None
        classes = len(self.signature.classes)
        fitting = [(1, classes)] if classes else [(1,), (1, 1), (1, 2)]
        if shape not in fitting:
            raise InvalidInput(
                f"{self.folder}/model.onnx answers a tensor of shape {shape}",
                hint=f"the output must be [n, {classes or 2}] probabilities, or [n, 1] or [n] scores",
            )


class _OneRow:
    """A single row's way into the model: arrays made once and filled anew, for making them costs more than scoring.

    Without strings the runtime reads and writes them in place, which saves half of the call; it cannot bind strings.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        output: str,
        packed: _Packed | None,
        numbers: Mapping[Any, list[_Input]],
        strings: list[_Input],
        example: Columns,
    ) -> None:
        self._session, self._wanted = session, [output]
        self._turn = threading.Lock()  # a lineup that is asked beside may share the model with one that is not
        self._feed: dict[str, Any] = {}
        self._numbers: list[tuple[list[str], Any]] = []
        if packed:
            flat = np.zeros(len(packed.columns), packed.dtype)
            self._numbers.append((packed.columns, flat))
            self._feed[packed.name] = flat.reshape(1, -1)
        for dtype, inputs in numbers.items():
            flat = np.zeros(len(inputs), dtype)
            self._numbers.append(([item.name for item in inputs], flat))
            for place, item in enumerate(inputs):
                self._feed[item.name] = flat[place : place + 1].reshape(item.shape)
        self._texts = [(item.name, np.full(1, "", dtype=object)) for item in strings]
        for item, (name, text) in zip(strings, self._texts, strict=True):
            self._feed[name] = text.reshape(item.shape)
        self._fill(example)
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
        with self._turn:
            self._fill(columns)
            return self._run()

    def _fill(self, columns: Columns) -> None:
        for names, flat in self._numbers:
            flat[:] = [columns[name][0] if name in columns else None for name in names]
        for name, text in self._texts:
            value = columns[name][0] if name in columns else None
            text[0] = "" if value is None else value

    def score_packed(self, values: NDArray[Any]) -> list[float]:
        """The score of the only row, as numbers in the order of the model's only input."""
        with self._turn:
            self._numbers[0][1][:] = values
            return self._run()

    def _run(self) -> list[float]:
        if self._binding is not None:
            self._session.run_with_iobinding(self._binding)
        else:
            self._answer = self._session.run(self._wanted, self._feed)[0]
        return [self._answer.item(-1)]


def scores_in(answer: NDArray[Any], signature: Signature) -> NDArray[Any]:
    """The score of each row in a model's answer, [rows] or [rows, values]."""
    if signature.classes:
        best: NDArray[Any] = answer.max(axis=1)
        return best
    return answer[:, -1] if answer.ndim == 2 else answer


def open_session(folder: Path) -> Any:
    """An ONNX Runtime session of ``model.onnx`` in a folder.

    Raises:
        InvalidInput: There is none, or it is not loadable.
    """
    try:
        with (folder / "model.onnx").open("rb"):
            return ort.InferenceSession(str(folder / "model.onnx"), _options(), providers=["CPUExecutionProvider"])
    except OSError as error:
        raise InvalidInput(f"no model in {folder}: {error.strerror}", hint="deploy the version again") from None
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises a dozen unrelated classes
        raise InvalidInput(f"{folder}/model.onnx is not loadable: {error}", hint="export the model again") from None


def probe_columns(signature: Signature, rows: int) -> dict[str, list[Any]]:
    """Made-up rows that a signature allows, spread over what was seen in training."""
    return {field.name: [_made_up(field, row, rows) for row in range(rows)] for field in signature.inputs}


def probe_rows(folder: Path, signature: Signature, rows: int) -> dict[str, list[Any]]:
    """Rows to try a model with: those recorded with it, over and over, or made-up ones where there are none."""
    path = folder / EXAMPLE
    example = msgspec.json.decode(path.read_bytes(), type=Example) if path.exists() else None
    names = [field.name for field in signature.inputs]
    if example is None or not example.rows or not set(names) <= set(example.columns):
        return probe_columns(signature, rows)
    return {name: [example.columns[name][row % example.rows] for row in range(rows)] for name in names}


def _made_up(field: Field, row: int, rows: int) -> Any:
    if field.type == "string":
        return field.categories[row % len(field.categories)] if field.categories else ""
    if field.type == "bool":
        return row % 2 == 1
    low = field.min if field.min is not None else min(0.0, field.max or 0.0)
    high = field.max if field.max is not None else max(0.0, low)
    value = low + (high - low) * row / rows
    return value if field.type == "float" else int(value)


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
