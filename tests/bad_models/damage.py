"""Damaged models: each row takes a real model, does what happens to files, and says what is to be found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.storage import open_dir

MODELS = Path(__file__).parents[1] / "real_models"
GRAPH, INDEX = "saved_model.pb", "variables/variables.index"
SHARD = "variables/variables.data-00000-of-00001"


class Damage(NamedTuple):
    """What was done to which model, what is found; `loads` says why TensorFlow loads it all the same, if it does."""

    name: str
    model: str
    do: Callable[[Path], None]
    code: str
    loads: str = ""


def edit(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def do(model: Path) -> None:
        (model / file).write_bytes(change((model / file).read_bytes()))

    return do


def replace(file: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Replace text by text of the same length, so that no message around it changes its size."""
    assert len(old) == len(new)

    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    return edit(file, change)


def remove(file: str) -> Callable[[Path], None]:
    return lambda model: (model / file).unlink()


def flip_bit(file: str, position: int) -> Callable[[Path], None]:
    return edit(file, lambda content: content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])


def cut(file: str, share: float) -> Callable[[Path], None]:
    return edit(file, lambda content: content[: int(len(content) * share)])


def rewrite_variables(change: Callable[[str], dict[str, object]]) -> Callable[[Path], None]:
    """Write the variables again, with another type, shape or key."""

    def do(model: Path) -> None:
        with BundleReader(open_dir(model)) as source:
            tensors = [(entry, source.read(entry)) for entry in source.entries.values() if entry.dtype != "string"]
            strings = [
                (entry, source.read_strings(entry)) for entry in source.entries.values() if entry.dtype == "string"
            ]
        with BundleWriter(model / "variables/variables") as writer:
            for entry, values in strings:
                writer.add_strings(entry.key, entry.shape, values)
            for entry, content in tensors:
                fields = {"key": entry.key, "dtype": entry.dtype, "shape": entry.shape, **change(entry.key)}
                writer.add(fields["key"], fields["dtype"], fields["shape"], [content])

    return do


def rename_shard(model: Path) -> None:
    (model / SHARD).rename(model / "variables/variables.data-00000-of-00002")


def link_asset_outside(model: Path) -> None:
    outside = model.parent / "vocabulary.txt"
    (model / "assets/vocabulary.txt").rename(outside)
    (model / "assets/vocabulary.txt").symlink_to(outside)


def take_variables_of_another(model: Path) -> None:
    for file in (INDEX, SHARD):
        (model / file).write_bytes((MODELS / "keras_dense" / file).read_bytes())


def grow_over_two_gigabytes(model: Path) -> None:
    os.truncate(model / GRAPH, 2**31 + 100)  # sparse: it takes no room


def change_last(content: bytes, name: bytes) -> bytes:
    """Change a letter where a name is written for the last time, which is where it is used."""
    before, found, after = content.rpartition(name)
    assert found
    return before + name[:3] + b"?" + name[4:] + after


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"

