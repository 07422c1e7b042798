"""Routines that models bring: trusted or not, each version's own modules, errors, and an end of their process."""

import asyncio
import gc
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from servegraph.errors import ModelError, Refusal
from servegraph.routine.manifest import FOLDER, MANIFEST, Routine, read_routine
from servegraph.serve.child import ServerProcess
from servegraph.serve.lane import LaneLimits
from servegraph.serve.loading import load_version
from servegraph.serve.model import ModelOptions
from servegraph.serve.routine import host_routine
from servegraph.storage import open_dir

HALF = Path(__file__).parents[2] / "serving/models/half"

SOURCE = """
import os
from google.cloud.aiplatform.prediction.predictor import Predictor
import helper

class Plain(Predictor):
    def __init__(self):
        return

    def load(self, artifacts_uri):
        self.files = sorted(os.listdir(artifacts_uri))

    def predict(self, instances):
        if instances.get("end"):
            os._exit(3)
        if instances.get("refuse"):
            error = Exception()
            error.status_code, error.detail = 422, "not that"
            raise error
        if "instances" not in instances:
            raise KeyError("instances")
        return {"predictions": [helper.NUMBER], "files": self.files, "pid": os.getpid()}
"""


def with_routine(model: Path, number: int, predictor: str = "plain:Plain", requirements: tuple[str, ...] = ()) -> Path:
    """Put a model with a routine there whose modules have the same names as those of any other number."""
    shutil.copytree(HALF, model)
    folder = model / FOLDER
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "r.whl", "w") as wheel:
        wheel.writestr("plain.py", SOURCE)
        wheel.writestr("helper.py", f"NUMBER = {number}\n")
        wheel.writestr("failing.py", "1 / 0\n")
        wheel.writestr("ending.py", "import os; os._exit(4)\n")
    routine = Routine(predictor, "predictor", False, "r.whl", "r.tar.gz", requirements)
    (model / MANIFEST).write_text(routine.to_json())
    return model


def hosted(model: Path):
    routine = read_routine(open_dir(model))
    assert routine is not None
    return host_routine(model, routine, LaneLimits())


def ask(hosted, document):
    async def run():
        answer = asyncio.get_running_loop().create_future()
        hosted.ask("predict", json.dumps(document).encode(), answer.set_result)
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome
        return json.loads(outcome)

    return asyncio.run(run())


