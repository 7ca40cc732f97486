"""The benchmark's model for every peer: the same file, one thread, one array of 20 columns in, probabilities out."""

import numpy as np
import onnxruntime as ort


class Bench:
    """The loaded model."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(path, options)
        self._names = [slot.name for slot in self._session.get_inputs()]
        self._output = [self._session.get_outputs()[-1].name]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        feed = {self._names[0]: rows.astype(np.float32, copy=False)}
        return self._session.run(self._output, feed)[0][:, -1]
