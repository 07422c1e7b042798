"""Graphs as TF1, imports and hand-written exports have them: each rung answers as the original did."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.answers.evidence import ask_original
from servegraph.answers.tolerance import Tolerance
from servegraph.optimize.climb import start
from servegraph.optimize.constants import as_constants
from servegraph.optimize.fold import fold
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.rungs import RUNGS, Rung
from servegraph.optimize.share import share
from servegraph.optimize.statics import Statics
from servegraph.optimize.terms import Terms
from servegraph.progress import Progress
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.rewriting.contents import Scaled
from servegraph.rewriting.strip import strip, strip_branching
from servegraph.rewriting.weights import loosen, unmatched, weights_of
from servegraph.savedmodel.graph_reader import read_saved_model

tf1 = tf.compat.v1
ops = tf.raw_ops
X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def signature(inputs, outputs):
    tensors = [
        {name: tf1.saved_model.utils.build_tensor_info(t) for name, t in side.items()} for side in (inputs, outputs)
    ]
    return tf1.saved_model.build_signature_def(*tensors, tf.saved_model.PREDICT_METHOD_NAME)


def save(path, session, signatures, **more):
    session.run([tf1.global_variables_initializer(), tf1.local_variables_initializer()])
    builder = tf1.saved_model.Builder(str(path))
    builder.add_meta_graph_and_variables(session, ["serve"], signatures, **more)
    builder.save()
    return path


def graph_with(build, path):
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        return build(path, session)


def weights(name, shape=(8, 8), seed=1, **more):
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
    with Servable(path, loader="session") as servable:
        return [servable(name, request) for name, request in requests]


def assert_same(path, requests, *rungs):
    for want, have in zip(answers(path, requests), answers(changed(path, *rungs), requests), strict=True):
        for name, value in want.items():
            np.testing.assert_allclose(have[name], value, rtol=1e-5, atol=1e-6)


def fed_over(path, session):
    """Signatures that replace what is computed from weights, a constant, a weight, by what a request holds."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    scale, temperature = weights("s", [8], use_resource=True) * 2.0, tf.constant(3.0)
    shift = weights("w", [8], use_resource=True)
    first, second = (ops.ReadVariableOp(resource=shift.handle, dtype=tf.float32) for _ in range(2))
    y = x * scale / temperature + first * 2.0 + second
    signatures = {"serving_default": signature({"x": x}, {"y": y})}
    for name, tensor in {"scale": scale, "temperature": temperature, "shift": first}.items():
        signatures[name] = signature({"x": x, name: tensor}, {"y": y})
    return save(path, session, signatures)


@pytest.mark.parametrize("rungs", [(strip, fold), (strip, as_constants), (strip, share)])
def test_what_a_request_replaces_is_not_known_beforehand(tmp_path, rungs):
    path = graph_with(fed_over, tmp_path / "m")
    requests = [
        ("serving_default", {"x": X}),
        ("scale", {"x": X, "scale": X[0]}),
        ("temperature", {"x": X, "temperature": np.float32(7)}),
        ("shift", {"x": X, "shift": X[1]}),
    ]
    assert_same(path, requests, *rungs)


def flagged(path, session):
    """A training switch that is a constant, which one signature feeds; beside one that nobody does."""
    x, flag = tf1.placeholder(tf.float32, [None, 8], name="x"), tf.constant(False, name="is_training")
    other = tf1.placeholder_with_default(False, [], name="other")
    y = tf1.cond(flag, lambda: x * weights("w", [8], use_resource=True), lambda: x + 1.0)
    z = tf1.cond(other, lambda: y * 2.0, lambda: y)
    return save(
        path,
        session,
        {"serving_default": signature({"x": x}, {"z": z}), "flagged": signature({"x": x, "flag": flag}, {"z": z})},
    )


def test_a_constant_switch_that_a_request_replaces_keeps_both_branches(tmp_path):
    path = graph_with(flagged, tmp_path / "m")
    requests = [("serving_default", {"x": X}), *(("flagged", {"x": X, "flag": np.array(f)}) for f in (True, False))]
    assert_same(path, requests, strip)


def shaped_by_a_request(path, session):
    """One signature replaces the constant that says which shape a product gets before a batch norm."""
    x, sizes = tf1.placeholder(tf.float32, [None, 8], name="x"), tf.constant([-1, 8])
    reshaped = tf.reshape(x @ weights("w"), sizes)
    y = reshaped * weights("scale", [8], use_resource=True) + weights("shift", [8], use_resource=True)
    requests = {"serving_default": {"x": x}, "shaped": {"x": x, "sizes": sizes}}
    return save(path, session, {name: signature(inputs, {"y": y}) for name, inputs in requests.items()})


