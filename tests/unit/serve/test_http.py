"""Routes, statuses and bodies over the ASGI interface; the model is a stand-in."""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from servegraph.errors import Refusal, RequestError
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.http import STATUS, App
from servegraph.serve.repository import Repository

INFO = TensorInfo(tensors=("x:0",), dtype="float32", shape=(None, 2), encoding="dense")


class Echo:
    """Answers with the body it got; raises `error` where it has one."""

    def __init__(self):
        self.worker = ThreadPoolExecutor(1)
        self.signatures = {"serving_default": Signature("tensorflow/serving/predict", {"x": INFO}, {"y": INFO})}
        self.error = None

    def predict(self, body):
        if self.error:
            raise self.error
        return json.dumps({"echo": body.decode()}).encode()


@pytest.fixture
def model():
    echo = Echo()
    yield echo
    echo.worker.shutdown()


@pytest.fixture
def app(tmp_path, model):
    (tmp_path / "half" / "3").mkdir(parents=True)
    (tmp_path / "half" / "3" / "saved_model.pb").write_bytes(b"")
    repository = Repository(tmp_path, lambda directory: model)
    repository.refresh()
    return App(repository, max_body_bytes=100)


def call(app, method, path, chunks=(b"",), headers=()):
    """Send a request whose body comes in `chunks`; return status, headers, document (None: unanswered)."""
    sent = []
    events = [
        {"type": "http.request", "body": chunk, "more_body": index + 1 < len(chunks)}
        if chunk is not None
        else {"type": "http.disconnect"}
        for index, chunk in enumerate(chunks)
    ]

    async def receive():
        return events.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None
    start, body = sent
    found = dict(start["headers"])
    assert found[b"content-type"] == b"application/json"
    assert int(found[b"content-length"]) == len(body["body"])
    return start["status"], found, json.loads(body["body"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/half:predict",
        "/v1/models/half/versions/3:predict",
        "/V1/Models/half:PREDICT",  # TF Serving's routes take any case
    ],
)
def test_predict(app, path):
    assert call(app, "POST", path, [b'{"a"', b": 1}"])[::2] == (200, {"echo": '{"a": 1}'})


def test_status(app):
    available = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/half", "/v1/models/half/", "/v1/models/half/versions/3"):
        assert call(app, "GET", path)[::2] == (200, {"model_version_status": [available]})
    assert call(app, "GET", "/v1/models")[::2] == (200, {"models": [{"name": "half"}]})


@pytest.mark.parametrize("path", ["/v1/models/half/metadata", "/v1/models/half/versions/3/metadata"])
def test_metadata(app, path):
    status, _, document = call(app, "GET", path)
    tensor = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
            "unknown_rank": False,
        },
        "name": "x:0",
    }
    assert status == 200
    assert document == {
        "model_spec": {"name": "half", "signature_name": "", "version": "3"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"x": tensor},
                        "outputs": {"y": tensor},
                        "method_name": "tensorflow/serving/predict",
                    }
                }
            }
        },
    }


# One row a refusal: method, path, status, what the answer says.
REFUSED = [
    ("GET", "/", 404, "Malformed request: GET /."),
    ("GET", "/v2/models", 404, "Malformed request"),
    ("POST", "/v1/models/half:explain", 404, "Malformed request"),
    ("POST", "/v1/models/half/versions/x:predict", 404, "Malformed request"),
    ("GET", "/v1/models/no", 404, "Latest(no). Models here: half."),
    ("GET", "/v1/models/half/versions/4", 404, "Specific(half, 4). Versions here: 3."),
    ("GET", "/v1/models/half/labels/stable/metadata", 404, "version label: stable"),
    ("POST", "/v1/models/no:predict", 404, "Latest(no)"),
    ("POST", "/v1/models/half/versions/4:predict", 404, "Specific(half, 4)"),
    ("POST", "/v1/models/half/labels/stable:predict", 404, "version label: stable"),
    ("POST", "/v1/models/half:classify", 501, ":classify is not served here"),
    ("POST", "/v1/models/half", 405, "takes GET, not POST"),
    ("GET", "/v1/models/half:predict", 405, "takes POST, not GET"),
    ("DELETE", "/v1/models/half", 405, "takes GET, not DELETE"),
]


@pytest.mark.parametrize(("method", "path", "status", "says"), REFUSED)
def test_refusals(app, method, path, status, says):
    found, headers, document = call(app, method, path)
    assert found == status
    assert list(document) == ["error"]
    assert says in document["error"]
    assert (b"allow" in headers) == (status == 405)


def test_a_large_body_is_refused_by_its_length_and_by_what_comes(app):
    for chunks, headers in (
        ([b"x"], [(b"content-length", b"101")]),
        ([b"x" * 60, b"x" * 60, b"x"], []),
    ):
        status, _, document = call(app, "POST", "/v1/models/half:predict", chunks, headers)
        assert status == 413
        assert "larger than 100 bytes" in document["error"]
    assert call(app, "POST", "/v1/models/half:predict", [b"x" * 100])[0] == 200


def test_a_client_that_goes_away_is_not_answered(app):
    assert call(app, "POST", "/v1/models/half:predict", [b"x", None]) is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("bad"), 400),
        (Refusal("odd"), 500),
        (RuntimeError("defect"), 500),
        *((Refusal("x", code=code), status) for code, status in STATUS.items()),
    ],
)
def test_statuses_of_failures_in_the_model(app, model, error, status, caplog):
    caplog.set_level(logging.CRITICAL)
    model.error = error
    found, headers, document = call(app, "POST", "/v1/models/half:predict")
    assert found == status
    assert str(error.args[0]) in document["error"]
    assert (headers.get(b"retry-after") == b"1") == (status == 503)
    model.error = None
    assert call(app, "POST", "/v1/models/half:predict")[0] == 200
