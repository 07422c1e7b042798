"""What a server holds requests to: the shapes of a signature, but not those of TF1."""

import numpy as np
import pytest
import tensorflow as tf
from tests.tf1_models import graph_with, save, signature, weights

from servegraph.optimize.fold import fold
from servegraph.optimize.names import shorten
from servegraph.optimize.share import share
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.strip import strip
from servegraph.serve.signatures import read_serving_graph
from servegraph.storage import open_dir


def of_tf2(path):
    """One function behind two equal signatures, of which optimizing leaves one."""
    module = tf.Module()
    module.w = tf.Variable(np.ones((3, 3, 1, 8), np.float32))
    module.f = tf.function(
        lambda image: {"y": tf.nn.conv2d(image, module.w, 1, "SAME")},
        input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f, "other": module.f})
    return path


def of_tf1(path):
    def build(path, session):
        x = tf.compat.v1.placeholder(tf.float32, [None, 8], name="x")
        return save(path, session, {"serving_default": signature({"x": x}, {"y": x @ weights("w")})})

    return graph_with(build, path)


@pytest.mark.parametrize(("write", "is_declared"), [(of_tf2, True), (of_tf1, False)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_shapes_are_declared_after_optimizing_as_before(tmp_path, write, is_declared):
    path = write(tmp_path / "m")
    assert read_serving_graph(open_dir(path)).declares_shapes == is_declared
    draft = draft_reader.read(path)
    for number, rung in enumerate((strip, share, fold, shorten)):
        draft = rung(draft)
        draft_writer.write(draft, optimized := tmp_path / str(number))
        found = read_serving_graph(open_dir(optimized))
        assert found.declares_shapes == is_declared
        assert not found.has_object_graph
