"""The hidden directory beside an output: its path, that nothing stays, and what is said where it cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from servegraph.errors import InputError, StorageError
from servegraph.storage.staging import work_directory, writing


def test_its_path_goes_no_further_up_than_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs [1]").mkdir()
    monkeypatch.chdir(tmp_path / "runs [1]")
    with work_directory(Path("models/out")) as work:
        assert work.parent == Path("models")
        assert work.name.startswith(".out-")
        assert work.is_dir()


def test_what_is_moved_away_stays_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    with pytest.raises(InputError), work_directory(out) as work:
        (work / "rest").write_text("")
        (work / "model").mkdir()
        (work / "model").rename(out)
        raise InputError("then it is refused")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_the_system_refuses_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught, work_directory(tmp_path / "file/out"):
        pass
    assert (caught.value.code, bool(caught.value.fix)) == ("CANNOT_WRITE", True)
    with pytest.raises(StorageError) as caught, writing(tmp_path / "out"):
        (tmp_path / "file").mkdir()
    assert str(tmp_path / "out") in caught.value.message


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught, writing(tmp_path / "out"):
        raise StorageError("read", code="NOT_FOUND", fix="Look.")
    assert caught.value.code == "NOT_FOUND"
