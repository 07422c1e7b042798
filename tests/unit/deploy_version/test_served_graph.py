"""Which MetaGraph a version is: the one for GPUs on a GPU only, alone in the version's directory."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph.answers.ask import Servable
from servegraph.deploy_version.deploy import deploy, plan_deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.errors import ModelError
from servegraph.savedmodel.golden_file import parse_golden
from servegraph.savedmodel.layout import GOLDEN_FILE, content_digest
from servegraph.savedmodel.one_meta_graph import OneMetaGraph
from servegraph.serve.state import ServingConfig
from servegraph.storage import open_dir

BOTH = Path(__file__).parents[2] / "real_models/v1_partitioned"
ONE = Path(__file__).parents[2] / "real_models/v1_adam"
CPU = ServingConfig("n1-standard-2")
GPU = ServingConfig("n1-standard-4", "NVIDIA_TESLA_T4", 1)


@pytest.fixture
def target(tmp_path):
    return LocalTarget(tmp_path / "root", probe=lambda *_: None, lock_timeout_s=1)


@pytest.fixture
def model(tmp_path):
    """The model with golden requests of both MetaGraphs."""
    shutil.copytree(BOTH, tmp_path / "model")
    line = {"signature_name": "look_up", "inputs": {"word": ["x"]}, "outputs": {"id": [0]}}
    lines = [line, {**line, "outputs": {"id": [7]}, "tags": ["serve", "gpu"], "within": 0.25}]
    (tmp_path / "model" / GOLDEN_FILE).parent.mkdir()
    (tmp_path / "model" / GOLDEN_FILE).write_bytes(
        b"".join(gzip.compress(f"{json.dumps(each)}\n".encode()) for each in lines)
    )
    return tmp_path / "model"


def graphs(path):
    saved_model = SavedModel()
    saved_model.ParseFromString((Path(path) / "saved_model.pb").read_bytes())
    return list(saved_model.meta_graphs)


@pytest.mark.parametrize(
    ("config", "fallbacks", "number", "answer"),
    [(CPU, (), 0, 0), (GPU, (), 1, 7), (GPU, (GPU,), 1, 7), (GPU, (CPU,), 0, 0), (ServingConfig(), (), 0, 0)],
)
def test_the_metagraph_for_the_machine_is_deployed_alone(model, target, config, fallbacks, number, answer):
    request = DeployRequest(str(model), "census", config, fallbacks=fallbacks)
    document = plan_deploy(request, target).to_json()["model"]
    tag_sets = [["serve"], ["serve", "gpu"]]
    assert (document["tags"], document["left_out"]) == (tag_sets[number], [tag_sets[1 - number]])
    done = deploy(request, target)
    (deployed,) = graphs(done.resource)
    wanted = graphs(BOTH)[number]
    wanted.meta_info_def.tags[:] = ["serve"]
    assert deployed == wanted
    assert document["digest"] == content_digest(open_dir(done.resource))
    (golden,) = parse_golden((Path(done.resource) / GOLDEN_FILE).read_bytes())
    assert golden.outputs == {"id": [answer]}
    assert golden.within == (0.25 if number else 0)
    assert deploy(request, target).outcome == "unchanged"
    with Servable(Path(done.resource)) as servable:
        assert servable.signatures


def test_all_members_of_a_golden_file_are_read(model):
    twice = (model / GOLDEN_FILE).read_bytes() * 2
    assert len(parse_golden(twice)) == 2
    with pytest.raises(ModelError) as caught:
        parse_golden(twice[:-1])
    assert caught.value.code == "BAD_GOLDEN_REQUESTS"


def test_another_machine_is_another_version(model, target):
    assert deploy(DeployRequest(str(model), "census", CPU), target).outcome == "created"
    assert deploy(DeployRequest(str(model), "census", GPU), target).outcome == "updated"


def test_a_model_of_one_metagraph_is_deployed_as_it_is(target):
    plan = plan_deploy(DeployRequest(str(ONE), "census", GPU), target)
    assert (plan.model.tags, plan.model.left_out) == ((), ())
    assert plan.model.digest == content_digest(open_dir(ONE))


def test_a_view_is_read_in_pieces_as_the_whole():
    view = OneMetaGraph(open_dir(BOTH), ("serve", "gpu"), {})
    whole = view.read_bytes("saved_model.pb")
    assert {info.path: info.size_bytes for info in view.files()}["saved_model.pb"] == len(whole)
    file = view.open("saved_model.pb")
    assert b"".join(file.pread(start, 97) for start in range(0, len(whole) + 97, 97)) == whole
    file.close()
    with view.stream("saved_model.pb") as stream:
        assert stream.read() == whole
    with pytest.raises(ModelError) as caught:
        OneMetaGraph(open_dir(BOTH), ("serve", "tpu"), {}).files()
    assert caught.value.code == "GRAPH_CORRUPT"
