import pickle

import pytest

from servegraph import errors
from servegraph.errors import ServegraphError

ALL = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ServegraphError)]


@pytest.mark.parametrize("cls", ALL)
def test_every_error_is_in_the_drawing_and_is_a_builtin_error_too(cls):
    assert cls.__name__ in errors.__doc__
    assert cls is ServegraphError or issubclass(cls, (ValueError, OSError, RuntimeError))
    assert cls.exit_code in (1, 2)


def test_an_error_is_one_printable_line():
    error = errors.DataError("a\nb \x1b[31mred\x1b[0m \x00", fix="do\nthis", code="CODE")
    assert str(error) == "[CODE] a b red \N{REPLACEMENT CHARACTER} Fix: do this"


def test_names_that_tensorflow_generated_are_left_out():
    error = errors.RequestError("Refused: {{function_node __inference_pruned_2141}} {{node x}} Shapes must match")
    assert error.message == "Refused: {{node x}} Shapes must match"


def test_what_is_quoted_is_cut():
    assert len(errors.DataError("x" * 100_000).message) < 3000


@pytest.mark.parametrize("cls", ALL)
def test_code_and_fix_cross_processes(cls):
    error = pickle.loads(pickle.dumps(cls("m", fix="f", code="C")))
    assert (type(error), error.message, error.fix, error.code) == (cls, "m", "f", "C")
