"""A graph that is written short: what everyone can work out is left out, what someone may know stays."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.optimize.names import shorten
from servegraph.optimize.optimize import Goal, optimize
from servegraph.rewriting import draft_reader
from servegraph.rewriting.strip import strip
from servegraph.savedmodel.bundle_reader import BundleReader

WORDS = [f"word{number}" for number in range(1200)]
ASKED = {"text": np.array([["word0 word7"], ["nothing known"], ["word1199"]], object)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The model as Keras exports it, without loss, and written short with all but its embedding in float16."""
    path = tmp_path_factory.mktemp("names")
    keras.utils.set_random_seed(0)
    words = keras.layers.TextVectorization(output_sequence_length=4, vocabulary=WORDS)
    layers = [keras.Input((1,), dtype="string", name="text"), words, keras.layers.Embedding(1202, 8)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(64, name="hidden"), keras.layers.Dense(3)]
    keras.Sequential(layers).export(path / "model", verbose=False)
    lossless = ("strip", "share", "fold", "tables")
    optimize(path / "model", path / "long", Goal(rungs=lossless))
    goal = Goal(rungs=(*lossless, "shorten", "halve"), keep=("*embeddings*",))
    steps = {step.name: step for step in optimize(path / "model", path / "short", goal).steps}
    assert steps["shorten"].kept
    assert steps["shorten"].max_abs_diff == 0
    return path


def meta_graph(path):
    saved_model = SavedModel()
    saved_model.ParseFromString((path / "saved_model.pb").read_bytes())
    return saved_model.meta_graphs[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestShort:
    def test_both_loaders_answer_as_before(self, models):
        with Servable(models / "long") as servable:
            want = servable("serving_default", ASKED)
        for loader in ("session", "v2"):
            with Servable(models / "short", loader=loader) as servable:
                have = servable("serving_default", ASKED)
            assert all(np.allclose(have[name], values, atol=1e-2) for name, values in want.items())

    def test_two_models_in_one_process_keep_their_own_variables(self, models):
        with Servable(models / "long", loader="v2") as one, Servable(models / "short", loader="v2") as other:
            before = one("serving_default", ASKED)["output_0"]
            other("serving_default", ASKED)
            assert np.array_equal(one("serving_default", ASKED)["output_0"], before)
        loaded = tf.saved_model.load(str(models / "short"))
        assert len(loaded.variables) == 5

    def test_vocabularies_are_deflated_and_ids_are_counted(self, models):
        with BundleReader(storage.open_dir(models / "long")) as tensors:
            assert {entry.dtype for entry in tensors.entries.values()} == {"float32", "string", "int64"}
        with BundleReader(storage.open_dir(models / "short")) as tensors:
            stored = {key: (entry.dtype, entry.shape) for key, entry in tensors.entries.items()}
        assert {dtype for dtype, _ in stored.values()} == {"float32", "float16", "string"}
        assert ("string", (1,)) in stored.values()
        assert all(len(key.partition(":")[0]) == 1 for key in stored)

    def test_weights_are_still_kept_by_the_names_they_had(self, models):
        with BundleReader(storage.open_dir(models / "short")) as tensors:
            dtypes = {entry.shape: entry.dtype for entry in tensors.entries.values()}
        assert dtypes[1202, 8] == "float32"
        assert dtypes[32, 64] == "float16"

    def test_names_of_variables_and_signatures_stay(self, models):
        long, short = meta_graph(models / "long"), meta_graph(models / "short")
        assert dict(long.signature_def) == dict(short.signature_def)
        handles = [
            {node.name for node in graph.graph_def.node if node.op in ("VarHandleOp", "HashTableV2")}
            for graph in (long, short)
        ]
        assert handles[0] == handles[1] != set()

    def test_inner_nodes_keep_their_order(self, models):
        """By which TensorFlow sorts the inputs of what commutes; what it fuses depends on that."""
        graphs = [{n.name: n.op for n in meta_graph(models / name).graph_def.node} for name in ("long", "short")]
        known = graphs[0].keys() & graphs[1].keys()
        written = ("servegraph/", "s/")  # what restores
        operations = [[graph[n] for n in sorted(graph.keys() - known) if not n.startswith(written)] for graph in graphs]
        assert operations[0] == operations[1] != []

    def test_a_second_run_changes_nothing(self, models):
        once = shorten(strip(draft_reader.read(models / "model")))
        (nodes,), (again,) = ([graph.nodes for graph in d.serving_graphs] for d in (once, shorten(once)))
        assert list(nodes) == list(again)

    @pytest.mark.parametrize("name", ["long", "short"])
    def test_no_attribute_says_what_is_the_default(self, models, name):
        graph = meta_graph(models / name)
        assert graph.meta_info_def.stripped_default_attrs
        for node in graph.graph_def.node:
            for attribute in op_def_registry.get(node.op).attr:
                if attribute.HasField("default_value") and attribute.name in node.attr:
                    assert node.attr[attribute.name] != attribute.default_value
        found = inspect_directory(storage.open_dir(models / name), verify=True)
        assert [each for each in found.findings if each.severity == "error"] == []
