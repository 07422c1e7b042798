"""A rung that fails is left out and named; a damaged source or a full disk ends the climb."""

from pathlib import Path

import pytest

from servegraph.answers.evidence import Evidence
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import ModelError, StorageError
from servegraph.optimize.attempts import Attempts
from servegraph.optimize.climb import Climb
from servegraph.optimize.rungs import Rung
from servegraph.optimize.terms import Terms, Written
from servegraph.progress import Progress
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.graph import Untransformable


def _climbed(tmp_path: Path, error: Exception) -> Climb:
    def fail(_: Draft) -> Draft:
        raise error

    draft = Draft(tmp_path, (), {}, {}, ())
    terms = Terms(None, Tolerance(), (Rung("odd", "fails", "none", change=fail),), climbs_all=True)
    climb = Climb(
        terms, Attempts(Tolerance(), tmp_path / "work", Written(draft, tmp_path, 100)), Progress("test", total=1)
    )
    climb.run(Evidence((), {}))
    return climb


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("a node"), "cannot be applied: KeyError: 'a node'"),
        (Untransformable("it loops"), "cannot be applied: it loops"),
    ],
)
def test_a_rung_that_fails_is_left_out_and_named(tmp_path: Path, error: Exception, reason: str) -> None:
    (step,) = _climbed(tmp_path, error).steps
    assert not step.kept
    assert step.bytes == 100
    assert step.reason == reason


@pytest.mark.parametrize("error", [ModelError("A tensor is damaged."), StorageError("The disk is full.")])
def test_what_is_not_the_rungs_fault_ends_the_climb(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        _climbed(tmp_path, error)
