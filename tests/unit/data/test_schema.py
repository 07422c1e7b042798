import pytest

from servegraph.data import census, schema_file
from servegraph.data.schema import Column, Cross, Schema
from servegraph.errors import SchemaError

FULL = Schema(
    columns=(
        Column("age", "float32", buckets=(18.0, 65.0), default=30.0),
        Column("work class", "string", vocabulary=("a", "b")),
        Column("occupation", "string", hash_buckets=100),
        Column("fnlwgt", "float32", role="ignore"),
        Column("label", "string", classes=("<=50K", ">50K")),
    ),
    label="label",
    header=False,
    delimiter=";",
    crosses=(Cross(("work class", "occupation"), 1000),),
)
CROSSED = (
    "label: y\ncolumns: {c: {dtype: string}, x: {dtype: float32}, i: {dtype: string, role: ignore}, y: {dtype: string}}\n"
    "crosses: [{columns: "
)


def test_what_is_dumped_is_parsed_back():
    assert schema_file.parse(schema_file.dump(FULL), "test") == FULL


def test_census_schema_is_valid():
    parsed = schema_file.parse(census.SCHEMA.read_text(), "census")
    assert len(parsed.features) == 12
    assert parsed.label_column.classes == ("<=50K", ">50K")


def test_features_leave_out_the_label_and_what_is_ignored():
    assert [column.name for column in FULL.features] == ["age", "work class", "occupation"]


def test_input_names_are_identifiers():
    assert Column("hours-per week", "float32").input_name == "hours_per_week"
    assert Column("città", "float32").input_name == "citta"
    assert Column("self", "float32").input_name == "column_self"
    assert Column("2nd", "float32").input_name == "column_2nd"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not YAML"),
        ("label: y", "no mapping `columns`"),
        ("label: z\ncolumns: {y: {dtype: string}}", "not one of its columns"),
        ("label: y\ncolumns: {y: {dtype: str}}", "dtype"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, vocab: 3}}", "unknown keys"),
        ("label: y\nlabels: y\ncolumns: {y: {dtype: string}}", "unknown keys"),
        ("label: y\ncolumns: {y: {dtype: string}}", "no feature"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, hash_buckets: 0}}", "at least 1"),
        (
            "label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, hash_buckets: 3, vocabulary_size: 3}}",
            "more than one",
        ),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: float32, buckets: [3, 1]}}", "do not ascend"),
        (
            "label: y\ncolumns: {y: {dtype: string}, a b: {dtype: float32}, a-b: {dtype: float32}}",
            r"\['a b', 'a-b'\].*same name",
        ),
        ("label: a_b\ncolumns: {a_b: {dtype: string}, a b: {dtype: float32}}", r"\['a b', 'a_b'\].*same name"),
        ("label: y\ncolumns: {y: {dtype: string}, maß: {dtype: float32}, maø: {dtype: string}}", "'maß', 'maø'"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, vocabulary: [NO, SE]}}", "False .*Quote it"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, vocabulary: [01, 02]}}", "is 1 .*Quote it"),
        ("label: y\ncolumns: {y: {dtype: string, classes: [no, yes]}, x: {dtype: string}}", "False .*Quote it"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, default: off}}", "default.*False .*Quote it"),
        ("label: y\ncolumns: {y: {dtype: string}, no: {dtype: string}}", "name of a column.*False .*Quote it"),
        ("label: y\ncolumns: {y: {dtype: int64, classes: [yes, 1]}, x: {dtype: string}}", "True .*Quote it"),
        ("label: y\nheader: 'false'\ncolumns: {y: {dtype: string}, x: {dtype: string}}", "header.*'false'"),
        ("label: y\ncolumns:\n  y: {dtype: string}\n  x: {dtype: int64}\n  x: {dtype: string}", "line 5.*'x' .*twice"),
        (
            "label: y\ncolumns: {y: {dtype: string}, x: {dtype: float32, buckets: 5}}",
            "gives 5 for `buckets` .* not a list",
        ),
        (
            "label: y\ncolumns: {y: {dtype: string}, x: {dtype: string}}\ncrosses: 3",
            "gives 3 for `crosses` .* not a list",
        ),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, vocabulary: a}}", "gives 'a' .* not a list"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: string, vocabulary: []}}", "no values"),
        (f"{CROSSED}xy, hash_buckets: 9}}]", "gives 'xy' for `columns` .* not a list"),
        (f"{CROSSED}[c, y], hash_buckets: 9}}]", "uses 'y', which is the label"),
        (f"{CROSSED}[c, i], hash_buckets: 9}}]", "uses 'i', which is ignored"),
        (f"{CROSSED}[c, x], hash_buckets: 9}}]", "uses the number 'x'"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: float32, vocabulary_size: 4}}", "category of the float32"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: float32, vocabulary: [1]}}", "category of the float32"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: int64, vocabulary: [1.0]}}", "'1.0'.* no whole number"),
        ("label: y\ncolumns: {y: {dtype: string}, x: {dtype: int64, vocabulary: [a]}}", "'a'.* no whole number"),
        (
            "label: y\ncolumns: {y: {dtype: string}, x: {dtype: string}}\ncrosses: [{columns: [x, q], hash_buckets: 9}]",
            "unknown",
        ),
    ],
)
def test_a_bad_schema_is_refused_with_what_is_wrong(text, says):
    with pytest.raises(SchemaError, match=says):
        schema_file.parse(text, "test.yaml")
