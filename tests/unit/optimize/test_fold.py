"""What is per channel goes into the weights before it, through whatever only moves values between the two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers.ask import Servable
from servegraph.optimize.fold import fold
from servegraph.rewriting import draft as drafts

layers = keras.layers
PER_CHANNEL = {"Mul", "AddV2", "Sub", "FusedBatchNormV3"}
FOLDED = {
    "in one dimension": ((12, 5), lambda: layers.Conv1D(7, 3)),
    "in one dimension, dilated": ((12, 5), lambda: layers.Conv1D(7, 3, dilation_rate=2, padding="causal")),
    "depthwise in one dimension": ((12, 5), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise, dilated": ((9, 9, 5), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2)),
    "of rank 3": ((6, 5), lambda: layers.Dense(7)),
    "transposed": ((5, 5, 6), lambda: layers.Conv2DTranspose(7, 3, strides=2)),
    "transposed, with large weights": ((5, 5, 16), lambda: layers.Conv2DTranspose(8, 3, use_bias=False)),
    "transposed in one dimension": ((5, 6), lambda: layers.Conv1DTranspose(7, 3, strides=2)),
    "transposed in three dimensions": ((3, 3, 3, 6), lambda: layers.Conv3DTranspose(7, 2)),
}


def normalized(shape, layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), layer, layers.BatchNormalization(), layers.ReLU()])
    for weight in model.weights:
        if "kernel" not in weight.path:
            weight.assign(np.random.uniform(0.5, 2.0, weight.shape))
    return model


def folded(path):
    """Write the model folded, beside it; return the operations of both, by name."""
    before = drafts.read(path)
    after = fold(before)
    drafts.write(after, path.parent / "folded")
    return [{node.op for node in graph.nodes.values()} for draft in (before, after) for graph in draft.serving_graphs]


def require_equal_answers(path, rows=3, within=1e-5):
    with Servable(path, loader="session") as model, Servable(path.parent / "folded", loader="session") as other:
        definition = model._definitions["serving_default"]
        (name,) = definition.inputs
        shape = [dim.size for dim in definition.inputs[name].tensor_shape.dim]
        request = {name: np.random.default_rng(0).normal(size=[rows, *shape[1:]]).astype(np.float32)}
        want, have = model("serving_default", request), other("serving_default", request)
    assert want.keys() == have.keys()
    for key, value in want.items():
        assert np.abs(value - have[key]).max() <= within * np.abs(value).max()


@pytest.mark.parametrize("kind", FOLDED)
def test_batch_norm_goes_into_a_product(kind, tmp_path):
    shape, make = FOLDED[kind]
    normalized(shape, make()).export(tmp_path / "model", verbose=False)
    _, operations = folded(tmp_path / "model")
    assert "BiasAdd" in operations
    assert not operations & PER_CHANNEL
    require_equal_answers(tmp_path / "model")


class Moved(tf.Module):
    """Products behind which values are moved so that the last dimension is another, or is computed."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0)
        self.kernel = tf.Variable(random.normal(size=[2, 2, 3, 4]).astype(np.float32))
        self.wide = tf.Variable(random.normal(size=[1, 2, 3, 4]).astype(np.float32))
        self.factors = tf.Variable(random.uniform(1, 2, [16]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 2, 3], name="x")])
    def serve(self, x):
        convolved = tf.nn.conv2d(x[:, :3], self.kernel, 1, "VALID")  # [n, 2, 1, 4]
        short = tf.nn.conv2d(x, self.wide, 1, "VALID")  # [n, 4, 1, 4]
        rows = tf.reshape(tf.nn.conv2d(x, self.wide, 1, "VALID"), [-1, 16])
        return {
            "another last dimension": rows * self.factors,
            "as long, and another": tf.transpose(tf.squeeze(short, [2]), [0, 2, 1]) * self.factors[:4] + 1.0,
            "computed": tf.reshape(tf.nn.conv2d(x, self.wide, 2, "VALID"), [tf.shape(x)[0], -1]) * self.factors[:8],
            "by more dimensions": tf.squeeze(convolved, [2]) * tf.reshape(self.factors[:4], [1, 1, 1, 4]),
        }


def test_what_is_per_something_else_stays(tmp_path):
    made = Moved()
    tf.saved_model.save(made, str(tmp_path / "model"), signatures=made.serve)
    _, operations = folded(tmp_path / "model")
    assert "BiasAdd" not in operations
    require_equal_answers(tmp_path / "model", within=0)


class Named(tf.Module):
    """What is moved is also an output of its own."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=[3, 3, 4]).astype(np.float32))
        self.factors = tf.Variable(tf.range(1.0, 5.0))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 3], name="x")])
    def serve(self, x):
        convolved = tf.nn.conv1d(x, self.kernel, 1, "VALID")
        return {"convolved": convolved, "scaled": convolved * self.factors}


def test_a_result_that_is_read_elsewhere_stays(tmp_path):
    made = Named()
    tf.saved_model.save(made, str(tmp_path / "model"), signatures=made.serve)
    _, operations = folded(tmp_path / "model")
    assert "Mul" in operations
    require_equal_answers(tmp_path / "model", within=0)
