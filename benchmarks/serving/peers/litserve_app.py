"""LitServe's server: one worker, one API server."""

import sys

import litserve
import numpy as np
from onnx_model import Bench


class Served(litserve.LitAPI):
    """The model behind /predict."""

    def setup(self, device: str) -> None:
        self._bench = Bench(sys.argv[1])

    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["x"], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._bench(x)

    def encode_response(self, output: np.ndarray) -> dict:
        return {"score": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Served(), accelerator="cpu", workers_per_device=1)
    server.run(
        port=int(sys.argv[2]), host="127.0.0.1", num_api_servers=1, log_level="error", generate_client_file=False
    )
