"""What the graph does with the text inputs of a signature, and so what their bytes must encode.

The flow of an input is followed through identities, reshapes, loops and functions to the first operation that decodes
it. An input that reaches none is text, and any word will do. The order of inputs and outputs of the parsing operations
is that of tensorflow/core/ops/parsing_ops.cc.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue

from servegraph.answers.made_up import Base64Text, CsvText, Encoding, ExampleSpec, Feature, ImageBytes, NumberText

DEEPEST_CALL = 50
VARIABLE_LENGTH = 2  # values of a feature that takes any number
# What comes out of these is no longer the text.
ENDS = frozenset(
    (
        *("ReadFile", "MatchingFiles", "LookupTableFind", "LookupTableFindV2", "Assert"),
        *("StringToHashBucket", "StringToHashBucketFast", "StringToHashBucketStrong"),
        *("StringLength", "Shape", "ShapeN", "Size", "Rank", "Equal", "NotEqual"),
    )
)
FUNCTIONS = ("f", "body", "then_branch", "else_branch", "cond")  # attributes that name a function of a call
SKIPPED_INPUTS = {"If": 1, "StatelessIf": 1, "Case": 1, "StatelessCase": 1}  # inputs before a function's arguments


def encodings(meta_graph: Any, signature: str) -> dict[str, Encoding]:
    """Return what the bytes of a signature's text inputs must be, from its MetaGraphDef; plain text is left out."""
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    scope = _Scope(meta_graph.graph_def.node, functions)
    found: dict[str, Encoding] = {}
    for name, info in meta_graph.signature_def[signature].inputs.items():
        encoding = _meaning(scope, info.name) if info.dtype == tf.string.as_datatype_enum and info.name else None
        if encoding is not None:
            found[name] = encoding
    return found


class _Scope:
    """One graph, or the body of a function where it is called; `arguments` are where it was called from."""

    def __init__(
        self,
        nodes: Any,
        functions: Mapping[str, Any],
        arguments: Mapping[str, tuple[_Scope, str]] | None = None,
        depth: int = 0,
    ) -> None:
        self.functions = functions
        self.arguments = arguments or {}
        self.depth = depth
        self._nodes = {node.name: node for node in nodes}
        self._readers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        self._outputs: dict[str, set[str]] = defaultdict(set)
        for node in nodes:
            for index, tensor in enumerate(node.input):
                if not tensor.startswith("^"):
                    self._readers[self._full(tensor)].append((node, index))
                    self._outputs[tensor.split(":")[0]].add(self._full(tensor))

    def readers(self, tensor: str) -> list[tuple[Any, int]]:
        """Return the nodes that read a tensor, with the number of their input."""
        return self._readers.get(self._full(tensor), [])

    def outputs(self, node: Any) -> set[str]:
        """Return the outputs of a node that anything reads."""
        return self._outputs.get(node.name, set())

    def output(self, node: Any, name: str, index: int, flat_index: int) -> str:
        """Return an output by its name and number (in a function), or its number among all (in a main graph)."""
        return f"{node.name}:{flat_index}" if not self.depth else f"{node.name}:{name}:{index}"

    def calls(self, node: Any, index: int) -> Iterator[tuple[_Scope, str]]:
        """Yield what input `index` of a call is inside of the functions it calls."""
        names = [node.attr[key].func.name for key in FUNCTIONS if key in node.attr]
        names += [function.name for function in _attr(node, "branches").list.func]
        names += [node.op] if node.op in self.functions else []
        skipped = SKIPPED_INPUTS.get(node.op, 0)
        given = [tensor for tensor in node.input if not tensor.startswith("^")][skipped:]
        for function in (self.functions[name] for name in names if name in self.functions):
            own = [argument.name for argument in function.signature.input_arg]
            if 0 <= index - skipped < len(own) and self.depth < DEEPEST_CALL:
                arguments = {name: (self, tensor) for name, tensor in zip(own, given, strict=False)}
                scope = _Scope(function.node_def, self.functions, arguments, self.depth + 1)
                yield scope, own[index - skipped]

    def constant(self, tensor: str) -> Any:
        """Return the value of a tensor as an array, None where it is not a constant."""
        if tensor in self.arguments:
            scope, outer = self.arguments[tensor]
            return scope.constant(outer)
        node = self._nodes.get(tensor.split(":")[0])
        if node is None:
            return None
        if node.op == "Const":
            return tf.make_ndarray(node.attr["value"].tensor)
        return self.constant(node.input[0]) if node.op == "Identity" else None

    def _full(self, tensor: str) -> str:
        return tensor if ":" in tensor or self.depth else f"{tensor}:0"


