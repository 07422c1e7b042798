"""What comes out of functions is named as it was inside of them, and no two nodes become one by it."""

import keras
import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.answers.ask import Servable
from servegraph.optimize.optimize import Goal, optimize
from servegraph.optimize.scopes import without_calls
from servegraph.rewriting import draft_reader

layers = keras.layers


def nodes(*pairs):
    return {name: NodeDef(name=name, op="Add", input=inputs) for name, inputs in pairs}


def test_the_path_of_calls_goes_and_readers_follow():
    named = without_calls(
        nodes(
            ("PartitionedCall_1/StatefulPartitionedCall/net/dense/MatMul", ["x"]),
            ("y", ["PartitionedCall_1/StatefulPartitionedCall/net/dense/MatMul:1", "^Func/PartitionedCall/input/_7"]),
            ("Func/PartitionedCall/input/_7", []),
            ("PartitionedCall/net/lstm/while/body/_51/net/lstm/while/add", ["y"]),
            ("x", []),
        ),
        {"x", "y"},
    )
    assert {name: list(node.input) for name, node in named.items()} == {
        "net/dense/MatMul": ["x"],
        "y": ["net/dense/MatMul:1", "^input/_7"],
        "input/_7": [],
        "net/lstm/while/add": ["y"],
        "x": [],
    }
    assert all(name == node.name for name, node in named.items())


def test_names_that_are_taken_known_or_not_allowed_stay_apart():
    named = without_calls(
        nodes(
            ("PartitionedCall/a", []),
            ("PartitionedCall_1/a", []),
            ("PartitionedCall/known", []),
            ("known", []),
            ("PartitionedCall/_3", []),
            ("PartitionedCall", []),
        ),
        {"PartitionedCall/known", "known"},
    )
    assert list(named) == ["a", "a_1", "PartitionedCall/known", "known", "PartitionedCall/_3", "PartitionedCall"]


def test_a_small_recurrent_model_gets_smaller_by_folding(tmp_path):
    keras.utils.set_random_seed(0)
    recurrent = [layers.Bidirectional(layers.LSTM(8, return_sequences=True)), layers.GRU(8)]
    model = keras.Sequential([keras.Input((6, 3)), *recurrent, layers.Dense(4), layers.BatchNormalization()])
    model.export(tmp_path / "model", verbose=False)
    steps = {step.name: step for step in optimize(tmp_path / "model", tmp_path / "out", Goal()).steps}
    assert steps["fold"].kept
    assert steps["fold"].bytes < 0.9 * steps["share"].bytes
    (graph,) = draft_reader.read(tmp_path / "out").serving_graphs
    assert not [name for name in graph.nodes if "PartitionedCall/" in name]
    (name,) = graph.signatures["serving_default"].inputs
    request = {name: np.ones([2, 6, 3], np.float32)}
    with Servable(tmp_path / "model") as one, Servable(tmp_path / "out") as other:
        want, have = one("serving_default", request), other("serving_default", request)
    for key, value in want.items():
        assert np.abs(value - have[key]).max() < 1e-6
