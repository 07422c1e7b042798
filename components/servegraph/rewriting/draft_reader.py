"""Reads a SavedModel as a draft: each MetaGraph taken apart, or left as it is where that cannot be done safely."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph import storage, text_operations
from servegraph.errors import ModelError, StorageError
from servegraph.rewriting.contents import Stored
from servegraph.rewriting.draft import VARIABLES, Draft, OnGpu, is_named, names_of
from servegraph.rewriting.gpu_graph import precision_of
from servegraph.rewriting.graph import Untransformable
from servegraph.rewriting.meta_graph import ServingGraph, take_apart
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.graph import SERVING_TAG
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.savedmodel.metadata_files import FINGERPRINT
from servegraph.storage.directory import GRAPH_FILES
from servegraph.storage.local import answering

_log = logging.getLogger(__name__)


def read(path: Path, keep: tuple[str, ...] = ()) -> Draft:
    """Return the draft that equals the model at `path`; `keep` names what lossy rungs leave as it is.

    Raises:
        ModelError: the graph cannot be parsed (code `GRAPH_CORRUPT`), the checkpoint's index is damaged.
        StorageError: a file cannot be read.
    """
    text_operations.register()
    saved_model = SavedModel()
    graph = next((path / name for name in GRAPH_FILES if (path / name).is_file()), path / GRAPH_FILES[0])
    with answering("read", graph):
        content = graph.read_bytes()
    try:
        if graph.suffix == ".pb":
            saved_model.ParseFromString(content)
        else:
            text_format.Parse(content.decode(), saved_model)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as exc:
        raise ModelError(
            f"The graph of {path} cannot be parsed: {exc}",
            code="GRAPH_CORRUPT",
            fix="Export the model again.",
        ) from exc
    files = tuple(
        file.path
        for file in storage.open_dir(path).files()
        # The fingerprint is of the graph as it was, and the answers in golden requests are, which are asked again.
        if file.path not in (*GRAPH_FILES, FINGERPRINT, GOLDEN_FILE) and not file.path.startswith(f"{VARIABLES}.")
    )
    draft = Draft(path, (), {}, {}, files, keep=keep)
    graphs: list[ServingGraph | MetaGraphDef] = []
    untouched = {}
    on_gpu = None
    with draft.tensors() as tensors:
        for number, meta_graph in enumerate(saved_model.meta_graphs):
            if number and (precision := precision_of(meta_graph)) and _is_whole_serve(graphs):
                on_gpu = OnGpu(precision, meta_graph)
                continue
            try:
                graphs.append(take_apart(meta_graph, tensors))
            except Untransformable as reason:
                graphs.append(meta_graph)
                untouched[number] = str(reason)
            except (ModelError, StorageError):  # a damaged checkpoint
                raise
            except Exception as exc:  # of a graph that nobody foresaw
                _log.debug("MetaGraph %d cannot be taken apart.", number, exc_info=True)
                graphs.append(meta_graph)
                untouched[number] = f"it cannot be taken apart: {type(exc).__name__}: {str(exc)[:200]}"
        entries = tensors.entries if tensors else {}
        draft = replace(
            draft,
            graphs=tuple(graphs),
            untouched=untouched,
            contents={key: Stored.whole(entry) for key, entry in entries.items()},
            on_gpu=on_gpu,
            variables_bytes=sum(entry.size_bytes for entry in entries.values()),
        )
        return replace(draft, kept=_kept(draft, entries))


def _kept(draft: Draft, entries: Mapping[str, TensorEntry]) -> frozenset[str]:
    """Return the keys that `keep` names now, as folding takes a variable's name away, and those of their copies.

    Keras 3 exports every variable twice, and which of the two serves, its user cannot know.
    """
    handles: dict[str, list[str]] = {}
    for restore in draft.restores:
        for tensor in restore.tensors:
            handles.setdefault(tensor.key, []).append(restore.handle)
    named = {key for key in entries if is_named(names_of(key, handles.get(key, ())), draft.keep)}
    looks = {key: (entry.dtype, entry.shape, entry.crc32c) for key, entry in entries.items() if not entry.slices}
    copied = {looks[key] for key in named if key in looks}
    return frozenset(named | {key for key, look in looks.items() if look in copied})


def _is_whole_serve(graphs: list[ServingGraph | MetaGraphDef]) -> bool:
    """Whether {serve} alone was read so far, and could be taken apart."""
    whole = [graph.original for graph in graphs if isinstance(graph, ServingGraph)]
    return len(graphs) == 1 and [list(one.meta_info_def.tags) for one in whole] == [[SERVING_TAG]]
