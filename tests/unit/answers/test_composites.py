"""Sparse and ragged tensors, of which a signature takes the parts one by one, are made up whole."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers.composites import Ragged, Sparse, composites
from servegraph.answers.generated import tries
from servegraph.answers.samples import InputSpec
from servegraph.measure.questions import collect
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize

WIDTH = 300


class Net(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.random.stateless_normal([WIDTH, 8], [1, 2]))

    @tf.function(input_signature=[tf.SparseTensorSpec([None, WIDTH], tf.float32)])
    def sparse(self, x: tf.SparseTensor) -> dict[str, tf.Tensor]:
        return {"y": tf.sparse.sparse_dense_matmul(x, self.weight)}

    @tf.function(input_signature=[tf.SparseTensorSpec([None, WIDTH], tf.int64), tf.TensorSpec([None, 1], tf.float32)])
    def dense(self, words: tf.SparseTensor, factor: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.cast(tf.sparse.to_dense(words), tf.float32) @ self.weight * factor}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int64, "indices"),
            tf.TensorSpec([None], tf.float32, "values"),
            tf.TensorSpec([2], tf.int64, "dense_shape"),
        ]
    )
    def named(self, indices: tf.Tensor, values: tf.Tensor, dense_shape: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.sparse.sparse_dense_matmul(tf.SparseTensor(indices, values, dense_shape), self.weight)}

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int64)])
    def ragged(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        return {"y": tf.reduce_mean(tf.gather(self.weight, ids), axis=1)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64, "row_splits"), tf.TensorSpec([None], tf.int64, "ids")]
    )
    def called(self, row_splits: tf.Tensor, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.ragged(tf.RaggedTensor.from_row_splits(ids, row_splits))

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None, None], tf.int64)])
    def nested(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        return {"y": tf.reduce_sum(tf.reduce_mean(tf.gather(self.weight, ids), axis=2), axis=1)}


@pytest.mark.parametrize("name", ["sparse", "dense", "named", "ragged", "called", "nested"])
def test_a_model_of_such_inputs_is_asked_and_made_smaller(name: str, tmp_path: Path) -> None:
    net = Net()
    tf.saved_model.save(net, str(tmp_path / "net"), signatures=getattr(net, name))
    result = optimize(tmp_path / "net", tmp_path / "out", Goal(rungs=("strip", "share", "fold", "halve")))
    halve = result.steps[-1]
    assert halve.kept, halve.reason
    assert halve.max_abs_diff
    assert result.sample_rows == 3
    assert not any("alike" in note for note in result.notes)
    assert not collect(tmp_path / "net", None).is_batched  # its rows are not apart, so they cannot be counted out


def test_numbers_that_only_look_so_are_asked_as_such() -> None:
    vector = InputSpec("int64", (None,))
    assert composites({"a": vector, "b": vector}) == []
    assert composites({"x": InputSpec("float32", (None, 4)), "x_1": InputSpec("float32", (None,))}) == []
    assert composites({"x": InputSpec("float32", (None, 4)), "size": InputSpec("int64", (2,))}) == []


def test_parts_are_told_apart_by_shapes_and_names() -> None:
    sparse = {"indices": ("int64", (None, 2)), "values": ("float32", (None,)), "dense_shape": ("int64", (2,))}
    specs = {f"{one}_{part}": InputSpec(*spec) for one in "ab" for part, spec in sparse.items()}
    assert composites(specs) == [
        Sparse("a_indices", "a_values", "a_dense_shape", 2),
        Sparse("b_indices", "b_values", "b_dense_shape", 2),
    ]
    splits = InputSpec("int64", (None,))
    found = composites({"x": InputSpec("string", (None,)), "x_1": splits, "x_2": splits, "y": splits})
    assert found == [Ragged("x", ("x_1", "x_2"))]
    called = {"a_splits": splits, "a_values": splits, "b_splits": splits, "b_values": InputSpec("float32", (None,))}
    assert composites({"z": InputSpec("float32", (None, 4)), **called}) == [
        Ragged("a_values", ("a_splits",)),
        Ragged("b_values", ("b_splits",)),
    ]
    pixels = {"pixels": InputSpec("float32", (None, 3)), "outer_split": splits, "split": splits}
    assert composites(pixels) == [Ragged("pixels", ("outer_split", "split"))]
    assert composites({"split": InputSpec("string", (None,)), "x": splits}) == []


def test_a_ragged_request_has_fewer_splits_than_values() -> None:
    specs = {"x": InputSpec("int64", (None,)), "x_1": InputSpec("int64", (None,))}
    for request in tries(specs)[0].batches(1):
        splits, values = request["x_1"], request["x"]
        assert splits[0] == 0
        assert splits[-1] == len(values) > len(splits)
        assert np.all(np.diff(splits) > 0)
