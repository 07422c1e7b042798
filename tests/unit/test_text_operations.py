"""TensorFlow Text is used where it is installed; it is not here, so that a package of its name stands for it."""

import sys

import pytest

from servegraph import text_operations


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, text_operations.PACKAGE, raising=False)
    text_operations.register.cache_clear()
    yield tmp_path / f"{text_operations.PACKAGE}.py"
    sys.modules.pop(text_operations.PACKAGE, None)
    text_operations.register.cache_clear()


def test_it_is_imported_once(package):
    package.write_text("")
    text_operations.register()
    assert text_operations.PACKAGE in sys.modules


def test_one_that_cannot_be_imported_is_said_and_left(package, caplog):
    package.write_text("raise ImportError('undefined symbol')")
    text_operations.register()
    assert "tensorflow_text is installed and cannot be imported" in caplog.text


def test_it_need_not_be_there(caplog):
    text_operations.register.cache_clear()
    text_operations.register()
    assert not caplog.text
