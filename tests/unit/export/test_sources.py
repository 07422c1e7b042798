"""Exporting what is no Keras 3 model: SavedModels of any age, modules, TF1 checkpoints; and what cannot be told."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.errors import ExportRefused, InputError, ModelError
from servegraph.export_serving_graph.export import export
from servegraph.export_serving_graph.recognize import recognize
from servegraph.export_serving_graph.signature_choice import Wanted
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.reachability import is_slot, training_baggage

v1 = tf.compat.v1
REAL = Path(__file__).parents[2] / "real_models"
KERAS2 = Path(__file__).parent / "models" / "keras2_saved"

MODULE = '''
import tensorflow as tf

class Counting(tf.Module):
    """Legitimate state: a table that was filled, a counter that each request moves; and slots that nothing serves."""

    def __init__(self):
        self.weights = tf.Variable([[1.0], [2.0]])
        self.asked = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.unused = tf.Variable(tf.zeros([2, 1]), name="Adam/m")
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        self.table.insert(tf.constant(["a"]), tf.constant([5], tf.int64))

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x"), tf.TensorSpec([None], tf.string, "key")])
    def answer(self, x, key):
        self.asked.assign_add(1)
        return {"y": x @ self.weights, "id": self.table.lookup(key), "asked": tf.fill(tf.shape(key), self.asked)}

class Two(Counting):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def double(self, x):
        return {"y": 2.0 * x}

def counting():
    return Counting()

def two():
    return Two()

def nothing():
    return 3
'''
REQUEST = {"x": np.array([[1, 1], [0, 3]], np.float32), "key": np.array([b"a", b"z"], object)}


@pytest.fixture(scope="module")
def module_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("source") / "model.py"
    file.write_text(MODULE)
    return file


def stored(path):
    with BundleReader(storage.open_dir(path)) as bundle:
        return set(bundle.entries)


def test_a_module_keeps_its_table_and_counter_and_nothing_else(module_file, tmp_path):
    result = export(f"{module_file}:counting", tmp_path / "out")
    assert result.source_kind == "python"
    assert training_baggage(storage.open_dir(tmp_path / "out")) == []
    assert not any(map(is_slot, stored(tmp_path / "out")))
    with Servable(tmp_path / "out", loader="session") as servable:
        first = servable("serving_default", REQUEST)
        second = servable("serving_default", REQUEST)
    assert first["y"].tolist() == [[3], [6]]
    assert first["id"].tolist() == [5, -1]
    assert [first["asked"].tolist(), second["asked"].tolist()] == [[1, 1], [2, 2]]


def test_of_several_functions_the_one_that_is_named_serves(module_file, tmp_path):
    with pytest.raises(InputError, match="answer, double") as caught:
        export(f"{module_file}:two", tmp_path / "out")
    assert caught.value.code == "WHICH_SIGNATURE"
    wanted = Wanted(signatures={"serving_default": "double"})
    result = export(f"{module_file}:two", tmp_path / "out", wanted=wanted)
    assert result.signatures == ("serving_default",)
    assert not (tmp_path / "out/variables").exists()


def test_a_module_saved_without_signatures_is_served_by_its_function(tmp_path):
    class Plain(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x):
            return {"y": x + 1.0}

    tf.saved_model.save(Plain(), str(tmp_path / "plain"))
    export(tmp_path / "plain", tmp_path / "out")
    with Servable(tmp_path / "out") as servable:
        assert servable("serving_default", {"x": np.float32([1])})["y"].tolist() == [2]


def test_a_function_that_raises_when_it_is_traced(tmp_path):
    (tmp_path / "model.py").write_text(MODULE.replace('return {"y": 2.0 * x}', 'return {"y": factor * x}'))
    with pytest.raises(ExportRefused, match=r"double.*factor") as caught:
        export(f"{tmp_path}/model.py:two", tmp_path / "out", wanted=Wanted(signatures={"serving_default": "double"}))
    assert caught.value.code == "NO_SIGNATURE"


def test_a_function_that_returns_no_model(module_file, tmp_path):
    with pytest.raises(InputError) as caught:
        export(f"{module_file}:nothing", tmp_path / "out")
    assert caught.value.code == "NOT_A_MODEL"


def test_a_keras_2_model_loses_its_optimizer_without_being_loaded(tmp_path):
    """`tf.saved_model.load` of this one fails in TensorFlow 2.21: its user objects have no `add_slot`."""
    assert any(map(is_slot, stored(KERAS2)))
    result = export(KERAS2, tmp_path / "out")
    assert result.inputs == ("size", "word")
    assert result.max_abs_diff == 0
    assert any("takes the result, with the same answers" in note for note in result.notes)
    assert training_baggage(storage.open_dir(tmp_path / "out")) == []
    assert not any(map(is_slot, stored(tmp_path / "out")))


@pytest.mark.parametrize(("kind", "found"), [("layer", []), ("batch", ["training_mode"])])
@pytest.mark.parametrize("width", [4, 2048])  # of so many TensorFlow fills the factors in, and stores none
def test_layer_normalization_of_keras_2_is_not_over_the_batch(kind, found, width, tmp_path):
    """As Keras 2 writes it: layers/normalization/layer_normalization.py, and batch normalization in training."""

    class Norm(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, width], tf.float32, "x")])
        def __call__(self, x):
            rows = tf.shape(x)[0]
            factors = tf.ones([rows if kind == "layer" else width])
            shape, layout = ([1, rows, width, 1], "NCHW") if kind == "layer" else ([rows, 1, 1, width], "NHWC")
            y, _, _ = v1.nn.fused_batch_norm(tf.reshape(x, shape), factors, 0.0 * factors, data_format=layout)
            return {"y": tf.reshape(y, tf.shape(x))}

    norm = Norm()
    tf.saved_model.save(norm, str(tmp_path / "norm"), signatures={"serving_default": norm.__call__})
    assert [baggage.kind for baggage in training_baggage(storage.open_dir(tmp_path / "norm"))] == found


def test_a_tf1_model_keeps_only_the_signature_that_is_wanted(tmp_path):
    export(REAL / "v1_adam", tmp_path / "all")
    result = export(REAL / "v1_adam", tmp_path / "out", wanted=Wanted(signatures={"serving_default": "look_up"}))
    (meta_graph,) = read_saved_model(storage.open_dir(tmp_path / "out")).meta_graphs
    assert set(meta_graph.signatures) == {"serving_default"}
    assert not (tmp_path / "out/variables").exists()
    assert (tmp_path / "out/assets").is_dir()
    assert training_baggage(storage.open_dir(tmp_path / "all")) == []
    assert result.inputs == ("word",)


def test_of_several_metagraphs_the_one_with_the_tags(tmp_path):
    export(REAL / "v1_partitioned", tmp_path / "out", wanted=Wanted(tags=("serve", "gpu")))
    (meta_graph,) = read_saved_model(storage.open_dir(tmp_path / "out")).meta_graphs
    assert set(meta_graph.tags) == {"serve", "gpu"}
    with pytest.raises(InputError) as caught:
        export(REAL / "v1_partitioned", tmp_path / "none", wanted=Wanted(tags=("tpu",)))
    assert caught.value.code == "WHICH_METAGRAPH"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A TF1 training directory: a table from a file, dropout by placeholder, Adam, a label; (prefix, answer)."""
    path = tmp_path_factory.mktemp("tf1")
    (path / "words.txt").write_text("x\ny\nz\n")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        word = v1.placeholder(tf.string, [None], name="word")
        keep = v1.placeholder(tf.float32, [], name="keep")
        initializer = tf.lookup.TextFileInitializer(str(path / "words.txt"), tf.string, -2, tf.int64, -1)
        ids = tf.lookup.StaticHashTable(initializer, 0).lookup(word)
        hidden = keep * (x + tf.nn.embedding_lookup(v1.get_variable("table", [3, 4], use_resource=False), ids))
        logits = tf.matmul(hidden, v1.get_variable("weights", [4, 2]))
        probabilities = tf.nn.softmax(logits, name="probabilities")
        label = v1.placeholder(tf.int64, [None], name="label")
        v1.train.AdamOptimizer().minimize(v1.losses.sparse_softmax_cross_entropy(label, logits))
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.train.Saver().save(session, str(path / "model.ckpt"), global_step=7)
        request = {"x": np.ones((1, 4), np.float32), "word": np.array([b"y"], object)}
        answer = session.run(probabilities, {x: request["x"], word: request["word"], keep: 1.0})
    return path, request, answer


