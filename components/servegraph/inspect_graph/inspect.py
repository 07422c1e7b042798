"""`inspect`: one look at a SavedModel, local or on Cloud Storage, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from servegraph.errors import InputError, ModelError
from servegraph.inspect_graph.findings import Finding, condensed, finding
from servegraph.inspect_graph.inspection import Inspection, has_variables
from servegraph.inspect_graph.integrity import (
    check_assets,
    check_files,
    check_pointers,
    check_requested,
    check_shards,
    verify_tensors,
)
from servegraph.inspect_graph.operations import check_operations
from servegraph.inspect_graph.references import check_references
from servegraph.inspect_graph.security import check_keras, check_routine, check_security, check_table_files
from servegraph.inspect_graph.signatures import check_signatures, tag_label
from servegraph.inspect_graph.weights import check_weights, weigh
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.bundle_reader import VARIABLES_PREFIX, BundleReader
from servegraph.savedmodel.graph import SavedModelGraph
from servegraph.savedmodel.graph_reader import GraphFile
from servegraph.savedmodel.layout import require_saved_model
from servegraph.savedmodel.metadata_files import (
    FINGERPRINT,
    KERAS_METADATA,
    parse_fingerprint,
    parse_keras_metadata,
)
from servegraph.savedmodel.reachability import Baggage, is_signature, trace, training_ops, unread_tensors
from servegraph.storage.directory import Directory, FileInfo, open_dir

MAX_PROTOBUF_BYTES = 2**31 - 1  # what protobuf, and so TensorFlow, can load
MAX_METADATA_BYTES = 1 << 24
# Walking through every message takes 0.2 s a megabyte: always for small graphs, with --verify for nearly all.
QUICK_STRUCTURE_BYTES, MAX_STRUCTURE_BYTES = 1 << 16, 1 << 26


def inspect(uri: str, *, verify: bool = False, platform: str | None = None) -> Inspection:
    """Look at the SavedModel at `uri`; with `verify` read every tensor and compare checksums.

    With `platform` find also what would keep the model from being deployed there.

    Raises:
        ModelError: `uri` is not a SavedModel (`NOT_A_SAVED_MODEL`). Damage is a finding, not an error.
        StorageError: it cannot be read.
        InputError: the platform is not known (`UNKNOWN_PLATFORM`), or `uri` is empty (`NO_MODEL`).
    """
    if not uri:  # a path of nothing is the current directory, and hardly what was meant
        raise InputError("The model's path is empty.", code="NO_MODEL", fix="Give a directory or gs://bucket/prefix.")
    return inspect_directory(open_dir(uri), verify=verify, platform=platform)


def inspect_directory(directory: Directory, *, verify: bool = False, platform: str | None = None) -> Inspection:
    """Look at the SavedModel in a directory; see `inspect`."""
    files = require_saved_model(directory)
    variables = _look_at_variables(directory, files, verify)
    tensors = variables.tensors or {}
    graph = _look_at_graph(directory, files, tensors, verify)
    weights = weigh(tensors)
    paths = {info.path: info.size_bytes for info in files}
    keras = parse_keras_metadata(_small_file(directory, paths, KERAS_METADATA))
    findings = [*check_files(directory, files), *variables.findings, *graph.findings]
    findings += [*check_weights(weights, graph.unread), *check_keras(keras)]
    findings += check_pointers(directory, files, findings)
    findings += check_routine(directory, paths)
    if variables.is_absent and graph.graph is not None and has_variables(graph.graph):
        findings.append(finding("NO_VARIABLES", f"{VARIABLES_PREFIX}.index is not there."))
    if platform is not None:
        from datetime import date

        from servegraph.inspect_graph.platforms import as_loaded_on, check_platform  # reads the machine catalogue

        findings = as_loaded_on(platform, findings)
        findings += check_platform(platform, files, graph.graph, graph.needed_ops, date.today())
    fingerprint = parse_fingerprint(_small_file(directory, paths, FINGERPRINT))
    return Inspection(
        uri=directory.uri,
        files=tuple(files),
        graph=graph.graph,
        tensors=tuple(tensors.values()),
        weights=None if variables.tensors is None else weights,
        readers=graph.readers,
        needed_ops=graph.needed_ops,
        growth_bytes=graph.growth_bytes,
        fingerprint=fingerprint,
        keras=keras,
        findings=tuple(condensed(findings)),
        verified=verify and variables.tensors is not None,
        platform=platform,
    )


def require_sound_tensors(directory: Directory) -> None:
    """Raise ModelError (`CRC_MISMATCH`) where a tensor is not as it was written; not looked at where that is far away.

    It takes a fifth of the time of the digest of a model.
    """
    if not any(info.path == f"{VARIABLES_PREFIX}.index" for info in directory.files()):
        return
    with BundleReader(directory) as bundle:
        for item in verify_tensors(bundle) if bundle.is_local else ():
            raise ModelError(item.message, code=item.code, fix=item.fix)


def _small_file(directory: Directory, sizes: Mapping[str, int], path: str) -> bytes:
    """Return the content of a small file, nothing where there is none."""
    return directory.read_bytes(path) if 0 < sizes.get(path, 0) <= MAX_METADATA_BYTES else b""


class _Variables(NamedTuple):
    """The tensors by key (None without a readable index) and what is wrong with their files."""

    tensors: Mapping[str, TensorEntry] | None
    findings: list[Finding]

    @property
    def is_absent(self) -> bool:
        """Tell whether there is no index at all."""
        return self.tensors is None and not self.findings


def _look_at_variables(directory: Directory, files: list[FileInfo], verify: bool) -> _Variables:
    if not any(info.path == f"{VARIABLES_PREFIX}.index" for info in files):
        return _Variables(None, [])
    try:
        with BundleReader(directory) as bundle:
            findings = list(check_shards(bundle.index, files, bundle.prefix))
            if verify:
                findings += verify_tensors(bundle)
            return _Variables(bundle.entries, findings)
    except ModelError as error:
        return _Variables(None, [finding(error.code, error.message)])


class _Graph(NamedTuple):
    """What the graph file says, None where it cannot be read. See `Inspection` for the fields it has as well."""

    graph: SavedModelGraph | None
    readers: Mapping[str, tuple[str, ...]]
    needed_ops: frozenset[str]
    growth_bytes: int
    unread: list[Baggage]
    findings: list[Finding]


def _look_at_graph(
    directory: Directory, files: list[FileInfo], tensors: Mapping[str, TensorEntry], verify: bool
) -> _Graph:
    try:
        with GraphFile(directory, files) as file:
            if file.size_bytes > MAX_PROTOBUF_BYTES:
                raise ModelError(f"{file.path} has {file.size_bytes:,} bytes.", code="GRAPH_TOO_LARGE")
            # First, so that a small file comes from afar with one request.
            file.check_structure(MAX_STRUCTURE_BYTES if verify else QUICK_STRUCTURE_BYTES)
            graph = file.scan()
            with file.explained():
                traced = _trace_all(file, graph, tensors, verify)
            findings = [*check_assets(graph, files), *check_signatures(graph), *traced.findings]
            return traced._replace(findings=findings)
    except ModelError as error:
        return _Graph(None, {}, frozenset(), 0, [], [finding(error.code, error.message)])


def _trace_all(file: GraphFile, graph: SavedModelGraph, tensors: Mapping[str, TensorEntry], verify: bool) -> _Graph:
    """Trace every MetaGraph: what is wrong with its operations, and who reads which tensor."""
    findings: list[Finding] = []
    readers: dict[str, tuple[str, ...]] = {}
    needed_ops: set[str] = set()
    growth_bytes = 0
    for meta_graph in graph.meta_graphs:
        where = tag_label(meta_graph)
        reachability = trace(file, meta_graph)
        needed_ops |= reachability.needed_ops(meta_graph)
        findings += check_operations(where, meta_graph, reachability, training_ops(file, meta_graph, reachability))
        findings += check_references(where, meta_graph, file, reachability, has_variables=bool(tensors), verify=verify)
        findings += check_security(where, meta_graph, file, reachability)
        findings += check_table_files(where, meta_graph, file)
        if tensors:
            findings += check_requested(where, reachability, tensors)
            growth_bytes = max(growth_bytes, reachability.growth_bytes(tensors))  # a server loads one MetaGraph
        for key in reachability.restored.keys() & tensors.keys():
            if (reading := reachability.reading(key)) is not None:
                known = readers.get(key)
                readers[key] = tuple(dict.fromkeys((*known, *reading))) if known else reading
    traced = [entry for entry in tensors.values() if entry.key in readers]
    unread = unread_tensors(traced, readers)
    # Thousands of tensors are read from a handful of sets of entry points.
    signatures = {names: tuple(filter(is_signature, names)) for names in set(readers.values())}
    by_signature = {key: signatures[names] for key, names in readers.items()}
    return _Graph(graph, by_signature, frozenset(needed_ops), growth_bytes, unread, findings)
