"""Reading tables: CSV and TFRecord, what they hold and what is refused."""

import gzip
import lzma
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from tests.data_files import GOOD, NUMBERS, SCHEMA, inferred, write, write_tfrecord

from servegraph.data.infer import infer
from servegraph.data.schema import Column, Schema
from servegraph.data.table import read
from servegraph.errors import DataError, StorageError
from servegraph.train.vocabulary import vocabulary


def test_csv_keeps_text_as_the_data_writes_it_and_strips_the_label(tmp_path):
    table = read(write(tmp_path / "d.csv", GOOD), SCHEMA)
    assert table.features["age"].dtype == np.float32
    assert table.features["n"].dtype == np.int64
    assert table.features["job"].tolist() == [" State-gov", " Private"]
    assert table.classes == ("<=50K", ">50K")
    assert table.labels.tolist() == [0, 1]


def test_a_record_has_the_numbers_of_the_data(tmp_path):
    table = read(write(tmp_path / "d.csv", "age,job,n,y\n40.6,p,1,0.1\n-0,q,2,16777217\n"), NUMBERS)
    records = list(table.instances())
    assert records == [{"age": 40.6, "job": "p", "n": 1, "y": 0.1}, {"age": -0.0, "job": "q", "n": 2, "y": 16777216.0}]
    assert np.array_equal(np.float32([record["age"] for record in records]), table.features["age"])


def test_columns_are_found_by_name_and_others_passed_over(tmp_path):
    text = "extra,y,n,job,age\nx,a,1,p,2\nx,b,1,p,3\n"
    table = read(write(tmp_path / "d.csv", text), SCHEMA)
    assert table.features["age"].tolist() == [2.0, 3.0]
    assert set(table.features) == {"age", "job", "n"}


def test_several_files_and_compressed_ones(tmp_path):
    write(tmp_path / "a.csv", GOOD)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    assert len(read(str(tmp_path / "*.csv*"), SCHEMA)) == 4
    assert len(read(str(tmp_path), SCHEMA)) == 4


