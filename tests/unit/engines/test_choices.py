"""What is chosen for a run before it is sent: parameters, images, resources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from servegraph import _image
from servegraph.errors import InputError
from servegraph_pipelines import flows, parameters, resources
from servegraph_pipelines.cli.cmd_compile import command as compiling
from servegraph_pipelines.images import ImageChoice, for_local_target, read_lock
from servegraph_pipelines.submit import Choices

FLOW = flows.read(Path(flows.__file__).with_name("train_and_deploy.yaml"))
DIGEST = "sha256:" + 64 * "a"


def test_parameters_get_the_types_of_the_pipeline(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("seed: 3\nmin_agreement: 1\nhyperparameters: {epochs: 2}\nmodel_name: fraud\n")
    place = {"target": "kserve", "namespace": "ml", "staging": "gs://b/models"}  # one that takes steps
    texts = ["seed=7", "allow_signature_change=true", "traffic_steps=[10, 50]"]
    texts += [f"{name}={value}" for name, value in place.items()]
    assert parameters.gather(FLOW, file, texts) == {
        "seed": 7,
        "min_agreement": 1,
        "hyperparameters": {"epochs": 2},
        "model_name": "fraud",
        "allow_signature_change": True,
        "traffic_steps": [10, 50],
        **place,
    }


@pytest.mark.parametrize(
    ("content", "texts", "code"),
    [
        ("", ["sed=1"], "UNKNOWN_PARAMETER"),
        ("sed: 1", [], "UNKNOWN_PARAMETER"),
        ("seed: one", [], "BAD_PARAMETER"),
        ("seed: 1.5", [], "BAD_PARAMETER"),
        ("seed: true", [], "BAD_PARAMETER"),
        ("model_name: 7", [], "BAD_PARAMETER"),
        ("model_name:", [], "BAD_PARAMETER"),
        ("min_agreement: .nan", [], "BAD_PARAMETER"),
        ("- a", [], "BAD_PARAMETER"),
        ("a: [", [], "BAD_PARAMETER"),
        ("", ["seed"], "BAD_PARAMETER"),
        ("", ["seed=one"], "BAD_PARAMETER"),
        ("", ["min_agreement=inf"], "BAD_PARAMETER"),
        ("", ["hyperparameters=[1]"], "BAD_PARAMETER"),
        ("", ['hyperparameters={"epochs": NaN}'], "BAD_PARAMETER"),
        ("hyperparameters: {layers: {dropout: .inf}}", [], "BAD_PARAMETER"),
        ("serving: {labels: {since: 2026-01-01}}", [], "BAD_PARAMETER"),
        ("", ["traffic_steps=[Infinity]"], "BAD_PARAMETER"),
        ("", ["allow_signature_change=maybe"], "BAD_PARAMETER"),
    ],
)
def test_bad_parameters_are_refused(tmp_path, content, texts, code):
    file = tmp_path / "parameters.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        parameters.gather(FLOW, file, texts)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "fix"),
    [("hyperparameters={epochs: 1}", '{"epochs": 1}'), ("traffic_steps=10,50", "[10, 50]"), ("seed=x", "whole number")],
)
def test_what_is_of_another_type_is_shown_how_it_is_written(text, fix):
    with pytest.raises(InputError) as caught:
        parameters.gather(FLOW, None, [text])
    assert fix in caught.value.fix


def test_a_parameter_without_default_must_be_given():
    document = json.loads(json.dumps(FLOW.document))
    document["root"]["inputDefinitions"]["parameters"]["model_name"] = {"parameterType": "STRING"}
    with pytest.raises(InputError) as caught:
        parameters.check(flows.parse(json.dumps(document), "here"), {})
    assert caught.value.code == "MISSING_PARAMETER"


def test_steps_are_in_the_order_of_the_run():
    assert [step.name for step in FLOW.steps] == [
        "digest-data",
        "train",
        "export-serving-graph",
        "optimize",
        "inspect-graph",
        "measure",
        "choose-machine",
        "deploy-version",
    ]


def test_images_come_from_a_registry_or_by_digest(tmp_path):
    elsewhere = ImageChoice(registry="us-docker.pkg.dev/p/r", tag="next").apply(FLOW).images()
    assert set(elsewhere.values()) == {
        "us-docker.pkg.dev/p/r/python-slim:next",
        "us-docker.pkg.dev/p/r/python-tensorflow:next",
    }
    lock = tmp_path / "images.json"
    pinned = {name: f"us-docker.pkg.dev/p/r/{name}@{DIGEST}" for name in ("python-slim", "python-tensorflow")}
    lock.write_text(json.dumps(pinned))
    assert set(ImageChoice(lock=read_lock(lock)).apply(FLOW).images().values()) == set(pinned.values())
    with pytest.raises(InputError) as caught:
        ImageChoice(lock={"python-slim": pinned["python-slim"]}).apply(FLOW)
    assert caught.value.code == "NOT_IN_LOCK"
    lock.write_text('{"python-slim": "us-docker.pkg.dev/p/r/python-slim:latest"}')
    with pytest.raises(InputError) as caught:
        read_lock(lock)
    assert caught.value.code == "BAD_IMAGE_LOCK"


def test_one_component_may_have_another_image():
    old = FLOW.images()["exec-deploy-version"]
    images = FLOW.with_images({old: "r.io/other:1"}, ["deploy-version"]).images()
    assert [name for name, image in images.items() if image == "r.io/other:1"] == ["exec-deploy-version"]


def test_an_estimator_is_trained_and_exported_where_its_tensorflow_is():
    choices = Choices(ImageChoice(registry="r.io/x"))
    images = choices.apply(FLOW, "vertex", {"trainer": "estimator:own.py:make"}).images()
    with_215 = {name for name, image in images.items() if image.startswith("r.io/x/python-estimator:")}
    assert with_215 == {"exec-train", "exec-export-serving-graph"}
    assert images == choices.apply(FLOW, "vertex", {"trainer": "estimator"}).images()
    assert "estimator" not in str(choices.apply(FLOW, "vertex", {"trainer": "own.py:train"}).images())


def test_to_deploy_locally_the_step_has_a_server():
    choices, remote = Choices(ImageChoice(registry="r.io/x", tag="1")), {"target": "kserve", "platform": "kserve"}
    here, there = (choices.apply(FLOW, "kfp", values).images() for values in ({"target": "local"}, remote))
    assert here == {**there, "exec-deploy-version": "r.io/x/python-tensorflow:1"}
    assert there["exec-deploy-version"] == "r.io/x/python-slim:1"
    assert choices.apply(FLOW, "kfp", {}).images() == here  # it is the pipeline's default


def test_to_deploy_locally_alone_the_step_has_a_server_too(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3] / "docs/examples")
    alone = flows.load("serve_another_framework:serve_another_framework")
    images = Choices().apply(alone, "kfp", {}).images()
    with_server = [name for name, image in images.items() if image == _image.TENSORFLOW]
    assert with_server == ["exec-deploy-version"]
    own = alone.with_images({_image.SLIM: "r.io/mine:1"})
    assert for_local_target(own, {}).images() == own.images()
    bound = alone.with_images({_image.SLIM: f"r.io/python-slim@{DIGEST}"})
    assert for_local_target(bound, {}).images() == bound.images()


def test_other_peoples_images_stay():
    assert ImageChoice(registry="r.io/x").of("python:3.11-slim") == "python:3.11-slim"


def test_an_image_that_is_bound_to_its_digest_may_come_from_elsewhere():
    bound = f"{_image.SLIM.split(':')[0]}@{DIGEST}"
    assert ImageChoice(registry="r.io/x").of(bound) == f"r.io/x/python-slim@{DIGEST}"
    assert ImageChoice(registry="r.io/x", tag="1").of(bound) == "r.io/x/python-slim:1"
    assert ImageChoice(lock={"python-slim": f"r.io/y@{DIGEST}"}).of(bound) == f"r.io/y@{DIGEST}"


def test_a_choice_that_would_change_nothing_is_refused():
    elsewhere = ImageChoice(registry="r.io/x").apply(FLOW)
    for choice in (
        ImageChoice(registry="r.io/y"),
        ImageChoice(tag="2"),
        ImageChoice(lock={"python-slim": f"a@{DIGEST}"}),
    ):
        with pytest.raises(InputError, match=r"r\.io/x/python-slim") as caught:
            choice.apply(elsewhere)
        assert caught.value.code == "NO_PUBLIC_IMAGE"
    for choice in (ImageChoice(), ImageChoice(registry="r.io/x")):  # what the file says already
        assert choice.apply(elsewhere).images() == elsewhere.images()


def test_a_file_that_is_compiled_for_estimators_has_their_image_or_is_refused(tmp_path):
    for_them, again, elsewhere = (str(tmp_path / name) for name in ("first.yaml", "again.yaml", "elsewhere.yaml"))
    run = CliRunner().invoke
    assert run(compiling, [for_them, "--estimator"]).exit_code == 0
    assert run(compiling, [again, "--pipeline", for_them, "--estimator"]).exit_code == 0
    assert _image.ESTIMATOR in flows.load(again).images().values()
    assert run(compiling, [elsewhere, "--registry", "r.io/x"]).exit_code == 0
    refused = run(compiling, [again, "--pipeline", elsewhere, "--estimator"])
    assert isinstance(refused.exception, InputError)
    assert refused.exception.code == "NO_PUBLIC_IMAGE"


def test_resources_of_a_step_and_of_no_other():
    wanted = resources.parse(["train.cpu=8", "train.memory=32Gi", "train.accelerator=NVIDIA_L4:2"])
    executors = Choices(resources=wanted).apply(FLOW, "vertex", {}).document["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["resources"] == {
        "cpuLimit": 8.0,
        "resourceCpuLimit": "8",
        "memoryLimit": 34.359738368,
        "resourceMemoryLimit": "32Gi",
        "accelerator": {"count": "2", "type": "NVIDIA_L4", "resourceCount": "2", "resourceType": "NVIDIA_L4"},
    }
    assert "resources" not in executors["exec-optimize"]["container"]


@pytest.mark.parametrize(
    ("engine", "text", "code"),
    [
        ("vertex", "train.cpu=97", "BAD_RESOURCES"),
        ("vertex", "train.cpu=0", "BAD_RESOURCES"),
        ("vertex", "train.memory=625G", "BAD_RESOURCES"),
        ("vertex", "train.memory=1.5G", "BAD_RESOURCES"),
        ("vertex", "train.accelerator=nvidia.com/gpu", "BAD_RESOURCES"),
        ("vertex", "train.accelerator=NVIDIA_L4:3", "BAD_RESOURCES"),
        ("vertex", "train.disk=1G", "BAD_RESOURCES"),
        ("vertex", "trian.cpu=1", "UNKNOWN_STEP"),
        ("kfp", "train.accelerator=NVIDIA_L4", "BAD_RESOURCES"),
    ],
)
def test_what_an_engine_does_not_give_is_refused(engine, text, code):
    with pytest.raises(InputError) as caught:
        Choices(resources=resources.parse([text])).apply(FLOW, engine, {})
    assert caught.value.code == code


def test_a_cluster_may_have_any_gpu():
    wanted = resources.parse(["train.accelerator=nvidia.com/gpu:3", "train.cpu=200"])
    assert Choices(resources=wanted).apply(FLOW, "kfp", {})


def cached(specification):
    return {name for name, task in specification.document["root"]["dag"]["tasks"].items() if task["cachingOptions"]}


def test_steps_are_cached_only_on_images_bound_to_digests():
    pure = {"train", "export-serving-graph", "optimize", "inspect-graph"}
    assert cached(FLOW) == pure  # not the look at the data, not the choice of the day, not deploying
    bound = ImageChoice(lock={name: f"r.io/{name}@{DIGEST}" for name in ("python-slim", "python-tensorflow")})
    assert cached(Choices(images=bound).apply(FLOW, "vertex", {})) == pure
    assert cached(Choices().apply(FLOW, "vertex", {})) == set()
    assert cached(Choices(caching="as-compiled").apply(FLOW, "vertex", {})) == pure
    assert cached(Choices(images=bound, caching="off").apply(FLOW, "vertex", {})) == set()


@pytest.mark.parametrize("text", ["[", "a: 1", "root: {}\ncomponents: {}\n", ""])
def test_what_is_no_pipeline_is_refused(text):
    with pytest.raises(InputError) as caught:
        flows.parse(text, "here")
    assert caught.value.code == "NOT_A_PIPELINE"


def test_an_unknown_pipeline_is_refused():
    for reference in ("retrian", "os:nothing", "os:getcwd", "missing.yaml", "", ":x", "./p.py:x", "os.py:getcwd"):
        with pytest.raises(InputError) as caught:
            flows.load(reference)
        assert caught.value.code == "UNKNOWN_PIPELINE"
    assert "without .py" in caught.value.fix
    with pytest.raises(InputError, match=r"Did you mean retrain\?"):
        flows.load("retrian")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise RuntimeError('no data')", "RuntimeError: no data"),
        ("import not_installed_anywhere", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
        ("import os; os.nothing", "AttributeError: module 'os' has no attribute 'nothing'"),
    ],
)
def test_a_pipeline_whose_module_raises_is_the_users_to_mend(source, says, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "raising_pipeline.py").write_text(source + "\n")
    with pytest.raises(InputError) as caught:
        flows.load("raising_pipeline:flow")
    assert caught.value.code == "PIPELINE_FAILED"
    assert f"'raising_pipeline:flow' raised {says}" in caught.value.message
