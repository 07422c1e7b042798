"""SavedModels as sessions of TF1 write them, and what rungs make of them."""

import numpy as np
import tensorflow as tf

from servegraph.answers.ask import Servable
from servegraph.rewriting import draft_reader, draft_writer

tf1 = tf.compat.v1


def signature(inputs, outputs):
    """Return a SignatureDef of tensors by name."""
    tensors = [
        {name: tf1.saved_model.utils.build_tensor_info(t) for name, t in side.items()} for side in (inputs, outputs)
    ]
    return tf1.saved_model.build_signature_def(*tensors, tf.saved_model.PREDICT_METHOD_NAME)


def save(path, session, signatures, **more):
    """Initialize the variables of the session and write its graph as a SavedModel; return `path`."""
    session.run([tf1.global_variables_initializer(), tf1.local_variables_initializer()])
    builder = tf1.saved_model.Builder(str(path))
    builder.add_meta_graph_and_variables(session, ["serve"], signatures, **more)
    builder.save()
    return path


def graph_with(build, path):
    """Return what `build(path, session)` returns in a graph of its own."""
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        return build(path, session)


def weights(name, shape=(8, 8), seed=1, **more):
    """Return a variable of random values."""
    return tf1.get_variable(name, shape, initializer=tf1.random_normal_initializer(seed=seed), **more)


def changed(path, *rungs):
    """Write the model beside itself as the rungs make it, with nothing that would undo them."""
    draft = draft_reader.read(path)
    assert not draft.untouched
    for rung in rungs:
        draft = rung(draft)
    out = path.with_name("changed")
    draft_writer.write(draft, out)
    return out


def answers(path, requests):
    """Return what the model answers each of (signature, inputs)."""
    with Servable(path, loader="session") as servable:
        return [servable(name, request) for name, request in requests]


def assert_same(path, requests, *rungs):
    """Assert that the model answers the same after the rungs."""
    for want, have in zip(answers(path, requests), answers(changed(path, *rungs), requests), strict=True):
        for name, value in want.items():
            np.testing.assert_allclose(have[name], value, rtol=1e-5, atol=1e-6)
