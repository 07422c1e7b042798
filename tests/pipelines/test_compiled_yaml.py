"""The committed YAML equals its sources, and other pipelines can be built from it alone."""

from pathlib import Path

import pytest
from kfp import compiler, components, dsl

from servegraph_pipelines import flows
from servegraph_pipelines.compiling import committed_files

PACKAGE = Path(__file__).parents[2] / "components/servegraph"
UNCACHED = {"digest-data", "check-data", "live-version", "evaluate", "measure", "choose-machine", "deploy-version"}


@pytest.mark.parametrize(
    ("file", "text"), list(committed_files()), ids=lambda value: getattr(value, "parent", value) and ""
)
def test_the_committed_yaml_is_what_the_source_compiles_to(file, text):
    assert file.read_text() == text, f"{file} is out of date: run `make yaml`"


@pytest.mark.parametrize("flow", list(flows.FLOWS))
def test_the_cache_of_an_engine_has_the_content_of_all_inputs_in_its_key(flow):
    """An engine's key has an artifact's id; what stands for its content is the digest that its producer returns."""
    document = flows.load(flow).document
    dags = [document["root"]["dag"], *(row["dag"] for row in document["components"].values() if "dag" in row)]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items() if "cachingOptions" in task}
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    pure = {"train", "export-serving-graph", "optimize", "inspect-graph"}
    assert pure <= cached
    assert not {name.removesuffix("-2") for name in cached} & (UNCACHED | {"record-training"})
    for name in pure:
        given = tasks[name]["inputs"]
        for key, row in given.get("artifacts", {}).items():
            source = row["taskOutputArtifact"]
            digest = given["parameters"][f"{key}_digest"]["taskOutputParameter"]
            assert digest["producerTask"] == source["producerTask"]
            assert digest["outputParameterKey"] == f"{source['outputArtifactKey']}_digest"
    data = tasks["train"]["inputs"]["parameters"]["data_digest"]
    assert (data.get("componentInputParameter") or data["taskOutputParameter"]["outputParameterKey"]).endswith(
        "content_digest"
    )


def load(name):
    return components.load_component_from_file(str(PACKAGE / name / "component.yaml"))


def test_another_pipeline_is_built_from_the_yaml_files_alone(tmp_path):
    optimize, inspect_graph, choose_machine, deploy_version = map(
        load, ("optimize", "inspect_graph", "choose_machine", "deploy_version")
    )

    @dsl.pipeline(name="slim-and-deploy")
    def slim_and_deploy(model_uri: str, root: str):
        model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
        slim = optimize(model=model.output, budget="500MB")
        inspected = inspect_graph(model=slim.outputs["optimized"])
        chosen = choose_machine(model_bytes=inspected.outputs["size_bytes"], platform="ai-platform")
        deploy_version(
            model=slim.outputs["optimized"],
            name="other",
            location=root,
            machine_type=chosen.outputs["machine_type"],
        )

    compiler.Compiler().compile(slim_and_deploy, str(tmp_path / "p.yaml"))
    assert "comp-deploy-version" in (tmp_path / "p.yaml").read_text()


RUN_INSPECT = """
import sys
from kfp import components, dsl, local
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
inspect_graph = components.load_component_from_file(sys.argv[1] + "/inspect_graph/component.yaml")
choose_machine = components.load_component_from_file(sys.argv[1] + "/choose_machine/component.yaml")

@dsl.pipeline(name="look")
def look(model_uri: str) -> str:
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
    inspected = inspect_graph(model=model.output)
    return choose_machine(model_bytes=inspected.outputs["size_bytes"], platform="ai-platform").outputs["machine_type"]

print("CHOSEN", look(model_uri=sys.argv[3]).output)
"""


def test_components_loaded_from_yaml_run(tmp_path):
    """On a model made elsewhere, in a process of its own: kfp.local keeps its settings for the whole process."""
    import subprocess
    import sys

    model = Path(__file__).parents[1] / "real_models/keras_dense"
    command = [sys.executable, "-W", "ignore", "-c", RUN_INSPECT, str(PACKAGE), str(tmp_path), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "CHOSEN mls1-c1-m2" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
