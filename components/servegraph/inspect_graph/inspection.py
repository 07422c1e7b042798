"""What an inspection found, as values, and as the JSON document that others rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from servegraph.errors import ModelError
from servegraph.inspect_graph.findings import Finding
from servegraph.inspect_graph.operations import FROZEN_BYTES, const_bytes, custom_ops, op_counts
from servegraph.inspect_graph.rules import DAMAGE
from servegraph.inspect_graph.signatures import serving_signatures
from servegraph.inspect_graph.weights import Weights
from servegraph.savedmodel.bundle_index import TensorEntry
from servegraph.savedmodel.graph import MetaGraph, SavedModelGraph, TensorInfo
from servegraph.savedmodel.layout import role_of
from servegraph.savedmodel.metadata_files import KerasMetadata
from servegraph.savedmodel.ops import VARIABLE_OPS
from servegraph.storage.directory import FileInfo

LARGEST = 50  # tensors listed in the JSON document; the page shows more

# Peak of memory while TensorFlow loads a graph's constants, per byte of them; measured with 200 MB.
CONSTANT_LOAD_FACTOR = 5.3
# Operations that keep something between two requests, by what that is.
STATEFUL = {
    "tables": (
        "HashTable",
        "HashTableV2",
        "MutableHashTable",
        "MutableHashTableV2",
        "MutableDenseHashTableV2",
    ),
    "variables": tuple(sorted(VARIABLE_OPS)),
    "random": (
        "RandomUniform",
        "RandomStandardNormal",
        "TruncatedNormal",
        "StatefulUniform",
        "RngReadAndSkip",
    ),
}


class Inspection(NamedTuple):
    """What `inspect` found.

    `graph` and `weights` are None where the files cannot be read. `readers` are, by tensor, the signatures that
    read it; a tensor of which the graph does not say so is missing there. `needed_ops` are the operations that
    serving needs, as opposed to those that are only stored. `growth_bytes` is what variables take beyond the tensors
    that fill them, as from weights stored as int8.
    """

    uri: str
    files: tuple[FileInfo, ...]
    graph: SavedModelGraph | None
    tensors: tuple[TensorEntry, ...]
    weights: Weights | None
    readers: Mapping[str, tuple[str, ...]]
    needed_ops: frozenset[str]
    growth_bytes: int
    fingerprint: Mapping[str, str]
    keras: KerasMetadata | None
    findings: tuple[Finding, ...]
    verified: bool
    platform: str | None

    @property
    def size_bytes(self) -> int:
        """Size of the whole directory."""
        return sum(info.size_bytes for info in self.files)

    @property
    def memory_bytes(self) -> int | None:
        """Estimate of the memory that loading needs beyond the server's own; None where it cannot be read.

        All variables are restored, also those that nothing reads; constants pass through protobuf on the way.
        """
        if self.graph is None or (self.weights is None and has_variables(self.graph)):
            return None
        constants = self._constant_bytes
        variables = self.weights.size_bytes + self.growth_bytes if self.weights else 0
        return int(variables + CONSTANT_LOAD_FACTOR * constants + self.graph.size_bytes - constants)

    @property
    def loading_growth_bytes(self) -> int:
        """What serving takes beyond the bytes on disk: of weights that are turned back, of a frozen graph's copies."""
        constants = self._constant_bytes
        copies = int((CONSTANT_LOAD_FACTOR - 1) * constants) if constants >= FROZEN_BYTES else 0
        return self.growth_bytes + copies

    @property
    def _constant_bytes(self) -> int:
        return sum(map(const_bytes, self.graph.meta_graphs)) if self.graph else 0

    @property
    def tag_sets(self) -> list[list[str]]:
        """The tags of each MetaGraph."""
        return [list(meta_graph.tags) for meta_graph in self.graph.meta_graphs] if self.graph else []

    @property
    def bytes_by_role(self) -> dict[str, int]:
        """Size of the files of each role."""
        sizes: dict[str, int] = {}
        for info in self.files:
            role = role_of(info.path)
            sizes[role] = sizes.get(role, 0) + info.size_bytes
        return sizes

    @property
    def has_errors(self) -> bool:
        """Tell whether any finding is an error."""
        return any(item.severity == "error" for item in self.findings)

    def require_undamaged(self) -> None:
        """Raise ModelError (`NO_VARIABLES`, `MISSING_SHARD`, `MISSING_ASSET`, …) where damage keeps it from loading."""
        for item in self.findings:
            if item.code in DAMAGE:
                raise ModelError(item.message, code=item.code, fix=item.fix)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; absent is null, also for dimensions of unknown size."""
        graph = self.graph
        return {
            "uri": self.uri,
            "size_bytes": self.size_bytes,
            "bytes_by_role": self.bytes_by_role,
            "memory_bytes": self.memory_bytes,
            "tag_sets": self.tag_sets,
            "platform": self.platform,
            "files": [{"path": info.path, "bytes": info.size_bytes, "role": role_of(info.path)} for info in self.files],
            "meta_graphs": [_meta_graph_json(meta_graph) for meta_graph in graph.meta_graphs] if graph else [],
            "variables": self._variables_json(),
            "runtimes": _runtimes_json(graph, self.needed_ops) if graph else [],
            "fingerprint": dict(self.fingerprint),
            "keras": self.keras._asdict() if self.keras else None,
            "verified": self.verified,
            "findings": [item._asdict() for item in self.findings],
        }

    def _variables_json(self) -> dict[str, Any]:
        weights = self.weights or Weights(0, 0, 0, {}, ())
        largest = sorted(self.tensors, key=lambda entry: -entry.size_bytes)[:LARGEST]
        return {
            "count": weights.tensor_count,
            "bytes": weights.size_bytes,
            "duplicate_bytes": weights.duplicate_bytes,
            "bytes_by_dtype": dict(weights.bytes_by_dtype),
            "duplicates": [list(group) for group in weights.duplicates[:LARGEST]],
            "largest": [
                {
                    "name": entry.key,
                    "dtype": entry.dtype,
                    "shape": list(entry.shape),
                    "bytes": entry.size_bytes,
                    "slices": len(entry.slices),
                    "read_by": list(self.readers[entry.key]) if entry.key in self.readers else None,
                }
                for entry in largest
            ],
        }


def has_variables(graph: SavedModelGraph) -> bool:
    """Tell whether any MetaGraph has a variable."""
    return any(VARIABLE_OPS & meta_graph.main.ops.keys() for meta_graph in graph.meta_graphs)


def _meta_graph_json(meta_graph: MetaGraph) -> dict[str, Any]:
    ops = op_counts(meta_graph)
    return {
        "tags": list(meta_graph.tags),
        "tf_version": meta_graph.tf_version or None,
        "graph_version": {"producer": meta_graph.producer, "min_consumer": meta_graph.min_consumer},
        "signatures": {
            name: {
                "method_name": signature.method_name,
                "inputs": {key: _tensor_json(info) for key, info in signature.inputs.items()},
                "outputs": {key: _tensor_json(info) for key, info in signature.outputs.items()},
            }
            for name, signature in serving_signatures(meta_graph).items()
        },
        "nodes": meta_graph.main.node_count,
        "functions": len(meta_graph.functions),
        "function_nodes": sum(body.node_count for body in meta_graph.functions.values()),
        "const_bytes": const_bytes(meta_graph),
        "assets": sorted(set(meta_graph.assets.values())),
        "stateful": {kind: sum(ops.get(op, 0) for op in names) for kind, names in STATEFUL.items()},
        "custom_ops": sorted(custom_ops(meta_graph)),
        "object_graph": meta_graph.has_object_graph,
        "ops": ops,
    }


def _tensor_json(info: TensorInfo) -> dict[str, Any]:
    return {
        "dtype": info.dtype,
        "shape": None if info.shape is None else list(info.shape),
        "tensor": info.tensors[0] if info.encoding == "dense" and info.tensors else None,
        "encoding": info.encoding,
    }


def _runtimes_json(graph: SavedModelGraph, needed_ops: frozenset[str]) -> list[dict[str, Any]]:
    from servegraph.inspect_graph.runtimes import VERDICTS, compatibility  # the terminal's report has no use for it

    return [
        {
            "platform": item.runtime.platform,
            "name": item.runtime.name,
            "tf_version": item.runtime.tf_version,
            "available_until": item.runtime.available_until and item.runtime.available_until.isoformat(),
            "verdict": item.verdict,
            "meaning": VERDICTS[item.verdict],
            "missing_ops": list(item.missing_ops),
        }
        for item in compatibility(graph, needed_ops)
    ]