def test_a_tf1_checkpoint_asks_for_what_its_graph_does_not_say(checkpoint, tmp_path):
    path, _, _ = checkpoint
    with pytest.raises(InputError, match=r"x, word, keep, label.*probabilities") as caught:
        export(path, tmp_path / "out")
    assert caught.value.code == "WHICH_TENSORS"
    with pytest.raises(InputError, match="keep") as caught:
        export(path, tmp_path / "out", wanted=Wanted(outputs={"p": "probabilities"}))
    assert caught.value.code == "WHICH_TENSORS"
    assert list(tmp_path.iterdir()) == []


def test_a_tf1_checkpoint_with_its_outputs_named(checkpoint, tmp_path):
    path, request, answer = checkpoint
    wanted = Wanted(outputs={"p": "probabilities"}, constants={"keep": "1.0"})
    result = export(path / "model.ckpt-7.meta", tmp_path / "out", wanted=wanted)
    assert set(result.inputs) == {"x", "word"}
    assert not any(map(is_slot, stored(tmp_path / "out")))
    for loader in ("session", "v2"):
        with Servable(tmp_path / "out", loader=loader) as servable:
            assert np.allclose(servable("serving_default", request)["p"], answer, atol=1e-6)


@pytest.mark.parametrize(("default", "asks"), [(True, True), (False, False), (0.5, True), (1.0, False), (3, False)])
def test_a_default_that_is_for_training_is_asked_for(default, asks, tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        switch = v1.placeholder_with_default(default, [], name="switch")
        weight = v1.get_variable("weight", [2])
        tf.identity(x * weight + tf.cast(switch, tf.float32), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    for number, inputs in enumerate(({}, {"x": "x"})):
        wanted = Wanted(outputs={"y": "y"}, inputs=inputs)
        if asks:
            with pytest.raises(InputError, match="--constant switch") as caught:
                export(tmp_path / "model.ckpt.meta", tmp_path / "out", wanted=wanted)
            assert caught.value.code == "WHICH_TENSORS"
        else:
            assert export(tmp_path / "model.ckpt.meta", tmp_path / f"{number}", wanted=wanted).inputs == ("x",)


def test_what_cannot_be_told_is_a_question(tmp_path):
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.keras, b\.keras") as caught:
        recognize(str(tmp_path))
    assert caught.value.code == "WHICH_SOURCE"
    (tmp_path / "weights").mkdir()
    tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "weights/ckpt-1"))
    with pytest.raises(InputError, match="without the model") as caught:
        recognize(str(tmp_path / "weights"))
    assert caught.value.code == "WHICH_SOURCE"
    (tmp_path / "versions/3").mkdir(parents=True)
    (tmp_path / "versions/3/saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError) as found_nothing:
        recognize(str(tmp_path / "versions"))
    assert "versions/3" in found_nothing.value.fix


@pytest.mark.parametrize("attribute", ["layer_names", "nothing"])
def test_weights_alone_are_told_whatever_their_name(tmp_path, attribute):
    for name in ("w.h5", "w.hdf5", "w.keras"):
        with h5py.File(tmp_path / name, "w") as file:  # as `save_weights` of Keras 2 writes it, and as Keras 3 does
            file.attrs[attribute] = [b"dense"]
            file["dense/kernel"] = np.zeros((2, 3), np.float32)
        for place in (tmp_path / name, tmp_path):
            with pytest.raises(InputError, match="without the model") as caught:
                export(place, tmp_path / "out")
            assert caught.value.code == "WHICH_SOURCE"
        (tmp_path / name).unlink()


def test_training_that_a_signature_runs_is_refused(tmp_path):
    class Training(tf.Module):
        def __init__(self):
            self.weight = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def serve(self, x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.tanh(self.weight * x))
            self.weight.assign_sub(tape.gradient(loss, self.weight))
            return {"y": x * self.weight}

    module = Training()
    tf.saved_model.save(module, str(tmp_path / "training"), module.serve)
    with pytest.raises(ExportRefused) as caught:
        export(tmp_path / "training", tmp_path / "out")
    assert caught.value.code == "TRAINING_BAGGAGE"
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


def test_a_signature_that_trains_can_be_left_out(tmp_path):
    class Both(tf.Module):
        def __init__(self):
            self.weight = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def serve(self, x):
            return {"y": x * self.weight}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def train(self, x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.tanh(self.weight * x))
            self.weight.assign_sub(tape.gradient(loss, self.weight))
            return {"loss": tf.fill(tf.shape(x), loss)}

    module = Both()
    tf.saved_model.save(module, str(tmp_path / "both"), {"serving_default": module.serve, "train": module.train})
    with pytest.raises(ExportRefused, match="--signature serving_default=serving_default"):
        export(tmp_path / "both", tmp_path / "out")
    wanted = Wanted(signatures={"serving_default": "serving_default"})
    assert export(tmp_path / "both", tmp_path / "out", wanted=wanted).signatures == ("serving_default",)


def test_what_an_estimator_evaluates_with_is_refused_and_what_has_no_default_is_said(tmp_path):
    """As `experimental_export_all_saved_models` writes it of a canned Estimator."""
    builder = v1.saved_model.Builder(str(tmp_path / "modes"))
    for tag, name, method in (("eval", "eval", "supervised/eval"), ("serve", "predict", "serving/predict")):
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None], name="x")
            sides = [{n: v1.saved_model.build_tensor_info(t)} for n, t in (("x", x), ("y", tf.identity(x)))]
            signatures = {name: v1.saved_model.build_signature_def(*sides, f"tensorflow/{method}")}
            if tag == "eval":
                builder.add_meta_graph_and_variables(session, [tag], signatures)
            else:
                builder.add_meta_graph([tag], signatures)
    builder.save()
    with pytest.raises(ExportRefused, match="to evaluate: eval") as caught:
        export(tmp_path / "modes", tmp_path / "out", wanted=Wanted(tags=("eval",)))
    assert caught.value.code == "TRAINING_BAGGAGE"
    (note,) = export(tmp_path / "modes", tmp_path / "out").notes
    assert "--signature serving_default=predict" in note
    named = Wanted(signatures={"serving_default": "predict"})
    assert export(tmp_path / "modes", tmp_path / "named", wanted=named).notes == ()


