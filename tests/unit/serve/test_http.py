"""Routes, statuses and bodies of the app; the model is a stand-in."""

import gzip
import json
import logging

import pytest

from servegraph.errors import Refusal, RequestError
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.http import STATUS, App, AppOptions, Request
from servegraph.serve.repository import Repository
from servegraph.serve.routes import Route

INFO = TensorInfo(tensors=("x:0",), dtype="float32", shape=(None, 2), encoding="dense")


class Echo:
    """Answers with the body it got; raises `error` where it has one, or fails with it later."""

    def __init__(self):
        self.signatures = {"serving_default": Signature("tensorflow/serving/predict", {"x": INFO}, {"y": INFO})}
        self.error = None
        self.later = None
        self.load = (0, 0)
        self.is_routine = False

    def ask(self, method, body, done):
        if self.error:
            raise self.error
        done(self.later or json.dumps({method: body.decode()}).encode())


@pytest.fixture
def model():
    return Echo()


@pytest.fixture
def repository(tmp_path, model):
    (tmp_path / "half" / "3").mkdir(parents=True)
    (tmp_path / "half" / "3" / "saved_model.pb").write_bytes(b"")
    repository = Repository(tmp_path, lambda directory: model)
    repository.refresh()
    return repository


@pytest.fixture
def app(repository):
    aliases = [("/ask", Route("predict")), ("/health", Route("ready"))]
    return App(repository, AppOptions(max_body_bytes=100, aliases=aliases))


def call(app, method, path, body=b"", headers=None):
    answers = []
    app.handle(Request(method.encode(), path.encode(), headers or {}, body), answers.append)
    (answer,) = answers
    assert answer.content_type == b"application/json"
    return answer.status, dict(answer.headers), json.loads(answer.body)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/half:predict",
        "/v1/models/half/versions/3:predict",
        "/V1/Models/half:PREDICT",  # TF Serving's routes take any case
        "/v1/models/half:predict?trace=1",
        "/v1/models/h%61lf:predict",
        "http://localhost:8501/v1/models/half:predict",
        "/ask",
    ],
)
def test_predict(app, path):
    for _ in range(2):  # the second time the target is known
        assert call(app, "POST", path, b'{"a": 1}')[::2] == (200, {"predict": '{"a": 1}'})


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_the_other_methods(app, method):
    assert call(app, "POST", f"/v1/models/half:{method}", b"{}")[::2] == (200, {method: "{}"})


def test_status(app):
    available = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    status = {"model_version_status": [available]}
    for path in ("/v1/models/half", "/v1/models/half/"):
        assert call(app, "GET", path)[::2] == (200, {"name": "half", "ready": True, **status})
    assert call(app, "GET", "/v1/models/half/versions/3")[::2] == (200, status)
    assert call(app, "HEAD", "/v1/models/half")[0] == 200
    assert call(app, "GET", "/v1/models")[::2] == (200, {"models": ["half"]})


def test_a_model_that_cannot_answer_is_not_ready(tmp_path):
    (tmp_path / "half" / "3").mkdir(parents=True)
    (tmp_path / "half" / "3" / "saved_model.pb").write_bytes(b"")
    repository = Repository(tmp_path, lambda directory: 1 / 0)
    repository.refresh()
    status, _, document = call(App(repository), "GET", "/v1/models/half")
    assert (status, document["name"], document["ready"]) == (200, "half", False)
    assert document["model_version_status"][0]["state"] == "END"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, None),
        ({b"content-type": b"application/json; charset=utf-8", b"accept": b"text/html, */*;q=0.8"}, None),
        ({b"content-type": b"application/x-www-form-urlencoded"}, "Unsupported content type of the request"),
        ({b"content-type": b"application/json", b"accept": b"text/csv"}, "Unsupported accept of the response"),
    ],
)
def test_a_routine_is_sent_json_that_says_so(app, model, headers, says):
    wanted = {"predict": "{}"}
    assert call(app, "POST", "/v1/models/half:predict", b"{}", headers)[::2] == (200, wanted)
    model.is_routine = True
    status, _, document = call(app, "POST", "/v1/models/half:predict", b"{}", headers)
    if says is None:
        assert (status, document) == (200, wanted)
    else:
        assert status == 400
        assert says in document["error"]


