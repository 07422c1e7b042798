"""What a model is asked with, made in a process of its own."""

import pytest
from tests.fatal_model import write_fatal_model

from servegraph.errors import Refusal
from servegraph.measure.questions import ask_for


def test_a_model_that_ends_its_process_is_said_to_have_done_so(tmp_path):
    write_fatal_model(tmp_path / "m")
    with pytest.raises(Refusal, match="the process in which TensorFlow held it was ended by SIGABRT") as caught:
        ask_for(tmp_path / "m", None)
    assert caught.value.code == "NOTHING_TO_ASK"
