"""SavedModels for tests, written byte by byte: real signatures and no graph, so no TensorFlow is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from servegraph.savedmodel.dtypes import BY_NAME

Tensors = Mapping[str, tuple[str, Sequence[int | None]]]
X: Tensors = {"x": ("float32", [None])}
Y: Tensors = {"y": ("float32", [None])}
DEBUG_FILE = "debug/saved_model_debug_info.pb"
SCHEMA_VERSION = b"\x08\x01"  # that the file begins with


def write_tiny_model(
    directory: Path,
    content: str = "1",
    inputs: Tensors = X,
    outputs: Tensors = Y,
    golden: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Write a SavedModel with one signature; `content` makes it differ from others that look the same.

    It has no variables: `content` is in the file of debug information, which nothing reads.
    """
    for name in ("variables", "debug"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "saved_model.pb").write_bytes(saved_model(inputs, outputs))
    (directory / DEBUG_FILE).write_text(content)
    lines = [json.dumps(request) for request in golden]
    if lines:
        (directory / "assets.extra").mkdir(exist_ok=True)
        (directory / "assets.extra" / "golden_requests.jsonl.gz").write_text("\n".join(lines) + "\n")
    return directory


def saved_model(
    inputs: Tensors = X, outputs: Tensors = Y, name: str = "serving_default", tags: Sequence[str] = ("serve",)
) -> bytes:
    """Return a `saved_model.pb` with one MetaGraph and one signature, or none where `name` is empty."""
    signature = b"".join(_entry(1, key, _tensor_info(key, *value)) for key, value in inputs.items())
    signature += b"".join(_entry(2, key, _tensor_info(key, *value)) for key, value in outputs.items())
    signature += _field(3, b"tensorflow/serving/predict")
    meta_graph = _field(1, b"".join(_field(4, tag.encode()) for tag in tags)) + _field(2, b"")
    meta_graph += _entry(5, name, signature) if name else b""
    return SCHEMA_VERSION + _field(2, meta_graph)


def _tensor_info(name: str, dtype: str, shape: Sequence[int | None]) -> bytes:
    sizes = b"".join(
        _field(2, b"\x08" + _varint((-1 if size is None else size) & 0xFFFFFFFFFFFFFFFF)) for size in shape
    )
    return _field(1, f"{name}:0".encode()) + b"\x10" + _varint(BY_NAME[dtype].number) + _field(3, sizes)


def _entry(number: int, key: str, value: bytes) -> bytes:
    return _field(number, _field(1, key.encode()) + _field(2, value))


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
