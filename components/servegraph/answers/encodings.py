"""What the graph does with the inputs of a signature: what their bytes must encode, which keys and ids it looks up.

The flow of an input is followed through identities, reshapes, loops and functions to the first operation that decodes
it or looks it up. An input that reaches none is text, of which any word will do, or a number. The order of inputs and
outputs of the parsing operations is that of tensorflow/core/ops/parsing_ops.cc.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from servegraph.answers.composites import sparse_parts
from servegraph.answers.input_flow import Scope, attr, flow
from servegraph.answers.looked_up import Fills, rows_of, rows_of_matrix
from servegraph.answers.made_up import (
    SOUND_RATE,
    Base64Text,
    CsvText,
    Encoding,
    ExampleSpec,
    Feature,
    ImageBytes,
    Known,
    NumberText,
    SequenceExampleSpec,
    SoundBytes,
)
from servegraph.rewriting.meta_graph import assets_of

_log = logging.getLogger(__name__)

VARIABLE_LENGTH = 2  # values of a feature that takes any number
# What comes out of these is no longer the text.
ENDS = frozenset(
    (
        *("ReadFile", "MatchingFiles", "LookupTableFind", "LookupTableFindV2", "Assert"),
        *("StringToHashBucket", "StringToHashBucketFast", "StringToHashBucketStrong"),
        *("StringLength", "Shape", "ShapeN", "Size", "Rank", "Equal", "NotEqual"),
    )
)
# What is noted where a text passes it.
_NOTED = frozenset(("Substr", "DecodeBase64", "StringSplit", "StringSplitV2", "UnicodeDecodeWithOffsets"))
# What ids come out of as they went in; where another input than these is an id, it is no longer one.
_KEEP_IDS = frozenset(
    (
        *("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "Transpose", "BroadcastTo", "Tile"),
        *("StridedSlice", "Slice", "ConcatV2", "Pack", "Unpack", "Pad", "PadV2", "SelectV2", "Select"),
        *("Unique", "UniqueV2", "SparseFillEmptyRows"),
    )
)
_FINDS = ("LookupTableFindV2", "LookupTableFind")
_OF_IDS = (tf.int32, tf.int64, tf.float32)  # what Keras 2 gives an Embedding whose input nobody named a type for
_KEEP_SIZE = (("Identity", 0), ("Cast", 0), ("SparseToDense", 1))  # with the number of the input
# Which input is the matrix, where another one is a sparse tensor's size, or what it became as a dense tensor.
_MULTIPLIED = {("SparseTensorDenseMatMul", 2): 3, ("MatMul", 0): 1}
# Of ParseSequenceExampleV2: the groups of outputs in their order, each with the attribute of its types, the input of
# its names, and how many outputs a feature has.
_SEQUENCE_OUTPUTS = (
    ("context", "sparse", "context_sparse_types", 2, 3),
    ("context", "dense", "Tcontext_dense", 3, 1),
    ("context", "ragged", "context_ragged_value_types", 4, 2),
    ("feature_list", "sparse", "feature_list_sparse_types", 5, 3),
    ("feature_list", "dense", "feature_list_dense_types", 6, 2),
    ("feature_list", "ragged", "feature_list_ragged_value_types", 7, 3),
)
_GATHERS = ("GatherV2", "Gather", "ResourceGather")


def encodings(meta_graph: Any, signature: str, source: Path | None = None) -> dict[str, Encoding]:
    """Return what the inputs of a signature must hold, from its MetaGraphDef; those of which any value will do are out.

    `source` is the model's directory, without which a vocabulary in a file is not read.
    """
    try:
        return _encodings(meta_graph, signature, source)
    except Exception:  # of a graph that nobody foresaw, such as a constant without values: then any value may do
        _log.debug("What signature %s takes cannot be told.", signature, exc_info=True)
        return {}


def _encodings(meta_graph: Any, signature: str, source: Path | None) -> dict[str, Encoding]:
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    files = {asset.tensor_info.name.split(":")[0]: asset.filename for asset in assets_of(meta_graph)}
    assets = {name: source / "assets" / file for name, file in files.items() if source and Path(file).name == file}
    root = Scope(meta_graph.graph_def.node, functions)
    fills = Fills(root, assets)
    found: dict[str, Encoding] = {}
    for name, info in meta_graph.signature_def[signature].inputs.items():
        if info.WhichOneof("encoding") == "coo_sparse":
            found |= _sparse(fills, root, name, info)
        if not info.name:
            continue
        sizes = [size.size for size in info.tensor_shape.dim]
        is_size = info.dtype == tf.int64 and len(sizes) == 1 and sizes[0] > 0
        encoding = _columns(root, info.name) if is_size else _meaning(fills, root, info.name, tf.as_dtype(info.dtype))
        if encoding is not None:
            found[name] = encoding
    return found


def _sparse(fills: Fills, scope: Scope, name: str, info: Any) -> dict[str, Encoding]:
    """Return what the values of a sparse tensor must be, and its size: that of the signature, or of the graph."""
    _, values, dense_shape = sparse_parts(name)
    columns = [size.size for size in info.tensor_shape.dim][1:]
    known = Known((columns[0] - 1,)) if len(columns) == 1 and columns[0] > 0 else None
    found = {
        values: _meaning(fills, scope, info.coo_sparse.values_tensor_name, tf.as_dtype(info.dtype)),
        dense_shape: known or _columns(scope, info.coo_sparse.dense_shape_tensor_name),
    }
    return {part: encoding for part, encoding in found.items() if encoding is not None}


def _meaning(fills: Fills, scope: Scope, tensor: str, dtype: tf.DType) -> Encoding | None:
    if dtype == tf.string:
        found = _text(fills, scope, tensor)
    else:
        found = _ids(fills, scope, tensor) if dtype in _OF_IDS else None
    keys = found.keys if isinstance(found, Known) else ()
    # Of a signature that gives an input another type than the graph takes, the keys are no values of it.
    return found if all(isinstance(key, bytes) == (dtype == tf.string) for key in keys) else None


def _text(fills: Fills, scope: Scope, tensor: str) -> Encoding | None:
    """Follow a text to the first operations that decode it or look it up, nearest first."""
    queue: deque[tuple[Scope, str, tuple[str, ...]]] = deque([(scope, tensor, ())])
    seen = set()
    while queue:
        scope, tensor, passed = queue.popleft()
        for node, index in scope.readers(tensor):
            found: Encoding | None = None
            if (decoder := DECODERS.get(node.op)) and index == 0:
                found = decoder(fills, scope, node)
                if isinstance(found, NumberText) and "Substr" in passed:
                    found = NumberText(found.is_float, is_date=True)
            elif node.op in _FINDS and index == 1:
                found = fills.keys(scope, node, several=any("Split" in op for op in passed))
            if found is not None:
                return Base64Text(found) if "DecodeBase64" in passed else found
            if decoder or node.op in ENDS or (scope, node.name, index) in seen:
                continue
            seen.add((scope, node.name, index))
            on_the_way = (*passed, node.op) if node.op in _NOTED else passed
            queue.extend((inner, argument, on_the_way) for inner, argument in scope.calls(node, index))
            queue.extend((scope, output, on_the_way) for output in scope.outputs(node))
    return None


def _ids(fills: Fills, scope: Scope, tensor: str) -> Known | None:
    """Follow ids to where they are looked up, or pick rows; of several places that with the fewest."""
    places: list[Known | None] = []
    for inner, node, index in flow(scope, tensor, lambda node, _: node.op in _KEEP_IDS):
        if node.op in _FINDS and index == 1:
            places.append(fills.keys(inner, node, several=False))
        elif node.op in _GATHERS and index == 1:
            places.append(rows_of(inner, node))
    return min((place for place in places if place), key=lambda place: max(place.keys), default=None)


def _columns(scope: Scope, tensor: str) -> Known | None:
    """Follow the size of a sparse tensor to the matrix it is multiplied with, which has a row for each column."""
    for inner, node, index in flow(scope, tensor, lambda node, index: (node.op, index) in _KEEP_SIZE):
        if (matrix := _MULTIPLIED.get((node.op, index))) is not None:
            return rows_of_matrix(inner, node.input[matrix])
    return None


def _image(fills: Fills, scope: Scope, node: Any) -> Encoding:
    return ImageBytes("png" if node.op == "DecodePng" else "jpeg")


def _sound(fills: Fills, scope: Scope, node: Any) -> Encoding:
    channels, samples = (attr(node, name).i for name in ("desired_channels", "desired_samples"))
    return SoundBytes(channels if channels > 0 else 1, samples if samples > 0 else SOUND_RATE)


def _number(fills: Fills, scope: Scope, node: Any) -> Encoding:
    return NumberText(tf.as_dtype(attr(node, "out_type").type or tf.float32).is_floating)


def _csv(fills: Fills, scope: Scope, node: Any) -> Encoding:
    dtypes = _dtypes(node, "OUT_TYPE")
    selected = list(attr(node, "select_cols").list.i)
    if selected:
        by_column = dict(zip(selected, dtypes, strict=True))
        dtypes = [by_column.get(column, "string") for column in range(max(selected) + 1)]
    return CsvText(tuple(dtypes), attr(node, "field_delim").s.decode() or ",")


def _example(fills: Fills, scope: Scope, node: Any) -> Encoding | None:
    """Return the features that a parsing operation asks for, None where their names are not in the graph."""
    sparse, dense = _dtypes(node, "sparse_types"), _dtypes(node, "Tdense")
    ragged = _dtypes(node, "ragged_value_types")
    sparse_keys, dense_keys, ragged_keys = _keys(scope, node, len(sparse), len(dense))
    if sparse_keys is None or dense_keys is None:
        return None
    shapes = [[size.size for size in shape.dim] for shape in attr(node, "dense_shapes").list.shape]
    features: dict[str, Feature] = {}
    for number, (key, dtype) in enumerate(zip(sparse_keys, sparse, strict=True)):
        output = scope.output(node, "sparse_values", number, len(sparse) + number)
        features[key] = _feature(fills, scope, dtype, VARIABLE_LENGTH, output)
    for number, (key, dtype, shape) in enumerate(zip(dense_keys, dense, shapes, strict=True)):
        count = prod(VARIABLE_LENGTH if size < 0 else size for size in shape)
        output = scope.output(node, "dense_values", number, 3 * len(sparse) + number)
        features[key] = _feature(fills, scope, dtype, count, output)
    for number, (key, dtype) in enumerate(zip(ragged_keys, ragged, strict=True)):
        output = scope.output(node, "ragged_values", number, 3 * len(sparse) + len(dense) + number)
        features[key] = _feature(fills, scope, dtype, VARIABLE_LENGTH, output)
    return ExampleSpec(features)


def _sequence_example(fills: Fills, scope: Scope, node: Any) -> Encoding | None:
    """Return what a parsed SequenceExample has, None where the names are not in the graph."""
    groups: dict[str, dict[str, Feature]] = {"context": {}, "feature_list": {}}
    flat = 0
    for group, kind, types, keys, extra in _SEQUENCE_OUTPUTS:
        dtypes, names = _dtypes(node, types), _texts(scope, [node.input[keys]])
        if names is None:
            return None
        shapes = [[size.size for size in shape.dim] for shape in attr(node, f"{group}_dense_shapes").list.shape]
        first = flat + (len(dtypes) if kind == "sparse" else 0)
        for number, (key, dtype) in enumerate(zip(names, dtypes, strict=True)):
            count = prod(map(abs, shapes[number])) if kind == "dense" else VARIABLE_LENGTH
            output = scope.output(node, f"{group}_{kind}_values", number, first + number)
            groups[group][key] = _feature(fills, scope, dtype, count, output)
        flat += extra * len(dtypes)
    return SequenceExampleSpec(groups["context"], groups["feature_list"])


def _feature(fills: Fills, scope: Scope, dtype: str, count: int, output: str) -> Feature:
    return Feature(dtype, count, _meaning(fills, scope, output, tf.as_dtype(dtype)))


def _keys(scope: Scope, node: Any, sparse: int, dense: int) -> tuple[list[str] | None, list[str] | None, list[str]]:
    """Return the names of the sparse, dense and ragged features: attributes, an input each, or one vector each."""
    if node.op == "ParseSingleExample":
        named = [[key.decode() for key in attr(node, a).list.s] for a in ("sparse_keys", "dense_keys")]
        return named[0], named[1], []
    if node.op == "ParseExampleV2":
        vectors = [_texts(scope, [tensor]) for tensor in node.input[2:5]]
        return vectors[0], vectors[1], vectors[2] or []
    keys = node.input[2 : 2 + sparse + dense]
    return _texts(scope, keys[:sparse]), _texts(scope, keys[sparse:]), []


def _texts(scope: Scope, tensors: Any) -> list[str] | None:
    values = [scope.constant(tensor) for tensor in tensors]
    if any(value is None for value in values):
        return None
    return [key.decode() for value in values for key in np.ravel(value).tolist()]


def _dtypes(node: Any, attribute: str) -> list[str]:
    return [tf.as_dtype(number).name for number in attr(node, attribute).list.type]


DECODERS: Mapping[str, Callable[[Fills, Scope, Any], Encoding | None]] = {
    "ParseExample": _example,
    "ParseExampleV2": _example,
    "ParseSingleExample": _example,
    "ParseSequenceExampleV2": _sequence_example,
    "DecodeJpeg": _image,
    "DecodeAndCropJpeg": _image,
    "ExtractJpegShape": _image,
    "DecodeImage": _image,
    "DecodePng": _image,
    "DecodeWav": _sound,
    "DecodeCSV": _csv,
    "StringToNumber": _number,
}
