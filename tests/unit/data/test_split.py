"""Which records are held out."""

import numpy as np
import pytest
from tests.data_files import SCHEMA, inferred, write, write_tfrecord

from servegraph.data import census, schema_file
from servegraph.data.infer import infer
from servegraph.data.schema import Column, Schema
from servegraph.data.table import read, split
from servegraph.errors import DataError


@pytest.fixture(scope="module")
def table():
    return read(str(census.DATA), schema_file.parse(census.SCHEMA.read_text(), "census"))


class TestCensus:
    def test_it_has_all_records(self, table):
        assert len(table) == 32_561
        assert set(table.features["gender"]) == {" Male", " Female"}

    def test_the_split_is_fixed_and_keeps_equal_records_together(self, table):
        training, held_out = split(table)
        assert (len(training), len(held_out)) == (26_018, 6_543)
        # In another order the same records are held out.
        _, other = split(table.take(np.arange(len(table))[::-1]))
        assert len(other) == len(held_out)
        assert not set(held_out.keys) & set(training.keys)
        keys = {tuple(record.values()) for record in held_out.instances()}
        assert keys == {tuple(record.values()) for record in other.instances()}
        assert not keys & {tuple(record.values()) for record in training.instances()}


def test_another_class_leaves_the_split_as_it_was(tmp_path):
    rows = "".join(f"{n},p,1,{'bc'[n % 2]}\n" for n in range(100))
    table = read(write(tmp_path / "d.csv", "age,job,n,y\n" + rows), SCHEMA)
    more = read(write(tmp_path / "e.csv", "age,job,n,y\n" + rows + "0,p,1,a\n"), SCHEMA)
    held_out, held_out_of_more = ([*split(t)[1].features["age"]] for t in (table, more.take(np.arange(100))))
    assert held_out == held_out_of_more


def test_a_label_decides_nothing(tmp_path):
    rows = "".join(f"{n % 40},p,1,{'ab'[n % 3 == 0]}\n" for n in range(400))  # each record with either label
    training, held_out = split(read(write(tmp_path / "d.csv", "age,job,n,y\n" + rows), SCHEMA))
    assert not set(training.features["age"]) & set(held_out.features["age"])
    assert {*held_out.labels} == {0, 1}


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
    with pytest.raises(DataError, match="100 rows with 1 different records, labels aside") as caught:
        split(table)
    assert caught.value.code == "TOO_FEW_ROWS"