def test_compression_is_told_by_the_content(tmp_path):
    rows = [{"age": float(n), "job": "pq"[n % 2], "n": n, "y": "ab"[n % 2]} for n in range(4)]
    plain = write_tfrecord(tmp_path / "plain", rows)
    with tf.io.TFRecordWriter(str(tmp_path / "d.tfrecord"), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for record in tf.data.TFRecordDataset(plain):
            writer.write(record.numpy())
    (tmp_path / "d.csv").write_bytes(gzip.compress(GOOD.encode()))
    (tmp_path / "e.csv").write_bytes(lzma.compress(GOOD.encode()))
    for name, count in {"d.tfrecord": 4, "d.csv": 2, "e.csv": 2}.items():
        path = str(tmp_path / name)
        assert len(read(path, SCHEMA)) == len(read(path, infer(path, "y").schema)) == count


def test_what_is_compressed_by_its_name_only_is_read_as_it_is(tmp_path):
    (tmp_path / "a.csv.gz").write_text(GOOD)
    (tmp_path / "b.csv.xz").write_bytes(gzip.compress(GOOD.encode()))
    (tmp_path / "c.csv.bz2").write_text(GOOD.replace("Private", "Privé" * 20_000))
    write_tfrecord(tmp_path / "d.gz", [{"age": 1.0, "job": "p", "n": n, "y": "ab"[n]} for n in range(2)])
    (tmp_path / "e.csv.gz").touch()
    for name in ("a.csv.gz", "b.csv.xz", "c.csv.bz2", "d.gz"):
        path = str(tmp_path / name)
        assert len(read(path, SCHEMA)) == len(read(path, infer(path, "y").schema)) == 2
    assert len(read(str(tmp_path), SCHEMA)) == 8
    (tmp_path / "f.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:-20])
    (tmp_path / "g.csv.gz").write_bytes(bytes(range(1, 256)))
    for name in ("f.csv.gz", "g.csv.gz"):
        with pytest.raises(StorageError, match=f"{name}' cannot be decompressed") as caught:
            read(str(tmp_path / name), SCHEMA)
        assert caught.value.code == "DAMAGED"
    (tmp_path / "h.csv.gz").write_bytes("age,y\n1,Müller\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2 has the byte 0xfc where none can stand"):
        read(str(tmp_path / "h.csv.gz"), SCHEMA)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"x": 1, "y": 0}\n{"x": 2, "y": 1}\n', "JSON"),
        (b'\xef\xbb\xbf\n[{"x": 1}, {"x": 2}]\n', "JSON"),
        (b'[\n{"x": "' + b"a" * 100_000 + b'"}]', "JSON"),
        (b"PAR1\x15\x04\x15", "a Parquet file"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive or an Excel workbook"),
        (GOOD.encode("utf-16"), "text in UTF-16"),
        (GOOD.encode("utf-16-le"), "text in UTF-16 or UTF-32"),  # without a mark, as some tools write it
        (GOOD.encode("utf-16-be"), "text in UTF-16 or UTF-32"),
        ("ЖЖЖ,y\nЖЖЖЖЖЖ,1\n".encode("utf-16-le"), "text in UTF-16 or UTF-32"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, what):
    (tmp_path / "d.csv").write_bytes(content)
    for take in (infer, lambda path: read(path, SCHEMA)):
        with pytest.raises(DataError, match=f"d.csv is {what}, not CSV or TFRecord") as caught:
            take(str(tmp_path / "d.csv"))
        assert caught.value.code == "WRONG_FORMAT"


def test_the_line_of_a_byte_that_is_no_utf_8_is_named(tmp_path):
    lines = (
        b"age,job,n,y\n" + b'1,"a\r\nb",2,x\n' * 5_000 + "1,é,2,x\n".encode("latin-1")
    )  # far behind what is decoded at once
    (tmp_path / "d.csv").write_bytes(lines)
    for take in (infer, lambda path: read(path, SCHEMA)):
        with pytest.raises(DataError, match="line 10002 has the byte 0xe9") as caught:
            take(str(tmp_path / "d.csv"))
        assert caught.value.code == "BAD_ROW" and "iconv" in caught.value.fix


def test_a_cell_beyond_all_measure_is_told_from_text_in_another_encoding(tmp_path):
    path = write(tmp_path / "d.csv", 'age,job,n,y\n1,"a,2,x\n' + "1,b,2,z\n" * 20_000)
    with pytest.raises(DataError, match="a cell has more than 131,072 characters") as caught:
        infer(path)
    assert caught.value.fix.startswith("Close the quote")


def test_json_in_a_cell_and_names_like_magic_are_text(tmp_path):
    table = "PAR1\ty\n" + '{"a": 1}\tx\n[2]\tz\n'
    assert [c.name for c in inferred(write(tmp_path / "d.tsv", table)).columns] == ["PAR1", "y"]
    headless = Schema((Column("a", "string"), Column("y", "string")), "y", header=False, delimiter="\t")
    assert len(read(write(tmp_path / "e.tsv", '{"a": 1}\tx\n[2]\tz\n'), headless)) == 2


def test_without_a_header_the_schema_names_the_columns(tmp_path):
    headless = Schema(SCHEMA.columns, "y", header=False, delimiter=";")
    table = read(write(tmp_path / "d.csv", "1;a;2;x\n\n3;b;4;z\n"), headless)
    assert table.features["n"].tolist() == [2, 4]


def test_a_quoted_cell_may_hold_the_delimiter(tmp_path):
    table = read(write(tmp_path / "d.csv", 'age,job,n,y\n1,"a,b",1,x\n1,c,1,z\n'), SCHEMA)
    assert table.features["job"].tolist() == ["a,b", "c"]


def test_tfrecord_is_told_by_its_content(tmp_path):
    rows = [{"age": 1.5, "job": " p", "n": 3, "y": " a"}, {"age": 2, "job": "q", "n": 4, "y": "b"}]
    table = read(write_tfrecord(tmp_path / "part-00000", rows), SCHEMA)
    assert table.features["age"].tolist() == [1.5, 2.0]
    assert table.features["job"].tolist() == [" p", "q"]
    assert table.classes == ("a", "b")


def test_a_feature_that_is_missing_takes_the_default(tmp_path):
    rows = [{"age": 1.5, "job": "p", "y": "a"}, {"n": 4, "y": "b"}]
    path = write_tfrecord(tmp_path / "d", rows)
    defaults = {"age": 7.0, "job": "none", "n": 3.0, "y": None}
    table = read(path, Schema(tuple(replace(c, default=defaults[c.name]) for c in SCHEMA.columns), "y"))
    assert {name: values.tolist() for name, values in table.features.items()} == {
        "age": [1.5, 7.0],
        "job": ["p", "none"],
        "n": [3, 4],
    }
    with pytest.raises(DataError, match=r"'n' has 0 values in record 1 .*`default`") as caught:
        read(path, SCHEMA)
    assert caught.value.code == "MISSING_COLUMN"


def test_integer_classes_count_upwards(tmp_path):
    numbers = Schema((Column("x", "float32"), Column("y", "int64")), "y")
    table = read(write(tmp_path / "d.csv", "x,y\n1,10\n1,2\n1,9\n"), numbers)
    assert table.classes == ("2", "9", "10")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("age,job,y\n1,a,x\n", "MISSING_COLUMN", "'n'"),
        ("", "EMPTY_DATA", "no rows"),
        ("age,job,n,y\n", "EMPTY_DATA", "no rows"),
        ("age,job,n,y\n1,a,2,x\nforty,a,2,x\n", "NOT_A_NUMBER", "row 3 of .*'forty'"),
        ("age,job,n,y\n1,a,2.5,x\n", "NOT_A_NUMBER", "'n' in row 2.*whole number"),
        ("age,job,n,y\ninf,a,2,x\n", "NOT_A_NUMBER", "finite"),
        ("age,job,n,y\nnan,a,2,x\n", "MISSING_VALUE", "'age' in row 2 .*'nan'.*`default`"),
        ("age,job,n,y\n,a,2,x\n", "MISSING_VALUE", "'age' in row 2"),
        ("age,job,n,y\n1,a,2\n", "BAD_ROW", "3 cells where 4"),
        ("age,job,n,y\n1,a,2,x\n1,a,2,x\n", "ONE_CLASS", "only the values"),
        ("age,job,n,y\n1,a,2,x\n1,a,2, \n", "MISSING_VALUE", "label in row 3 .* is empty"),
        ("age,job,age,n,y\n1,a,1,2,x\n", "REPEATED_COLUMN", "'age'"),
        ("age,job,n,y\n1e300,a,2,x\n", "NOT_A_NUMBER", "'1e300', not a finite"),
    ],
)
def test_bad_csv_is_refused_with_where_and_what(tmp_path, text, code, says):
    with pytest.raises(DataError, match=says) as caught:
        read(write(tmp_path / "d.csv", text), SCHEMA)
    assert caught.value.code == code


