"""A SavedModel as it will be written: graphs in memory, tensors and files still where they came from.

So a draft of a 10 GB model is as small as its graph, a rung is a pure function of drafts, and writing streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from servegraph import storage
from servegraph.rewriting import Precision
from servegraph.rewriting.blocks import in_blocks
from servegraph.rewriting.contents import Content
from servegraph.rewriting.forms import Form
from servegraph.rewriting.gpu_graph import for_gpu
from servegraph.rewriting.meta_graph import ServingGraph
from servegraph.rewriting.restores import Restore, StoredAs
from servegraph.savedmodel.bundle_reader import BundleReader

VARIABLES = Path("variables/variables")


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
    `variables_bytes` is about what the variables of the source take once it is loaded; text counts as on disk.
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
    variables_bytes: int = 0

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
        whole |= {*self.aliases, *self.aliases.values()}
        forms = in_blocks(self.contents, self.forms, whole, self.variables_bytes)
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
    def graph_bytes(self) -> int:
        """What the MetaGraphs take, with all constants in them."""
        return sum(definition.ByteSize() for definition in self.definitions)

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


def names_of(key: str, handles: Iterable[str] = ()) -> set[str]:
    """Return what a tensor is called by: its key, with and without the end that TensorFlow gives it, its variables."""
    return {key, key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"), *handles}


def is_named(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether a pattern (`*`, `?`) matches one of the names."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
