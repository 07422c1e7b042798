"""Reads one MetaGraphDef out of the window: its small messages whole, its graph by `nodes`.

Protobuf would merge a message that is given twice; nobody writes two, so a second one is damage, or hides
something, and is refused.
"""

from __future__ import annotations

from servegraph.savedmodel.dtypes import dtype_name
from servegraph.savedmodel.graph import MAX_NESTING, Body, MetaGraph, Saver, Signature, TensorInfo, parse_shape
from servegraph.savedmodel.loading import functions_run_on_loading
from servegraph.savedmodel.nodes import IN_FUNCTION, IN_GRAPH, count_nodes
from servegraph.savedmodel.wire import BYTES, Field, Malformed, Window, decoded, fields, payloads, text

MAX_MESSAGE_BYTES = 1 << 26  # of a signature, a collection, a saver: a larger one is damage, or an attack
EMPTY = Body("", 0, {}, 0, frozenset(), (), 0, 0)
_SINGULAR = {1: "meta_info_def", 2: "graph_def", 3: "saver_def", 7: "object_graph_def"}
NAME_TAG = 1 << 3 | BYTES  # of an argument of a function
ASSETS_COLLECTION = "saved_model_assets"  # where TF1 keeps its assets


class _Parts:
    """What has been read of a MetaGraph so far."""

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.tf_version = ""
        self.declared_ops: list[str] = []
        self.signatures: dict[str, Signature] = {}
        self.saver: Saver | None = None
        self.assets: dict[str, str] = {}
        self.node_lists: dict[str, tuple[str, ...]] = {}
        self.collections: set[str] = set()
        self.main = EMPTY
        self.functions: dict[str, Body] = {}
        self.versions = {1: 0, 2: 0}  # producer, min_consumer
        self.exposed_functions: list[str] = []
        self.loading_functions: tuple[str, ...] = ()


def read_meta_graph(window: Window, start: int, end: int) -> MetaGraph:
    """Read the MetaGraphDef between two offsets of the file. Raises `Malformed`."""
    parts = _Parts()
    seen = set()
    for field in window.fields(start, end):
        if not field.end:
            raise Malformed(f"field {field.number} of a MetaGraph is a number")
        if field.number in seen and field.number in _SINGULAR:
            raise Malformed(f"a MetaGraph has two {_SINGULAR[field.number]}")
        seen.add(field.number)
        _read_field(window, field, parts)
    return MetaGraph(
        tags=tuple(parts.tags),
        tf_version=parts.tf_version,
        signatures=parts.signatures,
        saver=parts.saver,
        assets=parts.assets,
        node_lists=parts.node_lists,
        collections=tuple(sorted(parts.collections)),
        main=parts.main,
        functions=parts.functions,
        producer=parts.versions[1],
        min_consumer=parts.versions[2],
        has_object_graph=7 in seen,
        exposed_functions=tuple(parts.exposed_functions),
        loading_functions=parts.loading_functions,
        declared_ops=tuple(parts.declared_ops),
        size_bytes=end - start,
    )


def _read_field(window: Window, field: Field, parts: _Parts) -> None:
    if field.number == 1:
        _meta_info(window, field, parts)
    elif field.number == 2:
        parts.main = read_graph(window, field.start, field.end, parts.functions, parts.versions)
    elif field.number == 3:
        parts.saver = _saver(_message(window, field))
    elif field.number == 4:
        _collection(window, field, parts)
    elif field.number == 5:
        name, value = _map_entry(_message(window, field))
        parts.signatures[name] = _signature(value)
    elif field.number == 6:
        _asset(_message(window, field), parts.assets)
    elif field.number == 7:
        _object_graph(window, field, parts)


def read_graph(
    window: Window, start: int, end: int, functions: dict[str, Body], versions: dict[int, int] | None = None
) -> Body:
    """Read a GraphDef: return its main graph, add its functions to `functions`. Raises `Malformed`."""
    versions = {} if versions is None else versions

    def other(field: Field) -> None:
        if field.number == 2:
            for function in window.fields(field.start, field.end):
                if function.number == 1:
                    body = _function(window, function)
                    if body.name in functions:
                        raise Malformed(f"two functions are called {body.name!r}")
                    functions[body.name] = body
        elif field.number == 4:
            for version in window.fields(field.start, field.end):
                if version.number in versions:
                    versions[version.number] = version.value

    return count_nodes(window, start, end, IN_GRAPH, other)


def _function(window: Window, function: Field) -> Body:
    name = ""

    def other(field: Field) -> None:
        nonlocal name
        if field.number == 1:  # the signature, an OpDef
            definition = _message(window, field)
            for start, end in payloads(definition, 1):
                name = decoded(definition[start:end])

    body = count_nodes(window, function.start, function.end, IN_FUNCTION, other)
    if not name:
        raise Malformed(f"the function at byte {function.start} has no name")
    return body._replace(name=name)