def test_a_shape_that_a_request_replaces_is_not_known_beforehand(tmp_path):
    path = graph_with(shaped_by_a_request, tmp_path / "m")
    sizes = np.array([40, 1], np.int32)  # each of them is then multiplied with all factors
    assert_same(path, [("serving_default", {"x": X}), ("shaped", {"x": X, "sizes": sizes})], strip, fold)


def loops(path, session):
    """Two loops of TF1, imported under one frame name, that differ in what is subtracted from what."""

    def imported(name, x, is_flipped):
        with tf.Graph().as_default() as graph:
            tf1.disable_control_flow_v2()
            start = tf1.placeholder(tf.float32, [None, 8], name="x")

            def step(number, a, b, c):
                return number + 1, a + b, -c, c - b if is_flipped else b - c

            a = tf1.while_loop(lambda number, *_: number < 3, step, [0, start, start / 2, start / 4])[1]
            tf.identity(a, name="y")
            tf1.enable_control_flow_v2()
        return tf.import_graph_def(graph.as_graph_def(), {"x:0": x}, ["y:0"], name=name)[0]

    signatures = {}
    for name, is_flipped in (("serving_default", False), ("flipped", True)):
        x = tf1.placeholder(tf.float32, [None, 8], name=f"{name}_x")
        signatures[name] = signature({"x": x}, {"y": imported(name, x, is_flipped) + weights(f"w_{name}", [8]) * 0.0})
    return save(path, session, signatures)


def test_loops_that_compute_otherwise_are_not_one(tmp_path):
    path = graph_with(loops, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X}), ("flipped", {"x": X})], strip, share)


