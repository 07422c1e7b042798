"""What tables are restored from in its shorter forms: TensorFlow gives the same elements back."""

import numpy as np
import pytest
import tensorflow as tf

from servegraph.optimize.stored_tables import plan_table
from servegraph.rewriting.contents import Literal


def read_back(form, content):
    """Run the operations that turn the stored parts back."""
    nodes = {}
    with tf.Graph().as_default() as graph:
        stored = [tf.constant(list(part)).op.name for part in form.stored(content, None)]
        tensor = form.decode(nodes, "back", stored, content)
        definition = graph.as_graph_def()
        definition.node.extend(nodes.values())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(definition, name="")
        return session.run(tensor if ":" in tensor else f"{tensor}:0")


@pytest.mark.parametrize(
    "odd", [[b""], [b"", b"", b"end", b""], [b"a\nb", b"a\0b"], ["\u00e9 \u4e2d".encode(), b"\xff\xfe"], [b" ", b"\t"]]
)
def test_text_comes_back_byte_for_byte(odd):
    words = np.array([*odd, *(f"word {number}".encode() for number in range(500)), *odd], object)
    content = Literal(words)
    form = plan_table(content)
    assert form is not None
    assert form.stored_bytes < sum(map(len, words)) / 2
    assert read_back(form, content).tolist() == words.tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("start", [-3, 0, 2])
def test_ids_that_count_are_not_stored(start, dtype):
    content = Literal(np.arange(start, start + 2000, dtype=dtype))
    form = plan_table(content)
    assert form.stored_bytes == 0
    back = read_back(form, content)
    assert back.dtype == dtype
    assert back.tolist() == content.values.tolist()


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2, 4], np.int64),
        np.array([3, 2, 1], np.int64),
        np.array([b"few", b"words"], object),
        np.array([bytes([number]) * 600 for number in range(32)], object),  # no character is left to join them by
        np.array([], np.int64),
        np.arange(6).reshape(2, 3),
        np.arange(5, dtype=np.float32),
    ],
)
def test_what_has_no_shorter_form_stays(values):
    assert plan_table(Literal(values)) is None
