"""Resources as parameters of the compiled pipeline: the form that KFP writes, in conditions too, and within limits."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import dsl

from servegraph.errors import InputError
from servegraph_pipelines import flows, resource_parameters, resources
from servegraph_pipelines.submit import Choices

PACKAGE = Path(flows.__file__).parent
RETRAIN = flows.read(PACKAGE / "retrain.yaml")
ALL = resources.parse(["say.cpu=2", "say.memory=4Gi", "say.accelerator=NVIDIA_L4:2"])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def say(text: str) -> str:
    return text


@dsl.pipeline(name="plain")
def plain(text: str = "a"):
    say(text=text)


@dsl.pipeline(name="plain")
def by_kfp(
    text: str = "a",
    say_cpu: str = "2",
    say_memory: str = "4Gi",
    say_accelerator: str = "NVIDIA_L4",
    say_accelerator_count: str = "2",
):
    task = say(text=text).set_cpu_limit(say_cpu).set_memory_limit(say_memory)
    task.set_accelerator_type(say_accelerator).set_accelerator_limit(say_accelerator_count)


@dsl.pipeline(name="within")
def within(text: str = "a"):
    with dsl.If(text == "a"), dsl.If(text != "b"):
        say(text=text)


def loaded(pipeline):
    return flows.parse(flows.compiled(pipeline), "here")


def test_it_is_what_kfp_compiles():
    assert resource_parameters.with_parameters(loaded(plain), ALL).document == loaded(by_kfp).document


def test_within_conditions_it_runs_here(tmp_path):
    path = tmp_path / "within.yaml"
    path.write_text(resource_parameters.with_parameters(loaded(within), ALL).to_yaml())
    start = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]
    line = [*start, "run", "--pipeline", path, "--output-dir", tmp_path / "out", "--param", "say_cpu=1"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "out/pipeline").glob("within-*/say/executor_output.json")
    assert yaml.safe_load(written.read_text())["parameterValues"] == {"Output": "a"}


@pytest.mark.parametrize(
    ("engine", "values", "code"),
    [
        ("vertex", {}, None),
        ("vertex", {"train_cpu": "96"}, None),
        ("vertex", {"train_cpu": "97"}, "BAD_RESOURCES"),
        ("vertex", {"train_memory": "700G"}, "BAD_RESOURCES"),
        ("vertex", {"train_memory": ""}, "BAD_RESOURCES"),
        ("vertex", {"train_accelerator": "nvidia.com/gpu"}, "BAD_RESOURCES"),
        ("vertex", {"train_accelerator_count": "3"}, "BAD_RESOURCES"),
        ("vertex", {"train_accelerator_count": "none"}, "BAD_RESOURCES"),
        ("kfp", {"train_accelerator": "nvidia.com/gpu", "train_accelerator_count": "3", "train_cpu": "200"}, None),
        ("kfp", {}, "BAD_RESOURCES"),  # the name is Vertex AI's
    ],
)
def test_a_run_is_held_to_what_the_engine_gives(engine, values, code):
    wanted = resources.parse(["train.cpu=8", "train.memory=32G", "train.accelerator=NVIDIA_L4:2"])
    flow = resource_parameters.with_parameters(RETRAIN, wanted)
    if code is None:
        assert Choices().apply(flow, engine, values)
        return
    with pytest.raises(InputError) as caught:
        Choices().apply(flow, engine, values)
    assert caught.value.code == code


def test_one_resource_has_one_place():
    flow = resource_parameters.with_parameters(RETRAIN, resources.parse(["train.cpu=8"]))
    with pytest.raises(InputError, match="--param train_cpu=9"):
        Choices(resources=resources.parse(["train.cpu=9"])).apply(flow, "vertex", {})
    with pytest.raises(InputError) as caught:
        resource_parameters.with_parameters(flow, resources.parse(["train.cpu=9"]))
    assert caught.value.code == "BAD_PARAMETER"
    with pytest.raises(InputError) as caught:
        resource_parameters.with_parameters(RETRAIN, resources.parse(["trian.cpu=9"]))
    assert caught.value.code == "UNKNOWN_STEP"
