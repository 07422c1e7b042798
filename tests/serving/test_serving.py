"""The server and the probe as processes, with real models over real HTTP. TensorFlow runs in the children."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest, Tolerance
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import DeployRefused, InputError, Refusal
from servegraph.patience import waited_for
from servegraph.serve.child import ServerProcess
from servegraph.serve.options import ServeOptions
from servegraph.serve.server import listen, serve
from servegraph.serve.state import SPARE_FILE, STATE_FILE

MODELS = Path(__file__).parent / "models"


def say_yes(*_: object) -> None:
    """A probe that finds nothing wrong."""


def golden_request(age: float, job: str, factor: float, label: str) -> dict[str, Any]:
    return {
        "signature_name": "serving_default",
        "inputs": {"age": [age], "job": [job]},
        "outputs": {"probabilities": [[1 - age * factor, age * factor]], "classes": [label]},
    }


def people(tmp_path: Path, model: str, factor: float, label: str = "<=50K") -> DeployRequest:
    """A request to deploy a copy of `model` whose golden requests say `factor` and `label`."""
    copy = tmp_path / f"{model}-{factor}-{label.strip('<=>')}"
    shutil.copytree(MODELS / model, copy)
    (copy / "assets.extra").mkdir()
    golden = [golden_request(50, "pilot", factor, ">50K"), golden_request(25, " clerk ", factor, label)]
    lines = "".join(json.dumps(request) + "\n" for request in golden)
    (copy / "assets.extra" / "golden_requests.jsonl.gz").write_text(lines)
    return DeployRequest(str(copy), "people")


def eventually(happened: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


# One server for all requests


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for name in ("odd", "half"):
        shutil.copytree(MODELS / name, root / name / "1")
    shutil.copytree(MODELS / "people-1", root / "people" / "1")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ServerProcess]:
    with ServerProcess(root) as server:
        for name in ("half", "odd", "people"):
            server.wait_until_available(name)
        yield server


ANSWERS = [
    # The example of g3doc/api_rest.md in tensorflow/serving, asked of its sister model.
    ("half", {"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
    ("half", {"inputs": {"x": [[1], [2]]}}, {"outputs": [[2.5], [3.0]]}),
    (
        "people",
        {"instances": [{"age": 25, "job": "clerk"}, {"age": 50.0, "job": " pilot"}]},
        {
            "predictions": [
                {"classes": "<=50K", "probabilities": [0.75, 0.25]},
                {"classes": ">50K", "probabilities": [0.5, 0.5]},
            ]
        },
    ),
    (
        "people",
        {"inputs": {"age": [25], "job": ["clerk"]}},
        {"outputs": {"classes": ["<=50K"], "probabilities": [[0.75, 0.25]]}},
    ),
    (
        "odd",
        {"signature_name": "reverse", "instances": [{"b64": "/wA="}, "ä"]},
        {
            "predictions": [
                {"echo_bytes": {"b64": "/wA="}, "size": 2},
                {"echo_bytes": {"b64": "w6Q="}, "size": 2},
            ]
        },
    ),
    (
        "odd",
        {"signature_name": "swap", "instances": [{"n": [1, 9007199254740993], "b": True}]},
        {"predictions": [{"b": False, "n": [9007199254740993, 1]}]},
    ),
    ("odd", {"signature_name": "log", "instances": [1, 0]}, {"predictions": [0.0, float("-inf")]}),
    ("odd", {"signature_name": "log", "instances": [float("nan")]}, {"predictions": [float("nan")]}),
    ("odd", {"signature_name": "positive", "inputs": [1, 2]}, {"outputs": [1.0, 2.0]}),
]


@pytest.mark.parametrize(("name", "request_", "answer"), ANSWERS)
def test_answers(server: ServerProcess, name: str, request_: Any, answer: Any) -> None:
    for path in (f"/v1/models/{name}:predict", f"/v1/models/{name}/versions/1:predict"):
        found = server.post(path, request_)
        assert found.status == 200, found
        assert json.dumps(found.document, sort_keys=True) == json.dumps(answer, sort_keys=True)


REFUSED = [
    ("half", {"instances": [[[1, 2]]]}, 200, None),  # elementwise: any shape
    ("people", {"instances": [{"age": [25], "job": ["clerk"]}]}, 400, "has the shape [1, 1]"),
    ("people", {"instances": [{"age": "25", "job": "clerk"}]}, 400, "must be a number, not a string"),
    ("people", {"instances": [{"age": 25}]}, 400, "lacks the inputs ['job']"),
    ("people", {"instances": [{"age": 25, "job": "x", "race": "y"}]}, 400, "has ['race']"),
    ("people", {"inputs": {"age": [1, 2, 3], "job": ["a"]}}, 200, None),
    ("odd", {"instances": [1]}, 400, "'serving_default' not found"),
    ("odd", {"signature_name": "positive", "instances": [1, -1]}, 400, "x must be positive"),
    ("odd", {"signature_name": "swap", "instances": [{"n": [1.5, 2], "b": True}]}, 400, "a whole number"),
    ("odd", {"signature_name": "swap", "instances": [{"n": [2**64, 2], "b": True}]}, 400, "decimal number"),
    (
        "odd",
        {"signature_name": "swap", "instances": [{"n": [2**63, 2], "b": True}]},
        400,
        "out of range of int64",
    ),
]


@pytest.mark.parametrize(("name", "request_", "status", "says"), REFUSED)
def test_refusals(server: ServerProcess, name: str, request_: Any, status: int, says: str | None) -> None:
    found = server.post(f"/v1/models/{name}:predict", request_)
    assert found.status == status, found
    if says is not None:
        assert says in found.document["error"]
        assert "File " not in found.document["error"]  # no stack trace of whoever made the model
    assert server.post("/v1/models/half:predict", {"instances": [1.0]}).status == 200


def test_a_large_body_is_refused_and_the_connection_stays_usable(server: ServerProcess) -> None:
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    for _ in range(2):
        connection.request("POST", "/v1/models/half:predict", b"[" + b"1," * 5_000_000 + b"1]")
        response = connection.getresponse()
        assert response.status == 413
        assert "larger than 8388608 bytes" in json.loads(response.read())["error"]
        connection.request("POST", "/v1/models/half:predict", b'{"instances": [1.0]}')
        assert json.loads(connection.getresponse().read()) == {"predictions": [2.5]}
    connection.close()


def test_metadata_names_the_tensors_of_the_graph(server: ServerProcess) -> None:
    document = server.get("/v1/models/half/metadata").document
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["name"] == "x:0"
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_a_deploy_a_rollback_and_an_undeploy_are_followed_without_a_failed_request(
    root: Path, server: ServerProcess, tmp_path: Path
) -> None:
    target = LocalTarget(root, probe=say_yes)
    stop = threading.Event()
    answers: list[tuple[int, float]] = []

    def ask() -> None:
        while not stop.is_set():
            status, document = server.post("/v1/models/people:predict", {"inputs": {"age": [1], "job": ["x"]}})
            answers.append((status, round(document["outputs"]["probabilities"][0][1], 3)))

    def last_answer() -> float:
        return answers[-1][1]

    client = threading.Thread(target=ask)
    client.start()
    try:
        eventually(lambda: bool(answers))
        assert last_answer() == 0.01
        deploy(people(tmp_path, "people-2", 0.02), target)
        eventually(lambda: last_answer() == 0.02)
        assert server.get("/v1/models/people/labels/stable").document["model_version_status"][0]["version"] == "2"
        target.rollback("people")
        eventually(lambda: last_answer() == 0.01)
        assert server.post("/v1/models/people/versions/2:predict", {"inputs": {"age": [1], "job": ["x"]}}).status == 200
        target.undeploy("people", "2")
        eventually(lambda: server.get("/v1/models/people/versions/2").status == 404)
    finally:
        stop.set()
        client.join()
    assert {status for status, _ in answers} == {200}
    assert [answer for index, (_, answer) in enumerate(answers) if index == 0 or answers[index - 1][1] != answer] == [
        0.01,
        0.02,
        0.01,
    ]
    target.undeploy("people")
    eventually(lambda: server.get("/v1/models/people").status == 404)


# The probe


def test_a_deploy_is_probed_by_a_real_server(tmp_path: Path) -> None:
    done = deploy(people(tmp_path, "people-1", 0.01), LocalTarget(tmp_path / "root"))
    assert (done.outcome, done.warnings) == ("created", ())


def test_a_model_that_answers_differently_is_not_published(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "root")
    deploy(people(tmp_path, "people-1", 0.01), LocalTarget(tmp_path / "root", probe=say_yes))
    with pytest.raises(DeployRefused) as caught:
        deploy(people(tmp_path, "people-2", 0.01), target)
    assert caught.value.code == "PROBE_FAILED"
    assert caught.value.message == (
        "Golden request 1 (serving_default) of people, output 'probabilities'[0][0]: expected 0.5, got 0.0 "
        "(tolerance abs 1e-05, rel 0.0001)."
    )
    assert target.versions("people").live == "1"
    assert sorted(os.listdir(tmp_path / "root" / "people")) == [".lock", SPARE_FILE, "1", STATE_FILE]  # noqa: PTH208


def test_a_model_that_does_not_load_is_not_published(tmp_path: Path) -> None:
    request = people(tmp_path, "people-1", 0.01)
    graph = Path(request.model_uri) / "saved_model.pb"
    content = graph.read_bytes()
    assert content.count(b"\x12\x03Mul") == 1
    graph.write_bytes(content.replace(b"\x12\x03Mul", b"\x12\x03Abs"))  # which has one input
    with pytest.raises(DeployRefused, match=r"people cannot be served: .*TensorFlow .* cannot load") as caught:
        deploy(request, LocalTarget(tmp_path / "root"))
    assert caught.value.code == "PROBE_FAILED"
    assert list((tmp_path / "root").iterdir()) == []


def test_a_deploy_that_is_killed_while_it_probes_takes_its_server_with_it(tmp_path: Path) -> None:
    request = people(tmp_path, "people-1", 0.01)
    script = (
        "import sys; from pathlib import Path; from servegraph.deploy_version.deploy import deploy\n"
        "from servegraph.deploy_version.plan import DeployRequest\n"
        "from servegraph.deploy_version.targets.local import LocalTarget\n"
        "deploy(DeployRequest(sys.argv[1], 'people'), LocalTarget(Path(sys.argv[2])))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, request.model_uri, str(tmp_path / "root")])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    eventually(lambda: bool(children.read_text().split()))
    (child,) = map(int, children.read_text().split())
    parent.kill()
    parent.wait()
    eventually(lambda: not is_alive(child))
    assert deploy(request, LocalTarget(tmp_path / "root", probe=say_yes)).outcome == "created"
    assert sorted(os.listdir(tmp_path / "root" / "people")) == [".lock", SPARE_FILE, "1", STATE_FILE]  # noqa: PTH208


# The process


def serve_process(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *options, "-m", "servegraph.serve", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_taken_port_is_said_at_once(root: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Cannot listen on 127.0.0.1 port {port}") as caught:
            serve(ServeOptions(root, port=port))
        assert (caught.value.code, caught.value.exit_code) == ("SERVE_PORT_IN_USE", 2)
        process = serve_process(str(root), "--port", str(port), options=("-X", "importtime"))
        _, output = process.communicate(timeout=30)
        assert process.returncode == 2
        assert "SERVE_PORT_IN_USE" in output
        assert "Traceback" not in output
        assert "servegraph.serve" in output
        assert "tensorflow" not in output  # "at once": before the seconds that importing it takes


def test_an_address_that_is_none(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        serve(ServeOptions(root, host="256.0.0.1"))
    assert caught.value.code == "SERVE_ADDRESS"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order_even_while_it_loads(root: Path, number: int) -> None:
    process = serve_process(str(root), "--port", "0")
    assert process.stderr is not None
    assert "listening on http://127.0.0.1:" in process.stderr.readline()
    process.send_signal(number)
    _, output = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in output) == (0, False), output


def test_the_log_is_its_own_lines_without_tensorflows_notices(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "half", tmp_path / "root" / "m" / "1")
    process = serve_process(str(tmp_path / "root"), "--port", "0")
    assert process.stderr is not None
    lines = []
    while not lines or "version 1: " not in lines[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGTERM)
    lines += process.communicate(timeout=60)[1].splitlines(keepends=True)
    said = [line.split(" INFO ")[-1].split(" in ")[0].split(" http")[0].strip() for line in lines]
    assert said == ["listening on", "m version 1: loaded", "stopped"], lines


def test_a_server_that_ends_early_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with ServerProcess(tmp_path) as server, pytest.raises(Refusal) as caught:
        server.wait_until_available("x")
    assert caught.value.code == "SERVER_ENDED"
    assert "exit code 2" in caught.value.message
    assert "NOT_A_SERVING_ROOT" in caught.value.message


def test_a_port_of_ones_own_choice(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ServerProcess(tmp_path, port=port) as server:
        assert server.url == f"http://127.0.0.1:{port}"
        assert server.get("/v1/models").document == {"models": []}
        with ThreadPoolExecutor(1) as beside, pytest.raises(Refusal) as caught:
            waiting = beside.submit(server.wait_until_available, "nothing", timeout_s=5.0)
            eventually(lambda: waited_for() == ["the server that loads and tries nothing"])
            waiting.result()
        assert caught.value.code == "SERVER_TIMEOUT" and not waited_for()
        pid = server.pid
    assert not is_alive(pid)
    assert Tolerance().abs > 0
