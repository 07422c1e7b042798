"""The servers that `serve.py` compares, each for one SavedModel: `python serve_peers.py KIND MODEL PORT`.

All of them run the same signature in the same TensorFlow, and take their own way everywhere else.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

ROUTE = "/v1/models/bench:predict"


class BenchPredictor:
    """A custom prediction routine as the Vertex SDK's documentation writes them."""

    def load(self, artifacts_uri: str) -> None:
        self._model = tf.saved_model.load(artifacts_uri)
        self._signature = self._model.signatures["serving_default"]

    def preprocess(self, prediction_input: dict[str, Any]) -> np.ndarray:
        return np.asarray(prediction_input["instances"], dtype=np.float32)

    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self._signature(x=tf.constant(instances))["y"].numpy()

    def postprocess(self, prediction_results: np.ndarray) -> dict[str, Any]:
        return {"predictions": prediction_results.tolist()}


def cpr(model: str, port: int) -> None:
    """The Vertex SDK's own server of custom prediction routines, started as that module starts it."""
    os.environ.update(
        AIP_HTTP_PORT=str(port),
        AIP_HEALTH_ROUTE="/health",
        AIP_PREDICT_ROUTE=ROUTE,
        AIP_STORAGE_URI=model,
        HANDLER_MODULE="google.cloud.aiplatform.prediction.handler",
        HANDLER_CLASS="PredictionHandler",
        PREDICTOR_MODULE="serve_peers",
        PREDICTOR_CLASS="BenchPredictor",
    )
    import uvicorn
    from google.cloud.aiplatform.prediction.model_server import CprModelServer

    uvicorn.run(CprModelServer(), host="127.0.0.1", port=port, log_level="warning", access_log=False)


def fastapi(model: str, port: int) -> None:
    """FastAPI with pydantic models and a plain function, as its tutorial has it."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Request(BaseModel):
        instances: list[list[float]]

    class Answer(BaseModel):
        predictions: list[list[float]]

    predictor = BenchPredictor()
    predictor.load(model)
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    @app.post(ROUTE)
    def predict(request: Request) -> Answer:
        found = predictor.predict(np.asarray(request.instances, dtype=np.float32))
        return Answer(predictions=found.tolist())

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def asgi(model: str, port: int) -> None:
    """Servegraph's own core as a raw ASGI application on uvicorn: what a general server costs."""
    import uvicorn

    from servegraph.serve.http import App, Request
    from servegraph.serve.model import load_model
    from servegraph.serve.repository import Repository

    root = Path(model).parent
    repository = Repository(root.parent, load_model, only=root.name)
    repository.refresh()
    handler = App(repository)

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            return
        chunks = []
        more = True
        while more:
            message = await receive()
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        answer = asyncio.get_running_loop().create_future()
        path = b"/readyz" if scope["path"] == "/health" else scope["raw_path"]
        handler.handle(Request(scope["method"].encode(), path, {}, b"".join(chunks)), answer.set_result)
        response = await answer
        headers = [
            (b"content-type", response.content_type),
            (b"content-length", str(len(response.body)).encode()),
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    kind, path, listen_port = sys.argv[1:]
    {"cpr": cpr, "fastapi": fastapi, "asgi": asgi}[kind](path, int(listen_port))
