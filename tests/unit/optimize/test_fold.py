"""What is per channel goes into the weights before it, through whatever only moves values between the two."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.fatal_model import write_fatal_model

from servegraph.answers.ask import Servable
from servegraph.optimize.constants import as_constants
from servegraph.optimize.fold import fold
from servegraph.optimize.share import share
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.contents import Literal, Rounded
from servegraph.rewriting.graph import node_name
from servegraph.rewriting.strip import strip
from servegraph.rewriting.weights import weights_of

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
    before = draft_reader.read(path)
    after = fold(before)
    draft_writer.write(after, path.parent / "folded")
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


class Batched(tf.Module):
    """Batches of matrices, as a Dense layer of rank 3 is in Keras 3.12, with factors behind them."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0)
        self.matrix = tf.Variable(random.normal(size=[3, 4]).astype(np.float32))
        self.matrices = tf.Variable(random.normal(size=[5, 3, 4]).astype(np.float32))
        self.turned = tf.Variable(random.normal(size=[4, 3]).astype(np.float32))
        self.factors = tf.Variable(random.uniform(1, 2, [4]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 2, 3], name="x")])
    def folded(self, x):
        return {
            "by one": tf.nn.bias_add(x @ self.matrix, self.factors) * self.factors,
            "by several": x @ self.matrices * self.factors + 1.0,
        }

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 2, 3], name="x")])
    def as_it_is(self, x):
        return {
            "turned": tf.matmul(x, self.turned, transpose_b=True) * self.factors,
            "by rows": x @ self.matrix * tf.reshape(self.factors[:2], [2, 1]),
        }


@pytest.mark.parametrize("name", ["folded", "as_it_is"])
def test_what_is_per_channel_goes_into_batches_of_matrices(name, tmp_path):
    made = Batched()
    tf.saved_model.save(made, str(tmp_path / "model"), signatures=getattr(made, name))
    _, operations = folded(tmp_path / "model")
    assert "BatchMatMulV2" in operations
    assert ("Mul" in operations) == (name == "as_it_is")
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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_stores_what_it_computes_with(dtype, tmp_path):
    keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(8, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(32, activation="gelu")]
    inner = [type(layer).from_config(layer.get_config() | {"dtype": f"mixed_{dtype}"}) for layer in stack]
    model = keras.Sequential([keras.Input((8, 8, 3)), *inner, layers.Dense(4, dtype="float32")])
    model.export(tmp_path / "model", verbose=False)
    after = fold(draft_reader.read(tmp_path / "model", keep=("*dense*kernel*",)))
    draft_writer.write(after, tmp_path / "folded")
    require_equal_answers(tmp_path / "model", within=0)
    large = {content.shape: content for content in after.contents.values() if np.prod(content.shape) > 512}
    assert {shape: content.dtype for shape, content in large.items()} == {(288, 32): dtype}
    assert isinstance(large[288, 32], Rounded)
    assert weights_of(after) == []


class TwiceRead(tf.Module):
    """A weight that serves in its own precision as well."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=[32, 32]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 32], name="x")])
    def serve(self, x):
        rounded = tf.cast(x, tf.bfloat16) @ tf.cast(self.weights, tf.bfloat16)
        return {"exact": x @ self.weights, "rounded": tf.cast(rounded, tf.float32)}


def test_a_weight_that_is_needed_in_its_own_precision_too_stays(tmp_path):
    made = TwiceRead()
    tf.saved_model.save(made, str(tmp_path / "model"), signatures=made.serve)
    folded(tmp_path / "model")
    require_equal_answers(tmp_path / "model", within=0)
    assert [content.dtype for content in fold(draft_reader.read(tmp_path / "model")).contents.values()] == ["float32"]


def test_a_bias_of_zeros_stays_a_variable(tmp_path):
    """TensorFlow would take a constant one out, and then fuse no activation with the product."""
    stack = [layers.Conv2D(8, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    keras.Sequential([keras.Input((8, 8, 3)), *stack]).export(tmp_path / "model", verbose=False)
    after = fold(draft_reader.read(tmp_path / "model"))
    for draft in (after, as_constants(after)):
        (nodes,) = (graph.nodes for graph in draft.serving_graphs)
        biases = {nodes[node_name(node.input[1])].op for node in nodes.values() if node.op == "BiasAdd"}
        assert biases == {"ReadVariableOp"}


class Computed(tf.Module):
    """Weights that are computed from others at each request."""

    def __init__(self):
        super().__init__()
        self.direction = tf.Variable(
            np.random.default_rng(0).normal(size=[32, 32]).astype(np.float32), name="direction"
        )

    @tf.function(input_signature=[tf.TensorSpec([None, 32], name="x")])
    def serve(self, x):
        return {"y": x @ (self.direction / tf.norm(self.direction))}


@pytest.mark.parametrize(
    ("pattern", "left"), [("*conv2d*kernel*", 0), ("_all_variables/*", 0), ("variables/*", 0), ("*dense*", 1)]
)
def test_weights_are_kept_by_the_names_they_had_before_batch_norm_was_folded(pattern, left, tmp_path):
    normalized((8, 8, 5), layers.Conv2D(8, 3, use_bias=False)).export(tmp_path / "model", verbose=False)
    after = fold(share(strip(draft_reader.read(tmp_path / "model", keep=(pattern,)))))
    assert len(weights_of(after)) == left


@pytest.mark.parametrize(("pattern", "left"), [("direction", 0), ("other", 1)])
def test_computed_weights_are_kept_by_the_names_of_what_they_come_from(pattern, left, tmp_path):
    made = Computed()
    tf.saved_model.save(made, str(tmp_path / "model"), signatures=made.serve)
    after = fold(draft_reader.read(tmp_path / "model", keep=(pattern,)))
    assert [type(content) for content in after.contents.values()] == [Literal]
    assert len(weights_of(after)) == left


def test_what_ends_the_process_that_computes_it_is_left_to_the_requests(tmp_path):
    write_fatal_model(tmp_path / "model")
    [graph] = fold(draft_reader.read(tmp_path / "model")).serving_graphs
    assert "Conv2D" in {node.op for node in graph.nodes.values()}
