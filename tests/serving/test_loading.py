"""What a version must do before it takes traffic, and a server as Vertex AI starts it. Real models, real processes."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from servegraph.serve.child import ServerProcess
from servegraph.serve.server import listen

MODELS = Path(__file__).parent / "models"
PERSON = {"inputs": {"age": [50.0], "job": ["pilot"]}}


def put(root: Path, number: int, model: str, factor: float | None = None) -> None:
    """Put `model` there as a version, with a golden request whose answer is that of `factor`."""
    staged = root.parent / f"staged-{number}"
    shutil.copytree(MODELS / model, staged)
    if factor is not None:
        golden = {
            "signature_name": "serving_default",
            **PERSON,
            "outputs": {"probabilities": [[1 - 50 * factor, 50 * factor]], "classes": [">50K"]},
        }
        (staged / "assets.extra").mkdir()
        (staged / "assets.extra" / "golden_requests.jsonl.gz").write_text(json.dumps(golden) + "\n")
    (root / "people").mkdir(exist_ok=True)
    staged.rename(root / "people" / str(number))


def states(server: ServerProcess) -> dict[str, str]:
    status = server.get("/v1/models/people").document
    return {version["version"]: version["state"] for version in status["model_version_status"]}


def probability(server: ServerProcess) -> float:
    return server.post("/v1/models/people:predict", PERSON).document["outputs"]["probabilities"][0][1]


def test_a_version_that_answers_its_golden_requests_otherwise_does_not_take_over(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put(root, 1, "people-1", 0.01)
    with ServerProcess(root) as server:
        server.wait_until_available("people")
        assert server.get("/readyz").status == 200
        put(root, 2, "people-2", 0.01)
        deadline_s = time.monotonic() + 60
        while states(server).get("2") != "END":
            assert probability(server) == 0.5
            assert time.monotonic() < deadline_s
        assert states(server) == {"1": "AVAILABLE", "2": "END"}
        put(root, 3, "people-2", 0.02)
        while probability(server) != 1.0:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        metrics = server.get_bytes("/metrics").decode()
        assert 'servegraph_version_state{model="people",state="AVAILABLE",version="3"} 1.0' in metrics


@pytest.mark.parametrize("content", [b"", b"no records"])
def test_a_warmup_file_that_cannot_be_read_is_passed_over(tmp_path: Path, content: bytes) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put(root, 1, "people-1")
    (root / "people" / "1" / "assets.extra").mkdir()
    (root / "people" / "1" / "assets.extra" / "tf_serving_warmup_requests").write_bytes(content)
    with ServerProcess(root) as server:
        server.wait_until_available("people")


TRIED = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf
from pathlib import Path
from servegraph.answers import warmup, warmup_writer
from servegraph.serve.model import load_model
from servegraph.serve.signatures import read_serving_graph
from servegraph.storage import open_dir
class Nets(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def apart(self, x): return {"y": 2 * x}
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def together(self, x): return {"y": x - tf.reduce_mean(x, 0)}
    @tf.function(input_signature=[tf.TensorSpec([1, 2], tf.float32, "x")])
    def one(self, x): return {"y": 2 * x}
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def chance(self, x): return {"y": x + tf.random.uniform(tf.shape(x))}
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def single(self, x):
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x)[0], 1)]):
            return {"y": x + 1}
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def part(self, x): return {"y": x / tf.reduce_max(x)}
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "x")])
    def words(self, x):
        lengths = tf.strings.length(tf.strings.split(x, "|").to_tensor(""))
        return {"y": tf.reduce_mean(tf.cast(lengths, tf.float32), 1)}
    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x"), tf.TensorSpec([None], tf.int32, "n")])
    def longest(self, x, n): return {"y": tf.reduce_mean(x[:, :tf.reduce_max(n)], 1)}
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x"), tf.TensorSpec([None], tf.bool, "flag")])
    def flagged(self, x, flag): return {"y": tf.where(tf.reduce_all(flag), x, 2 * x)}
    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.int64, "ids")])
    def padded(self, ids):
        used = tf.cast(tf.reduce_max(tf.reduce_sum(tf.cast(ids != 0, tf.int32), 1)), tf.int32)
        return {"y": tf.reduce_mean(tf.cast(ids[:, :used], tf.float32), 1)}
    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1], tf.uint8, "image")])
    def picture(self, image):
        image = tf.cast(image, tf.float32)
        return {"y": tf.reduce_mean(tf.cond(tf.reduce_max(image) > 10.0, lambda: image / 255.0, lambda: image), [1, 2, 3])}
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x"), tf.TensorSpec([None], tf.int32, "n")])
    def several(self, x, n): return {"y": x * tf.cast(n, tf.float32)[:, None]}
    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "x")])
    def lone(self, x): return {"y": tf.strings.upper(x)}
nets = Nets()
names = ("apart", "together", "one", "chance", "single", "part", "words")
names += ("longest", "flagged", "padded", "picture", "several", "lone")
tf.saved_model.save(nets, sys.argv[1], signatures={n: getattr(nets, n) for n in names})
requests = []
for name, record in (("single", '{"x": [1, 2]}'), ("part", '{"x": 4}')):
    signature = read_serving_graph(open_dir(sys.argv[1])).signatures[name]
    Path(sys.argv[1] + ".jsonl").write_text(record)
    warmup_writer.write(Path(sys.argv[1]), name, signature, sys.argv[1] + ".jsonl")
    requests.append(Path(sys.argv[1], warmup.WARMUP_FILE).read_bytes())
Path(sys.argv[1], warmup.WARMUP_FILE).write_bytes(b"".join(requests))
model = load_model(Path(sys.argv[1]))
print(*sorted(model.shareable))
print(*(name for name in names if model._calls[name].__qualname__.startswith("flat")))
print(model.run("lone", {"x": np.array("hey")})["y"][()])
"""


