"""The rung that shortens vocabularies: to the entries that the samples look up, with the rows of embedding tables.

What is no longer in a vocabulary is answered as the model answers what never was in it. A vocabulary is left as it is
where its ids do anything but pick rows (`id_flow`), or where an entry could not be told from what is out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from servegraph.answers.ask import fed_tensors
from servegraph.answers.child import in_child
from servegraph.answers.evidence import Question
from servegraph.answers.samples import Samples
from servegraph.optimize.id_flow import constant_value, follow
from servegraph.optimize.share import changes_variables
from servegraph.optimize.table_entries import FILLS, Entries, Ids, read_entries, write_entries
from servegraph.rewriting.contents import Content, SomeRows
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import Nodes, behind_identities, node_name, reachable, takes_rows, tensors_of
from servegraph.rewriting.meta_graph import ServingGraph, keep_what_serves
from servegraph.rewriting.restores import Restore

_FINDS = {"LookupTableFindV2"}


@dataclass(frozen=True)
class Vocabulary:
    """A table whose ids only pick rows; `fill` and `finds` are nodes, `picked` the nodes of the variables."""

    table: str
    fill: str
    finds: tuple[str, ...]
    entries: Entries
    picked: frozenset[str]

    @property
    def least(self) -> int:
        """The lowest id of an entry."""
        return int(self.entries.ids.min())

    @property
    def first_movable(self) -> int:
        """The lowest id that may get another number; see `_first_movable`."""
        return _first_movable(self.entries)


def vocabularies(graph: ServingGraph, source: Path) -> list[Vocabulary]:
    """Return the vocabularies of a flat graph that can be shortened; `source` is the directory with its assets."""
    users: dict[str, list[NodeDef]] = {}
    for node in graph.nodes.values():
        for tensor in node.input:
            users.setdefault(node_name(tensor), []).append(node)
    found = []
    for name, node in graph.nodes.items():
        if node.op == "HashTableV2":
            vocabulary = _vocabulary(name, users, graph, source)
            if vocabulary is not None:
                found.append(vocabulary)
    return found


def signatures_with(graph: ServingGraph, vocabulary: Vocabulary) -> set[str]:
    """Return the signatures whose answers need a vocabulary."""
    return {
        name
        for name, signature in graph.signatures.items()
        if not reachable(
            graph.nodes, (node_name(tensor) for info in signature.outputs.values() for tensor in tensors_of(info))
        ).isdisjoint(vocabulary.finds)
    }


def counted(path: Path, question: Question, tables: Mapping[str, Sequence[str]]) -> dict[str, Ids]:
    """Return the ids that the samples of a question look up in each table, as often as they do.

    `tables` are the nodes that look up by table, in the model at `path`.

    Raises:
        ModelError: a session cannot hold the model.
    """
    return in_child(_count, path, question.tags, question.signature, question.samples, dict(tables))


def shortened(draft: Draft, seen: Mapping[str, Ids], least_count: int) -> Draft:
    """Return the draft with the entries that were looked up `least_count` times or more, and the rows they pick.

    A table that was never looked up stays: nothing is known of it.
    """
    if len(draft.graphs) != 1 or not draft.serving_graphs:
        return draft
    (graph,) = draft.serving_graphs
    contents = dict(draft.contents)
    kept = {r.handle for r in graph.restores for t in r.tensors if not draft.kept.isdisjoint(contents[t.key].origins)}
    for vocabulary in vocabularies(graph, draft.source):
        if not vocabulary.picked.isdisjoint(kept):
            continue
        looked_up = seen.get(vocabulary.table, np.empty(0, np.int64))
        entries, counts = np.unique(looked_up, return_counts=True)
        ids = vocabulary.entries.ids
        wanted = np.isin(ids, entries[counts >= least_count]) | (ids < vocabulary.first_movable)
        if looked_up.size and not wanted.all():
            graph = _shorter(graph, vocabulary, wanted, contents)
    if graph is draft.serving_graphs[0]:
        return draft
    forms = {key: form for key, form in draft.forms.items() if contents.get(key) is draft.contents.get(key)}
    served = keep_what_serves(graph)
    dropped = {f"assets/{asset.filename}" for asset in graph.assets if asset not in served.assets}
    files = tuple(path for path in draft.files if path not in dropped)
    return replace(draft, graphs=(served,), contents=contents, forms=forms, files=files).with_needed_contents()


def _vocabulary(
    table: str, users: Mapping[str, Sequence[NodeDef]], graph: ServingGraph, source: Path
) -> Vocabulary | None:
    nodes = graph.certain_nodes
    uses = list(_uses(table, users))
    fills = [node for node in uses if node.op in FILLS]
    finds = [node for node in uses if node.op in _FINDS]
    if len(fills) != 1 or not finds or len(fills) + len(finds) != len(uses) or changes_variables(graph):
        return None
    entries = read_entries(fills[0], graph, source)
    if entries is None or not entries.ids.size:
        return None
    first = _first_movable(entries)
    defaults = [constant_value(find.input[2], nodes) for find in finds]
    if not all(default is not None and -1 <= default < first for default in defaults):
        return None
    flow = follow(finds, graph, first)
    if flow is None or not flow.picks or not all(takes_rows(pick, nodes) for pick in flow.picks.values()):
        return None
    picked = {_variable(pick.input[0], nodes) for pick in flow.picks.values()}
    if not all(_is_picked_from_only(variable, set(flow.picks), users, graph) for variable in picked):
        return None
    return Vocabulary(table, fills[0].name, tuple(find.name for find in finds), entries, frozenset(picked))


def _uses(table: str, users: Mapping[str, Sequence[NodeDef]]) -> Iterator[NodeDef]:
    for node in users.get(table, ()):
        if node.op == "Identity":
            yield from _uses(node.name, users)
        else:
            yield node


def _first_movable(entries: Entries) -> int:
    """Return the first id of which nothing but its row is known.

    Those below the entries' stand for a mask or for what is not in the vocabulary. Where the entries begin at 0, as the
    lines of a file do, the first of them is what masks and defaults are: it stays.
    """
    return max(int(entries.ids.min()), 1)


def _variable(tensor: str, nodes: Nodes) -> str:
    node = nodes[node_name(behind_identities(tensor, nodes))]
    return node_name(node.input[0]) if node.op == "ReadVariableOp" else node.name


def _is_picked_from_only(
    variable: str, picks: set[str], users: Mapping[str, Sequence[NodeDef]], graph: ServingGraph
) -> bool:
    """Whether a variable of the checkpoint is read by these picks and by nothing else."""
    restores = [restore for restore in graph.restores if restore.handle == variable]
    if len(restores) != 1 or variable in graph.roots:
        return False
    tensor = restores[0].tensors[0]
    if len(restores[0].tensors) != 1 or tensor.slice_spec or tensor.part is not None:
        return False
    if sum(tensor.key == other.key for restore in graph.restores for other in restore.tensors) != 1:
        return False
    stack = list(users.get(variable, ()))
    while stack:
        node = stack.pop()
        if node.op in ("ReadVariableOp", "Identity"):
            if node.name in graph.roots:
                return False
            stack.extend(users.get(node.name, ()))
        elif node.name not in picks:
            return False
    return True


def _shorter(
    graph: ServingGraph, vocabulary: Vocabulary, wanted: NDArray[np.bool_], contents: dict[str, Content]
) -> ServingGraph:
    least, entries = vocabulary.least, vocabulary.entries
    left = np.unique(entries.ids[wanted])
    renumbered = np.searchsorted(left, entries.ids[wanted]) + least
    nodes = {name: _copied(node) for name, node in graph.nodes.items()}
    for node in nodes.values():
        node.attr.pop("_output_shapes", None)  # some of which are no longer true; they are found again
    write_entries(nodes, nodes[vocabulary.fill], replace(entries, keys=entries.keys[wanted], ids=renumbered))
    restores = tuple(
        _fewer_rows(restore, nodes, contents, left, least) if restore.handle in vocabulary.picked else restore
        for restore in graph.restores
    )
    return replace(graph, nodes=nodes, restores=restores)


def _fewer_rows(restore: Restore, nodes: Nodes, contents: dict[str, Content], left: Ids, least: int) -> Restore:
    """Let a variable hold the rows below `least` and those of the ids that are left."""
    (tensor,) = restore.tensors
    content = contents[tensor.key]
    assert not isinstance(content, SomeRows)  # each table is picked from by one vocabulary
    rows = np.zeros(content.shape[0], np.bool_)
    rows[:least] = True
    rows[left[left < len(rows)]] = True
    key = f"{tensor.key}:of-{len(left)}"
    contents[key] = fewer = SomeRows(content, rows)
    nodes[restore.handle].attr["shape"].shape.CopyFrom(tf.TensorShape(fewer.shape).as_proto())
    return replace(restore, tensors=(replace(tensor, key=key),))


def _copied(node: NodeDef) -> NodeDef:
    copy = NodeDef()
    copy.CopyFrom(node)
    return copy


def _count(
    path: Path, tags: tuple[str, ...], signature: str, samples: Samples, tables: Mapping[str, Sequence[str]]
) -> dict[str, Ids]:
    """Runs in a child: fetch what is looked up for each request."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session, session.graph.as_default():
        meta_graph = SavedModelLoader(str(path)).load(session, list(tags))
        definition = meta_graph.signature_def[signature]
        inputs = fed_tensors(definition.inputs)
        there = _behind([session.graph.get_tensor_by_name(i.name).op for i in definition.outputs.values() if i.name])
        fetches = {table: [f"{n}:0" for n in finds if n in there] for table, finds in tables.items()}
        found: dict[str, list[Ids]] = {table: [] for table in tables}
        for request in samples.requests():
            feeds = {inputs[name]: value for name, value in request.items()}
            for table, names in fetches.items():
                for name in names:
                    found[table].append(np.ravel(session.run(name, feeds)).astype(np.int64))
    return {table: np.concatenate(ids) if ids else np.empty(0, np.int64) for table, ids in found.items()}


def _behind(ends: list[tf.Operation]) -> set[str]:
    """Return the names of the operations that these are computed from."""
    found: set[str] = set()
    stack = list(ends)
    while stack:
        op = stack.pop()
        if op.name not in found:
            found.add(op.name)
            stack.extend(tensor.op for tensor in op.inputs)
    return found
