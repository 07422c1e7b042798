"""`submit` through the real clients, against emulators of both engines."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.http_server import Tampering
from tests.emulators.kubeflow import FakeKubeflow
from tests.emulators.vertex_pipelines import FakeVertexPipelines

from servegraph.deploy_version.faults import NotFound, Patience, Unavailable, Unreachable
from servegraph.errors import InputError, Refusal, ServegraphError
from servegraph.storage.unreachable import REACH_S
from servegraph_pipelines import flows
from servegraph_pipelines.cli import app
from servegraph_pipelines.engines.kubeflow import KubeflowEngine
from servegraph_pipelines.engines.runs import RunOptions, RunRequest
from servegraph_pipelines.submit import request_of

FLOW = str(Path(flows.__file__).with_name("train_and_deploy.yaml"))
STEPS = [step.name for step in flows.read(Path(FLOW)).steps]
OWN = "servegraph.errors.DataError: [NOT_A_NUMBER] row 5 of gs://b/data.csv: 'three' is no number. Fix: Mend the row."

TARGET = {"target": "kserve", "namespace": "ml", "staging": "gs://b/models"}


class Clock:
    """Seconds since it was made; they pass only where somebody sleeps."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Place:
    kind: str
    fake: Any
    where: list[str]

    def submit(self, *arguments: str) -> int:
        target = [text for name, value in TARGET.items() for text in ("--param", f"{name}={value}")]
        command = ["submit", "--engine", self.kind, "--pipeline", FLOW, *self.where, *target, "--poll-s", "0.01"]
        return app.main([*command, *arguments], standalone_mode=False)

    def sent(self) -> int:
        return len(self.fake.jobs if self.kind == "vertex" else self.fake.runs)


