"""What is said of data that is not what it seems: which column of which file, and no more of it than a line holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from servegraph.data.infer import infer
from servegraph.data.schema import Column, Schema
from servegraph.data.table import read
from servegraph.data.text import listed, quoted
from servegraph.errors import DataError

SCHEMA = Schema((Column("age", "float32"), Column("y", "string")), "y")
RUBBISH = "x" * 5000


def test_columns_that_only_later_files_have_are_named(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("age,y\n1,a\n2,b\n")
    (tmp_path / "2.csv").write_text("age,income,y\n1,5,a\n2,6,b\n")
    (tmp_path / "3.csv").write_text("y,age,income,zip\na,1,7,8\nb,2,8,9\n")
    income, zip_code = infer(str(tmp_path), "y").notes
    assert income.startswith(f"The column 'income' of {tmp_path}/2.csv and 1 more is ignored: the first file does not")
    assert zip_code.startswith(f"The column 'zip' of {tmp_path}/3.csv is ignored")


def test_where_all_files_have_the_same_columns_nothing_is_said(tmp_path: Path) -> None:
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text("age,y\n1,a\n2,b\n")
    assert infer(str(tmp_path), "y").notes == ()


@pytest.mark.parametrize(
    "text",
    [
        f"{RUBBISH},y\n1,a\n2,b\n",
        ",".join(f"column_{n}" for n in range(2000)) + ",y\n",
        f"age,y\n{RUBBISH},a\n2,b\n",
    ],
)
def test_what_a_damaged_file_holds_is_cut(text: str, tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read(str(file), SCHEMA)
    assert len(caught.value.message) < 1000
    assert str(file) in caught.value.message


def test_a_label_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text(f"{RUBBISH},y\n1,a\n2,b\n")
    with pytest.raises(DataError, match=r"has no column 'z'; its columns are \['x{60}' … \(5000 characters\), 'y'\]"):
        infer(str(file), "z")


def test_many_names_are_counted() -> None:
    assert listed(["a", "b"]) == "['a', 'b']"
    assert listed(range(100)).endswith("19 … (100 in all)]")
    assert quoted(b"\xff" * 100).startswith("b'\\xff") and "100 characters" in quoted(b"\xff" * 100)
