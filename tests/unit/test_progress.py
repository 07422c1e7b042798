"""Progress at a terminal and in a log."""

import os
import pty
import subprocess
import sys

import pytest

SCRIPT = """
from servegraph.progress import Progress
with Progress("cook", total=2) as progress:
    progress.advance("water boils", steps=0)
    progress.under_way("peeling")
    progress.advance("peeled")
    progress.advance("cooked")
    progress.under_way("serving")
"""


def run(stderr: int) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, stderr=stderr, env={**os.environ, "COLUMNS": "120"})


def test_at_a_terminal_it_says_what_is_being_done() -> None:
    ours, its = pty.openpty()
    run(its)
    os.close(its)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "cook: serving" in shown
    assert "cook 0/2" not in shown


def test_a_log_has_a_line_a_step(capfd: pytest.CaptureFixture[str]) -> None:
    run(2)
    assert capfd.readouterr().err.splitlines() == ["cook 0/2: water boils", "cook 1/2: peeled", "cook 2/2: cooked"]
