"""Custom prediction routines, written for the Vertex SDK or for nothing in particular."""

import asyncio
import json
import subprocess
import sys

import pytest

from servegraph.errors import InputError, RequestError
from servegraph.serve.lane import LaneLimits
from servegraph.serve.options import options_of
from servegraph.serve.predictor import find_predictor, host

# As in Google's samples: subclasses the SDK's class, loads from the artifacts, works in numpy.
SOURCE = """
import json
import numpy as np
from google.cloud.aiplatform.prediction.predictor import Predictor
from google.cloud.aiplatform.utils import prediction_utils


class Scale(Predictor):
    def __init__(self):
        return

    def load(self, artifacts_uri):
        prediction_utils.download_model_artifacts(artifacts_uri)
        with open("scale.json") as file:
            self._scale = json.load(file)

    def preprocess(self, prediction_input):
        return np.array(prediction_input["instances"])

    def predict(self, instances):
        return instances * self._scale

    def postprocess(self, prediction_results):
        return {"predictions": prediction_results.tolist()}
"""


class Plain:
    """A predictor of its own: fails where it is told to, knows no SDK."""

    def load(self, artifacts_uri):
        self.uri = artifacts_uri

    def preprocess(self, prediction_input):
        return prediction_input

    def predict(self, instances):
        if "fail" in instances:
            raise ValueError("no such thing")
        return instances

    def postprocess(self, prediction_results):
        given = object() if prediction_results == ["object"] else prediction_results
        return {"uri": self.uri, "nan": float("nan"), "given": given}


class OwnHandler:
    """As the SDK's handlers: made of a predictor, asked with a request of its framework."""

    def handle(self, request):
        return request


class OwnSerializer:
    """As the SDK's serializers."""

    @staticmethod
    def deserialize(data, content_type):
        return data

    @staticmethod
    def serialize(prediction, accept):
        return prediction


def ask(hosted, document, method="predict"):
    async def run():
        answer = asyncio.get_running_loop().create_future()
        hosted.ask(method, json.dumps(document).encode(), answer.set_result)
        return await answer

    return asyncio.run(run())


def test_a_class_for_the_sdk_runs_unchanged_where_the_sdk_is_not(tmp_path):
    (tmp_path / "routine.py").write_text(SOURCE)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "scale.json").write_text("3")
    (tmp_path / "work").mkdir()
    script = (
        "import importlib.util, sys, asyncio\n"
        "real = importlib.util.find_spec\n"
        "class NoSdk:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('google.cloud'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoSdk())\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from servegraph.serve.predictor import find_predictor, host\n"
        "from servegraph.serve.lane import LaneLimits\n"
        f"hosted = host(find_predictor('routine:Scale'), {str(tmp_path / 'artifacts')!r}, LaneLimits())\n"
        "async def run():\n"
        "    answer = asyncio.get_running_loop().create_future()\n"
        "    hosted.ask('predict', b'{\"instances\": [[1, 2]]}', answer.set_result)\n"
        "    print((await answer).decode())\n"
        "asyncio.run(run())\n"
        "assert not any(m.startswith('google.cloud') and getattr(sys.modules[m], '__file__', None) for m in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"predictions": [[3, 6]]}


def test_answers_and_failures():
    hosted = host(Plain, "gs://bucket/artifacts", LaneLimits())
    answer = json.loads(ask(hosted, {"instances": [1]}))
    assert (answer["uri"], answer["given"]) == ("gs://bucket/artifacts", {"instances": [1]})
    assert str(answer["nan"]) == "nan"  # as json.dumps has it
    assert isinstance(ask(hosted, {"fail": 1}), ValueError)
    for document in ([1, "a"], "text"):  # the SDK passes on whatever JSON it is
        assert json.loads(ask(hosted, document))["given"] == document
    refused = ask(hosted, ["object"])
    assert isinstance(refused, RequestError)
    assert "JSON serialization failed" in str(refused)
    with pytest.raises(RequestError):
        ask(hosted, {}, "classify")


@pytest.mark.parametrize("name", ["no_such_module:X", "json:Nothing", "json:dumps", "json:JSONDecoder", "json"])
def test_what_is_no_predictor(name):
    with pytest.raises(InputError) as caught:
        find_predictor(name)
    assert caught.value.code == "NO_PREDICTOR"


@pytest.mark.parametrize(("name", "what"), [("OwnHandler", "handler"), ("OwnSerializer", "serializer")])
def test_handlers_and_serializers_are_not_hosted(name, what):
    with pytest.raises(InputError) as caught:
        find_predictor(f"{__name__}:{name}")
    assert caught.value.code == "NOT_HOSTED"
    assert f"is a {what} of the Vertex SDK" in str(caught.value)
    assert "preprocess and postprocess" in caught.value.fix


def test_the_handler_of_the_sdk_is_what_this_server_is_and_no_other():
    vertex = {"AIP_STORAGE_URI": "gs://b/a", "PREDICTOR_MODULE": "routine", "PREDICTOR_CLASS": "Scale"}
    own = {"HANDLER_MODULE": "google.cloud.aiplatform.prediction.handler", "HANDLER_CLASS": "PredictionHandler"}
    assert options_of({**vertex, **own}, None, None, None, None).predictor == "routine:Scale"
    with pytest.raises(InputError) as caught:
        options_of({**vertex, "HANDLER_MODULE": "mine", "HANDLER_CLASS": "Mine"}, None, None, None, None)
    assert caught.value.code == "NOT_HOSTED"
    assert "mine:Mine" in str(caught.value)


@pytest.mark.parametrize("root", ["gs://bucket/models/", None])
def test_a_root_on_cloud_storage_is_fetched(root):
    environment = {} if root else {"MODEL_BASE_PATH": "gs://bucket/models/"}
    found = options_of(environment, root, None, None, None, name="half")
    assert (found.root, found.artifacts_uri, found.name, found.port) == (None, "gs://bucket/models/", "half", 8501)


def test_vertex_says_what_to_serve_and_where():
    environment = {
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": "8080",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
        "AIP_STORAGE_URI": "gs://bucket/artifacts",
    }
    options = options_of(environment, None, None, None, None)
    assert (options.host, options.port, options.artifacts_uri) == ("0.0.0.0", 8080, "gs://bucket/artifacts")
    assert [(path, route.kind) for path, route in options.aliases] == [
        ("/v1/endpoints/1/deployedModels/2", "ready"),
        ("/v1/endpoints/1/deployedModels/2:predict", "predict"),
    ]
    routine = {**environment, "PREDICTOR_MODULE": "routine", "PREDICTOR_CLASS": "Scale"}
    assert options_of(routine, None, None, None, None).predictor == "routine:Scale"
    assert options_of(environment, None, "127.0.0.1", 0, None).host == "127.0.0.1"
    assert options_of({}, "root", None, None, None).host == "127.0.0.1"
    image = {"MODEL_BASE_PATH": "/models", "MODEL_NAME": "census"}
    found = options_of(image, None, None, None, None)
    assert (str(found.root), found.name, found.port) == ("/models", None, 8501)
    found = options_of({**environment, **image}, None, None, None, None, name=None)
    assert (found.root, found.name, found.artifacts_uri) == (None, "census", "gs://bucket/artifacts")
    with pytest.raises(InputError) as caught:
        options_of({}, None, None, None, None)
    assert caught.value.code == "NOTHING_TO_SERVE"
    with pytest.raises(InputError):
        options_of({**environment, "AIP_HTTP_PORT": "http"}, None, None, None, None)
