"""A bare ONNX model: whatever tensors it reads and answers, without a signature of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mainspring.errors import InvalidInput
from mainspring.registry.runtime import open_session

_TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float": "FP32", "double": "FP64",
    "string": "BYTES",
}  # fmt: skip


class TensorSpec(NamedTuple):
    """An input or output.

    Attributes:
        name: Its name.
        datatype: As the Open Inference Protocol calls it.
        shape: Its dimensions; -1 where any size is right.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


class TensorModel:
    """A folder with ``model.onnx`` and no ``signature.json``, ready to compute.

    Args:
        folder: The folder.

    Raises:
        InvalidInput: The folder is not such a model, or it reads or answers anything but plain tensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._session = open_session(folder)
        self.inputs = {item.name: _spec(item, folder) for item in self._session.get_inputs()}
        self.outputs = {item.name: _spec(item, folder) for item in self._session.get_outputs()}

    def run(self, feed: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """The named outputs for input arrays of the right types and shapes.

        Raises:
            InvalidInput: The model cannot compute with them: sizes that do not go together, an index that is not there.
        """
        try:
            answer: list[Any] = self._session.run(list(outputs), dict(feed))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises a dozen unrelated classes
            raise InvalidInput(
                f"the model cannot compute with these inputs: {error}", hint="check shapes and values"
            ) from None
        return answer


def _spec(item: Any, folder: Path) -> TensorSpec:
    kind = _TYPES.get(str(item.type).removeprefix("tensor(").removesuffix(")"))
    if kind is None:
        raise InvalidInput(
            f"`{item.name}` of {folder}/model.onnx is a {item.type}",
            hint="export the model with plain tensors, for instance with `zipmap` switched off",
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in item.shape)
    return TensorSpec(item.name, kind, shape)
