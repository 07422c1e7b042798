"""The nodes of a body, one after the other, without their constants.

The loops are written out and work on the window's bytes: a graph of a million nodes comes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from servegraph.savedmodel.graph import Body, Node, attr_functions
from servegraph.savedmodel.ops import is_watched
from servegraph.savedmodel.wire import (
    BYTES,
    LONGEST_FIELD_HEAD,
    Field,
    Malformed,
    Window,
    encode_bytes,
    fields,
    read_varint,
)

MAX_NODE_BYTES = 1 << 16  # a larger node is a constant, whose content stays unread,
MAX_WIDE_BYTES = 1 << 22  # or one with thousands of inputs: SaveV2

# The fields of a NodeDef: all of them are length-delimited.
_NAME, _OP, _INPUT, _DEVICE, _ATTR = (number << 3 | BYTES for number in range(1, 6))
_TAGS_BUT_OP = frozenset({_NAME, _INPUT, _DEVICE, _ATTR, 6 << 3 | BYTES, 7 << 3 | BYTES})

# The size of a node in the file, and where it is: buffer, start, end. Of a large one the buffer is a copy without
# its large attributes.
RawNode = tuple[int, bytes, int, int]

# Which attributes are wanted of which operation.
Wanted = Mapping[bytes, frozenset[bytes]]
NO_ATTRS: Wanted = {}
NO_ATTRIBUTES: Mapping[str, bytes] = {}  # one for all nodes without
_NOTHING: frozenset[bytes] = frozenset()


class BodyFields(NamedTuple):
    """In which field a kind of body keeps its nodes, and which fields of it nobody needs."""

    node: int
    skipped: tuple[int, ...]


IN_GRAPH = BodyFields(1, ())
# attr, ret, control_ret, arg_attr, resource_arg_unique_id: a function of 5,000 variables has 5,000 of some.
IN_FUNCTION = BodyFields(3, (4, 5, 6, 7, 8))


def iter_nodes(
    window: Window,
    start: int,
    end: int,
    body: BodyFields,
    other: Callable[[Field], None] = lambda field: None,
    max_attr_bytes: int = MAX_NODE_BYTES,
) -> Iterator[RawNode]:
    """Yield the nodes between two offsets of the file; other fields go to `other`. Raises `Malformed`."""
    node_tag = body.node << 3 | BYTES
    skipped = frozenset(number << 3 | BYTES for number in body.skipped)
    offset = start
    while offset < end:
        buffer, index = window.at(offset, LONGEST_FIELD_HEAD)
        shift = offset - index
        limit = min(len(buffer), end - shift)
        # A field's head must not be cut by the window's end, unless the body or the file ends there.
        is_last = limit < len(buffer) or shift + limit >= window.size_bytes
        safe = limit if is_last else limit - LONGEST_FIELD_HEAD
        try:
            while index < safe:
                tag = buffer[index]
                size = buffer[index + 1]
                payload = index + 2
                if size > 127:
                    size, payload = read_varint(buffer, index + 1)
                after = payload + size
                if tag == node_tag:
                    if after > limit:
                        break
                    yield size, buffer, payload, after
                elif tag not in skipped or shift + after > end:
                    break
                index = after
        except IndexError:
            raise Malformed(f"the file ends inside a field near byte {shift + index}") from None
        offset = shift + index
        if offset < end:
            field, after = window.field_at(offset, end)
            size = field.end - field.start
            if field.number != body.node:
                other(field)
                offset = after
            elif size > MAX_NODE_BYTES:
                yield _large_node(window, field, max_attr_bytes)
                offset = after
            elif index < len(buffer) and buffer[index] == node_tag:  # it lies across the window's end
                window.at(offset, after - offset + LONGEST_FIELD_HEAD)
            else:  # its tag is written in more bytes than it needs, which is allowed, and hides it
                yield size, window.read(field.start, field.end), 0, size
                offset = after


def read_nodes(window: Window, body: Body, wanted: Wanted, max_attr_bytes: int) -> dict[str, Node]:
    """Return all nodes of a body by name. Raises `Malformed`."""
    kind = IN_FUNCTION if body.name else IN_GRAPH
    nodes = {}
    for raw in iter_nodes(window, body.start, body.end, kind, max_attr_bytes=max_attr_bytes):
        node = parse_node(raw, wanted)
        nodes[node.name] = node
    return nodes


def _op_of(buffer: bytes, start: int, end: int) -> bytes:
    """Return the operation of a node.

    All of the node is walked: of two operations protobuf would take the last, and nobody writes two but to hide
    one.
    """
    try:
        # Nearly always the first field is the name, the second the operation, and neither is long.
        second = start + 2 + buffer[start + 1]
        if buffer[start] == _NAME and buffer[start + 1] < 128 and buffer[second] == _OP and buffer[second + 1] < 128:
            position = third = second + 2 + buffer[second + 1]
            while position < end and buffer[position] in _TAGS_BUT_OP:
                size = buffer[position + 1]
                position += 2
                if size > 127:
                    size, position = read_varint(buffer, position - 1)
                position += size
            if position == end:
                return buffer[second + 2 : third]
    except IndexError:
        raise Malformed("a node is cut short") from None
    return _only_op(buffer, start, end)


def _only_op(buffer: bytes, start: int, end: int) -> bytes:
    """Return the operation of a node whose fields are in any order."""
    ops = [buffer[field.start : field.end] for field in fields(buffer, start, end) if field.number == 2]
    if len(ops) != 1:
        raise Malformed(f"a node has {len(ops) or 'no'} operations")
    return ops[0]


def _large_node(window: Window, node: Field, max_attr_bytes: int) -> RawNode:
    """Return a node above `MAX_NODE_BYTES`; of a constant a copy without attributes above `max_attr_bytes`."""
    size = node.end - node.start
    op_field = next((part for part in window.fields(node.start, node.end) if part.number == 2), None)
    is_const = op_field is not None and window.read(op_field.start, min(op_field.end, op_field.start + 6)) == b"Const"
    if not is_const and size <= MAX_WIDE_BYTES:
        content = window.read(node.start, node.end)
    else:
        kept = bytearray()
        for part in window.fields(node.start, node.end):
            if part.end - part.start <= max_attr_bytes:
                kept += encode_bytes(part.number, window.read(part.start, part.end))
            elif part.number << 3 | BYTES != _ATTR:
                raise Malformed(f"the node at byte {node.start} has a field that is too large")
        content = bytes(kept)
    return size, content, 0, len(content)


def parse_node(raw: RawNode, wanted: Wanted | None = None) -> Node:
    """Read a node, with the attributes that are wanted; without `wanted` with all. Raises `Malformed`."""
    size_bytes, buffer, position, end = raw
    names: frozenset[bytes] | None = None  # until the operation is known, every attribute is kept
    op: str | None = None
    name = device = ""
    inputs: list[str] = []
    attrs: dict[str, bytes] = {}
    try:
        while position < end:
            tag = buffer[position]
            size = buffer[position + 1]
            position += 2
            if size > 127:
                size, position = read_varint(buffer, position - 1)
            after = position + size
            if tag == _ATTR:
                # A key is the first field of an attribute, and short: a glance tells the unwanted ones.
                if names is None or (names and buffer[position + 2 : position + 2 + buffer[position + 1]] in names):
                    key, value = _attr(buffer, position, after)
                    attrs[key] = value
                position = after
                continue
            if tag == _INPUT:
                inputs.append(buffer[position:after].decode())
            elif tag == _NAME:
                name = buffer[position:after].decode()
            elif tag == _OP:
                if op is not None:
                    raise Malformed("a node has two operations")
                content = buffer[position:after]
                op = _text(content)
                names = None if wanted is None else wanted.get(content, _NOTHING)
            elif tag == _DEVICE:
                device = buffer[position:after].decode()
            elif tag not in _TAGS_BUT_OP:  # of another kind, or unknown: what follows cannot be told
                raise Malformed(f"a node has a field with the tag {tag}")
            position = after
    except IndexError:
        raise Malformed("a node is cut short") from None
    except UnicodeDecodeError:
        raise Malformed("a name in a node is not UTF-8") from None
    if position != end or op is None:
        raise Malformed("a node is cut short, or has no operation")
    return Node(name, op, tuple(inputs), device, attrs or NO_ATTRIBUTES, size_bytes)


@lru_cache(maxsize=4096)
def _text(name: bytes) -> str:
    """Decode the name of an operation or attribute once: a million nodes have a hundred. Raises `Malformed`."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Malformed("a name in a node is not UTF-8") from None