def test_what_is_tried_at_loading_decides_who_shares_calls_and_how_they_are_made(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TRIED, str(tmp_path / "m")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "apart several",
        "apart together one single part words longest flagged padded picture several lone",
        "b'HEY'",
    ]


WITHOUT_OBJECTS = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf
from pathlib import Path
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from servegraph.serve.model import load_model
class Net(tf.Module):
    def __init__(self): self.factor, self.momentum = tf.Variable(2.0), tf.Variable(0.0)
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def double(self, x): return {"y": self.factor * x}
net, path = Net(), Path(sys.argv[1])
tf.saved_model.save(net, path, signatures=net.double)
file = path / "saved_model.pb"
saved_model = SavedModel.FromString(file.read_bytes())
objects = saved_model.meta_graphs[0].object_graph_def.nodes
factor, momentum = (number for number, node in enumerate(objects) if node.HasField("variable"))
objects[0].slot_variables.add(original_variable_node_id=factor, slot_name="m", slot_variable_node_id=momentum)
file.write_bytes(saved_model.SerializeToString())
try:
    tf.saved_model.load(path)
except AttributeError as refused:
    print(refused)
model = load_model(path)
print(*model.signatures)
print(model._calls["serving_default"]({"x": np.array([3.0], np.float32)})["y"].tolist())
"""


def test_a_model_whose_objects_cannot_be_made_is_served_as_tensorflow_serving_does(tmp_path: Path) -> None:
    """As what Keras 2 wrote with its optimizer before TensorFlow 2.11."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_OBJECTS, str(tmp_path / "m")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused, signatures, answer = done.stdout.splitlines()
    assert "add_slot" in refused
    assert signatures == "serving_default"
    assert answer == "[6.0]"


def as_vertex(tmp_path: Path, environment: dict[str, str], *arguments: str) -> Any:
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    routes = {"AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": "/alive", "AIP_PREDICT_ROUTE": "/ask"}
    process = subprocess.Popen(
        [sys.executable, "-m", "servegraph.serve", "--host", "127.0.0.1", *arguments],
        env={**os.environ, **routes, **environment},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s:
            try:
                if ask(port, "GET", "/alive")[0] == 200:
                    return ask(port, "POST", "/ask", {"instances": [1.0, 2.0], "parameters": {}})
            except OSError:
                pass
            assert process.poll() is None
            time.sleep(0.1)
        raise AssertionError("the server did not become healthy")
    finally:
        process.terminate()
        assert process.wait(60) == 0


def ask(port: int, method: str, path: str, document: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, None if document is None else json.dumps(document))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_as_vertex_starts_it_with_a_flat_model(tmp_path: Path) -> None:
    found = as_vertex(tmp_path, {"AIP_STORAGE_URI": str(MODELS / "half")})
    assert found == (200, {"predictions": [2.5, 3.0]})


def test_as_vertex_starts_it_with_a_custom_routine(tmp_path: Path) -> None:
    (tmp_path / "routine.py").write_text(
        "class Sum:\n"
        "    def load(self, artifacts_uri): self.uri = artifacts_uri\n"
        "    def preprocess(self, document): return document['instances']\n"
        "    def predict(self, instances): return sum(instances)\n"
        "    def postprocess(self, total): return {'predictions': [total], 'uri': self.uri}\n"
    )
    environment = {
        "AIP_STORAGE_URI": "gs://bucket/artifacts",
        "PREDICTOR_MODULE": "routine",
        "PREDICTOR_CLASS": "Sum",
        "PYTHONPATH": str(tmp_path),
    }
    assert as_vertex(tmp_path, environment) == (200, {"predictions": [3.0], "uri": "gs://bucket/artifacts"})


def test_a_root_that_is_nothing_is_said_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "servegraph.serve"],
        env={**os.environ, "AIP_STORAGE_URI": str(tmp_path / "none"), "AIP_HTTP_PORT": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error [STORAGE] There is no directory")
    assert "Traceback" not in done.stderr
