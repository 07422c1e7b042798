"""Writes a draft as a SavedModel: tensors stream from where they are into the new files."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph import storage
from servegraph.rewriting.blocks import Blocks
from servegraph.rewriting.contents import CHUNK_BYTES, Content, Literal, Stored
from servegraph.rewriting.draft import VARIABLES, Draft
from servegraph.rewriting.forms import Form
from servegraph.rewriting.gpu_graph import for_gpu
from servegraph.rewriting.meta_graph import put_together
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.savedmodel.layout import is_stray
from servegraph.storage.staging import writing

_Written = dict[tuple[str, tuple[int, ...], bytes], str]  # the names of blocks, by dtype, shape and digest


def write(draft: Draft, out: Path, before: tuple[Draft, Path] | None = None, *, hollow: bool = False) -> None:
    """Write the model to the new directory `out`; tensors that a draft written `before` has as well are not repeated.

    A `hollow` model has its graph and the size of all files, and no tensor that is copied from the source; `fill`
    writes them.

    Raises:
        StorageError: it cannot be written (code `CANNOT_WRITE`), or a file of the source cannot be read.
        ModelError: the source's tensors are damaged.
    """
    with writing(out):
        out.mkdir(parents=True)
        for path in draft.files:
            _copy(path, draft.source, out)
        if before is not None and _same_tensors(draft, before[0]):
            _link_tensors(before[1], out)
        else:
            _write_tensors(draft, out, hollow=hollow)
        (out / "saved_model.pb").write_bytes(_graph_bytes(draft))


def fill(draft: Draft, out: Path) -> None:
    """Write the tensors of the draft at `out`, which is hollow. Raises as `write` does."""
    with writing(out):
        _write_tensors(draft, out, hollow=False)


def copy_unchanged(model: Path, out: Path) -> None:
    """Copy the model to the new directory `out` as it is, stray files (R15) left behind.

    Raises:
        StorageError: it cannot be written (code `CANNOT_WRITE`).
    """
    with writing(out):
        for file in storage.open_dir(model).files():
            if not is_stray(file.path):
                _copy(file.path, model, out)


def _copy(path: str, model: Path, out: Path) -> None:
    """Copy a file of the model. What cannot be read of it, such as a link that leads elsewhere, is a StorageError."""
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    with storage.open_dir(model).stream(path) as source, (out / path).open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def _same_tensors(one: Draft, other: Draft) -> bool:
    return one.stored == other.stored and one.aliases == other.aliases


def _link_tensors(source: Path, out: Path) -> None:
    """Give the files a second name: nothing writes to them once they are there."""
    for path in sorted((source / VARIABLES).parent.glob(f"{VARIABLES.name}.*")):
        target = (out / VARIABLES).parent / path.name
        target.parent.mkdir(exist_ok=True)
        os.link(path, target)


def _write_tensors(draft: Draft, out: Path, *, hollow: bool) -> None:
    if not draft.contents:
        return
    stored, written = draft.stored, _Written()
    with draft.tensors() as tensors, BundleWriter(out / VARIABLES, hollow=hollow) as writer:
        for key, (name, content, form) in stored.items():
            if key in draft.aliases:
                continue
            if isinstance(form, Blocks):
                _write_blocks(name, content, form, tensors, writer, written)
            elif form is not None:
                _write_form(name, content, form, tensors, writer)
            elif isinstance(content, Stored) and content.spec is None:
                assert tensors is not None  # what is stored is in a checkpoint
                writer.copy(tensors.entries[content.key], tensors, name)
            elif isinstance(content, Literal) and content.dtype == "string":
                writer.add_strings(name, content.shape, content.values.ravel())
            else:
                writer.add(name, content.dtype, content.shape, content.chunks(tensors))
        for key, same_as in draft.aliases.items():
            writer.alias(stored[key].name, stored[same_as].name)


def _write_form(name: str, content: Content, form: Form, tensors: BundleReader | None, writer: BundleWriter) -> None:
    for part, chunks in zip(form.parts, form.stored(content, tensors), strict=True):
        if part.dtype == "string":
            writer.add_strings(f"{name}{part.suffix}", part.shape, [b"".join(chunks)])
        else:
            writer.add(f"{name}{part.suffix}", part.dtype, part.shape, chunks)


def _write_blocks(
    name: str,
    content: Content,
    blocks: Blocks,
    tensors: BundleReader | None,
    writer: BundleWriter,
    written: _Written,
) -> None:
    """Write each block once: an embedding may have many equal rows, such as those of words that no training met."""
    for part, chunks in zip(blocks.parts, blocks.stored(content, tensors), strict=True):
        block = b"".join(chunks)
        key = f"{name}{part.suffix}"
        same_as = written.setdefault((part.dtype, part.shape, hashlib.sha256(block).digest()), key)
        if same_as == key:
            writer.add(key, part.dtype, part.shape, [block])
        else:
            writer.alias(key, same_as)


def _graph_bytes(draft: Draft) -> bytes:
    stored = draft.stored
    result = SavedModel(saved_model_schema_version=1)
    for graph in draft.graphs:
        meta_graph = result.meta_graphs.add()
        if isinstance(graph, MetaGraphDef):
            meta_graph.CopyFrom(graph)
        else:
            put_together(graph, stored, meta_graph)
    if draft.on_gpu:
        (graph,) = draft.serving_graphs
        put_together(for_gpu(graph, draft.on_gpu.precision), stored, result.meta_graphs.add())
    content: bytes = result.SerializeToString(deterministic=True)
    return content
