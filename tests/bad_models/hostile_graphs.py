"""Hostile graphs: what no library writes, each an attempt to hide something or to cost the reader dearly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bad_models.build import (
    STRING,
    Hostile,
    attr,
    calls,
    entry,
    function,
    graph,
    node,
    placeholder,
    saved_model,
    string_constant,
    write,
)

from servegraph.savedmodel.wire import encode_bytes, encode_number, encode_varint

READ = node("y", "ReadFile", ("x",))


def graph_file(content: bytes) -> Callable[[Path], None]:
    return lambda path: write(path, content)


def answered_by(op: str, *attrs: bytes) -> Callable[[Path], None]:
    """A model whose signature does nothing but this operation."""
    return graph_file(saved_model(graph([placeholder(), node("y", op, ("x",), *attrs)])))


def restored_by(*nodes: bytes) -> Callable[[Path], None]:
    """A model whose saver runs what the last of these nodes, named `restore`, needs."""
    saver = encode_bytes(1, b"x:0") + encode_bytes(2, b"x:0") + encode_bytes(3, b"restore")
    return graph_file(
        saved_model(graph([placeholder(), node("y", "Identity", ("x",)), *nodes]), encode_bytes(3, saver))
    )


def text_nesting(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "saved_model.pbtxt").write_text("meta_graphs { " * 50_000)


def text_without_end(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "saved_model.pbtxt").write_text('meta_graphs { meta_info_def { tags: "' + "\\\\" * 500_000)


def nested_in_attr(list_field: bool) -> bytes:
    """A MapDataset whose function, named in a list or alone, reads a file."""
    name = encode_bytes(1, b"reads")
    value = encode_bytes(1, encode_bytes(9, name)) if list_field else encode_bytes(10, name)
    reads = function("reads", [node("r", "ReadFile", ("argument",))], ["argument"])
    nodes = [placeholder(), node("y", "MapDataset", ("x",), attr("f", value))]
    return saved_model(graph(nodes, [reads]))


def nested(depth: int) -> bytes:
    """An AttrValue whose function has an attribute whose function has…"""
    value = b""
    for _ in range(depth):
        value = encode_bytes(10, encode_bytes(1, b"f") + encode_bytes(2, entry("a", value)))
    return value


def composite(depth: int) -> bytes:
    """A TensorInfo of components of components…"""
    info = b""
    for _ in range(depth):
        info = encode_bytes(5, encode_bytes(2, info))
    return info


def on_start(*nodes: bytes) -> Callable[[Path], None]:
    """A model that runs what the last of these nodes, named `start`, needs when it is loaded."""
    main_op = entry("saved_model_main_op", encode_bytes(1, encode_bytes(1, b"start")))
    return graph_file(
        saved_model(graph([placeholder(), node("y", "Identity", ("x",)), *nodes]), encode_bytes(4, main_op))
    )


def run_by_python() -> bytes:
    """An object with a function that `tf.saved_model.load` calls; no signature does."""
    child = encode_bytes(1, encode_number(1, 1) + encode_bytes(2, b"_initialize"))
    objects = (child, encode_bytes(6, encode_bytes(1, b"fills")))
    object_graph = b"".join(encode_bytes(1, content) for content in objects)
    object_graph += encode_bytes(2, entry("fills", b""))
    fills = function("fills", [node("w", "WriteFile", ("a", "a"))], ["a"])
    return saved_model(graph([placeholder(), node("y", "Identity", ("x",))], [fills]), encode_bytes(7, object_graph))


def many_ways() -> bytes:
    """A string that comes to where it is read on 8^15 ways."""
    functions = [
        function(f"f{depth}", [node(f"c{way}", f"f{depth + 1}", ("a",)) for way in range(8)], ["a"])
        for depth in range(15)
    ]
    functions.append(function("f15", [node("d", "DatasetFromGraph", ("a",))], ["a"]))
    return saved_model(graph([placeholder(), string_constant("g", HIDDEN), node("y", "f0", ("g",))], functions))


def many_graphs() -> bytes:
    """A graph in a string, that is opened a hundred times in a graph in a string, and so on."""
    content = HIDDEN
    for _ in range(6):
        opened = [node(f"d{number}", "DatasetFromGraph", ("g",)) for number in range(100)]
        content = graph([string_constant("g", content), *opened])
    return saved_model(graph([placeholder(), string_constant("g", content), node("y", "DatasetFromGraph", ("g",))]))


HIDDEN = graph([placeholder("p"), node("r", "ReadFile", ("p",))])
TABLE = graph(
    [
        node("t", "HashTableV2"),
        string_constant("name", b"/etc/passwd"),
        node("r", "InitializeTableFromTextFileV2", ("t", "name")),
    ]
)
EMPTY_META_GRAPH = encode_bytes(2, encode_bytes(2, b""))
OVERLONG_NODE_TAG = b"\x8a\x00" + encode_varint(len(READ)) + READ
TWO_OPERATIONS = (
    encode_bytes(1, b"y") + encode_bytes(2, b"Identity") + encode_bytes(3, b"x") + encode_bytes(2, b"ReadFile")
)
UNKNOWN_NUMBER = encode_bytes(1, b"y") + encode_bytes(2, b"ReadFile") + encode_number(8, 9) + encode_bytes(3, b"x")
BACKWARDS = (
    attr("T", encode_number(6, 7)) + encode_bytes(3, b"x") + encode_bytes(2, b"ReadFile") + encode_bytes(1, b"y")
)


def called_deep(depth: int) -> bytes:
    """Functions that each call the next one; the last reads a file."""
    functions = [function(f"f{n}", [node("c", f"f{n + 1}", ("a",))], ["a"]) for n in range(depth)]
    functions.append(function(f"f{depth}", [node("r", "ReadFile", ("a",))], ["a"]))
    return saved_model(graph([placeholder(), node("y", "f0", ("x",))], functions))


def many_custom(count: int) -> bytes:
    nodes = [node(f"n{n}", f"Op{n}", ("x",)) for n in range(count)]
    return saved_model(graph([placeholder(), *nodes, node("y", "AddN", [f"n{n}" for n in range(count)])]))


def handed_on(times: int) -> Iterator[bytes]:
    """Tables that are each filled from a file whose name has come one operation further."""
    yield string_constant("i0", b"/etc/passwd")
    for n in range(times):
        yield node(f"t{n}", "HashTableV2")
        yield node(f"i{n + 1}", "Identity", (f"i{n}",))
        yield node(f"s{n}", "InitializeTableFromTextFileV2", (f"t{n}", f"i{n + 1}"))
    yield node("start", "NoOp", [f"^s{n}" for n in range(times)])


def restoring(count: int) -> Iterator[bytes]:
    """Variables that are each filled by an operation of its own, which asks for the tensors of all."""
    keys = b"".join(encode_bytes(8, f"key{n}".encode()) for n in range(count))
    tensor = encode_number(1, STRING) + encode_bytes(2, encode_bytes(2, encode_number(1, count))) + keys
    yield node("keys", "Const", (), attr("value", encode_bytes(8, tensor)))
    for n in range(count):
        yield node(f"v{n}", "VarHandleOp", (), attr("shared_name", encode_bytes(2, f"v{n}".encode())))
        yield node(f"r{n}", "RestoreV2", ("x", "keys", "keys"))
        yield node(f"a{n}", "AssignVariableOp", (f"v{n}", f"r{n}:{n}"))
    yield node("restore", "NoOp", [f"^a{n}" for n in range(count)])


GRAPHS = (
    Hostile(
        "a node whose second operation is the one that counts",
        graph_file(saved_model(graph([placeholder(), TWO_OPERATIONS]))),
        "GRAPH_CORRUPT",
    ),
    Hostile(
        "a node with its fields in the wrong order",
        graph_file(saved_model(graph([placeholder(), BACKWARDS]))),
        "UNSAFE_OP",
    ),
    Hostile(
        "a node whose tag takes more bytes than it needs",
        graph_file(saved_model(graph([placeholder()]) + OVERLONG_NODE_TAG)),
        "UNSAFE_OP",
    ),
    Hostile(
        "a node with an unknown number before its inputs",
        graph_file(saved_model(graph([placeholder(), UNKNOWN_NUMBER]))),
        "GRAPH_CORRUPT",
    ),
    Hostile(
        "a second graph that protobuf merges into the first",
        graph_file(saved_model(graph([placeholder()]), encode_bytes(2, graph([READ])))),
        "GRAPH_CORRUPT",
    ),
    Hostile(
        "two functions of one name",
        graph_file(saved_model(graph([placeholder()], [function("f", []), function("f", [READ])]))),
        "GRAPH_CORRUPT",
    ),
    Hostile(
        "a file read three calls deep",
        graph_file(
            saved_model(
                graph(
                    [placeholder(), node("y", "PartitionedCall", ("x",), calls("one"))],
                    [
                        function("one", [node("c", "StatefulPartitionedCall", ("a",), calls("two"))], ["a"]),
                        function("two", [node("c", "three", ("a",))], ["a"]),
                        function("three", [node("r", "ReadFile", ("a",))], ["a"]),
                    ],
                )
            )
        ),
        "UNSAFE_OP",
    ),
    Hostile("a function named in an attribute", graph_file(nested_in_attr(list_field=False)), "UNSAFE_OP"),
    Hostile("a function named in a list", graph_file(nested_in_attr(list_field=True)), "UNSAFE_OP"),
    Hostile(
        "a graph in a string",
        graph_file(
            saved_model(graph([placeholder(), string_constant("g", HIDDEN), node("y", "DatasetFromGraph", ("g",))]))
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "a graph in a string in a graph in a string",
        graph_file(
            saved_model(
                graph(
                    [
                        placeholder(),
                        string_constant(
                            "g", graph([string_constant("h", HIDDEN), node("d", "DatasetFromGraph", ("h",))])
                        ),
                        node("y", "DatasetFromGraph", ("g",)),
                    ]
                )
            )
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "a graph in a string that is passed to a function",
        graph_file(
            saved_model(
                graph(
                    [
                        placeholder(),
                        string_constant("g", HIDDEN),
                        node("y", "PartitionedCall", ("g",), calls("f")),
                    ],
                    [function("f", [node("d", "DatasetFromGraph", ("text",))], ["text"])],
                )
            )
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "a graph that a request sends",
        answered_by("DatasetFromGraph"),
        "UNSAFE_OP",
    ),
    Hostile(
        "printing to a file", answered_by("PrintV2", attr("output_stream", encode_bytes(2, b"file://f"))), "UNSAFE_OP"
    ),
    Hostile(
        "protos described by a file",
        answered_by("DecodeProtoV2", attr("descriptor_source", encode_bytes(2, b"/etc/passwd"))),
        "UNSAFE_OP",
    ),
    Hostile("saving in a signature", answered_by("SaveV2"), "UNSAFE_OP"),
    Hostile("running Python", answered_by("EagerPyFunc"), "UNSAFE_OP"),
    Hostile(
        "a file written while restoring",
        restored_by(node("w", "WriteFile", ("x", "x")), node("restore", "NoOp", ("^w",))),
        "UNSAFE_OP",
    ),
    Hostile(
        "saving while restoring",
        restored_by(node("w", "SaveV2", ("x", "x", "x", "x")), node("restore", "NoOp", ("^w",))),
        "UNSAFE_OP",
    ),
    Hostile(
        "a file read while loading",
        on_start(
            string_constant("name", b"/etc/passwd"),
            node("r", "ReadFile", ("name",)),
            node("start", "NoOp", ("^r",)),
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "a vocabulary from elsewhere",
        on_start(
            node("t", "HashTableV2"),
            string_constant("name", b"/home/me/words.txt"),
            node("start", "InitializeTableFromTextFileV2", ("t", "name")),
        ),
        "EXTERNAL_FILE",
    ),
    Hostile(
        "a vocabulary whose name is computed",
        on_start(
            node("t", "HashTableV2"),
            string_constant("a", b"/etc/"),
            string_constant("b", b"passwd"),
            node("name", "StringJoin", ("a", "b")),
            node("start", "InitializeTableFromTextFileV2", ("t", "name")),
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "a vocabulary inside a graph in a string",
        graph_file(
            saved_model(graph([placeholder(), string_constant("g", TABLE), node("y", "DatasetFromGraph", ("g",))]))
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "a cache whose empty name is filled in",
        graph_file(
            saved_model(
                graph(
                    [
                        placeholder(),
                        string_constant("e", b""),
                        node("f", "StringFormat", ("e",), attr("template", encode_bytes(2, b"/tmp/f%s"))),
                        node("y", "CacheDataset", ("x", "f")),
                    ]
                )
            )
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "a graph in an encoded string",
        graph_file(
            saved_model(
                graph(
                    [
                        placeholder(),
                        string_constant("g", graph([])),
                        node("b", "DecodeBase64", ("g",)),
                        node("y", "DatasetFromGraph", ("b",)),
                    ]
                )
            )
        ),
        "UNSAFE_OP",
    ),
    Hostile(
        "running Python in a loop",
        graph_file(
            saved_model(
                graph(
                    [
                        placeholder(),
                        node(
                            "y",
                            "While",
                            ("x",),
                            attr("cond", encode_bytes(10, encode_bytes(1, b"goes_on"))),
                            attr("body", encode_bytes(10, encode_bytes(1, b"steps"))),
                        ),
                    ],
                    [function("goes_on", [], ["a"]), function("steps", [node("p", "PyFunc", ("a",))], ["a"])],
                )
            )
        ),
        "UNSAFE_OP",
    ),
    Hostile("a file written by what Python runs on loading", graph_file(run_by_python()), "UNSAFE_OP"),
    Hostile("a string on more ways than can be followed", graph_file(many_ways()), "UNSAFE_OP"),
    Hostile("a string opened more often than can be done", graph_file(many_graphs()), "UNSAFE_OP"),
    Hostile("a file read 10,000 calls deep", graph_file(called_deep(10_000)), "UNSAFE_OP"),
    Hostile("10,000 operations that nobody has", graph_file(many_custom(10_000)), "CUSTOM_OP"),
    Hostile("a file's name handed on 4,000 times", on_start(*handed_on(4_000)), "UNSAFE_OP"),
    Hostile("2,000 operations that restore 2,000 tensors", restored_by(*restoring(2_000)), "NO_VARIABLES"),
    Hostile(
        "20,000 MetaGraphs",
        graph_file(saved_model(graph([placeholder()])) + EMPTY_META_GRAPH * 20_000),
        "GRAPH_CORRUPT",
    ),
    Hostile(
        "a function with the name of an operation",
        graph_file(
            saved_model(graph([placeholder(), node("y", "Identity", ("x",))], [function("Identity", [READ], ["x"])]))
        ),
        "GRAPH_INCONSISTENT",
    ),
    Hostile(
        "two nodes of one name",
        graph_file(saved_model(graph([placeholder(), node("y", "Identity", ("x",)), node("y", "Neg", ("x",))]))),
        "GRAPH_INCONSISTENT",
    ),
    Hostile(
        "an attribute nested 5,000 deep",
        graph_file(saved_model(graph([placeholder(), node("y", "PartitionedCall", ("x",), attr("f", nested(5000)))]))),
        "GRAPH_CORRUPT",
    ),
    Hostile(
        "a composite tensor nested 5,000 deep",
        graph_file(
            saved_model(
                graph([placeholder()]), encode_bytes(5, entry("s", encode_bytes(1, entry("x", composite(5000)))))
            )
        ),
        "GRAPH_CORRUPT",
    ),
    Hostile(
        "an attribute cut after its first byte",
        graph_file(
            saved_model(
                graph(
                    [placeholder(), node("v", "VarHandleOp", (), attr("shared_name", b"\x12")), node("y", "f", ("x",))]
                )
            )
        ),
        "GRAPH_CORRUPT",
    ),
    Hostile("a field that claims 4 GB", graph_file(b"\x12\xff\xff\xff\xff\x0f" + b"x" * 100), "GRAPH_CORRUPT"),
    Hostile("a number without an end", graph_file(b"\x08" + b"\xff" * 1000), "GRAPH_CORRUPT"),
    Hostile("text nested 50,000 deep", text_nesting, "GRAPH_CORRUPT"),
    Hostile("a text string without an end", text_without_end, "GRAPH_CORRUPT"),
)