def test_health(app, tmp_path):
    for path in ("/", "/healthz", "/v2/health/live"):
        assert call(app, "GET", path)[::2] == (200, {"status": "alive"})
    for path in ("/readyz", "/v2/health/ready", "/health"):
        assert call(app, "GET", path)[::2] == (200, {"status": "ready"})
    app.health.is_draining = True
    status, headers, document = call(app, "GET", "/readyz")
    assert (status, headers, document) == (503, {b"retry-after": b"1"}, {"error": "The server is stopping."})
    assert call(app, "GET", "/healthz")[0] == 200
    empty = App(Repository(tmp_path / "half", lambda directory: None))
    assert call(empty, "GET", "/readyz")[2] == {"error": "The models are still being fetched or looked up."}


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
    ("GET", "/nowhere", 404, "Malformed request: GET /nowhere."),
    ("GET", "/v2/models", 404, "Malformed request"),
    ("POST", "/v1/models/half:explain", 404, "Malformed request"),
    ("POST", "/v1/models/half/versions/x:predict", 404, "Malformed request"),
    ("GET", "/v1/models/no", 404, "Latest(no). Models here: half."),
    ("GET", "/v1/models/half/versions/4", 404, "Specific(half, 4). Versions here: 3."),
    ("GET", "/v1/models/half/labels/stable/metadata", 404, "version label: stable"),
    ("POST", "/v1/models/no:predict", 404, "Latest(no)"),
    ("POST", "/v1/models/half/versions/4:predict", 404, "Specific(half, 4)"),
    ("POST", "/v1/models/half/labels/stable:predict", 404, "version label: stable"),
    ("POST", "/v1/models/half", 405, "takes GET, not POST"),
    ("GET", "/v1/models/half:predict", 405, "takes POST, not GET"),
    ("DELETE", "/v1/models/half", 405, "takes GET, not DELETE"),
    ("GET", "/metrics", 404, "Metrics are off"),
]


@pytest.mark.parametrize(("method", "path", "status", "says"), REFUSED)
def test_refusals(app, method, path, status, says):
    found, headers, document = call(app, method, path)
    assert found == status
    assert list(document) == ["error"]
    assert says in document["error"]
    assert (b"allow" in headers) == (status == 405)


def test_gzip_bodies_are_inflated_up_to_the_limit(app):
    def ask(body, encoding=b"gzip"):
        return call(app, "POST", "/v1/models/half:predict", body, {b"content-encoding": encoding})[::2]

    packed = gzip.compress(b'{"a": 1}')
    assert ask(packed) == (200, {"predict": '{"a": 1}'})
    assert ask(b"x", b"identity") == (200, {"predict": "x"})
    assert ask(gzip.compress(b"x" * 10_000_000))[0] == 413
    assert ask(b"no gzip")[0] == 400
    assert ask(packed[:-4])[0] == 400
    assert ask(packed + gzip.compress(b" "))[0] == 400
    assert ask(packed, b"br")[0] == 415
    held = []
    headers = {b"content-encoding": b"gzip"}
    app.handle(Request(b"POST", b"/v1/models/half:predict", headers, packed, held.append), held.append)
    assert held[0] == len(b'{"a": 1}')


@pytest.mark.parametrize("target", ["/", "/?x=1", "http://localhost/"])
def test_one_path_may_be_for_health_and_predictions(repository, target):
    aliases = [("/", Route("ready")), ("/", Route("predict"))]
    app = App(repository, AppOptions(aliases=aliases))
    for _ in range(2):
        assert call(app, "POST", target, b"{}")[::2] == (200, {"predict": "{}"})
        assert call(app, "GET", target)[::2] == (200, {"status": "ready"})


def test_a_route_of_vertex_is_a_path_like_any_other(repository):
    app = App(repository, AppOptions(aliases=[("/v1/endpoints/1/deployedModels/2:predict", Route("predict"))]))
    for target in ("2:predict", "2%3Apredict", "2:predict?a=1", "2:predict/"):
        assert call(app, "POST", f"/v1/endpoints/1/deployedModels/{target}", b"{}")[0] == 200


FAILURES = [
    (RequestError("bad"), 400),
    (Refusal("odd"), 500),
    (RuntimeError("defect"), 500),
    *((Refusal("x", code=code), status) for code, status in STATUS.items()),
]


@pytest.mark.parametrize(("error", "status"), FAILURES)
def test_statuses_of_failures_in_the_model(app, model, error, status, caplog):
    caplog.set_level(logging.CRITICAL)
    for attribute in ("error", "later"):
        setattr(model, attribute, error)
        found, headers, document = call(app, "POST", "/v1/models/half:predict")
        assert found == status
        assert str(error.args[0]) in document["error"]
        assert (headers.get(b"retry-after") == b"1") == (status in (429, 503))
        setattr(model, attribute, None)
    assert call(app, "POST", "/v1/models/half:predict")[0] == 200


def test_an_exception_of_a_web_framework_keeps_its_status(app, model):
    class HTTPException(Exception):
        status_code = 422
        detail = "no such flower"

    model.later = HTTPException()
    assert call(app, "POST", "/v1/models/half:predict")[::2] == (422, {"error": "no such flower"})
