"""Graphs that do not hold together are left as they are, and followed nowhere."""

import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tests.tf1_models import graph_with, save, signature, weights

from servegraph.errors import ModelError
from servegraph.optimize.goal import Goal
from servegraph.optimize.inline import inline
from servegraph.optimize.optimize import optimize
from servegraph.rewriting import draft_reader
from servegraph.rewriting.graph import Untransformable

tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def plain(path, session):
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    y = tf.identity(tf.identity(tf.matmul(x, weights("w")), name="first"), name="second")
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


def change(path, how):
    """Change the first MetaGraph of the model; `how` gets it and its nodes by name."""
    file, model = path / "saved_model.pb", SavedModel()
    model.ParseFromString(file.read_bytes())
    graph = model.meta_graphs[0]
    how(graph, {node.name: node for node in graph.graph_def.node})
    file.write_bytes(model.SerializeToString())
    return path


def in_circle(graph, nodes):
    nodes["first"].input[:] = ["second"]


def twice(graph, nodes):
    graph.graph_def.node.add().CopyFrom(nodes["second"])


def without(name):
    return lambda graph, nodes: graph.graph_def.node.remove(nodes[name])


def with_inputs(count):
    def how(graph, nodes):
        nodes["MatMul"].input[:] = ["x"] * count

    return how


def with_many(graph, nodes):
    nodes["save/restore_all"].op = "AddN"
    nodes["save/restore_all"].attr["N"].i = 2**62


def naming_nothing(graph, nodes):
    graph.signature_def["serving_default"].inputs["x"].ClearField("name")


CHANGES = {
    "is computed from itself": in_circle,
    "two nodes of the main graph are called 'second'": twice,
    "takes 'first', which is not there": without("first"),
    "names 'second:0', which is not there": without("second"),
    "has 1 inputs, and takes 2": with_inputs(1),
    "has 3 inputs, and takes 2": with_inputs(3),
    "has 0 inputs, and takes 4611686018427387904": with_many,
    "names '', which is not there": naming_nothing,
}


@pytest.mark.parametrize("why", CHANGES)
def test_it_is_left_as_it_is(why, tmp_path):
    path = change(graph_with(plain, tmp_path / "m"), CHANGES[why])
    assert why in draft_reader.read(path).untouched[0]


def library(graph, _):
    return graph.graph_def.library.function


def calls_itself_in_a_circle(graph, nodes):
    function = next(f for f in library(graph, nodes) if any(node.input for node in f.node_def))
    node = next(node for node in function.node_def if node.input)
    node.input[0] = f"{node.name}:output:0"


def returns_nothing(graph, nodes):
    function = next(f for f in library(graph, nodes) if f.ret)
    function.ret[min(function.ret)] = "nowhere:output:0"


def is_there_twice(graph, nodes):
    library(graph, nodes).add().CopyFrom(library(graph, nodes)[0])


@pytest.mark.parametrize(
    ("why", "how"),
    [
        ("is computed from itself", calls_itself_in_a_circle),
        ("returns 'nowhere:output:0', which is not there", returns_nothing),
        ("two functions are called", is_there_twice),
    ],
)
def test_so_is_one_whose_functions_do_not(why, how, tmp_path):
    model = shutil.copytree(Path(__file__).parents[2] / "real_models/module", tmp_path / "m")
    assert why in draft_reader.read(change(model, how)).untouched[0]


def test_one_that_tensorflow_cannot_load_is_refused_as_damaged(tmp_path):
    path = change(graph_with(plain, tmp_path / "m"), without("first"))
    with pytest.raises(ModelError) as refused:
        optimize(path, tmp_path / "out", Goal())
    assert refused.value.code == "GRAPH_INCONSISTENT"
    assert not (tmp_path / "out").exists()


def test_one_that_ends_the_process_in_which_tensorflow_inlines_it_is_not_inlined(tmp_path):
    def without_a_type(graph, nodes):
        del nodes["x"].attr["dtype"]

    draft = draft_reader.read(change(graph_with(plain, tmp_path / "m"), without_a_type))
    assert not draft.untouched
    with pytest.raises(Untransformable, match=r"cannot inline"):
        inline(draft.serving_graphs[0])