DAMAGES = (
    Damage("graph cut short", "module", cut(GRAPH, 0.6), "GRAPH_CORRUPT"),
    Damage("graph empty", "module", edit(GRAPH, lambda content: b""), "GRAPH_CORRUPT"),
    Damage(
        "graph of random bytes",
        "module",
        edit(GRAPH, lambda content: bytes(range(256)) * 40),
        "GRAPH_CORRUPT",
    ),
    Damage(
        "graph with a zeroed sector",
        "module",
        edit(GRAPH, lambda content: content[:4096] + bytes(512) + content[4608:]),
        "GRAPH_CORRUPT",
    ),
    Damage("graph over 2 GB", "module", grow_over_two_gigabytes, "GRAPH_TOO_LARGE"),
    Damage("graph that is a pointer of Git LFS", "module", edit(GRAPH, lambda content: POINTER), "LFS_POINTER"),
    Damage("index that is a pointer of Git LFS", "module", edit(INDEX, lambda content: POINTER), "LFS_POINTER"),
    Damage("data file that is a pointer of Git LFS", "module", edit(SHARD, lambda content: POINTER), "LFS_POINTER"),
    Damage(
        "a node's input with a changed letter",
        "v1_partitioned",
        edit(GRAPH, lambda content: change_last(content, b"save/RestoreV2")),
        "GRAPH_INCONSISTENT",
    ),
    Damage(
        "a saver's operation with a changed letter",
        "v1_partitioned",
        edit(GRAPH, lambda content: change_last(content, b"save/restore_all")),
        "GRAPH_INCONSISTENT",
    ),
    Damage(
        "a function's node with a changed letter",
        "module",
        edit(GRAPH, lambda content: change_last(content, b"RestoreV2/tensor_names:output:0")),
        "GRAPH_INCONSISTENT",
    ),
    Damage(
        "a function's name with a changed letter",
        "keras_dense",
        edit(
            GRAPH,
            lambda content: content.replace(b"__inference_signature_wrapper", b"__inference_signature_wripper", 1),
        ),
        "GRAPH_INCONSISTENT",
        loads="Python imports the functions and not the main graph that calls them; TensorFlow Serving imports both.",
    ),
    Damage(
        "a name that is no text", "module", replace(GRAPH, b"saver_filename", b"saver_\xff\xfelename"), "GRAPH_CORRUPT"
    ),
    Damage("index cut short", "module", cut(INDEX, 0.5), "INDEX_CORRUPT"),
    Damage("index empty", "module", edit(INDEX, lambda content: b""), "INDEX_CORRUPT"),
    Damage("index with a flipped bit", "module", flip_bit(INDEX, 40), "INDEX_CORRUPT"),
    Damage("index missing", "module", remove(INDEX), "NO_VARIABLES"),
    Damage("data file cut short", "module", cut(SHARD, 0.9), "TRUNCATED_SHARD"),
    Damage("data file empty", "module", edit(SHARD, lambda content: b""), "TRUNCATED_SHARD"),
    Damage("data file missing", "module", remove(SHARD), "MISSING_SHARD"),
    Damage("data file renamed", "module", rename_shard, "MISSING_SHARD"),
    Damage("data file with a flipped bit", "module", flip_bit(SHARD, 5), "CRC_MISMATCH"),
    Damage("flipped bit in a string", "module", flip_bit(SHARD, 65), "CRC_MISMATCH"),
    Damage("flipped bit in a TF1 model", "v1_adam", flip_bit(SHARD, 500), "CRC_MISMATCH"),
    Damage("variables of another model", "module", take_variables_of_another, "MISSING_TENSOR"),
    Damage(
        "variables renamed",
        "module",
        rewrite_variables(lambda key: {"key": key.replace("weights", "waights")}),
        "MISSING_TENSOR",
    ),
    Damage(
        "variables of another type",
        "module",
        rewrite_variables(lambda key: {"dtype": "int32"} if key.startswith("weights") else {}),
        "MISMATCHED_TENSOR",
    ),
    Damage(
        "variables of another shape",
        "module",
        rewrite_variables(lambda key: {"shape": (2, 4)} if key.startswith("weights") else {}),
        "MISMATCHED_TENSOR",
    ),
    Damage("asset missing", "module", remove("assets/vocabulary.txt"), "MISSING_ASSET"),
    Damage("asset missing in a TF1 model", "v1_adam", remove("assets/vocabulary.txt"), "MISSING_ASSET"),
    Damage(
        "asset name that leads out",
        "module",
        replace(GRAPH, b"vocabulary.txt", b"../../etc/pass"),
        "PATH_ESCAPES",
    ),
    Damage("absolute asset name", "module", replace(GRAPH, b"vocabulary.txt", b"/etc/./passwd_"), "PATH_ESCAPES"),
    Damage(
        "link that leads out",
        "module",
        link_asset_outside,
        "LINK_OUTSIDE",
        loads="The link works where it was made; what it points to is not uploaded.",
    ),
    Damage("operation that nobody has", "v1_partitioned", replace(GRAPH, b"MatMul", b"MatMux"), "CUSTOM_OP"),
    Damage(
        "operation that nobody has, in a function",
        "keras_dense",
        replace(GRAPH, b"Softmax", b"Softmix"),
        "CUSTOM_OP",
    ),
    Damage(
        "tag that no server loads",
        "keras_dense",
        replace(GRAPH, b"\x22\x05serve", b"\x22\x05train"),
        "NO_SERVING_TAG",
        loads="tf.saved_model.load takes the only MetaGraph whatever its tags; TensorFlow Serving does not.",
    ),
)
