"""BentoML's service: one worker."""

import os

import bentoml
import numpy as np
from onnx_model import Bench


@bentoml.service(workers=1)
class Served:
    """The model behind /predict."""

    def __init__(self) -> None:
        self._bench = Bench(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, x: list[list[float]]) -> list[float]:
        """Scores."""
        return self._bench(np.asarray(x, np.float32)).tolist()
