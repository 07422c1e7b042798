"""A SavedModel loaded otherwise than it is written: both of TensorFlow's loaders read it through one function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tensorflow.python.saved_model import loader_impl


@contextlib.contextmanager
def loaded_with(change: Callable[[Any], None]) -> Iterator[None]:
    """Within, `change` is given each SavedModel message that this process has read, before it is loaded."""
    parse = loader_impl.parse_saved_model

    def changed(export_dir: str) -> Any:
        saved_model = parse(export_dir)
        change(saved_model)
        return saved_model

    loader_impl.parse_saved_model = changed
    try:
        yield
    finally:
        loader_impl.parse_saved_model = parse


def without_objects(saved_model: Any) -> None:
    """Leave out Python's objects, as TensorFlow Serving does: signatures and what they need are loaded all the same."""
    for meta_graph in saved_model.meta_graphs:
        meta_graph.ClearField("object_graph_def")