@pytest.fixture(params=["vertex", "kfp"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "vertex":
        with FakeVertexPipelines() as vertex:
            where = ["--project", "p", "--region", "us-central1", "--pipeline-root", "gs://b/root"]
            yield Place("vertex", vertex, [*where, "--api-url", vertex.url])
    else:
        with FakeKubeflow() as kubeflow:
            yield Place("kfp", kubeflow, ["--host", kubeflow.url])


def test_a_run_is_sent_and_followed_to_its_end(
    place: Place, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("seed: 3\nhyperparameters: {epochs: 2}\n")
    code = place.submit(
        *("--params-file", str(file), "--param", "seed=4", "--label", "team=fraud", "--resource", "train.cpu=8"),
        *("--registry", "us-docker.pkg.dev/p/r", "--service-account", "runner@p.iam.gserviceaccount.com"),
        *("--name", "first", "--wait", "--json"),
    )
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert code == 0
    assert document["status"] == "succeeded"
    assert [(step["name"], step["status"]) for step in document["steps"]] == [(name, "succeeded") for name in STEPS]
    assert "train running" in shown.err
    assert document["link"] in shown.err
    if place.kind == "vertex":
        job = place.fake.jobs["projects/p/locations/us-central1/pipelineJobs/first"]
        values = job["runtimeConfig"]["parameterValues"]
        specification, labels, account = job["pipelineSpec"], job["labels"], job["serviceAccount"]
    else:
        (run,) = place.fake.runs.values()
        values, account = run["runtime_config"]["parameters"], run["service_account"]
        specification = run["pipeline_spec"]["pipeline_spec"]
        platform = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]
        labels = platform["executors"]["exec-train"]["podMetadata"]["labels"]
    assert values == {"seed": 4, "hyperparameters": {"epochs": 2}, **TARGET}
    assert labels == {"team": "fraud"}
    assert account == "runner@p.iam.gserviceaccount.com"
    container = specification["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["image"].startswith("us-docker.pkg.dev/p/r/python-tensorflow:")
    assert container["resources"]["resourceCpuLimit"] == "8"


def test_the_failing_steps_own_error_is_shown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.fake.fails["train"] = "The replica workerpool0-0 exited with a non-zero status of 1."
    lines = ["Traceback (most recent call last):", OWN]
    place.fake.prints["train"] = lines if place.kind == "vertex" else "\n".join(lines)
    assert place.submit("--wait", "--json") == 1
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["status"] == "failed"
    assert document["error"]["code"] == "NOT_A_NUMBER"
    assert document["error"]["message"].startswith("Step train: row 5 of gs://b/data.csv")
    assert "Mend the row." in shown.err


def test_where_the_log_cannot_be_read_the_engines_words_are_shown(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.fake.fails["optimize"] = "Out of memory."
    assert place.submit("--wait") == 1
    shown = capsys.readouterr()
    assert "STEP_FAILED: Step optimize failed: Out of memory." in shown.err


@pytest.mark.parametrize(
    "bad",
    [
        ["--param", "sed=1"],
        ["--param", "seed=one"],
        ["--resource", "trian.cpu=1"],
        ["--resource", "train.cpu=no"],
        ["--label", "Team=fraud"],
        ["--label", "team"],
        ["--name", "Bad Name"],
        ["--registry", "https://r.io"],
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(place: Place, bad: list[str]) -> None:
    with pytest.raises(InputError):
        place.submit(*bad)
    assert place.fake.calls == []


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["--service-account", "nobody"], "BAD_RESOURCE_NAME"),
        (["--network", "default"], "BAD_RESOURCE_NAME"),
        (["--encryption-key", "key"], "BAD_RESOURCE_NAME"),
        (["--encryption-key", "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"], "OTHER_REGION"),
    ],
)
def test_names_that_google_cloud_does_not_have_are_refused(names: list[str], code: str) -> None:
    with FakeVertexPipelines() as fake:
        where = ["--project", "p", "--region", "us-central1", "--pipeline-root", "gs://b/root", "--api-url", fake.url]
        with pytest.raises(InputError) as caught:
            Place("vertex", fake, where).submit(*names)
        assert (caught.value.code, fake.calls) == (code, [])


def test_a_plan_sends_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.submit("--plan", "--name", "first") == 0
    assert json.loads(capsys.readouterr().out)["run"] == "first"
    assert place.fake.calls == []


def test_a_model_of_own_data_is_called_after_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.submit("--param", "data=gs://b/sales/*.csv", "--plan")
    shown = capsys.readouterr()
    assert '"model_name": "sales"' in shown.out
    assert "The model is called sales, after the data;" in shown.err
    place.submit("--param", "data=gs://b/sales/*.csv", "--param", "model_name=census", "--plan")
    shown = capsys.readouterr()
    assert '"model_name": "census"' in shown.out
    assert shown.err == ""


def test_a_lost_answer_does_not_start_a_second_run(place: Place) -> None:
    struck = []

    def once(request: Any) -> Tampering | None:
        creates = request.method == "POST" and request.path.endswith(("/pipelineJobs", "/runs"))
        if creates and not struck:
            struck.append(request)
            return Tampering(after=True)
        return None

    place.fake.tamper = once
    assert place.submit("--name", "first") == 0
    assert struck
    assert place.sent() == 1


def failing_once(path: str, method: str = "POST") -> Any:
    """Answer the first request of a path with 503, and do nothing."""
    struck: list[Any] = []

    def once(request: Any) -> Tampering | None:
        if request.method == method and request.path.endswith(path) and not struck:
            struck.append(request)
            return Tampering(after=False, status=503)
        return None

    return once


def test_an_old_run_of_the_name_is_not_taken_for_the_one_that_is_sent(place: Place) -> None:
    """The first try is turned away, and the second one finds the old run: it succeeded, and nothing would be run."""
    assert place.submit("--name", "nightly", "--wait") == 0
    place.fake.tamper = failing_once("/pipelineJobs" if place.kind == "vertex" else "/runs")
    if place.kind == "vertex":  # where a name is one run's
        with pytest.raises(Refusal) as caught:
            place.submit("--name", "nightly", "--wait")
        assert caught.value.code == "RUN_EXISTS"
    else:
        assert place.submit("--name", "nightly", "--wait") == 0
        assert place.sent() == 2


def test_a_run_that_was_made_is_told_of_though_it_cannot_be_looked_at(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_looking(request: Any) -> Tampering | None:
        looks = request.method == "GET" and request.path.startswith("/apis/v2beta1/runs/")
        looks |= request.method == "GET" and "/pipelineJobs/" in request.path and bool(place.fake.jobs)
        return Tampering(after=False, status=403) if looks else None

    place.fake.tamper = no_looking
    assert place.submit("--name", "first", "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "waiting"
    assert place.sent() == 1


def test_a_name_that_is_taken_on_vertex(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeVertexPipelines() as vertex:
        where = ["--project", "p", "--region", "r", "--pipeline-root", "gs://b/root", "--api-url", vertex.url]
        place = Place("vertex", vertex, where)
        place.submit("--name", "first")
        with pytest.raises(Refusal) as caught:
            place.submit("--name", "first")
        assert caught.value.code == "RUN_EXISTS"


def test_what_a_cluster_has_not_is_refused() -> None:
    with FakeKubeflow() as kubeflow, pytest.raises(InputError) as caught:
        Place("kfp", kubeflow, ["--host", kubeflow.url]).submit("--network", "projects/1/global/networks/n")
    assert caught.value.code == "NOT_FOR_ENGINE"


@pytest.mark.parametrize("missing", ["--project", "--region", "--pipeline-root"])
def test_vertex_needs_a_place(missing: str) -> None:
    where = {"--project": "p", "--region": "r", "--pipeline-root": "gs://b/root"}
    del where[missing]
    with pytest.raises(InputError) as caught:
        Place("vertex", None, [text for pair in where.items() for text in pair]).submit("--plan")
    assert caught.value.code == "NO_PLACE"


def test_a_run_that_takes_too_long_is_left_running(place: Place) -> None:
    with pytest.raises(ServegraphError) as caught:
        place.submit("--wait", "--timeout-s", "0")
    assert caught.value.code == "STILL_RUNNING"
    assert place.sent() == 1


@pytest.mark.parametrize("host", ["kubeflow.example", "127.0.0.1.example", "localhost.example"])
def test_a_token_never_goes_out_in_plain_text(host: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with pytest.raises(InputError) as caught:
        Place("kfp", None, ["--host", f"http://{host}", "--token-file", str(token)]).submit()
    assert caught.value.code == "INSECURE_URL"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"\n", b"secret\nsecret2", b"Bearer secret", b"\xff\xfesecret", "sécret€".encode()]
)
def test_what_is_no_token_is_said_and_not_shown(content: bytes, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    with FakeKubeflow() as kubeflow:
        with pytest.raises(InputError) as caught:
            Place("kfp", kubeflow, ["--host", kubeflow.url, "--token-file", str(token)]).submit()
        assert not kubeflow.calls
    assert caught.value.code == "NO_CREDENTIALS"
    assert str(token) in caught.value.message and "secret" not in str(caught.value)


def patient(host: str, **options: float) -> tuple[KubeflowEngine, Clock]:
    """An engine whose waits take no time."""
    clock = Clock()
    return KubeflowEngine(host, patience=lambda: Patience(sleep=clock.sleep, clock=clock), **options), clock


def request() -> RunRequest:
    return request_of(flows.read(Path(FLOW)), {}, RunOptions())


@pytest.mark.parametrize("name", ["127.0.0.1", "kubeflow.invalid"])
def test_a_host_that_nobody_answers_at_is_given_up_soon(name: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        engine, clock = patient(f"http://{name}:{unused.getsockname()[1]}/pipeline")
        with pytest.raises(Unreachable) as caught:
            engine.submit(request())
    assert 4 < clock.now_s <= REACH_S
    assert caught.value.code == "UNREACHABLE"
    assert f"http://{name}" in caught.value.message


def test_a_host_whose_network_drops_packets_is_given_up_soon() -> None:
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # as many as fit: for all others the kernel drops what asks for a connection
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        engine, clock = patient(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout_s=0.05)
        with pytest.raises(Unreachable) as caught:
            engine.submit(request())
    assert clock.now_s <= REACH_S
    assert "connect timeout=0.05" in caught.value.message


@pytest.mark.parametrize(
    "host", ["https://me:hidden@kfp.example", "me:hidden@kfp.example", "http://hidden@localhost.example/"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(host: str) -> None:
    with pytest.raises(InputError) as refused:
        KubeflowEngine(host)
    assert refused.value.code == "BAD_URL"
    assert "hidden" not in str(refused.value)
    KubeflowEngine("https://kfp.example/me@home")  # a path is none


def test_a_host_that_is_none_or_another_is_refused_at_once() -> None:
    engine, clock = patient("http://kubeflow.example:port")
    with pytest.raises(InputError) as refused:
        engine.submit(request())
    assert refused.value.code == "BAD_URL"
    with FakeKubeflow() as kubeflow:
        engine, clock = patient(f"{kubeflow.url}/elsewhere")
        with pytest.raises(NotFound) as caught:
            engine.submit(request())
    assert "/pipeline" in caught.value.fix
    assert clock.now_s == 0


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_is_there_and_refuses_is_waited_for(status: int) -> None:
    with FakeKubeflow() as kubeflow:
        engine, clock = patient(kubeflow.url)
        # The client asks for its health first, and waits by a clock of its own where there is none.
        kubeflow.tamper = lambda r: None if r.path.endswith("/healthz") else Tampering(after=False, status=status)
        with pytest.raises(Unavailable) as caught:
            engine.submit(request())
        engine.close()
    assert clock.now_s > 200
    assert not isinstance(caught.value, Unreachable)


def test_an_outage_of_a_host_that_has_answered_is_waited_out() -> None:
    with FakeKubeflow() as kubeflow:
        engine, clock = patient(kubeflow.url)
        run = engine.submit(request())
        kubeflow.shutdown()
        kubeflow.server_close()
        engine.close()  # what is connected already would still be answered
        with pytest.raises(Unreachable):
            engine.state(run.id)
    assert clock.now_s > 200
