"""Reader and writer of checkpoints: literal bytes, round trips, every refusal."""

import os
import shutil
import struct
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import InputError, ModelError
from servegraph.savedmodel.bundle_index import (
    TensorEntry,
    _decode_ordered_number,
    _encode_ordered_number,
    encode_entry,
    encode_header,
    encode_slice_key,
    encode_sliced_entry,
)
from servegraph.savedmodel.bundle_reader import MAX_INDEX_BYTES, BundleReader
from servegraph.savedmodel.bundle_writer import BundleWriter
from servegraph.savedmodel.sstable import mask, read_table, write_table
from servegraph.storage import open_dir

MODELS = Path(__file__).parents[2] / "real_models"
WITH_VARIABLES = ["keras_dense", "keras_lookup", "keras_saved", "module", "v1_adam", "v1_partitioned"]

# variables.index of one float32 [2] called `a`, as TensorFlow 2.21 wrote it.
LITERAL_INDEX = bytes.fromhex(
    "0000060801 1a020801"  # header: shared 0, fresh 0, value of 6: num_shards 1, version { producer 1 }
    "00010f61 0801 12041202 0802 2808 35"  # key `a`, 15 bytes: dtype 1, shape { dim { size 2 } }, size 8, crc
)


def float32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def write(path: Path, **tensors: tuple[str, tuple[int, ...], bytes]) -> BundleReader:
    with BundleWriter(path / "variables/variables") as writer:
        for key, (dtype, shape, content) in tensors.items():
            writer.add(key, dtype, shape, [content])
    return BundleReader(open_dir(path))


def test_one_tensor_has_the_bytes_that_the_format_says(tmp_path: Path) -> None:
    write(tmp_path, a=("float32", (2,), float32(1, 2)))
    index = (tmp_path / "variables/variables.index").read_bytes()
    assert index.startswith(LITERAL_INDEX)
    assert index[-8:] == bytes.fromhex("57fb808b247547db")  # the table's magic number, little-endian
    assert (tmp_path / "variables/variables.data-00000-of-00001").read_bytes() == float32(1, 2)


@pytest.mark.parametrize("name", WITH_VARIABLES)
def test_a_copy_in_the_stored_order_is_the_same_files(name: str, tmp_path: Path) -> None:
    with BundleReader(open_dir(MODELS / name)) as source, BundleWriter(tmp_path / "variables") as writer:
        stored = sorted(source.entries.values(), key=lambda entry: source.pieces(entry)[0].offset)
        for entry in stored:
            writer.copy(entry, source)
    for suffix in ("index", "data-00000-of-00001"):
        original = MODELS / name / f"variables/variables.{suffix}"
        assert (tmp_path / f"variables.{suffix}").read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", WITH_VARIABLES)
def test_every_checksum_of_a_real_model_matches(name: str) -> None:
    with BundleReader(open_dir(MODELS / name)) as bundle:
        for entry in bundle.entries.values():
            bundle.verify(entry)


def test_strings_and_types_of_all_widths(tmp_path: Path) -> None:
    with BundleReader(open_dir(MODELS / "module")) as bundle:
        by_name = {key.partition("/")[0]: entry for key, entry in bundle.entries.items()}
        assert bundle.read_strings(by_name["words"]) == [b"hello", "wörld".encode(), b""]
        assert by_name["brain"].dtype == "bfloat16"
        assert by_name["half"].dtype == "float16"
        assert bundle.read(by_name["flags"]) == b"\1\0"
        assert bundle.read(by_name["complex"]) == struct.pack("<2d", 1, 2)
        assert by_name["none"].shape == (0, 3)
        assert bundle.read(by_name["none"]) == b""
        assert bundle.read(by_name["scalar"]) == struct.pack("<q", 7)


def test_a_partitioned_variable_is_one_tensor() -> None:
    with BundleReader(open_dir(MODELS / "v1_partitioned")) as bundle:
        entry = bundle.entries["embedding"]
        assert entry.shape == (50, 16)
        assert entry.slices == (((0, 17), (0, 16)), ((17, 17), (0, 16)), ((34, 16), (0, 16)))
        assert entry.size_bytes == 50 * 16 * 4 == len(bundle.read(entry))


