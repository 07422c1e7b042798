"""Rewrites `saved_model.pbtxt` into the wire form, so that there is one reader for both.

`SCHEMA` has the fields that the reader uses; every other one is parsed and dropped, constants with it. The
file is read in pieces, and what is kept of it is about the size of a graph without its constants.
Source: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from servegraph.savedmodel.dtypes import DTYPES, REF_OFFSET
from servegraph.savedmodel.wire import Malformed, encode_bytes, encode_number
from servegraph.storage.directory import RandomAccess

PIECE_BYTES = 1 << 20
MAX_DEPTH = 100  # protobuf's own limit
MAX_STRING_BYTES = 1 << 16  # a longer one is the content of a constant
MAX_TOKEN_BYTES = 1 << 10  # a name's or a number's: as much is in memory when one is looked for

# message: {field: (number, what it holds)}; "text", "number" and "dtype" are leaves, anything else a message.
SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "SavedModel": {"saved_model_schema_version": (1, "number"), "meta_graphs": (2, "MetaGraph")},
    "MetaGraph": {
        "meta_info_def": (1, "MetaInfo"),
        "graph_def": (2, "Graph"),
        "saver_def": (3, "Saver"),
        "collection_def": (4, "CollectionEntry"),
        "signature_def": (5, "SignatureEntry"),
        "asset_file_def": (6, "AssetFile"),
        "object_graph_def": (7, "ObjectGraph"),
    },
    "MetaInfo": {"stripped_op_list": (2, "OpList"), "tags": (4, "text"), "tensorflow_version": (5, "text")},
    "OpList": {"op": (1, "OpDef")},
    "OpDef": {"name": (1, "text"), "input_arg": (2, "ArgDef")},
    "ArgDef": {"name": (1, "text")},
    "Graph": {"node": (1, "Node"), "library": (2, "Library"), "versions": (4, "Versions")},
    "Versions": {"producer": (1, "number"), "min_consumer": (2, "number")},
    "Library": {"function": (1, "Function")},
    "Function": {"signature": (1, "OpDef"), "node_def": (3, "Node")},
    "Node": {
        "name": (1, "text"),
        "op": (2, "text"),
        "input": (3, "text"),
        "device": (4, "text"),
        "attr": (5, "AttrEntry"),
    },
    "AttrEntry": {"key": (1, "text"), "value": (2, "Attr")},
    "Attr": {
        "list": (1, "AttrList"),
        "s": (2, "text"),
        "i": (3, "number"),
        "b": (5, "number"),
        "type": (6, "dtype"),
        "shape": (7, "Shape"),
        "tensor": (8, "Tensor"),
        "func": (10, "NamedAttrs"),
    },
    "AttrList": {
        "s": (2, "text"),
        "i": (3, "number"),
        "type": (6, "dtype"),
        "shape": (7, "Shape"),
        "func": (9, "NamedAttrs"),
    },
    "NamedAttrs": {"name": (1, "text"), "attr": (2, "AttrEntry")},
    "Tensor": {"dtype": (1, "dtype"), "tensor_shape": (2, "Shape"), "string_val": (8, "text")},
    "Shape": {"dim": (2, "Dim"), "unknown_rank": (3, "number")},
    "Dim": {"size": (1, "number")},
    "Saver": {
        "filename_tensor_name": (1, "text"),
        "save_tensor_name": (2, "text"),
        "restore_op_name": (3, "text"),
    },
    "CollectionEntry": {"key": (1, "text"), "value": (2, "Collection")},
    "Collection": {"node_list": (1, "NodeList"), "any_list": (5, "AnyList")},
    "NodeList": {"value": (1, "text")},
    "AnyList": {"value": (1, "Any")},
    "Any": {
        "type_url": (1, "text"),
        "value": (2, "text"),
        "[type.googleapis.com/tensorflow.AssetFileDef]": (2, "AssetFile"),
    },
    "AssetFile": {"tensor_info": (1, "TensorInfo"), "filename": (2, "text")},
    "SignatureEntry": {"key": (1, "text"), "value": (2, "Signature")},
    "Signature": {
        "inputs": (1, "TensorInfoEntry"),
        "outputs": (2, "TensorInfoEntry"),
        "method_name": (3, "text"),
        "defaults": (4, "DefaultEntry"),
    },
    "DefaultEntry": {"key": (1, "text")},
    "TensorInfoEntry": {"key": (1, "text"), "value": (2, "TensorInfo")},
    "TensorInfo": {
        "name": (1, "text"),
        "dtype": (2, "dtype"),
        "tensor_shape": (3, "Shape"),
        "coo_sparse": (4, "Sparse"),
        "composite_tensor": (5, "Composite"),
    },
    "Sparse": {
        "values_tensor_name": (1, "text"),
        "indices_tensor_name": (2, "text"),
        "dense_shape_tensor_name": (3, "text"),
    },
    "Composite": {"components": (2, "TensorInfo")},
    "ObjectGraph": {"nodes": (1, "Object"), "concrete_functions": (2, "DefaultEntry")},
    "Object": {
        "children": (1, "Child"),
        "function": (6, "ConcreteFunctions"),
        "bare_concrete_function": (8, "ConcreteFunction"),
        "saveable_objects": (11, "SaveableEntry"),
    },
    "Child": {"node_id": (1, "number"), "local_name": (2, "text")},
    "ConcreteFunctions": {"concrete_functions": (1, "text")},
    "ConcreteFunction": {"concrete_function_name": (1, "text")},
    "SaveableEntry": {"value": (2, "Saveable")},
    "Saveable": {"restore_function": (3, "number")},
}

# Fields that `SCHEMA` has no use for. What a message of this table has besides is damage, as it is for TensorFlow.
OTHER_FIELDS: dict[str, frozenset[str]] = {
    "SavedModel": frozenset(),
    "MetaGraph": frozenset(),
    "Graph": frozenset({"version", "debug_info"}),
    "Library": frozenset({"gradient", "registered_gradients"}),
    "Node": frozenset({"experimental_debug_info", "experimental_type"}),
    "AttrEntry": frozenset(),
    "Attr": frozenset({"f", "placeholder"}),
    "NamedAttrs": frozenset(),
    "CollectionEntry": frozenset(),
    "SignatureEntry": frozenset(),
    "Signature": frozenset(),
    "TensorInfoEntry": frozenset(),
    "TensorInfo": frozenset(),
}

_NO_SPACE = re.compile(rb"\S")
_LINE_END = re.compile(rb"\n")
_TOKEN = re.compile(rb"[A-Za-z_]\w*|[-+]?[\w.]+(?:(?<=[eE])[-+]\w+)?|[-{}<>\[\]:;,\"']")
_TYPE_URL = re.compile(rb"[\w./-]+")
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_TYPE_NUMBERS = {b"DT_" + row.name.upper().encode(): row.number for row in DTYPES} | {
    b"DT_FLOAT": 1,  # the enum's names differ from the types' names in these
    b"DT_DOUBLE": 2,
    b"DT_HALF": 19,
    b"DT_INVALID": 0,
}
_CLOSING = {b"{": b"}", b"<": b">"}


def transcode(file: RandomAccess) -> bytes:
    """Return a text SavedModel in the wire form, less what `SCHEMA` lacks. Raises `Malformed`."""
    return _Parser(file).message("SavedModel", b"", 0)


class _Parser:
    """A recursive descent over the text, one piece of the file in memory."""

    def __init__(self, file: RandomAccess, piece_bytes: int = PIECE_BYTES) -> None:
        self._file = file
        self._piece_bytes = piece_bytes
        self._buffer = b""
        self._index = 0
        self._end = 0  # of the buffer, in the file

    def message(self, schema: str | None, closing: bytes, depth: int) -> bytes:
        """Parse fields up to `closing` (the file's end if empty); without a schema nothing is kept."""
        if depth > MAX_DEPTH:
            raise self._malformed("messages are nested too deeply")
        known = SCHEMA[schema] if schema is not None else {}
        kept = bytearray()
        while True:
            token = self._token()
            if token == closing:
                return bytes(kept)
            if token in (b";", b","):
                continue
            name = self._type_url() if token == b"[" else token.decode("ascii", "replace")
            number, kind = known.get(name, (0, None))
            if kind is None and schema in OTHER_FIELDS and name not in OTHER_FIELDS[schema]:
                raise self._malformed(f"{schema} has no field {name[:40]!r}")
            for encoded in self._values(number, kind, depth):
                kept += encoded

    def _values(self, number: int, kind: str | None, depth: int) -> Iterator[bytes]:
        """Parse what follows a field's name: a colon (not always), a value or a list of them."""
        token = self._token()
        if token == b":":
            token = self._token()
        if token != b"[":
            yield self._value(token, number, kind, depth)
            return
        while (token := self._token()) != b"]":
            if token != b",":
                yield self._value(token, number, kind, depth)

    def _value(self, token: bytes, number: int, kind: str | None, depth: int) -> bytes:
        if token in _CLOSING:
            is_message = kind is not None and kind in SCHEMA
            content = self.message(kind if is_message else None, _CLOSING[token], depth + 1)
            return encode_bytes(number, content) if is_message else b""
        if token in (b'"', b"'"):
            string = self._string(token, keep=kind == "text")
            return b"" if string is None else encode_bytes(number, string)
        if token == b"-":  # a sign that stands apart
            token += self._token()
        if not token or not (token[:1].isalnum() or token[:1] in b"-+._"):
            raise self._malformed(f"a value is missing before {token!r}")
        if kind == "number":
            return encode_number(number, self._number(token))
        if kind == "dtype":
            return encode_number(number, self._dtype(token))
        return b""

    def _number(self, token: bytes) -> int:
        if token in (b"true", b"True", b"t"):
            return 1
        if token in (b"false", b"False", b"f"):
            return 0
        try:
            number = int(token, 0)
        except ValueError:
            raise self._malformed(f"{token[:40]!r} is not a number") from None
        if not -(1 << 63) <= number < 1 << 64:
            raise self._malformed(f"{token[:40]!r} is too large")
        return number

    def _dtype(self, token: bytes) -> int:
        if token.endswith(b"_REF"):
            return _TYPE_NUMBERS.get(token[:-4], 0) + REF_OFFSET
        return _TYPE_NUMBERS.get(token) or (self._number(token) if token.isdigit() else 0)

    def _string(self, quote: bytes, keep: bool) -> bytes | None:
        """Parse one string, and those that follow it, which the format joins; None if it is not kept."""
        parts: list[bytes | None] = []
        while True:
            parts.append(self._string_part(quote, keep))
            token = self._token()
            if token not in (b'"', b"'"):
                self._index -= len(token)
                known = [part for part in parts if part is not None]
                return b"".join(known) if len(known) == len(parts) else None
            quote = token

    def _string_part(self, quote: bytes, keep: bool) -> bytes | None:
        kept = bytearray()
        while True:
            end = self._buffer.find(quote, self._index)
            found = end >= 0
            stop = end if found else len(self._buffer)
            is_escaped = self._is_escaped(stop)
            if is_escaped:  # the string goes on behind the quote; no piece ends between a backslash and what it escapes
                stop += 1 if found else -1
            if keep and len(kept) <= MAX_STRING_BYTES:
                kept += self._buffer[self._index : stop]
            self._index = stop
            if found and not is_escaped:
                self._index += 1
                return _unescape(bytes(kept)) if keep and len(kept) <= MAX_STRING_BYTES else None
            if not found and not self._more():
                raise self._malformed("a string does not end")

    def _is_escaped(self, at: int) -> bool:
        """Tell whether what stands there belongs to a backslash before it, which no other one escapes."""
        before = self._buffer[self._index : at]
        return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1

    def _type_url(self) -> str:
        name = self._next(_TYPE_URL)
        if not name or self._token() != b"]":
            raise self._malformed("a bracket is not a type's name")
        return f"[{name.decode('ascii', 'replace')}]"

    def _token(self) -> bytes:
        """Return the next token, empty at the end of the file."""
        return self._next(_TOKEN)

    def _next(self, pattern: re.Pattern[bytes]) -> bytes:
        """Return what the pattern finds behind spaces and comments, empty at the end of the file."""
        self._skip_space()
        while len(self._buffer) - self._index < MAX_TOKEN_BYTES and self._more():
            pass
        match = pattern.match(self._buffer, self._index, self._index + MAX_TOKEN_BYTES)
        if match is None:
            if self._index == len(self._buffer):
                return b""
            raise self._malformed(f"{self._buffer[self._index : self._index + 20]!r} is not text format")
        if len(match[0]) == MAX_TOKEN_BYTES:
            raise self._malformed(f"a name or a number is too long, {match[0][:20]!r} and so on")
        self._index = match.end()
        return match[0]

    def _skip_space(self) -> None:
        """Drop spaces and comments, however many pieces they fill."""
        wanted = _NO_SPACE
        while True:
            match = wanted.search(self._buffer, self._index)
            self._index = len(self._buffer) if match is None else match.start()
            if match is None:
                if not self._more():
                    return
            elif match[0] == b"#":
                wanted = _LINE_END
            elif match[0] == b"\n":
                wanted = _NO_SPACE
            else:
                return

    def _more(self) -> bool:
        """Drop what was parsed and append the next piece; False at the end of the file."""
        piece = self._file.pread(self._end, self._piece_bytes)
        if not piece:
            return False
        self._buffer = self._buffer[self._index :] + piece
        self._index = 0
        self._end += len(piece)
        return True

    def _malformed(self, reason: str) -> Malformed:
        return Malformed(f"{reason} at byte {self._end - len(self._buffer) + self._index}")


def _unescape(content: bytes) -> bytes:
    if b"\\" not in content:
        return content
    return _ESCAPE.sub(_unescaped, content)


def _unescaped(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, unicode, simple = match.groups()
    if octal is not None:
        return bytes([int(octal, 8) & 255])
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    if unicode is not None:
        return chr(int(unicode, 16)).encode("utf-8", "replace")
    return _SIMPLE_ESCAPES.get(simple, simple)
