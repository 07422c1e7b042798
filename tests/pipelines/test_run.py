"""`servegraph run` as a user starts it: in a process of its own, on small data."""

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
from servegraph.storage.digests import file_digest
from servegraph_pipelines.run import Run
from servegraph_pipelines.run_record import Sample
from servegraph_pipelines.run_report import ask

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