def test_a_model_that_optimize_stored_in_a_smaller_form_is_refused_with_what_to_export(tmp_path):
    class Dense(tf.Module):
        def __init__(self):
            self.weights = tf.Variable(np.random.default_rng(0).standard_normal((64, 64), np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, "x")])
        def serve(self, x):
            return {"y": x @ self.weights}

    module = Dense()
    tf.saved_model.save(module, str(tmp_path / "model"), module.serve)
    optimize(tmp_path / "model", tmp_path / "small", Goal(rungs=("strip", "halve")))
    with pytest.raises(ExportRefused, match="restores through") as caught:
        export(tmp_path / "small", tmp_path / "out")
    assert caught.value.code == "NOT_UNDERSTOOD"
    assert "export the original" in caught.value.fix


def test_an_operation_that_lost_its_kernel_is_named(tmp_path):
    """TensorFlow still knows the operations of boosted trees, and cannot run them."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        (bucket,) = tf.raw_ops.BoostedTreesBucketize(float_values=[x], bucket_boundaries=[tf.constant([0.5, 1.5])])
        v1.saved_model.simple_save(session, str(tmp_path / "trees"), {"x": x}, {"bucket": bucket})
    with pytest.raises(ExportRefused, match="BoostedTreesBucketize") as caught:
        export(tmp_path / "trees", tmp_path / "out")
    assert caught.value.code == "LOST_KERNEL"
    assert [path.name for path in tmp_path.iterdir()] == ["trees"]