def test_a_measured_label_is_not_made_up(tmp_path):
    measured = Schema((Column("x", "float32"), Column("y", "float32")), "y")
    with pytest.raises(DataError, match=r"'y' in row 2 .* is empty.* Leave records without a label out") as caught:
        read(write(tmp_path / "d.csv", "x,y\n1,\n"), measured)
    assert caught.value.code == "MISSING_VALUE"


def test_an_unknown_label_is_refused_with_its_row(tmp_path):
    with pytest.raises(DataError, match=r"row 3 of .*'>50K'") as caught:
        read(write(tmp_path / "d.csv", GOOD), SCHEMA, classes=("<=50K", "other"))
    assert caught.value.code == "UNKNOWN_LABEL"


def test_a_damaged_tfrecord_is_refused(tmp_path):
    path = tmp_path / "d.tfrecord"
    write_tfrecord(path, [{"age": 1.0, "job": "p", "n": 3, "y": "a"}])
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match="cut off"):
        read(str(path), SCHEMA)
    path.write_bytes(whole[:20] + b"\x00" + whole[21:])
    with pytest.raises(DataError, match="checksum"):
        read(str(path), SCHEMA)


@pytest.mark.parametrize("space", [" \t\v\f", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}", "\x85", "\x1f"])
def test_white_space_is_what_it_is_to_a_graph(tmp_path, space):
    rows = "".join(f"{n},{word}{space},{n},{n % 2}{space}\n" for n, word in enumerate(["red", "blue"]))
    table = read(write(tmp_path / "d.csv", "age,job,n,y\n" + rows), SCHEMA)
    words, classes = ([f"{text}{space}" for text in texts] for texts in (("blue", "red"), "01"))
    in_graph = [text.decode() for text in tf.strings.strip(words + classes).numpy()]
    assert [*vocabulary(SCHEMA.column("job"), table), *table.classes] == in_graph


def test_missing_files_are_a_storage_error(tmp_path):
    with pytest.raises(StorageError):
        read(str(tmp_path / "nothing*.csv"), SCHEMA)


def test_an_empty_text_takes_the_default(tmp_path):
    filled = Schema((Column("job", "string", default="none"), Column("y", "string")), "y")
    table = read(write(tmp_path / "d.csv", "job,y\n ,a\n p, b\n"), filled)
    assert table.features["job"].tolist() == ["none", " p"]


def test_an_empty_number_takes_the_default(tmp_path):
    filled = Schema((Column("age", "float32", default=7.0), Column("y", "string")), "y")
    table = read(write(tmp_path / "d.csv", "age,y\n,a\n1, b\n"), filled)
    assert table.features["age"].tolist() == [7.0, 1.0]