def read_arguments(window: Window, function: Body) -> list[str]:
    """Return the names of a function's arguments in order."""
    names: list[str] = []
    signature = next((field for field in window.fields(function.start, function.end) if field.number == 1), None)
    if signature is not None:
        definition = _message(window, signature)
        for start, end in payloads(definition, 2):
            size = definition[start + 1] if end - start > 1 else 128
            name_end = start + 2 + size
            if size < 128 and definition[start] == NAME_TAG and name_end <= end:
                names.append(decoded(definition[start + 2 : name_end]))  # first, as always
            else:
                found = [text(definition, part) for part in fields(definition, start, end) if part.number == 1]
                names.append(found[-1] if found else "")  # positions count, also of one without a name
    return names


def _message(window: Window, field: Field) -> bytes:
    if field.end - field.start > MAX_MESSAGE_BYTES:
        raise Malformed(f"the message at byte {field.start} has {field.end - field.start} bytes, which is too many")
    return window.read(field.start, field.end)


def _text(window: Window, field: Field) -> str:
    return decoded(_message(window, field))


def _map_entry(entry: bytes) -> tuple[str, bytes]:
    key, value = "", b""
    for field in fields(entry):
        if field.number == 1:
            key = text(entry, field)
        elif field.number == 2:
            value = entry[field.start : field.end]
    return key, value


def _meta_info(window: Window, info: Field, parts: _Parts) -> None:
    for field in window.fields(info.start, info.end):
        if field.number == 2:
            for op in window.fields(field.start, field.end):
                definition = _message(window, op)
                parts.declared_ops += [text(definition, name) for name in fields(definition) if name.number == 1]
        elif field.number == 4:
            parts.tags.append(_text(window, field))
        elif field.number == 5:
            parts.tf_version = _text(window, field)


def _saver(message: bytes) -> Saver:
    names = {field.number: text(message, field) for field in fields(message) if field.number in (1, 2, 3)}
    return Saver(names.get(1, ""), names.get(2, ""), names.get(3, ""))


def _collection(window: Window, collection: Field, parts: _Parts) -> None:
    """Read a CollectionDef. Large ones (a WhileContext of every loop) are named, not read."""
    name, value = "", b""
    for field in window.fields(collection.start, collection.end):
        if field.number == 1:
            name = _text(window, field)
        elif field.number == 2 and field.end - field.start <= MAX_MESSAGE_BYTES:
            value = _message(window, field)
    parts.collections.add(name)
    for kind in fields(value):
        items = fields(value, kind.start, kind.end)
        if kind.number == 1:
            parts.node_lists[name] = tuple(text(value, item) for item in items if item.number == 1)
        elif kind.number == 5 and name == ASSETS_COLLECTION:
            for packed in items:
                for part in fields(value, packed.start, packed.end):
                    if part.number == 2:
                        _asset(value[part.start : part.end], parts.assets)


def _asset(message: bytes, assets: dict[str, str]) -> None:
    tensor, file = "", ""
    for field in fields(message):
        if field.number == 1:
            tensor = "".join(_tensor_info(message[field.start : field.end]).tensors)
        elif field.number == 2:
            file = text(message, field)
    assets[tensor] = file


def _signature(message: bytes) -> Signature:
    inputs: dict[str, TensorInfo] = {}
    outputs: dict[str, TensorInfo] = {}
    defaults: dict[str, bytes] = {}
    method_name = ""
    for field in fields(message):
        if field.number in (1, 2):
            key, value = _map_entry(message[field.start : field.end])
            (inputs if field.number == 1 else outputs)[key] = _tensor_info(value)
        elif field.number == 3:
            method_name = text(message, field)
        elif field.number == 4:
            key, value = _map_entry(message[field.start : field.end])
            defaults[key] = value
    return Signature(method_name, dict(sorted(inputs.items())), dict(sorted(outputs.items())), defaults)


def _tensor_info(message: bytes, depth: int = 0) -> TensorInfo:
    if depth > MAX_NESTING:
        raise Malformed("a composite tensor is nested too deeply")
    info = TensorInfo((), dtype_name(0), (), "dense")
    for field in fields(message):
        if field.number == 1:
            info = info._replace(tensors=(text(message, field),))
        elif field.number == 2:
            info = info._replace(dtype=dtype_name(field.value))
        elif field.number == 3:
            info = info._replace(shape=parse_shape(message, field.start, field.end))
        elif field.number == 4:  # the names of values, indices and dense shape
            parts = [text(message, part) for part in fields(message, field.start, field.end)]
            info = info._replace(encoding="sparse", tensors=tuple(parts))
        elif field.number == 5:
            components = [
                _tensor_info(message[part.start : part.end], depth + 1)
                for part in fields(message, field.start, field.end)
                if part.number == 2
            ]
            tensors = tuple(tensor for component in components for tensor in component.tensors)
            info = info._replace(encoding="composite", tensors=tensors)
    return info


def _object_graph(window: Window, objects: Field, parts: _Parts) -> None:
    """Read only the names of the functions that Python offers, and of those that it runs on loading."""
    content = _message(window, objects)
    parts.loading_functions = functions_run_on_loading(content)
    for start, end in payloads(content, 2):
        for name_start, name_end in payloads(content, 1, start, end):
            parts.exposed_functions.append(decoded(content[name_start:name_end]))
