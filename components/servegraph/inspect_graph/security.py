"""Is it dangerous: operations that reach outside of the graph, wherever they hide, and who can make them run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from servegraph.errors import ModelError
from servegraph.inspect_graph.findings import Finding, finding
from servegraph.savedmodel.embedded import GraphSource, StringInputs, embedded_graphs
from servegraph.savedmodel.graph import Body, MetaGraph, Node, attr_bytes
from servegraph.savedmodel.layout import ROUTINE_FILE
from servegraph.savedmodel.metadata_files import KERAS_METADATA, KerasMetadata
from servegraph.savedmodel.ops import DANGER_OF, DANGEROUS
from servegraph.savedmodel.reachability import INIT, PYTHON_LOAD, RESTORE, Reachability, is_signature
from servegraph.storage.directory import Directory

_WHAT = {rule.kind: rule.what for rule in DANGEROUS}
_MAX_NESTING = 8
_TABLE_FILLERS = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")

# In a SavedModel as TensorFlow writes it restoring reaches the one, and nothing reaches the others: saving is no
# entry point, and an Estimator stores two savers. Reached in another way they are as dangerous as any other.
_SAVER_OPS = {"RestoreV2": {RESTORE}, "SaveV2": set[str](), "MergeV2Checkpoints": set[str]()}


class Danger(NamedTuple):
    """One dangerous operation: the node, what it can do, and where it is."""

    node: Node
    body: Body
    what: str
    place: str


def check_security(
    where: str, meta_graph: MetaGraph, source: GraphSource, reachability: Reachability
) -> Iterator[Finding]:
    """Find the dangerous operations of a MetaGraph, an error if a signature or loading reaches one."""
    dangers = _Scan(source, meta_graph.main, meta_graph.functions, meta_graph.assets).dangers()
    for danger in dangers:
        reached = reachability.reaching(danger.body, danger.node.name)
        if danger.node.op in _SAVER_OPS and not set(reached) - _SAVER_OPS[danger.node.op]:
            continue
        served = [name for name in reached if is_signature(name) or name in (INIT, RESTORE, PYTHON_LOAD)]
        by = f", reached from {', '.join(served)}" if served else ""
        code = "UNSAFE_OP" if served else "UNSAFE_OP_STORED"
        yield finding(code, f"{where}: {danger.place} can {danger.what}{by}.")


class _Scan:
    """Looks through one graph, and through those inside of it."""

    def __init__(
        self,
        source: GraphSource,
        main: Body,
        functions: Mapping[str, Body],
        assets: Mapping[str, str],
        depth: int = 0,
        opened: dict[tuple[bytes, ...], dict[str, str] | None] | None = None,
    ) -> None:
        self._bodies = (main, *functions.values())
        self._strings = StringInputs(source, main, functions, assets)
        self._depth = depth
        self._opened = {} if opened is None else opened

    def dangers(self) -> Iterator[Danger]:
        """Yield every operation that can reach outside."""
        for body in self._bodies:
            for node in body.watched:
                if node.op in DANGER_OF:
                    yield from self._judge(body, node)

    def _judge(self, body: Body, node: Node) -> Iterator[Danger]:
        place = f"{node.op} ({node.name}{f' in {body.name}' if body.name else ''})"
        if DANGER_OF[node.op] == "nested_graph":
            yield from self._judge_nested(body, node, place)
            return
        is_harmless = HARMLESS.get(node.op)
        is_hidden_table = self._depth > 0 and node.op in _TABLE_FILLERS  # a graph in a string has no assets
        if is_harmless is None or is_hidden_table or not is_harmless(self._strings, body, node):
            yield Danger(node, body, _WHAT[DANGER_OF[node.op]], place)

    def _judge_nested(self, body: Body, node: Node, place: str) -> Iterator[Danger]:
        """Open the graph in the string; what is in it runs where `node` runs."""
        strings = self._strings.of(body, node, 0)
        inside = self._inside(strings.values) if strings is not None else None
        if inside is None:
            yield Danger(node, body, "run a graph that is not known before it runs", place)
        for what, hidden in (inside or {}).items():
            yield Danger(node, body, what, f"{hidden} inside the string of {place}")

    def _inside(self, contents: tuple[bytes, ...]) -> dict[str, str] | None:
        """Return what graphs in strings can do, with an example of where, or None where they are no graphs.

        Each string is opened once: a hostile one has a thousand operations that take it.
        """
        if contents not in self._opened:
            graphs = embedded_graphs(contents) if self._depth < _MAX_NESTING else None
            found: dict[str, str] = {}
            for graph in graphs or ():
                scan = _Scan(graph, graph.main, graph.functions, {}, self._depth + 1, self._opened)
                for danger in scan.dangers():
                    found.setdefault(danger.what, danger.place)
            self._opened[contents] = None if graphs is None else found
        return self._opened[contents]


def _prints_to_log(strings: StringInputs, body: Body, node: Node) -> bool:
    """PrintV2 writes a file only where its stream is `file://…`; else it is the server's log."""
    return not (attr_bytes(node, "output_stream") or b"").startswith(b"file:")


