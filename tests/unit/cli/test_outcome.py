"""How a verb ends that could not say all it had to."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest

from servegraph_pipelines.cli.outcome import report_error

SERVEGRAPH = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]
MODEL = str(Path(__file__).parents[2] / "real_models/module")
VERBS = [["inspect", MODEL], ["choose", MODEL, "--json"]]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, click.Abort])
def test_an_interruption_is_a_document_too(kind: type[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(kind(), as_json=True) == 130
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "INTERRUPTED"
    assert shown.err == "Interrupted.\n"


def test_a_traceback_is_shown_and_all_else_is_the_same() -> None:
    done = subprocess.run([*SERVEGRAPH, "inspect", "/none", "--debug", "--json"], capture_output=True, text=True)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "NOT_FOUND")
    assert done.stderr.startswith("Traceback") and "error NOT_FOUND: " in done.stderr


def test_an_unexpected_error_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(ValueError("a\x1b[2J\rb\nc\x9bd"), as_json=False)
    assert r"ValueError: a\u001b[2J\u000db" "\n" r"c\u009bd" "\n" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [*VERBS[:1], ["choose", MODEL], ["inspect", "/none"]])
def test_no_colour_means_no_escape(verb: list[str]) -> None:
    parent, child = pty.openpty()
    try:
        for setting, has_escapes in (("", True), ("1", False)):
            environment = {**os.environ, "TERM": "xterm", "NO_COLOR": setting}
            subprocess.run([*SERVEGRAPH, *verb], stdout=child, stderr=child, env=environment, check=False)
            assert (b"\x1b" in os.read(parent, 100_000)) == has_escapes
    finally:
        os.close(parent)
        os.close(child)


@pytest.mark.parametrize("verb", VERBS)
def test_whoever_reads_may_stop(verb: list[str]) -> None:
    with subprocess.Popen([*SERVEGRAPH, *verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("verb", VERBS)
def test_stdout_may_be_closed(verb: list[str]) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *SERVEGRAPH]
    done = subprocess.run([*closed, *verb], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    missing = subprocess.run([*closed, verb[0], "/none", "--json"], stderr=subprocess.PIPE, text=True)
    assert (missing.returncode, missing.stderr.split()[1]) == (2, "NOT_FOUND:")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("verb", VERBS)
def test_where_the_output_has_no_room_the_disk_is_full(verb: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*SERVEGRAPH, *verb], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error DISK_FULL: Cannot write the output: ")
    assert "Traceback" not in done.stderr