def test_slices_along_any_dimension_are_put_in_place(tmp_path: Path) -> None:
    whole = bytes(range(2 * 4 * 3))
    left = b"".join(whole[start : start + 2 * 3] for start in (0, 12))
    right = b"".join(whole[start + 6 : start + 12] for start in (0, 12))
    cut = TensorEntry("cut", "uint8", (2, 4, 3), 0, 0, 0, 0, (((0, 2), (0, 2), (0, 3)), ((0, 2), (2, 2), (0, 3))))
    rows = {b"": encode_header(1), b"cut": encode_sliced_entry(cut)}
    for number, content in enumerate((left, right)):
        piece = TensorEntry("cut", "uint8", (2, 2, 3), 0, 12 * number, 12, mask(google_crc32c.value(content)))
        rows[encode_slice_key("cut", cut.slices[number])] = encode_entry(piece)
    (tmp_path / "cut.index").write_bytes(b"".join(write_table(iter(sorted(rows.items())))))
    (tmp_path / "cut.data-00000-of-00001").write_bytes(left + right)
    with (
        BundleReader(open_dir(tmp_path), "cut") as source,
        BundleWriter(tmp_path / "variables/variables") as writer,
    ):
        writer.copy(source.entries["cut"], source)
        writer.alias("again", "cut")
    with BundleReader(open_dir(tmp_path)) as bundle:
        assert bundle.read(bundle.entries["cut"]) == whole
        assert bundle.read(bundle.entries["again"]) == whole
        assert bundle.equal(bundle.entries["cut"], bundle.entries["again"])


def test_an_alias_stores_nothing_again(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "variables/variables") as writer:
        writer.add("a", "uint8", (1000,), [bytes(1000)])
        writer.alias("b", "a")
    assert (tmp_path / "variables/variables.data-00000-of-00001").stat().st_size == 1000
    with BundleReader(open_dir(tmp_path)) as bundle:
        assert bundle.read(bundle.entries["b"]) == bytes(1000)


def test_thousands_of_tensors_fill_several_blocks(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "variables/variables") as writer:
        for number in range(12_000):
            writer.add(f"layer_{number:05d}/kernel/.ATTRIBUTES/VARIABLE_VALUE", "int32", (1,), [bytes(4)])
    assert (tmp_path / "variables/variables.index").stat().st_size > 2 * 262144
    assert len(BundleReader(open_dir(tmp_path)).entries) == 12_000


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=40)), max_size=60))
def test_a_table_holds_what_was_put_in(entries: list[tuple[bytes, bytes]]) -> None:
    rows = sorted(dict(entries).items())
    assert list(read_table(b"".join(write_table(iter(rows))))) == rows


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_number_in_a_slice_key_comes_back(number: int) -> None:
    encoded = _encode_ordered_number(number)
    assert _decode_ordered_number(encoded, 0) == (number, len(encoded))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_numbers_in_slice_keys_sort_as_numbers(one: int, other: int) -> None:
    assert (one < other) == (_encode_ordered_number(one) < _encode_ordered_number(other))


@pytest.mark.parametrize("name", WITH_VARIABLES)
def test_a_hollow_copy_has_the_size_and_the_index_of_a_whole_one(name: str, tmp_path: Path) -> None:
    sizes = []
    for hollow in (False, True):
        prefix = tmp_path / str(hollow) / "variables/variables"
        with BundleReader(open_dir(MODELS / name)) as source, BundleWriter(prefix, hollow=hollow) as writer:
            for entry in source.entries.values():
                writer.copy(entry, source)
            writer.add("one more", "float32", (2,), [float32(1, 2)])
        sizes.append([file.stat().st_size for file in sorted(prefix.parent.iterdir())])
        with BundleReader(open_dir(tmp_path / str(hollow))) as reader:
            assert reader.read(reader.entries["one more"]) == float32(1, 2)
    assert sizes[0] == sizes[1]
    index = [(tmp_path / hollow / "variables/variables.index").read_bytes() for hollow in ("False", "True")]
    assert index[0] == index[1]


