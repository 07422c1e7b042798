"""Functions in a process of their own: what they return and raise, beside other work, and given up with it."""

import os
import subprocess
import sys
import time

import pytest

from servegraph.answers.child import beside, in_child
from servegraph.data import schema_file
from servegraph.errors import DataError, ModelError, SchemaError

TEXT = {"capture_output": True, "text": True, "check": False}


def fail() -> None:
    raise DataError("The line is no JSON.")


def ask_again_and_again() -> None:
    for _ in range(1000):
        try:
            in_child(time.sleep, 10)
        except ModelError:  # as of a loader that crashed, after which the next one is tried
            continue


def test_it_returns_and_raises_as_here():
    assert in_child(divmod, 7, 2) == (3, 1)
    with pytest.raises(SchemaError, match="it"):
        in_child(schema_file.parse, "columns: 3", "it")


def test_a_crash_ends_the_child_alone():
    with pytest.raises(ModelError) as caught:
        in_child(os.abort)
    assert caught.value.code == "CRASHED"
    assert in_child(divmod, 7, 2) == (3, 1)


def test_rewriting_does_not_wait_for_asking():
    in_child(os.getpid)
    with beside(in_child, time.sleep, 2) as coming:
        time.sleep(0.2)
        assert in_child(divmod, 7, 2, lane="rewrite") == (3, 1)
        assert not coming.done()
        with pytest.raises(ModelError):
            in_child(os.abort, lane="rewrite")
        assert in_child(divmod, 9, 2, lane="rewrite") == (4, 1)
    assert coming.result() is None


def test_it_runs_beside_other_work():
    with beside(in_child, os.getpid) as coming:
        here = os.getpid()
    assert coming.result() != here
    with beside(fail) as coming:
        pass
    with pytest.raises(DataError):
        coming.result()


def test_other_work_that_fails_ends_it():
    in_child(os.getpid)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), beside(ask_again_and_again):
        time.sleep(0.2)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 9  # not even the first sleep came to its end
    assert in_child(divmod, 7, 2) == (3, 1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always looks there")
def test_it_imports_nothing_from_the_working_directory(tmp_path):
    """A user's file there may be called as what TensorFlow imports."""
    for name in ("http", "keras", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    code = "from servegraph.answers.child import in_child; print(in_child(divmod, 7, 2))"
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.remove(''); {code}"], cwd=tmp_path, **TEXT)
    assert (done.stdout, done.returncode) == ("(3, 1)\n", 0), done.stderr
