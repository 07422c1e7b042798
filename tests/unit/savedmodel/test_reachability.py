"""What signatures reach, in real models: which tensors they read, which training leftovers they do not."""

from pathlib import Path

import pytest

from servegraph.savedmodel.graph import Node
from servegraph.savedmodel.graph_reader import GraphFile
from servegraph.savedmodel.reachability import INIT, Reachability, is_slot, trace, training_baggage
from servegraph.savedmodel.restores import copies
from servegraph.storage import open_dir

MODELS = Path(__file__).parents[2] / "real_models"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def traced(name: str) -> list[Reachability]:
    with GraphFile(open_dir(MODELS / name)) as file:
        return [trace(file, meta_graph) for meta_graph in file.scan().meta_graphs]


def baggage(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in training_baggage(open_dir(MODELS / name)):
        found.setdefault(item.kind, set()).add(item.name)
    return found


def test_each_checkpoint_key_is_traced_to_the_signatures_that_read_it() -> None:
    (reachability,) = traced("module")
    assert reachability.reading("weights" + VALUE) == ("serving_default",)
    assert reachability.reading("words" + VALUE) == ()
    assert reachability.reading("no such key") is None
    assert "look_up" in reachability.entries
    assert reachability.entries[INIT].functions  # fills the table


def test_keras_stores_a_second_copy_that_nothing_reads() -> None:
    (reachability,) = traced("keras_dense")
    read = [key for key in reachability.restored if reachability.reading(key)]
    assert len(read) == 8
    assert all(key.startswith("_all_variables/") for key in read)
    assert baggage("keras_dense")["unread_tensor"] == {f"variables/{number}{VALUE}" for number in range(9)}


def test_a_partitioned_variable_is_read_through_its_parts() -> None:
    for reachability in traced("v1_partitioned"):
        assert len(reachability.restored["embedding"]) == 3
        assert reachability.reading("embedding") == ("serving_default",)


def test_training_leftovers_of_tf1_are_found_and_not_reached() -> None:
    found = training_baggage(open_dir(MODELS / "v1_adam"))
    assert {item.kind for item in found} >= {"optimizer", "queue", "loss", "summary", "slot"}
    assert all(name.startswith("(") for item in found for name in item.reachable_from)
    assert sum(item.stored_bytes for item in found if item.kind == "slot") > 2 * 36 * 5 * 4


def test_a_saved_keras_model_reads_variables_that_loading_does_not_fill() -> None:
    (reachability,) = traced("keras_saved")
    filled = {name for targets in reachability.restored.values() for name in targets}
    assert filled.isdisjoint(reachability.entries["serving_default"].nodes)
    # They are what the signature needs all the same: each is the copy of a variable that it reads.
    read = {key for key in reachability.restored if reachability.reading(key)}
    assert read == {key for key in reachability.restored if not is_slot(key)}
    assert read


def test_a_variable_that_is_filled_itself_is_no_copy() -> None:
    nodes = {
        node.name: node
        for node in (
            Node("online", "VarHandleOp", (), "", {}, 0),
            Node("read", "ReadVariableOp", ("online",), "", {}, 0),
            Node("delayed", "VarHandleOp", (), "", {}, 0),
            Node("assign", "AssignVariableOp", ("delayed", "read"), "", {}, 0),
        )
    }
    assert copies(nodes, {"key": ("delayed",)}) == {"delayed": ("online",)}
    assert copies(nodes, {"key": ("delayed",), "other": ("online",)}) == {}


@pytest.mark.parametrize(
    ("key", "is_state"),
    [
        ("optimizer/_variables/2/.ATTRIBUTES/VARIABLE_VALUE", True),
        ("m/optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE", True),
        ("layer/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE", True),
        ("dense/kernel/Adam_1", True),
        ("optimizer/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE", False),
        ("adam_optimizer_embedding", False),
    ],
)
def test_state_of_an_optimizer_is_told_by_its_key(key: str, *, is_state: bool) -> None:
    assert is_slot(key) == is_state


@pytest.mark.parametrize("name", ["keras_lookup", "v1_partitioned"])
def test_what_is_only_served_has_no_training_operations(name: str) -> None:
    assert baggage(name).keys() <= {"unread_tensor"}
