"""`servegraph run` as a user starts it: in a process of its own, on small data."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.emulators.http_server import LoopbackServer, json_answer

from servegraph import storage
from servegraph.data.digest import data_digest
from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.savedmodel.layout import content_digest
from servegraph.serve.state import check_model_name
from servegraph.storage.digests import file_digest
from servegraph_pipelines import flows
from servegraph_pipelines.cli.cmd_run import _show
from servegraph_pipelines.foresight import in_full
from servegraph_pipelines.local_runner import named_paths, replace_interpreter, resolve_channel
from servegraph_pipelines.naming import name_of, name_to_fill_in
from servegraph_pipelines.run import Run, StepRecord, _temporary, failure
from servegraph_pipelines.run_record import Sample
from servegraph_pipelines.run_report import MAX_MATRIX, ask, confused, finish
from servegraph_pipelines.step_errors import killed

SERVEGRAPH = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]
MODELS = Path(__file__).parents[1] / "serving/models"
FAST = ["--param", 'hyperparameters={"epochs": 1, "hidden_units": [4]}']


def table(path: Path, rows: int = 200) -> Path:
    lines = ["length,body colour,kind"] + [
        f"{i % 17}, {'rgb'[i % 3]}, {'no' if i % 17 < 8 else 'yes'}" for i in range(rows)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments, **options):
    return subprocess.run([*SERVEGRAPH, "run", *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.mark.slow
def test_the_whole_dag_on_own_data_twice(tmp_path):
    # kfp.local rewrites the text `python3` wherever it stands; a path is where a user has it.
    place = tmp_path / "with space python3.11"
    data = table(place / "data.csv")
    arguments = [
        "--output-dir",
        place / "out",
        "--param",
        f"data={data}",
        "--param",
        "model_name=kinds",
        *FAST,
        "--json",
    ]
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert document == json.loads((place / "out/run.json").read_text())
    assert document["status"] == "succeeded"
    assert [step["name"] for step in document["steps"]] == [
        "digest-data",
        "train",
        "export-serving-graph",
        "optimize",
        "inspect-graph",
        "measure",
        "choose-machine",
        "deploy-version",
    ]
    assert all(step["seconds"] > 0 for step in document["steps"])
    sizes = document["model_bytes"]
    assert sizes["optimized"] < sizes["exported"]
    assert document["choice"]["machine_type"].startswith("n1-")
    assert document["deployed"]["outcome"] == "created"
    assert document["prediction"]["instance"]["body_colour"].startswith(" ")
    assert document["prediction"]["prediction"]["classes"] in ("no", "yes")
    assert len(document["prediction"]["prediction"]["probabilities"]) == 2
    page = Path(document["report"]).read_text()
    for wanted in (document["choice"]["machine_type"], "body_colour", "servegraph rollback", "ROC", "created"):
        assert wanted in page
    assert not list((place / "out").glob(".tmp-*"))
    assert_keys_have_the_content(place / "out/pipeline")

    second = run(*arguments)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["deployed"]["outcome"] == "unchanged"


def assert_keys_have_the_content(pipeline):
    """The digests that steps are given are those of what they read."""
    (folder,) = pipeline.glob("train-and-deploy-*")
    content = {"train": {"data": data_digest([str(pipeline.parents[1] / "data.csv"), "", ""])}}
    content["export-serving-graph"] = {"trained": folder / "train/model", "samples": folder / "train/samples"}
    content["optimize"] = {"model": folder / "export-serving-graph/model", "samples": folder / "train/samples"}
    content["inspect-graph"] = {"model": folder / "optimize/optimized"}
    for step, inputs in content.items():
        given = json.loads((folder / step / "key.json").read_text())["parameters"]
        found = {name: given[f"{name}_digest"] for name in inputs}
        assert found == {name: digest_of(path) if isinstance(path, Path) else path for name, path in inputs.items()}
        assert f"servegraph took {json.dumps(found)}\n" in (pipeline.parent / "run.log").read_text()


def digest_of(path):
    return content_digest(storage.open_dir(path)) if path.is_dir() else file_digest(path)


def test_the_record_is_answered_by_the_version_that_was_deployed(tmp_path):
    target = LocalTarget(tmp_path, probe=lambda *_: None)
    for version, traffic in (("1", 100), ("2", 0)):
        deploy(DeployRequest(str(MODELS / f"people-{version}"), "people", traffic_percent=traffic), target)
    done = Run(tmp_path, {"location": str(tmp_path), "model_name": "people"})
    answers = [ask(done, version, Sample({"age": 10.0, "job": "pilot"}, None)) for version in ("1", "2")]
    assert [answer["prediction"]["probabilities"][1] for answer in answers] == pytest.approx([0.1, 0.2])


def test_bad_data_is_one_clear_error_and_nothing_is_deployed(tmp_path):
    data = table(tmp_path / "data.csv")
    data.write_text(data.read_text().replace("\n3, r,", "\nthree, r,"))
    schema = tmp_path / "s.yaml"
    schema.write_text(
        "label: kind\ncolumns: {length: {dtype: float32}, body colour: {dtype: string}, kind: {dtype: string}}\n"
    )
    done = run("--output-dir", tmp_path / "out", "--param", f"data={data}", "--param", f"schema={schema}", *FAST)
    assert done.returncode == 2
    assert "NOT_A_NUMBER" in done.stderr
    assert "row 5 of" in done.stderr
    assert "'three'" in done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads((tmp_path / "out/run.json").read_text())
    assert document["status"] == "failed"
    assert document["error"]["code"] == "NOT_A_NUMBER"
    assert document["parameters"]["model_name"] == "data"
    assert "The model is called data, after the data;" in done.stderr
    assert "NOT_A_NUMBER" in (tmp_path / "out/report.html").read_text()
    assert not (tmp_path / "out/serving").exists()


def test_a_step_on_a_full_disk_says_so_and_the_report_has_the_rest(tmp_path):
    folder = tmp_path / "pipeline"
    for step, output in (("digest-data", '{"parameterValues": {}}'), ("train", "")):
        (folder / step).mkdir(parents=True)
        (folder / step / "executor_output.json").write_text(output)
    said = f"OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
    (tmp_path / "run.log").write_text(f"    {said}\njson.decoder.JSONDecodeError: Expecting value\n")
    state = Run(tmp_path, {}, steps=[StepRecord("train", "failed"), StepRecord("optimize")], pipeline_dir=folder)
    state.error = failure(state)
    assert (state.error.code, state.error.message) == ("DISK_FULL", f"Step train: {said}")
    assert finish(state)["error"]["code"] == "DISK_FULL"
    assert "DISK_FULL" in (tmp_path / "report.html").read_text()
    assert "<td>optimize</td><td>not run</td>" in (tmp_path / "report.html").read_text()


OF_OTHERS = """
from kfp import dsl