def _attr(buffer: bytes, start: int, end: int) -> tuple[str, bytes]:
    """Read an attribute: a map's entry of key and value."""
    key_end = start + 2 + buffer[start + 1]
    if buffer[start] == _NAME and key_end + 1 < end and buffer[key_end] == _OP and buffer[start + 1] < 128:
        size, value_start = buffer[key_end + 1], key_end + 2
        if size > 127:
            size, value_start = read_varint(buffer, key_end + 1)
        if value_start + size == end:  # in order and nothing else, as always
            return _text(buffer[start + 2 : key_end]), buffer[value_start:end]
    key, value = b"", b""
    for field in fields(buffer, start, end):
        if field.number == 1:
            key = buffer[field.start : field.end]
        elif field.number == 2:
            value = buffer[field.start : field.end]
    return _text(key), value


def count_nodes(window: Window, start: int, end: int, body: BodyFields, other: Callable[[Field], None]) -> Body:
    """Return a body with its nodes counted and the watched ones kept; its `name` is left empty."""
    tallies: dict[bytes, _Tally] = {}
    watched: list[Node] = []
    for raw in iter_nodes(window, start, end, body, other):
        size, buffer, node_start, node_end = raw
        op = _op_of(buffer, node_start, node_end)
        tally = tallies.get(op)
        if tally is None:
            tally = tallies[op] = _Tally(_text(op))
        tally.count += 1
        tally.size_bytes += size
        if tally.is_watched:
            watched.append(parse_node(raw))
    ops = {tally.op: tally.count for tally in tallies.values()}
    const_bytes = tallies[b"Const"].size_bytes if b"Const" in tallies else 0
    calls = {name for node in watched for payload in node.attrs.values() for name in attr_functions(payload)}
    return Body("", sum(ops.values()), ops, const_bytes, frozenset(calls), tuple(watched), start, end)


class _Tally:
    """How many nodes of one operation there are, and how large."""

    __slots__ = ("count", "is_watched", "op", "size_bytes")

    def __init__(self, op: str) -> None:
        self.op = op
        self.count = self.size_bytes = 0
        self.is_watched = is_watched(op)
