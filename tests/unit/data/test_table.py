import gzip
import lzma
import struct
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from servegraph.data import census, schema_file
from servegraph.data.header import places
from servegraph.data.infer import infer
from servegraph.data.schema import Column, Schema
from servegraph.data.table import read, split
from servegraph.errors import DataError, SchemaError, StorageError
from servegraph.train.train import TrainRequest, load_schema
from servegraph.train.vocabulary import vocabulary
from servegraph_pipelines.cli.cmd_schema import command

SCHEMA = Schema(
    columns=(Column("age", "float32"), Column("job", "string"), Column("n", "int64"), Column("y", "string")),
    label="y",
)
NUMBERS = replace(SCHEMA, columns=(*SCHEMA.columns[:-1], Column("y", "float32")))
GOOD = "age,job,n,y\n39, State-gov,1, <=50K\n50, Private,2, >50K\n"


def write(path, text):
    path.write_text(text)
    return str(path)


def masked(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write_tfrecord(path, rows):
    from tensorflow.core.example import example_pb2

    with path.open("wb") as file:
        for row in rows:
            example = example_pb2.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                if isinstance(value, str):
                    feature.bytes_list.value.append(value.encode())
                elif isinstance(value, int):
                    feature.int64_list.value.append(value)
                else:
                    feature.float_list.value.extend(np.atleast_1d(value))
            data = example.SerializeToString()
            head = struct.pack("<Q", len(data))
            file.write(head + struct.pack("<I", masked(head)) + data + struct.pack("<I", masked(data)))
    return str(path)


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


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"x": 1, "y": 0}\n{"x": 2, "y": 1}\n', "JSON"),
        (b'\xef\xbb\xbf\n[{"x": 1}, {"x": 2}]\n', "JSON"),
        (b'[\n{"x": "' + b"a" * 100_000 + b'"}]', "JSON"),
        (b"PAR1\x15\x04\x15", "a Parquet file"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive or an Excel workbook"),
        (GOOD.encode("utf-16"), "text in UTF-16"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, what):
    (tmp_path / "d.csv").write_bytes(content)
    for take in (infer, lambda path: read(path, SCHEMA)):
        with pytest.raises(DataError, match=f"d.csv is {what}, not CSV or TFRecord") as caught:
            take(str(tmp_path / "d.csv"))
        assert caught.value.code == "WRONG_FORMAT"


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


@pytest.fixture(scope="module")
def table():
    return read(str(census.DATA), schema_file.parse(census.SCHEMA.read_text(), "census"))


class TestCensus:
    def test_it_has_all_records(self, table):
        assert len(table) == 32_561
        assert set(table.features["gender"]) == {" Male", " Female"}

    def test_the_split_is_fixed_and_keeps_equal_records_together(self, table):
        training, held_out = split(table)
        assert (len(training), len(held_out)) == (26_061, 6_500)
        # In another order the same records are held out.
        _, other = split(table.take(np.arange(len(table))[::-1]))
        assert len(other) == len(held_out)
        keys = {tuple(record.values()) for record in held_out.instances()}
        assert keys == {tuple(record.values()) for record in other.instances()}
        assert not keys & {tuple(record.values()) for record in training.instances()}


def test_another_class_leaves_the_split_as_it_was(tmp_path):
    rows = "".join(f"{n},p,1,{'bc'[n % 2]}\n" for n in range(100))
    table = read(write(tmp_path / "d.csv", "age,job,n,y\n" + rows), SCHEMA)
    more = read(write(tmp_path / "e.csv", "age,job,n,y\n" + rows + "0,p,1,a\n"), SCHEMA)
    held_out, held_out_of_more = ([*split(t)[1].features["age"]] for t in (table, more.take(np.arange(100))))
    assert held_out == held_out_of_more


def held_out_of(path, schema=None):
    """Return what names the records that are held out: their `id`, a number."""
    return sorted(split(read(path, schema or inferred(path)))[1].features["id"].tolist())


def test_what_is_held_out_does_not_depend_on_the_rest_of_the_data(tmp_path):
    def row(n, shown=lambda number: f"{number}"):
        return {"id": shown(n), "age": "" if n % 7 else shown(n % 50), "job": "pqr"[n % 3], "y": "ab"[n % 2]}

    def file(name, rows):
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        return write(tmp_path / name, "".join(f"{line}\n" for line in lines))

    first = held_out_of(file("d.csv", [row(n) for n in range(500)]))
    assert 50 < len(first) < 150
    others = {
        "another_median": [row(n) for n in range(500)] + [{**row(n), "age": "90"} for n in range(1000, 1400)],
        "another_order": [{"job": None, "age": None, "id": None, **row(n)} for n in range(500)],
        "a_column_more": [{"bonus": "", **row(n)} for n in range(500)] + [{"bonus": "7", **row(1000)}],
        "as_pandas_writes_it": [row(n, lambda number: f"{number}.0") for n in range(500)],
        "spaces": [{name: f" {cell}" for name, cell in row(n).items()} for n in range(500)],
    }
    for name, rows in others.items():
        assert [n for n in held_out_of(file(f"{name}.csv", rows)) if n < 500] == first, name


def test_a_record_is_on_one_side_in_every_format_and_by_every_schema(tmp_path):
    rows = [{"id": float(n), "x": n / 8 + 0.1, "job": "pq"[n % 2], "y": n % 2} for n in range(300)]
    text = "id,x,job,y\n" + "".join(f"{row['id']:.0f},{row['x']},{row['job']},{row['y']}\n" for row in rows)
    path = write(tmp_path / "d.csv", text)
    first = held_out_of(path)
    records = write_tfrecord(tmp_path / "d", rows)
    assert held_out_of(records, infer(records, "y").schema) == first
    texts = Schema((Column("id", "float32"), *(Column(name, "string") for name in ("x", "job", "y"))), "y")
    assert held_out_of(path, texts) == first


def test_records_that_hardly_differ_cannot_be_split(tmp_path):
    table = read(write(tmp_path / "d.csv", "age,job,n,y\n" + "1,p,1,a\n1,p,1,b\n" * 50), SCHEMA)
    with pytest.raises(DataError, match="100 rows with 2 different records") as caught:
        split(table)
    assert caught.value.code == "TOO_FEW_ROWS"


def inferred(path, label=None):
    return infer(path, label).schema


class TestInfer:
    def test_numbers_text_and_label(self, tmp_path):
        found = inferred(write(tmp_path / "d.csv", GOOD))
        assert [column.dtype for column in found.columns] == ["float32", "string", "float32", "string"]
        assert found.label == "y"
        assert found.label_column.classes == ("<=50K", ">50K")

    def test_the_schema_it_writes_reads_the_data(self, tmp_path):
        path = write(tmp_path / "d.csv", "a;b\n1,5;x\n")
        found = schema_file.parse(schema_file.dump(inferred(path)), "inferred")
        assert found.delimiter == ";"

    def test_headless_data_gets_made_up_names(self, tmp_path):
        found = inferred(write(tmp_path / "d.csv", "1,a,0\n2,b,1\n"))
        assert not found.header
        assert [column.name for column in found.columns] == ["column_1", "column_2", "column_3"]
        assert found.label_column.classes == ("0", "1")

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            (",age,income\n0,39,a\n1,50,b\n", ["column_1", "age", "income"]),
            (",text,mood\n0,so,good\n1,la,bad\n2,la,good\n3,so,bad\n", ["column_1", "text", "mood"]),
            ("name,2019,2020,price\na,1,2,3\nb,4,5,6\n", ["name", "2019", "2020", "price"]),
            ("red,price\nred,1\n,2\n", ["red", "price"]),
            ("red,size,colour\nred,S,pink\n,M,pink\nred,S,teal\n,M,teal\n", ["red", "size", "colour"]),
            ("1,a,0\n2,b,1\n", None),
            (",a,0\n2,b,1\n3,a,0\n", None),
            (",red\nS,teal\nM,red\n", None),
            ("a,red\nb,teal\nc,red\n", None),
        ],
    )
    def test_a_header_is_told_by_what_most_columns_say(self, tmp_path, text, names):
        path = write(tmp_path / "d.csv", text)
        found = inferred(path)
        assert [column.name for column in found.columns] == (names or places(len(found.columns)))
        assert found.header == bool(names)
        assert len(read(path, found)) == len(text.splitlines()) - found.header

    def test_a_measured_label_makes_a_regression(self, tmp_path):
        found = inferred(write(tmp_path / "d.csv", "x,price\n1,2.5\n2,3.25\n"))
        assert not found.is_classification

    def test_identifiers_and_many_valued_text(self, tmp_path):
        rows = "".join(f"id{i},v{i % 2000},{i % 2}\n" for i in range(4000))
        found = inferred(write(tmp_path / "d.csv", "id,v,y\n" + rows))
        assert found.column("id").role == "ignore"
        assert found.column("v").hash_buckets == 2048

    @pytest.mark.parametrize(
        ("form", "role", "says"),
        [
            ("{0},{0:02}", "feature", "'x' is taken as text: '0,00' is no number for its comma; write numbers with"),
            ("2024-01-01 {0}", "ignore", "'x' is ignored: none of its values comes twice"),
            ("it is {0}", "ignore", "'x' is free text, which is ignored; to learn from its words"),
        ],
    )
    def test_text_that_never_repeats_is_noted(self, tmp_path, form, role, says):
        rows = "".join(f'"{form.format(i)}",{i % 7},{i % 2}\n' for i in range(200))
        found = infer(write(tmp_path / "d.csv", "x,n,y\n" + rows))
        assert found.schema.column("x").role == role
        assert [note[: len(says)] for note in found.notes] == [says]

    @pytest.mark.parametrize("form", ["{:09}{}", "{1}{0:07}"])
    def test_digits_that_end_or_begin_with_a_letter_at_times_are_an_identifier(self, tmp_path, form):
        rows = "".join(f"{form.format(7919 * i, '123456789X'[i % 10])},{i % 7},{i % 2}\n" for i in range(200))
        found = infer(write(tmp_path / "d.csv", "isbn,n,y\n" + rows))
        assert found.schema.column("isbn").role == "ignore"
        assert [note.split(":")[0] for note in found.notes] == ["'isbn' is ignored"]

    @pytest.mark.parametrize("odd", ["12o", "100km", "many"])
    def test_numbers_with_an_odd_one_among_them_are_no_identifier(self, tmp_path, odd):
        rows = "".join(f"{7919 * i},{i % 7},{i % 2}\n" for i in range(200))
        found = infer(write(tmp_path / "d.csv", f"x,n,y\n{rows}{odd},1,1\n"))
        assert found.notes[0].startswith(f"'x' is taken as text: '{odd}' is no number")

    def test_free_text_is_taken_whole(self, tmp_path):
        rows = "".join(f"{'ab'[i % 2]},this is {i % 150}\n" for i in range(200))
        found = infer(write(tmp_path / "d.csv", "y,x\n" + rows), "y")
        assert found.schema.column("x").vocabulary_size == 150
        assert found.notes[0].startswith("'x' is free text, of which each value is taken whole;")

    def test_a_label_with_decimal_commas(self, tmp_path):
        rows = "".join(f'{i % 7},"{i},5"\n' for i in range(200))
        with pytest.raises(DataError, match=r"label column 'y' cannot be read as numbers: '0,5' is no number for"):
            inferred(write(tmp_path / "d.csv", "x,y\n" + rows))

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("x,y\n1,a\n2,b\n", "x,y\n1,c\n"),
            ("x,y\n1,a\n2,a\n", "x,y\n1,b\n3,c\n"),
            ("x,y\n", "x,y\n1,a\n2,b\n3,c\n"),
            ("", "x,y\n1,a\n2,b\n3,c\n"),
            ("x,y\n1,a\n2,b\n3,c\n", ""),
            ("x,y\n" + "1,a\n2,b\n" * 120_000 + "1,c\n", "x,y\n"),
        ],
    )
    def test_all_records_of_all_files_are_looked_at(self, tmp_path, first, second):
        write(tmp_path / "a.csv", first)
        write(tmp_path / "b.csv", second)
        found = inferred(str(tmp_path / "*.csv"))
        assert found.label_column.classes == ("a", "b", "c")
        assert found.column("x").dtype == "float32"

    def test_one_text_anywhere_makes_a_column_text(self, tmp_path):
        write(tmp_path / "a.csv", "x,y\n1,a\n2,b\n")
        write(tmp_path / "b.csv", "x,y\nmany,a\n")
        assert inferred(str(tmp_path / "*.csv")).column("x").vocabulary_size == 3

    def test_a_label_that_is_empty(self, tmp_path):
        with pytest.raises(DataError, match="'column_3' is empty") as caught:
            inferred(write(tmp_path / "d.csv", "x,y,\n1,a,\n2,b,\n"))
        assert caught.value.code == "MISSING_VALUE"

    def test_vectors_are_refused_and_missing_features_filled(self, tmp_path):
        with pytest.raises(DataError, match="'v' has 3 values in record 2") as caught:
            inferred(write_tfrecord(tmp_path / "v", [{"v": 1.0, "y": "a"}, {"v": [1.0, 2.0, 3.0], "y": "b"}]))
        assert caught.value.code == "MISSING_COLUMN"
        rows = [{"age": 1.0, "y": "a"}, {"job": "p", "age": 3.0, "y": "b"}, {"job": "q", "y": "b"}]
        path = write_tfrecord(tmp_path / "d", rows)
        found = inferred(path, "y")
        assert [column.default for column in found.features] == [3.0, ""]
        assert read(path, found).features["job"].tolist() == ["", "p", "q"]

    def test_empty_cells_give_a_default(self, tmp_path):
        found = inferred(write(tmp_path / "d.csv", "x,y\n1,a\n,b\n3,a\n5,b\n"))
        assert found.column("x").default == 3.0

    def test_words_for_a_missing_number_give_a_default(self, tmp_path):
        words = ["NA", " n/a", "NaN", "null", "None", "-", "?", ""]
        path = write(tmp_path / "d.csv", "x,y\n1,a\n4,b\n2.3,b\n" + "".join(f"{word},a\n" for word in words))
        found = infer(path)
        assert found.schema.column("x") == Column("x", "float32", default=2.3)
        assert found.notes == ("7 cells of 'x' say that there is no number; they get the default 2.3.",)
        assert read(path, found.schema).features["x"].tolist() == np.float32([1, 4, 2.3] + [2.3] * len(words)).tolist()

    def test_a_number_that_is_none_gives_a_default(self, tmp_path):
        path = write_tfrecord(tmp_path / "d", [{"x": x, "y": y} for x, y in [(float("nan"), "a"), (1.0, "b")]])
        found = infer(path)
        assert found.schema.column("x") == Column("x", "float32", default=1.0)
        assert found.notes == ("1 cells of 'x' say that there is no number; they get the default 1.0.",)
        assert read(path, found.schema).features["x"].tolist() == [1.0, 1.0]
        with pytest.raises(DataError, match=r"'x' in row 1 .* is nan, which says that there is none\. .*`default`"):
            read(path, Schema((Column("x", "float32"), Column("y", "string")), "y"))

    @pytest.mark.parametrize(
        ("cells", "label", "says"),
        [
            ("1 2 many 3", "a b a b", "'x' is taken as text: 'many' is no number"),
            ("1,5 2,5 3,5 4,5", "a b a b", "'x' is taken as text: '1,5' is no number for its comma"),
            ("1.234,5 2.234,5 3,5 4", "a b a b", "'x' is taken as text: '1.234,5' is no number for its comma"),
            ("10.0.0.1 10.0.0.2 3,a 4,b", "a b a b", None),
            ("1 2 3 4", "10 20 30 10", "The 3 different whole numbers of the label 'y' are taken as classes"),
            ("1 2 3 4", "0 1 0 1", None),
            ("1 a ? NA", "a b a b", None),
        ],
    )
    def test_what_may_be_meant_otherwise_is_noted(self, tmp_path, cells, label, says):
        rows = "".join(f'"{x}",{y}\n' for x, y in zip(cells.split(), label.split(), strict=True))
        notes = infer(write(tmp_path / "d.csv", "x,y\n" + rows)).notes
        assert [note.startswith(says or "") for note in notes] == [True] * (says is not None)

    def test_the_command_writes_the_schema_and_says_the_notes_beside_it(self, tmp_path):
        path = write(tmp_path / "d.csv", "x,y\n1,a\nNA,b\n")
        said = CliRunner().invoke(command, [path])
        assert schema_file.parse(said.stdout, "written") == infer(path).schema
        assert said.stderr == f"note: {infer(path).notes[0]}\n"

    def test_training_says_the_notes(self, tmp_path, capsys):
        path = write(tmp_path / "d.csv", "x,y\n1,a\nNA,b\n")
        assert load_schema(TrainRequest(data=path)) == infer(path).schema
        assert capsys.readouterr().out == f"note: {infer(path).notes[0]}\n"

    def test_tfrecord(self, tmp_path):
        rows = [{"age": float(i), "job": "ab"[i % 2], "y": i % 2} for i in range(6)]
        found = inferred(write_tfrecord(tmp_path / "d", rows), "y")
        assert found.column("age").dtype == "float32"
        assert found.column("job").vocabulary_size == 2

    def test_a_label_that_is_not_there(self, tmp_path):
        with pytest.raises(DataError, match="'z'"):
            inferred(write(tmp_path / "d.csv", GOOD), "z")

    def test_a_file_of_text_alone_has_no_header_if_its_first_row_recurs(self, tmp_path):
        path = write(tmp_path / "d.tsv", "ham\tGo, now\nspam\tWin, win, win\nham\tok\n")
        found = inferred(path, "column_1")
        assert (found.header, found.delimiter) == (False, "\t")
        assert found.label_column.classes == ("ham", "spam")

    def test_rows_of_another_length_are_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"Row 2 .* has 3 cells where the first has 2"):
            inferred(write(tmp_path / "d.csv", "150,4\n1,2,3\n"))

    def test_free_text_is_no_label(self, tmp_path):
        rows = "".join(f"a,text {i}\n" for i in range(200))
        with pytest.raises(DataError) as caught:
            inferred(write(tmp_path / "d.csv", "x,y\n" + rows))
        assert caught.value.code == "TOO_MANY_CLASSES"

    def test_columns_that_cannot_be_told_apart_or_learned_from(self, tmp_path):
        with pytest.raises(SchemaError, match="same name"):
            inferred(write(tmp_path / "a.csv", "a b,a-b,y\n1,2,x\n3,4,z\n"))
        with pytest.raises(SchemaError) as caught:
            inferred(write(tmp_path / "b.csv", "y\n1\n0\n"))
        assert caught.value.code == "NO_FEATURES"
        with pytest.raises(DataError) as caught:
            inferred(write(tmp_path / "c.csv", "a,a,y\n1,2,x\n3,4,z\n"))
        assert caught.value.code == "REPEATED_COLUMN"


def test_columns_in_other_scripts_have_names_of_their_own(tmp_path):
    columns = {
        "年龄": "u5e74u9f84",
        "姓名": "u59d3u540d",
        "이름 2": "uc774ub984_2",
        "пол": "u043fu043eu043b",
        "âge": "age",
    }
    rows = ",".join(columns) + ",収入\n" + "1,2,3,4,5,0\n4,5,6,7,8,1\n" * 3
    path = write(tmp_path / "d.csv", rows)
    found = infer(path)
    assert {column.name: column.input_name for column in found.schema.features} == columns
    assert found.notes[0] == "The column '年龄' is the model's input 'u5e74u9f84': requests have it under that name."
    assert set(read(path, found.schema).features) == set(columns.values())


def test_a_column_that_the_model_calls_otherwise_is_named(tmp_path):
    rows = "größe,hours-per week,class,y\n" + "1,2,3,0\n4,5,6,1\n" * 3
    assert infer(write(tmp_path / "d.csv", rows)).notes == (
        "The column 'größe' is the model's input 'gro_e': requests have it under that name.",
        "The column 'class' is the model's input 'column_class': requests have it under that name.",
    )