def _caches_in_memory(strings: StringInputs, body: Body, node: Node) -> bool:
    name = strings.of(body, node, 1)
    return name is not None and set(name.values) == {b""}


def _has_no_file(strings: StringInputs, body: Body, node: Node) -> bool:
    return not attr_bytes(node, "vocab_file")


def _has_no_descriptor_file(strings: StringInputs, body: Body, node: Node) -> bool:
    """Protos are described by what is linked in, by bytes in the graph, or else by a file."""
    source = attr_bytes(node, "descriptor_source") or b"local://"
    return source.startswith((b"local://", b"bytes://"))


def _has_no_url(strings: StringInputs, body: Body, node: Node) -> bool:
    """Debugging operations publish to a list of URLs, empty as a rule."""
    return b"://" not in node.attrs.get("debug_urls", b"")


def _reads_an_asset(strings: StringInputs, body: Body, node: Node) -> bool:
    """A table is filled from a file: an asset, or one that `EXTERNAL_FILE` names; not one whose name is computed."""
    return strings.of(body, node, 1) is not None


# Operations that are dangerous only with some inputs or attributes.
HARMLESS: dict[str, Callable[[StringInputs, Body, Node], bool]] = {
    "PrintV2": _prints_to_log,
    "CacheDataset": _caches_in_memory,
    "CacheDatasetV2": _caches_in_memory,
    "FixedUnigramCandidateSampler": _has_no_file,
    **dict.fromkeys(("DecodeProtoV2", "EncodeProto"), _has_no_descriptor_file),
    **dict.fromkeys(_TABLE_FILLERS, _reads_an_asset),
    **dict.fromkeys(("DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount"), _has_no_url),
    "DebugNumericSummary": _has_no_url,
    "DebugNumericSummaryV2": _has_no_url,
}


def check_routine(directory: Directory, paths: Collection[str]) -> Iterator[Finding]:
    """Find Python code that a server would run around the graph; its manifest is read and nothing is run."""
    if ROUTINE_FILE not in paths:
        return
    from servegraph.routine.manifest import read_routine  # few models have one

    try:
        routine = read_routine(directory)
    except ModelError as exc:
        yield finding("ROUTINE", f"It cannot be used as it is: {exc.message}")
        return
    if routine is not None:
        needs = f", which needs {', '.join(routine.requirements)}" if routine.requirements else ""
        yield finding("ROUTINE", f"{routine.predictor} answers in place of the graph{needs}.")


def check_keras(metadata: KerasMetadata | None) -> Iterator[Finding]:
    """Find Python code in what Keras wrote about the model."""
    if metadata is not None and metadata.python_code:
        layers = ", ".join(map(repr, metadata.python_code[:5]))
        yield finding("PYTHON_CODE", f"{KERAS_METADATA} has that of {len(metadata.python_code)} layers, e.g. {layers}.")


def check_table_files(where: str, meta_graph: MetaGraph, source: GraphSource) -> Iterator[Finding]:
    """Find tables that are filled from a file which is no asset: it is not there where the model is served."""
    strings = StringInputs(source, meta_graph.main, meta_graph.functions, meta_graph.assets)
    for body in (meta_graph.main, *meta_graph.functions.values()):
        for node in body.watched:
            if node.op in _TABLE_FILLERS:
                name = strings.of(body, node, 1)
                for value in name.values if name else ():
                    path = value.decode("utf-8", "replace")
                    yield finding("EXTERNAL_FILE", f"{where}: {node.name} reads {path!r}, which is no asset.")
