"""KServe's custom model server."""

import sys

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from onnx_model import Bench


class Served(Model):
    """The model behind V2."""

    def __init__(self, path: str) -> None:
        super().__init__("bench")
        self._bench = Bench(path)
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict | None = None) -> InferResponse:
        scores = self._bench(payload.inputs[0].as_numpy())
        output = InferOutput("score", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=False)
        return InferResponse(payload.id or "1", "bench", [output])


if __name__ == "__main__":
    path, port = sys.argv[1:3]
    del sys.argv[1:]
    ModelServer(http_port=int(port), enable_grpc=False, access_log_format=None).start([Served(path)])
