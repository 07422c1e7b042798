"""The small files beside the graph: `fingerprint.pb` and Keras 2's `keras_metadata.pb`.

Sources: tensorflow/core/protobuf/fingerprint.proto; keras/protobuf/saved_metadata.proto of Keras 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from servegraph.savedmodel.wire import Malformed, fields, text

FINGERPRINT, KERAS_METADATA = "fingerprint.pb", "keras_metadata.pb"

# The fingerprint's fields in order; hashes are 64 bits.
_FINGERPRINT_FIELDS = {
    1: "saved_model_checksum",
    2: "graph_def_program_hash",
    3: "signature_def_hash",
    4: "saved_object_graph_hash",
    5: "checkpoint_hash",
    7: "uuid",
}


class KerasMetadata(NamedTuple):
    """What Keras 2 wrote about the model: its class, and how many objects there are of each kind.

    `python_code` names the layers whose configuration holds compiled Python code, as that of a Lambda layer does.
    """

    model_class: str
    objects: Mapping[str, int]
    python_code: tuple[str, ...]


def parse_fingerprint(content: bytes) -> dict[str, str]:
    """Read a FingerprintDef: hashes in hexadecimal, the id as text. Empty where the bytes are none."""
    found = {}
    try:
        for field in fields(content):
            name = _FINGERPRINT_FIELDS.get(field.number)
            if name is not None:
                found[name] = text(content, field) if field.end else f"{field.value:016x}"
    except Malformed:
        return {}
    return found


def parse_keras_metadata(content: bytes) -> KerasMetadata | None:
    """Read a SavedMetadata; None where the bytes are none."""
    if not content:
        return None
    import json  # only Keras 2 wrote such a file

    kinds: Counter[str] = Counter()
    model_class = ""
    code: dict[str, None] = {}
    try:
        for node in fields(content):
            parts = {part.number: text(content, part) for part in fields(content, node.start, node.end) if part.end}
            kinds[parts.get(4, "")] += 1
            described = json.loads(parts.get(5) or "{}")
            code.update(dict.fromkeys(_layers_with_code(described)))
            if parts.get(3) == "root":
                model_class = str(described.get("class_name", ""))
    except (Malformed, ValueError, AttributeError, RecursionError):
        return None
    return KerasMetadata(model_class, dict(kinds), tuple(code))


def _layers_with_code(described: object) -> list[str]:
    """Return the names of layers with a function in their configuration that is code and not the name of one."""
    found = []
    waiting = [described]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            if "lambda" in (value.get("function_type"), value.get("output_shape_type")):
                found.append(str(value.get("name", "")))
        elif isinstance(value, list):
            waiting += value
    return found
