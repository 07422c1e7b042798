"""Turns a matrix that is stored in blocks back, each block into its place before the next is read."""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow.core.framework.node_def_pb2 import NodeDef

from servegraph.rewriting.blocks import Blocks
from servegraph.rewriting.forms import add, binary, constant, enum
from servegraph.rewriting.graph import Nodes
from servegraph.rewriting.loop import Typed, repeat
from servegraph.rewriting.restores import StoredAs, read, run_after

_HOST = "/device:CPU:0"  # what is for a GPU gets there as a whole, and not with every turn


def restore_in_place(
    nodes: Nodes, name: str, filename: str, found: StoredAs, blocks: Blocks, after: NodeDef | None
) -> str:
    """Add what reads a matrix block by block, once `after` has run, and turns each back; return its output.

    The last block, which is the largest, is turned back before there is a place for the matrix. TensorFlow's
    allocator takes memory by the region, each at least twice as large as the one before and with a table of 1/32 of
    it: so there is a small one, which all other blocks fit into, when it takes the large one.
    """
    made: Nodes = {}
    done = _restored(made, name, filename, found, blocks, after)
    for node in made.values():
        node.device = _HOST
    nodes.update(made)
    return done


def _restored(nodes: Nodes, name: str, filename: str, found: StoredAs, blocks: Blocks, after: NodeDef | None) -> str:
    *others, last = blocks.blocks
    shared = [part for part in blocks.inner.parts if not part.has_rows]
    scales = read(nodes, f"{name}/shared", filename, [(*named, "") for named in found.named(shared)], after)
    keys = [[key for key, _ in found.named(blocks.own_parts(number))] for number in range(len(blocks.blocks))]
    key = constant(nodes, f"{name}/last/key", keys[-1], "string")
    run_after(nodes[key], after)
    block = _turned_back(nodes, f"{name}/last", blocks, -1, filename, key, scales)
    empty = add(nodes, f"{name}/empty", "Empty", constant(nodes, f"{name}/shape", found.content.shape, "int32"))
    empty.attr["dtype"].type = enum(last.dtype)
    empty.input.append(f"^{block}")
    begin = constant(nodes, f"{name}/last/begin", [last.start], "int64")
    begun = _placed(nodes, f"{name}/last", blocks, -1, empty.name, begin, block)

    def turn(body: Nodes, number: str, matrix: str, given: Sequence[str]) -> str:
        all_keys, all_starts, file, *shared_parts = given
        key = _row(body, f"{name}/key", Typed(all_keys, "string"), number)
        start = _row(body, f"{name}/start", Typed(all_starts, "int64"), number)
        block = _turned_back(body, f"{name}/next", blocks, 0, file, key, shared_parts)
        return _placed(body, f"{name}/next", blocks, 0, matrix, start, block)

    given = (
        Typed(constant(nodes, f"{name}/keys", keys[:-1], "string"), "string"),
        Typed(constant(nodes, f"{name}/starts", [[rows.start] for rows in others], "int64"), "int64"),
        Typed(filename, "string"),
        *(Typed(scale, part.dtype) for scale, part in zip(scales, shared, strict=True)),
    )
    return repeat(nodes, f"{name}/loop", len(others), Typed(begun, last.dtype), given, turn)


def _turned_back(
    nodes: Nodes, name: str, blocks: Blocks, number: int, filename: str, key: str, scales: Sequence[str]
) -> str:
    """Add what reads a block, or one like it, by the keys of its own parts (string [parts]), and turns it back."""
    own = blocks.own_parts(number)
    slices = constant(nodes, f"{name}/slices", [""] * len(own), "string")
    reading = add(nodes, f"{name}/read", "RestoreV2", filename, key, slices)
    reading.attr["dtypes"].list.type.extend(enum(part.dtype) for part in own)
    outputs, shared = iter([f"{reading.name}:{index}" for index in range(len(own))]), iter(scales)
    stored = [next(outputs) if part.has_rows else next(shared) for part in blocks.inner.parts]
    return blocks.decode_block(nodes, f"{name}/decode", stored, number)


def _placed(nodes: Nodes, name: str, blocks: Blocks, number: int, matrix: str, begin: str, block: str) -> str:
    """Add what puts a block, or one like it, where it begins (int64 [1]), and return the matrix."""
    rows = blocks.blocks[number]
    count = constant(nodes, f"{name}/rows", [rows.shape[0]], "int64")
    end = binary(nodes, f"{name}/end", "AddV2", begin, count, "int64")
    strides = constant(nodes, f"{name}/strides", [1], "int64")
    placed = add(nodes, f"{name}/placed", "TensorStridedSliceUpdate", matrix, begin, end, strides, block)
    placed.attr["T"].type, placed.attr["Index"].type = enum(rows.dtype), enum("int64")
    return f"{name}/placed"


def _row(nodes: Nodes, name: str, matrix: Typed, number: str) -> str:
    """Add what picks a row."""
    picked = add(nodes, name, "Gather", matrix.tensor, number)
    picked.attr["Tparams"].type, picked.attr["Tindices"].type = enum(matrix.dtype), enum("int32")
    return name