def normalized(path, session):
    """A batch norm of which a signature answers another output as well."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    y = tf.reshape(x @ weights("w", use_resource=True), [-1, 1, 1, 8])
    by = [weights(name, [8], number, use_resource=True) for number, name in enumerate(("scale", "offset", "mean"))]
    by.append(tf1.get_variable("variance", [8], initializer=tf1.ones_initializer(), use_resource=True))
    found = ops.FusedBatchNormV3(x=y, scale=by[0], offset=by[1], mean=by[2], variance=by[3], is_training=False)
    return save(path, session, {"serving_default": signature({"x": x}, {"y": found.y, "mean": found.batch_mean})})


def test_a_batch_norm_stays_where_its_other_outputs_are_answered(tmp_path):
    path = graph_with(normalized, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], strip, fold)


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


def masks(path, session):
    """Masks of 40 MB each that no request changes, of which a request is answered a row."""
    x = tf1.placeholder(tf.int32, [None], name="x")
    masks = [tf.linalg.band_part(tf.fill([3200, 3200], float(number + 1)), -1, 0) for number in range(3)]
    y = sum(tf.reduce_sum(tf.gather(mask, x), 1) for mask in masks) * weights("w", [])
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


def test_what_would_be_large_is_not_computed_beforehand(tmp_path):
    path = graph_with(masks, tmp_path / "m")
    (graph,) = strip(draft_reader.read(path)).serving_graphs
    with draft_reader.read(path).tensors() as tensors:
        statics = Statics(graph, draft_reader.read(path).contents, tensors)
        known = [name for name in graph.nodes if statics.is_static(name)]
        found = statics.values(known)
    assert {"MatrixBandPart", "Fill"} <= {graph.nodes[name].op for name in known}
    assert not {"MatrixBandPart", "Fill"} & {graph.nodes[name].op for name in found}


def test_rungs_in_another_order_do_not_fail(tmp_path):
    path = graph_with(normalized, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], fold, share)


def test_a_fingerprint_of_another_graph_is_left_behind(tmp_path):
    path = graph_with(flagged, tmp_path / "m")
    (path / "fingerprint.pb").write_bytes(b"\x08\x01")
    assert not (changed(path, fold) / "fingerprint.pb").exists()


def sparse_with_defaults(path, session):
    defaults = {
        "indices": tf.constant([[0, 0]], tf.int64),
        "values": tf.constant([1.0]),
        "shape": tf.constant([2, 8], tf.int64),
    }
    parts = [
        tf1.placeholder_with_default(
            t, [None] * (t.shape.rank - 1) + [t.shape[-1]] if n != "values" else [None], name=n
        )
        for n, t in defaults.items()
    ]
    sparse = tf.SparseTensor(*parts)
    y = tf.sparse.sparse_dense_matmul(sparse, weights("w", use_resource=True))
    return save(path, session, {"serving_default": signature({"s": sparse}, {"y": y})})


def test_a_sparse_input_whose_parts_have_defaults_can_still_be_fed(tmp_path):
    path = graph_with(sparse_with_defaults, tmp_path / "m")
    feeds = {"indices:0": [[0, 1], [2, 4]], "values:0": [1.5, 2.5], "shape:0": [3, 8]}
    found = []
    for model in (path, changed(path, strip)):
        with tf1.Session(graph=tf.Graph()) as session, session.graph.as_default():
            meta_graph = tf1.saved_model.load(session, ["serve"], str(model))
            found.append(session.run(meta_graph.signature_def["serving_default"].outputs["y"].name, feeds))
    assert np.array_equal(*found)


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


def switched(path, session):
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    is_training = tf1.placeholder_with_default(False, [], name="is_training")
    junk = weights("junk", [300, 300], use_resource=True)
    y = tf1.cond(is_training, lambda: x * tf.reduce_sum(junk), lambda: x * weights("w", [8], use_resource=True))
    return save(path, session, {"serving_default": signature({"x": x}, {"y": y})})


def test_what_the_gate_refuses_is_tried_in_a_milder_form(tmp_path):
    """As `strip` without settling branches, where TensorFlow would fuse and round what is left in another way."""

    def wrong(graph):
        made = SignatureDef()
        made.CopyFrom(graph.signatures["serving_default"])
        made.outputs["y"].name = made.inputs["x"].name
        return replace(graph, signatures={"serving_default": made})

    path = graph_with(switched, tmp_path / "m")
    original = draft_reader.read(path)
    evidence = ask_original(path, read_saved_model(storage.open_dir(path)), original.definitions, None)
    rung = Rung("strip", "", "none", change=lambda draft: draft.with_graphs(wrong), milder=strip_branching)
    climb = start(
        original, Terms(None, Tolerance(), (rung,), climbs_all=True), tmp_path / "work", Progress("test", total=1)
    )
    climb.run(evidence)
    assert climb.steps[0].kept
    assert climb.steps[0].max_abs_diff == 0
    assert len(list((tmp_path / "work").iterdir())) == 1
    assert {rung.name for rung in RUNGS if rung.milder} == {"strip"}


def test_fold_settles_the_branches_that_strip_left(tmp_path):
    path = graph_with(switched, tmp_path / "m")
    assert_same(path, [("serving_default", {"x": X})], strip_branching, fold)
    (graph,) = draft_reader.read(tmp_path / "changed").serving_graphs
    assert not {node.op for node in graph.nodes.values()} & {"If", "StatelessIf"}
    assert [restore.tensors[0].key for restore in graph.restores] == ["w"]


def without_epsilon(path, session):
    x = tf1.placeholder(tf.float32, [None, 4, 4, 3], name="image")
    h = tf.nn.conv2d(x, weights("k", [1, 1, 3, 16], use_resource=True), 1, "SAME")
    gamma, beta, mean = (weights(name, [16], use_resource=True) for name in ("gamma", "beta", "mean"))
    variance = tf.constant(1e-4, shape=[16])
    norm = ops.FusedBatchNormV3(
        x=h, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=0.0, is_training=False
    )
    return save(path, session, {"serving_default": signature({"image": x}, {"y": norm.y})})


def test_batch_norm_with_an_epsilon_of_0_is_folded_with_it(tmp_path):
    path = graph_with(without_epsilon, tmp_path / "m")
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    want, have = (
        answers(model, [("serving_default", {"image": image})])[0]["y"] for model in (path, changed(path, fold))
    )
    assert np.abs(want - have).max() < 1e-4 * np.abs(want).max()


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


def test_an_input_whose_open_dimension_must_be_one_is_asked(tmp_path):
    """One word beside a text of many, both as [batch, words]: only of one word it can be put to its record."""

    def beside(path, session):
        text, word = (tf1.placeholder(tf.float32, [None, None], name=name) for name in ("text", "word"))
        features = tf.concat([tf.reduce_sum(text, 1, keepdims=True), tf.reshape(word, [-1, 1])], 1)
        y = tf.matmul(tf.tile(features, [1, 32]), tf.convert_to_tensor(weights("w", (64, 64))))
        return save(path, session, {"serving_default": signature({"text": text, "word": word}, {"y": y})})

    result = optimize(graph_with(beside, tmp_path / "m"), tmp_path / "out", Goal(rungs=("strip", "quarter")))
    assert [step.name for step in result.steps if step.kept] == ["strip", "quarter"]
