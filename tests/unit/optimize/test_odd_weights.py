"""Weights, tables and state as TF1, imports and hand-written exports have them: none is lost or taken for another."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tests.tf1_models import answers, assert_same, changed, graph_with, save, signature, weights

from servegraph.answers.ask import Servable
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.constants import as_constants
from servegraph.optimize.fold import fold
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.share import share
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.contents import Scaled
from servegraph.rewriting.strip import strip
from servegraph.rewriting.weights import loosen, unmatched, weights_of

tf1 = tf.compat.v1
ops = tf.raw_ops
X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def imported_name(path, session):
    """A large constant of the name that another node's variable has, as an imported graph may bring it."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    shape = (8, 256)
    other = ops.VarHandleOp(dtype=tf.float32, shape=shape, shared_name="w", name="imported")
    values = np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)
    y = tf.nn.relu(x @ tf.constant(values[0], name="w")) + x @ ops.ReadVariableOp(resource=other, dtype=tf.float32)
    put = ops.AssignVariableOp(resource=other, value=tf.constant(values[1]))
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})}, main_op=tf.group(put))


def test_a_constant_that_becomes_a_variable_is_one_of_its_own(tmp_path):
    path = graph_with(imported_name, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], strip, loosen)


def of_one_value(path, session):
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    y = x @ tf.fill([8, 8], 2.0) + tf.reduce_sum(tf.constant(0.5, shape=[1000, 500])) * weights("w", [8])
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


def test_a_constant_stored_as_one_value_stays_a_constant(tmp_path):
    path = graph_with(of_one_value, tmp_path / "m")
    draft = strip(draft_reader.read(path))
    assert draft.contents.keys() == loosen(draft).contents.keys()


def assigned_when_loaded(path, session, use_resource):
    """Two equal weights, of which the main op changes one."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    one, other = (weights(name, use_resource=use_resource) for name in ("one", "other"))
    with tf.control_dependencies([tf1.assign(one, other * 2.0 + 1.0)]):
        main_op = tf.no_op()
    y = tf.matmul(x, one) * 3.0 + tf.matmul(x, other)
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})}, main_op=main_op)


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("rungs", [(strip, share), (strip, fold), (strip, as_constants)])
def test_weights_that_the_main_op_assigns_are_not_those_that_are_stored(tmp_path, rungs, use_resource):
    path = graph_with(lambda path, session: assigned_when_loaded(path, session, use_resource), tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], *rungs)


def two_nodes_of_one_variable(path, session):
    """As a graph has them that was imported twice: one is restored, the other read."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    weight = weights("w", use_resource=True)
    shared = weight.handle.op.get_attr("shared_name").decode()
    again = ops.VarHandleOp(dtype=tf.float32, shape=[8, 8], shared_name=shared, name="again")
    y = tf.matmul(x, ops.ReadVariableOp(resource=again, dtype=tf.float32))
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


def test_two_nodes_of_one_variable_are_one(tmp_path):
    path = graph_with(two_nodes_of_one_variable, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], strip, fold)


def tables_in_functions(path, session):
    """Functions that name their tables themselves, all in nodes of one name."""
    ids = tf1.placeholder(tf.int64, [None], name="i")

    def table(shared):
        return ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name=shared, name="table")

    def made(shared, values):
        default = tf.constant(-1, tf.int64)

        @tf.function
        def look_up(keys):
            return ops.LookupTableFindV2(table_handle=table(shared), keys=keys, default_value=default)

        @tf.function
        def fill():
            ops.LookupTableImportV2(
                table_handle=table(shared), keys=tf.constant([0, 1], tf.int64), values=tf.constant(values, tf.int64)
            )
            return tf.constant(0)

        return look_up(ids), fill()

    (one, fill_one), (other, fill_other) = made("first", [10, 11]), made("second", [20, 21])
    row = tf.gather(weights("w", use_resource=True), ids)
    outputs = {"one": one, "other": other, "row": row}
    return save(
        path, session, {"serving_default": signature({"i": ids}, outputs)}, main_op=tf.group(fill_one, fill_other)
    )


@pytest.mark.parametrize("rungs", [(strip,), (strip, fold)])
def test_tables_that_functions_name_stay_apart_and_filled(tmp_path, rungs):
    path = graph_with(tables_in_functions, tmp_path / "m")
    assert_same(path, [("serving_default", {"i": np.array([0, 1, 2])})], *rungs)


