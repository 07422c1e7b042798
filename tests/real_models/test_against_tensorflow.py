"""What the TF-free reader and writer say, against TensorFlow itself, on every model in this folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.structure import messages
from servegraph.storage import open_dir

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.filterwarnings("ignore")

HERE = Path(__file__).parent
MODELS = sorted(path.parent.name for path in HERE.glob("*/saved_model.pb"))


def elements(value: Any) -> bytes | list[bytes]:
    """A tensor's bytes, or its strings (numpy drops trailing zeros of a scalar string)."""
    if isinstance(value, bytes):
        return [value]
    return value.ravel().tolist() if value.dtype == object else value.tobytes()


def same_tensors(prefix: Path, bundle: BundleReader) -> None:
    loaded = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = loaded.get_variable_to_shape_map(), loaded.get_variable_to_dtype_map()
    assert set(shapes) == set(bundle.entries)
    for key, entry in bundle.entries.items():
        assert (tuple(shapes[key]), dtypes[key].name) == (entry.shape, entry.dtype)
        expected = elements(loaded.get_tensor(key))
        assert (bundle.read_strings(entry) if entry.dtype == "string" else bundle.read(entry)) == expected


@pytest.mark.parametrize("name", MODELS)
def test_tensors_are_what_tensorflow_reads(name: str) -> None:
    with BundleReader(open_dir(HERE / name)) as bundle:
        same_tensors(HERE / name / "variables/variables", bundle)


@pytest.mark.parametrize("name", MODELS)
def test_tensorflow_reads_what_is_written(name: str, tmp_path: Path) -> None:
    """In another order than stored, and with one tensor under a second key."""
    prefix = tmp_path / "variables/variables"
    with BundleReader(open_dir(HERE / name)) as source, BundleWriter(prefix) as writer:
        for entry in reversed(source.entries.values()):
            writer.copy(entry, source)
        writer.alias("second_key", next(iter(source.entries)))
    with BundleReader(open_dir(tmp_path)) as bundle:
        same_tensors(prefix, bundle)


@pytest.mark.parametrize("name", ["keras_dense", "keras_lookup", "module"])
def test_both_loaders_load_a_rewritten_model(name: str, tmp_path: Path) -> None:
    model = tmp_path / name
    shutil.copytree(HERE / name, model)
    with BundleReader(open_dir(HERE / name)) as source, BundleWriter(model / "variables/variables") as writer:
        for entry in reversed(source.entries.values()):
            writer.copy(entry, source)
    original, rewritten = tf.saved_model.load(str(HERE / name)), tf.saved_model.load(str(model))
    sample = {
        "keras_dense": {"x": tf.ones((2, 4))},
        "keras_lookup": {"word": tf.constant([["a"], ["z"]]), "age": tf.ones((2, 1))},
        "module": {"x": tf.ones((2, 4))},
    }[name]
    expected = original.signatures["serving_default"](**sample)
    answer = rewritten.signatures["serving_default"](**sample)
    assert all((expected[key].numpy() == answer[key].numpy()).all() for key in expected)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(model)).signature_def["serving_default"]
        feed = {signature.inputs[key].name: value.numpy() for key, value in sample.items()}
        fetch = {key: info.name for key, info in signature.outputs.items()}
        in_session = session.run(fetch, feed)
    assert all((expected[key].numpy() == in_session[key]).all() for key in expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_is_what_protobuf_reads(name: str) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    expected = saved_model_pb2.SavedModel()
    expected.ParseFromString((HERE / name / "saved_model.pb").read_bytes())
    graph = read_saved_model(open_dir(HERE / name))
    assert len(graph.meta_graphs) == len(expected.meta_graphs)
    for ours, theirs in zip(graph.meta_graphs, expected.meta_graphs, strict=True):
        assert list(ours.tags) == list(theirs.meta_info_def.tags)
        assert ours.tf_version == theirs.meta_info_def.tensorflow_version
        assert set(ours.signatures) == set(theirs.signature_def)
        assert ours.main.node_count == len(theirs.graph_def.node)
        functions = theirs.graph_def.library.function
        assert {name: body.node_count for name, body in ours.functions.items()} == {
            function.signature.name: len(function.node_def) for function in functions
        }
        for key, signature in ours.signatures.items():
            for side in ("inputs", "outputs"):
                infos = getattr(signature, side)
                assert set(infos) == set(getattr(theirs.signature_def[key], side))
                for tensor, info in infos.items():
                    proto = getattr(theirs.signature_def[key], side)[tensor]
                    shape = tf.TensorShape(proto.tensor_shape)
                    assert info.shape == (None if shape.rank is None else tuple(shape.as_list()))
                    assert info.dtype == ("unknown(0)" if not proto.dtype else tf.as_dtype(proto.dtype).name)


def test_the_table_of_messages_is_that_of_tensorflow() -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    expected: dict[str, dict[int, str]] = {}
    waiting = [saved_model_pb2.SavedModel.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        row = expected[message.full_name.removeprefix("tensorflow.")] = {}
        for field in message.fields:
            if field.type == field.TYPE_STRING:
                row[field.number] = "text"
            elif field.message_type is not None:
                row[field.number] = field.message_type.full_name.removeprefix("tensorflow.")
                if row[field.number] not in expected:
                    waiting.append(field.message_type)
    assert messages() == expected
