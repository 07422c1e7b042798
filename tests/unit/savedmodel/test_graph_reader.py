"""The graph's reader: both forms, any order of fields, windows of any size, constants that are not read."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.bad_models.build import function, graph, node, placeholder, saved_model, string_constant, write
from tests.bad_models.fuzz import MemoryDirectory, text_graph
from tests.effort import processor_s

from servegraph.errors import ModelError
from servegraph.savedmodel import pbtxt
from servegraph.savedmodel.graph import attr_strings
from servegraph.savedmodel.graph_reader import GraphFile, read_saved_model
from servegraph.savedmodel.metadata_files import parse_fingerprint, parse_keras_metadata
from servegraph.savedmodel.wire import (
    BytesFile,
    Malformed,
    Window,
    encode_bytes,
    encode_number,
    encode_varint,
    fields,
    payloads,
    read_varint,
    signed,
)
from servegraph.storage import open_dir

MODELS = Path(__file__).parents[2] / "real_models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/saved_model.pb"))


class CountingFile(BytesFile):
    """Counts what is read."""

    reads = 0
    read_bytes = 0

    def pread(self, offset: int, length: int) -> bytes:
        self.reads += 1
        content = super().pread(offset, length)
        self.read_bytes += len(content)
        return content


@pytest.mark.parametrize("name", NAMES)
def test_the_text_form_is_read_as_the_binary_one(name: str) -> None:
    content = (MODELS / name / "saved_model.pb").read_bytes()
    binary = MemoryDirectory({"saved_model.pb": content})
    text = MemoryDirectory({"saved_model.pbtxt": text_graph({"saved_model.pb": content})})
    with GraphFile(binary) as one, GraphFile(text) as other:
        for expected, found in zip(one.scan().meta_graphs, other.scan().meta_graphs, strict=True):
            assert (found.tags, found.signatures, found.saver) == (
                expected.tags,
                expected.signatures,
                expected.saver,
            )
            assert found.node_lists == expected.node_lists
            assert found.main.ops == expected.main.ops
            assert found.functions.keys() == expected.functions.keys()
            for key, body in expected.functions.items():
                assert found.functions[key].ops == body.ops
                assert found.functions[key].calls == body.calls
            names = {key: (value.op, value.inputs, value.device) for key, value in one.nodes(expected.main).items()}
            again = {key: (value.op, value.inputs, value.device) for key, value in other.nodes(found.main).items()}
            assert again == names


@pytest.mark.parametrize(
    "text",
    [
        'meta_graphs { meta_info_def { tags: "serve" } }',
        'meta_graphs: < meta_info_def: < tags: "serve" > >',
        "meta_graphs{meta_info_def{tags:'serve'}}",
        'meta_graphs {\n # a comment\n meta_info_def { tags: "ser" "ve"; } , }',
        r'meta_graphs { meta_info_def { tags: "\163er\x76e" unknown_field: 1.5e-7 } }',
        'meta_graphs [{ meta_info_def { tags: ["serve"] other { a: -1 b: inf c: [1, 2] } } }]',
    ],
)
def test_text_forms(text: str) -> None:
    graph_read = read_saved_model(MemoryDirectory({"saved_model.pbtxt": text.encode()}))
    assert graph_read.meta_graphs[0].tags == ("serve",)


@pytest.mark.parametrize(
    "text",
    [
        *("meta_graphs {", "meta_graphs }", "meta_graphs { a: }", 'x: "', "\0", "meta_graphs: [", "a: 1 }", "[x"),
        *("a: " + "1" * 2000, "[" + "x" * 2000 + "] {}", "x" * 2000),
        "meta_graphs { graph_def { node { attr { value { type: " + "9" * 900 + " } } } } }",
        *("meta_grphs {}", "meta_graphs { graph_def { nod { } } }", "meta_graphs { graph_def { node { opp: 'x' } } }"),
    ],
)
def test_damaged_text(text: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_saved_model(MemoryDirectory({"saved_model.pbtxt": text.encode()}))
    assert caught.value.code == "GRAPH_CORRUPT"


def test_a_text_that_comes_in_small_pieces() -> None:
    long_name = "x" * 5000 + "\\\\" * 2001
    text = f'meta_graphs {{ meta_info_def {{ tags: "{long_name}" tags: "serve" }} }}'.encode()
    for piece_bytes in (1, 7, 4096):
        parser = pbtxt._Parser(BytesFile(text), piece_bytes)
        assert b"serve" in parser.message("SavedModel", b"", 0)


@pytest.mark.parametrize(
    "text",
    [
        b"saved_model_schema_version: 1" + b" " * 8_000_000,
        b"saved_model_schema_version: 1" + b"# nothing\n" * 200_000 + b"#" * 8_000_000,
        b'meta_graphs { meta_info_def { tags: "' + b"\\" * 8_000_000 + b'" } }',
        b"meta_graphs { meta_info_def { x: [" + b"1," * 20_000 + b"] y { " + b"-" * 30_000 + b" } } }",
    ],
    ids=["spaces", "comments", "backslashes", "signs"],
)
def test_a_text_takes_time_of_its_size_and_memory_of_a_piece(text: bytes) -> None:
    def read() -> None:
        with contextlib.suppress(Malformed):
            pbtxt.transcode(BytesFile(text))

    assert processor_s(read, 2) < 2
    tracemalloc.start()
    try:
        read()
        assert tracemalloc.get_traced_memory()[1] < 6 * pbtxt.PIECE_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("first_bytes", [20, 64, 1000])
def test_nodes_across_windows(first_bytes: int) -> None:
    names = [f"node_{number}" * (number % 7 + 1) for number in range(300)]
    content = graph([node(name, "NoOp") for name in names])
    from servegraph.savedmodel.nodes import IN_GRAPH, iter_nodes, parse_node

    window = Window(BytesFile(content), first_bytes=first_bytes, max_bytes=first_bytes)
    found = [parse_node(raw).name for raw in iter_nodes(window, 0, len(content), IN_GRAPH)]
    assert found == names


def test_constants_are_skipped() -> None:
    tensor = encode_bytes(8, encode_number(1, 1) + encode_bytes(4, bytes(50_000_000)))
    attr = encode_bytes(5, encode_bytes(1, b"value") + encode_bytes(2, tensor))
    content = saved_model(graph([placeholder(), node("big", "Const", (), attr), node("y", "Identity", ("x",))]))
    file = CountingFile(content)
    from servegraph.savedmodel.graph_reader import _scan

    scanned = _scan(Window(file), "saved_model.pb", file.size_bytes)
    assert scanned.meta_graphs[0].main.const_bytes > 50_000_000
    assert scanned.meta_graphs[0].main.ops == {"Placeholder": 1, "Const": 1, "Identity": 1}
    assert file.read_bytes < 100_000


def test_a_dense_graph_takes_few_reads() -> None:
    content = saved_model(graph([node(f"node_{number:06}", "NoOp") for number in range(100_000)]))
    file = CountingFile(content)
    from servegraph.savedmodel.graph_reader import _scan

    _scan(Window(file), "saved_model.pb", file.size_bytes)
    assert file.reads < 15


def test_what_was_read_from_afar_is_kept() -> None:
    file = CountingFile(bytes(100_000))
    window = Window(file, keep_bytes=1 << 20)
    for start in (0, 40_000, 90_000, 0, 40_000, 90_000):
        assert window.read(start, start + 100) == bytes(100)
    assert file.reads == 3


def test_strings_of_constants() -> None:
    directory = MemoryDirectory({"saved_model.pb": saved_model(graph([string_constant("text", b"hello")]))})
    with GraphFile(directory) as file:
        (meta_graph,) = file.scan().meta_graphs
        nodes = file.nodes(meta_graph.main, {b"Const": frozenset({b"value"})})
    assert attr_strings(nodes["text"]) == [b"hello"]


def test_functions_and_their_arguments(tmp_path: Path) -> None:
    write(tmp_path, saved_model(graph([placeholder()], [function("f", [node("n", "NoOp")], ["one", "two"])])))
    with GraphFile(open_dir(tmp_path)) as file:
        (meta_graph,) = file.scan().meta_graphs
        assert file.arguments(meta_graph.functions["f"]) == ["one", "two"]


def test_binary_goes_before_text() -> None:
    files = {"saved_model.pb": saved_model(b""), "saved_model.pbtxt": b"damaged {"}
    assert read_saved_model(MemoryDirectory(files)).path == "saved_model.pb"


def test_a_graph_in_chunks_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        read_saved_model(MemoryDirectory({"saved_model.cpb": b"chunks"}))
    assert caught.value.code == "CHUNKED_GRAPH"


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_come_back(number: int) -> None:
    encoded = encode_varint(number)
    value, position = read_varint(encoded, 0)
    assert (signed(value), position) == (number, len(encoded))


@example([(5, 0), (5, b"text")])
@given(st.lists(st.tuples(st.integers(1, 2000), st.one_of(st.integers(0, 2**63), st.binary(max_size=300)))))
def test_three_ways_to_walk_a_message_agree(content: list[tuple[int, int | bytes]]) -> None:
    message = b"".join(
        encode_bytes(number, value) if isinstance(value, bytes) else encode_number(number, value)
        for number, value in content
    )
    walked = [
        (field.number, message[field.start : field.end] if field.end else field.value) for field in fields(message)
    ]
    window = Window(BytesFile(message), first_bytes=20, max_bytes=20)
    seen = [
        (field.number, window.read(field.start, field.end) if field.end else field.value)
        for field in window.fields(0, len(message))
    ]
    assert walked == seen == content
    texts = [value for number, value in content if number == 5 and isinstance(value, bytes)]
    assert [message[start:end] for start, end in payloads(message, 5)] == texts


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05x", b"\x80", b"\x0b", b"\x0d\0\0", b"\x08" + b"\xff" * 11])
def test_damaged_messages(message: bytes) -> None:
    for walk in (fields(message), payloads(message, 1), Window(BytesFile(message)).fields(0, len(message))):
        with pytest.raises(Malformed):
            list(walk)


def test_fingerprint() -> None:
    fingerprint = parse_fingerprint((MODELS / "module/fingerprint.pb").read_bytes())
    assert set(fingerprint) >= {"saved_model_checksum", "checkpoint_hash", "uuid"}
    assert parse_fingerprint(b"\xff\xff") == {}


def test_keras_metadata() -> None:
    def saved_object(path: str, identifier: str, metadata: str) -> bytes:
        content = encode_bytes(3, path.encode()) + encode_bytes(4, identifier.encode())
        return encode_bytes(1, content + encode_bytes(5, metadata.encode()))

    content = saved_object("root", "_tf_keras_network", '{"class_name": "Functional"}')
    content += saved_object("root.layer-0", "_tf_keras_layer", "{}") * 2
    metadata = parse_keras_metadata(content)
    assert metadata is not None
    assert metadata.model_class == "Functional"
    assert metadata.objects == {"_tf_keras_network": 1, "_tf_keras_layer": 2}
    assert metadata.python_code == ()
    layers = '{"layers": [{"config": {"name": "twice", "function_type": "l\\u0061mbda", "function": ["4wEA", null]}}]}'
    metadata = parse_keras_metadata(content + saved_object("root.layer-1", "_tf_keras_network", layers))
    assert metadata is not None
    assert metadata.python_code == ("twice",)
    assert parse_keras_metadata(b"\x0a\xff") is None
    assert parse_keras_metadata(saved_object("root", "x", "[1]")) is None