@dsl.component(install_kfp_package=False)
def size_of(name: str) -> int:
    from servegraph.errors import InputError
    if name == "bad":
        raise InputError("bad has no size.", code="NO_SIZE", fix="Give good.")
    return len(name)

@dsl.component(install_kfp_package=False)
def total(sizes: list) -> int:
    return sum(sizes)

@dsl.component(install_kfp_package=False)
def clean():
    for number in range(500):
        print("cleaning", number)
    raise RuntimeError("servegraph.errors.StorageError: [NO_ACCESS] nothing to clean. Fix: none.")

@dsl.pipeline
def measured():
    with dsl.ExitHandler(clean()):
        with dsl.ParallelFor(["bad", "good", "good"]) as name:
            size = size_of(name=name)
        total(sizes=dsl.Collected(size.output))

@dsl.component(install_kfp_package=False)
def large():
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

@dsl.pipeline
def too_large():
    large()
"""


def run_of_others(folder, name):
    (folder / "of_others.py").write_text(OF_OTHERS)
    done = run("--pipeline", f"of_others:{name}", "--output-dir", folder / "out", "--json", cwd=folder)
    return done, json.loads(done.stdout)


def test_the_step_that_failed_first_is_named_with_its_error_whatever_ran_beside_it_and_after(tmp_path):
    done, document = run_of_others(tmp_path, "measured")
    assert done.returncode == 2, done.stderr
    assert document["error"] == {"code": "NO_SIZE", "message": "Step size-of: bad has no size.", "fix": "Give good."}
    assert {step["name"]: step["status"] for step in document["steps"]} == {
        "clean": "failed",
        "size-of": "failed",
        "total": "waiting",
    }
    assert "size-of running in" not in done.stderr


def test_a_step_that_was_killed_says_so(tmp_path):
    done, document = run_of_others(tmp_path, "too_large")
    assert done.returncode == 1, done.stderr
    assert document["error"]["code"] == "STEP_KILLED"
    assert document["error"]["message"] == "Step large was killed (SIGKILL), most likely because memory ran out."


@pytest.mark.parametrize(
    ("exit_code", "said"),
    [(137, "was killed (SIGKILL)"), (-9, "was killed (SIGKILL)"), (139, "crashed (SIGSEGV)"), (-15, "ended (SIGTERM)")],
)
def test_exit_codes_of_signals(exit_code, said):
    assert said in str(killed(exit_code, "Step train", Path("run.log")))
    assert [killed(code, "Step train", Path("run.log")) for code in (None, 0, 1, 128, 255)] == 5 * [None]


def left(folder, step, **metadata):
    """What a step leaves beside its artifacts: their metadata."""
    (folder / step).mkdir(parents=True)
    rows = {artifact: {"artifacts": [{"metadata": row}]} for artifact, row in metadata.items()}
    (folder / step / "executor_output.json").write_text(json.dumps({"artifacts": rows}))


@pytest.mark.parametrize("measured", ["optimize", "evaluate", None])
def test_metrics_say_which_model_they_are_of(tmp_path, measured, capsys):
    folder = tmp_path / "pipeline"
    left(folder, "train", model={"TrainedModel": {"size_bytes": 9, "metrics": {"accuracy": 0.9, "auc": 0.95}}})
    figures = {"before_bytes": 9, "after_bytes": 5, "agreement": 0.98, "max_abs_diff": 0.1}
    figures |= {"accuracy_after": 0.8} if measured == "optimize" else {}
    left(folder, "optimize", metrics=figures, optimized={"ServingModel": {"size_bytes": 5}})
    metric = {"metric": {"name": "accuracy", "value": 0.8}, "size_bytes": 5, "latency_ms": 1.0}
    evaluation = {"verdict": "blessed", "reasons": [], "candidate": metric, "live": None}
    if measured == "evaluate":
        left(folder, "evaluate", evaluation={})
        (folder / "evaluate/evaluation").write_text(json.dumps(evaluation))
    document = finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")], pipeline_dir=folder))
    assert document["metrics"] == {"accuracy": 0.9, "auc": 0.95}
    assert document["optimized_metrics"] == ({"accuracy": 0.8} if measured else {})
    page = (tmp_path / "report.html").read_text()
    assert "Metrics of the trained model" in page
    assert ("of the optimized model" in page) == ("which is not deployed: accuracy 0.8000." in page) == bool(measured)
    assert ("held against the trained one" in page) != bool(measured)
    _show(document)
    shown = capsys.readouterr().out
    assert "trained: accuracy 0.9000, auc 0.9500\n" in shown
    assert ("optimized: accuracy 0.8000\n" in shown) == bool(measured)


@pytest.mark.parametrize("deploy", ["succeeded", "skipped", "failed", None])
def test_the_report_says_what_was_deployed_and_what_stays_live(tmp_path, deploy):
    folder = tmp_path / "pipeline"
    left(folder, "train", model={"TrainedModel": {"size_bytes": 9, "metrics": {"accuracy": 0.9}}})
    left(folder, "optimize", optimized={"ServingModel": {"size_bytes": 5}})
    left(folder, "live-version")
    (folder / "live-version/executor_output.json").write_text('{"parameterValues": {"version": "3", "uri": "/v/3"}}')
    if deploy == "succeeded":
        left(folder, "deploy-version")
        deployment = {"name": "kinds", "version": "4", "outcome": "created", "target": "vertex"}
        (folder / "deploy-version/deployment").write_text(json.dumps(deployment))
    steps = [StepRecord("train", "succeeded")]
    if deploy:
        steps.append(StepRecord("deploy-version", deploy, started=0.0 if deploy == "skipped" else 1.0))
    finish(Run(tmp_path, {"target": "vertex"}, steps=steps, pipeline_dir=folder))
    page = (tmp_path / "report.html").read_text()
    assert ("what is deployed" in page) == ("which is deployed" in page) == (deploy == "succeeded")
    assert (">not deployed<" in page) == ("which is not deployed" in page) == (deploy != "succeeded")
    # A deploy that was begun may have moved the traffic.
    assert ("Nothing was deployed: version 3 stays live." in page) == (deploy in ("skipped", None))


def test_an_error_has_one_name(tmp_path, capsys):
    folder = tmp_path / "pipeline"
    left(folder, "train", model={"TrainedModel": {"size_bytes": 9, "metrics": {"mae": 101597.3533, "r2": 0.9}}})
    left(folder, "optimize", metrics={"mean_absolute_error_after": 101597.3551, "agreement": 1.0, "max_abs_diff": 0.1})
    document = finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")], pipeline_dir=folder))
    assert document["optimized_metrics"] == {"mean_absolute_error": 101597.3551}
    page = (tmp_path / "report.html").read_text()
    assert "<td>mean absolute error</td>" in page
    assert "<span>mean absolute error</span><b>101597.3551</b>" in page
    _show(document)
    shown = capsys.readouterr().out
    assert "trained: mean absolute error 101597.3533, r2 0.9000\n" in shown
    assert "optimized: mean absolute error 101597.3551\n" in shown


def test_the_pages_of_steps_open_as_pages(tmp_path):
    left(tmp_path / "pipeline", "optimize")
    (tmp_path / "pipeline/optimize/report").write_text("<p>größer")
    finish(Run(tmp_path, {}, steps=[StepRecord("optimize", "succeeded")], pipeline_dir=tmp_path / "pipeline"))
    assert (tmp_path / "ladder.html").read_text() == "<p>größer"
    assert re.findall(r'href="(.*?)"', (tmp_path / "report.html").read_text()) == ["ladder.html"]


@pytest.mark.parametrize("classes", [MAX_MATRIX, MAX_MATRIX + 1])
def test_many_classes_have_their_confusions_in_the_place_of_a_matrix(tmp_path, classes):
    rows = [[10 * (column == row) for column in range(classes)] for row in range(classes)]
    rows[2][5], rows[7][1] = 3, 4
    matrix = {
        "annotationSpecs": [{"displayName": f"class {number}"} for number in range(classes)],
        "rows": [{"row": row} for row in rows],
    }
    assert confused(matrix) == [("class 7", "class 1", 4), ("class 2", "class 5", 3)]
    model = {"TrainedModel": {"size_bytes": 9, "metrics": {"accuracy": 0.9}}}
    left(tmp_path, "train", model=model, classification_metrics={"confusionMatrix": matrix})
    finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")], pipeline_dir=tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert ('<div class="scroll"><table class="matrix">' in page) == (classes <= MAX_MATRIX)
    assert ("All confusions among 13 classes" in page) == (classes > MAX_MATRIX)


def test_a_report_that_cannot_be_written_is_an_error_of_the_run(tmp_path):
    (tmp_path / "report.html").mkdir()
    document = finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")]))
    assert (document["status"], document["error"]["code"], document["report"]) == ("failed", "NOT_A_FILE", None)
    assert json.loads((tmp_path / "run.json").read_text()) == document


def descendants(pid):
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(stat[1]) == pid and stat[0] != "Z":
                children += [int(entry.name), *descendants(int(entry.name))]
    return children


def alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class FakeDocker(LoopbackServer):
    """An engine that makes no container: `asked` has what each was to be, and whether what it binds was there."""

    def __init__(self):
        super().__init__(self._respond)
        self.asked = []

    def _respond(self, request):
        path = re.sub(r"^/v[\d.]+", "", request.path)
        if path == "/containers/create":
            host = request.json()["HostConfig"]
            bound = {Path(bind.split(":")[0]).is_dir() for bind in host["Binds"]}
            self.asked.append((request.json()["User"], host["Mounts"], bound))
            return json_answer({"message": "no containers here"}, 500)
        answers = {"/_ping": {}, "/version": {"ApiVersion": "1.44"}, "/info": {"SecurityOptions": []}}
        return json_answer(answers.get(path, {"Id": "sha256:1"}))


def test_what_containers_bind_is_there_before_they_are_made(tmp_path):
    data = table(tmp_path / "tables in/a.csv").parent
    out, serving = tmp_path / "out", tmp_path / "serving"
    serving.mkdir()
    with FakeDocker() as engine:
        environment = {**os.environ, "DOCKER_HOST": engine.url.replace("http", "tcp")}
        given = ["--param", "data=tables in/*.csv", "--param", f"location={serving}"]
        done = run("--output-dir", out, "--runner", "docker", *given, env=environment, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    ((user, mounts, bound),) = engine.asked
    assert user == f"{out.stat().st_uid}:{out.stat().st_gid}"
    read_only = {mount["Source"]: mount["ReadOnly"] for mount in mounts}
    assert read_only == {str(out): False, str(data): True, str(serving): False}
    assert all(mount["Source"] == mount["Target"] for mount in mounts)
    assert bound == {True}
    assert (out / "pipeline").stat().st_uid == out.stat().st_uid


def test_what_parameters_name_is_seen_in_containers(tmp_path, monkeypatch):
    file, trainer = table(tmp_path / "in/a [1].csv"), tmp_path / "own.py"
    trainer.write_text("")
    named = [f"{tmp_path}/i?/*.csv", str(file), file.as_uri(), f"estimator:{trainer}:make"]
    assert list(named_paths(named)) == [tmp_path, file, file, trainer]
    assert list(named_paths({"a": [str(file)], "b": {"c": str(trainer)}})) == [file, trainer]
    assert list(named_paths(["", "in", "gs://b/x", "/none/*", "/no such", 7, "/" + 9999 * "x"])) == []
    monkeypatch.chdir(tmp_path)
    given = {"data": "in/*.csv", "trainer": "estimator:own.py:make", "schema": "gs://b/s.yaml", "model_name": "in"}
    full = {"data": f"{tmp_path}/in/*.csv", "trainer": f"estimator:{trainer}:make"}
    assert in_full(flows.load("train-and-deploy"), given, ()) == {**given, **full}
    assert in_full(flows.load("train-and-deploy"), {"data": "census"}, ()) == {"data": "census"}


def test_a_model_is_called_after_its_data(tmp_path, monkeypatch):
    (folder := tmp_path / "my sales").mkdir()
    monkeypatch.chdir(folder)
    (folder / "a[1].csv").write_text("")
    named = {"sales.csv": "sales", "../Q1 sales.csv.gz": "Q1-sales", "*.csv": "my-sales", ".": "my-sales"}
    named |= {"a[1].csv": "a-1", "b/part-*/*.csv": "b", "../*/x.csv": tmp_path.name, "/": "model", "_é.csv": "model"}
    named |= {"gs://bucket/c/*.csv": "c", "gs://bucket/d/": "d", "gs://bucket/**": "bucket", "x" * 200: "x" * 128}
    named[(folder / "e.tfrecord").as_uri()] = "e"
    assert {data: name_of(data) for data in named} == named
    assert [check_model_name(name) for name in named.values()]


def test_only_a_model_of_own_data_without_a_name_is_given_one(monkeypatch):
    for pipeline in flows.FLOWS:
        flow = flows.load(pipeline)
        assert name_to_fill_in(flow, {"data": "sales.csv"}) == "sales"
        given = ({}, {"data": "census"}, {"data": "sales.csv", "model_name": "census"})
        assert [name_to_fill_in(flow, values) for values in given] == [None, None, None]
    monkeypatch.chdir(Path(__file__).parents[2] / "docs/examples")
    assert name_to_fill_in(flows.load("deploy_a_model:deploy_a_model"), {"data": "sales.csv"}) is None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to see what is left running")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ending_the_command_ends_the_running_step_and_leaves_no_record_of_an_earlier_run(tmp_path, number):
    (tmp_path / "out").mkdir()
    for name in ("run.json", "report.html", "ladder.html"):
        (tmp_path / "out" / name).write_text("{}")
    # A shell's background jobs ignore SIGINT, and so would the command that it is to end here.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", f"{code}from servegraph_pipelines.cli import main; main()"]
    command += ["run", "--output-dir", str(tmp_path / "out"), "--param", 'hyperparameters={"epochs": 9999}', "--json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("train running" in line for line in process.stderr)
            deadline = time.monotonic() + 60
            while len(below := descendants(process.pid)) < 3:  # runner, shell, task
                assert time.monotonic() < deadline
                time.sleep(0.1)
            os.kill(process.pid, number)
            printed, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    while left := [pid for pid in below if alive(pid)]:
        assert time.monotonic() < deadline + 30, left
        time.sleep(0.1)
    assert not (tmp_path / "out/ladder.html").exists()
    if number == signal.SIGKILL:
        assert not (tmp_path / "out/run.json").exists()
        return
    document = json.loads(printed)
    assert document == json.loads((tmp_path / "out/run.json").read_text())
    assert (document["status"], document["error"]) == ("interrupted", None)
    steps = {step["name"]: step["status"] for step in document["steps"]}
    assert [steps[name] for name in ("digest-data", "train", "optimize")] == ["succeeded", "cancelled", "waiting"]
    assert "interrupted" in (tmp_path / "out/report.html").read_text()
    assert "BrokenPipeError" not in (tmp_path / "out/run.log").read_text()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("--output-dir", tmp_path / "file/out")
    assert done.returncode == 2
    assert "CANNOT_WRITE" in done.stderr
    remote = run("--output-dir", "gs://bucket/out")
    assert remote.returncode == 2
    assert "NOT_LOCAL" in remote.stderr


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".tmp-left/deep").mkdir(parents=True)
    with _temporary(tmp_path) as folder:
        assert [*tmp_path.iterdir()] == [folder]
    assert [*tmp_path.iterdir()] == []


def test_only_the_interpreter_of_the_executor_is_replaced():
    command = ["sh", "-c", 'python3 -m kfp.dsl.executor_main "$@"', "import python3", "--data", "/tmp/python3 -m/x"]
    assert replace_interpreter(command, "/venv/bin/python") == [
        "sh",
        "-c",
        '/venv/bin/python -m kfp.dsl.executor_main "$@"',
        *command[3:],
    ]


def test_a_condition_finds_the_value_that_it_names():
    from kfp.local.io import IOStore

    store = IOStore()
    store.put_parent_input("pipelinechannel--evaluate-verdict", "blessed")
    store.put_task_output("check-data", "decision", "train")
    store.put_task_output("flip", "Output", 3)
    assert resolve_channel("pipelinechannel--evaluate-verdict", store) == "blessed"
    assert resolve_channel("pipelinechannel--check-data-decision", store) == "train"
    assert resolve_channel("pipelinechannel--flip-Output", store) == 3
    assert resolve_channel("pipelinechannel--flip-other", store) is None