def test_two_versions_have_modules_of_their_own_and_what_they_raise_is_told(tmp_path):
    one, two = (hosted(with_routine(tmp_path / str(number), number)) for number in (1, 2))
    first, second = ask(one, {"instances": []}), ask(two, {"instances": []})
    assert (first["predictions"], second["predictions"]) == ([1], [2])
    assert "saved_model.pb" in first["files"]
    with pytest.raises(Exception, match="KeyError: 'instances'") as raised:
        ask(one, {})
    assert raised.value.status_code == 500
    with pytest.raises(Exception, match="not that") as raised:
        ask(one, {"refuse": 1})
    assert raised.value.status_code == 422


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_that_ends_is_started_again_and_goes_with_its_model(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    one = hosted(with_routine(tmp_path / "1", 1))
    with pytest.raises(Refusal, match="ended with exit code 3") as ended:
        ask(one, {"end": 1})
    assert ended.value.code == "UNAVAILABLE"
    assert not list(scratch.iterdir())
    pid = ask(one, {"instances": []})["pid"]
    assert is_there(pid)
    del one, ended
    gc.collect()  # as the server does when a version is dropped
    # The thread that has just answered holds the model for a moment yet.
    deadline_s = time.monotonic() + 60
    while (is_there(pid) or list(scratch.iterdir())) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not is_there(pid)
    assert not list(scratch.iterdir())


def test_a_process_that_cannot_be_started_leaves_nothing(tmp_path, monkeypatch):
    one = hosted(with_routine(tmp_path / "1", 1))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(Refusal):
        ask(one, {"end": 1})
    with monkeypatch.context() as patched, pytest.raises(Refusal, match="ended before"):
        patched.setattr(sys, "executable", str(tmp_path / "nothing"))
        ask(one, {"instances": []})
    assert not list(scratch.iterdir())
    assert ask(one, {"instances": []})["predictions"] == [1]


@pytest.mark.parametrize(
    ("predictor", "requirements", "code", "words"),
    [
        ("failing:X", (), "NO_PREDICTOR", "ZeroDivisionError"),
        ("ending:X", (), "ROUTINE_FAILED", "exit code 4"),
        ("nowhere:X", (), "NO_PREDICTOR", "nowhere"),
        (
            "plain:Plain",
            ("numpy==1.0", "no-such-thing==2"),
            "REQUIREMENT_MISSING",
            "no-such-thing==2 .there is nothing",
        ),
    ],
)
def test_what_cannot_be_loaded_is_said(tmp_path, predictor, requirements, code, words):
    with pytest.raises(ModelError, match=words) as refused:
        hosted(with_routine(tmp_path / "1", 1, predictor, requirements))
    assert refused.value.code == code


def test_no_code_runs_that_nobody_trusts(tmp_path):
    model = with_routine(tmp_path / "1", 1, "ending:X")
    with pytest.raises(Refusal, match="brings Python code") as refused:
        load_version(model, ModelOptions(), trusts_code=False)
    assert refused.value.code == "CODE_NOT_TRUSTED"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"predictor": "plain"},
        {"wheel": "../outside.whl"},
        {"wheels": ["a/b.whl"]},
        {"requirements": None},
    ],
)
def test_a_bad_manifest_is_one_error(tmp_path, change):
    model = with_routine(tmp_path / "1", 1)
    document = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps({**document, **change}))
    with pytest.raises(ModelError) as bad:
        read_routine(open_dir(model))
    assert bad.value.code == "BAD_ROUTINE"


def test_the_server_hosts_it_beside_other_models(tmp_path):
    with_routine(tmp_path / "routine/1", 7)
    shutil.copytree(HALF, tmp_path / "half/1")
    with ServerProcess(tmp_path, options=("--trust-code",)) as server:
        for name in ("routine", "half"):
            server.wait_until_available(name)
        assert server.post("/v1/models/routine:predict", {"instances": [1]}).document["predictions"] == [7]
        assert server.post("/v1/models/half:predict", {"instances": [1.0]}).document == {"predictions": [2.5]}
        refused = server.post("/v1/models/routine:predict", {"refuse": 1})
        assert (refused.status, refused.document) == (422, {"error": "not that"})
        assert server.post("/v1/models/routine:classify", {"examples": []}).status == 501
    with ServerProcess(tmp_path) as server:
        with pytest.raises(Refusal, match="--trust-code"):
            server.wait_until_available("routine")
        server.wait_until_available("half")


def test_the_container_of_vertex_finds_it_beside_the_model(tmp_path):
    """As `vertex_plan` sets it up: no directory, and the variables of the service and of the deploy."""
    model = with_routine(tmp_path / "artifacts", 9)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": str(port),
        "AIP_STORAGE_URI": str(model),
        "AIP_HEALTH_ROUTE": "/v1/models/m",
        "AIP_PREDICT_ROUTE": "/v1/models/m:predict",
        "MODEL_NAME": "m",
        "SERVEGRAPH_TRUST_CODE": "1",
    }
    command = [sys.executable, "-m", "servegraph.serve", "--no-probe", "--host", "127.0.0.1"]
    with subprocess.Popen(command, env={**os.environ, **environment}, cwd=tmp_path, stderr=subprocess.PIPE) as server:
        try:
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            for _ in range(600):
                try:
                    asked.request("GET", "/v1/models/m")
                    healthy = asked.getresponse()
                    healthy.read()
                    if healthy.status == 200:
                        break
                except (OSError, http.client.HTTPException):
                    asked.close()
                time.sleep(0.1)
            asked.request("POST", "/v1/models/m:predict", json.dumps({"instances": [1]}))
            assert json.loads(asked.getresponse().read())["predictions"] == [9]
        finally:
            asked.close()
            server.terminate()
            server.communicate(timeout=60)