def _meaning(scope: _Scope, tensor: str) -> Encoding | None:
    """Follow a tensor to the first operations that decode it, nearest first."""
    queue: deque[tuple[_Scope, str, tuple[str, ...]]] = deque([(scope, tensor, ())])
    seen = set()
    while queue:
        scope, tensor, passed = queue.popleft()
        for node, index in scope.readers(tensor):
            if (decoder := DECODERS.get(node.op)) and index == 0:
                found = decoder(scope, node)
                if isinstance(found, NumberText) and "Substr" in passed:
                    found = NumberText(found.is_float, is_date=True)
                if found is not None:
                    return Base64Text(found) if "DecodeBase64" in passed else found
                continue
            if node.op in ENDS or (id(scope), node.name, index) in seen:
                continue
            seen.add((id(scope), node.name, index))
            on_the_way = (*passed, node.op) if node.op in ("Substr", "DecodeBase64") else passed
            queue.extend((inner, argument, on_the_way) for inner, argument in scope.calls(node, index))
            queue.extend((scope, output, on_the_way) for output in scope.outputs(node))
    return None


def _image(scope: _Scope, node: Any) -> Encoding:
    return ImageBytes("png" if node.op == "DecodePng" else "jpeg")


def _number(scope: _Scope, node: Any) -> Encoding:
    return NumberText(tf.as_dtype(_attr(node, "out_type").type or tf.float32).is_floating)


def _csv(scope: _Scope, node: Any) -> Encoding:
    dtypes = _dtypes(node, "OUT_TYPE")
    selected = list(_attr(node, "select_cols").list.i)
    if selected:
        by_column = dict(zip(selected, dtypes, strict=True))
        dtypes = [by_column.get(column, "string") for column in range(max(selected) + 1)]
    return CsvText(tuple(dtypes), _attr(node, "field_delim").s.decode() or ",")


def _example(scope: _Scope, node: Any) -> Encoding | None:
    """Return the features that a parsing operation asks for, None where their names are not in the graph."""
    sparse, dense = _dtypes(node, "sparse_types"), _dtypes(node, "Tdense")
    ragged = _dtypes(node, "ragged_value_types")
    sparse_keys, dense_keys, ragged_keys = _keys(scope, node, len(sparse), len(dense))
    if sparse_keys is None or dense_keys is None:
        return None
    shapes = [[size.size for size in shape.dim] for shape in _attr(node, "dense_shapes").list.shape]
    features: dict[str, Feature] = {}
    for number, (key, dtype) in enumerate(zip(sparse_keys, sparse, strict=True)):
        output = scope.output(node, "sparse_values", number, len(sparse) + number)
        features[key] = _feature(scope, dtype, VARIABLE_LENGTH, output)
    for number, (key, dtype, shape) in enumerate(zip(dense_keys, dense, shapes, strict=True)):
        count = prod(VARIABLE_LENGTH if size < 0 else size for size in shape)
        output = scope.output(node, "dense_values", number, 3 * len(sparse) + number)
        features[key] = _feature(scope, dtype, count, output)
    for number, (key, dtype) in enumerate(zip(ragged_keys, ragged, strict=True)):
        output = scope.output(node, "ragged_values", number, 3 * len(sparse) + len(dense) + number)
        features[key] = _feature(scope, dtype, VARIABLE_LENGTH, output)
    return ExampleSpec(features)


def _feature(scope: _Scope, dtype: str, count: int, output: str) -> Feature:
    return Feature(dtype, count, _meaning(scope, output) if dtype == "string" else None)


def _keys(scope: _Scope, node: Any, sparse: int, dense: int) -> tuple[list[str] | None, list[str] | None, list[str]]:
    """Return the names of the sparse, dense and ragged features: attributes, an input each, or one vector each."""
    if node.op == "ParseSingleExample":
        named = [[key.decode() for key in _attr(node, a).list.s] for a in ("sparse_keys", "dense_keys")]
        return named[0], named[1], []
    if node.op == "ParseExampleV2":
        vectors = [_text(scope, [tensor]) for tensor in node.input[2:5]]
        return vectors[0], vectors[1], vectors[2] or []
    keys = node.input[2 : 2 + sparse + dense]
    return _text(scope, keys[:sparse]), _text(scope, keys[sparse:]), []


def _text(scope: _Scope, tensors: Any) -> list[str] | None:
    values = [scope.constant(tensor) for tensor in tensors]
    if any(value is None for value in values):
        return None
    return [key.decode() for value in values for key in np.ravel(value).tolist()]


def _attr(node: Any, key: str) -> Any:
    """Return an attribute; empty where it is missing; `node.attr[key]` would add it to the node."""
    return node.attr[key] if key in node.attr else AttrValue()


def _dtypes(node: Any, attribute: str) -> list[str]:
    return [tf.as_dtype(number).name for number in _attr(node, attribute).list.type]


DECODERS: Mapping[str, Callable[[_Scope, Any], Encoding | None]] = {
    "ParseExample": _example,
    "ParseExampleV2": _example,
    "ParseSingleExample": _example,
    "DecodeJpeg": _image,
    "DecodeAndCropJpeg": _image,
    "ExtractJpegShape": _image,
    "DecodeImage": _image,
    "DecodePng": _image,
    "DecodeCSV": _csv,
    "StringToNumber": _number,
}
