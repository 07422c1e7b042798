"""A SavedModel as it will be written: graphs in memory, tensors and files still where they came from.

So a draft of a 10 GB model is as small as its graph, a rung is a pure function of drafts, and writing streams.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph import storage
from servegraph.errors import ModelError, StorageError
from servegraph.optimize.encodings import ENCODINGS
from servegraph.optimize.graph import Untransformable
from servegraph.optimize.meta_graph import ServingGraph, put_together, take_apart
from servegraph.optimize.restoring import Restore
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.savedmodel.layout import STRAY_ROLES, role_of

VARIABLES = Path("variables/variables")
_GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")


@dataclass(frozen=True)
class Draft:
    """`graphs` has one entry per MetaGraph: its parts, or the untouched MetaGraph where it cannot be taken apart.

    `keys` are the checkpoint's tensors to write, `aliases` those that share the bytes of another, `files` the paths
    of everything beside graph and variables.
    """

    source: Path
    graphs: tuple[ServingGraph | MetaGraphDef, ...]
    untouched: Mapping[int, str]  # why a MetaGraph stays as it is, by its number
    keys: tuple[str, ...]
    files: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def restores(self) -> list[Restore]:
        """What all graphs that could be taken apart restore."""
        return [restore for graph in self.graphs if isinstance(graph, ServingGraph) for restore in graph.restores]

    @property
    def encodings(self) -> dict[str, str]:
        """The form of each key that is not stored in its own."""
        tensors = [tensor for restore in self.restores for tensor in restore.tensors]
        return {tensor.key: tensor.encoding for tensor in tensors if tensor.encoding}

    @contextmanager
    def tensors(self) -> Iterator[BundleReader | None]:
        """Open the checkpoint; None if the model has none."""
        if not (self.source / VARIABLES).with_suffix(".index").is_file():
            yield None
            return
        with BundleReader(storage.open_dir(self.source)) as reader:
            yield reader


def read(path: Path) -> Draft:
    """Return the draft that equals the model at `path`.

    Raises:
        ModelError: the graph cannot be parsed (code `GRAPH_CORRUPT`), the checkpoint's index is damaged.
    """
    saved_model = SavedModel()
    try:
        if (path / _GRAPH_FILES[0]).is_file():
            saved_model.ParseFromString((path / _GRAPH_FILES[0]).read_bytes())
        else:
            text_format.Parse((path / _GRAPH_FILES[1]).read_text(), saved_model)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as exc:
        raise ModelError(
            f"The graph of {path} cannot be parsed: {exc}",
            code="GRAPH_CORRUPT",
            fix="Export the model again.",
        ) from exc
    files = tuple(
        file.path
        for file in storage.open_dir(path).files()
        if file.path not in _GRAPH_FILES and not file.path.startswith(f"{VARIABLES}.")
    )
    draft = Draft(path, (), {}, (), files)
    graphs: list[ServingGraph | MetaGraphDef] = []
    untouched = {}
    with draft.tensors() as tensors:
        for number, meta_graph in enumerate(saved_model.meta_graphs):
            try:
                graphs.append(take_apart(meta_graph, tensors))
            except Untransformable as reason:
                graphs.append(meta_graph)
                untouched[number] = str(reason)
        keys = tuple(tensors.entries) if tensors else ()
    return replace(draft, graphs=tuple(graphs), untouched=untouched, keys=keys)


def write(draft: Draft, out: Path) -> None:
    """Write the model to the new directory `out`.

    Raises:
        StorageError: it cannot be written (code `CANNOT_WRITE`).
        ModelError: the source's tensors are damaged.
    """
    try:
        out.mkdir(parents=True)
        for path in draft.files:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(draft.source / path, out / path)
        _write_tensors(draft, out)
        (out / "saved_model.pb").write_bytes(_graph_bytes(draft))
    except StorageError:
        raise
    except OSError as exc:
        raise _cannot_write(out, exc) from exc


def copy_unchanged(model: Path, out: Path) -> None:
    """Copy the model to the new directory `out` as it is, stray files (R15) left behind.

    Raises:
        StorageError: it cannot be written (code `CANNOT_WRITE`).
    """
    try:
        for file in storage.open_dir(model).files():
            if role_of(file.path) not in STRAY_ROLES:
                (out / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model / file.path, out / file.path)
    except StorageError:
        raise
    except OSError as exc:
        raise _cannot_write(out, exc) from exc


def _cannot_write(out: Path, exc: OSError) -> StorageError:
    return StorageError(
        f"The model cannot be written to {out}: {exc}.",
        code="CANNOT_WRITE",
        fix="Give a directory that can be written and has space left.",
    )


def _write_tensors(draft: Draft, out: Path) -> None:
    if not draft.keys:
        return
    with draft.tensors() as tensors, BundleWriter(out / VARIABLES) as writer:
        assert tensors is not None  # there are keys
        encodings = draft.encodings
        for key in draft.keys:
            if encoding := encodings.get(key):
                ENCODINGS[encoding].write(tensors.entries[key], tensors, writer)
            elif key not in draft.aliases:
                writer.copy(tensors.entries[key], tensors)
        for key, same_as in draft.aliases.items():
            writer.alias(key, same_as)


def _graph_bytes(draft: Draft) -> bytes:
    result = SavedModel(saved_model_schema_version=1)
    for graph in draft.graphs:
        result.meta_graphs.add().CopyFrom(graph if isinstance(graph, MetaGraphDef) else put_together(graph))
    content: bytes = result.SerializeToString(deterministic=True)
    return content
