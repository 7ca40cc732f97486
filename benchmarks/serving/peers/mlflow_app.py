"""Saves the model as MLflow's own kind of Python model, for ``mlflow models serve``."""

import sys

import mlflow
import numpy as np
from onnx_model import Bench


class Served(mlflow.pyfunc.PythonModel):
    """The model behind /invocations."""

    def load_context(self, context: object) -> None:
        self._bench = Bench(context.artifacts["model"])

    def predict(self, context: object, model_input: object, params: dict | None = None) -> list:
        return self._bench(np.asarray(model_input, np.float32)).tolist()


if __name__ == "__main__":
    path, target = sys.argv[1:3]
    mlflow.pyfunc.save_model(target, python_model=Served(), artifacts={"model": path}, code_paths=["onnx_model.py"])
