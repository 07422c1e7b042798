"""The schema that is inferred of data that has none."""

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from tests.data_files import GOOD, inferred, write, write_tfrecord

from servegraph.data import schema_file
from servegraph.data.header import places
from servegraph.data.infer import infer
from servegraph.data.schema import Column, Schema
from servegraph.data.table import read
from servegraph.errors import DataError, SchemaError
from servegraph.train.train import TrainRequest, load_schema
from servegraph_pipelines.cli.cmd_schema import command


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

    @pytest.mark.parametrize("cells", [("", ""), ("NA", "NA"), (" ", "-")])
    def test_a_column_without_any_value_is_ignored_and_noted(self, tmp_path, cells):
        rows = "".join(f"{cells[i % 2]},{i % 7},{'yes' if i % 3 else 'no'}\n" for i in range(40))
        found = infer(write(tmp_path / "d.csv", "x,n,y\n" + rows))
        assert [column.name for column in found.schema.features] == ["n"]
        assert found.notes == ("'x' is ignored: no record has a value of it.",)

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
        found = infer(path, "y")
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
            ("$5 -$7.50 $1,200 $8", "a b a b", "'x' is taken as text: '$1,200' is no number for its $"),
            ("5% 7.5% 12% 8%", "a b a b", "'x' is taken as text: '12%' is no number for its %"),
            ("1 2 3 4", "€5 €7 €5 €8", "'y' is taken as text: '€5' is no number for its €"),
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
        assert load_schema(TrainRequest(data=path)) == (infer(path).schema, infer(path).notes)
        assert capsys.readouterr().out == f"note: {infer(path).notes[0]}\n"

    def test_tfrecord(self, tmp_path):
        rows = [{"age": float(i), "job": "ab"[i % 2], "y": i % 2} for i in range(6)]
        found = inferred(write_tfrecord(tmp_path / "d", rows), "y")
        assert found.column("age").dtype == "float32"
        assert found.column("job").vocabulary_size == 2

    def test_a_tfrecord_whose_label_nobody_named_is_told_of(self, tmp_path):
        path = write_tfrecord(tmp_path / "d", [{"bought": "ab"[i % 2], "hours": i / 7} for i in range(6)])
        assert infer(path).schema.label == "hours"
        assert (
            infer(path).notes[0].startswith("'hours', the last by name of the records' features, is taken as the label")
        )
        assert not [note for note in infer(path, "bought").notes if "as the label" in note]

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


def test_the_verb_says_nothing_of_tensorflow(tmp_path):
    data = write_tfrecord(tmp_path / "a.tfrecord", [{"a": 0.5, "y": text} for text in ("p", "q")])
    verb = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()", "schema", data, "--label", "y"]
    done = subprocess.run(verb, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