def test_tables_without_an_init_op_are_filled(tmp_path):
    """tf.saved_model.load fills them all the same; a session does not."""

    def uninitialized(path, session):
        keys, values = tf.constant(["a", "b"]), tf.constant([3, 4], tf.int64)
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
        word = tf1.placeholder(tf.string, [None], name="word")
        return save(path, session, {"serving_default": signature({"word": word}, {"id": table.lookup(word)})})

    path = graph_with(uninitialized, tmp_path / "m")
    result = optimize(path, tmp_path / "out", Goal())
    assert "strip" in [step.name for step in result.steps if step.kept]
    for loader in ("session", "v2"):
        answer = Servable(tmp_path / "out", loader=loader)("serving_default", {"word": np.array([b"b", b"c"])})
        assert answer["id"].tolist() == [4, -1]


def counting_reference(path, session):
    """A TF1 counter that only a control dependency runs."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    count = tf1.get_variable("n", initializer=0.0, use_resource=False)
    with tf.control_dependencies([tf1.assign_add(count, 1.0)]):
        y = tf.matmul(x, weights("w", use_resource=True)) * 2.0
    return save(
        path,
        session,
        {
            "serving_default": signature({"x": x}, {"y": y}),
            "count": signature({"x": x}, {"n": tf.identity(count) + x[0, 0] * 0}),
        },
    )


def test_a_reference_counter_goes_on_counting(tmp_path):
    path = graph_with(counting_reference, tmp_path / "m")
    requests = [("serving_default", {"x": X})] * 2 + [("count", {"x": X})]
    assert float(answers(changed(path, strip, fold), requests)[-1]["n"]) == 2.0


def checkpoint_of_version_1(path, session):
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    y = tf.matmul(x, weights("w", use_resource=True))
    saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1)
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})}, saver=saver)


def test_a_checkpoint_of_version_1_is_left_as_it_is_and_said_so(tmp_path):
    path = graph_with(checkpoint_of_version_1, tmp_path / "m")
    draft = draft_reader.read(path)
    assert "in no checkpoint that is read here" in draft.untouched[0]
    draft_writer.copy_unchanged(path, tmp_path / "copy")
    draft_writer.write(strip(draft), tmp_path / "stripped")
    for out in ("copy", "stripped"):
        want, have = (answers(model, [("serving_default", {"x": X})]) for model in (path, tmp_path / out))
        assert np.array_equal(want[0]["y"], have[0]["y"])


def partitioned(path, session):
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    parts = weights("parts", [8, 128], partitioner=tf1.fixed_size_partitioner(2), use_resource=True)
    whole = weights("whole", [128, 8], use_resource=True)
    signatures = {
        "serving_default": signature({"x": x}, {"y": tf.matmul(tf.matmul(x, tf.convert_to_tensor(parts)), whole)})
    }
    save(path, session, signatures)
    saved_model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    saved_model.meta_graphs[0].signature_def["mute"].CopyFrom(
        saved_model.meta_graphs[0].signature_def["serving_default"]
    )
    saved_model.meta_graphs[0].signature_def["mute"].ClearField("outputs")
    (path / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    return path


def test_weights_are_kept_by_the_name_that_they_came_with(tmp_path):
    path = graph_with(partitioned, tmp_path / "m")
    draft = loosen(draft_reader.read(path, keep=("parts", "nothing*")))
    assert [weight.key for weight in weights_of(draft)] == ["whole"]
    (content,) = (weight.content for weight in weights_of(draft))
    scaled = Scaled(content, np.full(8, 2, np.float32))
    named = {"keep": ("whole",), "kept": frozenset({"whole"})}
    doubled = replace(draft, contents={**draft.contents, "whole": scaled}, **named)
    assert {weight.content.key for weight in weights_of(doubled)} == {"parts"}
    assert unmatched(draft) == ["nothing*"]


def test_what_is_not_found_is_said(tmp_path):
    path = graph_with(partitioned, tmp_path / "m")
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip",), keep=("nothing*",)))
    assert "Nothing is kept by the name 'nothing*': no weight has it." in result.notes


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_constants_in_half_precision_can_be_stored_smaller(dtype, tmp_path):
    def frozen(path, session):
        x = tf1.placeholder(tf.float32, [None, 64], name="x")
        matrix = tf.constant(np.random.default_rng(0).normal(size=(64, 64)), dtype)
        return save(path, session, {"serving_default": signature({"x": x}, {"y": x @ tf.cast(matrix, tf.float32)})})

    path = graph_with(frozen, tmp_path / "m")
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "quarter"), tolerance=Tolerance(0.0, None, None)))
    assert result.steps[-1].kept
    assert result.steps[-1].forms == {"int8": 1}
    assert 0 < result.steps[-1].max_abs_diff < 0.5  # of answers around 8


def stored_twice(path, session):
    """Weights that are stored under two keys and restored from both, as Keras 2 does in mixed precision."""
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    handle = ops.VarHandleOp(dtype=tf.float32, shape=[64, 64], shared_name="matrix")
    session.run(ops.AssignVariableOp(resource=handle, value=tf.constant(matrix)))
    x = tf1.placeholder(tf.float32, [None, 64], name="x")
    y = tf.matmul(x, ops.ReadVariableOp(resource=handle, dtype=tf.float32))
    prefix, keys, types = tf1.placeholder_with_default("model", [], name="prefix"), ["a", "b"], [tf.float32] * 2
    read = ops.ReadVariableOp(resource=handle, dtype=tf.float32)
    stored = ops.SaveV2(prefix=prefix, tensor_names=keys, shape_and_slices=["", ""], tensors=[read, read])
    values = ops.RestoreV2(prefix=prefix, tensor_names=keys, shape_and_slices=["", ""], dtypes=types)
    restored = tf.group(*(ops.AssignVariableOp(resource=handle, value=value) for value in values))
    with tf.control_dependencies([stored]):
        saved = tf.identity(prefix, name="saved")
    saver = tf1.train.Saver(
        saver_def=tf1.train.SaverDef(
            filename_tensor_name=prefix.name,
            save_tensor_name=saved.name,
            restore_op_name=restored.name,
            version=tf1.train.SaverDef.V2,
        )
    )
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})}, saver=saver)


def test_weights_that_are_restored_from_two_keys_are_stored_once(tmp_path):
    path = graph_with(stored_twice, tmp_path / "m")
    request = ("serving_default", {"x": np.ones((3, 64), np.float32)})
    assert_same(path, [request], strip, share)
    assert len(weights_of(draft_reader.read(path.with_name("changed")))) == 1


def test_a_restore_function_that_calls_another_is_read(tmp_path):
    """TensorFlow 2.10 restores a table through a function of its own."""

    def nested(path, session):
        matrix = tf.constant(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
        handle = ops.VarHandleOp(dtype=tf.float32, shape=[64, 64], shared_name="matrix")
        fill = ops.AssignVariableOp(resource=handle, value=matrix)
        x = tf1.placeholder(tf.float32, [None, 64], name="x")
        y = tf.matmul(x, ops.ReadVariableOp(resource=handle, dtype=tf.float32))

        @tf.function(autograph=False)
        def put(resource, value):
            ops.AssignVariableOp(resource=resource, value=value)

        @tf.function(autograph=False)
        def restore(prefix, resource):
            (value,) = ops.RestoreV2(prefix=prefix, tensor_names=["matrix"], shape_and_slices=[""], dtypes=[tf.float32])
            put(resource, value)
            return tf.identity(prefix)

        prefix = tf1.placeholder_with_default("model", [], name="prefix")
        restored = restore(prefix, handle)
        read = ops.ReadVariableOp(resource=handle, dtype=tf.float32)
        stored = ops.SaveV2(prefix=prefix, tensor_names=["matrix"], shape_and_slices=[""], tensors=[read])
        with tf.control_dependencies([stored]):
            saved = tf.identity(prefix, name="saved")
        session.run(fill)
        saver = tf1.train.Saver(
            saver_def=tf1.train.SaverDef(
                filename_tensor_name=prefix.name,
                save_tensor_name=saved.name,
                restore_op_name=restored.op.name,
                version=tf1.train.SaverDef.V2,
            )
        )
        return save(path, session, {"serving_default": signature({"x": x}, {"y": y})}, saver=saver)

    path = graph_with(nested, tmp_path / "m")
    content = (path / "saved_model.pb").read_bytes()
    assert b"__inference_put_" in content
    renamed = content.replace(b"__inference_put_", b"__inference_PUT_")  # this process knows the function that it made
    (path / "saved_model.pb").write_bytes(renamed)
    draft = draft_reader.read(path)
    assert not draft.untouched
    assert [tensor.key for restore in draft.restores for tensor in restore.tensors] == ["matrix"]
    result = optimize(path, tmp_path / "out", Goal(rungs=("strip", "quarter")))
    assert [step.name for step in result.steps if step.kept] == ["strip", "quarter"]
