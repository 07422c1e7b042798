"""Parameters that a step would refuse are refused before anything is sent or run, with the step's own code."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.emulators.kubeflow import FakeKubeflow
from tests.emulators.vertex_pipelines import FakeVertexPipelines

from servegraph.data import census, schema_file
from servegraph.errors import InputError, ServegraphError, StorageError
from servegraph_pipelines import flows, foresight, parameters
from servegraph_pipelines.cli import app
from servegraph_pipelines.run import PLACES
from servegraph_pipelines.specification import Specification

PACKAGE = Path(flows.__file__).parent
FLOWS = {name: flows.read(PACKAGE / f"{name.replace('-', '_')}.yaml") for name in flows.FLOWS}
BAD = [
    ({"data": ""}, "train", "BAD_PATH"),
    ({"seed": -1}, "train", "BAD_SEED"),
    ({"seed": 2**32}, "train", "BAD_SEED"),
    ({"label": "none"}, "train", "BAD_LABEL"),
    ({"hyperparameters": {"epochs": -1}}, "train", "BAD_HYPERPARAMETER"),
    ({"hyperparameters": {"depth": 3}}, "train", "BAD_HYPERPARAMETER"),
    ({"trainer": "estimator", "hyperparameters": {"num_layers": 0}}, "train", "BAD_HYPERPARAMETER"),
    ({"budget": "500 apples"}, "optimize", "BAD_SIZE"),
    ({"min_agreement": 1.5}, "optimize", "BAD_TOLERANCE"),
    ({"serving_memory": "much"}, "measure", "BAD_SIZE"),
    ({"gpu_graph": "float8"}, "export-serving-graph", "UNKNOWN_PRECISION"),
    ({"platform": "azure"}, "choose-machine", "UNKNOWN_PLATFORM"),
    ({"accelerator": "T5"}, "choose-machine", "UNKNOWN_ACCELERATOR"),
    ({"accelerator": "T4:3"}, "choose-machine", "BAD_ACCELERATOR_COUNT"),
    ({"latency_goal_ms": -1.0}, "choose-machine", "BAD_NUMBER"),
    ({"model_name": "a b"}, "deploy-version", "BAD_MODEL_NAME"),
    ({"model_name": "../x"}, "deploy-version", "BAD_MODEL_NAME"),
    ({"target": "mars"}, "deploy-version", "UNKNOWN_TARGET"),
    ({"target": "vertex"}, "deploy-version", "NO_PLACE"),
    ({"target": "vertex", "project": "p", "region": "r", "staging": "/models"}, "deploy-version", "NO_PLACE"),
    ({"target": "kserve", "staging": "gs://b/m"}, "deploy-version", "NO_PLACE"),
    ({"traffic_steps": [10, 50]}, "deploy-version", "NO_TRAFFIC_STEPS"),
    ({"traffic_percent": 101}, "deploy-version", "BAD_INPUT"),
    ({"traffic_percent": 20, "traffic_steps": [10, 50]}, "deploy-version", "BAD_TRAFFIC_STEPS"),
    ({"traffic_steps": ["ten"]}, "deploy-version", "BAD_TRAFFIC_STEPS"),
    ({"serving": {"replicas": 2}}, "deploy-version", "BAD_SERVICE_OPTION"),
]
RETRAIN = [
    ({"history": ""}, "check-data", "NO_HISTORY"),
    ({"warm_start": True, "trainer": "estimator"}, "check-data", "NO_WARM_START"),
    ({"min_metric": "good"}, "evaluate", "BAD_CRITERIA"),
]
GOOD = {
    "budget": "1.5GiB",
    "min_agreement": 1,
    "serving_memory": "7.5GB",
    "gpu_graph": "bfloat16",
    "platform": "ai-platform",
    "accelerator": "T4:2",
    "hyperparameters": {"epochs": 1.0},
    "target": "vertex",
    "project": "p",
    "region": "r",
    "staging": "gs://b/m",
    "traffic_percent": 50,
    "traffic_steps": [10, 20.0],
    "serving": {"min_replicas": 2},
}
REMOTE = {"history": "gs://b/h", "target": "kserve", "namespace": "ml", "staging": "gs://b/m"}
LOCAL = {"history": "gs://b/h", "target": "local", "location": "/mnt/models"}


@pytest.mark.parametrize(("values", "step", "code"), [*BAD, *RETRAIN])
def test_a_bad_parameter_is_named_with_its_step(values: dict[str, Any], step: str, code: str) -> None:
    both = (values, step, code) in BAD
    for name, flow in FLOWS.items():
        if not both and name != "retrain":
            continue
        with pytest.raises(ServegraphError) as caught:
            parameters.check(flow, values, PLACES if "history" not in values else ["location"])
        assert caught.value.code == code
        assert caught.value.message.startswith(f"Step {step}: ")


def test_what_the_steps_take_is_taken() -> None:
    assert parameters.check(FLOWS["train-and-deploy"], GOOD)["budget"] == "1.5GiB"
    more = {"history": "gs://b/h", "min_metric": "0.9", "warm_start": True}
    assert parameters.check(FLOWS["retrain"], GOOD | more)
    assert parameters.check(FLOWS["retrain"], {}, filled_in=PLACES) == {}
    own = {"trainer": "own.py:train", "hyperparameters": {"depth": 3}}
    assert parameters.check(FLOWS["train-and-deploy"], own, filled_in=PLACES)


@pytest.mark.parametrize(
    ("engine", "values", "step", "code"),
    [
        ("vertex", {"target": "local", "location": ""}, "deploy-version", "NOT_FOR_ENGINE"),
        ("vertex", LOCAL, "deploy-version", "NOT_FOR_ENGINE"),
        ("kfp", {"target": "local", "location": ""}, "deploy-version", "BAD_INPUT"),
        ("kfp", {"target": "local", "location": "out/serving"}, "deploy-version", "NOT_FOR_ENGINE"),
        *(("vertex", {name: "/home/me/x"}, "train", "NOT_FOR_ENGINE") for name in ("data", "eval_data", "schema")),
        *(("vertex", {"history": path}, "check-data", "NOT_FOR_ENGINE") for path in ("h", "/h", "file:///h")),
        *((engine, {"data": "x.csv"}, "train", "NOT_FOR_ENGINE") for engine in ("vertex", "kfp")),
        *((engine, {"trainer": "own.py:train"}, "train", "NOT_FOR_ENGINE") for engine in ("vertex", "kfp")),
    ],
)
def test_what_the_steps_of_an_engine_do_not_see_is_refused(
    engine: Any, values: dict[str, Any], step: str, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        parameters.check(FLOWS["retrain"], REMOTE | values, engine=engine)
    assert caught.value.code == code
    assert caught.value.message.startswith(f"Step {step}: ")


@pytest.mark.parametrize(
    ("engine", "values"),
    [
        ("vertex", {"data": "gs://b/*.csv", "schema": "/gcs/b/schema.yaml", "trainer": "gs://b/own.py:train"}),
        ("vertex", {"data": "census", "trainer": "own.module:train"}),
        ("kfp", LOCAL | {"data": "/mnt/data/*.csv", "trainer": "/mnt/own.py"}),
    ],
)
def test_what_the_steps_of_an_engine_see_is_taken(engine: Any, values: dict[str, Any]) -> None:
    assert parameters.check(FLOWS["retrain"], REMOTE | values, engine=engine)


@pytest.mark.parametrize("engine", ["vertex", "kfp"])
def test_nothing_is_sent(engine: str, tmp_path: Path) -> None:
    with FakeVertexPipelines() if engine == "vertex" else FakeKubeflow() as fake:
        place = {"vertex": {"project": "p", "region": "r", "pipeline_root": "gs://b/r", "api_url": fake.url}}
        place["kfp"] = {"api_url": fake.url}
        options = {"vertex": ["--project", "p", "--region", "r", "--pipeline-root", "gs://b/r", "--api-url", fake.url]}
        options["kfp"] = ["--host", fake.url]
        row = {"name": "nightly", "cron": "0 3 * * *", "engine": engine, "pipeline": "train-and-deploy"}
        for wrong, code in (("budget=500 apples", "BAD_SIZE"), ("data=sales.csv", "NOT_FOR_ENGINE")):
            given = [wrong, *(f"{name}={value}" for name, value in REMOTE.items() if name != "history")]
            row |= {"place": place[engine], "parameters": dict(text.split("=") for text in given)}
            (tmp_path / "schedules.yaml").write_text(yaml.safe_dump({"schedules": [row]}))
            submit = ["submit", "--engine", engine, *options[engine], *(f"--param={text}" for text in given)]
            schedules = [["schedule", verb, str(tmp_path / "schedules.yaml")] for verb in ("apply", "diff")]
            for command in (submit, *schedules):
                with pytest.raises(InputError) as caught:
                    app.main(command, standalone_mode=False)
                assert caught.value.code == code
        assert fake.calls == []


def test_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        app.main(["run", "--output-dir", str(tmp_path / "out"), "--param", "min_agreement=2"], standalone_mode=False)
    assert caught.value.code == "BAD_TOLERANCE"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["data", "eval_data", "schema"])
def test_data_that_is_not_there_is_missed_before_a_run_on_this_machine(name: str, tmp_path: Path) -> None:
    for value in (str(tmp_path / "none.csv"), f"{tmp_path}/*.csv"):
        with pytest.raises(StorageError) as caught:
            foresight.check_files(FLOWS["train-and-deploy"], {name: value})
        assert (caught.value.code, caught.value.message.split(":")[0]) == ("NOT_FOUND", "Step train")
        assert parameters.check(FLOWS["train-and-deploy"], {name: value, "location": "serving"})  # by a timer, later
    foresight.check_files(FLOWS["train-and-deploy"], {name: "gs://bucket/*.csv"})


def test_a_trainer_that_is_not_there_is_missed_before_a_run_on_this_machine(tmp_path: Path) -> None:
    trainer = tmp_path / "own.py"
    for name in (f"{trainer}:fit", f"estimator:{trainer}:fit"):
        with pytest.raises(InputError) as caught:
            foresight.check_files(FLOWS["train-and-deploy"], {"trainer": name})
        assert (caught.value.code, caught.value.message.split(":")[0]) == ("NO_TRAINER", "Step train")
    trainer.touch()
    foresight.check_files(FLOWS["train-and-deploy"], {"trainer": f"{trainer}:fit"})
    foresight.check_files(FLOWS["train-and-deploy"], {"trainer": "gs://bucket/own.py"})


def test_the_label_of_the_census_sample_is_that_of_its_schemas() -> None:
    for file in (census.SCHEMA, census.ESTIMATOR_SCHEMA):
        assert schema_file.parse(file.read_text(), "").label == census.LABEL


def test_to_judge_takes_nothing_that_only_the_steps_have() -> None:
    script = (
        "import sys; from pathlib import Path; from servegraph_pipelines import flows, parameters\n"
        f"flow = flows.read(Path({str(PACKAGE / 'train_and_deploy.yaml')!r}))\n"
        "parameters.check(flow, {}, ['location'])\n"
        "print([name for name in ('numpy', 'keras', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_what_other_pipelines_make_of_a_parameter_is_not_judged() -> None:
    def changed(**pipeline: str) -> Specification:
        document = copy.deepcopy(dict(FLOWS["retrain"].document))
        document["pipelineInfo"] |= pipeline
        return Specification(document)

    given = {"history": "h", "budget": "500 apples"}
    assert parameters.check(changed(name="of-others"), given) == given
    of_the_same_name = changed()
    for executor in of_the_same_name.document["deploymentSpec"]["executors"].values():
        executor["container"]["command"] = ["python", "-m", "theirs"]
    assert parameters.check(of_the_same_name, given) == given
    with pytest.raises(InputError):
        parameters.check(changed(), given)
