"""A SavedModel as it will be written: graphs in memory, tensors and files still where they came from.

So a draft of a 10 GB model is as small as its graph, a rung is a pure function of drafts, and writing streams.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from servegraph import storage, text_operations
from servegraph.errors import ModelError, StorageError
from servegraph.rewriting import Precision
from servegraph.rewriting.blocks import Blocks, in_blocks
from servegraph.rewriting.contents import CHUNK_BYTES, Content, Literal, Stored
from servegraph.rewriting.forms import Form
from servegraph.rewriting.gpu_graph import for_gpu, precision_of
from servegraph.rewriting.graph import Untransformable
from servegraph.rewriting.meta_graph import ServingGraph, put_together, take_apart
from servegraph.rewriting.restores import Restore, StoredAs
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.savedmodel.layout import GOLDEN_FILE, STRAY_ROLES, role_of
from servegraph.storage.local import answering

_log = logging.getLogger(__name__)
VARIABLES = Path("variables/variables")
_GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")


@dataclass(frozen=True)
class OnGpu:
    """The MetaGraph for GPUs beside {serve}: the precision that it computes in, and how it was read."""

    precision: Precision
    definition: MetaGraphDef


@dataclass(frozen=True)
class Draft:
    """`graphs` has one entry per MetaGraph: its parts, or the untouched MetaGraph where it cannot be taken apart.

    `contents` are the tensors to write by key, `forms` those not stored as they are, `aliases` keys that share the
    bytes of another, `files` the paths of everything beside graph and variables, `keep` names or patterns (`*`, `?`) of
    checkpoint keys or variables that lossy rungs leave as they are, `kept` the keys that they name. `on_gpu` is a
    MetaGraph that follows from the only one in `graphs` and is made of it again when the draft is written, so that a
    change of one is a change of both. With `has_short_keys` tensors are written under numbers instead of their keys.
    """

    source: Path
    graphs: tuple[ServingGraph | MetaGraphDef, ...]
    untouched: Mapping[int, str]  # why a MetaGraph stays as it is, by its number
    contents: Mapping[str, Content]
    files: tuple[str, ...]
    forms: Mapping[str, Form] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    on_gpu: OnGpu | None = None
    has_short_keys: bool = False

    @property
    def names(self) -> dict[str, str]:
        """The names in the files of the tensors to write, by their keys."""
        keys = sorted(self.contents)
        return {key: f"{number:x}" if self.has_short_keys else key for number, key in enumerate(keys)}

    @property
    def stored(self) -> dict[str, StoredAs]:
        """What is written for each key."""
        names, restores = self.names, self.restores
        whole = {t.key for r in restores for t in r.tensors if t.part or t.slice_spec or len(r.tensors) > 1}
        forms = in_blocks(self.contents, self.forms, whole | {*self.aliases, *self.aliases.values()})
        return {key: StoredAs(names[key], content, forms.get(key)) for key, content in self.contents.items()}

    @property
    def serving_graphs(self) -> list[ServingGraph]:
        """The graphs that could be taken apart."""
        return [graph for graph in self.graphs if isinstance(graph, ServingGraph)]

    @property
    def definitions(self) -> list[MetaGraphDef]:
        """The MetaGraphs as they were read."""
        found = [graph.original if isinstance(graph, ServingGraph) else graph for graph in self.graphs]
        return [*found, self.on_gpu.definition] if self.on_gpu else found

    def only(self, number: int) -> Draft:
        """Return the draft with one of its MetaGraphs."""
        if self.on_gpu and number == len(self.graphs):
            (graph,) = self.serving_graphs
            return replace(self, graphs=(for_gpu(graph, self.on_gpu.precision),), on_gpu=None)
        untouched = {0: self.untouched[number]} if number in self.untouched else {}
        return replace(self, graphs=(self.graphs[number],), untouched=untouched, on_gpu=None)

    @property
    def loaded_bytes(self) -> int:
        """About what the variables of the model take once it is loaded; text counts as what it takes on disk."""
        with self.tensors() as tensors:
            return sum(entry.size_bytes for entry in tensors.entries.values()) if tensors else 0

    @property
    def restores(self) -> list[Restore]:
        """What all graphs that could be taken apart restore."""
        return [restore for graph in self.serving_graphs for restore in graph.restores]

    def with_graphs(self, change: Callable[[ServingGraph], ServingGraph]) -> Draft:
        """Return the draft with each graph that could be taken apart changed, and only the tensors still restored."""
        graphs = tuple(change(g) if isinstance(g, ServingGraph) else g for g in self.graphs)
        return replace(self, graphs=graphs).with_needed_contents()

    def with_needed_contents(self) -> Draft:
        """Return the draft with only the tensors that a graph restores; with all if a graph is untouched."""
        if self.untouched:
            return self
        wanted = {key for graph in self.serving_graphs for key in graph.checkpoint_keys}
        return replace(self, contents={key: value for key, value in self.contents.items() if key in wanted})

    @contextmanager
    def tensors(self) -> Iterator[BundleReader | None]:
        """Open the checkpoint; None if the model has none."""
        if not (self.source / VARIABLES).with_suffix(".index").is_file():
            yield None
            return
        with BundleReader(storage.open_dir(self.source)) as reader:
            yield reader


def read(path: Path, keep: tuple[str, ...] = ()) -> Draft:
    """Return the draft that equals the model at `path`; `keep` names what lossy rungs leave as it is.

    Raises:
        ModelError: the graph cannot be parsed (code `GRAPH_CORRUPT`), the checkpoint's index is damaged.
        StorageError: a file cannot be read.
    """
    text_operations.register()
    saved_model = SavedModel()
    graph = next((path / name for name in _GRAPH_FILES if (path / name).is_file()), path / _GRAPH_FILES[0])
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
        # The answers in golden requests are of the model as it was: they are asked again of the result.
        if file.path not in (*_GRAPH_FILES, GOLDEN_FILE) and not file.path.startswith(f"{VARIABLES}.")
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
        contents = {key: Stored.whole(entry) for key, entry in tensors.entries.items()} if tensors else {}
        draft = replace(draft, graphs=tuple(graphs), untouched=untouched, contents=contents, on_gpu=on_gpu)
        return replace(draft, kept=_kept(draft, tensors.entries if tensors else {}))


def names_of(key: str, handles: Iterable[str] = ()) -> set[str]:
    """Return what a tensor is called by: its key, with and without the end that TensorFlow gives it, its variables."""
    return {key, key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"), *handles}


def is_named(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether a pattern (`*`, `?`) matches one of the names."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


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


def write(draft: Draft, out: Path, before: tuple[Draft, Path] | None = None, *, hollow: bool = False) -> None:
    """Write the model to the new directory `out`; tensors that a draft written `before` has as well are not repeated.

    A `hollow` model has its graph and the size of all files, and no tensor that is copied from the source; `fill`
    writes them.

    Raises:
        StorageError: it cannot be written (code `CANNOT_WRITE`), or a file of the source cannot be read.
        ModelError: the source's tensors are damaged.
    """
    try:
        out.mkdir(parents=True)
        for path in draft.files:
            _copy(path, draft.source, out)
        if before is not None and _same_tensors(draft, before[0]):
            _link_tensors(before[1], out)
        else:
            _write_tensors(draft, out, hollow=hollow)
        (out / "saved_model.pb").write_bytes(_graph_bytes(draft))
    except StorageError:
        raise
    except OSError as exc:
        raise _cannot_write(out, exc) from exc


def fill(draft: Draft, out: Path) -> None:
    """Write the tensors of the draft at `out`, which is hollow. Raises as `write` does."""
    try:
        _write_tensors(draft, out, hollow=False)
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
                _copy(file.path, model, out)
    except StorageError:
        raise
    except OSError as exc:
        raise _cannot_write(out, exc) from exc


def _copy(path: str, model: Path, out: Path) -> None:
    """Copy a file of the model. What cannot be read of it, such as a link that leads elsewhere, is a StorageError."""
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    with storage.open_dir(model).stream(path) as source, (out / path).open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def _cannot_write(out: Path, exc: OSError) -> StorageError:
    return StorageError(
        f"The model cannot be written to {out}: {exc}.",
        code="CANNOT_WRITE",
        fix="Give a directory that can be written and has space left.",
    )


def _same_tensors(one: Draft, other: Draft) -> bool:
    tensors = [(draft.contents, draft.forms, draft.aliases, draft.has_short_keys) for draft in (one, other)]
    return tensors[0] == tensors[1]


def _link_tensors(source: Path, out: Path) -> None:
    """Give the files a second name: nothing writes to them once they are there."""
    for path in sorted((source / VARIABLES).parent.glob(f"{VARIABLES.name}.*")):
        target = (out / VARIABLES).parent / path.name
        target.parent.mkdir(exist_ok=True)
        os.link(path, target)


def _write_tensors(draft: Draft, out: Path, *, hollow: bool) -> None:
    if not draft.contents:
        return
    stored = draft.stored
    with draft.tensors() as tensors, BundleWriter(out / VARIABLES, hollow=hollow) as writer:
        for key, (name, content, form) in stored.items():
            if key in draft.aliases:
                continue
            if form is not None:
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


def _write_form(
    name: str, content: Content, form: Form | Blocks, tensors: BundleReader | None, writer: BundleWriter
) -> None:
    for part, chunks in zip(form.parts, form.stored(content, tensors), strict=True):
        if part.dtype == "string":
            writer.add_strings(f"{name}{part.suffix}", part.shape, [b"".join(chunks)])
        else:
            writer.add(f"{name}{part.suffix}", part.dtype, part.shape, chunks)


def _is_whole_serve(graphs: list[ServingGraph | MetaGraphDef]) -> bool:
    """Whether {serve} alone was read so far, and could be taken apart."""
    whole = [graph.original for graph in graphs if isinstance(graph, ServingGraph)]
    return len(graphs) == 1 and [list(one.meta_info_def.tags) for one in whole] == [["serve"]]


def _graph_bytes(draft: Draft) -> bytes:
    stored = draft.stored
    result = SavedModel(saved_model_schema_version=1)
    for graph in draft.graphs:
        result.meta_graphs.add().CopyFrom(graph if isinstance(graph, MetaGraphDef) else put_together(graph, stored))
    if draft.on_gpu:
        (graph,) = draft.serving_graphs
        result.meta_graphs.add().CopyFrom(put_together(for_gpu(graph, draft.on_gpu.precision), stored))
    content: bytes = result.SerializeToString(deterministic=True)
    return content