def test_a_failure_while_a_long_tensor_is_read_ahead_is_raised(tmp_path: Path) -> None:
    def chunks():
        yield bytes(4_000_000)
        raise ModelError("It is damaged.", code="TRUNCATED_SHARD")

    with pytest.raises(ModelError, match="damaged"), BundleWriter(tmp_path / "variables/variables") as writer:
        writer.add("w", "float32", (2_000_000,), chunks())
    assert not list((tmp_path / "variables").iterdir())


def test_nothing_is_visible_before_the_end_or_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BundleWriter(tmp_path / "variables/variables") as writer:
        writer.add("a", "uint8", (1,), [b"\1"])
        assert not any(tmp_path.glob("variables/variables.*"))
        raise RuntimeError
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize(
    ("key", "dtype", "shape", "content"),
    [
        ("a", "float32", (2,), bytes(7)),
        ("a", "float33", (2,), bytes(8)),
        ("a", "string", (1,), b"text"),
        ("", "uint8", (1,), b"\1"),
        ("there", "uint8", (1,), b"\1"),
    ],
)
def test_the_writer_refuses(key: str, dtype: str, shape: tuple[int, ...], content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught, BundleWriter(tmp_path / "variables") as writer:
        writer.add("there", "uint8", (1,), [b"\1"])
        writer.add(key, dtype, shape, [content])
    assert caught.value.code == "BAD_TENSOR"


def copy_of(name: str, path: Path) -> Path:
    shutil.copytree(MODELS / name, path / name)
    return path / name


def test_damage_is_named(tmp_path: Path) -> None:
    model = copy_of("module", tmp_path)
    index, data = model / "variables/variables.index", model / "variables/variables.data-00000-of-00001"

    content = data.read_bytes()
    data.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])
    with BundleReader(open_dir(model)) as bundle, pytest.raises(ModelError) as caught:
        for entry in bundle.entries.values():
            bundle.verify(entry)
    assert caught.value.code == "CRC_MISMATCH"
    assert "weights" in caught.value.message

    with (
        BundleReader(open_dir(model)) as bundle,
        pytest.raises(ModelError),
        BundleWriter(tmp_path / "copy") as writer,
    ):
        for entry in bundle.entries.values():
            writer.copy(entry, bundle)
    assert not (tmp_path / "copy.index").exists()

    data.write_bytes(content[:-1])
    with BundleReader(open_dir(model)) as bundle, pytest.raises(ModelError) as caught:
        bundle.read(bundle.entries["_CHECKPOINTABLE_OBJECT_GRAPH"])
    assert caught.value.code == "TRUNCATED_SHARD"

    data.unlink()
    with BundleReader(open_dir(model)) as bundle, pytest.raises(ModelError) as caught:
        bundle.read(bundle.entries["_CHECKPOINTABLE_OBJECT_GRAPH"])
    assert caught.value.code == "MISSING_SHARD"

    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(ModelError) as caught:
        BundleReader(open_dir(model))
    assert caught.value.code == "INDEX_CORRUPT"

    index.unlink()
    with pytest.raises(ModelError) as caught:
        BundleReader(open_dir(model))
    assert caught.value.code == "NO_VARIABLES"


def test_a_file_too_large_for_an_index_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    index = tmp_path / "variables/variables.index"
    index.touch()
    os.truncate(index, MAX_INDEX_BYTES + 1)
    with pytest.raises(ModelError, match="at most") as caught:
        BundleReader(open_dir(tmp_path))
    assert caught.value.code == "INDEX_CORRUPT"


def test_chunks_have_the_size_asked_for(tmp_path: Path) -> None:
    with write(tmp_path, a=("uint8", (10,), bytes(range(10)))) as bundle:
        assert [len(chunk) for chunk in bundle.chunks(bundle.entries["a"], 4)] == [4, 4, 2]
